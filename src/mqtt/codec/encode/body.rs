//! Variable headers and payloads. Everything here runs twice: once to measure, once to write.

use super::properties::{Detail, Properties, measure, put_section};
use super::sink::{Sink, put_field};
use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, ProtocolVersion, Publish, SubAck, Subscribe,
    SubscriptionOptions, UnsubAck, Unsubscribe,
};
use crate::mqtt::reason::ReasonCode;

/// Writes everything behind the fixed header.
pub(super) fn put(
    packet: &Packet,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => put_connect(connect, out),
        Packet::ConnAck(ack) => put_connack(ack, version, detail, out),
        Packet::Publish(publish) => put_publish(publish, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            put_ack(ack, version, detail, out)
        }
        Packet::Subscribe(subscribe) => put_subscribe(subscribe, version, out),
        Packet::SubAck(ack) => put_suback(ack, version, detail, out),
        Packet::Unsubscribe(unsubscribe) => put_unsubscribe(unsubscribe, version, out),
        Packet::UnsubAck(ack) => put_unsuback(ack, version, detail, out),
        Packet::PingReq | Packet::PingResp => Ok(()),
        Packet::Disconnect(disconnect) => put_disconnect(disconnect, version, detail, out),
        Packet::Auth(auth) => put_auth(auth, detail, out),
    }
}

fn put_connect(connect: &Connect, out: &mut impl Sink) -> Result<(), EncodeError> {
    let (name, level): (&[u8], u8) = match connect.version {
        ProtocolVersion::V3_1 => (b"MQIsdp", 3),
        ProtocolVersion::V3_1_1 => (b"MQTT", 4),
        ProtocolVersion::V5 => (b"MQTT", 5),
    };
    put_field(out, name)?;
    out.put(&[level, connect_flags(connect)?]);
    out.put(&connect.keep_alive_s.to_be_bytes());
    let is_v5 = connect.version.is_v5();
    if is_v5 {
        put_section(out, &connect.properties, Detail::Full)?;
    }
    put_field(out, connect.client_id.as_bytes())?;
    if let Some(will) = &connect.will {
        if is_v5 {
            put_section(out, &will.properties, Detail::Full)?;
        }
        put_field(out, will.topic.as_bytes())?;
        put_field(out, &will.payload)?;
    }
    if let Some(username) = &connect.username {
        put_field(out, username.as_bytes())?;
    }
    if let Some(password) = &connect.password {
        put_field(out, password)?;
    }
    Ok(())
}

fn connect_flags(connect: &Connect) -> Result<u8, EncodeError> {
    let (username, password) = (connect.username.is_some(), connect.password.is_some());
    if password && !username && !connect.version.is_v5() {
        return Err(EncodeError::NotInThisVersion);
    }
    let will = connect.will.as_ref().map_or(0, |will| {
        0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5
    });
    Ok(u8::from(username) << 7 | u8::from(password) << 6 | will | u8::from(connect.clean_start) << 1)
}

fn put_connack(
    ack: &ConnAck,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    // Session Present is never set on a refusal [MQTT-3.2.2-6], and 3.1 does not know it.
    let knows = version != ProtocolVersion::V3_1;
    let present = ack.session_present && ack.reason == ReasonCode::Success && knows;
    if version.is_v5() {
        out.put(&[present.into(), ack.reason as u8]);
        put_section(out, &ack.properties, detail)
    } else {
        out.put(&[present.into(), ack.return_code() as u8]);
        Ok(())
    }
}

fn put_publish(publish: &Publish, version: ProtocolVersion, out: &mut impl Sink) -> Result<(), EncodeError> {
    put_field(out, publish.topic.as_bytes())?;
    if let Some(packet_id) = publish.packet_id {
        out.put(&packet_id.get().to_be_bytes());
    }
    if version.is_v5() {
        put_section(out, &publish.properties, Detail::Full)?;
    }
    out.put(&publish.payload);
    Ok(())
}

fn put_ack(
    ack: &Ack,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    out.put(&ack.packet_id.get().to_be_bytes());
    if version.is_v5() {
        put_reason(ack.reason, &ack.properties, detail, out)
    } else {
        Ok(())
    }
}

/// Reason and properties, as short as the standard allows `[MQTT-3.4.2.1]` `[MQTT-3.14.2.1]`.
fn put_reason(
    reason: ReasonCode,
    properties: &impl Properties,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    let empty = measure(properties, detail)? == 0;
    if empty && reason == ReasonCode::Success {
        return Ok(());
    }
    out.put(&[reason as u8]);
    if empty {
        Ok(())
    } else {
        put_section(out, properties, detail)
    }
}

fn put_subscribe(
    subscribe: &Subscribe,
    version: ProtocolVersion,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    if subscribe.filters.is_empty() {
        return Err(EncodeError::EmptyList);
    }
    out.put(&subscribe.packet_id.get().to_be_bytes());
    if version.is_v5() {
        put_section(out, &subscribe.properties, Detail::Full)?;
    }
    for (filter, options) in &subscribe.filters {
        put_field(out, filter.as_bytes())?;
        out.put(&[options_byte(*options, version)]);
    }
    Ok(())
}

fn options_byte(options: SubscriptionOptions, version: ProtocolVersion) -> u8 {
    let qos = options.qos as u8;
    if !version.is_v5() {
        return qos;
    }
    let flags = u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3;
    qos | flags | (options.retain_handling as u8) << 4
}

fn put_suback(
    ack: &SubAck,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    if ack.reasons.is_empty() {
        return Err(EncodeError::EmptyList);
    }
    out.put(&ack.packet_id.get().to_be_bytes());
    if version.is_v5() {
        put_section(out, &ack.properties, detail)?;
    }
    for reason in &ack.reasons {
        let failed_before_5 = reason.is_error() && !version.is_v5();
        out.put(&[if failed_before_5 { 0x80 } else { *reason as u8 }]);
    }
    Ok(())
}

fn put_unsubscribe(
    unsubscribe: &Unsubscribe,
    version: ProtocolVersion,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    if unsubscribe.filters.is_empty() {
        return Err(EncodeError::EmptyList);
    }
    out.put(&unsubscribe.packet_id.get().to_be_bytes());
    if version.is_v5() {
        put_section(out, &unsubscribe.properties, Detail::Full)?;
    }
    for filter in &unsubscribe.filters {
        put_field(out, filter.as_bytes())?;
    }
    Ok(())
}

fn put_unsuback(
    ack: &UnsubAck,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    out.put(&ack.packet_id.get().to_be_bytes());
    if !version.is_v5() {
        return Ok(());
    }
    if ack.reasons.is_empty() {
        return Err(EncodeError::EmptyList);
    }
    put_section(out, &ack.properties, detail)?;
    for reason in &ack.reasons {
        out.put(&[*reason as u8]);
    }
    Ok(())
}

fn put_disconnect(
    disconnect: &Disconnect,
    version: ProtocolVersion,
    detail: Detail,
    out: &mut impl Sink,
) -> Result<(), EncodeError> {
    if !version.is_v5() {
        return Ok(());
    }
    put_reason(disconnect.reason, &disconnect.properties, detail, out)
}

/// AUTH always has its Property Length unless it says nothing at all `[MQTT-3.15.2.1]`.
fn put_auth(auth: &Auth, detail: Detail, out: &mut impl Sink) -> Result<(), EncodeError> {
    if measure(&auth.properties, detail)? == 0 && auth.reason == ReasonCode::Success {
        return Ok(());
    }
    out.put(&[auth.reason as u8]);
    put_section(out, &auth.properties, detail)
}
