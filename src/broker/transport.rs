//! A client's bytes, whatever carries them: TCP or a unix socket, plain, under TLS, in WebSocket frames,
//! or both. Knows how bytes travel, not what they say.
//!
//! | variant | carries | kept |
//! |---|---|---|
//! | [`Transport::Plain`] | TCP, unix | in place: nothing between the session and its socket |
//! | [`Transport::Tls`] | rustls over either | boxed |
//! | [`Transport::WebSocket`] | frames over one of the above ([`websocket`]) | boxed |
//!
//! A transport reads and writes as `tokio`'s traits say. What a layer holds back of a write is written by
//! [`Transport::poll_flush`](tokio::io::AsyncWrite::poll_flush), which costs nothing on a plain socket.

pub mod origin;
pub mod websocket;

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub use origin::{Origin, Peer};
pub use websocket::WebSocket;

const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// TLS over a socket, as the server.
pub type Tls = tokio_rustls::server::TlsStream<Socket>;

/// A client's byte stream.
#[derive(Debug)]
pub enum Transport {
    /// The socket itself.
    Plain(Socket),
    /// TLS; its handshake is over.
    Tls(Box<Tls>),
    /// WebSocket frames; the upgrade is over.
    WebSocket(Box<WebSocket>),
}

/// What the kernel gives: the lowest layer of every transport.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// Taken out while its transport moves to another event loop; reads and writes fail.
    Away,
}

/// A socket that belongs to no event loop. It does not block: an event loop accepted it or let it go.
#[derive(Debug)]
pub enum LooseSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A unix stream socket.
    Unix(std::os::unix::net::UnixStream),
}

/// A transport on its way from one event loop to another: everything it remembers, beside its socket.
#[derive(Debug)]
pub struct Parked {
    transport: Transport,
    socket: LooseSocket,
}

impl Parked {
    /// A plain transport of a socket that has not been read.
    #[must_use]
    pub fn plain(socket: LooseSocket) -> Self {
        let transport = Transport::Plain(Socket::Away);
        Self { transport, socket }
    }

    /// The transport on this event loop.
    ///
    /// # Errors
    /// What the system says; the socket is closed then.
    pub fn resume(mut self) -> io::Result<Transport> {
        *self.transport.socket_mut() = self.socket.attach()?;
        Ok(self.transport)
    }
}

impl LooseSocket {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match self {
            // A client that has gone already is nobody any more.
            Self::Tcp(socket) => Peer::Ip(socket.peer_addr().unwrap_or(NOBODY)),
            Self::Unix(_) => Peer::Unix,
        }
    }

    /// The socket on this event loop.
    ///
    /// # Errors
    /// What the system says; the socket is closed then.
    pub fn attach(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(socket) => Socket::Tcp(TcpStream::from_std(socket)?),
            Self::Unix(socket) => Socket::Unix(UnixStream::from_std(socket)?),
        })
    }

    /// Small packets are sent at once.
    ///
    /// # Errors
    /// What the system says; the socket is as it was.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }
}

impl Transport {
    /// Takes the transport off this event loop.
    ///
    /// # Errors
    /// What the system says; the socket is closed then.
    pub fn park(mut self) -> io::Result<Parked> {
        let socket = match std::mem::replace(self.socket_mut(), Socket::Away) {
            Socket::Tcp(socket) => LooseSocket::Tcp(socket.into_std()?),
            Socket::Unix(socket) => LooseSocket::Unix(socket.into_std()?),
            Socket::Away => return Err(io::ErrorKind::NotConnected.into()),
        };
        let transport = self;
        Ok(Parked { transport, socket })
    }

    /// The lowest layer.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
            Self::WebSocket(web) => web.below().socket(),
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_mut().0,
            Self::WebSocket(web) => web.below_mut().socket_mut(),
        }
    }

    /// Whether a read may find something: who waits for this reserves no memory while nothing comes. What
    /// it says is a hint; the read that follows may still be pending.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_read_ready(cx),
            // It does not want to read while it holds what it has deciphered.
            Self::Tls(tls) if !tls.get_ref().1.wants_read() => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.get_ref().0.poll_read_ready(cx),
            Self::WebSocket(web) => web.poll_read_ready(cx),
        }
    }
}

impl Socket {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_read_ready(cx),
            Self::Unix(socket) => socket.poll_read_ready(cx),
            Self::Away => gone(),
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Away => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Away => gone(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Away => gone(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Away => gone(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::WebSocket(web) => web.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    /// A WebSocket writes all of `buf` as one frame: after a write that took only a part, the next one has
    /// to go on with the rest, to which more may have been added.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::WebSocket(web) => web.poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
            Self::WebSocket(web) => {
                let first = bufs.iter().find(|buf| !buf.is_empty());
                web.poll_write(cx, first.map_or(&[], |buf| buf))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        !matches!(self, Self::WebSocket(_))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::WebSocket(web) => web.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::WebSocket(web) => web.poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
