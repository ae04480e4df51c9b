//! From the bytes of one whole packet to its value.

mod acks;
mod closing;
mod connack;
mod connect;
mod publish;
mod section;
mod subscribe;

use bytes::Bytes;

use super::frame::Header;
use super::{Role, kind};
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{Packet, ProtocolVersion};
use crate::mqtt::reason::ReasonCode;

pub(super) use connect::connect;
pub(super) use publish::flags;

/// A packet of any kind but CONNECT. `frame` is the whole packet, its header already admitted.
///
/// Always `Some`: the type of the caller, so that no packet is moved on its way out.
pub(super) fn packet(
    frame: Bytes,
    header: Header,
    version: ProtocolVersion,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let at = header.len;
    if header.kind() == kind::PUBLISH {
        return publish::publish(frame, header, version, role);
    }
    Ok(Some(match header.kind() {
        kind::CONNACK => Packet::ConnAck(Box::new(connack::connack(&frame, at, version)?)),
        kind::PUBACK => Packet::PubAck(acks::ack(&frame, at, version, acks::PUBACK)?),
        kind::PUBREC => Packet::PubRec(acks::ack(&frame, at, version, acks::PUBACK)?),
        kind::PUBREL => Packet::PubRel(acks::ack(&frame, at, version, acks::PUBREL)?),
        kind::PUBCOMP => Packet::PubComp(acks::ack(&frame, at, version, acks::PUBREL)?),
        kind::SUBSCRIBE => Packet::Subscribe(subscribe::subscribe(&frame, at, version)?),
        kind::SUBACK => Packet::SubAck(acks::suback(&frame, at, version)?),
        kind::UNSUBSCRIBE => Packet::Unsubscribe(subscribe::unsubscribe(&frame, at, version)?),
        kind::UNSUBACK => Packet::UnsubAck(acks::unsuback(&frame, at, version)?),
        kind::PINGREQ if frame.len() == at => Packet::PingReq,
        kind::PINGRESP if frame.len() == at => Packet::PingResp,
        kind::PINGREQ | kind::PINGRESP => return Err(DecodeError::malformed("MQTT-3.12")),
        kind::DISCONNECT => Packet::Disconnect(closing::disconnect(&frame, at, version, role)?),
        kind::AUTH => Packet::Auth(closing::auth(&frame, at)?),
        _ => return Err(DecodeError::malformed("MQTT-2.1.2")),
    }))
}

/// The reason code of a byte, if the packet's table has it.
fn reason(byte: u8, table: &[ReasonCode], clause: &'static str) -> Result<ReasonCode, DecodeError> {
    let found = table.iter().find(|code| **code as u8 == byte);
    found.copied().ok_or(DecodeError::protocol(clause))
}
