//! Version 1 of the language between nodes: its frames and their bytes.
//!
//! bincode 2, standard configuration (little endian, varint), always with a limit. Released bytes
//! are frozen by the golden tests; a new frame is a new variant at the end, a changed one is a new
//! version. The table of frames is in `docs/PROTOCOL.md`, "Links between nodes".

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::broker::links::{Inbound, LOANS_MAX, Loan, Loans, Outbound};
use crate::cluster::ownership::Slip;
use crate::cluster::rotation::CookieSlip;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;
use crate::node_name::{NodeId, NodeName};
use crate::routing::stamps::{HybridTime, Stamp};
use crate::routing::{RouteDelta, RouteVersion, SnapshotChunk};

/// Longest frame in bytes: the largest MQTT packet (256 MiB) and what is around it. Only a node that
/// proved the cookie can send one, and nothing is reserved before it has come.
pub const FRAME_BYTES_MAX: usize = 260 << 20;

type Config = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<FRAME_BYTES_MAX>,
>;

const CONFIG: Config = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

/// What one node knows of the membership of another. The greater stamp wins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Who.
    pub name: NodeName,
    /// When it joined or left, in microseconds since the epoch and greater than any stamp known to
    /// who wrote it.
    pub stamp: u64,
    /// Whether it left.
    pub left: bool,
    /// Who forced it out, if it did not leave by itself.
    pub by: Option<NodeName>,
}

/// Step 3 of the opening: who dials.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The dialler; equal to what its cookie proof named.
    pub node: NodeId,
    /// Names this link in its frames. Chosen at random by the dialler.
    pub link: u64,
    /// Whether an operator asked for this link (`ermine cluster join`): only that undoes a leave.
    pub join: bool,
    /// Last batch of the acceptor's messages that the dialler has taken, 0 for none.
    pub received: u64,
    /// The members that the dialler knows, itself among them.
    pub members: Vec<MemberRecord>,
}

/// Step 4 of the opening.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The link is open; from here on `ractor` carries it.
    Welcome {
        /// Who accepted.
        node: NodeId,
        /// Last batch of the dialler's messages that the acceptor has taken, 0 for none.
        received: u64,
        /// The members that the acceptor knows, itself among them.
        members: Vec<MemberRecord>,
    },
    /// The link is not opened.
    Refuse(Refusal),
}

/// Why a proven node is not linked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// Both dialled at once; the connection of the greater name is kept, and it is on its way.
    Simultaneous,
    /// The dialler is this very node.
    Myself,
    /// A later life of the dialler's name is linked.
    Outdated,
    /// One of the two left the cluster; the record says which and when.
    Left(MemberRecord),
    /// The acceptor is starting or stopping; try again.
    NotReady,
    /// There are more members than a cluster may have.
    Full,
}

/// A message as it travels; borrowed from what is sent, or from the frame that came.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WireMessage<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Bits 0 and 1: QoS; bit 2: retain; bit 3: for `groups` only.
    pub flags: u8,
    /// Remaining lifetime in milliseconds.
    pub expires_in_ms: Option<u64>,
    /// When it was retained, if it was.
    pub retained: Option<HybridTime>,
    /// Client id of the publisher.
    pub publisher: &'a str,
    /// Pass-through properties as they came from the publisher.
    #[serde(with = "raw")]
    pub pass_through: &'a [u8],
    /// Application payload.
    #[serde(with = "raw")]
    pub payload: &'a [u8],
    /// The shared groups that the receiver is to serve, at most [`LOANS_MAX`]; it serves no others.
    pub groups: Vec<WireLoan<'a>>,
}

/// A shared group that is to be served for one message.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WireLoan<'a> {
    /// The whole filter, `$share/…` included.
    pub group: &'a str,
    /// Bits 0 to 6: nodes at which the message found no member; bit 7: a member may have had it.
    pub tried: u8,
}

/// [`WireLoan::tried`]: a member may have had the message.
const DUP: u8 = 0x80;

/// [`WireMessage::flags`]: the message is for its groups only.
const ONLY_GROUPS: u8 = 8;

/// Byte slices in one piece: serde alone would take them byte by byte, 30 times slower.
mod raw {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(from)
    }
}

