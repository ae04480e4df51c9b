//! The codec: bytes ⇄ [`Packet`]. Small, strict, and ours, because no crate is both conformant and
//! without copies (docs/decisions/0002).
//!
//! **Waiting consumes nothing.** A packet is looked at when its fixed header is whole (type, flags,
//! direction, size) and decoded when all of it has come; nothing is reserved beyond that.
//!
//! **One packet, one piece of storage.** A PUBLISH is split off the read buffer and its topic,
//! payload and properties are ranges of it; they hold on to the whole read buffer, so whoever keeps
//! a message for long copies it ([`Message::detached`](super::message::Message::detached)). Of every
//! other packet the fields outlive the buffer by design (client id, will, filters): those packets
//! are copied once.
//!
//! **Errors end the connection.** A [`DecodeError`] names the 5.0 reason, the broken clause and what
//! is to be answered; after it the decoder answers nothing else. An [`EncodeError`] leaves the
//! buffer as it was.
//!
//! Where the standards leave a choice or contradict each other:
//!
//! | matter | here |
//! |---|---|
//! | Variable Byte Integer longer than needed | refused in 5.0 `[MQTT-1.5.5-1]`, before accepted |
//! | a level that is not spoken or does not fit its name | CONNACK 01 in the form of 3.1.1, as mosquitto |
//! | unknown protocol name | closed without an answer |
//! | malformed CONNECT | CONNACK with the reason in 5.0, closed before |
//! | 3.1: user name or password flagged, nothing left | accepted as not given: Remaining Length wins |
//! | 3.1: DUP on SUBSCRIBE, UNSUBSCRIBE, PUBREL | accepted: 3.1 retransmits them |
//! | 3.1: reserved byte of CONNACK | not looked at |
//! | payload that is not UTF-8 under Payload Format Indicator 1 | accepted: the check is optional |
//! | empty Response Topic | accepted and passed on |
//! | control characters and non-characters in strings | accepted: refusing is optional |
//! | DISCONNECT reason that only the other side sends | accepted |
//! | `$share` without name or filter, more than 128 levels in a filter | accepted: SUBACK answers 0x8F |
//! | more than 128 levels in a topic name | refused, 0x90 |
//! | more than 256 User Properties outside PUBLISH, more than 10,000 filters | refused, 0x97 |
//! | empty client id without clean start in 3.x | accepted: the connection answers CONNACK 02 |

mod decode;
mod encode;
pub mod frame;
mod property;
mod reader;

use bytes::{Buf, Bytes, BytesMut};

use super::error::{Answer, DecodeError};
use super::packet::{Ack, Packet, PacketId, ProtocolVersion};
use frame::Header;

pub use super::error::EncodeError;
pub use encode::{Encoder, Envelope, Sink, TopicAlias, encode, encode_publish, transmit_size};

/// Packet types `[MQTT-2.1.2]`.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const UNSUBACK: u8 = 11;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

/// Which end of the connection decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Reads what clients send.
    Server,
    /// Reads what servers send.
    Client,
}

