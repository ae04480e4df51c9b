//! PUBLISH to a receiver, straight from the shared [`Message`]: the code that runs once per delivery.

use std::num::NonZeroU16;

use super::sink::{Sink, varint};
use crate::mqtt::codec::frame::{REMAINING_LENGTH_MAX, varint_len};
use crate::mqtt::codec::{kind, property as id};
use crate::mqtt::error::EncodeError;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{PacketId, ProtocolVersion, QoS};

/// What differs from receiver to receiver of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Envelope<'a> {
    /// Retransmission; never with QoS 0 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// QoS towards this receiver.
    pub qos: QoS,
    /// Retain flag towards this receiver.
    pub retain: bool,
    /// `Some` exactly for QoS 1 and 2 `[MQTT-2.2.1-2]`.
    pub packet_id: Option<PacketId>,
    /// What is left of the Message Expiry Interval in seconds `[MQTT-3.3.2-6]`; 5.0 only.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers, 1 to 268,435,455 `[MQTT-3.3.4-3]`; 5.0 only.
    pub subscription_ids: &'a [u32],
    /// Topic Alias towards this receiver; 5.0 only.
    pub alias: Option<TopicAlias>,
}

/// A Topic Alias towards one receiver `[MQTT-3.3.2-11]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicAlias {
    /// 1 to the Topic Alias Maximum of the receiver.
    pub number: NonZeroU16,
    /// Whether the receiver knows it on this connection: the topic name is then left out.
    pub known: bool,
}

impl Envelope<'_> {
    fn first_byte(&self) -> u8 {
        // DUP with QoS 0 would be malformed, whatever the caller says.
        let dup = self.dup && self.qos != QoS::AtMostOnce;
        kind::PUBLISH << 4 | u8::from(dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }
}

/// The topic name as it goes out: empty behind an alias that the receiver knows.
#[inline]
fn topic<'a>(message: &'a Message, envelope: &Envelope<'_>) -> &'a [u8] {
    match envelope.alias {
        Some(alias) if alias.known => &[],
        _ => message.topic.as_bytes(),
    }
}

/// Bytes of the properties, without the length before them.
#[inline]
fn properties_len(message: &Message, envelope: &Envelope<'_>) -> usize {
    let expiry = if envelope.expiry_s.is_some() { 5 } else { 0 };
    let identifiers = envelope.subscription_ids.iter();
    let subscription: usize = identifiers
        .map(|identifier| 1 + varint_len(*identifier as usize))
        .sum();
    let alias = if envelope.alias.is_some() { 3 } else { 0 };
    expiry + subscription + alias + message.pass_through.len()
}

/// Remaining Length, and the Property Length in 5.0.
#[inline]
fn lengths(version: ProtocolVersion, message: &Message, envelope: &Envelope<'_>) -> (usize, usize) {
    let packet_id = if envelope.packet_id.is_some() { 2 } else { 0 };
    let remaining = 2 + topic(message, envelope).len() + packet_id + message.payload.len();
    if version.is_v5() {
        let properties = properties_len(message, envelope);
        (remaining + varint_len(properties) + properties, properties)
    } else {
        (remaining, 0)
    }
}

/// Bytes that [`encode_publish`] will write, to be held against the receiver's Maximum Packet Size
/// before anything is written `[MQTT-3.1.2-24]`.
#[must_use]
pub fn transmit_size(version: ProtocolVersion, message: &Message, envelope: &Envelope<'_>) -> usize {
    let (remaining, _) = lengths(version, message, envelope);
    1 + varint_len(remaining) + remaining
}

/// Appends the PUBLISH of `message` to `out` and returns its size in bytes. Allocates nothing but
/// room in `out`.
///
/// # Errors
/// [`EncodeError::PacketIdMismatch`], [`EncodeError::FieldTooLong`] (topic),
/// [`EncodeError::PacketTooLarge`] (beyond what MQTT can say; the receiver's own limit is the
/// caller's, see [`transmit_size`]) or [`EncodeError::ValueOutOfRange`] (subscription identifier).
/// `out` is unchanged.
#[inline]
pub fn encode_publish(
    out: &mut impl Sink,
    version: ProtocolVersion,
    message: &Message,
    envelope: &Envelope<'_>,
) -> Result<usize, EncodeError> {
    let (remaining, properties) = lengths(version, message, envelope);
    check(message, envelope, remaining)?;
    let (length, length_len) = varint(remaining);
    let size = 1 + length_len + remaining;
    out.reserve(size);

    // Fixed header and length of the topic in one piece; `check` saw that the topic fits.
    let mut head = [0; 7];
    head[0] = envelope.first_byte();
    head[1..5].copy_from_slice(&length);
    let topic = topic(message, envelope);
    head[1 + length_len..3 + length_len].copy_from_slice(&(topic.len() as u16).to_be_bytes());
    out.put(&head[..3 + length_len]);
    out.put(topic);
    if let Some(packet_id) = envelope.packet_id {
        out.put(&packet_id.get().to_be_bytes());
    }
    if version.is_v5() {
        put_properties(out, message, envelope, properties);
    }
    out.put(&message.payload);
    Ok(size)
}

fn put_properties(out: &mut impl Sink, message: &Message, envelope: &Envelope<'_>, len: usize) {
    if len == 0 {
        out.put(&[0]);
        return;
    }
    let (length, length_len) = varint(len);
    out.put(&length[..length_len]);
    if let Some(seconds) = envelope.expiry_s {
        let [a, b, c, d] = seconds.to_be_bytes();
        out.put(&[id::MESSAGE_EXPIRY_INTERVAL, a, b, c, d]);
    }
    for identifier in envelope.subscription_ids {
        let (bytes, len) = varint(*identifier as usize);
        out.put(&[id::SUBSCRIPTION_IDENTIFIER]);
        out.put(&bytes[..len]);
    }
    if let Some(alias) = envelope.alias {
        let [a, b] = alias.number.get().to_be_bytes();
        out.put(&[id::TOPIC_ALIAS, a, b]);
    }
    out.put(&message.pass_through);
}

#[inline]
fn check(message: &Message, envelope: &Envelope<'_>, remaining: usize) -> Result<(), EncodeError> {
    if envelope.packet_id.is_some() != (envelope.qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketIdMismatch);
    }
    if message.topic.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong);
    }
    if remaining > REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLarge {
            size: remaining,
            size_max: REMAINING_LENGTH_MAX,
        });
    }
    let in_range = |identifier: &u32| (1..=REMAINING_LENGTH_MAX as u32).contains(identifier);
    if !envelope.subscription_ids.iter().all(in_range) {
        return Err(EncodeError::ValueOutOfRange);
    }
    Ok(())
}
