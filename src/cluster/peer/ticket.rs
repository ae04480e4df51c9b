//! How a link begins and why it ends.

use std::fmt;

use supervisors::{Gone, StartError, TerminateChild};

use super::{Adopt, Order, Peer};
use crate::cluster::Cluster;
use crate::cluster::executor::Parted;
use crate::cluster::stream::LinkStream;
use crate::cluster::wire::v1::MemberRecord;
use crate::node_name::NodeId;
use crate::registry::cookie::Fingerprint;

/// Why a link is closed; the words of `net_kernel`'s `nodedown_reason` where it has one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The connection is gone.
    ConnectionClosed,
    /// Nothing came for [`PEER_DOWN_AFTER`](crate::limits::PEER_DOWN_AFTER).
    NetTickTimeout,
    /// The other side said that it goes, and why.
    Leaving(String),
    /// We go, and why.
    Ordered(&'static str),
    /// The other side broke the protocol.
    Protocol(String),
    /// A newer connection of the same node took its place.
    Replaced,
    /// The processes between nodes are being stopped here.
    Stopped,
    /// The link was welcomed but never became ready.
    NotReady,
    /// A bug of ours.
    Crashed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionClosed => f.write_str("connection_closed"),
            Self::NetTickTimeout => f.write_str("net_tick_timeout"),
            Self::Leaving(why) => write!(f, "leaving: {why}"),
            Self::Ordered(why) => write!(f, "disconnect: {why}"),
            Self::Protocol(what) => write!(f, "protocol error: {what}"),
            Self::Replaced => f.write_str("replaced"),
            Self::Stopped => f.write_str("shutdown"),
            Self::NotReady => f.write_str("setup_timeout"),
            Self::Crashed => f.write_str("crashed"),
        }
    }
}

impl Reason {
    /// What that means to who keeps the wills of the other node's clients.
    pub(super) fn parted(&self) -> Parted {
        match self {
            Self::Leaving(why) if why == "shutdown" => Parted::Stopped,
            Self::Leaving(_) | Self::Ordered(_) => Parted::Left,
            _ => Parted::Lost,
        }
    }
}

/// A welcomed connection, to become a Peer.
#[derive(Debug)]
pub struct Ticket {
    /// Who is at the other end; proved.
    pub node: NodeId,
    /// Names the link.
    pub link: u64,
    /// The stream after the opening.
    pub stream: LinkStream,
    /// Whether we dialled.
    pub dialled: bool,
    /// Last batch of ours that the other side has taken.
    pub received: u64,
    /// The members that the other side knows.
    pub members: Vec<MemberRecord>,
    /// The cookie that both proved.
    pub cookie: Fingerprint,
}

impl Ticket {
    /// Gives the connection to the link that it belongs to, or begins one.
    ///
    /// # Errors
    /// When no Peer can be started.
    pub async fn settle(mut self, cluster: &Cluster) -> Result<(), StartError> {
        if let Some(row) = cluster.board.adopting(&self.node) {
            match row.adopt.cast(Adopt(self)) {
                Ok(()) => return Ok(()),
                Err(Gone(Adopt(back))) => self = back,
            }
        }
        make_way(cluster, &self.node).await;
        let started = cluster.peers.start_child(Peer::spec(cluster, self));
        started.await.map(drop)
    }
}

/// Ends the link of another life of a node; that of the same life only lets its connection go.
pub async fn make_way(cluster: &Cluster, node: &NodeId) {
    if let Some(row) = cluster.board.adopting(node) {
        if row.orders.cast(Order::Park).is_ok() {
            return;
        }
    } else if let Some(row) = cluster.board.row(&node.name) {
        // One that has just ended is out of the way.
        let _ = row.orders.cast(Order::Replace);
    }
    // Without such a child there is nothing to wait for.
    let ended = cluster.peers.call(TerminateChild::new(node.name.as_str()));
    let _ = ended.await;
}
