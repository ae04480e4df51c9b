//! One commit: all that is pending, as one batch.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::engine::{Durability, EngineError, Step};
use super::key::{self, Key};
use super::pending::{Entry, Generation, OfSession};
use super::record::{self, Clock};
use super::{Store, Sync};
use crate::session::lasting::SessionNo;

/// What came of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Nothing was to be written.
    Idle,
    /// Everything was written that had been noted.
    Done,
    /// The disk did not take it; it is kept, and to be tried again.
    Failed,
}

impl Store {
    /// Writes what is pending, and waits for the disk. The [`Writer`](super::Writer) does it; whoever has
    /// no writer (a tool, a test) does it itself.
    pub fn commit(&self) -> Turn {
        let one = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        self.rung.store(false, Relaxed);
        let Some((number, generation)) = self.take() else {
            let turn = self.probe();
            drop(one);
            return turn;
        };
        let began = Instant::now();
        let durability = match self.pace.sync {
            Sync::Group => Durability::Synced,
            Sync::Interval => Durability::Later,
            Sync::Off => Durability::Written,
        };
        let written = self.engine.recover();
        let written = written.and_then(|()| self.batch(&generation));
        let written = written.and_then(|batch| {
            self.engine.apply(&batch, durability)?;
            Ok(batch.iter().map(Step::bytes).sum::<usize>())
        });
        let turn = match written {
            Ok(bytes) => {
                self.meters.committed(began.elapsed(), bytes);
                let mut state = self.state();
                state.writing = None;
                self.committed.store(number, Relaxed);
                self.weigh(&state);
                drop(state);
                self.is_sound();
                Turn::Done
            }
            Err(error) => {
                self.meters.failures.fetch_add(1, Relaxed);
                self.put_back(generation);
                self.is_failing(&error);
                Turn::Failed
            }
        };
        drop(one);
        self.tell();
        turn
    }

    /// Nothing is to be written: a disk that has failed is tried all the same, or it would stay so for ever.
    fn probe(&self) -> Turn {
        if !self.failing.load(Relaxed) {
            return Turn::Idle;
        }
        match self.engine.recover().and_then(|()| self.engine.sync()) {
            Ok(()) => {
                self.is_sound();
                self.tell();
                Turn::Idle
            }
            Err(_) => Turn::Failed,
        }
    }

    /// Makes safe what was written and is not yet, with [`Sync::Interval`].
    pub fn sync(&self) -> Turn {
        let one = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = self.engine.recover().and_then(|()| self.engine.sync());
        drop(one);
        match synced {
            Ok(()) => Turn::Done,
            Err(error) => {
                self.meters.failures.fetch_add(1, Relaxed);
                self.is_failing(&error);
                self.tell();
                Turn::Failed
            }
        }
    }

    /// Opens a new generation. If the one before is empty, its marks are reached.
    fn take(&self) -> Option<(u64, Arc<Generation>)> {
        let mut state = self.state();
        let number = state.generation;
        state.generation += 1;
        if state.pending.open.is_empty() {
            self.committed.store(number, Relaxed);
            self.weigh(&state);
            drop(state);
            self.tell();
            return None;
        }
        let generation = Arc::new(std::mem::take(&mut state.pending.open));
        state.writing = Some(generation.clone());
        Some((number, generation))
    }

    fn put_back(&self, generation: Arc<Generation>) {
        let mut state = self.state();
        state.writing = None;
        // Its other holder was the state, and readers that are about to be done.
        let before = Arc::try_unwrap(generation).unwrap_or_else(|shared| (*shared).clone());
        let later = std::mem::take(&mut state.pending.open);
        state.pending.open = before.followed_by(later);
        self.weigh(&state);
    }

    fn tell(&self) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = listener.clone();
        if let Some(listener) = listener {
            listener();
        }
    }

    fn is_sound(&self) {
        if self.failing.swap(false, Relaxed) {
            tracing::info!(
                file = self.place,
                "the store is sound again: what was kept back is safe"
            );
        }
    }

    fn is_failing(&self, error: &EngineError) {
        if !self.failing.swap(true, Relaxed) {
            tracing::error!(
                file = self.place, %error,
                "the store takes nothing: messages that must be stored are refused until it does again"
            );
        }
    }

    fn batch(&self, generation: &Generation) -> Result<Vec<Step>, EngineError> {
        let clock = Clock::read();
        let mut batch = Vec::with_capacity(generation.entries());
        for (no, of) in &generation.sessions {
            if of.forget {
                self.forget(*no, &mut batch)?;
            }
        }
        for (client_id, no) in &generation.clients {
            let key = Key::Client(client_id.as_bytes()).bytes();
            let value = record::write(&key, &no.0);
            batch.push(Step::Put(key, value));
        }
        // In the order of the keys: neighbours share the pages of the tree.
        let mut sessions: Vec<_> = generation.sessions.iter().collect();
        sessions.sort_unstable_by_key(|(no, _)| **no);
        for (no, of) in sessions {
            steps_of(*no, of, clock, &mut batch);
        }
        for (topic, what) in &generation.retained {
            let key = Key::Retained(topic.as_bytes()).bytes();
            batch.push(match record::write_retained(&key, what, clock) {
                Some(value) => Step::Put(key, value),
                None => Step::Delete(key),
            });
        }
        Ok(batch)
    }

    /// Everything of a session goes, and its client's id if that leads to no other one.
    fn forget(&self, no: SessionNo, batch: &mut Vec<Step>) -> Result<(), EngineError> {
        let snapshot = self.engine.snapshot()?;
        let key = Key::Session(no).bytes();
        // What cannot be read leads nowhere; its id is passed over by who reads.
        let stored = snapshot.get(&key)?;
        let stored = stored.and_then(|bytes| record::read_session(&key, &bytes).ok());
        if let Some(stored) = stored {
            let key = Key::Client(stored.client_id.as_bytes()).bytes();
            let owner = snapshot.get(&key)?;
            let owner = owner.and_then(|bytes| record::read::<u64>(&key, &bytes).ok());
            if owner == Some(no.0) {
                batch.push(Step::Delete(key));
            }
        }
        batch.push(Step::DeleteRange(key::all_of(no)));
        Ok(())
    }
}

fn steps_of(no: SessionNo, of: &OfSession, clock: Clock, batch: &mut Vec<Step>) {
    if let Some(record) = &of.record {
        let key = Key::Session(no).bytes();
        let value = record::write_session(&key, record);
        batch.push(Step::Put(key, value));
    }
    for (filter, subscription) in &of.subscriptions {
        let key = Key::Subscription(no, filter.as_bytes()).bytes();
        batch.push(match subscription {
            Some(subscription) => {
                let value = record::write_subscription(&key, subscription);
                Step::Put(key, value)
            }
            None => Step::Delete(key),
        });
    }
    for (id, received) in &of.received {
        let key = Key::Received(no, *id).bytes();
        batch.push(if *received {
            let value = record::write(&key, &());
            Step::Put(key, value)
        } else {
            Step::Delete(key)
        });
    }
    for (seq, entry) in &of.exchanges {
        let key = Key::Exchange(no, *seq).bytes();
        batch.push(match entry {
            Entry::Put { what, .. } => {
                let value = record::write(&key, what);
                Step::Put(key, value)
            }
            Entry::Gone => Step::Delete(key),
        });
    }
    for (seq, entry) in &of.queue {
        let key = Key::Queued(no, *seq).bytes();
        batch.push(match entry {
            Entry::Put { what, .. } => {
                let value = record::write_queued(&key, what, clock);
                Step::Put(key, value)
            }
            Entry::Gone => Step::Delete(key),
        });
    }
}
