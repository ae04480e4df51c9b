//! CONNECT `[MQTT-3.1]`: the packet from which the version of the connection is learned.

use bytes::Bytes;
use bytestring::ByteString;

use super::publish::{PassThrough, pass_through};
use super::section::Section;
use crate::mqtt::codec::frame::Header;
use crate::mqtt::codec::property as id;
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::{Answer, DecodeError};
use crate::mqtt::packet::{Connect, ProtocolVersion, QoS, Will};
use crate::mqtt::properties::{ConnectProperties, WillProperties};
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::{self, TopicError};

/// A CONNECT. An error carries the CONNACK that is due: always in 5.0, before only for a version
/// that is not spoken here.
pub(in crate::mqtt::codec) fn connect(frame: &Bytes, header: Header) -> Result<Connect, DecodeError> {
    let mut packet = Reader::new(frame, header.len);
    let version = version(&mut packet)?;
    body(packet, header, version).map_err(|error| match version {
        ProtocolVersion::V5 => error.answered(Answer::ConnAck(version)),
        ProtocolVersion::V3_1 | ProtocolVersion::V3_1_1 => error,
    })
}

/// Protocol name and level `[MQTT-3.1.2-1]` `[MQTT-3.1.2-2]`.
///
/// An unknown name may be another protocol: closed without a word. A known name with a level that is
/// not ours is answered as mosquitto does, in the form of 3.1.1; the 0x84 of 5.0 is only allowed
/// `[MQTT-3.1.2-2]`. (mosquitto's bridges set bit 7 of levels 3 and 4.)
fn version(packet: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = packet.slice()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::new(
            ReasonCode::UnsupportedProtocolVersion,
            "MQTT-3.1.2-1",
        ));
    }
    let level = packet.u8()?;
    match (name, level) {
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V3_1),
        (b"MQTT", 4) => Ok(ProtocolVersion::V3_1_1),
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        _ => {
            let form = ProtocolVersion::V3_1_1;
            let error = DecodeError::new(ReasonCode::UnsupportedProtocolVersion, "MQTT-3.1.2-2");
            Err(error.answered(Answer::ConnAck(form)))
        }
    }
}

/// The flags of a CONNECT `[MQTT-3.1.2.3]`.
struct Flags(u8);

impl Flags {
    fn check(self, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if self.0 & 0x01 != 0 {
            return Err(DecodeError::malformed("MQTT-3.1.2-3"));
        }
        if !self.will() && self.0 & 0x38 != 0 {
            return Err(DecodeError::malformed("MQTT-3.1.2-11"));
        }
        if !version.is_v5() && self.password() && !self.username() {
            return Err(DecodeError::malformed("MQTT3-3.1.2-22"));
        }
        Ok(self)
    }

    fn clean_start(&self) -> bool {
        self.0 & 0x02 != 0
    }

    fn will(&self) -> bool {
        self.0 & 0x04 != 0
    }

    fn will_qos(&self) -> Result<QoS, DecodeError> {
        QoS::from_bits(self.0 >> 3 & 0x03).ok_or(DecodeError::malformed("MQTT-3.1.2-12"))
    }

    fn will_retain(&self) -> bool {
        self.0 & 0x20 != 0
    }

    fn password(&self) -> bool {
        self.0 & 0x40 != 0
    }

    fn username(&self) -> bool {
        self.0 & 0x80 != 0
    }
}

fn body(mut packet: Reader<'_>, header: Header, version: ProtocolVersion) -> Result<Connect, DecodeError> {
    if header.flags() != 0 {
        return Err(DecodeError::malformed("MQTT-2.1.3-1"));
    }
    if version.is_v5() && !header.is_minimal() {
        return Err(DecodeError::malformed("MQTT-1.5.5-1"));
    }
    let flags = Flags(packet.u8()?).check(version)?;
    let keep_alive_s = packet.u16()?;
    let properties = if version.is_v5() {
        connect_properties(&mut packet)?
    } else {
        ConnectProperties::default()
    };
    let client_id = packet.string()?;
    let will = if flags.will() {
        Some(will(&mut packet, &flags, version)?)
    } else {
        None
    };
    let given = |flag: bool, packet: &Reader<'_>| flag && !missing(packet, version);
    let username = if given(flags.username(), &packet) {
        Some(packet.string()?)
    } else {
        None
    };
    let password = if given(flags.password(), &packet) {
        Some(packet.binary()?)
    } else {
        None
    };
    packet.finish("MQTT-3.1.4-1")?;
    let clean_start = flags.clean_start();
    Ok(Connect {
        version,
        clean_start,
        keep_alive_s,
        client_id,
        will,
        username,
        password,
        properties,
    })
}

