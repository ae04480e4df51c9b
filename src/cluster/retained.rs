//! What of another node's retained messages this node lacks, and the exchange that brings it.
//!
//! A value, one for each connection. Each node tells its digest every second; who sees a bucket that differs
//! asks what the other one knows of it, then for the messages that it lacks, one question after the other,
//! and goes on when the answer is in the store: so an exchange costs a frame of memory on both sides, and
//! goes no faster than the slower one. Both sides ask, so both become equal.
//!
//! While messages are being published digests differ because some are on their way. So a bucket is looked at
//! when it differed twice in succession; no more than [`RETAINED_BUCKETS_PER_EXCHANGE`] are looked at in an
//! exchange, and after [`RETAINED_BUCKETS_IN_VAIN_MAX`] that brought nothing the rest waits for the next
//! second; and a bucket that differs in the same way as when it brought nothing (one of the stores is full)
//! is left alone for [`RETAINED_RETRY_AFTER`]. On a new connection all that differs is looked at at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytestring::ByteString;

use crate::limits::{
    FORWARD_BATCH_BYTES, RETAINED_ANSWER_WITHIN, RETAINED_BUCKETS_IN_VAIN_MAX, RETAINED_BUCKETS_PER_EXCHANGE,
    RETAINED_FRAME_LEN_MAX, RETAINED_RETRY_AFTER,
};
use crate::routing::retained::{Lack, RetainedStore, Told, bucket_of_topic};
use crate::routing::stamps::BUCKETS;

#[cfg(test)]
mod tests;

/// What is to be asked next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// What do you know of these buckets, behind this topic of the first?
    Known {
        /// The buckets.
        buckets: Vec<u8>,
        /// The topic.
        after: Option<ByteString>,
    },
    /// Which messages are these?
    Messages {
        /// Their topics.
        topics: Vec<ByteString>,
    },
}

/// An answer that cannot be: more than was asked for, or nothing at all. The link is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an answer about retained messages that was not asked for")]
pub struct Unasked;

/// The hash of a bucket here and there.
type Pair = (u64, u64);

/// One exchange.
#[derive(Debug)]
struct Pass {
    /// Those that are not yet told, and the topic up to which the first of them is.
    buckets: VecDeque<(u8, Pair)>,
    after: Option<ByteString>,
    /// Of what was told: the messages to ask for.
    lacking: VecDeque<ByteString>,
    /// Buckets that brought something, and those that were told and did not.
    brought: BTreeSet<u8>,
    told: Vec<(u8, Pair)>,
    /// When the last step was made.
    moved: Instant,
}

/// The asking side of one connection.
#[derive(Debug)]
pub struct Pull {
    /// Buckets that differed in the digest before.
    differed: BTreeSet<u8>,
    /// Whether the connection is new: all that differs is worth a look.
    eager: bool,
    /// Where the next exchange begins, so that all buckets have their turn.
    turn: u8,
    /// Buckets that brought nothing, how they differed then, and until when they are left alone.
    vain: BTreeMap<u8, (Pair, Instant)>,
    pass: Option<Pass>,
    /// A question of the exchange waits for its answer.
    asked: bool,
    /// Answers that are still to come to questions of exchanges that were given up, as far as is known; and
    /// whether one was taken for such since the last was given up.
    late: u32,
    late_came: bool,
    /// An exchange was given up on this connection: an answer that does not fit is one of its.
    gave_up: bool,
}

impl Default for Pull {
    fn default() -> Self {
        Self {
            differed: BTreeSet::new(),
            eager: true,
            turn: 0,
            vain: BTreeMap::new(),
            pass: None,
            asked: false,
            late: 0,
            late_came: false,
            gave_up: false,
        }
    }
}

impl Pull {
    /// The other node's digest came, empty for that of an empty store: what to ask, and how many buckets have
    /// differed in this one and the one before.
    ///
    /// # Errors
    /// [`Unasked`]: it has another number of buckets.
    pub fn digest_came(
        &mut self,
        mine: &[u64],
        theirs: &[u64],
        now: Instant,
    ) -> Result<(usize, Option<Question>), Unasked> {
        if !theirs.is_empty() && theirs.len() != BUCKETS {
            return Err(Unasked);
        }
        let pair = |bucket: u8| {
            let of = |digest: &[u64]| digest.get(usize::from(bucket)).copied().unwrap_or(0);
            (of(mine), of(theirs))
        };
        let differs = |bucket: &u8| pair(*bucket).0 != pair(*bucket).1;
        let differing: BTreeSet<u8> = (0..=u8::MAX).filter(differs).collect();
        let lasting: BTreeSet<u8> = differing.intersection(&self.differed).copied().collect();
        let drift = lasting.len();
        let candidates = if self.eager { &differing } else { &lasting };
        if self
            .pass
            .as_ref()
            .is_some_and(|pass| now - pass.moved > RETAINED_ANSWER_WITHIN)
        {
            // A retainer that crashed has lost the answer, or the other side was asleep: then it comes yet.
            // Should what was taken for that have been the answer itself, the next one is.
            self.pass = None;
            self.gave_up = true;
            let asked = std::mem::take(&mut self.asked);
            self.late = if std::mem::take(&mut self.late_came) {
                0
            } else {
                self.late + u32::from(asked)
            };
        }
        self.vain
            .retain(|bucket, (was, until)| *was == pair(*bucket) && *until > now);
        let mut question = None;
        if self.pass.is_none() {
            let turn = self.turn;
            let worth = |bucket: &&u8| !self.vain.contains_key(*bucket) && pair(**bucket).1 != 0;
            let mut buckets: Vec<u8> = candidates.iter().filter(worth).copied().collect();
            buckets.sort_by_key(|bucket| bucket.wrapping_sub(turn));
            let buckets: VecDeque<_> = buckets.into_iter().map(|bucket| (bucket, pair(bucket))).collect();
            if !buckets.is_empty() {
                question = self.begin(buckets, now);
            }
        }
        self.eager &= !differing.is_empty();
        self.differed = differing;
        Ok((drift, question))
    }

