//! What the store has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{State, Store};
use crate::broker::storage::{COMMIT_BOUNDS_MS, Figures, Storage};

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) failures: AtomicU64,
    pub(super) record_bytes: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) spared: AtomicU64,
    pub(super) damaged: AtomicU64,
    commit_us: AtomicU64,
    commits_within: [AtomicU64; COMMIT_BOUNDS_MS.len() + 1],
}

impl Meters {
    /// A commit was made.
    pub(super) fn committed(&self, took: Duration, record_bytes: usize) {
        let class = COMMIT_BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        self.commits_within[class].fetch_add(1, Relaxed);
        self.commit_us.fetch_add(micros(took), Relaxed);
        self.record_bytes.fetch_add(record_bytes as u64, Relaxed);
    }

    /// With what `state` says of a moment.
    pub(super) fn figures(&self, store: &Store, state: &State, now: Instant) -> Figures {
        let written = store.engine.written();
        let commits_within = self.commits_within.each_ref().map(|class| class.load(Relaxed));
        Figures {
            condition: store.condition(),
            commits: commits_within.iter().sum(),
            commit_us: self.commit_us.load(Relaxed),
            commits_within,
            failures: self.failures.load(Relaxed),
            syncs: written.syncs,
            record_bytes: self.record_bytes.load(Relaxed),
            file_bytes_written: written.bytes,
            file_bytes: store.engine.file_bytes(),
            changes: self.changes.load(Relaxed),
            spared: self.spared.load(Relaxed),
            pending: state.entries() as u64,
            pending_bytes: store.noted_bytes.load(Relaxed) as u64,
            waiting_us: state.since().map_or(0, |since| micros(now.duration_since(since))),
            held: state.held.len() as u64,
            damaged: self.damaged.load(Relaxed),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
