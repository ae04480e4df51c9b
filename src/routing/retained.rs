//! The retained messages of this node: topic → the last one published with the retain flag.
//!
//! They lie in one ordered map. Its keys are topics with `/` written as the byte 0, which no topic
//! contains: so all topics below a level lie side by side behind it. A filter leaps from one topic that
//! could match to the next instead of scanning the store, and can stop anywhere and go on later.
//!
//! What all nodes of a cluster retain together is stamped, see [`super::stamps`]: the same writes make the
//! same store, in whatever order they come. What each node has of its own (`$SYS`) is not.

use std::cmp::Ordering;
use std::collections::btree_map::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;
use smallvec::SmallVec;

use super::stamps::{Stamp, StampBook};
use crate::limits::{RETAINED_BYTES_MAX, RETAINED_LEN_MAX, TOPIC_LEVELS_MAX};
use crate::mqtt::message::Message;

mod shared;
#[cfg(test)]
mod tests;

pub use shared::{Lack, Told, ToldPart, bucket_of_topic};

/// Between levels in a key; below every other byte.
const SEPARATOR: u8 = 0;

/// Topics that are looked at one by one before a seek.
const NEAR: usize = 3;

type Key = SmallVec<[u8; 128]>;

/// Where a search of the store goes on, and how new what it finds may be; at the beginning and all when new.
#[derive(Clone, Debug)]
pub struct RetainedCursor {
    key: Key,
    until: u64,
}

impl Default for RetainedCursor {
    fn default() -> Self {
        Self::until(u64::MAX)
    }
}

impl RetainedCursor {
    /// Finds only what was stored when the store's count was this: who subscribed then gets what is newer as
    /// it is published.
    #[must_use]
    pub fn until(count: u64) -> Self {
        Self {
            key: Key::new(),
            until: count,
        }
    }
}

/// A message and when it was stored, by [`RetainedStore::count`].
#[derive(Debug)]
struct Held {
    message: Arc<Message>,
    count: u64,
}

/// How much the store may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetainedLimits {
    /// Messages.
    pub len_max: usize,
    /// Bytes, by [`Message::weight`].
    pub bytes_max: usize,
}

impl Default for RetainedLimits {
    fn default() -> Self {
        Self {
            len_max: RETAINED_LEN_MAX,
            bytes_max: RETAINED_BYTES_MAX,
        }
    }
}

/// What became of a message that was to be retained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainOutcome {
    /// It is the first of its topic.
    Stored,
    /// It took the place of an earlier one `[MQTT-3.3.1-5]`.
    Replaced,
    /// Its payload is empty: the earlier one is removed `[MQTT-3.3.1-6]`.
    Removed,
    /// Its payload is empty and there was none.
    Absent,
    /// The store is full. An earlier message of the topic is removed, for its publisher has replaced it.
    Full,
    /// A later write of the topic came before.
    Outdated,
}

/// Topic → retained message, bounded.
#[derive(Debug, Default)]
pub struct RetainedStore {
    limits: RetainedLimits,
    messages: BTreeMap<Arc<[u8]>, Held>,
    /// Counts the messages that were ever stored.
    count: u64,
    /// Which write of each topic holds, of those that all nodes share.
    book: StampBook,
    /// Whether there is, or was, another node that has to learn what was cleared.
    shared: bool,
    /// Of those that expire, by when.
    expiries: BTreeSet<(Instant, Arc<[u8]>)>,
    bytes: usize,
    refused: u64,
}

impl RetainedStore {
    /// An empty store.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many messages are held, expired ones that were not yet removed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Grows with every message that is stored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Which write of each topic holds.
    #[must_use]
    pub fn book(&self) -> &StampBook {
        &self.book
    }

    /// From now on tombstones are kept: there are other nodes.
    pub fn share(&mut self) {
        self.shared = true;
    }

