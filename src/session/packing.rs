//! How a session moves to another node: everything that a client could notice, as bytes.
//!
//! The owner before packs it ([`Session::pack`]), the next owner unpacks it ([`Session::unpack`]). What is
//! still delivered to the old one afterwards follows as *late* messages ([`Session::pack_late`],
//! [`Session::admit_late`]). Times travel as what is left of them: clocks of nodes are not compared. Not
//! packed: topic aliases and whatever else belongs to a connection, and the shared group as a member of
//! which a message came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::ending::Away;
use super::event::{ClientLimits, Counted, Effect};
use super::inbound::Inbound;
use super::inflight::{Inflight, Stage};
use super::queue::{Head, Outgoing};
use super::{Session, State, Subscription};
use crate::limits::SESSION_PACKED_BYTES_MAX;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{PacketId, ProtocolVersion, QoS, SubscriptionIds, SubscriptionOptions, Will};
use crate::mqtt::properties::{PublishProperties, WillProperties};

/// First byte of a packed session: how the rest is to be read.
const VERSION: u8 = 1;

/// Bytes that a message costs beside what it carries.
const MESSAGE_OVERHEAD: usize = 64;

/// The limit of a decoder; twice what an encoder fills, for lengths and bookkeeping.
const DECODED_BYTES_MAX: usize = 2 * SESSION_PACKED_BYTES_MAX;

/// What bytes were not: a packed session of a version that this build knows. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error("not a packed session: {0}")]
pub struct Unpackable(String);

#[derive(Default, Serialize, Deserialize)]
struct Packed {
    protocol: u8,
    expiry_interval_s: u32,
    /// `None`: never.
    expires_in_ms: Option<u64>,
    will: Option<PackedWill>,
    subscriptions: Vec<(ByteString, SubscriptionOptions, Option<u32>)>,
    awaiting_rel: Vec<PacketId>,
    next_id: Option<PacketId>,
    /// In the order of sending; without a message it waits for PUBCOMP.
    inflight: Vec<(PacketId, Option<PackedMessage>)>,
    queue: Vec<PackedMessage>,
}

#[derive(Serialize, Deserialize)]
struct PackedMessage {
    topic: ByteString,
    payload: Bytes,
    published_qos: QoS,
    published_retain: bool,
    pass_through: Bytes,
    publisher: ByteString,
    expires_in_ms: Option<u64>,
    subscription_ids: Vec<u32>,
    qos: QoS,
    retain: bool,
    dup: bool,
}

#[derive(Serialize, Deserialize)]
struct PackedWill {
    topic: ByteString,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    expiry_interval_s: Option<u32>,
    pass_through: Bytes,
    /// `None`: when the session ends.
    due_in_ms: Option<u64>,
}

/// What is left until `at`.
fn left(at: Option<Instant>, now: Instant) -> Option<u64> {
    let left = at?.saturating_duration_since(now).as_millis();
    Some(u64::try_from(left).unwrap_or(u64::MAX))
}

fn after(left_ms: Option<u64>, now: Instant) -> Option<Instant> {
    now.checked_add(Duration::from_millis(left_ms?))
}

impl PackedMessage {
    fn of(outgoing: &Outgoing, now: Instant) -> Self {
        let message = &outgoing.message;
        Self {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            published_qos: message.qos,
            published_retain: message.retain,
            pass_through: message.pass_through.clone(),
            publisher: message.publisher.clone(),
            expires_in_ms: left(message.expires_at, now),
            subscription_ids: outgoing.subscription_ids.as_slice().to_vec(),
            qos: outgoing.qos,
            retain: outgoing.retain,
            dup: outgoing.dup,
        }
    }

    fn outgoing(self, now: Instant) -> Outgoing {
        let mut subscription_ids = SubscriptionIds::None;
        for identifier in self.subscription_ids {
            subscription_ids.add(identifier);
        }
        Outgoing {
            message: Arc::new(Message {
                topic: self.topic,
                payload: self.payload,
                qos: self.published_qos,
                retain: self.published_retain,
                pass_through: self.pass_through,
                expires_at: after(self.expires_in_ms, now),
                publisher: self.publisher,
            }),
            subscription_ids,
            qos: self.qos,
            retain: self.retain,
            share: None,
            dup: self.dup,
            seq: None,
        }
    }
}

