//! What the codec answers when bytes are no packet, or a packet has no bytes.

use super::packet::{ConnAck, Disconnect, Packet, ProtocolVersion};
use super::properties::{ConnAckProperties, DisconnectProperties};
use super::reason::ReasonCode;

/// What the other end is told before the connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing: 3.x has no word for it, or its version is not known.
    Close,
    /// A CONNACK in the form of this version; 3.x carries the return code of the reason.
    ConnAck(ProtocolVersion),
    /// A 5.0 DISCONNECT with the reason.
    Disconnect,
}

/// Bytes that are not a packet of this connection. It must be closed `[MQTT-4.13.1-1]`; the decoder
/// answers every later call with the same error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason:?} [{clause}]")]
pub struct DecodeError {
    /// The 5.0 reason code; 3.x tells only [`ReasonCode::connect_return_code`] of it, if anything.
    pub reason: ReasonCode,
    /// What is sent before closing.
    pub answer: Answer,
    /// The clause that was broken: a 5.0 statement unless it says 3.1.1 or 3.1.
    pub clause: &'static str,
}

impl DecodeError {
    /// An error that closes without an answer.
    #[must_use]
    pub const fn new(reason: ReasonCode, clause: &'static str) -> Self {
        Self {
            reason,
            answer: Answer::Close,
            clause,
        }
    }

    /// A packet that cannot be parsed: 0x81.
    #[must_use]
    pub const fn malformed(clause: &'static str) -> Self {
        Self::new(ReasonCode::MalformedPacket, clause)
    }

    /// A packet that can be parsed but must not come: 0x82.
    #[must_use]
    pub const fn protocol(clause: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, clause)
    }

    /// The same error with another answer.
    #[must_use]
    pub const fn answered(self, answer: Answer) -> Self {
        Self { answer, ..self }
    }

    /// The packet to send before closing, and the version to encode it for.
    #[must_use]
    pub fn answer_packet(&self) -> Option<(ProtocolVersion, Packet)> {
        match self.answer {
            Answer::Close => None,
            Answer::ConnAck(version) => {
                let properties = ConnAckProperties::default();
                let ack = ConnAck {
                    session_present: false,
                    reason: self.reason,
                    properties,
                };
                Some((version, Packet::ConnAck(Box::new(ack))))
            }
            Answer::Disconnect => {
                let properties = DisconnectProperties::default();
                let packet = Packet::Disconnect(Disconnect {
                    reason: self.reason,
                    properties,
                });
                Some((ProtocolVersion::V5, packet))
            }
        }
    }
}

/// A packet that cannot be sent. The buffer is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary value has more than 65,535 bytes `[MQTT-1.5.4]`. The buffer is unchanged.
    #[error("a string or binary field has more than 65,535 bytes")]
    FieldTooLong,
    /// The packet is longer than what 4 length bytes can say or than the receiver accepts
    /// `[MQTT-3.1.2-24]`. The buffer is unchanged; the caller goes on as if it had been sent
    /// `[MQTT-3.1.2-25]`.
    #[error("a packet of {size} bytes is larger than the receiver's maximum of {size_max}")]
    PacketTooLarge {
        /// Bytes of the whole packet.
        size: usize,
        /// Bytes that are allowed.
        size_max: usize,
    },
    /// A PUBLISH has a packet identifier with QoS 0 or none with QoS 1 or 2 `[MQTT-2.2.1-2]`.
    /// The buffer is unchanged.
    #[error("a PUBLISH carries a packet identifier exactly if its QoS is 1 or 2")]
    PacketIdMismatch,
    /// A number is outside of what its property may hold. The buffer is unchanged.
    #[error("a property has a value that the standard forbids")]
    ValueOutOfRange,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, or their acknowledgement without a reason code
    /// `[MQTT-3.8.3-2]`. The buffer is unchanged.
    #[error("a list that must not be empty is empty")]
    EmptyList,
    /// The version has no such packet, or the CONNECT is one of another version. The buffer is
    /// unchanged.
    #[error("this version of MQTT has no such packet")]
    NotInThisVersion,
}
