//! What the broker and the processes between nodes say to each other.
//!
//! The broker has never heard of a cluster: to it another node is a [`Link`], a mailbox and an
//! outbox. A link is put up with [`LinkUp`] and taken down with [`LinkDown`], both told to the
//! router. From then on
//!
//! - the router casts a [`RouteDelta`] to every link for each change of this node's own slice,
//! - publishers' arbiters lay what matched a route of that node into its [`Outbox`],
//! - retained messages are laid into every link's outbox, whether a route matches or not, with the time at
//!   which they hold; what got lost on the way the links find out, and give to the retainer,
//! - the link tells the router of the other side's slice with [`ApplySnapshot`] and [`ApplyDelta`],
//!   and gives what was forwarded to it to [`super::publish::dispatch`].

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use actix::Message as ActixMessage;
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::Caster;
use tokio::sync::oneshot;

pub use super::confirm::SliceHeld;
pub use super::loans::{LOANS_MAX, Loan, Loans};
pub use super::outbox::Outbox;
pub use super::publish::Share;
use super::session::Late;
pub use super::tray::Bell;

use crate::mqtt::message::Message;
use crate::mqtt::packet::Will;
use crate::node_name::{NodeId, NodeName};
use crate::routing::retained::Told;
use crate::routing::stamps::{HybridTime, Stamp};
pub use crate::routing::{
    Applied, Checked, RefusedSlice, RouteChange, RouteDelta, RouteVersion, SliceSnapshot as OwnSlice,
};

/// Router → every link: what changed in this node's own slice.
impl ActixMessage for RouteDelta {
    type Result = ();
}

/// A message on its way to another node: one, however many filters of that node match.
#[derive(Debug)]
pub struct Outbound {
    /// The message.
    pub message: Arc<Message>,
    /// Of QoS 1 and 2: what the publisher waits for. Dropped when the other node has taken the message,
    /// or when it is given up.
    pub share: Option<Share>,
    /// The shared groups that the other node is to serve; mostly none.
    pub loans: Option<Box<Loans>>,
    /// When it was retained here: the other node retains it too.
    pub retained: Option<HybridTime>,
    /// It goes there only to be retained: nobody has subscribed to it over there.
    pub only_retained: bool,
}

/// A message that another node forwarded.
#[derive(Debug)]
pub struct Inbound {
    /// The message.
    pub message: Arc<Message>,
    /// When and where it was retained, if it was.
    pub retained: Option<Stamp>,
    /// The shared groups that we are to serve; mostly none.
    pub loans: Option<Box<Loans>>,
}

/// Another node's part of what all nodes retain.
#[derive(Clone, Debug)]
pub enum Replicated {
    /// A message.
    Message(Arc<Message>, Stamp),
    /// A topic that was cleared or has expired there.
    Tombstone(Told),
}

/// Retainer → Link: what was given to [`super::retainer::Request::Merge`] is in the store, as far as it may.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Merged;

impl std::ops::Deref for Outbound {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Another node, as the broker sees it.
#[derive(Clone)]
pub struct Link {
    /// Which life of which node.
    pub node: NodeId,
    /// Takes the deltas of our own slice.
    pub routes: Caster<RouteDelta>,
    /// Takes messages for that node's subscribers, in the order in which they were published. It outlives
    /// the process behind the link.
    pub outbox: Arc<Outbox>,
    /// How much of our own slice that node holds.
    pub holds: Arc<SliceHeld>,
    /// Buckets of retained messages that have differed from that node's in its last two digests.
    pub drift: Arc<AtomicUsize>,
}

/// Bytes that a message counts for in [`Outbox::queued`]: what it carries and its bookkeeping.
#[must_use]
pub fn link_weight(outbound: &Outbound) -> usize {
    let message = &outbound.message;
    let loans = outbound.loans.as_ref().map_or(0, |loans| loans.weight());
    message.weight() + message.publisher.len() + 64 + loans
}

/// Link → Router: the link stands. Answered by this node's own slice as it is at that moment; every
/// later change of it is cast to [`Link::routes`], starting from the answer's version. A link to an
/// earlier life of the same name is taken down first, one of the same life is taken over with all its
/// routes; the link of a node that has a later life, and
/// that of one node too many, is refused.
#[derive(ActixMessage)]
#[rtype(result = "Result<OwnSlice, RefusedSlice>")]
pub struct LinkUp(pub Link);

/// Link → Router: the link is gone; of one whose process just ends the routes stay for
/// [`LINK_CRASH_GRACE`](crate::limits::LINK_CRASH_GRACE). All routes of that node
/// vanish in one step; a later life of the same name is not touched.
#[derive(Clone, PartialEq, Eq, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct LinkDown {
    /// The node that is gone.
    pub node: NodeId,
}

