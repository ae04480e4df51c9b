//! What happens to wills, what it causes, and what nodes say to each other about them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::broker::links::WillNews;
use crate::mqtt::packet::{QoS, Will};
use crate::mqtt::properties::{PublishProperties, WillProperties};
use crate::node_name::NodeId;

/// A will as it travels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WillRecord {
    /// Topic name.
    pub topic: ByteString,
    /// Application payload.
    pub payload: Bytes,
    /// QoS of the publication.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Message Expiry Interval, counted from the publication.
    pub expiry_interval_s: Option<u32>,
    /// Pass-through properties as they came.
    pub pass_through: Bytes,
    /// Seconds from the end of the connection until it is due; 0 is at once.
    pub delay_s: u32,
    /// The connection has ended: milliseconds until it is due.
    pub due_in_ms: Option<u64>,
}

impl WillRecord {
    pub(super) fn of(will: &Will, delay_s: u32, due: Option<Instant>, now: Instant) -> Self {
        let left = |due: Instant| due.saturating_duration_since(now).as_millis();
        Self {
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            expiry_interval_s: will.properties.publish.message_expiry_interval_s,
            pass_through: will.properties.publish.pass_through.clone(),
            delay_s,
            due_in_ms: due.map(|due| u64::try_from(left(due)).unwrap_or(u64::MAX)),
        }
    }

    /// The will, its delay, and when it is due if that has begun.
    pub(super) fn into_will(self, now: Instant) -> (Will, u32, Option<Instant>) {
        let due = self
            .due_in_ms
            .and_then(|ms| now.checked_add(Duration::from_millis(ms)));
        let will = Will {
            topic: self.topic,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: WillProperties {
                will_delay_interval_s: Some(self.delay_s),
                publish: PublishProperties {
                    message_expiry_interval_s: self.expiry_interval_s,
                    pass_through: self.pass_through,
                    ..PublishProperties::default()
                },
            },
        };
        (will, self.delay_s, due)
    }
}

/// What becomes of the will of one client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WillChange {
    /// The client.
    pub id: ByteString,
    /// Its will; nothing when the receiver is to forget it.
    pub will: Option<WillRecord>,
}

/// What nodes say to each other about wills. Carried in order; lost with the link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WillSlip {
    /// Tell me of all wills that are mine to execute. The first that is said over a link: nothing that a
    /// client of the sender causes comes before it.
    Ask {
        /// Since which incarnation the sender's process runs: what was held of its lives since then it
        /// publishes itself.
        since: u64,
    },
    /// Wills that are the receiver's to execute; the next part follows when this one was taken.
    Part {
        /// To be acknowledged.
        number: u64,
        /// Replaces all that was told before.
        first: bool,
        /// The wills.
        changes: Vec<WillChange>,
    },
    /// The part was taken.
    Taken {
        /// Its number.
        number: u64,
    },
}

impl WillSlip {
    /// Bytes that it counts for in a frame.
    pub(in crate::cluster) fn weight(&self) -> usize {
        let Self::Part { changes, .. } = self else {
            return 0;
        };
        let carried =
            |record: &WillRecord| 64 + record.topic.len() + record.payload.len() + record.pass_through.len();
        let weight = |change: &WillChange| change.id.len() + change.will.as_ref().map_or(0, carried);
        changes.iter().map(weight).sum()
    }
}

/// Why a link is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parted {
    /// The node was killed, is out of reach, or came back in a later life.
    Lost,
    /// It stops in order.
    Stopped,
    /// It goes on without us, or we without it.
    Left,
}

/// What happens to wills.
#[derive(Clone, Debug)]
pub enum Event {
    /// What becomes of the will of a client of this node.
    News(ByteString, WillNews),
    /// A client is about to be served somewhere, or is found to be served here.
    Back(ByteString),
    /// A client was found to be served on another node, which did not ask for leave here.
    Elsewhere(ByteString),
    /// A link stands, or stands again after what was said over it may have got lost.
    Up(NodeId),
    /// A link is gone, and why.
    Down(NodeId, Parted),
    /// Another node says something.
    Slip(NodeId, WillSlip),
    /// Looks whether something is due.
    Wake,
}

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Say this to a node.
    Say(NodeId, WillSlip),
    /// Publish the will of this client now.
    Publish(ByteString, Arc<Will>),
    /// Own this client id from now on, if nobody does. If its client is here: [`Event::Back`].
    Adopt(ByteString),
    /// Own it no longer.
    Renounce(ByteString),
    /// A will was not taken: there are too many.
    Refused,
    /// [`Event::Wake`] at this instant.
    WakeAt(Instant),
}

/// Bytes that a will counts for beside what it carries.
const OVERHEAD: usize = 256;

/// Bytes that the will of a client counts for.
pub(super) fn weight(id: &ByteString, will: &Will) -> usize {
    OVERHEAD + id.len() + will.topic.len() + will.payload.len() + will.properties.publish.pass_through.len()
}
