//! The alphabet of a session: everything that can happen to it, and everything it can cause.
//!
//! Read this file first. The session is a value ([`super::Session`]) with one
//! `handle(event, now, &mut effects)`; the actor around it turns packets, deliveries and timers into
//! [`Event`]s and carries out the [`Effect`]s in order.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::lasting::{Exchange, Page, Seq};
use crate::limits;
use crate::mqtt::codec::TopicAlias;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{
    Connect, Packet, PacketId, QoS, RetainHandling, SubscriptionIds, SubscriptionOptions, Will,
};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::is_within;

/// Something that happened to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A transport was attached; its CONNECT was authenticated and names this session.
    Attach(Box<Attach>),
    /// The client sent a packet (never CONNECT: a second one is a protocol error that the session answers).
    Packet(Packet),
    /// The codec refused what the client sent; the session closes with the reason.
    Malformed(ReasonCode),
    /// A topic has a message for this session.
    Deliver(Delivery),
    /// The broker has taken (or refused) the message of [`Effect::Publish`].
    Published {
        /// The token of the effect.
        token: PublishToken,
        /// How it went.
        outcome: PublishOutcome,
    },
    /// The router answered [`Effect::Subscribe`]: one reason per filter, in order.
    Subscribed {
        /// The packet identifier of the effect.
        packet_id: PacketId,
        /// Granted QoS or a failure, per filter.
        reasons: Vec<ReasonCode>,
    },
    /// The router answered [`Effect::Unsubscribe`].
    Unsubscribed {
        /// The packet identifier of the effect.
        packet_id: PacketId,
        /// Per filter, in order.
        reasons: Vec<ReasonCode>,
    },
    /// The transport ended without a DISCONNECT: closed by the client, reset, or a write failed. Never
    /// fed for a transport that [`Effect::CloseTransport`] or a later [`Event::Attach`] has replaced.
    TransportLost,
    /// Another connection with this client id is about to be attached here. Fed while the old transport
    /// still stands, so that its client reads 0x8E; [`Event::Attach`] follows, also for a clean start
    /// (the session then forgets its past, it does not end).
    TakenOver,
    /// An operator or the broker ends the connection (drain, kick). The session lives on if it is
    /// persistent. Without a connection it is ignored.
    Kick(ReasonCode),
    /// The node is being emptied: as [`Event::Kick`], and a 5.0 client reads where to go.
    SendAway {
        /// 0x9C or 0x9D with a reference, else 0x8B.
        reason: ReasonCode,
        /// The Server Reference `[MQTT-4.13]`.
        server: Option<ByteString>,
    },
    /// The session is to end whatever its expiry: an operator deletes it, or its client now has a
    /// session elsewhere. A connection that it has is told 0x8E.
    Discard,
    /// The broker answered [`Effect::Authenticate`].
    Authenticated(AuthOutcome),
    /// The connection is gone and another member of this shared group has one: what that may take over is
    /// given up by [`Effect::PassOn`].
    PassOn(NonZeroU64),
    /// The instant of an earlier [`Effect::WakeAt`] has come. One from the past is harmless.
    Wake,
    /// The client is not being read, by the broker's own will: its silence is not the client's.
    NotRead,
    /// The answer to [`Effect::Fetch`]: there is one for each, this or [`Event::FetchFailed`], but none for
    /// one from before [`Effect::ForgetSubscriptions`]. Empty: nothing is there any more.
    Fetched(Page),
    /// The store could not be read; it is asked again.
    FetchFailed,
    /// The transport has room again after [`Event::Deliver`]s were held back; queued messages may flow.
    Writable,
}

/// The transport and the CONNECT that a session is attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct Attach {
    /// The CONNECT, its client id already assigned if it was empty.
    pub connect: Connect,
    /// Whether the server chose the client id (5.0 tells the client).
    pub assigned_client_id: bool,
    /// What the broker allows this client.
    pub limits: ClientLimits,
    /// The last word of the enhanced authentication by which the client came in; CONNACK tells it.
    pub authentication_data: Option<Bytes>,
}

/// How a step of a re-authentication went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthOutcome {
    /// The client is to answer this.
    Continue(Bytes),
    /// It is still who it was; the last word.
    Success(Bytes),
    /// It is not: the connection is closed with this reason `[MQTT-4.12.1-2]`.
    Failed(ReasonCode),
}

