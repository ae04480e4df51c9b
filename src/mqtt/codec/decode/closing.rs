//! DISCONNECT `[MQTT-3.14]` and AUTH `[MQTT-3.15]`.

use bytes::Bytes;

use super::reason;
use super::section::Section;
use crate::mqtt::codec::Role;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{Auth, Disconnect, ProtocolVersion};
use crate::mqtt::properties::{AuthProperties, DisconnectProperties};
use crate::mqtt::reason::ReasonCode::{self, *};

/// Table 3-10, and 0x8C, which only table 2-6 gives to DISCONNECT.
const DISCONNECT: &[ReasonCode] = &[
    Success,
    DisconnectWithWill,
    UnspecifiedError,
    MalformedPacket,
    ProtocolError,
    ImplementationSpecificError,
    NotAuthorized,
    ServerBusy,
    ServerShuttingDown,
    BadAuthenticationMethod,
    KeepAliveTimeout,
    SessionTakenOver,
    TopicFilterInvalid,
    TopicNameInvalid,
    ReceiveMaximumExceeded,
    TopicAliasInvalid,
    PacketTooLarge,
    MessageRateTooHigh,
    QuotaExceeded,
    AdministrativeAction,
    PayloadFormatInvalid,
    RetainNotSupported,
    QoSNotSupported,
    UseAnotherServer,
    ServerMoved,
    SharedSubscriptionsNotSupported,
    ConnectionRateExceeded,
    MaximumConnectTime,
    SubscriptionIdentifiersNotSupported,
    WildcardSubscriptionsNotSupported,
];

const AUTH: &[ReasonCode] = &[Success, ContinueAuthentication, ReAuthenticate];

pub(super) fn disconnect(
    frame: &Bytes,
    at: usize,
    version: ProtocolVersion,
    role: Role,
) -> Result<Disconnect, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let mut disconnect = Disconnect {
        reason: Success,
        properties: DisconnectProperties::default(),
    };
    if version.is_v5() && !packet.is_empty() {
        disconnect.reason = reason(packet.u8()?, DISCONNECT, "MQTT-3.14.2-1")?;
        if !packet.is_empty() {
            disconnect.properties = disconnect_properties(&mut packet)?;
        }
    }
    packet.finish("MQTT-3.14")?;
    if role == Role::Client && disconnect.properties.session_expiry_interval_s.is_some() {
        return Err(DecodeError::protocol("MQTT-3.14.2-2"));
    }
    Ok(disconnect)
}

fn disconnect_properties(packet: &mut Reader<'_>) -> Result<DisconnectProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_DISCONNECT)?;
    let mut properties = DisconnectProperties::default();
    let p = &mut properties;
    while let Some(identifier) = section.next()? {
        match identifier {
            id::SESSION_EXPIRY_INTERVAL => p.session_expiry_interval_s = Some(section.reader.u32()?),
            id::REASON_STRING => p.reason_string = Some(section.reader.string()?),
            id::SERVER_REFERENCE => p.server_reference = Some(section.reader.string()?),
            _ => section.user_property(&mut p.user_properties)?,
        }
    }
    Ok(properties)
}

/// AUTH. An empty one is Success without properties `[MQTT-3.15.2.1]`; any other must name its
/// method `[MQTT-3.15.2.2.2]`.
pub(super) fn auth(frame: &Bytes, at: usize) -> Result<Auth, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let mut auth = Auth {
        reason: Success,
        properties: AuthProperties::default(),
    };
    if packet.is_empty() {
        return Ok(auth);
    }
    auth.reason = reason(packet.u8()?, AUTH, "MQTT-3.15.2-1")?;
    if !packet.is_empty() {
        auth.properties = auth_properties(&mut packet)?;
    }
    packet.finish("MQTT-3.15")?;
    if auth.properties.authentication_method.is_none() {
        return Err(DecodeError::protocol("MQTT-3.15.2.2.2"));
    }
    Ok(auth)
}

fn auth_properties(packet: &mut Reader<'_>) -> Result<AuthProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_AUTH)?;
    let mut properties = AuthProperties::default();
    let p = &mut properties;
    while let Some(identifier) = section.next()? {
        match identifier {
            id::AUTHENTICATION_METHOD => p.authentication_method = Some(section.reader.string()?),
            id::AUTHENTICATION_DATA => p.authentication_data = Some(section.reader.binary()?),
            id::REASON_STRING => p.reason_string = Some(section.reader.string()?),
            _ => section.user_property(&mut p.user_properties)?,
        }
    }
    Ok(properties)
}
