//! Holds this node's name on its host, whatever it takes: serves the registry if its port is free, else
//! keeps a lease with whoever serves, and races for the port when that lease breaks.
//!
//! One future with no end; dropped, it gives up the port and every lease at once.
//!
//! | state | event | next |
//! |---|---|---|
//! | seeking | port bound | serving, until dropped |
//! | seeking | port in use, registered | leased |
//! | seeking | anything else | seeking: a sentence (once), a pause from 25 ms, doubling to 5 s |
//! | leased | lease broken | seeking, after 0 to 25 ms, with the shortest pause again |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::limits::{REGISTRY_RACE_JITTER_MAX, REGISTRY_RETRY_PAUSE};
use crate::node_name::NodeId;
use crate::registry::client::{ClientError, Lease, RegistryClient};
use crate::registry::endpoint::{ADDRESS_VARIABLE, Endpoint, PORT_VARIABLE, is_loopback_host};
use crate::registry::handshake::Identity;
use crate::registry::jar::CookieJar;
use crate::registry::server::Server;
use crate::registry::wire::{Announcement, Refusal};

/// How this node's name is held just now.
#[derive(Clone)]
pub enum Role {
    /// Not registered yet, or not any more.
    Seeking {
        /// Why not; nothing while the first attempt is under way.
        problem: Option<Problem>,
    },
    /// This node serves the registry.
    Serving(Rc<Server>),
    /// Another node serves it, and we are registered there.
    Leased {
        /// Who serves.
        server: NodeId,
        /// Where it is bound, `address:port`.
        address: String,
    },
}

/// Why the name is not held. The node goes on; other nodes cannot find it by name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    /// The port cannot be bound, and not because it is in use.
    #[error(
        "the registry cannot be served at {address} ({cause}): \
         set {PORT_VARIABLE} or {ADDRESS_VARIABLE} to what this host allows"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: String,
    },
    /// The port is in use and the registry there does not take us.
    #[error("this node is not registered: {0}")]
    Register(ClientError),
    /// What we announce breaks a bound.
    #[error("this node is not registered: {0}")]
    Announcement(Refusal),
}

/// What it takes to hold a name.
pub struct Holder {
    cookies: CookieJar,
    me: NodeId,
    endpoint: Endpoint,
    announcement: watch::Receiver<Announcement>,
    role: watch::Sender<Role>,
}

impl Holder {
    /// A holder that writes into `role` how it stands.
    #[must_use]
    pub fn new(
        cookies: impl Into<CookieJar>,
        me: NodeId,
        endpoint: Endpoint,
        announcement: watch::Receiver<Announcement>,
        role: watch::Sender<Role>,
    ) -> Self {
        Self {
            cookies: cookies.into(),
            me,
            endpoint,
            announcement,
            role,
        }
    }

    /// Holds the name for as long as it is polled.
    pub async fn hold(mut self) -> Infallible {
        let identity = Identity::node(self.me.clone());
        let client = RegistryClient::new(self.cookies.clone(), identity, self.endpoint.contact.port());
        let mut pause = REGISTRY_RETRY_PAUSE.0;
        loop {
            match self.attempt(&client).await {
                Ok(()) => {
                    pause = REGISTRY_RETRY_PAUSE.0;
                    sleep(jitter()).await;
                }
                Err(problem) => {
                    self.seek(problem);
                    sleep(pause).await;
                    pause = (2 * pause).min(REGISTRY_RETRY_PAUSE.1);
                }
            }
        }
    }

    /// Serves for ever, or returns when a lease that was had is lost.
    async fn attempt(&mut self, client: &RegistryClient) -> Result<(), Problem> {
        match TcpListener::bind(self.endpoint.bind).await {
            Ok(listener) => self.serve(listener).await,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let announcement = self.announcement.borrow_and_update().clone();
                let lease = client.register(self.endpoint.contact, announcement).await;
                self.keep(lease.map_err(Problem::Register)?).await;
                Ok(())
            }
            Err(error) => Err(Problem::Bind {
                address: self.endpoint.bind,
                cause: error.to_string(),
            }),
        }
    }

    async fn serve(&mut self, listener: TcpListener) -> Result<(), Problem> {
        let server = Rc::new(Server::new(
            self.cookies.clone(),
            self.me.clone(),
            self.endpoint.bind,
        ));
        let announcement = self.announcement.borrow_and_update().clone();
        server.register_own(announcement).map_err(Problem::Announcement)?;
        tracing::info!("registry: this node serves it at {}", self.endpoint.bind);
        self.role.send_replace(Role::Serving(Rc::clone(&server)));
        let follow = async {
            while self.announcement.changed().await.is_ok() {
                let announcement = self.announcement.borrow_and_update().clone();
                if let Err(refusal) = server.register_own(announcement) {
                    tracing::warn!("registry: what this node announces is left as it was: {refusal}");
                }
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            never = server.serve(listener) => match never {},
            never = follow => match never {},
        }
    }

    async fn keep(&mut self, mut lease: Lease) {
        tracing::info!(
            "registry: registered with {}, which serves it at {}",
            lease.server.name,
            lease.address
        );
        let serves_loopback = lease
            .address
            .parse()
            .is_ok_and(|at: SocketAddr| at.ip().is_loopback());
        if serves_loopback && !is_loopback_host(self.me.name.host()) {
            tracing::warn!(
                "registry: {} serves this host's registry at {} only, so other hosts cannot resolve {}: \
                 set {ADDRESS_VARIABLE}=0.0.0.0 for every node of this host",
                lease.server.name,
                lease.address,
                self.me.name
            );
        }
        let role = Role::Leased {
            server: lease.server.clone(),
            address: lease.address.clone(),
        };
        self.role.send_replace(role);
        loop {
            tokio::select! {
                () = lease.lost() => break,
                changed = self.announcement.changed() => {
                    // The actor that announces owns this future: it cannot be gone while we are polled.
                    let announcement = self.announcement.borrow_and_update().clone();
                    if changed.is_err() || lease.update(announcement).await.is_err() {
                        break;
                    }
                }
            }
        }
        tracing::info!("registry: {} no longer serves it", lease.server.name);
        self.role.send_replace(Role::Seeking { problem: None });
    }

    /// Says each problem once, however often it is met.
    fn seek(&self, problem: Problem) {
        let known = matches!(&*self.role.borrow(), Role::Seeking { problem: Some(old) } if *old == problem);
        if !known {
            tracing::warn!("registry: {problem}");
        }
        self.role.send_replace(Role::Seeking {
            problem: Some(problem),
        });
    }
}

/// Random, so that the nodes of a host do not all meet at the port in the same microsecond.
fn jitter() -> Duration {
    let mut random = [0; 2];
    // Without randomness the race is only less fair.
    let _ = getrandom::fill(&mut random);
    REGISTRY_RACE_JITTER_MAX * u32::from(u16::from_be_bytes(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests;
