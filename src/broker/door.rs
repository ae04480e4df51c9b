//! A door: a bound port or unix socket, what it grants, and who came through. It outlives the listener that
//! serves it and belongs to the node, so that a crash closes no port.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket, Type};

use super::crowd::{Crowd, DoorLimits, NodeCrowd, Pass, Refused};
use super::tls::Certificate;
use super::transport::Peer;
use crate::session::event::ClientLimits;
use crate::session::lasting::Guest;

/// Sockets that wait in the kernel until they are accepted.
const BACKLOG: i32 = 4096;

/// Path of the WebSocket upgrade unless configured otherwise; EMQX, HiveMQ and most clients have the same.
pub const WEBSOCKET_PATH_DEFAULT: &str = "/mqtt";

/// Where clients find a door.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl Address {
    /// Whether it is a socket file.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether only processes of this host reach it: a loopback address or a socket file.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What is spoken at a door. MQTT 3.1, 3.1.1 and 5.0 are told apart by the CONNECT, on each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT on the socket itself.
    #[default]
    Mqtt,
    /// MQTT in TLS.
    Mqtts,
    /// MQTT in WebSocket frames.
    Ws,
    /// MQTT in WebSocket frames in TLS.
    Wss,
}

impl Protocol {
    /// Whether a certificate is needed.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss)
    }

    /// Whether an HTTP upgrade comes first.
    #[must_use]
    pub fn is_web(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// What a listener grants its clients, and what it asks of them.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is spoken.
    pub protocol: Protocol,
    /// Longest wait for the CONNECT; everything that comes before it is included.
    pub connect_deadline: Duration,
    /// Limits of each client.
    pub client: ClientLimits,
    /// How many it lets in, and how often.
    pub crowd: DoorLimits,
    /// All connections of the node.
    pub node: Arc<NodeCrowd>,
    /// Whether each socket begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Path of the WebSocket upgrade.
    pub websocket_path: String,
    /// Whether the common name of the client's certificate is its user name.
    pub certificate_cn_is_username: bool,
    /// Whether a client that brings nothing may come in, unless the chain of `[auth]` has no `anonymous`.
    pub allow_anonymous: bool,
    /// What the door shows to clients, if it speaks TLS.
    pub certificate: Option<Arc<Certificate>>,
}

impl Terms {
    /// MQTT on plain sockets, as many as come.
    #[must_use]
    pub fn plain(connect_deadline: Duration, client: ClientLimits) -> Self {
        Self {
            protocol: Protocol::Mqtt,
            connect_deadline,
            client,
            crowd: DoorLimits::default(),
            node: Arc::default(),
            proxy_protocol: false,
            websocket_path: WEBSOCKET_PATH_DEFAULT.into(),
            certificate_cn_is_username: false,
            allow_anonymous: true,
            certificate: None,
        }
    }
}

/// What clients may have that have not connected since they came back from the store: what the listener
/// grants through which they came last, should there still be one of its name.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// What holds without a listener.
    pub node: ClientLimits,
    /// What each listener grants, by its name.
    pub listeners: Vec<(String, ClientLimits)>,
}

impl Grants {
    /// Of these doors.
    #[must_use]
    pub fn of_doors(node: ClientLimits, doors: &[Door]) -> Self {
        let grant = |door: &Door| (door.name().to_owned(), door.terms().client);
        Self {
            node,
            listeners: doors.iter().map(grant).collect(),
        }
    }

    /// What a client may have.
    #[must_use]
    pub fn of(&self, guest: Option<&Guest>) -> ClientLimits {
        let came = |name: &str| guest.is_some_and(|guest| guest.listener == name);
        let known = self.listeners.iter().find(|(name, _)| came(name));
        known.map_or(self.node, |(_, limits)| *limits)
    }
}

/// A bound port. It is opened before the tree starts, so that a port in use is the operator's to hear of,
/// and stays open while its listener restarts. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Address,
    name: String,
    terms: Terms,
    socket: Mutex<Option<Ear>>,
    crowd: Arc<Crowd>,
}

/// A client's place at a door, from accept to close.
#[derive(Debug)]
pub struct Seat {
    door: Door,
    _pass: Pass,
}

impl Seat {
    /// The door.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.door
    }
}

