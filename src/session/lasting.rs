//! What of a session lasts longer than the process that keeps it: the words between a session, the broker and
//! the store.
//!
//! A session that outlives its connection has a [`SessionNo`] in the store of its node. Each QoS 1 or 2
//! message for it gets the next [`Seq`] and is noted before its session sees it; from then on it is noted
//! what becomes of it, until [`Change::Settled`]. So what is stored of a session is what its client was
//! promised and has not had, whatever happens to the node.
//!
//! | what happens | what is noted | who waits until it is safe |
//! |---|---|---|
//! | a message comes for the session | `Queued` | its publisher's PUBACK or PUBREC; at QoS 2 the session |
//! | it is sent | `Exchange`: `Sent` | nobody: the packet identifier follows from the place |
//! | PUBREC | `Exchange`: `Released` | PUBREL |
//! | PUBACK, PUBCOMP, dropped, passed on | `Settled` | nobody: it is sent again, or released again |
//! | the client publishes at QoS 2 | `Received`, with the `Queued` of all receivers | PUBREC |
//! | PUBREL, or the message is refused | `Completed` | PUBCOMP |
//! | a connection comes or goes | `Session` | nobody |
//! | clean start, expired, ended | `Forget` | nobody |
//!
//! What was noted and is not safe when the node falls is lost from its end: of the changes of a session,
//! those that are safe are the first ones. Whoever restores it therefore sends again what may have been sent,
//! with DUP and under the same packet identifier ([`Seq::packet_id`]); that a PUBREL left only when it was
//! safe that the message was released keeps a client from taking the same QoS 2 message twice. That does not
//! hold if more than 65,535 messages of one session are sent while the disk takes nothing.
//!
//! Of a long queue only the head is in memory; what is behind it is a [`Backlog`] until a [`Page`] of it is
//! read (`queue` and `backlog` beside this file).

use std::num::NonZeroU64;
use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use super::Subscription;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{PacketId, ProtocolVersion, QoS, SubscriptionIds, Will};

/// Names a stored session within the store of one node. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SessionNo(pub u64);

/// The place of a message in what is stored for one session: later messages have greater ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Seq(pub NonZeroU64);

impl Seq {
    /// The first of a session.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        // 2^64 messages of one session do not happen.
        Self(self.0.saturating_add(1))
    }

    /// The packet identifier under which the message is sent unless that is in use: the same before and after
    /// a crash, so that it need not be on the disk before the message is on its way `[MQTT-4.4.0-1]`.
    #[must_use]
    pub fn packet_id(self) -> PacketId {
        let place = (self.0.get() - 1) % u64::from(u16::MAX);
        PacketId::MIN.saturating_add(place as u16)
    }
}

/// A message for one client, as it lies in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    /// The message; its expiry is on the clock of this process.
    pub message: Arc<Message>,
    /// Subscription Identifiers (5.0).
    pub subscription_ids: SubscriptionIds,
    /// QoS towards the client: 1 or 2.
    pub qos: QoS,
    /// Retain flag towards the client.
    pub retain: bool,
    /// Whether another member of its shared group may have had it.
    pub dup: bool,
}

/// Whose a session is and how its client came in: what its rights and limits follow from when it is found
/// again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Guest {
    /// The user that the client proved to be; `None` is an anonymous one.
    pub username: Option<ByteString>,
    /// Whether no rule binds it, or rules that it brought along and that are not stored.
    pub is_unbound: bool,
    /// Name of the listener that it came through, as `tls:0.0.0.0:8883`.
    pub listener: ByteString,
}

/// What is stored of a session beside its subscriptions and messages.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// The client id.
    pub client_id: ByteString,
    /// Protocol of the latest connection.
    pub version: ProtocolVersion,
    /// Seconds that the session outlives its connection; `u32::MAX` for ever. Not 0.
    pub expiry_interval_s: u32,
    /// When the connection ended, in milliseconds of the wall clock since 1970; `None` while there is one.
    pub away_since_ms: Option<u64>,
    /// When this was noted, in milliseconds of the wall clock since 1970.
    pub noted_ms: u64,
    /// Without a connection: the will that is published when its delay is over, and when that is, in
    /// milliseconds of the wall clock since 1970 (`u64::MAX`: when the session ends). With one: its will, and
    /// `u64::MAX`.
    pub will: Option<(Will, u64)>,
    /// Messages of the queue up to here may have been sent before an earlier process fell.
    pub suspect: Option<Seq>,
    /// Whose it is. The value does not know: its actor adds it. `None` if its client has never been served
    /// here, as that of a session which came from another node.
    pub guest: Option<Guest>,
}

/// How far the exchange of a message has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Exchange {
    /// It was sent under this packet identifier.
    Sent(PacketId),
    /// The client has it (QoS 2): PUBREL is sent under this identifier until PUBCOMP comes.
    Released(PacketId),
}

/// Something that changes what is stored. Changes of one session are made in the order in which they are
/// noted.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The session begins, or what is known of it has changed.
    Session(SessionNo, Box<SessionRecord>),
    /// The session is over, with all that it has.
    Forget(SessionNo),
    /// It has this subscription.
    Subscribed(SessionNo, ByteString, Subscription),
    /// It has it no longer.
    Unsubscribed(SessionNo, ByteString),
    /// This message waits for its client.
    Queued(SessionNo, Seq, Queued),
    /// … is on its way.
    Exchange(SessionNo, Seq, Exchange),
    /// … is the client's, or was dropped.
    Settled(SessionNo, Seq),
    /// A QoS 2 message of the client is ours: its PUBREL is awaited.
    Received(SessionNo, PacketId),
    /// … has come, or the message was refused.
    Completed(SessionNo, PacketId),
}

/// A stored session, as it is found again. Its queue is read page by page.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    /// Its name in the store.
    pub no: SessionNo,
    /// What is known of it.
    pub record: SessionRecord,
    /// Its subscriptions.
    pub subscriptions: Vec<(ByteString, Subscription)>,
    /// QoS 2 messages of the client whose PUBREL is awaited.
    pub received: Vec<PacketId>,
    /// Messages whose exchange has begun, in the order of sending; without a message PUBCOMP is awaited.
    pub exchanges: Vec<(Seq, Exchange, Option<Queued>)>,
    /// The messages behind those: how many, how many bytes ([`Message::weight`]), the first and the last.
    pub queue: Option<Backlog>,
    /// The place of the next message.
    pub next: Seq,
}

/// A part of a queue that lies in the store alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    /// How many messages.
    pub len: usize,
    /// The sum of their weights ([`Message::weight`]).
    pub bytes: usize,
    /// No message of it lies before.
    pub first: Seq,
    /// No message of it lies behind.
    pub last: Seq,
}

/// A piece of a backlog.
pub type Page = Vec<(Seq, Queued)>;
