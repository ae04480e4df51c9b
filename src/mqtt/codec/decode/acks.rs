//! PUBACK, PUBREC, PUBREL, PUBCOMP `[MQTT-3.4]` to `[MQTT-3.7]`, SUBACK `[MQTT-3.9]`, UNSUBACK
//! `[MQTT-3.11]`.

use bytes::Bytes;

use super::reason;
use super::section::Section;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{Ack, ProtocolVersion, SubAck, UnsubAck};
use crate::mqtt::properties::AckProperties;
use crate::mqtt::reason::ReasonCode::{self, *};

/// Reason codes of PUBACK and PUBREC `[MQTT-3.4.2-1]` `[MQTT-3.5.2-1]`.
pub(super) const PUBACK: &[ReasonCode] = &[
    Success,
    NoMatchingSubscribers,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicNameInvalid,
    PacketIdentifierInUse,
    QuotaExceeded,
    PayloadFormatInvalid,
];

/// Reason codes of PUBREL and PUBCOMP `[MQTT-3.6.2-1]` `[MQTT-3.7.2-1]`.
pub(super) const PUBREL: &[ReasonCode] = &[Success, PacketIdentifierNotFound];

const SUBACK: &[ReasonCode] = &[
    Success,
    GrantedQoS1,
    GrantedQoS2,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicFilterInvalid,
    PacketIdentifierInUse,
    QuotaExceeded,
    SharedSubscriptionsNotSupported,
    SubscriptionIdentifiersNotSupported,
    WildcardSubscriptionsNotSupported,
];

/// Return codes of SUBACK before 5.0 `[MQTT3-3.9.3-2]`.
const SUBACK_3: &[ReasonCode] = &[Success, GrantedQoS1, GrantedQoS2, UnspecifiedError];

const UNSUBACK: &[ReasonCode] = &[
    Success,
    NoSubscriptionExisted,
    UnspecifiedError,
    ImplementationSpecificError,
    NotAuthorized,
    TopicFilterInvalid,
    PacketIdentifierInUse,
];

pub(super) fn ack(
    frame: &Bytes,
    at: usize,
    version: ProtocolVersion,
    table: &[ReasonCode],
) -> Result<Ack, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let mut ack = Ack::success(packet.packet_id()?);
    // Without properties the Property Length may be left out, without a failure the reason too
    // [MQTT-3.4.2.1].
    if version.is_v5() && !packet.is_empty() {
        ack.reason = reason(packet.u8()?, table, "MQTT-3.4.2-1")?;
        if !packet.is_empty() {
            ack.properties = properties(&mut packet)?;
        }
    }
    packet.finish("MQTT-3.4")?;
    Ok(ack)
}

pub(super) fn suback(frame: &Bytes, at: usize, version: ProtocolVersion) -> Result<SubAck, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let packet_id = packet.packet_id()?;
    let (table, properties) = if version.is_v5() {
        (SUBACK, properties(&mut packet)?)
    } else {
        (SUBACK_3, AckProperties::default())
    };
    let reasons = reasons(&mut packet, table)?;
    Ok(SubAck {
        packet_id,
        properties,
        reasons,
    })
}

pub(super) fn unsuback(frame: &Bytes, at: usize, version: ProtocolVersion) -> Result<UnsubAck, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let packet_id = packet.packet_id()?;
    if !version.is_v5() {
        packet.finish("MQTT3-3.11")?;
        return Ok(UnsubAck {
            packet_id,
            properties: AckProperties::default(),
            reasons: Vec::new(),
        });
    }
    let properties = properties(&mut packet)?;
    let reasons = reasons(&mut packet, UNSUBACK)?;
    Ok(UnsubAck {
        packet_id,
        properties,
        reasons,
    })
}

fn reasons(packet: &mut Reader<'_>, table: &[ReasonCode]) -> Result<Vec<ReasonCode>, DecodeError> {
    let bytes = packet.rest();
    if bytes.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.9.3-1"));
    }
    bytes
        .iter()
        .map(|byte| reason(*byte, table, "MQTT-3.9.3-2"))
        .collect()
}

fn properties(packet: &mut Reader<'_>) -> Result<AckProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_ACK)?;
    let mut properties = AckProperties::default();
    while let Some(identifier) = section.next()? {
        if identifier == id::REASON_STRING {
            properties.reason_string = Some(section.reader.string()?);
        } else {
            section.user_property(&mut properties.user_properties)?;
        }
    }
    Ok(properties)
}
