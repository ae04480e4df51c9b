//! Why a connection is ended: the reason, and the sentence that a 5.0 client reads beside it.

use bytestring::ByteString;

use crate::mqtt::packet::Ack;
use crate::mqtt::reason::ReasonCode;

/// Why a connection is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) reason: ReasonCode,
    why: &'static str,
}

impl Refusal {
    /// A breach of the protocol, and which.
    pub(super) fn protocol_error(why: &'static str) -> Self {
        let reason = ReasonCode::ProtocolError;
        Self { reason, why }
    }

    /// The Reason String `[MQTT-3.14.2-3]`; the encoder leaves it out where it must not be.
    pub(super) fn reason_string(self) -> Option<ByteString> {
        (!self.why.is_empty()).then(|| ByteString::from_static(self.why))
    }
}

impl From<ReasonCode> for Refusal {
    fn from(reason: ReasonCode) -> Self {
        let why = reason.explanation();
        Self { reason, why }
    }
}

/// An acknowledgement that says why, if it is one of a failure.
pub(super) fn explained(mut ack: Ack) -> Ack {
    if ack.reason.is_error() {
        ack.properties.reason_string = ack.reason.reason_string();
    }
    ack
}
