//! A door: a bound port or unix socket, what it grants, and who came through. It outlives the listener that
//! serves it and belongs to the node, so that a crash closes no port.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::session::event::ClientLimits;

/// Sockets that wait in the kernel until they are accepted.
const BACKLOG: i32 = 4096;

/// Where clients find a door.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl Address {
    /// Whether only processes of this host can reach it.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
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
    /// Most sockets at one time; more are closed at once and counted.
    pub connections_max: usize,
    /// Whether each socket begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Path of the WebSocket upgrade.
    pub websocket_path: String,
    /// Whether the common name of the client's certificate is its user name.
    pub certificate_cn_is_username: bool,
    /// Whether a client that brings nothing may come in, unless the chain of `[auth]` has no `anonymous`.
    pub allow_anonymous: bool,
}

impl Terms {
    /// MQTT on plain sockets, as many as come.
    #[must_use]
    pub fn plain(connect_deadline: Duration, client: ClientLimits) -> Self {
        Self {
            protocol: Protocol::Mqtt,
            connect_deadline,
            client,
            connections_max: usize::MAX,
            proxy_protocol: false,
            websocket_path: "/mqtt".into(),
            certificate_cn_is_username: false,
            allow_anonymous: true,
        }
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
    socket: Mutex<Option<TcpListener>>,
    taken: AtomicUsize,
}

/// A client's place at a door, from accept to close.
#[derive(Debug)]
pub struct Seat(Door);

impl Seat {
    /// The door.
    #[must_use]
    pub fn door(&self) -> &Door {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.taken.fetch_sub(1, Relaxed);
    }
}

impl Door {
    fn new(address: Address, terms: Terms, socket: Option<TcpListener>) -> Self {
        let scheme = match (terms.protocol, address.is_unix()) {
            (Protocol::Mqtt, false) => "tcp",
            (Protocol::Mqtt, true) => "unix",
            (Protocol::Mqtts, _) => "tls",
            (Protocol::Ws, _) => "ws",
            (Protocol::Wss, _) => "wss",
        };
        Self(Arc::new(Inner {
            name: format!("{scheme}:{address}"),
            address,
            terms,
            socket: Mutex::new(socket),
            taken: AtomicUsize::new(0),
        }))
    }

    /// Binds a port; port 0 lets the system choose.
    ///
    /// # Errors
    /// What the system says, as when the port is in use. Nothing is open then.
    pub fn bind(address: SocketAddr, terms: Terms) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket: TcpListener = socket.into();
        let address = Address::Tcp(socket.local_addr()?);
        Ok(Self::new(address, terms, Some(socket)))
    }

    /// A port that is not opened, for a look at the tree without a start.
    #[must_use]
    pub fn unopened(address: SocketAddr, terms: Terms) -> Self {
        Self::new(Address::Tcp(address), terms, None)
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

    /// Sockets that came through it and are open.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.load(Relaxed)
    }

    /// A place for one more socket, if there is one.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        let seat = |taken| (taken < self.0.terms.connections_max).then_some(taken + 1);
        let taken = self.0.taken.fetch_update(Relaxed, Relaxed, seat);
        taken.is_ok().then(|| Seat(self.clone()))
    }

    /// Closes the port for good: the drain's first step.
    pub fn close(&self) {
        self.0
            .socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    pub(super) fn duplicate(&self) -> std::io::Result<TcpListener> {
        let socket = self.0.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.as_ref() {
            Some(socket) => socket.try_clone(),
            None => Err(std::io::Error::other("the door is closed")),
        }
    }
}
