//! The retained messages that all nodes share: our digest, their questions, our questions.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use actix::Handler;
use bytes::Bytes;
use supervisors::Context;

use super::Peer;
use crate::broker::links::{Merged, Replicated};
use crate::broker::office::Office;
use crate::broker::retainer::{self, Request};
use crate::cluster::retained::{Question, Unasked};
use crate::cluster::wire::WireError;
use crate::cluster::wire::v1::{Frame, RetainedRecord, WireMessage};
use crate::limits::{FORWARD_BATCH_BYTES, RETAINED_FRAME_LEN_MAX};
use crate::node_name::NodeName;
use crate::routing::retained::{RetainedStore, Told};
use crate::routing::stamps::{HybridTime, Known, Stamp, wall_us};

/// Only read here: a torn store is for its writer to escalate.
fn read<R>(look: impl FnOnce(&RetainedStore) -> R) -> Option<R> {
    let office = Office::here()?;
    let store = &office.tables().retained;
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    Some(look(&store))
}

impl From<Unasked> for WireError {
    fn from(unasked: Unasked) -> Self {
        Self::Malformed(unasked.to_string())
    }
}

impl Peer {
    /// Each second: what we have. A node that has nothing says so in two bytes.
    pub(super) fn tell_retained(&mut self, ctx: &mut Context<Self>) {
        let digest = read(|store| store.book().digest());
        let mut buckets = digest.unwrap_or_default();
        if buckets.iter().all(|hash| *hash == 0) {
            buckets.clear();
        }
        self.send(&Frame::RetainedDigest { buckets }, ctx);
    }

    /// One of the frames about retained messages.
    pub(super) fn retained_frame(
        &mut self,
        frame: Frame<'_>,
        bytes: &Bytes,
        ctx: &mut Context<Self>,
    ) -> Result<(), WireError> {
        match frame {
            Frame::RetainedDigest { buckets } => {
                let mine = read(|store| store.book().digest()).unwrap_or_default();
                let pull = &mut self.connection.pull;
                let (drift, question) = pull.digest_came(&mine, &buckets, Instant::now())?;
                self.drift.store(drift, Relaxed);
                self.ask_retained(question, ctx);
            }
            Frame::RetainedAsk { buckets, after } => self.tell_known(&buckets, after.as_deref(), ctx),
            Frame::RetainedKnown { records, done } => {
                let told = records.into_iter().map(told_of).collect();
                let pull = &mut self.connection.pull;
                let tombstones = read(|store| pull.told(told, done as usize, store, wall_us()));
                let tombstones = tombstones.unwrap_or_else(|| Ok(Vec::new()))?;
                self.merge(tombstones.into_iter().map(Replicated::Tombstone).collect(), ctx);
            }
            Frame::RetainedWant { topics } => self.tell_messages(&topics, ctx),
            Frame::RetainedMessages { messages, answered } => {
                self.connection.pull.messages_came(answered as usize)?;
                let now = Instant::now();
                let replicated = messages
                    .into_iter()
                    .map(|(message, node)| replicated(message, node, bytes, now));
                let replicated = replicated.collect::<Result<Vec<_>, _>>()?;
                self.merge(replicated, ctx);
            }
            _ => {}
        }
        Ok(())
    }

    fn ask_retained(&mut self, question: Option<Question>, ctx: &mut Context<Self>) {
        match question {
            None => {}
            Some(Question::Known { buckets, after }) => {
                self.send(&Frame::RetainedAsk { buckets, after }, ctx);
            }
            Some(Question::Messages { topics }) => self.send(&Frame::RetainedWant { topics }, ctx),
        }
    }

    /// Goes on when it is in the store.
    fn merge(&mut self, replicated: Vec<Replicated>, ctx: &mut Context<Self>) {
        let Some(office) = Office::here().filter(|_| !replicated.is_empty()) else {
            let question = self.connection.pull.step(Instant::now());
            return self.ask_retained(question, ctx);
        };
        let to = ctx.myself().caster::<Merged>();
        retainer::ask(office.tables(), Request::Merge { replicated, to });
    }

    fn tell_known(&mut self, buckets: &[u8], after: Option<&str>, ctx: &mut Context<Self>) {
        let told =
            |store: &RetainedStore| store.told(buckets, after, RETAINED_FRAME_LEN_MAX, FORWARD_BATCH_BYTES);
        let part = read(told).unwrap_or_default();
        let records = part.told.into_iter().map(record_of).collect();
        let done = part.done as u64;
        self.send(&Frame::RetainedKnown { records, done }, ctx);
    }

    fn tell_messages<T: AsRef<str>>(&mut self, topics: &[T], ctx: &mut Context<Self>) {
        let now = Instant::now();
        let told = read(|store| store.messages_of(topics, FORWARD_BATCH_BYTES, now));
        let (found, answered) = told.unwrap_or_default();
        let answered = answered as u64;
        let messages = found.iter().filter_map(|(message, stamp)| {
            let wire = WireMessage::of(message, now)?.retained_at(stamp.time);
            Some((wire, stamp.node.clone()))
        });
        let messages = messages.collect();
        self.send(&Frame::RetainedMessages { messages, answered }, ctx);
    }
}

impl Handler<Merged> for Peer {
    type Result = ();

    fn handle(&mut self, _: Merged, ctx: &mut Self::Context) {
        if self.ending.is_none() && self.broken.is_none() {
            let question = self.connection.pull.step(Instant::now());
            self.ask_retained(question, ctx);
        }
    }
}

fn told_of(record: RetainedRecord) -> Told {
    let RetainedRecord {
        topic,
        time,
        node,
        died_us,
    } = record;
    let stamp = Stamp { time, node };
    Told {
        topic,
        known: Known { stamp, died_us },
    }
}

fn record_of(told: Told) -> RetainedRecord {
    let Stamp { time, node } = told.known.stamp;
    RetainedRecord {
        topic: told.topic,
        time,
        node,
        died_us: told.known.died_us,
    }
}

fn replicated(
    message: WireMessage<'_>,
    node: NodeName,
    bytes: &Bytes,
    now: Instant,
) -> Result<Replicated, WireError> {
    let unstamped = || WireError::Malformed("a retained message without its time".into());
    let time: HybridTime = message.retained.ok_or_else(unstamped)?;
    let message = message.into_message(bytes, now)?;
    Ok(Replicated::Message(message, Stamp { time, node }))
}
