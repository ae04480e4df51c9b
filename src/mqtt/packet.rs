//! MQTT control packets as values, shaped for 5.0; 3.1 and 3.1.1 use the subset that they have.
//!
//! A decoded packet borrows nothing: its strings and payloads are reference-counted ranges of the
//! buffer that the frame came in ([`Bytes`], [`ByteString`]), so cloning one copies no bytes.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};
use super::reason::{ConnectReturnCode, ReasonCode};

/// A packet identifier; never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = NonZeroU16;

/// The protocol that a connection speaks, from name and level of its CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProtocolVersion {
    /// MQTT 3.1, `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1, `MQTT`, level 4.
    V3_1_1,
    /// MQTT 5.0, `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// Whether packets carry properties and reason codes.
    #[must_use]
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// Quality of service `[MQTT-4.3]`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize,
)]
#[repr(u8)]
pub enum QoS {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of two bits of a header, `None` for the forbidden 3.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Any control packet, in either direction.
#[derive(Clone, PartialEq, Debug)]
pub enum Packet {
    /// Client → server: the first packet of a connection.
    Connect(Box<Connect>),
    /// Server → client: the answer to CONNECT.
    ConnAck(Box<ConnAck>),
    /// Either way: an application message.
    Publish(Publish),
    /// QoS 1 receipt.
    PubAck(Ack),
    /// QoS 2, part 1.
    PubRec(Ack),
    /// QoS 2, part 2.
    PubRel(Ack),
    /// QoS 2, part 3.
    PubComp(Ack),
    /// Client → server.
    Subscribe(Subscribe),
    /// Server → client.
    SubAck(SubAck),
    /// Client → server.
    Unsubscribe(Unsubscribe),
    /// Server → client.
    UnsubAck(UnsubAck),
    /// Client → server.
    PingReq,
    /// Server → client.
    PingResp,
    /// Either way in 5.0; client → server before.
    Disconnect(Disconnect),
    /// Either way, 5.0 only.
    Auth(Auth),
}

/// CONNECT.
#[derive(Clone, PartialEq, Debug)]
pub struct Connect {
    /// Protocol of this connection.
    pub version: ProtocolVersion,
    /// Clean Session (3.x) or Clean Start (5.0).
    pub clean_start: bool,
    /// Keep-alive in seconds; 0 is off.
    pub keep_alive_s: u16,
    /// Client identifier, possibly empty.
    pub client_id: ByteString,
    /// The will, if the flag is set.
    pub will: Option<Will>,
    /// User name, if given.
    pub username: Option<ByteString>,
    /// Password, if given. Binary data.
    pub password: Option<Bytes>,
    /// 5.0 properties; empty before.
    pub properties: ConnectProperties,
}

/// The will of a CONNECT.
#[derive(Clone, PartialEq, Debug)]
pub struct Will {
    /// Topic name to publish to.
    pub topic: ByteString,
    /// Message to publish.
    pub payload: Bytes,
    /// QoS of the publication.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// 5.0 will properties; empty before.
    pub properties: WillProperties,
}

/// CONNACK.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnAck {
    /// Whether the server had a session of this client id.
    pub session_present: bool,
    /// 5.0 reason; 3.x sends [`ReasonCode::connect_return_code`] of it.
    pub reason: ReasonCode,
    /// 5.0 properties; empty before.
    pub properties: ConnAckProperties,
}

impl ConnAck {
    /// The return code that a 3.x client reads.
    #[must_use]
    pub fn return_code(&self) -> ConnectReturnCode {
        self.reason.connect_return_code()
    }
}

/// PUBLISH.
#[derive(Clone, PartialEq, Debug)]
pub struct Publish {
    /// Set when this is a retransmission.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Topic name; empty only in 5.0 with a topic alias.
    pub topic: ByteString,
    /// Present exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// 5.0 properties; empty before.
    pub properties: PublishProperties,
    /// Application message.
    pub payload: Bytes,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Clone, PartialEq, Debug)]