/// What the broker allows one client; from the configuration of its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// QoS 1 and 2 messages from the client that may wait for their acknowledgement.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages to the client that may be unacknowledged, whatever it allows.
    pub inflight_max: u16,
    /// Messages queued for the session, while it is away or its window is full.
    pub queue_len_max: usize,
    /// Bytes (see [`Message::weight`]) queued for the session.
    pub queue_bytes_max: usize,
    /// Largest packet in bytes, fixed header included.
    pub packet_size_max: u32,
    /// Topic aliases that the client may use.
    pub topic_alias_max: u16,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Longest session expiry in seconds; 0xFFFF_FFFF never expires.
    pub session_expiry_max_s: u32,
    /// Longest keep-alive in seconds that is accepted; 0 accepts any.
    pub keep_alive_max_s: u16,
    /// Levels of a topic name or filter; at most [`crate::limits::TOPIC_LEVELS_MAX`].
    pub topic_levels_max: u16,
    /// Bytes of a topic name or filter; 65,535 is all that MQTT can express `[MQTT-4.7.3-3]`.
    pub topic_bytes_max: u16,
    /// PUBLISH packets of the client in a second, a second's worth at once; 0 is no limit. Beyond it the
    /// client is not read.
    pub message_rate: u32,
    /// Bytes of the client in a second, a second's worth at once; 0 is no limit. Beyond it the client is
    /// not read.
    pub byte_rate: u32,
    /// What gives way when the queue is full.
    pub queue_policy: QueuePolicy,
    /// Whether QoS 0 is queued for a client that is away.
    pub queue_qos0: bool,
}

impl Default for ClientLimits {
    /// What holds unless configured otherwise.
    fn default() -> Self {
        Self {
            receive_maximum: limits::RECEIVE_MAXIMUM,
            inflight_max: limits::INFLIGHT_MAX,
            queue_len_max: limits::SESSION_QUEUE_LEN_MAX,
            queue_bytes_max: limits::SESSION_QUEUE_BYTES_MAX,
            packet_size_max: limits::PACKET_SIZE_MAX,
            topic_alias_max: limits::TOPIC_ALIAS_MAX,
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
            session_expiry_max_s: limits::SESSION_EXPIRY_MAX_S,
            keep_alive_max_s: 0,
            topic_levels_max: limits::TOPIC_LEVELS_MAX as u16,
            topic_bytes_max: u16::MAX,
            message_rate: 0,
            byte_rate: 0,
            queue_policy: QueuePolicy::DropNewest,
            queue_qos0: false,
        }
    }
}

impl ClientLimits {
    /// Whether the client may use this topic name or filter.
    #[must_use]
    pub fn allow_topic(&self, topic: &str) -> bool {
        is_within(topic, self.topic_levels_max.into(), self.topic_bytes_max.into())
    }
}

/// What gives way when a queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueuePolicy {
    /// The message that comes, as mosquitto does: what was promised first is kept.
    #[default]
    DropNewest,
    /// The message that has waited longest, as EMQX does: what is kept is fresh.
    DropOldest,
}

/// A message for this session, and under which subscription it comes. Where several match there is one
/// delivery for all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The message, shared with all other receivers.
    pub message: Arc<Message>,
    /// Options of the subscription that matched; of several the highest QoS `[MQTT-3.3.4-2]`.
    pub options: SubscriptionOptions,
    /// The identifiers of the subscriptions that matched (5.0).
    pub subscription_ids: SubscriptionIds,
    /// True when the message comes from the retained store because of a new subscription: it is
    /// then sent with the retain flag `[MQTT-3.3.1-8]`.
    pub from_retained: bool,
    /// Names the shared group as a member of which it comes; the broker's business.
    pub share: Option<NonZeroU64>,
    /// Another member of the group may have had it: it is sent with DUP.
    pub dup: bool,
    /// Its place in the store, if it is stored. Each that the session is given comes back in one
    /// [`Effect::Settled`], unless the session ends or is emptied.
    pub seq: Option<Seq>,
}

impl Delivery {
    /// The retain flag towards the client `[MQTT-3.3.1-8]` `[MQTT-3.3.1-12]` `[MQTT-3.3.1-13]`.
    #[must_use]
    pub fn sent_with_retain(&self) -> bool {
        self.from_retained || (self.options.retain_as_published && self.message.retain)
    }
}

/// Names one PUBLISH of the client that waits for the broker. Unique within a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishToken(pub u64);

/// How the broker took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Every receiving session of this node has it; forwarded where it must be.
    Taken,
    /// Nobody subscribes to it (5.0 says 0x10).
    NoSubscribers,
    /// Not taken, with the reason for the client. A 3.x client cannot be told: a refusal for good
    /// (not authorised, invalid name or payload, …) is acknowledged as if it were taken; for any other
    /// the connection is closed, so that the client sends it again `[MQTT3-3.3.5-2]`.
    Refused(ReasonCode),
}