impl PackedWill {
    fn of(will: &Will, due: Option<Instant>, now: Instant) -> Self {
        Self {
            topic: will.topic.clone(),
            payload: will.payload.clone(),
            qos: will.qos,
            retain: will.retain,
            expiry_interval_s: will.properties.publish.message_expiry_interval_s,
            pass_through: will.properties.publish.pass_through.clone(),
            due_in_ms: left(due, now),
        }
    }

    fn will(self, delay_s: u32) -> Will {
        Will {
            topic: self.topic,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: WillProperties {
                will_delay_interval_s: Some(delay_s),
                publish: PublishProperties {
                    message_expiry_interval_s: self.expiry_interval_s,
                    pass_through: self.pass_through,
                    ..PublishProperties::default()
                },
            },
        }
    }
}

/// What still fits into the bytes that a packed session may have.
struct Room(usize);

impl Room {
    fn takes(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.0;
        self.0 -= if fits { bytes } else { 0 };
        fits
    }

    fn takes_message(&mut self, outgoing: &Outgoing) -> bool {
        self.takes(outgoing.message.weight() + outgoing.message.publisher.len() + MESSAGE_OVERHEAD)
    }
}

fn encode(packed: &Packed) -> Bytes {
    let mut bytes = vec![VERSION];
    // Encoding into memory fails only beyond a limit, and this configuration has none.
    bincode::serde::encode_into_std_write(packed, &mut bytes, bincode::config::standard())
        .expect("memory takes all bytes");
    bytes.into()
}

fn decode(bytes: &[u8]) -> Result<Packed, Unpackable> {
    let rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        Some((version, _)) => return Err(Unpackable(format!("it is of version {version}"))),
        None => return Err(Unpackable("there is nothing".into())),
    };
    let config = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();
    let decoded = bincode::serde::decode_from_slice(rest, config);
    let (packed, used) = decoded.map_err(|error| Unpackable(error.to_string()))?;
    if used == rest.len() {
        Ok(packed)
    } else {
        Err(Unpackable("bytes follow it".into()))
    }
}

/// Without bounds: what a client was promised elsewhere is kept here.
fn unbounded() -> ClientLimits {
    ClientLimits {
        queue_len_max: usize::MAX,
        queue_bytes_max: usize::MAX,
        ..ClientLimits::default()
    }
}

impl Session {
    /// Takes the session out for another node. `None`, and over, if it does not outlive its connection or is
    /// over already. Otherwise what stays behind is an empty session with the same subscriptions that
    /// collects for [`Session::pack_late`]; somebody must end it. A connection must be gone
    /// ([`Event::TakenOver`](super::event::Event::TakenOver)). What goes beyond
    /// [`SESSION_PACKED_BYTES_MAX`] is dropped and counted, and so is what lies in the store alone: it is
    /// gathered before ([`Session::gather`]). Nothing that is packed is settled: what is stored of the
    /// session is to be forgotten when another node has it.
    pub fn pack(&mut self, now: Instant, out: &mut Vec<Effect>) -> Option<Bytes> {
        let moves = match &self.state {
            State::Away(away) => self.is_persistent() && !away.is_expired(now),
            _ => false,
        };
        if !moves {
            self.end(now, out);
            return None;
        }
        self.is_leaving = true;
        let left_behind = State::Away(Away::new(None, None));
        let State::Away(away) = std::mem::replace(&mut self.state, left_behind) else {
            return None;
        };
        let expires_in_ms = left(away.expires_at, now);
        let will = away.into_delayed_will(now);
        if will.is_some() {
            out.push(Effect::CancelWill);
        }
        let mut room = Room(SESSION_PACKED_BYTES_MAX);
        let subscriptions = self.subscriptions.iter();
        let subscriptions = subscriptions
            .filter(|(filter, _)| room.takes(filter.len() + 16))
            .map(|(filter, subscription)| (filter.clone(), subscription.options, subscription.identifier));
        let mut packed = Packed {
            protocol: self.version as u8,
            expiry_interval_s: self.expiry_interval_s,
            expires_in_ms,
            will: will.map(|(will, due)| PackedWill::of(&will, due, now)),
            subscriptions: subscriptions.collect(),
            ..Packed::default()
        };
        if let Some(inbound) = self.inbound.take() {
            packed.awaiting_rel = inbound.awaiting_rel().collect();
        }
        packed.next_id = Some(self.inflight.next());
        for (packet_id, outgoing) in self.inflight.take_all() {
            if outgoing
                .as_ref()
                .is_none_or(|outgoing| room.takes_message(outgoing))
            {
                let message = outgoing.map(|outgoing| PackedMessage::of(&outgoing, now));
                out.extend(message.iter().map(|_| Effect::Count(Counted::MovedAway)));
                packed.inflight.push((packet_id, message));
            } else {
                out.push(Effect::Count(Counted::DroppedNotMoved));
            }
        }
        packed.queue = self.pack_queue(&mut room, now, out);
        Some(encode(&packed))
    }