    /// Whether no message is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes held, by [`Message::weight`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages that were refused because the store was full, since it was made.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Stores a message of this node's own as its topic's retained one, or with an empty payload removes that
    /// `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`; an empty one is never stored itself.
    ///
    /// What is kept is a copy: the original is a range of a read buffer, which must not live as long.
    pub fn set(&mut self, message: &Message) -> RetainOutcome {
        let key: Arc<[u8]> = key_of(&message.topic)[..].into();
        self.book.forget(&key);
        let old = self.take(&key);
        self.put(&key, message, old)
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= self.limits.len_max || self.bytes >= self.limits.bytes_max
    }

    /// Stores a message, or nothing if its payload is empty, in place of the one that was `taken`.
    fn put(&mut self, key: &Arc<[u8]>, message: &Message, taken: bool) -> RetainOutcome {
        if message.payload.is_empty() {
            return if taken {
                RetainOutcome::Removed
            } else {
                RetainOutcome::Absent
            };
        }
        let weight = message.weight();
        let full = self.messages.len() >= self.limits.len_max;
        if full || self.bytes.saturating_add(weight) > self.limits.bytes_max {
            self.refused += 1;
            return RetainOutcome::Full;
        }
        self.bytes += weight;
        if let Some(expires_at) = message.expires_at {
            self.expiries.insert((expires_at, key.clone()));
        }
        self.count += 1;
        let held = Held {
            message: Arc::new(copy(message)),
            count: self.count,
        };
        self.messages.insert(key.clone(), held);
        if taken {
            RetainOutcome::Replaced
        } else {
            RetainOutcome::Stored
        }
    }

    /// The message of exactly this topic, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: &str, now: Instant) -> Option<&Arc<Message>> {
        self.messages
            .get(&key_of(topic)[..])
            .map(|held| &held.message)
            .filter(|message| lives(message, now))
    }

    /// Calls `found` with every message whose topic matches `filter` and that has not expired, in the
    /// order of the topics' levels. Topics that start with `$` are not matched by a filter that starts with
    /// a wildcard `[MQTT-4.7.2-1]`. A filter of more than [`TOPIC_LEVELS_MAX`] levels matches nothing.
    pub fn matching(&self, filter: &str, now: Instant, found: &mut impl FnMut(&Arc<Message>)) {
        self.matching_from(&mut RetainedCursor::default(), filter, now, usize::MAX, found);
    }

    /// A part of [`matching`](Self::matching): looks at no more than `steps_max` topics and leaves in
    /// `cursor` where to go on; whether there may be more. A wildcard over a full store would otherwise keep
    /// its arbiter for a third of a second. The store may change in between: each topic is found at most
    /// once, and one that stays is found.
    pub fn matching_from(
        &self,
        cursor: &mut RetainedCursor,
        filter: &str,
        now: Instant,
        steps_max: usize,
        found: &mut impl FnMut(&Arc<Message>),
    ) -> bool {
        let levels: SmallVec<[&str; 16]> = filter.split('/').take(TOPIC_LEVELS_MAX + 1).collect();
        if levels.len() > TOPIC_LEVELS_MAX {
            return false;
        }
        let mut range = self.from(&cursor.key);
        let mut entry = range.next();
        let mut steps = 0;
        while let Some((key, held)) = entry {
            if steps == steps_max {
                cursor.key = Key::from_slice(key);
                return true;
            }
            steps += 1;
            let (matches, next) = compare(&levels, key);
            if matches && held.count <= cursor.until && lives(&held.message, now) {
                found(&held.message);
            }
            entry = match next {
                Next::Following => range.next(),
                Next::From(start) => {
                    // Most often the next topic is the one sought, and a seek costs ten such looks.
                    let near = range.by_ref().take(NEAR).find(|(key, _)| key[..] >= start[..]);
                    near.or_else(|| {
                        range = self.from(&start);
                        range.next()
                    })
                }
                Next::Nowhere => return false,
            };
        }
        false
    }

    /// When the next message expires; then [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    /// Removes what has expired at `now` `[MQTT-3.3.2-5]`; how many there were. Of what all nodes share a
    /// tombstone stays, with the stamp of the message: so that is no difference from a node where it is still
    /// to expire, and nothing older comes back. `told` is each topic that has changed, with the stamp of its
    /// tombstone if there is one; without, nothing is known of it any more.
    pub fn expire(
        &mut self,
        now: Instant,
        now_us: u64,
        told: &mut impl FnMut(ByteString, Option<&Stamp>),
    ) -> usize {
        let before = self.messages.len();
        while let Some((_, key)) = self.expiries.first().filter(|(expires_at, _)| *expires_at <= now) {
            let key = key.clone();
            self.take(&key);
            let known = self.book.forget(&key);
            told(shared::topic_of(&key), known.as_ref().map(|known| &known.stamp));
            if let Some(known) = known {
                self.bury(&key, &known.stamp, now_us);
            }
        }
        self.book
            .sweep(now_us, &mut |key| told(shared::topic_of(key), None));
        before - self.messages.len()
    }

    fn take(&mut self, key: &[u8]) -> bool {
        let Some((key, old)) = self.messages.remove_entry(key) else {
            return false;
        };
        self.bytes -= old.message.weight();
        if let Some(expires_at) = old.message.expires_at {
            self.expiries.remove(&(expires_at, key));
        }
        true
    }

    fn from(&self, start: &[u8]) -> Range<'_, Arc<[u8]>, Held> {
        self.messages
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
    }
}

