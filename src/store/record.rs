//! How a record is written: a checksum over key and record, a version, then the record in bincode 2.
//!
//! The clock of messages runs in this process only, so what expires is written as milliseconds of the wall
//! clock and read back against it: a clock that was set meanwhile makes a message live shorter or longer by
//! as much, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::crc::Crc;
use crate::broker::storage::Retained;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{ProtocolVersion, QoS, SubscriptionIds, SubscriptionOptions, Will};
use crate::mqtt::properties::{PublishProperties, WillProperties};
use crate::routing::stamps::{HybridTime, Stamp};
use crate::session::Subscription;
use crate::session::lasting::{Guest, Queued, Seq, SessionRecord};

/// The version of every record that this build writes but those of sessions.
const VERSION: u8 = 1;

/// The version of the records of sessions that this build writes. It reads the first one too, in which it was
/// not said whose the session is.
const SESSION_VERSION: u8 = 2;

/// Bytes before a record: its checksum and its version.
const HEAD: usize = 5;

/// Room for a record before it is known how long it gets: most fit, and need no other.
const ROOM: usize = 128;

/// No record is larger: the largest MQTT packet, and what is noted beside it.
const RECORD_BYTES_MAX: usize = 300 << 20;

/// Why a record is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("it is cut off")]
    Short,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is of version {0}")]
    Version(u8),
    #[error("its checksum is right, but it says nothing: {0}")]
    Nonsense(String),
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    /// Milliseconds of the wall clock since 1970.
    pub(super) wall_ms: u64,
}

impl Clock {
    pub(super) fn read() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            now: Instant::now(),
            wall_ms: since.map_or(0, ms),
        }
    }

    fn wall(self, at: Instant) -> u64 {
        match at.checked_duration_since(self.now) {
            Some(left) => self.wall_ms.saturating_add(ms(left)),
            None => self.wall_ms.saturating_sub(ms(self.now.duration_since(at))),
        }
    }

    /// What lies in the past is now.
    fn instant(self, wall_ms: u64) -> Instant {
        let left = Duration::from_millis(wall_ms.saturating_sub(self.wall_ms));
        // Beyond what the clock can say is hundreds of years away.
        self.now
            .checked_add(left)
            .unwrap_or(self.now + Duration::from_secs(1 << 32))
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a record for its key.
pub(super) fn write(key: &[u8], record: &impl Serialize) -> Vec<u8> {
    write_as(VERSION, key, record)
}

fn write_as(version: u8, key: &[u8], record: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.resize(HEAD, 0);
    bytes[HEAD - 1] = version;
    // Encoding into memory fails only beyond a limit, and this configuration has none.
    bincode::serde::encode_into_std_write(record, &mut bytes, bincode::config::standard())
        .expect("memory takes all bytes");
    let sum = Crc::new().with(key).with(&bytes[HEAD - 1..]).sum();
    bytes[..HEAD - 1].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What a record says that was found under a key, and its version.
fn versioned<'a>(key: &[u8], bytes: &'a [u8]) -> Result<(u8, &'a [u8]), Damage> {
    let (sum, rest) = bytes.split_first_chunk::<{ HEAD - 1 }>().ok_or(Damage::Short)?;
    let (&version, body) = rest.split_first().ok_or(Damage::Short)?;
    if Crc::new().with(key).with(rest).sum() != u32::from_le_bytes(*sum) {
        return Err(Damage::Checksum);
    }
    Ok((version, body))
}

/// The same of a record that has only one version.
fn body<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
    match versioned(key, bytes)? {
        (VERSION, body) => Ok(body),
        (version, _) => Err(Damage::Version(version)),
    }
}

