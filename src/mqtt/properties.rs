//! Properties of MQTT 5.0 packets `[MQTT-2.2.2]`.
//!
//! Those that the broker acts on are fields. Those that a PUBLISH or a will only passes through are
//! kept as the raw bytes that came, so that they are forwarded unaltered and in order
//! `[MQTT-3.3.2-17]`.

use bytes::Bytes;
use bytestring::ByteString;

/// Name and value of a User Property, order kept.
pub type UserProperty = (ByteString, ByteString);

/// Properties of CONNECT.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnectProperties {
    /// Session Expiry Interval in seconds; absent means 0.
    pub session_expiry_interval_s: Option<u32>,
    /// Receive Maximum; absent means 65,535. Never 0.
    pub receive_maximum: Option<u16>,
    /// Maximum Packet Size in bytes that the client accepts. Never 0.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum that the client accepts; absent means 0.
    pub topic_alias_maximum: Option<u16>,
    /// Request Response Information; absent means false.
    pub request_response_information: Option<bool>,
    /// Request Problem Information; absent means true.
    pub request_problem_information: Option<bool>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

/// Properties of a will.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WillProperties {
    /// Will Delay Interval in seconds; absent means 0.
    pub will_delay_interval_s: Option<u32>,
    /// What the will's PUBLISH carries: everything but the delay, as it came.
    pub publish: PublishProperties,
}

/// Properties of PUBLISH.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PublishProperties {
    /// Topic Alias, never 0. Per connection: never forwarded.
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval in seconds as it came; counted down while the broker holds it.
    pub message_expiry_interval_s: Option<u32>,
    /// Subscription Identifiers; only from server to client.
    pub subscription_identifiers: Vec<u32>,
    /// The encoded pass-through properties in the order they came: Payload Format Indicator,
    /// Content Type, Response Topic, Correlation Data, User Properties. Validated when decoded.
    pub pass_through: Bytes,
}

/// Properties of CONNACK.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnAckProperties {
    /// Session Expiry Interval that the server uses instead of the client's.
    pub session_expiry_interval_s: Option<u32>,
    /// Receive Maximum of the server.
    pub receive_maximum: Option<u16>,
    /// Maximum QoS of the server; absent means 2.
    pub maximum_qos: Option<u8>,
    /// Retain Available; absent means true.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size in bytes that the server accepts.
    pub maximum_packet_size: Option<u32>,
    /// Client identifier that the server assigned.
    pub assigned_client_identifier: Option<ByteString>,
    /// Topic Alias Maximum of the server.
    pub topic_alias_maximum: Option<u16>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
    /// Wildcard Subscription Available; absent means true.
    pub wildcard_subscription_available: Option<bool>,
    /// Subscription Identifiers Available; absent means true.
    pub subscription_identifiers_available: Option<bool>,
    /// Shared Subscription Available; absent means true.
    pub shared_subscription_available: Option<bool>,
    /// Keep-alive in seconds that the client must use instead of its own.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<ByteString>,
    /// Server Reference.
    pub server_reference: Option<ByteString>,
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

/// Properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AckProperties {
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
}

/// Properties of SUBSCRIBE.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SubscribeProperties {
    /// Subscription Identifier, 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
}

/// Properties of UNSUBSCRIBE.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct UnsubscribeProperties {
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
}

/// Properties of DISCONNECT.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DisconnectProperties {
    /// Session Expiry Interval in seconds that replaces the one of CONNECT.
    pub session_expiry_interval_s: Option<u32>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
    /// Server Reference.
    pub server_reference: Option<ByteString>,
}

/// Properties of AUTH.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AuthProperties {
    /// Authentication Method.
    pub authentication_method: Option<ByteString>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
    /// Reason String.
    pub reason_string: Option<ByteString>,
    /// User Properties in order.
    pub user_properties: Vec<UserProperty>,
}