/// Something that a session causes. Carried out in order by the actor around it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write a control packet to the transport (everything but PUBLISH).
    Send(Packet),
    /// Write a PUBLISH to the transport.
    Transmit(Transmit),
    /// Hand a message to the broker: retained store and every matching subscriber. With a token the
    /// broker answers [`Event::Published`]; without one (QoS 0) it does not.
    Publish {
        /// `Some` for QoS 1 and 2.
        token: Option<PublishToken>,
        /// The message; `message.retain` tells whether the retained store is to learn of it.
        message: Arc<Message>,
        /// `Some` for QoS 2: its packet identifier, until [`Effect::Completed`].
        exchange: Option<PacketId>,
    },
    /// The exchange of a QoS 2 message of the client is over: its PUBREL has come, or the broker has refused
    /// it. Comes before the PUBCOMP; only of a session that outlives its connection.
    Completed(PacketId),
    /// The exchange of a stored message has come so far. Comes before what is sent: PUBREL must not leave
    /// before it is safe that the message was released `[MQTT-4.3.3-5]`. PUBLISH need not wait: at QoS 2 it
    /// is only ever sent under [`Seq::packet_id`], before a crash and after it.
    Exchange(Seq, Exchange),
    /// A stored message is the client's, was passed on or dropped: the store may forget it.
    Settled(Seq),
    /// Read messages that wait in the store alone; answered by [`Event::Fetched`]. Another is given only when
    /// the one before was answered.
    Fetch {
        /// The first, or where it would be.
        from: Seq,
        /// The last that may be read.
        last: Seq,
        /// How many at most; not 0.
        len: usize,
        /// How many bytes at most (see [`Message::weight`]), but for the first; not 0.
        bytes: usize,
    },
    /// Add (or change) subscriptions; answered by [`Event::Subscribed`]. Retained messages follow
    /// as [`Event::Deliver`] after it, for the requests that ask for them.
    Subscribe {
        /// Packet identifier of the SUBSCRIBE.
        packet_id: PacketId,
        /// One per filter, in order; filters that the session itself refused are not in it.
        requests: Vec<SubscribeRequest>,
    },
    /// Remove subscriptions; answered by [`Event::Unsubscribed`].
    Unsubscribe {
        /// Packet identifier of the UNSUBSCRIBE.
        packet_id: PacketId,
        /// Filters that the session has.
        filters: Vec<ByteString>,
    },
    /// A clean start in place: remove every subscription of the session, unanswered, and throw away what
    /// was to be delivered to it, and all that is stored of it, without further word. [`Event::Subscribed`]
    /// for an older [`Effect::Subscribe`] may still come. The session goes on, empty.
    ForgetSubscriptions,
    /// Flush what was sent, then close the transport. The session lives on if it is persistent.
    CloseTransport,
    /// The will is due: publish it now or after its delay (seconds; 0 is now).
    PublishWill {
        /// The will.
        will: Arc<Will>,
        /// Will Delay Interval, already capped by the session's expiry `[MQTT-3.1.3-9]`.
        delay_s: u32,
    },
    /// A delayed will of this session is not to be published: the client is back in time.
    CancelWill,
    /// The client proves anew who it is, by the method of its CONNECT; answered by
    /// [`Event::Authenticated`].
    Authenticate {
        /// Whether it begins; otherwise the data answers [`AuthOutcome::Continue`].
        begins: bool,
        /// What the client says.
        data: Bytes,
    },
    /// Give a message to another member of the shared group.
    PassOn {
        /// The group, from [`Delivery::share`].
        share: NonZeroU64,
        /// The message.
        message: Arc<Message>,
        /// Whether it was sent to this client.
        dup: bool,
    },
    /// Call with [`Event::Wake`] at this instant. A later effect replaces an earlier one.
    WakeAt(Instant),
    /// A message was dropped, or another thing happened that is counted.
    Count(Counted),
    /// The same so many times: a session may hold a million messages.
    CountTimes(Counted, usize),
    /// The session is over: remove its subscriptions and all that is stored of it, and stop. Always the last
    /// effect.
    End,
}

/// A PUBLISH to the client: the shared message and what differs for this receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Transmit {
    /// The message.
    pub message: Arc<Message>,
    /// Retransmission flag.
    pub dup: bool,
    /// QoS towards this client.
    pub qos: QoS,
    /// Retain flag towards this client.
    pub retain: bool,
    /// `Some` exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// 5.0: remaining Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// 5.0: the subscription identifiers.
    pub subscription_ids: SubscriptionIds,
    /// 5.0: the topic alias, where the client allows them.
    pub alias: Option<TopicAlias>,
}

