//! The registry: this node's name on its host, and the way to other nodes' addresses.
//!
//! Parent:   cluster (rest_for_one), permanent
//! Owns:     the registry's port or a lease; both end with it, and the next life takes them anew
//! Asked by: Connector and admin (Resolve, Names, Status), doors (Announce)
//! Tells:    nobody; other nodes and commands come through sockets
//! Dies of:  our bugs only; a port that is taken or a wrong cookie is a sentence in the log

use std::sync::Arc;

use actix::{Actor, AsyncContext, Handler, Message, MessageResult, ResponseFuture, WrapFuture};
use supervisors::{Context, InitError};
use tokio::sync::watch;

use crate::node_name::{NodeId, NodeName};
use crate::registry::client::{ClientError, RegistryClient};
use crate::registry::endpoint::Endpoint;
use crate::registry::handshake::Identity;
use crate::registry::holder::{Holder, Problem, Role};
use crate::registry::jar::CookieJar;
use crate::registry::server::TurnedAway;
use crate::registry::wire::{Announcement, NameList, Registration};

/// What the registry is started with, the same in each of its lives.
#[derive(Clone)]
pub struct RegistryConfig {
    /// The cluster's secret.
    pub cookies: CookieJar,
    /// Who we are.
    pub me: NodeId,
    /// Where the registry of this host is.
    pub endpoint: Endpoint,
    /// What we announce; asked at each start, because ports may be known only then.
    pub announcement: Arc<dyn Fn() -> Announcement + Send + Sync>,
}

/// All names on this host. From admin.
#[derive(Message)]
#[rtype(result = "Result<NameList, ClientError>")]
pub struct Names;

/// Where a node takes links: asked on the host in its name. From Connector and admin.
#[derive(Message)]
#[rtype(result = "Result<Registration, ClientError>")]
pub struct Resolve(pub NodeName);

/// From now on announce this. From doors and gate, when an address of theirs has changed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Announce(pub Announcement);

/// How this node's name is held. From admin.
#[derive(Message)]
#[rtype(result = "Standing")]
pub struct Status;

/// Answered when the first attempt to hold this node's name is over, whatever came of it. From the boot: a
/// node that says that it has started can be joined by name.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Settled;

/// How this node's name is held just now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Not at all, and why; nothing while the first attempt is under way.
    Seeking(Option<Problem>),
    /// This node serves the registry.
    Serving {
        /// Where it is bound, `address:port`.
        address: String,
        /// Whom it turned away.
        turned_away: TurnedAway,
    },
    /// Registered with another node.
    Leased {
        /// Who serves.
        server: NodeId,
        /// Where it is bound, `address:port`.
        address: String,
    },
}

/// The actor. Its work is done by [`Holder`], one future that lives and dies with it.
pub struct Registry {
    /// Runs from `started` on.
    holder: Option<Holder>,
    /// Written by the holder.
    role: watch::Receiver<Role>,
    /// Read by the holder.
    announcement: watch::Sender<Announcement>,
    client: RegistryClient,
    endpoint: Endpoint,
}

impl Registry {
    /// A registry that has not begun yet.
    ///
    /// # Errors
    /// None: whatever keeps the name from being held is retried, and the node goes on without.
    pub fn init(config: &RegistryConfig) -> Result<Self, InitError> {
        let RegistryConfig {
            cookies,
            me,
            endpoint,
            announcement,
        } = config.clone();
        let (announcement, announced) = watch::channel(announcement());
        let (role_sender, role) = watch::channel(Role::Seeking { problem: None });
        let client = RegistryClient::new(
            cookies.clone(),
            Identity::node(me.clone()),
            endpoint.contact.port(),
        );
        let holder = Holder::new(cookies, me, endpoint, announced, role_sender);
        Ok(Self {
            holder: Some(holder),
            role,
            announcement,
            client,
            endpoint,
        })
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(holder) = self.holder.take() {
            ctx.spawn(async move { match holder.hold().await {} }.into_actor(self));
        }
    }
}

impl Handler<Names> for Registry {
    type Result = ResponseFuture<Result<NameList, ClientError>>;

    fn handle(&mut self, _: Names, _: &mut Context<Self>) -> Self::Result {
        if let Role::Serving(server) = &*self.role.borrow() {
            let list = server.list();
            return Box::pin(async { Ok(list) });
        }
        let (client, host) = (self.client.clone(), self.endpoint.contact.ip().to_string());
        Box::pin(async move { client.names(&host).await })
    }
}

impl Handler<Resolve> for Registry {
    type Result = ResponseFuture<Result<Registration, ClientError>>;

    fn handle(&mut self, Resolve(name): Resolve, _: &mut Context<Self>) -> Self::Result {
        if let Role::Serving(server) = &*self.role.borrow()
            && let Ok(registration) = server.resolve(&name)
        {
            return Box::pin(async { Ok(registration) });
        }
        let client = self.client.clone();
        Box::pin(async move { client.resolve(&name).await })
    }
}

impl Handler<Announce> for Registry {
    type Result = ();

    fn handle(&mut self, Announce(announcement): Announce, _: &mut Context<Self>) {
        self.announcement.send_replace(announcement);
    }
}

impl Handler<Status> for Registry {
    type Result = MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> Self::Result {
        MessageResult(match &*self.role.borrow() {
            Role::Seeking { problem } => Standing::Seeking(problem.clone()),
            Role::Serving(server) => Standing::Serving {
                address: server.address().to_string(),
                turned_away: server.turned_away(),
            },
            Role::Leased { server, address } => Standing::Leased {
                server: server.clone(),
                address: address.clone(),
            },
        })
    }
}

impl Handler<Settled> for Registry {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settled, _: &mut Context<Self>) -> Self::Result {
        let mut role = self.role.clone();
        let seeking = |role: &Role| matches!(role, Role::Seeking { problem: None });
        // The sender ends with this actor, and so does this answer.
        Box::pin(async move { drop(role.wait_for(|role| !seeking(role)).await) })
    }
}

#[cfg(test)]
mod tests;