    fn begin(&mut self, buckets: VecDeque<(u8, Pair)>, now: Instant) -> Option<Question> {
        self.pass = Some(Pass {
            buckets,
            after: None,
            lacking: VecDeque::new(),
            brought: BTreeSet::new(),
            told: Vec::new(),
            moved: now,
        });
        self.step(now)
    }

    /// What the other node knows came: the tombstones that are to be merged. Then, or if there are none,
    /// [`step`](Self::step).
    ///
    /// # Errors
    /// [`Unasked`]: it answers no question of ours.
    pub fn told(
        &mut self,
        told: Vec<Told>,
        done: usize,
        store: &RetainedStore,
        now_us: u64,
    ) -> Result<Vec<Told>, Unasked> {
        if self.is_late() {
            return Ok(Vec::new());
        }
        let Some(pass) = &mut self.pass else {
            return Ok(Vec::new());
        };
        if done > pass.buckets.len() || (done == 0 && told.is_empty()) {
            return if self.gave_up {
                Ok(Vec::new())
            } else {
                Err(Unasked)
            };
        }
        pass.after = told.last().map(|last| last.topic.clone());
        let mut tombstones = Vec::new();
        for told in told {
            match store.lacks(&told, now_us) {
                Lack::Nothing => continue,
                Lack::Message => pass.lacking.push_back(told.topic.clone()),
                Lack::Tombstone => tombstones.push(told.clone()),
            }
            pass.brought.insert(bucket_of_topic(&told.topic));
        }
        if done > 0 {
            pass.told.extend(pass.buckets.drain(..done));
            let first = pass.buckets.front();
            let begun =
                |after: &ByteString| first.is_some_and(|(bucket, _)| bucket_of_topic(after) == *bucket);
            pass.after = pass.after.take().filter(begun);
        }
        Ok(tombstones)
    }

    /// The other node answered for so many of the messages that were asked for. When they are in the store:
    /// [`step`](Self::step).
    ///
    /// # Errors
    /// [`Unasked`]: it answers no question of ours.
    pub fn messages_came(&mut self, answered: usize) -> Result<(), Unasked> {
        if self.is_late() {
            return Ok(());
        }
        let Some(pass) = &mut self.pass else {
            return Ok(());
        };
        if answered == 0 || answered > pass.lacking.len() {
            return if self.gave_up { Ok(()) } else { Err(Unasked) };
        }
        pass.lacking.drain(..answered);
        Ok(())
    }

    /// An answer came. Whether it is to a question that was given up, which is no reason to close the link:
    /// answers come in the order of the questions.
    fn is_late(&mut self) -> bool {
        if let Some(late) = self.late.checked_sub(1) {
            (self.late, self.late_came) = (late, true);
            return true;
        }
        self.asked = false;
        false
    }

    /// What to ask now; nothing when the exchange is over, or while a question waits for its answer.
    pub fn step(&mut self, now: Instant) -> Option<Question> {
        let question = if self.asked { None } else { self.next(now) };
        self.asked |= question.is_some();
        question
    }

    fn next(&mut self, now: Instant) -> Option<Question> {
        let pass = self.pass.as_mut()?;
        pass.moved = now;
        if !pass.lacking.is_empty() {
            let mut bytes = 0;
            let fits = |topic: &&ByteString| {
                bytes += topic.len();
                bytes <= FORWARD_BATCH_BYTES || bytes == topic.len()
            };
            let topics = pass.lacking.iter().take(RETAINED_FRAME_LEN_MAX).take_while(fits);
            let topics = topics.cloned().collect();
            return Some(Question::Messages { topics });
        }
        let in_vain = |(bucket, _): &&(u8, Pair)| !pass.brought.contains(bucket);
        let vain = pass.told.iter().filter(in_vain).count();
        let nothing = pass.brought.is_empty() && vain >= RETAINED_BUCKETS_IN_VAIN_MAX;
        let enough = !self.eager && (nothing || pass.told.len() >= RETAINED_BUCKETS_PER_EXCHANGE);
        if pass.buckets.is_empty() || enough {
            self.end(now);
            return None;
        }
        // It is not asked for more than will be looked at.
        let len = if self.eager {
            BUCKETS
        } else {
            RETAINED_BUCKETS_IN_VAIN_MAX
        };
        Some(Question::Known {
            buckets: pass.buckets.iter().take(len).map(|(bucket, _)| *bucket).collect(),
            after: pass.after.clone(),
        })
    }

    /// Forgets the exchange, remembers what was in vain.
    fn end(&mut self, now: Instant) {
        let Some(pass) = self.pass.take() else { return };
        self.eager = false;
        if let Some((last, _)) = pass.told.last() {
            self.turn = last.wrapping_add(1);
        }
        let until = now + RETAINED_RETRY_AFTER;
        let vain = pass
            .told
            .iter()
            .filter(|(bucket, _)| !pass.brought.contains(bucket));
        self.vain
            .extend(vain.map(|(bucket, pair)| (*bucket, (*pair, until))));
    }
}