impl Door {
    fn new(address: Address, terms: Terms, socket: Option<Ear>) -> Self {
        let scheme = match (terms.protocol, address.is_unix()) {
            (Protocol::Mqtt, false) => "tcp",
            (Protocol::Mqtt, true) => "unix",
            (Protocol::Mqtts, _) => "tls",
            (Protocol::Ws, _) => "ws",
            (Protocol::Wss, _) => "wss",
        };
        let crowd = Crowd::new(terms.crowd, &terms.node, Instant::now());
        Self(Arc::new(Inner {
            name: format!("{scheme}:{address}"),
            address,
            terms,
            socket: Mutex::new(socket),
            crowd,
        }))
    }

    /// Opens the door; TCP port 0 lets the system choose. A socket file gets `unix_mode`; one that nobody
    /// serves any more is replaced.
    ///
    /// # Errors
    /// What the system says, as when the port is in use. Nothing is open then.
    pub fn open(address: &Address, unix_mode: u32, terms: Terms) -> io::Result<Self> {
        let (address, socket) = match address {
            Address::Tcp(address) => {
                let socket = tcp(*address)?;
                (Address::Tcp(socket.local_addr()?), Ear::Tcp(socket))
            }
            Address::Unix(path) => (address.clone(), Ear::Unix(unix(path, unix_mode)?)),
        };
        Ok(Self::new(address, terms, Some(socket)))
    }

    /// A door that is not opened, for a look at the tree without a start.
    #[must_use]
    pub fn unopened(address: Address, terms: Terms) -> Self {
        Self::new(address, terms, None)
    }

    /// For people and for clients: `mqtts://0.0.0.0:8883`, `ws://127.0.0.1:8083/mqtt`, `unix:/run/e.sock`.
    #[must_use]
    pub fn url(&self) -> String {
        let (address, path) = (self.address(), &self.terms().websocket_path);
        match (self.terms().protocol, address) {
            (Protocol::Mqtt, Address::Unix(path)) => format!("unix:{}", path.display()),
            (Protocol::Mqtt, _) => format!("mqtt://{address}"),
            (Protocol::Mqtts, _) => format!("mqtts://{address}"),
            (Protocol::Ws, _) => format!("ws://{address}{path}"),
            (Protocol::Wss, _) => format!("wss://{address}{path}"),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// Its listener's name in the tree, as `tls:0.0.0.0:8883`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it grants.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// Who has come through it.
    #[must_use]
    pub fn crowd(&self) -> &Crowd {
        &self.0.crowd
    }

    /// Whether it is open: not before a start, nor after the drain has begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// A place for one more socket, if there is one.
    ///
    /// # Errors
    /// The limit that it would exceed; it is counted at the door.
    pub fn seat(&self, peer: Peer, now: Instant) -> Result<Seat, Refused> {
        let address = match peer {
            Peer::Ip(address) => Some(address.ip().to_canonical()),
            Peer::Unix => None,
        };
        let pass = self.0.crowd.admit(address, now)?;
        Ok(Seat {
            door: self.clone(),
            _pass: pass,
        })
    }

    /// Closes the door for good and removes its socket file: the drain's first step.
    pub fn close(&self) {
        let closed = self
            .0
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let (Some(_), Address::Unix(path)) = (closed, &self.0.address) {
            // A file that is gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Reads the certificate's files again, if there are any; connections keep what they were opened with.
    ///
    /// # Errors
    /// One sentence: what is wrong, and that the certificate in use is kept.
    #[must_use]
    pub fn reload(&self) -> Option<Result<String, String>> {
        let certificate = self.0.terms.certificate.as_ref()?;
        let name = self.name();
        Some(match certificate.reload() {
            Ok(()) => Ok(format!("{name}: certificate read again")),
            Err(error) => Err(format!("{name}: {error}; the certificate in use is kept")),
        })
    }

    /// A handle of the open socket for one life of the listener.
    pub(super) fn duplicate(&self) -> io::Result<Ear> {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.as_ref() {
            Some(Ear::Tcp(socket)) => socket.try_clone().map(Ear::Tcp),
            Some(Ear::Unix(socket)) => socket.try_clone().map(Ear::Unix),
            None => Err(io::Error::other("the door is closed")),
        }
    }
}

/// A bound socket that belongs to no event loop.
#[derive(Debug)]
pub(super) enum Ear {
    Tcp(TcpListener),
    Unix(UnixListener),
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let what = "there is a file of that name that is no socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) => return Err(error),
        }
    }
    let socket = Socket::new(socket2::Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before anybody can connect: a socket that does not listen yet refuses.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
