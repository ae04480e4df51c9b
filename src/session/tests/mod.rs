//! What a session does, event by event: one file per part of the table in [`super`]. The naive models
//! that it is compared with at random are in `model` and `storm`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

use super::Session;
use super::event::{
    Attach, ClientLimits, Counted, Delivery, Effect, Event, PublishOutcome, PublishToken, QueuePolicy,
    Transmit,
};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, Subscribe,
    SubscriptionOptions, Will,
};
use crate::mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, WillProperties,
};
use crate::mqtt::reason::ReasonCode;

mod auth;
mod backlog;
mod books;
mod connect;
mod crash;
mod ending;
mod inbound;
mod inflight;
mod keepalive;
mod limits;
mod model;
mod outbound;
mod packing;
mod queue;
mod refusals;
mod resume;
mod stored;
mod storm;
mod subscriptions;

/// Small limits, so that each is easily met.
pub(super) const LIMITS: ClientLimits = ClientLimits {
    receive_maximum: 3,
    inflight_max: 2,
    queue_len_max: 4,
    queue_bytes_max: 1000,
    packet_size_max: 1 << 20,
    topic_alias_max: 2,
    subscriptions_max: 3,
    session_expiry_max_s: 1000,
    keep_alive_max_s: 0,
    topic_levels_max: 128,
    topic_bytes_max: u16::MAX,
    message_rate: 0,
    byte_rate: 0,
    queue_policy: QueuePolicy::DropNewest,
    queue_qos0: false,
};

/// A session, its clock, and what it caused.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Instant,
}

impl Bench {
    /// A session that was never attached.
    pub(super) fn new() -> Self {
        Self {
            session: Session::new("c".into()),
            now: Instant::now(),
        }
    }

    /// One that a 3.1.1 client is attached to; what CONNECT caused is thrown away.
    pub(super) fn v3(clean: bool) -> Self {
        let mut bench = Self::new();
        bench.attach(connect3(clean));
        bench
    }

    /// One that a 5.0 client with this session expiry is attached to.
    pub(super) fn v5(expiry_s: u32) -> Self {
        let mut bench = Self::new();
        bench.attach(connect5(expiry_s));
        bench
    }

    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = self.handle_verbatim(event);
        out.iter_mut().for_each(without_reason_string);
        out.retain(is_of_interest);
        out
    }

    /// The same with the Reason Strings: what they say is seldom what a test is about.
    pub(super) fn handle_verbatim(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.session.handle(event, self.now, &mut out);
        out
    }

    pub(super) fn attach(&mut self, connect: Connect) -> Vec<Effect> {
        self.attach_limited(connect, LIMITS)
    }

    pub(super) fn attach_limited(&mut self, connect: Connect, limits: ClientLimits) -> Vec<Effect> {
        self.handle(Event::Attach(Box::new(Attach {
            connect,
            assigned_client_id: false,
            limits,
            authentication_data: None,
        })))
    }

    pub(super) fn packet(&mut self, packet: Packet) -> Vec<Effect> {
        self.handle(Event::Packet(packet))
    }

    /// The client publishes; returns the token that the broker was given.
    pub(super) fn publish(&mut self, qos: QoS, id: u16) -> Option<PublishToken> {
        match &self.packet(publish(qos, id))[..] {
            [Effect::Publish { token, .. }] => *token,
            other => panic!("a PUBLISH is handed over and nothing else: {other:?}"),
        }
    }

    pub(super) fn published(&mut self, token: Option<PublishToken>, outcome: PublishOutcome) -> Vec<Effect> {
        self.handle(Event::Published {
            token: token.expect("QoS 1 or 2"),
            outcome,
        })
    }

    pub(super) fn taken(&mut self, token: Option<PublishToken>) -> Vec<Effect> {
        self.published(token, PublishOutcome::Taken)
    }

    /// A topic delivers the message `payload` at `qos`.
    pub(super) fn deliver(&mut self, qos: QoS, payload: &str) -> Vec<Effect> {
        self.handle(Event::Deliver(delivery(qos, payload)))
    }

    pub(super) fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// That each message has one end is for `books`; elsewhere it would stand behind every acknowledgement.
pub(super) fn is_of_interest(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::Count(
            Counted::Delivered
                | Counted::DroppedByClient
                | Counted::Withheld
                | Counted::Repeated
                | Counted::DroppedProtocolError
        )
    )
}

fn without_reason_string(effect: &mut Effect) {
    let Effect::Send(packet) = effect else { return };
    let string = match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            &mut ack.properties.reason_string
        }
        Packet::SubAck(ack) => &mut ack.properties.reason_string,
        Packet::Disconnect(disconnect) => &mut disconnect.properties.reason_string,
        _ => return,
    };
    *string = None;
}

