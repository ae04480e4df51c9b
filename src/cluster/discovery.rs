//! Discovery: tells the connector whom the configuration and DNS name.
//!
//! Parent:   cluster (rest_for_one), permanent; only where `[cluster]` names somebody
//! Owns:     nothing
//! Asked by: nobody
//! Tells:    Connector (Seeds), at each change and each start
//! Dies of:  our bugs only; a name that DNS does not know is looked up again

use std::net::IpAddr;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, WrapFuture};
use supervisors::{ChildSpec, Context, InitError};
use tokio::time::timeout;

use super::Cluster;
use super::connector::Seeds;
use crate::limits::{HANDSHAKE_DEADLINE, NODES_MAX};
use crate::node_name::NodeName;

/// Pause between two looks at DNS.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Whom to look for without being told by an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Nodes by name; this one may be among them. At most [`NODES_MAX`].
    pub seeds: Vec<NodeName>,
    /// A host name whose addresses are those of the nodes: each is `name@ADDRESS`.
    pub dns: Option<Dns>,
}

/// See [`Places`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// What is looked up.
    pub host: String,
    /// The part before `@` of all its nodes.
    pub name: String,
}

impl Places {
    /// Whether there is nowhere to look.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seeds.is_empty() && self.dns.is_none()
    }
}

impl Dns {
    /// The node at an address.
    #[must_use]
    pub fn node(&self, address: IpAddr) -> Option<NodeName> {
        let name = match address.to_canonical() {
            IpAddr::V4(address) => format!("{}@{address}", self.name),
            IpAddr::V6(address) => format!("{}@[{address}]", self.name),
        };
        name.parse().ok()
    }
}

/// The actor.
pub struct Discovery {
    cluster: Cluster,
    places: Places,
    /// What the connector was told.
    told: Option<Vec<NodeName>>,
    /// What was wrong with DNS last: said once.
    wrong: Option<String>,
}

impl Discovery {
    /// The child of `cluster`, behind the connector.
    #[must_use]
    pub fn spec(cluster: &Cluster, places: &Places) -> ChildSpec {
        let made = (cluster.clone(), places.clone());
        let init = move |_: &mut Context<Self>| {
            let (cluster, places) = made.clone();
            Ok::<_, InitError>(Self {
                cluster,
                places,
                told: None,
                wrong: None,
            })
        };
        ChildSpec::worker("discovery", &cluster.arbiter, init)
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let Some(dns) = self.places.dns.clone() else {
            return self.tell(self.places.seeds.clone());
        };
        let looked = async move {
            let found = timeout(
                HANDSHAKE_DEADLINE,
                tokio::net::lookup_host((dns.host.as_str(), 0)),
            )
            .await;
            match found {
                Ok(Ok(found)) => Ok(found.filter_map(|place| dns.node(place.ip())).collect::<Vec<_>>()),
                Ok(Err(error)) => Err(format!(
                    "[cluster] dns: {} has no address ({error}): correct the name, or add it to DNS",
                    dns.host
                )),
                Err(_) => Err(format!("[cluster] dns: {} was not resolved in time", dns.host)),
            }
        };
        ctx.spawn(looked.into_actor(self).map(|found, me, ctx| {
            match found {
                Ok(found) => {
                    me.wrong = None;
                    me.tell(me.places.seeds.iter().cloned().chain(found).collect());
                }
                Err(sentence) => {
                    me.tell_if_first();
                    if me.wrong.as_ref() != Some(&sentence) {
                        tracing::warn!("{sentence}");
                        me.wrong = Some(sentence);
                    }
                }
            }
            ctx.run_later(LOOK_AGAIN_AFTER, Self::look);
        }));
    }

    /// DNS is silent: the static list counts all the same, and what DNS said before.
    fn tell_if_first(&mut self) {
        if self.told.is_none() && !self.places.seeds.is_empty() {
            self.tell(self.places.seeds.clone());
        }
    }

    fn tell(&mut self, mut names: Vec<NodeName>) {
        names.sort();
        names.dedup();
        names.truncate(NODES_MAX);
        if self.told.as_ref() != Some(&names) && self.cluster.connector.cast(Seeds(names.clone())).is_ok() {
            self.told = Some(names);
        }
    }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_node_of_that_name_and_a_mapped_one_is_the_same() {
        let dns = Dns {
            host: "ermine.example.org".into(),
            name: "ermine".into(),
        };
        let node = |text: &str| dns.node(text.parse().unwrap()).unwrap().to_string();
        assert_eq!(node("10.0.0.7"), "ermine@10.0.0.7");
        assert_eq!(node("::ffff:10.0.0.7"), "ermine@10.0.0.7");
        assert_eq!(node("fd00::7"), "ermine@[fd00::7]");
    }
}
