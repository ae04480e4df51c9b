//! The listener: one open door, which hands each socket to a worker.
//!
//! Parent:   doors (rest_for_one), permanent; one per configured listener
//! Owns:     a duplicate of the bound socket; the door itself outlives a crash ([`super::door`])
//! Asked by: the kernel
//! Tells:    connections (start)
//! Dies of:  our bugs only; sockets that wait in the backlog are taken up by its next life

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use supervisors::{ChildSpec, Context, DynamicSupervisor, InitError, Name};

use super::connection::Connection;
use super::door::{Door, Ear};
use super::tables::Tables;
use super::transport::LooseSocket;

/// Pause after an accept that failed, as when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        ChildSpec::worker(door.name(), tables.arbiters.control_handle(), init)
    }

    fn init(
        tables: &Arc<Tables>,
        door: &Door,
        connections: &Name<DynamicSupervisor>,
        ctx: &mut Context<Self>,
    ) -> Result<Self, InitError> {
        let ear = Listening::on(door.duplicate()?)?;
        let start = (ear, door.clone());
        ctx.add_stream(futures_util::stream::unfold(start, |(ear, door)| async move {
            // At its rate: who comes now waits in the kernel.
            if let Some(until) = door.crowd().closed_until(Instant::now()) {
                tokio::time::sleep_until(until.into()).await;
            }
            let accepted = ear.accept().await;
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Some((accepted, (ear, door)))
        }));
        tracing::info!(door = door.name(), url = door.url(), "listening for MQTT");
        Ok(Self {
            door: door.clone(),
            tables: tables.clone(),
            connections: connections.clone(),
            accepted: 0,
        })
    }

    fn hand_over(&mut self, socket: LooseSocket, ctx: &mut Context<Self>) {
        let seat = match self.door.seat(socket.peer(), Instant::now()) {
            Ok(seat) => seat,
            Err(refused) => {
                tracing::debug!(door = self.door.name(), %refused, "a new socket was closed at once");
                return refused.count(&self.tables.counters[self.tables.arbiters.control()]);
            }
        };
        let worker = self.accepted % self.tables.arbiters.workers;
        self.accepted = self.accepted.wrapping_add(1);
        let spec = Connection::spec(&self.tables, worker, socket, seat);
        let started = self.connections.start_child(spec).into_actor(self);
        ctx.spawn(started.map(|started, listener, _| {
            if let Err(error) = started {
                listener.count_refused();
                tracing::warn!(door = listener.door.name(), %error, "a new socket was closed at once");
            }
        }));
    }

    fn count_refused(&self) {
        let control = self.tables.arbiters.control();
        self.tables.counters[control].connections_refused.one();
    }
}

/// The door's socket on the event loop of its listener.
enum Listening {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listening {
    fn on(ear: Ear) -> io::Result<Self> {
        Ok(match ear {
            Ear::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Ear::Unix(socket) => Self::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<LooseSocket> {
        Ok(match self {
            Self::Tcp(socket) => LooseSocket::Tcp(socket.accept().await?.0.into_std()?),
            Self::Unix(socket) => LooseSocket::Unix(socket.accept().await?.0.into_std()?),
        })
    }
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl StreamHandler<io::Result<LooseSocket>> for Listener {
    fn handle(&mut self, accepted: io::Result<LooseSocket>, ctx: &mut Context<Self>) {
        match accepted {
            Ok(socket) => self.hand_over(socket, ctx),
            Err(error) => tracing::warn!(door = self.door.name(), %error, "could not accept a socket"),
        }
    }
}