pub struct Ack {
    /// The packet identifier that is acknowledged.
    pub packet_id: PacketId,
    /// 5.0 reason; always Success before.
    pub reason: ReasonCode,
    /// 5.0 properties; empty before.
    pub properties: AckProperties,
}

impl Ack {
    /// An acknowledgement without reason or properties.
    #[must_use]
    pub fn success(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: ReasonCode::Success,
            properties: AckProperties::default(),
        }
    }

    /// An acknowledgement with a reason and no properties.
    #[must_use]
    pub fn with_reason(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: AckProperties::default(),
        }
    }
}

/// What a subscriber does about retained messages on SUBSCRIBE `[MQTT-3.8.3.1]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum RetainHandling {
    /// Send retained messages at each subscribe.
    #[default]
    Send = 0,
    /// Send them only if the subscription is new.
    SendIfNew = 1,
    /// Never send them.
    DontSend = 2,
}

/// Options of one subscription. 3.x has only the QoS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SubscriptionOptions {
    /// Highest QoS at which messages are sent.
    pub qos: QoS,
    /// Do not send this client's own publications back.
    pub no_local: bool,
    /// Keep the retain flag as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// The identifiers of the subscriptions under which one copy of a message goes to a client
/// `[MQTT-3.3.4-3]` `[MQTT-3.3.4-4]`. Only what matches several subscriptions of a client is allocated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SubscriptionIds {
    /// None of the subscriptions has one.
    #[default]
    None,
    /// The usual case.
    One(u32),
    /// Of overlapping subscriptions, in no particular order.
    Many(Arc<Vec<u32>>),
}

impl SubscriptionIds {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(identifier) => std::slice::from_ref(identifier),
            Self::Many(identifiers) => identifiers,
        }
    }

    /// Adds one; the same one of two subscriptions counts twice, as each of them has it.
    pub fn add(&mut self, identifier: u32) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(identifier),
            Self::One(first) => Self::Many(Arc::new(vec![first, identifier])),
            Self::Many(mut all) => {
                Arc::make_mut(&mut all).push(identifier);
                Self::Many(all)
            }
        };
    }
}

impl From<Option<u32>> for SubscriptionIds {
    fn from(identifier: Option<u32>) -> Self {
        identifier.map_or(Self::None, Self::One)
    }
}

/// SUBSCRIBE.
#[derive(Clone, PartialEq, Debug)]
pub struct Subscribe {
    /// Packet identifier of the SUBACK.
    pub packet_id: PacketId,
    /// 5.0 properties; empty before.
    pub properties: SubscribeProperties,
    /// Filters in the order of the packet; never empty.
    pub filters: Vec<(ByteString, SubscriptionOptions)>,
}

/// SUBACK.
#[derive(Clone, PartialEq, Debug)]
pub struct SubAck {
    /// Packet identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 properties; empty before.
    pub properties: AckProperties,
    /// One per filter, in order. 3.x sends 0x80 for every failure.
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE.
#[derive(Clone, PartialEq, Debug)]
pub struct Unsubscribe {
    /// Packet identifier of the UNSUBACK.
    pub packet_id: PacketId,
    /// 5.0 properties; empty before.
    pub properties: UnsubscribeProperties,
    /// Filters in the order of the packet; never empty.
    pub filters: Vec<ByteString>,
}

/// UNSUBACK.
#[derive(Clone, PartialEq, Debug)]
pub struct UnsubAck {
    /// Packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// 5.0 properties; empty before.
    pub properties: AckProperties,
    /// One per filter, in order; not sent before 5.0.
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT.
#[derive(Clone, PartialEq, Debug)]
pub struct Disconnect {
    /// 5.0 reason; `Success` is a normal disconnection.
    pub reason: ReasonCode,
    /// 5.0 properties; empty before.
    pub properties: DisconnectProperties,
}

/// AUTH, 5.0 only.
#[derive(Clone, PartialEq, Debug)]
pub struct Auth {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// Method, data, reason string, user properties.
    pub properties: AuthProperties,
}