/// Decodes the packets of one connection in one direction.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    version: Option<ProtocolVersion>,
    packet_size_max: u32,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// The server's decoder of a new connection: it learns the version from the CONNECT, which must
    /// come first `[MQTT-3.1.0-1]` and only once `[MQTT-3.1.0-2]`. `packet_size_max` is in bytes,
    /// fixed header included.
    #[must_use]
    pub fn server(packet_size_max: u32) -> Self {
        Self {
            role: Role::Server,
            version: None,
            packet_size_max,
            failed: None,
        }
    }

    /// The client's decoder of a connection whose CONNECT said `version`.
    #[must_use]
    pub fn client(version: ProtocolVersion, packet_size_max: u32) -> Self {
        Self {
            role: Role::Client,
            version: Some(version),
            packet_size_max,
            failed: None,
        }
    }

    /// The server's decoder of a connection whose CONNECT was decoded elsewhere.
    #[must_use]
    pub fn connected(version: ProtocolVersion, packet_size_max: u32) -> Self {
        Self {
            role: Role::Server,
            version: Some(version),
            packet_size_max,
            failed: None,
        }
    }

    /// The version of the connection, as soon as it is known.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Changes the largest packet that is accepted, in bytes, from the next packet on.
    pub fn set_packet_size_max(&mut self, packet_size_max: u32) {
        self.packet_size_max = packet_size_max;
    }

    /// Takes the next packet off the front of `buf`; `None` if it is not yet whole, then `buf` is
    /// unchanged.
    ///
    /// # Errors
    /// The first rule that the bytes break. The connection is to be closed: `buf` is not looked at
    /// again, and every later call returns the same error.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let decoded = self.next(buf);
        // Not `map_err`: a decoded packet is returned where it was built.
        if let Err(error) = decoded {
            return Err(self.fail(error));
        }
        decoded
    }

    /// Bytes of the packet at the beginning of `buf`, if its header is whole: how much is worth
    /// reserving to read the rest of it.
    ///
    /// # Errors
    /// As [`frame::peek`].
    pub fn announced(&self, buf: &[u8]) -> Result<Option<usize>, DecodeError> {
        Ok(frame::peek(buf, self.packet_size_max)?.map(|header| header.total_len))
    }

    /// A 5.0 connection hears the reason in DISCONNECT. What CONNECT answers it says itself.
    #[cold]
    fn fail(&mut self, error: DecodeError) -> DecodeError {
        let error = match self.version {
            Some(ProtocolVersion::V5) => error.answered(Answer::Disconnect),
            _ => error,
        };
        self.failed = Some(error);
        error
    }

    #[inline(always)]
    fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some(header) = frame::peek(buf, self.packet_size_max)? else {
            return Ok(None);
        };
        self.admit(header)?;
        if buf.len() < header.total_len {
            return Ok(None);
        }
        let Some(version) = self.version else {
            let frame = copied(buf, header);
            let connect = decode::connect(&frame, header)?;
            self.version = Some(connect.version);
            return Ok(Some(Packet::Connect(Box::new(connect))));
        };
        // The packets of QoS 1 and 2 flows and the pings, read where they stand.
        if header.total_len == 4 && (kind::PUBACK..=kind::PUBCOMP).contains(&header.kind()) {
            let ack = plain_ack(buf, header);
            buf.advance(header.total_len);
            return ack.map(Some);
        }
        let frame = if header.kind() == kind::PUBLISH {
            buf.split_to(header.total_len).freeze()
        } else {
            copied(buf, header)
        };
        decode::packet(frame, header, version, self.role)
    }

    /// What can be said from the fixed header alone: nobody waits for the rest of a packet that is
    /// wrong from its first byte on.
    fn admit(&self, header: Header) -> Result<(), DecodeError> {
        let kind = header.kind();
        let Some(version) = self.version else {
            let first = kind == kind::CONNECT;
            // Flags and length of CONNECT are checked when its version is known: 5.0 is answered.
            return if first {
                Ok(())
            } else {
                Err(DecodeError::protocol("MQTT-3.1.0-1"))
            };
        };
        if kind == 0 || kind == kind::AUTH && !version.is_v5() {
            return Err(DecodeError::malformed("MQTT-2.1.2"));
        }
        check_flags(header, version)?;
        if version.is_v5() && !header.is_minimal() {
            return Err(DecodeError::malformed("MQTT-1.5.5-1"));
        }
        match (self.role, kind) {
            (Role::Server, kind::CONNECT) => Err(DecodeError::protocol("MQTT-3.1.0-2")),
            (Role::Server, kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP)
            | (Role::Client, kind::CONNECT | kind::SUBSCRIBE | kind::UNSUBSCRIBE | kind::PINGREQ) => {
                Err(DecodeError::protocol("MQTT-2.1.2"))
            }
            (Role::Client, kind::DISCONNECT) if !version.is_v5() => Err(DecodeError::protocol("MQTT3-3.14")),
            _ => Ok(()),
        }
    }
}

/// Flags that are not defined must be as the table says `[MQTT-2.1.3-1]`.
fn check_flags(header: Header, version: ProtocolVersion) -> Result<(), DecodeError> {
    let expected = match header.kind() {
        kind::PUBLISH => return decode::flags(header.first).map(drop),
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    // 3.1 marks a retransmission of these three with DUP.
    let duplicate = version == ProtocolVersion::V3_1 && expected == 0b0010;
    let flags = if duplicate {
        header.flags() & 0b0111
    } else {
        header.flags()
    };
    if flags == expected {
        Ok(())
    } else {
        Err(DecodeError::malformed("MQTT-2.1.3-1"))
    }
}

/// An acknowledgement that is a packet identifier and nothing else.
fn plain_ack(buf: &[u8], header: Header) -> Result<Packet, DecodeError> {
    if header.len != 2 {
        // 3.x lets a Remaining Length be longer than needed: then the body is too short.
        return Err(DecodeError::malformed("MQTT-3.4"));
    }
    let packet_id = PacketId::new(u16::from_be_bytes([buf[2], buf[3]]));
    let ack = Ack::success(packet_id.ok_or(DecodeError::protocol("MQTT-2.2.1-3"))?);
    Ok(match header.kind() {
        kind::PUBACK => Packet::PubAck(ack),
        kind::PUBREC => Packet::PubRec(ack),
        kind::PUBREL => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    })
}

/// A packet in storage of its own, taken off the front of `buf`, which has all of it.
fn copied(buf: &mut BytesMut, header: Header) -> Bytes {
    let frame = Bytes::copy_from_slice(&buf[..header.total_len]);
    buf.advance(header.total_len);
    frame
}