/// 3.1: user name and password may be missing although their flags are set; "the Remaining Length
/// field ... takes precedence" over the flags.
fn missing(packet: &Reader<'_>, version: ProtocolVersion) -> bool {
    version == ProtocolVersion::V3_1 && packet.is_empty()
}

fn will(packet: &mut Reader<'_>, flags: &Flags, version: ProtocolVersion) -> Result<Will, DecodeError> {
    let (qos, retain) = (flags.will_qos()?, flags.will_retain());
    let properties = if version.is_v5() {
        will_properties(packet)?
    } else {
        WillProperties::default()
    };
    let topic = packet.string()?;
    check_will_topic(&topic)?;
    let payload = packet.binary()?;
    Ok(Will {
        topic,
        payload,
        qos,
        retain,
        properties,
    })
}

fn check_will_topic(name: &ByteString) -> Result<(), DecodeError> {
    topic::check_name(name).map_err(|error| match error {
        TopicError::Empty => DecodeError::malformed("MQTT-4.7.3-1"),
        _ => DecodeError::new(ReasonCode::TopicNameInvalid, "MQTT-4.7.0-1"),
    })
}

fn connect_properties(packet: &mut Reader<'_>) -> Result<ConnectProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_CONNECT)?;
    let mut properties = ConnectProperties::default();
    let p = &mut properties;
    while let Some(identifier) = section.next()? {
        match identifier {
            id::SESSION_EXPIRY_INTERVAL => p.session_expiry_interval_s = Some(section.reader.u32()?),
            id::RECEIVE_MAXIMUM => p.receive_maximum = Some(section.positive_u16("MQTT-3.1.2.11.3")?),
            id::MAXIMUM_PACKET_SIZE => {
                p.maximum_packet_size = Some(section.positive_u32("MQTT-3.1.2.11.4")?);
            }
            id::TOPIC_ALIAS_MAXIMUM => p.topic_alias_maximum = Some(section.reader.u16()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                p.request_response_information = Some(section.bool("MQTT-3.1.2.11.6")?);
            }
            id::REQUEST_PROBLEM_INFORMATION => {
                p.request_problem_information = Some(section.bool("MQTT-3.1.2.11.7")?);
            }
            id::AUTHENTICATION_METHOD => p.authentication_method = Some(section.reader.string()?),
            id::AUTHENTICATION_DATA => p.authentication_data = Some(section.reader.binary()?),
            _ => section.user_property(&mut p.user_properties)?,
        }
    }
    if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
        return Err(DecodeError::protocol("MQTT-3.1.2.11.10"));
    }
    Ok(properties)
}

fn will_properties(packet: &mut Reader<'_>) -> Result<WillProperties, DecodeError> {
    let mut section = Section::open(packet, id::IN_WILL)?;
    let mut properties = WillProperties::default();
    let mut passed = PassThrough::default();
    loop {
        let from = section.reader.position();
        match section.next()? {
            None => break,
            Some(id::WILL_DELAY_INTERVAL) => {
                properties.will_delay_interval_s = Some(section.reader.u32()?);
            }
            Some(id::MESSAGE_EXPIRY_INTERVAL) => {
                properties.publish.message_expiry_interval_s = Some(section.reader.u32()?);
            }
            Some(identifier) => {
                pass_through(&mut section, identifier)?;
                passed.add(from, &section.reader);
            }
        }
    }
    properties.publish.pass_through = passed.finish(&section.reader);
    Ok(properties)
}