/// Where the next topic that can match lies.
enum Next {
    /// It may be the very next one.
    Following,
    /// Not before this key.
    From(Key),
    /// There is none.
    Nowhere,
}

/// Whether `key` matches, and where to look next. Every [`Next::From`] lies behind `key`.
fn compare(levels: &[&str], key: &[u8]) -> (bool, Next) {
    if key.starts_with(b"$") && matches!(levels, ["+" | "#", ..]) {
        return (false, Next::From(Key::from_slice(&[b'$' + 1])));
    }
    // Where the last level ends that was taken by a `+`: behind it the search goes on when all fails.
    let mut plus = None;
    let mut start = 0;
    for (position, level) in levels.iter().enumerate() {
        if *level == "#" && position + 1 == levels.len() {
            // Everything below, and the parent level itself (MQTT 4.7.1.2).
            return (true, Next::Following);
        }
        if start > key.len() {
            return (false, Next::Following);
        }
        let len = key[start..].iter().position(|byte| *byte == SEPARATOR);
        let end = len.map_or(key.len(), |len| start + len);
        if *level == "+" {
            plus = Some(end);
        } else {
            match key[start..end].cmp(level.as_bytes()) {
                Ordering::Less => {
                    let mut sought = Key::from_slice(&key[..start]);
                    sought.extend_from_slice(level.as_bytes());
                    return (false, Next::From(sought));
                }
                Ordering::Equal => {}
                Ordering::Greater => return (false, behind(key, plus)),
            }
        }
        start = end + 1;
    }
    (start > key.len(), behind(key, plus))
}

/// Behind the level that ends at `end` and everything below it, before any other level.
fn behind(key: &[u8], end: Option<usize>) -> Next {
    end.map_or(Next::Nowhere, |end| {
        let mut start = Key::from_slice(&key[..end]);
        start.push(SEPARATOR + 1);
        Next::From(start)
    })
}

fn lives(message: &Message, now: Instant) -> bool {
    message.expires_at.is_none_or(|expires_at| expires_at > now)
}

fn key_of(topic: &str) -> Key {
    topic
        .bytes()
        .map(|byte| if byte == b'/' { SEPARATOR } else { byte })
        .collect()
}

/// The message in one allocation of its own.
fn copy(message: &Message) -> Message {
    let mut own = BytesMut::with_capacity(message.weight());
    own.put_slice(message.topic.as_bytes());
    own.put_slice(&message.payload);
    own.put_slice(&message.pass_through);
    let mut own = own.freeze();
    let topic = own.split_to(message.topic.len());
    Message {
        topic: ByteString::try_from(topic).expect("these bytes are those of a ByteString"),
        payload: own.split_to(message.payload.len()),
        pass_through: own,
        publisher: ByteString::from(&*message.publisher),
        ..message.clone()
    }
}