    /// What was delivered since it was packed; empties the session.
    pub fn pack_late(&mut self, now: Instant, out: &mut Vec<Effect>) -> Bytes {
        let mut room = Room(SESSION_PACKED_BYTES_MAX);
        let queue = self.pack_queue(&mut room, now, out);
        encode(&Packed {
            queue,
            ..Packed::default()
        })
    }

    fn pack_queue(&mut self, room: &mut Room, now: Instant, out: &mut Vec<Effect>) -> Vec<PackedMessage> {
        let mut packed = Vec::new();
        let (queued, missing) = self.queue.take_all();
        let missed = Effect::Count(Counted::DroppedNotMoved);
        out.extend(std::iter::repeat_n(missed, missing));
        for outgoing in queued {
            if outgoing.is_expired(now) {
                out.push(Effect::Count(Counted::DroppedExpired));
            } else if room.takes_message(&outgoing) {
                out.push(Effect::Count(Counted::MovedAway));
                packed.push(PackedMessage::of(&outgoing, now));
            } else {
                out.push(Effect::Count(Counted::DroppedNotMoved));
            }
        }
        packed
    }

    /// The session that was packed, as that of a client that is away. Its subscriptions are still to be told
    /// to the router; the rest is in `out`.
    ///
    /// # Errors
    /// [`Unpackable`]; `out` is unchanged.
    pub fn unpack(
        client_id: ByteString,
        bytes: &[u8],
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<Self, Unpackable> {
        let packed = decode(bytes)?;
        let mut session = Self::new(client_id);
        session.version = match packed.protocol {
            0 => ProtocolVersion::V3_1,
            1 => ProtocolVersion::V3_1_1,
            _ => ProtocolVersion::V5,
        };
        session.expiry_interval_s = packed.expiry_interval_s;
        for (filter, options, identifier) in packed.subscriptions {
            session
                .subscriptions
                .insert(filter, Subscription { options, identifier });
        }
        if !packed.awaiting_rel.is_empty() {
            session.inbound = Some(Box::new(Inbound::awaiting(packed.awaiting_rel)));
        }
        let slots = packed.inflight.into_iter();
        let stage = |message: Option<PackedMessage>| {
            message.map_or(Stage::Released(None), |message| {
                Stage::Held(message.outgoing(now))
            })
        };
        let slots = slots.map(|(id, message)| (id, stage(message)));
        session.inflight = Inflight::of(slots, packed.next_id.unwrap_or(PacketId::MIN));
        for message in packed.queue {
            session
                .queue
                .push(message.outgoing(now), &unbounded(), Head::ATTACHED, out);
        }
        out.extend((0..session.held_len()).map(|_| Effect::Count(Counted::MovedIn)));
        let expires_at = after(packed.expires_in_ms, now);
        out.extend(expires_at.map(Effect::WakeAt));
        let delayed = packed.will.map(|will| {
            let due_in_ms = will.due_in_ms;
            let delay_s = due_in_ms.map_or(u32::MAX, |ms| ms.div_ceil(1000).try_into().unwrap_or(u32::MAX));
            let will = Arc::new(will.will(delay_s));
            out.push(Effect::PublishWill {
                will: will.clone(),
                delay_s,
            });
            (will, after(due_in_ms, now))
        });
        session.state = State::Away(Away::new(expires_at, delayed));
        Ok(session)
    }

    /// Takes in what the session before had collected ([`Session::pack_late`]), as if it were delivered now.
    /// Returns those messages.
    ///
    /// # Errors
    /// [`Unpackable`]; nothing was changed.
    pub fn admit_late(
        &mut self,
        bytes: &[u8],
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<Vec<Arc<Message>>, Unpackable> {
        let late = decode(bytes)?
            .queue
            .into_iter()
            .map(|message| message.outgoing(now));
        let mut messages = Vec::new();
        for outgoing in late {
            messages.push(outgoing.message.clone());
            out.push(Effect::Count(Counted::MovedIn));
            match self.state {
                State::Attached(_) | State::Away(_) => self.enqueue(outgoing, now, out),
                State::New | State::Ended => out.push(Effect::Count(Counted::DroppedSessionEnded)),
            }
        }
        Ok(messages)
    }
}