pub(super) fn connect3(clean: bool) -> Connect {
    Connect {
        version: ProtocolVersion::V3_1_1,
        clean_start: clean,
        keep_alive_s: 0,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

/// A 5.0 CONNECT that resumes what there is.
pub(super) fn connect5(expiry_s: u32) -> Connect {
    let session_expiry_interval_s = (expiry_s > 0).then_some(expiry_s);
    let properties = ConnectProperties {
        session_expiry_interval_s,
        ..ConnectProperties::default()
    };
    Connect {
        version: ProtocolVersion::V5,
        properties,
        ..connect3(false)
    }
}

pub(super) fn will(delay_s: u32) -> Will {
    let publish = PublishProperties::default();
    let will_delay_interval_s = (delay_s > 0).then_some(delay_s);
    let properties = WillProperties {
        will_delay_interval_s,
        publish,
    };
    Will {
        topic: "w".into(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtMostOnce,
        retain: false,
        properties,
    }
}

pub(super) fn with_will(connect: Connect, delay_s: u32) -> Connect {
    Connect {
        will: Some(will(delay_s)),
        ..connect
    }
}

pub(super) fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("tests use no 0")
}

pub(super) fn publish(qos: QoS, id: u16) -> Packet {
    Packet::Publish(publish_value(qos, id, "t"))
}

pub(super) fn publish_value(qos: QoS, id: u16, topic: &'static str) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: if qos == QoS::AtMostOnce {
            None
        } else {
            PacketId::new(id)
        },
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"p"),
    }
}

pub(super) fn message(qos: QoS, payload: &str) -> Message {
    Message {
        topic: "t".into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: "other".into(),
    }
}

pub(super) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

/// A message at `qos`, for a subscription that allows any.
pub(super) fn delivery(qos: QoS, payload: &str) -> Delivery {
    of_message(message(qos, payload))
}

pub(super) fn of_message(message: Message) -> Delivery {
    Delivery {
        message: Arc::new(message),
        options: options(QoS::ExactlyOnce),
        subscription_ids: Default::default(),
        from_retained: false,
        share: None,
        dup: false,
        seq: None,
    }
}

pub(super) fn subscribe(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        properties: SubscribeProperties::default(),
        filters: filters
            .iter()
            .map(|filter| (ByteString::from(*filter), options(QoS::AtLeastOnce)))
            .collect(),
    })
}

/// The packet of `Effect::Send` of a 5.0 DISCONNECT.
pub(super) fn disconnected(reason: ReasonCode) -> Effect {
    Effect::Send(Packet::Disconnect(disconnect_value(reason, None)))
}

pub(super) fn disconnect_value(reason: ReasonCode, expiry_s: Option<u32>) -> Disconnect {
    let properties = DisconnectProperties {
        session_expiry_interval_s: expiry_s,
        ..DisconnectProperties::default()
    };
    Disconnect { reason, properties }
}

pub(super) fn disconnect(reason: ReasonCode) -> Packet {
    Packet::Disconnect(disconnect_value(reason, None))
}

/// The CONNACK that must be the first packet sent.
pub(super) fn connack(effects: &[Effect]) -> &ConnAck {
    let sent = effects.iter().find_map(|effect| match effect {
        Effect::Send(Packet::ConnAck(connack)) => Some(connack),
        _ => None,
    });
    sent.expect("a CONNACK was sent")
}

/// The PUBLISHes sent, as (payload, QoS, packet id, dup).
pub(super) fn sent(effects: &[Effect]) -> Vec<(String, u8, u16, bool)> {
    let line = |transmit: &Transmit| {
        let payload = String::from_utf8_lossy(&transmit.message.payload).into_owned();
        (
            payload,
            transmit.qos as u8,
            transmit.packet_id.map_or(0, PacketId::get),
            transmit.dup,
        )
    };
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Transmit(transmit) => Some(line(transmit)),
            _ => None,
        })
        .collect()
}

pub(super) fn counted(effects: &[Effect]) -> Vec<Counted> {
    effects
        .iter()
        .flat_map(|effect| match effect {
            Effect::Count(counted) => vec![*counted],
            Effect::CountTimes(counted, times) => vec![*counted; *times],
            _ => Vec::new(),
        })
        .collect()
}

/// The will's delay, if a will was published.
pub(super) fn will_delay(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::PublishWill { delay_s, .. } => Some(*delay_s),
        _ => None,
    })
}

pub(super) fn ends(effects: &[Effect]) -> bool {
    effects.last() == Some(&Effect::End)
}

pub(super) fn puback(packet_id: u16) -> Packet {
    Packet::PubAck(Ack::success(id(packet_id)))
}

pub(super) fn pubrec(packet_id: u16) -> Packet {
    Packet::PubRec(Ack::success(id(packet_id)))
}

pub(super) fn pubrel(packet_id: u16) -> Packet {
    Packet::PubRel(Ack::success(id(packet_id)))
}

pub(super) fn pubcomp(packet_id: u16) -> Packet {
    Packet::PubComp(Ack::success(id(packet_id)))
}
