//! The retained messages of this node: topic → the last one published with the retain flag.
//!
//! They lie in one ordered map. Its keys are topics with `/` written as the byte 0, which no topic
//! contains: so all topics below a level lie side by side behind it, and a filter walks from level to
//! level with one seek each instead of scanning the store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;
use smallvec::SmallVec;

use crate::limits::{RETAINED_BYTES_MAX, RETAINED_LEN_MAX, TOPIC_LEVELS_MAX};
use crate::mqtt::message::Message;

#[cfg(test)]
mod tests;

/// Between levels in a key; below every other byte.
const SEPARATOR: u8 = 0;

type Key = SmallVec<[u8; 128]>;

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
}

/// Topic → retained message, bounded.
#[derive(Debug, Default)]
pub struct RetainedStore {
    limits: RetainedLimits,
    messages: BTreeMap<Arc<[u8]>, Arc<Message>>,
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

    /// Stores a message as its topic's retained one, or with an empty payload removes that
    /// `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`; an empty one is never stored itself.
    ///
    /// What is kept is a copy: the original is a range of a read buffer, which must not live as long.
    pub fn set(&mut self, message: &Message) -> RetainOutcome {
        let key = key_of(&message.topic);
        let old = self.take(&key);
        if message.payload.is_empty() {
            return if old {
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
        let key: Arc<[u8]> = key[..].into();
        self.bytes += weight;
        if let Some(expires_at) = message.expires_at {
            self.expiries.insert((expires_at, key.clone()));
        }
        self.messages.insert(key, Arc::new(copy(message)));
        if old {
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
            .filter(|message| lives(message, now))
    }

    /// Calls `found` with every message whose topic matches `filter` and that has not expired, in the
    /// order of the topics' levels. Topics that start with `$` are not matched by a filter that starts with
    /// a wildcard `[MQTT-4.7.2-1]`. A filter of more than
    /// [`TOPIC_LEVELS_MAX`] levels matches nothing.
    pub fn matching(&self, filter: &str, now: Instant, found: &mut impl FnMut(&Arc<Message>)) {
        let levels: SmallVec<[&str; 16]> = filter.split('/').take(TOPIC_LEVELS_MAX + 1).collect();
        if levels.len() <= TOPIC_LEVELS_MAX {
            let mut live = |message: &Arc<Message>| {
                if lives(message, now) {
                    found(message);
                }
            };
            self.walk(&mut Key::new(), &levels, &mut live);
        }
    }

    /// When the next message expires; then [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(expires_at, _)| *expires_at)
    }

    /// Removes what has expired at `now` `[MQTT-3.3.2-5]`; how many there were.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.messages.len();
        while let Some((_, key)) = self.expiries.first().filter(|(expires_at, _)| *expires_at <= now) {
            let key = key.clone();
            self.take(&key);
        }
        before - self.messages.len()
    }

    fn take(&mut self, key: &[u8]) -> bool {
        let Some((key, old)) = self.messages.remove_entry(key) else {
            return false;
        };
        self.bytes -= old.weight();
        if let Some(expires_at) = old.expires_at {
            self.expiries.remove(&(expires_at, key));
        }
        true
    }

    /// Finds what matches `levels` behind `above`: the key of the levels before, each with its separator;
    /// empty only at the root.
    fn walk(&self, above: &mut Key, levels: &[&str], found: &mut impl FnMut(&Arc<Message>)) {
        match levels {
            [] => {}
            ["#"] => self.all_behind(above, found),
            ["+", rest @ ..] => {
                let mut next = self.level_behind(above, None);
                while let Some(level) = next {
                    if !(above.is_empty() && level.starts_with(b"$")) {
                        self.descend(above, &level, rest, found);
                    }
                    next = self.level_behind(above, Some(&level));
                }
            }
            [level, rest @ ..] => self.descend(above, level.as_bytes(), rest, found),
        }
    }

    fn descend(&self, above: &mut Key, level: &[u8], rest: &[&str], found: &mut impl FnMut(&Arc<Message>)) {
        let len = above.len();
        above.extend_from_slice(level);
        if rest.is_empty() {
            self.messages.get(&above[..]).into_iter().for_each(found);
        } else {
            above.push(SEPARATOR);
            self.walk(above, rest, found);
        }
        above.truncate(len);
    }

    /// The parent level itself (MQTT 4.7.1.2) and everything below it.
    fn all_behind(&self, above: &Key, found: &mut impl FnMut(&Arc<Message>)) {
        let parent = above
            .split_last()
            .and_then(|(_, parent)| self.messages.get(parent));
        let below = self.from(above).take_while(|(key, _)| key.starts_with(above));
        let hidden = |key: &[u8]| above.is_empty() && key.starts_with(b"$");
        let below = below.filter(|(key, _)| !hidden(key)).map(|(_, message)| message);
        parent.into_iter().chain(below).for_each(found);
    }

    /// The first level behind `above` that has topics, or the first after `last`.
    fn level_behind(&self, above: &Key, last: Option<&[u8]>) -> Option<Key> {
        let mut start = above.clone();
        if let Some(last) = last {
            start.extend_from_slice(last);
            // Behind `last` and all its descendants, before any other level.
            start.push(SEPARATOR + 1);
        }
        let (key, _) = self.from(&start).next()?;
        let behind = key.strip_prefix(&above[..])?;
        behind
            .split(|byte| *byte == SEPARATOR)
            .next()
            .map(Key::from_slice)
    }

    fn from(&self, start: &[u8]) -> impl Iterator<Item = (&Arc<[u8]>, &Arc<Message>)> {
        self.messages
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
    }
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