/// Link → Router: a piece of the other side's slice, replacing all that is held of it once the last
/// piece is in.
#[derive(Clone, PartialEq, Eq, Debug, ActixMessage)]
#[rtype(result = "Applied")]
pub struct ApplySnapshot {
    /// Whose slice it is.
    pub node: NodeId,
    /// The version that the whole snapshot stands at.
    pub version: RouteVersion,
    /// The filters of this piece.
    pub filters: Vec<ByteString>,
    /// Whether this is the first piece.
    pub first: bool,
    /// Whether this is the last piece.
    pub last: bool,
}

/// Link → Router: a delta of the other side's slice.
#[derive(Clone, PartialEq, Eq, Debug, ActixMessage)]
#[rtype(result = "Applied")]
pub struct ApplyDelta {
    /// Whose slice it is.
    pub node: NodeId,
    /// The change.
    pub delta: RouteDelta,
}

/// Anyone → Router: this node's own slice, answered by [`OwnSlice`].
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "OwnSlice")]
pub struct Slice;

/// Link → Router: version and hash of this node's own slice. The deltas that lead to that version are cast
/// to the links before the answer.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "(RouteVersion, u64)")]
pub struct SliceMark;

/// Link → Router: this is what the other node has of its own slice; do we hold the same?
#[derive(Clone, PartialEq, Eq, Debug, ActixMessage)]
#[rtype(result = "Checked")]
pub struct CheckSlice {
    /// Whose slice it is.
    pub node: NodeId,
    /// The version that the hash belongs to.
    pub version: RouteVersion,
    /// The hash of the slice at that version.
    pub hash: u64,
}

/// Operator → Router: lose one route of this node without a word, as a bug would. Whether there was one.
#[derive(Clone, PartialEq, Eq, Debug, ActixMessage)]
#[rtype(result = "bool")]
pub struct LoseRoute(pub NodeName);

/// Anyone → Router: the whole route table, filter → names of the nodes that have it, sorted by filter.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "Vec<(ByteString, Vec<NodeName>)>")]
pub struct Routes;

/// Anyone → Router: how many routes are held of each other node, and at which version.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "Vec<(NodeId, usize, RouteVersion)>")]
pub struct RoutesHeld;

/// Who settles with other nodes where the session of a client is. Asked once there has been a link; a node
/// that never had one has none.
pub trait Keeper: Send + Sync {
    /// A CONNECT of this client. The answer is dropped if whoever is to give it falls: asked again.
    fn claim(&self, client_id: &ByteString, answer: oneshot::Sender<Claimed>);

    /// The session of this client is over.
    fn ended(&self, client_id: &ByteString);

    /// What becomes of the will of a client of this node.
    fn will(&self, client_id: &ByteString, news: WillNews);

    /// A session that came from elsewhere has its subscriptions in place, and takes what came late.
    fn settled(&self, client_id: &ByteString, late: Caster<Late>);
}

/// What is told of a client's will, so that another node can publish it should this one be lost.
#[derive(Clone, Debug)]
pub enum WillNews {
    /// The client is connected; its will is due so many seconds after the connection is gone.
    Lives(Arc<Will>, u32),
    /// The connection is gone; the will waits for its delay.
    Runs(Arc<Will>, Instant),
    /// This will was published. The client may have another by now.
    Published(Arc<Will>),
    /// The client has none any more.
    Over,
}

/// What becomes of a CONNECT.
#[derive(Debug)]
pub enum Claimed {
    /// It is served here; with the session that another node had.
    Open(Option<Bytes>),
    /// The client came later to another node.
    Overtaken,
}
