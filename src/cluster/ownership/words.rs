//! What happens to ownership, what it causes, and what nodes say to each other about it.

use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::cluster::executor::WillSlip;
use crate::node_name::NodeId;

/// The number of a claim: a later one is greater. The counter follows the home's wall clock in microseconds,
/// so that of two sides of a split the one that served the client last is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// At least the wall clock, and greater than any epoch of the id that was known.
    pub counter: u64,
    /// Incarnation of who numbered it: two sides of a split never number alike.
    pub by: u64,
}

/// What nodes say to each other about client ids. Carried in order; lost with the link.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Letter {
    /// Step 1, claimant → home.
    Claim {
        /// The client id.
        id: ByteString,
        /// Names the claim among those of the claimant.
        claim: u64,
    },
    /// Step 2, home → claimant.
    Granted {
        /// The client id.
        id: ByteString,
        /// As it was claimed.
        claim: u64,
        /// What the claimant holds the id under from now on.
        epoch: Epoch,
        /// Who held it before, if that node is up.
        previous: Option<NodeId>,
    },
    /// Step 3, claimant → owner before.
    Release {
        /// The client id.
        id: ByteString,
        /// The claimant's.
        epoch: Epoch,
    },
    /// Step 4, owner before → claimant. Said again to a claimant that asks again.
    Released {
        /// The client id.
        id: ByteString,
        /// As in [`Letter::Release`].
        epoch: Epoch,
        /// The session, if there was one that outlives its connection.
        state: Option<Bytes>,
    },
    /// Holder → home: what it holds.
    Holds(Vec<(ByteString, Epoch)>),
    /// Holder → everybody: that is all which it holds of those whose home the receiver is when these nodes
    /// are up. What it told before and has not named again it holds no longer.
    AllHeld {
        /// Hash of the set of nodes.
        view: u64,
        /// Whether the same is wanted of the receiver: the sender's set of nodes has changed.
        ask: bool,
        /// What it holds, or the end of it.
        held: Vec<(ByteString, Epoch)>,
        /// Whether this letter has all of it, and nothing was told since a [`Letter::Recount`].
        whole: bool,
    },
    /// Holder → home: the session is over.
    Drop {
        /// The client id.
        id: ByteString,
    },
    /// Anyone → a holder: somebody holds it under this higher epoch.
    Fenced {
        /// The client id.
        id: ByteString,
        /// The higher one.
        epoch: Epoch,
    },
    /// Holder → home: more than one letter holds is told from here to [`Letter::AllHeld`].
    Recount,
}

/// What travels between the keepers of two nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Slip {
    /// For the value.
    Letter(Letter),
    /// Next owner → owner before: the subscriptions of the session that came are in place.
    InPlace {
        /// The client id.
        id: ByteString,
    },
    /// The answer: what was delivered to the session before meanwhile.
    Late {
        /// The client id.
        id: ByteString,
        /// See [`crate::session::Session::pack_late`].
        state: Bytes,
    },
    /// About the wills of clients, should a node be lost.
    Will(WillSlip),
}

/// What happens to ownership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A CONNECT on this node; one at a time for each id.
    Connect(ByteString),
    /// A session that was opened here has ended, whatever the reason; not after a hand-over or discard.
    Ended(ByteString),
    /// The node of a client is lost, and something of the client is left here: whoever claims the id is to
    /// ask us first. It ends with [`Event::Ended`], or with the claim.
    Adopt(ByteString),
    /// What [`Effect::HandOver`] asked for.
    Packed {
        /// The client id.
        id: ByteString,
        /// As it was asked.
        epoch: Epoch,
        /// The session, if it outlives its connection.
        state: Option<Bytes>,
    },
    /// Another node says something.
    Letter(NodeId, Letter),
    /// A link stands, or stands again after what was said over it may have got lost.
    Up(NodeId),
    /// A link is gone.
    Down(NodeId),
    /// Looks whether something is due.
    Wake,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Say this to a node.
    Send(NodeId, Letter),
    /// The CONNECT is let through: to the session that is here, or to a new one with this state. Should
    /// nobody wait for it any longer, and no session be here, [`Event::Ended`] is told.
    Open {
        /// The client id.
        id: ByteString,
        /// The session as another node handed it over.
        state: Option<Bytes>,
    },
    /// The CONNECT is refused: a later one of the same client, on another node, took its place.
    Overtaken(ByteString),
    /// The session here is to end with 0x8E; its state is asked for with [`Event::Packed`].
    HandOver {
        /// The client id.
        id: ByteString,
        /// To be given back.
        epoch: Epoch,
    },
    /// The session here is to end with 0x8E: the client has a later one elsewhere.
    Discard(ByteString),
    /// [`Event::Wake`] at this instant.
    WakeAt(Instant),
}