/// One frame of an open link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Frame<'a> {
    /// A part of the sender's own slice of the route table, to replace what was held.
    Snapshot(SnapshotChunk),
    /// What changed in the sender's own slice.
    Delta(RouteDelta),
    /// There was a gap: send your slice again.
    Resync,
    /// The sender has taken `Snapshot` and `Delta` frames of ours.
    RoutesHeld {
        /// How many since the link is open.
        frames: u64,
        /// The version that it holds of our slice.
        version: RouteVersion,
    },
    /// Messages for subscribers of the receiver.
    Forward {
        /// Number of this batch within the sender's incarnation, from 1.
        seq: u64,
        /// At least one.
        #[serde(borrow)]
        messages: Vec<WireMessage<'a>>,
    },
    /// All batches up to `seq` were taken.
    Forwarded {
        /// Number of the last one.
        seq: u64,
    },
    /// Answer this with [`Frame::CanaryBack`]: proves that the link carries, both ways.
    Canary {
        /// Random.
        nonce: u64,
    },
    /// The answer.
    CanaryBack {
        /// As it came.
        nonce: u64,
    },
    /// Sent each second.
    Tick {
        /// Counts from 1 on each link.
        number: u64,
        /// Version of the sender's own slice: tells whether a delta got lost.
        routes: RouteVersion,
    },
    /// The answer to a tick; measures the round trip.
    TickBack {
        /// As it came.
        number: u64,
    },
    /// What the sender knows of the membership.
    Members {
        /// Itself among them.
        members: Vec<MemberRecord>,
    },
    /// The sender is going; close the link once this was read.
    Leaving {
        /// One word: `shutdown` or `left`.
        reason: &'a str,
    },
    /// Sent each second, after the route frames that lead to it: what the sender's own slice is.
    SliceMark {
        /// Its version.
        version: RouteVersion,
        /// The sum of the hashes of its filters.
        hash: u64,
    },
    /// What is to be settled about client ids, in order. Not repeated after a reconnect: the values say again
    /// what matters.
    Ownership(Vec<Slip>),
    /// Sent each second: the hash of each bucket of the sender's retained messages.
    RetainedDigest {
        /// [`BUCKETS`](crate::routing::stamps::BUCKETS) of them, or none if all are 0.
        buckets: Vec<u64>,
    },
    /// What do you know of these buckets, behind this topic of the first? One question at a time.
    RetainedAsk {
        /// The buckets.
        buckets: Vec<u8>,
        /// The topic.
        after: Option<ByteString>,
    },
    /// The answer: as much as a frame may hold.
    RetainedKnown {
        /// In the order of the buckets that were asked for.
        records: Vec<RetainedRecord>,
        /// How many of these buckets are told to their end.
        done: u64,
    },
    /// Which messages are retained for these topics? One question at a time.
    RetainedWant {
        /// The topics.
        topics: Vec<ByteString>,
    },
    /// The answer: as much as a frame may hold.
    RetainedMessages {
        /// Each with the node where it was retained; topics that have none are left out.
        #[serde(borrow)]
        messages: Vec<(WireMessage<'a>, NodeName)>,
        /// For how many of the topics this is the answer.
        answered: u64,
    },
    /// About the cookie of the cluster, which is being changed.
    Cookie(CookieSlip),
    /// How many members of shared groups the sender has: all of them first on a connection, then what
    /// changed.
    ShareMembers {
        /// Whole filter, members with a connection, members without; none when the group has ended.
        groups: Vec<(ByteString, u32, u32)>,
    },
}

/// What a node knows of a retained topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RetainedRecord {
    /// The topic.
    pub topic: ByteString,
    /// When it was written last.
    pub time: HybridTime,
    /// Where.
    pub node: NodeName,
    /// If it was cleared, or its message has expired: when, in microseconds since 1970.
    pub died_us: Option<u64>,
}

/// Encodes a frame or a part of the opening.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Encoding into memory fails only beyond the limit of the configuration, which the senders of
    // frames keep: batches are cut at FORWARD_BATCH_BYTES, one message is at most one MQTT packet.
    bincode::serde::encode_to_vec(value, CONFIG).expect("frames are cut below the limit")
}

/// Decodes a frame or a part of the opening; all bytes must be used up.
///
/// # Errors
/// [`WireError::Malformed`] for anything else.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, CONFIG)?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(WireError::Malformed(format!(
            "{} bytes follow the frame",
            bytes.len() - used
        )))
    }
}

