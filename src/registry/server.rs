//! The serving side of the registry on sockets: docs/PROTOCOL.md, "Registry". One future, which owns
//! every connection; when it is dropped they all close, and with them every lease.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::limits::{REGISTRY_ANSWER_MAX, REGISTRY_CONNECTIONS_MAX, REGISTRY_IDLE_MAX};
use crate::node_name::{NodeId, NodeName};
use crate::registry::attempts::{Attempts, NotNow};
use crate::registry::handshake::{HandshakeError, Proved, Purpose, prove_as_server};
use crate::registry::jar::CookieJar;
use crate::registry::names::{LeaseId, Names};
use crate::registry::wire::{self, Announcement, NameList, Refusal, Registration, Reply, Request};

/// The lease of the serving node itself.
const OWN_LEASE: LeaseId = LeaseId(0);

/// Pause after `accept` failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server turned away, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TurnedAway {
    /// More than `REGISTRY_CONNECTIONS_MAX` connections.
    pub full: u64,
    /// Too many connections that had not proved the cookie.
    pub crowded: u64,
    /// From addresses that failed too often.
    pub barred: u64,
    /// Failed the handshake, for whatever reason.
    pub unproved: u64,
}

/// The registry that this node serves.
pub struct Server {
    cookies: CookieJar,
    me: NodeId,
    address: SocketAddr,
    names: RefCell<Names>,
    attempts: RefCell<Attempts>,
    turned_away: Cell<TurnedAway>,
    last_lease: Cell<LeaseId>,
}

impl Server {
    /// A registry bound to `address` with no names yet.
    #[must_use]
    pub fn new(cookies: impl Into<CookieJar>, me: NodeId, address: SocketAddr) -> Self {
        Self {
            cookies: cookies.into(),
            me,
            address,
            names: RefCell::default(),
            attempts: RefCell::default(),
            turned_away: Cell::default(),
            last_lease: Cell::new(OWN_LEASE),
        }
    }

    /// Registers the serving node itself; its lease is this value.
    ///
    /// # Errors
    /// As [`Names::register`].
    pub fn register_own(&self, announcement: Announcement) -> Result<(), Refusal> {
        self.names
            .borrow_mut()
            .register(OWN_LEASE, &self.me, announcement, now_ms())
    }

    /// All names.
    #[must_use]
    pub fn list(&self) -> NameList {
        let names = self.names.borrow().list();
        NameList {
            server: self.me.clone(),
            port: self.address.port(),
            names,
        }
    }

    /// One name.
    ///
    /// # Errors
    /// [`Refusal::Unknown`].
    pub fn resolve(&self, name: &NodeName) -> Result<Registration, Refusal> {
        self.names.borrow().resolve(name)
    }

    /// Where it is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was turned away so far.
    #[must_use]
    pub fn turned_away(&self) -> TurnedAway {
        self.turned_away.get()
    }

    /// Takes connections for as long as it is polled.
    pub async fn serve(&self, listener: TcpListener) -> Infallible {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = connections.next() => (),
                accepted = listener.accept() => match accepted {
                    Ok((stream, from)) => {
                        if self.lets_in(from, connections.len()) {
                            connections.push(self.connection(stream, from));
                        }
                    }
                    Err(error) => {
                        tracing::warn!("the registry at {} cannot take a connection: {error}", self.address);
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn lets_in(&self, from: SocketAddr, connections: usize) -> bool {
        if connections >= REGISTRY_CONNECTIONS_MAX {
            self.count(|turned_away| turned_away.full += 1);
            return false;
        }
        let begun = self.attempts.borrow_mut().begin(from.ip(), Instant::now());
        match begun {
            Ok(()) => true,
            Err(NotNow::Crowded) => {
                self.count(|turned_away| turned_away.crowded += 1);
                false
            }
            Err(NotNow::Barred) => {
                self.count(|turned_away| turned_away.barred += 1);
                false
            }
        }
    }

    fn count(&self, add: impl FnOnce(&mut TurnedAway)) {
        let mut turned_away = self.turned_away.get();
        add(&mut turned_away);
        self.turned_away.set(turned_away);
    }

    async fn connection(&self, mut stream: TcpStream, from: SocketAddr) {
        let proved = prove_as_server(&mut stream, &self.cookies, &[Purpose::Registry], &self.me).await;
        self.attempts
            .borrow_mut()
            .end(from.ip(), proved.is_ok(), Instant::now());
        match proved {
            Ok(proved) => {
                let lease = LeaseId(self.last_lease.get().0 + 1);
                self.last_lease.set(lease);
                self.converse(&mut stream, from, lease, &proved).await;
                if let Some(gone) = self.names.borrow_mut().release(lease) {
                    tracing::info!("registry: {} is gone", gone.node.name);
                }
            }
            Err(error) => {
                self.count(|turned_away| turned_away.unproved += 1);
                match error {
                    error if error.is_of_cookie() || matches!(error, HandshakeError::Versions { .. }) => {
                        tracing::warn!("registry: a connection from {} was refused: {error}", from.ip());
                    }
                    error => tracing::debug!("registry: a connection from {} failed: {error}", from.ip()),
                }
            }
        }
    }

    /// Answers requests until the client closes, breaks the protocol, or has nothing to ask.
    async fn converse(&self, stream: &mut TcpStream, from: SocketAddr, lease: LeaseId, proved: &Proved) {
        let is_local = is_local(stream, from);
        loop {
            let request = if self.names.borrow().holds(lease) {
                wire::receive(stream).await
            } else {
                match timeout(REGISTRY_IDLE_MAX, wire::receive(stream)).await {
                    Ok(received) => received,
                    Err(_) => return,
                }
            };
            let Ok(request) = request else { return };
            let reply = self.answer(request, lease, proved, is_local);
            if !matches!(
                timeout(REGISTRY_ANSWER_MAX, wire::send(stream, &reply)).await,
                Ok(Ok(()))
            ) {
                return;
            }
        }
    }

    fn answer(&self, request: Request, lease: LeaseId, proved: &Proved, is_local: bool) -> Reply {
        let answered = match request {
            Request::Names => Ok(Reply::Names(self.list())),
            Request::Resolve(name) => self.resolve(&name).map(Reply::Resolved),
            Request::Register(_) if !is_local => Err(Refusal::NotLocal),
            Request::Register(announcement) => self.register(lease, proved, announcement),
        };
        answered.unwrap_or_else(Reply::Refused)
    }

    fn register(&self, lease: LeaseId, proved: &Proved, it: Announcement) -> Result<Reply, Refusal> {
        let node = proved.identity.node.as_ref().ok_or(Refusal::NotANode)?;
        let port = it.port;
        self.names.borrow_mut().register(lease, node, it, now_ms())?;
        tracing::info!("registry: {} is registered at port {port}", node.name);
        Ok(Reply::Registered {
            server: self.me.clone(),
            address: self.address.to_string(),
        })
    }
}

/// From loopback, or from one of our own addresses: then both ends have the same one.
fn is_local(stream: &TcpStream, from: SocketAddr) -> bool {
    let from = from.ip().to_canonical();
    from.is_loopback()
        || stream
            .local_addr()
            .is_ok_and(|here| here.ip().to_canonical() == from)
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
