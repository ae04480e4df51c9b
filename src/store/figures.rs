//! What the store has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Store;
use crate::broker::storage::{Condition, Storage};

/// What the store has done since it was opened, and what lies before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// How it is.
    pub condition: Condition,
    /// Commits that were made.
    pub commits: u64,
    /// Commits that were tried in vain.
    pub failures: u64,
    /// Syncs of the file.
    pub syncs: u64,
    /// Bytes that records say which were written.
    pub record_bytes: u64,
    /// Bytes that were written to the file, with all that the engine writes beside records.
    pub file_bytes_written: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Changes that were noted.
    pub changes: u64,
    /// Entries that were never written, as later ones made them superfluous.
    pub spared: u64,
    /// Records that are to be written.
    pub pending: u64,
    /// Bytes that are noted and not yet safe.
    pub pending_bytes: u64,
    /// QoS 2 publications that have not been everywhere yet.
    pub held: u64,
    /// Records that were found damaged and left out.
    pub damaged: u64,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) commits: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) record_bytes: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) spared: AtomicU64,
    pub(super) damaged: AtomicU64,
}

impl Meters {
    pub(super) fn figures(&self, store: &Store, pending: usize, held: usize) -> Figures {
        let written = store.engine.written();
        Figures {
            condition: store.condition(),
            commits: self.commits.load(Relaxed),
            failures: self.failures.load(Relaxed),
            syncs: written.syncs,
            record_bytes: self.record_bytes.load(Relaxed),
            file_bytes_written: written.bytes,
            file_bytes: store.engine.file_bytes(),
            changes: self.changes.load(Relaxed),
            spared: self.spared.load(Relaxed),
            pending: pending as u64,
            pending_bytes: store.noted_bytes.load(Relaxed) as u64,
            held: held as u64,
            damaged: self.damaged.load(Relaxed),
        }
    }
}