impl<'a> WireMessage<'a> {
    /// A message as it is sent now. `None` when it has expired.
    #[must_use]
    pub fn of(message: &'a Message, now: Instant) -> Option<Self> {
        let expires_in_ms = match message.expires_at {
            Some(at) if at <= now => return None,
            Some(at) => Some(u64::try_from((at - now).as_millis()).unwrap_or(u64::MAX)),
            None => None,
        };
        Some(Self {
            topic: &message.topic,
            flags: message.qos as u8 | u8::from(message.retain) << 2,
            expires_in_ms,
            retained: None,
            publisher: &message.publisher,
            pass_through: &message.pass_through,
            payload: &message.payload,
            groups: Vec::new(),
        })
    }

    /// The same with the shared groups that go with it.
    #[must_use]
    pub fn lent(outbound: &'a Outbound, now: Instant) -> Option<Self> {
        let mut message = Self::of(&outbound.message, now)?.retained_at(outbound.retained);
        if let Some(loans) = &outbound.loans {
            let groups = loans.groups.iter().map(|loan| WireLoan {
                group: &loan.group,
                tried: loan.tried | if loan.dup { DUP } else { 0 },
            });
            message.groups = groups.collect();
            message.flags |= if loans.only { ONLY_GROUPS } else { 0 };
        }
        Some(message)
    }

    /// As [`WireMessage::into_message`], with its shared groups, from the node that forwarded it.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for an impossible QoS, or for groups beyond a bound.
    pub fn into_inbound(self, frame: &Bytes, now: Instant, from: &NodeName) -> Result<Inbound, WireError> {
        let mut loans = None;
        if !self.groups.is_empty() || self.flags & ONLY_GROUPS != 0 {
            if self.groups.len() > LOANS_MAX {
                return Err(WireError::Malformed(format!(
                    "{} groups of a message",
                    self.groups.len()
                )));
            }
            let mut lent = Box::new(Loans::default());
            lent.only = self.flags & ONLY_GROUPS != 0;
            for WireLoan { group, tried } in &self.groups {
                lent.add(Loan {
                    group: Arc::from(*group),
                    tried: tried & !DUP,
                    dup: tried & DUP != 0,
                });
            }
            loans = Some(lent);
        }
        let node = from.clone();
        let retained = self.retained.map(|time| Stamp { time, node });
        let message = self.into_message(frame, now)?;
        Ok(Inbound {
            message,
            retained,
            loans,
        })
    }

    /// The same, to be retained as of then.
    #[must_use]
    pub fn retained_at(self, time: impl Into<Option<HybridTime>>) -> Self {
        let retained = time.into();
        Self { retained, ..self }
    }

    /// The message that came in `frame`, of which `self` borrows.
    ///
    /// A message that is most of its frame keeps the frame; a small one is copied, so that one of
    /// 20 bytes in a queue does not hold the 64 KiB of its batch.
    ///
    /// # Errors
    /// [`WireError::Malformed`] for an impossible QoS.
    pub fn into_message(self, frame: &Bytes, now: Instant) -> Result<Arc<Message>, WireError> {
        let qos = QoS::from_bits(self.flags & 3)
            .filter(|_| self.flags < 2 * ONLY_GROUPS)
            .ok_or_else(|| WireError::Malformed(format!("flags {:#x} of a message", self.flags)))?;
        let parts = [
            self.topic.as_bytes(),
            self.publisher.as_bytes(),
            self.pass_through,
            self.payload,
        ];
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let [topic, publisher, pass_through, payload] = if len * 2 > frame.len() {
            parts.map(|part| frame.slice_ref(part))
        } else {
            let mut own = BytesMut::with_capacity(len);
            parts.iter().for_each(|part| own.extend_from_slice(part));
            let mut own = own.freeze();
            parts.map(|part| own.split_to(part.len()))
        };
        let text = |bytes| ByteString::try_from(bytes).map_err(|_| WireError::Malformed("text".into()));
        Ok(Arc::new(Message {
            topic: text(topic)?,
            payload,
            qos,
            retain: self.flags & 4 != 0,
            pass_through,
            expires_at: self
                .expires_in_ms
                .and_then(|ms| now.checked_add(Duration::from_millis(ms))),
            publisher: text(publisher)?,
        }))
    }
}

#[cfg(test)]
mod tests;
