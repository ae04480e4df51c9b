//! What all nodes retain together: the greatest write of each topic, and what nodes tell each other of it.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use super::{RetainOutcome, RetainedStore, SEPARATOR, key_of};
use crate::mqtt::message::Message;
use crate::routing::stamps::{Known, Stamp, bucket_of};

/// What a node tells of one topic: see [`Known`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The topic.
    pub topic: ByteString,
    /// What it knows.
    pub known: Known,
}

/// A part of what a node knows: see [`RetainedStore::told`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ToldPart {
    /// In the order of the buckets that were asked for.
    pub told: Vec<Told>,
    /// How many of these buckets are told to their end.
    pub done: usize,
}

/// What a node lacks of what another one told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// Nothing, or nothing that it has room for.
    Nothing,
    /// The message.
    Message,
    /// The tombstone.
    Tombstone,
}

impl RetainedStore {
    /// The same for a write that all nodes share, unless a later one of its topic is known. Any order of the
    /// same writes leaves the same store, as long as it is not full.
    pub fn merge(&mut self, message: &Message, stamp: &Stamp) -> RetainOutcome {
        let key: Arc<[u8]> = key_of(&message.topic)[..].into();
        // A node that starts merges a million: what is sought is sought once.
        match self.book.get(&key) {
            Some(known) if known.stamp >= *stamp => return RetainOutcome::Outdated,
            Some(_) => drop(self.book.forget(&key)),
            None => {}
        }
        let old = self.take(&key);
        let outcome = self.put(&key, message, old);
        match outcome {
            RetainOutcome::Stored | RetainOutcome::Replaced => self.book.first(&key, stamp.clone()),
            RetainOutcome::Removed | RetainOutcome::Absent => {
                self.bury(&key, stamp, stamp.time.wall_us());
            }
            // Not even a tombstone: what there is room for later is asked for again.
            RetainOutcome::Full | RetainOutcome::Outdated => {}
        }
        outcome
    }

    /// A topic was cleared, or its message has expired, on another node; whether that was news.
    pub fn merge_tombstone(&mut self, topic: &str, stamp: &Stamp, died_us: u64, now_us: u64) -> bool {
        let key = key_of(topic);
        let news = self.book.is_newer(&key, stamp) && self.book.is_wanted(died_us, now_us);
        if news {
            self.book.forget(&key);
            self.take(&key);
            self.bury(&key[..].into(), stamp, died_us);
        }
        news
    }

    pub(super) fn bury(&mut self, key: &Arc<[u8]>, stamp: &Stamp, died_us: u64) {
        if self.shared {
            self.book.bury(key, stamp.clone(), died_us);
        }
    }

    /// What this node knows of the topics of some buckets, behind topic `after` of the first of them: as many
    /// as may be told at a time.
    #[must_use]
    pub fn told(&self, buckets: &[u8], after: Option<&str>, len_max: usize, bytes_max: usize) -> ToldPart {
        let (mut part, mut bytes) = (ToldPart::default(), 0);
        let mut after = after.map(key_of);
        for bucket in buckets {
            for (key, known) in self.book.list(*bucket, after.take().as_deref()) {
                bytes += key.len();
                if part.told.len() == len_max || (bytes > bytes_max && !part.told.is_empty()) {
                    return part;
                }
                part.told.push(Told {
                    topic: topic_of(key),
                    known: known.clone(),
                });
            }
            part.done += 1;
        }
        part
    }

    /// What this node lacks of what another one told. A full store lacks no more messages.
    #[must_use]
    pub fn lacks(&self, told: &Told, now_us: u64) -> Lack {
        let key = key_of(&told.topic);
        let newer = self.book.is_newer(&key, &told.known.stamp);
        match told.known.died_us {
            Some(died_us) if newer && self.book.is_wanted(died_us, now_us) => Lack::Tombstone,
            None if newer && (!self.is_full() || self.messages.contains_key(&key[..])) => Lack::Message,
            _ => Lack::Nothing,
        }
    }

    /// The messages of these topics that all nodes share, in order: of as many topics as fit into
    /// `bytes_max`, and at least of the first with a message. Also how many topics that were.
    pub fn messages_of(
        &self,
        topics: &[impl AsRef<str>],
        bytes_max: usize,
        now: Instant,
    ) -> (Vec<(Arc<Message>, Stamp)>, usize) {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (answered, topic) in topics.iter().enumerate() {
            if let Some((message, stamp)) = self.shared(topic.as_ref(), now) {
                bytes += message.weight();
                if bytes > bytes_max && !found.is_empty() {
                    return (found, answered);
                }
                found.push((message.clone(), stamp.clone()));
            }
        }
        (found, topics.len())
    }

    /// A message that all nodes share, unless it has expired.
    #[must_use]
    pub fn shared(&self, topic: &str, now: Instant) -> Option<(&Arc<Message>, &Stamp)> {
        let message = self.get(topic, now)?;
        let known = self.book.get(&key_of(topic))?;
        Some((message, &known.stamp))
    }
}

pub(super) fn topic_of(key: &[u8]) -> ByteString {
    let bytes: Vec<u8> = key
        .iter()
        .map(|byte| if *byte == SEPARATOR { b'/' } else { *byte })
        .collect();
    ByteString::from(String::from_utf8(bytes).expect("a key is a topic with other separators"))
}

/// The bucket of a topic; the same on every node.
#[must_use]
pub fn bucket_of_topic(topic: &str) -> u8 {
    bucket_of(&key_of(topic)) as u8
}
