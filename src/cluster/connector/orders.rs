//! What operators and the discovery want of the connector besides joins and leaves.

use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use supervisors::Context;
use tokio::time::timeout;

use super::Connector;
use crate::cluster::Cluster;
use crate::cluster::membership::{Event, State};
use crate::cluster::owners::NodeStops;
use crate::cluster::peer::Order;
use crate::limits::DRAIN_LINKS_WITHIN;
use crate::node_name::NodeName;

/// Operator → Connector: force this member out, dead or not. An error is the sentence for the operator.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), String>")]
pub struct Expel(pub NodeName);

/// Discovery → Connector: the nodes that the configuration and DNS name now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct Seeds(pub Vec<NodeName>);

/// Operator → Connector: leave the cluster, as the members learn. Answered when the links are closed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Leave;

/// Node → Connector: this node stops. The members learn why; answered when the links are closed.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Drain;

/// Longest wait for the keeper of wills before the links are closed.
const NEWS_NOTED_WITHIN: Duration = Duration::from_millis(500);

impl Connector {
    /// A node that was forced out works alone and looks healthy: its log must say what it is.
    pub(super) fn say_if_forced_out(&self) {
        if let Some((by, _)) = self.membership.forced_out() {
            let me = &self.cluster.me.name;
            tracing::warn!(
                "{me} was forced out of its cluster by {by} and works alone: \
                 `ermine cluster join` brings it back"
            );
        }
    }
}

impl Handler<Expel> for Connector {
    type Result = Result<(), String>;

    fn handle(&mut self, Expel(name): Expel, ctx: &mut Context<Self>) -> Self::Result {
        if name == self.cluster.me.name {
            return Err(format!(
                "{name} is this node: `ermine cluster leave` takes it out, or ask another \
                 member to force it out"
            ));
        }
        match self.membership.get(&name).map(|member| member.state) {
            None => Err(format!(
                "{name} is no member of this cluster: see `ermine cluster status`"
            )),
            Some(State::Left) => Err(format!("{name} is out already: see `ermine cluster status`")),
            Some(_) => {
                tracing::warn!("{name} is forced out of the cluster by an operator");
                self.reasons.remove(&name);
                self.feed(Event::Expel(name), ctx);
                Ok(())
            }
        }
    }
}

impl Handler<Seeds> for Connector {
    type Result = ();

    fn handle(&mut self, Seeds(names): Seeds, ctx: &mut Context<Self>) {
        if self.membership.is_out() {
            return tracing::warn!(
                "this node is out of its cluster, so [cluster] seeds and dns do not count: \
                 `ermine cluster join` brings it back"
            );
        }
        self.feed(Event::Seeds(names), ctx);
    }
}

impl Handler<Leave> for Connector {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) -> Self::Result {
        tracing::info!("leaving the cluster");
        self.feed(Event::Leave, ctx);
        links_closed(&self.cluster)
    }
}

impl Handler<Drain> for Connector {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Self::Context) -> Self::Result {
        self.draining = true;
        let (board, closed) = (self.cluster.board.clone(), links_closed(&self.cluster));
        let noted = self.cluster.owners.call(NodeStops);
        Box::pin(async move {
            // What became of the wills of the sessions that have just ended is told before we go.
            let _ = timeout(NEWS_NOTED_WITHIN, noted).await;
            for row in board.rows() {
                // A Peer that has just ended is closed already.
                let _ = row.orders.cast(Order::Leave("shutdown"));
            }
            closed.await;
        })
    }
}

fn links_closed(cluster: &Cluster) -> ResponseFuture<()> {
    let board = cluster.board.clone();
    // Who does not close in time is cut off with the tree.
    Box::pin(async move { drop(timeout(DRAIN_LINKS_WITHIN, board.empty()).await) })
}
