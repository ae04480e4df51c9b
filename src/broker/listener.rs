//! The listener: one open door, which hands each socket to a worker.
//!
//! Parent:   doors (rest_for_one), permanent; one per configured listener
//! Owns:     a duplicate of the bound socket; the door itself outlives a crash ([`Door`])
//! Asked by: the kernel
//! Tells:    connections (start)
//! Dies of:  our bugs only; sockets that wait in the backlog are taken up by its next life

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use supervisors::{ChildSpec, Context, DynamicSupervisor, InitError, Name};

use super::connection::{Connection, Terms};
use super::tables::Tables;

/// Sockets that wait in the kernel until they are accepted.
const BACKLOG: i32 = 4096;

/// Pause after an accept that failed, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port. It is opened before the tree starts, so that a port in use is the operator's to hear of,
/// and stays open while its listener restarts.
#[derive(Clone)]
pub struct Door {
    address: SocketAddr,
    terms: Arc<Terms>,
    socket: Arc<Mutex<Option<TcpListener>>>,
}

impl Door {
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
        let address = socket.local_addr()?;
        Ok(Self {
            address,
            terms: Arc::new(terms),
            socket: Arc::new(Mutex::new(Some(socket))),
        })
    }

    /// A port that is not opened, for a look at the tree without a start.
    #[must_use]
    pub fn unopened(address: SocketAddr, terms: Terms) -> Self {
        Self {
            address,
            terms: Arc::new(terms),
            socket: Arc::default(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port for good: the drain's first step.
    pub fn close(&self) {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn duplicate(&self) -> std::io::Result<TcpListener> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match socket.as_ref() {
            Some(socket) => socket.try_clone(),
            None => Err(std::io::Error::other("the door is closed")),
        }
    }
}

/// The listener of one door.
pub struct Listener {
    door: Door,
    tables: Arc<Tables>,
    connections: Name<DynamicSupervisor>,
    /// Sockets accepted by this life; they go to the workers in turn.
    accepted: usize,
}

impl Listener {
    /// The child of `doors` for one door.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>, door: &Door, connections: &Name<DynamicSupervisor>) -> ChildSpec {
        let (made, opened, under) = (tables.clone(), door.clone(), connections.clone());
        let init = move |ctx: &mut Context<Self>| Self::init(&made, &opened, &under, ctx);
        ChildSpec::worker(
            format!("tcp:{}", door.address),
            tables.arbiters.control_handle(),
            init,
        )
    }

    fn init(
        tables: &Arc<Tables>,
        door: &Door,
        connections: &Name<DynamicSupervisor>,
        ctx: &mut Context<Self>,
    ) -> Result<Self, InitError> {
        let socket = tokio::net::TcpListener::from_std(door.duplicate()?)?;
        ctx.add_stream(futures_util::stream::unfold(socket, |socket| async move {
            let accepted = socket.accept().await;
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Some((accepted.and_then(|(stream, _)| stream.into_std()), socket))
        }));
        tracing::info!(address = %door.address, "listening for MQTT over TCP");
        Ok(Self {
            door: door.clone(),
            tables: tables.clone(),
            connections: connections.clone(),
            accepted: 0,
        })
    }

    fn hand_over(&mut self, socket: TcpStream, ctx: &mut Context<Self>) {
        let worker = self.accepted % self.tables.arbiters.workers;
        self.accepted = self.accepted.wrapping_add(1);
        let spec = Connection::spec(&self.tables, &self.door.terms, worker, socket);
        let started = self.connections.start_child(spec).into_actor(self);
        ctx.spawn(started.map(|started, listener, _| {
            if let Err(error) = started {
                listener.tables.counters[listener.tables.arbiters.control()]
                    .connections_refused
                    .one();
                tracing::warn!(door = %listener.door.address, %error, "a new socket was closed at once");
            }
        }));
    }
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl StreamHandler<std::io::Result<TcpStream>> for Listener {
    fn handle(&mut self, accepted: std::io::Result<TcpStream>, ctx: &mut Context<Self>) {
        match accepted {
            Ok(socket) => self.hand_over(socket, ctx),
            Err(error) => tracing::warn!(door = %self.door.address, %error, "could not accept a socket"),
        }
    }
}
