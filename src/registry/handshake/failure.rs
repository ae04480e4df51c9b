//! Why a handshake fails, each in one sentence.

use super::{Purpose, Versions};
use crate::node_name::NodeName;
use crate::registry::cookie::Fingerprint;

/// Why a handshake failed. The connection has to be closed; nothing else is changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// (1), (2): the first bytes are not ours.
    #[error("what answers there does not speak Ermine's protocol")]
    NotErmine,
    /// A later frame does not fit its step, or was changed on its way.
    #[error("the other side broke the handshake in step {step}")]
    Malformed {
        /// The step of docs/PROTOCOL.md.
        step: u8,
    },
    /// (2): no common version.
    #[error(
        "protocol version mismatch: we speak version {ours}, the other side {theirs}: upgrade the older one"
    )]
    Versions {
        /// Ours.
        ours: Versions,
        /// Theirs.
        theirs: Versions,
    },
    /// (3), (4): the proof is wrong.
    #[error(
        "cookie mismatch with {with}: it does not hold our cookie (fingerprint {ours}): \
         compare `ermine cookie fingerprint` on both sides"
    )]
    CookieMismatch {
        /// Fingerprint of our cookie.
        ours: Fingerprint,
        /// Whom we wanted to reach, or who it says it is.
        with: String,
    },
    /// (3): the other side proved a cookie that we have replaced.
    #[error(
        "{with} holds a cookie that was replaced, and its grace is over (ours has fingerprint {ours}): \
         copy the cookie file of this cluster to it"
    )]
    HoldsReplaced {
        /// Fingerprint of our cookie.
        ours: Fingerprint,
        /// Who it says it is.
        with: String,
    },
    /// (4): our cookie was replaced there.
    #[error(
        "our cookie (fingerprint {ours}) was replaced there by `ermine cookie rotate`, and its grace is \
         over: copy the cookie file of a member here"
    )]
    CookieReplaced {
        /// Fingerprint of our cookie.
        ours: Fingerprint,
    },
    /// (1), (2): our own nonce came back.
    #[error("the other side sent our own words back")]
    Reflected,
    /// (4): another node is there.
    #[error("{reached} was reached, not {expected}: the name, its host or a port is wrong")]
    WrongNode {
        /// Who is there.
        reached: NodeName,
        /// Who was wanted.
        expected: NodeName,
    },
    /// (4): the port takes connections of another purpose.
    #[error("this port takes no {asked} connections")]
    WrongDoor {
        /// The purpose in `Hello`.
        asked: Purpose,
    },
    /// Nothing came within `HANDSHAKE_DEADLINE`.
    #[error("the other side took the connection and did not finish the handshake within {seconds} s",
        seconds = crate::limits::HANDSHAKE_DEADLINE.as_secs())]
    Silent,
    /// The other side closed.
    #[error("the other side closed the connection in step {step} of the handshake")]
    Closed {
        /// The step of docs/PROTOCOL.md that did not come.
        step: u8,
    },
    /// The socket failed.
    #[error("the connection failed in step {step} of the handshake: {cause}")]
    Io {
        /// The step of docs/PROTOCOL.md.
        step: u8,
        /// What the system said.
        cause: String,
    },
    /// The system gave no random bytes.
    #[error("the system's random source failed ({0}): no handshake is possible")]
    NoRandom(String),
}

impl HandshakeError {
    /// Whether it is the cookie's fault: then another cookie may do.
    #[must_use]
    pub fn is_of_cookie(&self) -> bool {
        matches!(
            self,
            Self::CookieMismatch { .. } | Self::HoldsReplaced { .. } | Self::CookieReplaced { .. }
        )
    }
}
