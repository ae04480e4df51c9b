//! From packets to bytes.

mod body;
mod properties;
mod publish;
mod sink;

use super::frame::{PACKET_SIZE_MAX, REMAINING_LENGTH_MAX, varint_len};
use super::kind;
use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::{Ack, Connect, Packet, ProtocolVersion, Publish, QoS};
use crate::mqtt::properties::AckProperties;
use crate::mqtt::reason::ReasonCode;
use properties::Detail;
use sink::{Counter, put_varint};

pub use publish::{Envelope, TopicAlias, encode_publish, transmit_size};
pub use sink::Sink;

/// Appends `packet` in the form of `version` to `out` and returns its size in bytes. Properties are
/// left out before 5.0.
///
/// # Errors
/// See [`EncodeError`]; `out` is unchanged.
pub fn encode(packet: &Packet, version: ProtocolVersion, out: &mut impl Sink) -> Result<usize, EncodeError> {
    Encoder::new(version).encode(packet, out)
}

/// Encodes for one receiver, within what its CONNECT allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoder {
    /// The protocol of the connection.
    pub version: ProtocolVersion,
    /// The receiver's Maximum Packet Size in bytes, fixed header included `[MQTT-3.1.2-24]`.
    pub packet_size_max: u32,
    /// The client's Request Problem Information: without it only PUBLISH, CONNACK and DISCONNECT
    /// carry Reason String and User Properties `[MQTT-3.1.2-29]`.
    pub problem_information: bool,
}

impl Encoder {
    /// An encoder for a receiver that did not limit anything.
    #[must_use]
    pub fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            packet_size_max: PACKET_SIZE_MAX,
            problem_information: true,
        }
    }

    /// The server's encoder towards the client that sent `connect`.
    #[must_use]
    pub fn for_client(connect: &Connect) -> Self {
        let properties = &connect.properties;
        Self {
            version: connect.version,
            packet_size_max: properties.maximum_packet_size.unwrap_or(PACKET_SIZE_MAX),
            problem_information: properties.request_problem_information.unwrap_or(true),
        }
    }

    /// Appends `packet` to `out` and returns its size in bytes. An answer that would be too large
    /// for the receiver loses its Reason String, then its User Properties `[MQTT-3.4.2-2]`
    /// `[MQTT-3.4.2-3]`.
    ///
    /// # Errors
    /// See [`EncodeError`]; `out` is unchanged. A packet that is [`EncodeError::PacketTooLarge`] is
    /// to be treated as if it had been sent `[MQTT-3.1.2-25]`.
    pub fn encode(&self, packet: &Packet, out: &mut impl Sink) -> Result<usize, EncodeError> {
        if let Some(size) = self.encode_short(packet, out) {
            return Ok(size);
        }
        let first = first_byte(packet, self.version)?;
        let always = matches!(
            packet,
            Packet::Publish(_) | Packet::ConnAck(_) | Packet::Disconnect(_)
        );
        let mut detail = if self.problem_information || always {
            Detail::Full
        } else {
            Detail::Least
        };
        loop {
            let mut body = Counter::default();
            body::put(packet, self.version, detail, &mut body)?;
            let size = match self.check_size(body.0) {
                Ok(size) => size,
                Err(error) => {
                    detail = shorter(detail).ok_or(error)?;
                    continue;
                }
            };
            // All that can fail has succeeded in the measuring, so nothing is left half written.
            out.reserve(size);
            out.put(&[first]);
            put_varint(out, body.0)?;
            body::put(packet, self.version, detail, out)?;
            return Ok(size);
        }
    }

    /// An acknowledgement that has nothing to say, or a ping: written at once.
    fn encode_short(&self, packet: &Packet, out: &mut impl Sink) -> Option<usize> {
        let (first, ack) = match packet {
            Packet::PubAck(ack) => (kind::PUBACK << 4, ack),
            Packet::PubRec(ack) => (kind::PUBREC << 4, ack),
            Packet::PubRel(ack) => (kind::PUBREL << 4 | 0b0010, ack),
            Packet::PubComp(ack) => (kind::PUBCOMP << 4, ack),
            _ => return None,
        };
        if self.packet_size_max < 4 || !is_plain(ack) {
            return None;
        }
        let [high, low] = ack.packet_id.get().to_be_bytes();
        out.put(&[first, 2, high, low]);
        Some(4)
    }

    fn check_size(&self, remaining: usize) -> Result<usize, EncodeError> {
        if remaining > REMAINING_LENGTH_MAX {
            return Err(EncodeError::PacketTooLarge {
                size: remaining,
                size_max: REMAINING_LENGTH_MAX,
            });
        }
        let (size, size_max) = (
            1 + varint_len(remaining) + remaining,
            self.packet_size_max as usize,
        );
        if size > size_max {
            Err(EncodeError::PacketTooLarge { size, size_max })
        } else {
            Ok(size)
        }
    }
}

fn shorter(detail: Detail) -> Option<Detail> {
    match detail {
        Detail::Full => Some(Detail::NoReasonString),
        Detail::NoReasonString => Some(Detail::Least),
        Detail::Least => None,
    }
}

fn is_plain(ack: &Ack) -> bool {
    let AckProperties {
        reason_string,
        user_properties,
    } = &ack.properties;
    ack.reason == ReasonCode::Success && reason_string.is_none() && user_properties.is_empty()
}

/// Packet type and flags `[MQTT-2.1.3]`.
fn first_byte(packet: &Packet, version: ProtocolVersion) -> Result<u8, EncodeError> {
    let kind = match packet {
        Packet::Connect(connect) if connect.version != version => {
            return Err(EncodeError::NotInThisVersion);
        }
        Packet::Auth(_) if !version.is_v5() => return Err(EncodeError::NotInThisVersion),
        Packet::Publish(publish) => return publish_first_byte(publish),
        Packet::Connect(_) => kind::CONNECT,
        Packet::ConnAck(_) => kind::CONNACK,
        Packet::PubAck(_) => kind::PUBACK,
        Packet::PubRec(_) => kind::PUBREC,
        Packet::PubRel(_) => kind::PUBREL,
        Packet::PubComp(_) => kind::PUBCOMP,
        Packet::Subscribe(_) => kind::SUBSCRIBE,
        Packet::SubAck(_) => kind::SUBACK,
        Packet::Unsubscribe(_) => kind::UNSUBSCRIBE,
        Packet::UnsubAck(_) => kind::UNSUBACK,
        Packet::PingReq => kind::PINGREQ,
        Packet::PingResp => kind::PINGRESP,
        Packet::Disconnect(_) => kind::DISCONNECT,
        Packet::Auth(_) => kind::AUTH,
    };
    let flags = match kind {
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    Ok(kind << 4 | flags)
}

fn publish_first_byte(publish: &Publish) -> Result<u8, EncodeError> {
    if publish.packet_id.is_some() != (publish.qos != QoS::AtMostOnce) {
        return Err(EncodeError::PacketIdMismatch);
    }
    let dup = publish.dup && publish.qos != QoS::AtMostOnce;
    let flags = u8::from(dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain);
    Ok(kind::PUBLISH << 4 | flags)
}
