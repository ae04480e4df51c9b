//! The properties of a packet, read one after the other in one pass.

use crate::limits::USER_PROPERTIES_MAX;
use crate::mqtt::codec::property::{SUBSCRIPTION_IDENTIFIER, Set, USER_PROPERTY};
use crate::mqtt::codec::reader::Reader;
use crate::mqtt::error::DecodeError;
use crate::mqtt::properties::UserProperty;
use crate::mqtt::reason::ReasonCode;

/// A Property Length and what it measures `[MQTT-2.2.2]`.
pub(super) struct Section<'f> {
    pub(super) reader: Reader<'f>,
    allowed: Set,
    repeatable: Set,
    seen: Set,
}

/// What may come more than once in any packet that may carry it.
const ALWAYS_REPEATABLE: Set = Set::of(&[USER_PROPERTY]);

/// In a PUBLISH to a client, one Subscription Identifier per matching subscription `[MQTT-3.3.4-4]`.
pub(super) const REPEATABLE_IN_PUBLISH: Set = Set::of(&[USER_PROPERTY, SUBSCRIPTION_IDENTIFIER]);

impl<'f> Section<'f> {
    /// Takes the properties off the front of `packet`.
    pub(super) fn open(packet: &mut Reader<'f>, allowed: Set) -> Result<Self, DecodeError> {
        let len = packet.varint()? as usize;
        let reader = packet.part(len)?;
        Ok(Self {
            reader,
            allowed,
            repeatable: ALWAYS_REPEATABLE,
            seen: Set::EMPTY,
        })
    }

    pub(super) fn with_repeatable(self, repeatable: Set) -> Self {
        Self { repeatable, ..self }
    }

    /// The identifier of the next property, whose value must be read before the next call.
    ///
    /// One that this packet may not carry is malformed `[MQTT-2.2.2.2]`, one that comes twice a
    /// protocol error.
    pub(super) fn next(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let identifier = u8::try_from(self.reader.varint()?).unwrap_or(u8::MAX);
        if !self.allowed.contains(identifier) {
            return Err(DecodeError::malformed("MQTT-2.2.2.2"));
        }
        if !self.seen.insert(identifier) && !self.repeatable.contains(identifier) {
            return Err(DecodeError::protocol("MQTT-2.2.2.2"));
        }
        Ok(Some(identifier))
    }

    /// A byte that is 0 or 1.
    pub(super) fn bool(&mut self, clause: &'static str) -> Result<bool, DecodeError> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol(clause)),
        }
    }

    /// A Two Byte Integer that must not be 0.
    pub(super) fn positive_u16(&mut self, clause: &'static str) -> Result<u16, DecodeError> {
        match self.reader.u16()? {
            0 => Err(DecodeError::protocol(clause)),
            value => Ok(value),
        }
    }

    /// A Four Byte Integer that must not be 0.
    pub(super) fn positive_u32(&mut self, clause: &'static str) -> Result<u32, DecodeError> {
        match self.reader.u32()? {
            0 => Err(DecodeError::protocol(clause)),
            value => Ok(value),
        }
    }

    /// A Subscription Identifier: 1 to 268,435,455 `[MQTT-3.8.2.1.2]`.
    pub(super) fn subscription_identifier(&mut self) -> Result<u32, DecodeError> {
        match self.reader.varint()? {
            0 => Err(DecodeError::protocol("MQTT-3.8.2.1.2")),
            value => Ok(value),
        }
    }

    /// Adds a User Property in order; bounded, because 5 bytes of a packet cost 64 of memory.
    pub(super) fn user_property(&mut self, list: &mut Vec<UserProperty>) -> Result<(), DecodeError> {
        if list.len() >= USER_PROPERTIES_MAX {
            return Err(DecodeError::new(
                ReasonCode::QuotaExceeded,
                "bound: USER_PROPERTIES_MAX",
            ));
        }
        list.push((self.reader.string()?, self.reader.string()?));
        Ok(())
    }
}
