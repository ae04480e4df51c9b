//! Where a record lies: keys as bytes whose order is the order in which they are read.
//!
//! | key | record |
//! |---|---|
//! | `c` client id | the number of the client's session |
//! | `h` | whose store this is, and in which format |
//! | `r` topic | what is retained there |
//! | `s` number 0 | what is known of a session |
//! | `s` number 1 filter | a subscription |
//! | `s` number 2 packet id | a QoS 2 message of the client whose PUBREL is awaited |
//! | `s` number 3 place | how far the exchange of a message has come |
//! | `s` number 4 place | a message that waits |
//!
//! Numbers are big-endian, so that all that a session has is one range, its messages in the order of their
//! places at its end.

use std::fmt;
use std::num::NonZeroU64;

use crate::mqtt::packet::PacketId;
use crate::session::lasting::{Seq, SessionNo};

const CLIENT: u8 = b'c';
const HEADER: u8 = b'h';
const RETAINED: u8 = b'r';
const SESSION: u8 = b's';

/// Parts of a session.
const META: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const RECEIVED: u8 = 2;
const EXCHANGE: u8 = 3;
const QUEUED: u8 = 4;

/// Bytes of a session's key before what is behind the part.
const PART_AT: usize = 9;

/// The name of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Key<'a> {
    Client(&'a [u8]),
    Header,
    Retained(&'a [u8]),
    Session(SessionNo),
    Subscription(SessionNo, &'a [u8]),
    Received(SessionNo, PacketId),
    Exchange(SessionNo, Seq),
    Queued(SessionNo, Seq),
}

fn of_session(no: SessionNo, part: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PART_AT + 1 + rest.len());
    bytes.push(SESSION);
    bytes.extend_from_slice(&no.0.to_be_bytes());
    bytes.push(part);
    bytes.extend_from_slice(rest);
    bytes
}

fn prefixed(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + rest.len());
    bytes.push(kind);
    bytes.extend_from_slice(rest);
    bytes
}

impl<'a> Key<'a> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Client(id) => prefixed(CLIENT, id),
            Self::Header => vec![HEADER],
            Self::Retained(topic) => prefixed(RETAINED, topic),
            Self::Session(no) => of_session(no, META, &[]),
            Self::Subscription(no, filter) => of_session(no, SUBSCRIPTION, filter),
            Self::Received(no, id) => of_session(no, RECEIVED, &id.get().to_be_bytes()),
            Self::Exchange(no, seq) => of_session(no, EXCHANGE, &seq.0.get().to_be_bytes()),
            Self::Queued(no, seq) => of_session(no, QUEUED, &seq.0.get().to_be_bytes()),
        }
    }

    /// What a record is called; `None` if nothing of ours has such a key.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            CLIENT => return Some(Self::Client(rest)),
            HEADER => return rest.is_empty().then_some(Self::Header),
            RETAINED => return Some(Self::Retained(rest)),
            SESSION => {}
            _ => return None,
        }
        let (no, rest) = rest.split_first_chunk::<8>()?;
        let no = SessionNo(u64::from_be_bytes(*no));
        let (&part, rest) = rest.split_first()?;
        match part {
            META => rest.is_empty().then_some(Self::Session(no)),
            SUBSCRIPTION => Some(Self::Subscription(no, rest)),
            RECEIVED => {
                let id = PacketId::new(u16::from_be_bytes(rest.try_into().ok()?))?;
                Some(Self::Received(no, id))
            }
            EXCHANGE => Some(Self::Exchange(no, seq(rest)?)),
            QUEUED => Some(Self::Queued(no, seq(rest)?)),
            _ => None,
        }
    }

    /// The session that it is a part of.
    pub(super) fn session(&self) -> Option<SessionNo> {
        match *self {
            Self::Session(no)
            | Self::Subscription(no, _)
            | Self::Received(no, _)
            | Self::Exchange(no, _)
            | Self::Queued(no, _) => Some(no),
            Self::Client(_) | Self::Header | Self::Retained(_) => None,
        }
    }
}

fn seq(bytes: &[u8]) -> Option<Seq> {
    let place = u64::from_be_bytes(bytes.try_into().ok()?);
    NonZeroU64::new(place).map(Seq)
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Client(id) => write!(f, "the client id '{}'", String::from_utf8_lossy(id)),
            Self::Header => write!(f, "the header"),
            Self::Retained(topic) => {
                write!(f, "what is retained at '{}'", String::from_utf8_lossy(topic))
            }
            Self::Session(no) => write!(f, "session {}", no.0),
            Self::Subscription(no, filter) => {
                let filter = String::from_utf8_lossy(filter);
                write!(f, "the subscription to '{filter}' of session {}", no.0)
            }
            Self::Received(no, id) => write!(f, "the received message {id} of session {}", no.0),
            Self::Exchange(no, seq) => write!(f, "the exchange of message {} of session {}", seq.0, no.0),
            Self::Queued(no, seq) => write!(f, "message {} of session {}", seq.0, no.0),
        }
    }
}

/// What a key is called in a sentence.
pub(super) fn describe(bytes: &[u8]) -> String {
    match Key::parse(bytes) {
        Some(key) => key.to_string(),
        None => format!("a record under a key that is none ({} bytes)", bytes.len()),
    }
}

/// A range of keys: its first, and the first behind it.
pub(super) type Range = (Vec<u8>, Vec<u8>);

/// Everything.
pub(super) fn everything() -> Range {
    (Vec::new(), vec![u8::MAX; 2])
}

/// All that a session has.
pub(super) fn all_of(no: SessionNo) -> Range {
    (of_session(no, 0, &[]), of_session(no, u8::MAX, &[]))
}

/// All that a session has but its messages, and its messages.
pub(super) fn halves_of(no: SessionNo) -> (Range, Range) {
    let (first, behind) = all_of(no);
    let queue = of_session(no, QUEUED, &[]);
    ((first, queue.clone()), (queue, behind))
}

/// The exchanges of a session.
pub(super) fn exchanges_of(no: SessionNo) -> Range {
    (of_session(no, EXCHANGE, &[]), of_session(no, EXCHANGE + 1, &[]))
}

/// The messages of a session from `from` to `last`.
pub(super) fn queue_of(no: SessionNo, from: Seq, last: Seq) -> Range {
    let mut behind = Key::Queued(no, last).bytes();
    // The next key in the order of bytes.
    behind.push(0);
    (Key::Queued(no, from).bytes(), behind)
}

/// All sessions behind `after`.
pub(super) fn sessions_behind(after: Option<SessionNo>) -> Range {
    let first = match after {
        Some(no) => all_of(no).1,
        None => vec![SESSION],
    };
    (first, vec![SESSION + 1])
}

/// All retained topics behind `after`.
pub(super) fn retained_behind(after: Option<&[u8]>) -> Range {
    let mut first = prefixed(RETAINED, after.unwrap_or_default());
    if after.is_some() {
        first.push(0);
    }
    (first, vec![RETAINED + 1])
}
