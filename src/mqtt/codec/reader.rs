//! Reading fields of one packet: every read is bounded by the packet, nothing is copied.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use crate::mqtt::error::DecodeError;
use crate::mqtt::packet::PacketId;

/// A part of a packet that is still to be read. `at <= end <= frame.len()` always.
pub(super) struct Reader<'f> {
    frame: &'f Bytes,
    at: usize,
    end: usize,
}

impl<'f> Reader<'f> {
    /// Everything of `frame` behind its fixed header of `at` bytes.
    pub(super) fn new(frame: &'f Bytes, at: usize) -> Self {
        Self {
            frame,
            at: at.min(frame.len()),
            end: frame.len(),
        }
    }

    /// Where the next read begins, from the beginning of the packet.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// A range of the packet that was read before, sharing its storage.
    pub(super) fn bytes(&self, range: Range<usize>) -> Bytes {
        self.frame.slice(range)
    }

    /// A range of the packet that was read before, to look at.
    pub(super) fn range(&self, range: Range<usize>) -> &'f [u8] {
        &self.frame[range]
    }

    /// The next `len` bytes, which stay in the packet.
    pub(super) fn take(&mut self, len: usize) -> Result<&'f [u8], DecodeError> {
        if len > self.end - self.at {
            return Err(DecodeError::malformed("MQTT-4.13.1-1"));
        }
        let taken = &self.frame[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer; one that is longer than needed is refused `[MQTT-1.5.5-1]`.
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::malformed("MQTT-1.5.5-1"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::malformed("MQTT-1.5.5"))
    }

    /// A packet identifier; 0 is a protocol error `[MQTT-2.2.1-3]`.
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::protocol("MQTT-2.2.1-3"))
    }

    /// The bytes behind a two-byte length, which stay in the packet.
    pub(super) fn slice(&mut self) -> Result<&'f [u8], DecodeError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// Binary Data `[MQTT-1.5.6]`.
    pub(super) fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let len = usize::from(self.u16()?);
        self.take(len)?;
        Ok(self.bytes(self.at - len..self.at))
    }

    /// A UTF-8 Encoded String: well-formed, without U+0000 `[MQTT-1.5.4-1]` `[MQTT-1.5.4-2]`. A BOM
    /// is data `[MQTT-1.5.4-3]`; control and non-characters are let through, as the standard allows.
    pub(super) fn string(&mut self) -> Result<ByteString, DecodeError> {
        let string = ByteString::try_from(self.binary()?);
        let string = string.map_err(|_| DecodeError::malformed("MQTT-1.5.4-1"))?;
        no_nul(string.as_bytes())?;
        Ok(string)
    }

    /// A UTF-8 Encoded String that is only looked at.
    pub(super) fn str(&mut self) -> Result<&'f str, DecodeError> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| DecodeError::malformed("MQTT-1.5.4-1"))?;
        no_nul(text.as_bytes())?;
        Ok(text)
    }

    /// Everything that is left, which stays in the packet.
    pub(super) fn rest(&mut self) -> &'f [u8] {
        let rest = &self.frame[self.at..self.end];
        self.at = self.end;
        rest
    }

    /// The next `len` bytes as a reader of their own.
    pub(super) fn part(&mut self, len: usize) -> Result<Self, DecodeError> {
        self.take(len)?;
        Ok(Self {
            frame: self.frame,
            at: self.at - len,
            end: self.at,
        })
    }

    /// The packet must be used up: what is left belongs to no field.
    pub(super) fn finish(&self, clause: &'static str) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed(clause))
        }
    }
}

fn no_nul(text: &[u8]) -> Result<(), DecodeError> {
    if text.contains(&0) {
        Err(DecodeError::malformed("MQTT-1.5.4-2"))
    } else {
        Ok(())
    }
}
