//! CONNACK `[MQTT-3.2]`, read by clients.

use bytes::Bytes;

use super::reason;
use super::section::Section;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{ConnAck, ProtocolVersion};
use crate::mqtt::properties::ConnAckProperties;
use crate::mqtt::reason::ReasonCode::{self, *};

const CONNACK: &[ReasonCode] = &[
    Success,
    UnspecifiedError,
    MalformedPacket,
    ProtocolError,
    ImplementationSpecificError,
    UnsupportedProtocolVersion,
    ClientIdentifierNotValid,
    BadUserNameOrPassword,
    NotAuthorized,
    ServerUnavailable,
    ServerBusy,
    Banned,
    BadAuthenticationMethod,
    TopicNameInvalid,
    PacketTooLarge,
    QuotaExceeded,
    PayloadFormatInvalid,
    RetainNotSupported,
    QoSNotSupported,
    UseAnotherServer,
    ServerMoved,
    ConnectionRateExceeded,
];

/// The reasons of return codes 0 to 5 `[MQTT3-3.2.2.3]`.
const RETURN_CODES: [ReasonCode; 6] = [
    Success,
    UnsupportedProtocolVersion,
    ClientIdentifierNotValid,
    ServerUnavailable,
    BadUserNameOrPassword,
    NotAuthorized,
];

pub(super) fn connack(frame: &Bytes, at: usize, version: ProtocolVersion) -> Result<ConnAck, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let flags = packet.u8()?;
    // 3.1 has no such flags: its byte is reserved and not looked at.
    if flags > 1 && version != ProtocolVersion::V3_1 {
        return Err(DecodeError::malformed("MQTT-3.2.2-1"));
    }
    let code = packet.u8()?;
    let (reason, properties) = if version.is_v5() {
        (reason(code, CONNACK, "MQTT-3.2.2-8")?, properties(&mut packet)?)
    } else {
        let reason = RETURN_CODES.get(usize::from(code)).copied();
        let reason = reason.ok_or(DecodeError::protocol("MQTT3-3.2.2.3"))?;
        (reason, ConnAckProperties::default())
    };
    packet.finish("MQTT-3.2")?;
    let session_present = flags == 1 && version != ProtocolVersion::V3_1;
    if session_present && reason != Success {
        return Err(DecodeError::protocol("MQTT-3.2.2-6"));
    }
    Ok(ConnAck {
        session_present,
        reason,
        properties,
    })
}

fn properties(packet: &mut Reader<'_>) -> Result<ConnAckProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_CONNACK)?;
    let mut properties = ConnAckProperties::default();
    while let Some(identifier) = section.next()? {
        property(&mut section, identifier, &mut properties)?;
    }
    if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
        return Err(DecodeError::protocol("MQTT-3.2.2.3.18"));
    }
    Ok(properties)
}

fn property(section: &mut Section<'_>, identifier: u8, p: &mut ConnAckProperties) -> Result<(), DecodeError> {
    match identifier {
        id::SESSION_EXPIRY_INTERVAL => p.session_expiry_interval_s = Some(section.reader.u32()?),
        id::RECEIVE_MAXIMUM => p.receive_maximum = Some(section.positive_u16("MQTT-3.2.2.3.3")?),
        id::MAXIMUM_QOS => p.maximum_qos = Some(section.bool("MQTT-3.2.2.3.4")?.into()),
        id::RETAIN_AVAILABLE => p.retain_available = Some(section.bool("MQTT-3.2.2.3.5")?),
        id::MAXIMUM_PACKET_SIZE => p.maximum_packet_size = Some(section.positive_u32("MQTT-3.2.2.3.6")?),
        id::ASSIGNED_CLIENT_IDENTIFIER => p.assigned_client_identifier = Some(section.reader.string()?),
        id::TOPIC_ALIAS_MAXIMUM => p.topic_alias_maximum = Some(section.reader.u16()?),
        id::REASON_STRING => p.reason_string = Some(section.reader.string()?),
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
            p.wildcard_subscription_available = Some(section.bool("MQTT-3.2.2.3.11")?);
        }
        id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
            p.subscription_identifiers_available = Some(section.bool("MQTT-3.2.2.3.12")?);
        }
        id::SHARED_SUBSCRIPTION_AVAILABLE => {
            p.shared_subscription_available = Some(section.bool("MQTT-3.2.2.3.13")?);
        }
        id::SERVER_KEEP_ALIVE => p.server_keep_alive_s = Some(section.reader.u16()?),
        id::RESPONSE_INFORMATION => p.response_information = Some(section.reader.string()?),
        id::SERVER_REFERENCE => p.server_reference = Some(section.reader.string()?),
        id::AUTHENTICATION_METHOD => p.authentication_method = Some(section.reader.string()?),
        id::AUTHENTICATION_DATA => p.authentication_data = Some(section.reader.binary()?),
        _ => section.user_property(&mut p.user_properties)?,
    }
    Ok(())
}