/// Whether a record is whole.
pub(super) fn check(key: &[u8], bytes: &[u8]) -> Result<(), Damage> {
    match versioned(key, bytes)? {
        (VERSION | SESSION_VERSION, _) => Ok(()),
        (version, _) => Err(Damage::Version(version)),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), Damage> {
    let config = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();
    bincode::serde::decode_from_slice(bytes, config).map_err(|error| Damage::Nonsense(error.to_string()))
}

/// Reads a record that was found under a key.
pub(super) fn read<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, Damage> {
    whole(body(key, bytes)?)
}

fn whole<T: DeserializeOwned>(body: &[u8]) -> Result<T, Damage> {
    let (record, used) = decode(body)?;
    if used == body.len() {
        Ok(record)
    } else {
        Err(Damage::Nonsense("bytes follow it".into()))
    }
}

/// [`Message::weight`] of a message that waits, without the message.
pub(super) fn weight(key: &[u8], bytes: &[u8]) -> Result<usize, Damage> {
    let (weight, _) = decode::<u64>(body(key, bytes)?)?;
    Ok(usize::try_from(weight).unwrap_or(usize::MAX))
}

/// Whose store this is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The format of the whole; see [`super::opening`].
    pub(super) format: u32,
    /// The node whose store it is.
    pub(super) node: String,
    /// No session has this number, or a greater one.
    pub(super) next_session: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredMessage {
    topic: ByteString,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    pass_through: Bytes,
    publisher: ByteString,
    expires_ms: Option<u64>,
}

impl StoredMessage {
    fn of(message: &Message, clock: Clock) -> Self {
        Self {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            pass_through: message.pass_through.clone(),
            publisher: message.publisher.clone(),
            expires_ms: message.expires_at.map(|at| clock.wall(at)),
        }
    }

    fn message(self, clock: Clock) -> Arc<Message> {
        Arc::new(Message {
            topic: self.topic,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            pass_through: self.pass_through,
            expires_at: self.expires_ms.map(|at| clock.instant(at)),
            publisher: self.publisher,
        })
    }
}

/// Its weight comes first, so that it can be read alone ([`weight`]).
#[derive(Serialize, Deserialize)]
struct StoredQueued {
    weight: u64,
    message: StoredMessage,
    subscription_ids: Vec<u32>,
    qos: QoS,
    retain: bool,
    dup: bool,
}

pub(super) fn write_queued(key: &[u8], queued: &Queued, clock: Clock) -> Vec<u8> {
    let stored = StoredQueued {
        weight: queued.message.weight() as u64,
        message: StoredMessage::of(&queued.message, clock),
        subscription_ids: queued.subscription_ids.as_slice().to_vec(),
        qos: queued.qos,
        retain: queued.retain,
        dup: queued.dup,
    };
    write(key, &stored)
}

pub(super) fn read_queued(key: &[u8], bytes: &[u8], clock: Clock) -> Result<Queued, Damage> {
    let stored: StoredQueued = read(key, bytes)?;
    let mut subscription_ids = SubscriptionIds::None;
    for identifier in stored.subscription_ids {
        subscription_ids.add(identifier);
    }
    Ok(Queued {
        message: stored.message.message(clock),
        subscription_ids,
        qos: stored.qos,
        retain: stored.retain,
        dup: stored.dup,
    })
}

#[derive(Serialize, Deserialize)]
struct StoredSession {
    client_id: ByteString,
    /// The protocol level of a CONNECT.
    level: u8,
    expiry_interval_s: u32,
    away_since_ms: Option<u64>,
    noted_ms: u64,
    will: Option<StoredWill>,
}

/// Stands behind a [`StoredSession`] of the second version, and behind this which messages may have been
/// sent.
#[derive(Serialize, Deserialize)]
struct StoredGuest {
    username: Option<ByteString>,
    is_unbound: bool,
    listener: ByteString,
}

#[derive(Serialize, Deserialize)]
struct StoredWill {
    topic: ByteString,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    delay_s: Option<u32>,
    expiry_interval_s: Option<u32>,
    pass_through: Bytes,
    due_ms: u64,
}

pub(super) fn write_session(key: &[u8], record: &SessionRecord) -> Vec<u8> {
    let will = record.will.as_ref().map(|(will, due_ms)| StoredWill {
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain,
        delay_s: will.properties.will_delay_interval_s,
        expiry_interval_s: will.properties.publish.message_expiry_interval_s,
        pass_through: will.properties.publish.pass_through.clone(),
        due_ms: *due_ms,
    });
    let stored = StoredSession {
        client_id: record.client_id.clone(),
        level: match record.version {
            ProtocolVersion::V3_1 => 3,
            ProtocolVersion::V3_1_1 => 4,
            ProtocolVersion::V5 => 5,
        },
        expiry_interval_s: record.expiry_interval_s,
        away_since_ms: record.away_since_ms,
        noted_ms: record.noted_ms,
        will,
    };
    let guest = record.guest.clone().map(|guest| StoredGuest {
        username: guest.username,
        is_unbound: guest.is_unbound,
        listener: guest.listener,
    });
    write_as(SESSION_VERSION, key, &(stored, guest, record.suspect))
}

pub(super) fn read_session(key: &[u8], bytes: &[u8]) -> Result<SessionRecord, Damage> {
    let (stored, guest, suspect): (StoredSession, Option<StoredGuest>, Option<Seq>) =
        match versioned(key, bytes)? {
            (VERSION, body) => (whole(body)?, None, None),
            (SESSION_VERSION, body) => whole(body)?,
            (version, _) => return Err(Damage::Version(version)),
        };
    let version = match stored.level {
        3 => ProtocolVersion::V3_1,
        4 => ProtocolVersion::V3_1_1,
        5 => ProtocolVersion::V5,
        level => return Err(Damage::Nonsense(format!("a protocol of level {level}"))),
    };
    let will = stored.will.map(|stored| {
        let publish = PublishProperties {
            message_expiry_interval_s: stored.expiry_interval_s,
            pass_through: stored.pass_through,
            ..PublishProperties::default()
        };
        let will = Will {
            topic: stored.topic,
            payload: stored.payload,
            qos: stored.qos,
            retain: stored.retain,
            properties: WillProperties {
                will_delay_interval_s: stored.delay_s,
                publish,
            },
        };
        (will, stored.due_ms)
    });
    Ok(SessionRecord {
        client_id: stored.client_id,
        version,
        expiry_interval_s: stored.expiry_interval_s,
        away_since_ms: stored.away_since_ms,
        noted_ms: stored.noted_ms,
        will,
        suspect,
        guest: guest.map(|guest| Guest {
            username: guest.username,
            is_unbound: guest.is_unbound,
            listener: guest.listener,
        }),
    })
}

pub(super) fn write_subscription(key: &[u8], subscription: &Subscription) -> Vec<u8> {
    write(key, &(subscription.options, subscription.identifier))
}

pub(super) fn read_subscription(key: &[u8], bytes: &[u8]) -> Result<Subscription, Damage> {
    let (options, identifier): (SubscriptionOptions, Option<u32>) = read(key, bytes)?;
    Ok(Subscription { options, identifier })
}

#[derive(Serialize, Deserialize)]
enum StoredRetained {
    Message(StoredMessage, StoredStamp),
    Cleared(StoredStamp, u64),
}

#[derive(Serialize, Deserialize)]
struct StoredStamp(u64, String);

impl StoredStamp {
    fn of(stamp: &Stamp) -> Self {
        Self(stamp.time.0, stamp.node.as_str().to_owned())
    }

    fn stamp(self) -> Result<Stamp, Damage> {
        let node = self.1.parse();
        Ok(Stamp {
            time: HybridTime(self.0),
            node: node.map_err(|_| Damage::Nonsense("a stamp of no node".into()))?,
        })
    }
}

/// `None` for what is forgotten: it is no record.
pub(super) fn write_retained(key: &[u8], retained: &Retained, clock: Clock) -> Option<Vec<u8>> {
    let stored = match retained {
        Retained::Message(message, stamp) => {
            StoredRetained::Message(StoredMessage::of(message, clock), StoredStamp::of(stamp))
        }
        Retained::Cleared(stamp, died_us) => StoredRetained::Cleared(StoredStamp::of(stamp), *died_us),
        Retained::Forgotten => return None,
    };
    Some(write(key, &stored))
}

pub(super) fn read_retained(key: &[u8], bytes: &[u8], clock: Clock) -> Result<Retained, Damage> {
    Ok(match read(key, bytes)? {
        StoredRetained::Message(message, stamp) => Retained::Message(message.message(clock), stamp.stamp()?),
        StoredRetained::Cleared(stamp, died_us) => Retained::Cleared(stamp.stamp()?, died_us),
    })
}
