//! SUBSCRIBE `[MQTT-3.8]` and UNSUBSCRIBE `[MQTT-3.10]`.

use bytes::Bytes;
use bytestring::ByteString;

use super::section::Section;
use crate::limits::SUBSCRIPTIONS_MAX;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{
    ProtocolVersion, QoS, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe,
};
use crate::mqtt::properties::{SubscribeProperties, UnsubscribeProperties};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::{self, SHARE_PREFIX, TopicError};

pub(super) fn subscribe(
    frame: &Bytes,
    at: usize,
    version: ProtocolVersion,
) -> Result<Subscribe, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let packet_id = packet.packet_id()?;
    let properties = if version.is_v5() {
        subscribe_properties(&mut packet)?
    } else {
        SubscribeProperties::default()
    };
    let mut filters = Vec::new();
    while !packet.is_empty() {
        let filter = filter(&mut packet, filters.len())?;
        let options = options(packet.u8()?, version)?;
        if options.no_local && filter.starts_with(SHARE_PREFIX) {
            return Err(DecodeError::protocol("MQTT-3.8.3-4"));
        }
        filters.push((filter, options));
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.8.3-2"));
    }
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

pub(super) fn unsubscribe(
    frame: &Bytes,
    at: usize,
    version: ProtocolVersion,
) -> Result<Unsubscribe, DecodeError> {
    let mut packet = Reader::new(frame, at);
    let packet_id = packet.packet_id()?;
    let mut properties = UnsubscribeProperties::default();
    if version.is_v5() {
        let mut section = Section::open(&mut packet, id::IN_UNSUBSCRIBE)?;
        while section.next()?.is_some() {
            section.user_property(&mut properties.user_properties)?;
        }
    }
    let mut filters = Vec::new();
    while !packet.is_empty() {
        filters.push(filter(&mut packet, filters.len())?);
    }
    if filters.is_empty() {
        return Err(DecodeError::protocol("MQTT-3.10.3-2"));
    }
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

/// A filter with its wildcards in their places. A share without name or filter and too many levels
/// are not looked at: SUBACK answers those, and the connection goes on.
fn filter(packet: &mut Reader<'_>, before: usize) -> Result<ByteString, DecodeError> {
    if before >= SUBSCRIPTIONS_MAX {
        return Err(DecodeError::new(
            ReasonCode::QuotaExceeded,
            "bound: SUBSCRIPTIONS_MAX",
        ));
    }
    let filter = packet.string()?;
    match topic::check_syntax(&filter) {
        Ok(()) => Ok(filter),
        Err(TopicError::Empty) => Err(DecodeError::malformed("MQTT-4.7.3-1")),
        Err(_) => Err(DecodeError::malformed("MQTT-4.7.1-1")),
    }
}

/// The options byte `[MQTT-3.8.3.1]`; before 5.0 it is the QoS and six reserved bits.
fn options(byte: u8, version: ProtocolVersion) -> Result<SubscriptionOptions, DecodeError> {
    let reserved = if version.is_v5() { 0xC0 } else { 0xFC };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed("MQTT-3.8.3-5"));
    }
    let qos = QoS::from_bits(byte & 0x03).ok_or(DecodeError::protocol("MQTT-3.8.3.1"))?;
    let retain_handling = match byte >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DontSend,
        _ => return Err(DecodeError::protocol("MQTT-3.8.3.1")),
    };
    Ok(SubscriptionOptions {
        qos,
        no_local: byte & 0x04 != 0,
        retain_as_published: byte & 0x08 != 0,
        retain_handling,
    })
}

fn subscribe_properties(packet: &mut Reader<'_>) -> Result<SubscribeProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_SUBSCRIBE)?;
    let mut properties = SubscribeProperties::default();
    while let Some(identifier) = section.next()? {
        if identifier == id::SUBSCRIPTION_IDENTIFIER {
            properties.subscription_identifier = Some(section.subscription_identifier()?);
        } else {
            section.user_property(&mut properties.user_properties)?;
        }
    }
    Ok(properties)
}
