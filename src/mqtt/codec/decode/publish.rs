//! PUBLISH `[MQTT-3.3]`: the packet that there is most of.

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::section::{REPEATABLE_IN_PUBLISH, Section};
use crate::mqtt::codec::Role;
use crate::mqtt::codec::frame::Header;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::{Packet, ProtocolVersion, Publish, QoS};
use crate::mqtt::properties::PublishProperties;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::{self, TopicError};

/// QoS and flags of a first byte: QoS 3 `[MQTT-3.3.1-4]` and DUP with QoS 0 `[MQTT-3.3.1-2]` are
/// malformed. Called before the rest of the packet has come.
pub(in crate::mqtt::codec) fn flags(first: u8) -> Result<(bool, QoS, bool), DecodeError> {
    let qos = QoS::from_bits(first >> 1 & 0x03).ok_or(DecodeError::malformed("MQTT-3.3.1-4"))?;
    let dup = first & 0x08 != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::malformed("MQTT-3.3.1-2"));
    }
    Ok((dup, qos, first & 0x01 != 0))
}

pub(super) fn publish(
    mut frame: Bytes,
    header: Header,
    version: ProtocolVersion,
    role: Role,
) -> Result<Option<Packet>, DecodeError> {
    let (dup, qos, retain) = flags(header.first)?;
    let mut packet = Reader::new(&frame, header.len);
    let topic = packet.string()?;
    let packet_id = if qos == QoS::AtMostOnce {
        None
    } else {
        Some(packet.packet_id()?)
    };
    let properties = if version.is_v5() {
        properties(&mut packet, role)?
    } else {
        PublishProperties::default()
    };
    check_topic(&topic, &properties)?;
    let payload_at = packet.position();
    frame.advance(payload_at);
    Ok(Some(Packet::Publish(Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties,
        payload: frame,
    })))
}

/// A name without wildcards `[MQTT-3.3.2-2]`; empty only in place of a topic alias `[MQTT-3.3.2.3.4]`.
fn check_topic(name: &str, properties: &PublishProperties) -> Result<(), DecodeError> {
    match topic::check_name(name) {
        Ok(()) => Ok(()),
        Err(TopicError::Empty) if properties.topic_alias.is_some() => Ok(()),
        Err(TopicError::Empty) => Err(DecodeError::protocol("MQTT-3.3.2.1")),
        Err(TopicError::Wildcard) => Err(DecodeError::new(ReasonCode::TopicNameInvalid, "MQTT-3.3.2-2")),
        Err(_) => Err(DecodeError::new(
            ReasonCode::TopicNameInvalid,
            "bound: TOPIC_LEVELS_MAX",
        )),
    }
}

fn properties(packet: &mut Reader<'_>, role: Role) -> Result<PublishProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_PUBLISH)?.with_repeatable(REPEATABLE_IN_PUBLISH);
    let mut properties = PublishProperties::default();
    let mut passed = PassThrough::default();
    loop {
        let from = section.reader.position();
        match section.next()? {
            None => break,
            Some(id::TOPIC_ALIAS) => properties.topic_alias = Some(topic_alias(&mut section)?),
            Some(id::MESSAGE_EXPIRY_INTERVAL) => {
                properties.message_expiry_interval_s = Some(section.reader.u32()?);
            }
            Some(id::SUBSCRIPTION_IDENTIFIER) => {
                let identifier = section.subscription_identifier()?;
                if role == Role::Server {
                    return Err(DecodeError::protocol("MQTT-3.3.4-6"));
                }
                properties.subscription_identifiers.push(identifier);
            }
            Some(identifier) => {
                pass_through(&mut section, identifier)?;
                passed.add(from, &section.reader);
            }
        }
    }
    properties.pass_through = passed.finish(&section.reader);
    Ok(properties)
}

fn topic_alias(section: &mut Section<'_>) -> Result<u16, DecodeError> {
    match section.reader.u16()? {
        0 => Err(DecodeError::new(ReasonCode::TopicAliasInvalid, "MQTT-3.3.2-8")),
        alias => Ok(alias),
    }
}

/// Reads and checks the value of a property that the broker only passes on.
pub(super) fn pass_through(section: &mut Section<'_>, identifier: u8) -> Result<(), DecodeError> {
    match identifier {
        id::PAYLOAD_FORMAT_INDICATOR => {
            section.bool("MQTT-3.3.2.3.2")?;
        }
        id::CORRELATION_DATA => {
            section.reader.slice()?;
        }
        id::RESPONSE_TOPIC => {
            if topic::has_wildcard(section.reader.str()?) {
                return Err(DecodeError::protocol("MQTT-3.3.2-14"));
            }
        }
        id::CONTENT_TYPE => {
            section.reader.str()?;
        }
        _ => {
            section.reader.str()?;
            section.reader.str()?;
        }
    }
    Ok(())
}

/// The properties that pass through, as they came and in order `[MQTT-3.3.2-17]`.
///
/// As a rule they stand together and are a range of the packet. They are copied only if a property
/// of this connection (topic alias, expiry, will delay) stands between them.
#[derive(Default)]
pub(super) struct PassThrough {
    range: Option<Range<usize>>,
    before: Vec<u8>,
}

impl PassThrough {
    /// Adds what was read since `from`.
    pub(super) fn add(&mut self, from: usize, reader: &Reader<'_>) {
        let to = reader.position();
        self.range = match self.range.take() {
            Some(range) if range.end == from => Some(range.start..to),
            Some(range) => {
                self.before.extend_from_slice(reader.range(range));
                Some(from..to)
            }
            None => Some(from..to),
        };
    }

    pub(super) fn finish(mut self, reader: &Reader<'_>) -> Bytes {
        match self.range {
            None => Bytes::new(),
            Some(range) if self.before.is_empty() => reader.bytes(range),
            Some(range) => {
                self.before.extend_from_slice(reader.range(range));
                Bytes::from(self.before)
            }
        }
    }
}
