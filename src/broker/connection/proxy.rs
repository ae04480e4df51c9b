//! The PROXY header, versions 1 and 2 (haproxy's proxy-protocol.txt), by which a proxy tells whom it
//! speaks for. A listener that expects it takes nobody without it: whoever reaches the port could else say
//! to be anybody.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest line of version 1, its end included.
const LINE_BYTES_MAX: usize = 107;

/// Longest rest of version 2: addresses take 216 bytes at most, extensions what a proxy adds to them.
const REST_BYTES_MAX: usize = 2048;

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("no PROXY header: the listener expects one (proxy_protocol)")]
    Missing,
    #[error("a PROXY header that is malformed")]
    Malformed,
    #[error("the socket ended within the PROXY header: {0}")]
    Socket(#[from] io::Error),
}

/// Reads a header and not a byte more. `None`: the proxy speaks for itself, or for a client whose address
/// it does not tell.
pub(super) async fn read_header(
    socket: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = Vec::with_capacity(64);
    // No header is shorter than this; one that begins otherwise is refused as soon as that shows.
    while header.len() < SIGNATURE_2.len() {
        let left = SIGNATURE_2.len() - header.len();
        if socket.take(left as u64).read_buf(&mut header).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let begins = |signature: &[u8]| header.iter().zip(signature).all(|(a, b)| a == b);
        if !begins(SIGNATURE_1) && !begins(SIGNATURE_2) {
            return Err(ProxyError::Missing);
        }
    }
    if header == SIGNATURE_2 {
        let mut fixed = [0; 4];
        socket.read_exact(&mut fixed).await?;
        let [command, family, high, low] = fixed;
        let len = usize::from(u16::from_be_bytes([high, low]));
        if len > REST_BYTES_MAX {
            return Err(ProxyError::Malformed);
        }
        let mut rest = vec![0; len];
        socket.read_exact(&mut rest).await?;
        return version_2(command, family, &rest).ok_or(ProxyError::Malformed);
    }
    while !header.ends_with(b"\n") {
        if header.len() == LINE_BYTES_MAX {
            return Err(ProxyError::Malformed);
        }
        // One by one: what follows the line is the client's.
        header.push(socket.read_u8().await?);
    }
    version_1(&header).ok_or(ProxyError::Malformed)
}

fn version_1(line: &[u8]) -> Option<Option<SocketAddr>> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, destination): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let ports: (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    (fits && words.next().is_none()).then(|| Some(SocketAddr::new(source, ports.0)))
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Option<Option<SocketAddr>> {
    match command {
        // LOCAL: a health check of the proxy itself.
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    match family {
        0x11 => {
            let (address, ports): (&[u8; 4], _) = (rest.first_chunk()?, rest.get(8..12)?);
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            Some(Some((Ipv4Addr::from(*address), port).into()))
        }
        0x21 => {
            let (address, ports): (&[u8; 16], _) = (rest.first_chunk()?, rest.get(32..36)?);
            let port = u16::from_be_bytes([ports[0], ports[1]]);
            Some(Some((Ipv6Addr::from(*address), port).into()))
        }
        // Unspecified, datagrams and unix sockets: a good header that names no address of ours.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