/// One filter of a SUBSCRIBE that the session accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribeRequest {
    /// The topic filter, `$share/…` included.
    pub filter: ByteString,
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its subscription identifier (5.0).
    pub subscription_identifier: Option<u32>,
    /// Whether retained messages are to be delivered: decided from
    /// [`RetainHandling`] and whether the subscription is new.
    pub send_retained: bool,
}

impl SubscribeRequest {
    /// Whether retained messages follow a subscription with `handling` that is `new` or not.
    #[must_use]
    pub fn wants_retained(handling: RetainHandling, new: bool) -> bool {
        match handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => new,
            RetainHandling::DontSend => false,
        }
    }
}

/// What a session counts; each is a metric, each drop has its reason.
///
/// Double entry: each [`Event::Deliver`] is in the end one [`Effect::Transmit`] at QoS 0, one
/// [`Effect::PassOn`] or one of these (see [`Counted::copies`]), or is still held
/// ([`Session::held_len`](super::Session::held_len)). Each PUBLISH of the client is one
/// [`Effect::Publish`] or one of these ([`Counted::is_of_publish`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Message dropped: it came when the queue was at its limit of messages or bytes.
    DroppedQueueFull,
    /// Message dropped: it had waited longest when the queue was at its limit ([`QueuePolicy::DropOldest`]).
    DroppedQueueOldest,
    /// QoS 0 message dropped: the client is away.
    DroppedQoS0Offline,
    /// QoS 0 message dropped: the transport does not take more.
    DroppedSlowConsumer,
    /// Message dropped: it expired in the queue.
    DroppedExpired,
    /// Message dropped: larger than the client's Maximum Packet Size.
    DroppedTooLarge,
    /// Message dropped: it waited for, or came for, a session that has ended or was cleaned.
    DroppedSessionEnded,
    /// Message dropped: the store that it waited in does not have it any more.
    DroppedNotFound,
    /// Message dropped: its session moved to another node and had more than may be moved.
    DroppedNotMoved,
    /// Message dropped: it was sent at QoS 1 or 2, and the session ended before the client acknowledged it.
    /// The client may have it.
    DroppedUnacknowledged,
    /// Message dropped: the client answered it with a reason that refuses it (5.0).
    DroppedByClient,
    /// Message held back: the client published it, and its subscription wants none of those (No Local).
    Withheld,
    /// A QoS 1 or 2 message is the client's: it sent PUBACK or PUBREC.
    Delivered,
    /// A message that waited or was in flight goes with the session to another node.
    MovedAway,
    /// A message came with the session, or behind it, from another node.
    MovedIn,
    /// A message that waited or was in flight was found in the store with its session.
    Restored,
    /// A PUBLISH of the client was one that it had sent before (QoS 2): nothing was published.
    Repeated,
    /// A PUBLISH of the client broke the protocol: nothing was published, and its connection ends.
    DroppedProtocolError,
    /// Message of the client dropped: its topic has too many levels or bytes.
    DroppedTopicLimit,
    /// A subscription was refused: the session has as many as it may have.
    SubscriptionsRefused,
    /// An acknowledgement for a packet identifier that is not in flight.
    UnknownAck,
}

impl Counted {
    /// Tells it so many times.
    pub(super) fn times(self, times: usize) -> Option<Effect> {
        match times {
            0 => None,
            1 => Some(Effect::Count(self)),
            _ => Some(Effect::CountTimes(self, times)),
        }
    }

    /// By how many messages for the client the session holds more after this: one that came with it, or one
    /// less for each that has come to its end.
    #[must_use]
    pub fn copies(self) -> i8 {
        match self {
            Self::MovedIn | Self::Restored => 1,
            Self::DroppedQueueFull
            | Self::DroppedQueueOldest
            | Self::DroppedQoS0Offline
            | Self::DroppedSlowConsumer
            | Self::DroppedExpired
            | Self::DroppedTooLarge
            | Self::DroppedSessionEnded
            | Self::DroppedNotFound
            | Self::DroppedNotMoved
            | Self::DroppedUnacknowledged
            | Self::DroppedByClient
            | Self::Withheld
            | Self::Delivered
            | Self::MovedAway => -1,
            Self::Repeated
            | Self::DroppedProtocolError
            | Self::DroppedTopicLimit
            | Self::SubscriptionsRefused
            | Self::UnknownAck => 0,
        }
    }

    /// Whether it tells what became of a PUBLISH of the client.
    #[must_use]
    pub fn is_of_publish(self) -> bool {
        matches!(
            self,
            Self::Repeated | Self::DroppedProtocolError | Self::DroppedTopicLimit
        )
    }
}
