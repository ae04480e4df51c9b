//! This node's own slice of the route table on its way to one other node; theirs is [`SliceIn`].
//!
//! A value: the snapshot in chunks, then the deltas that continue it, never more than a few frames
//! ahead of what the other side has taken. Where more changes wait than is worth keeping, they are
//! forgotten and a fresh snapshot is asked for instead.

use std::collections::VecDeque;

use super::wire::v1::{self, Frame};
use crate::limits::{FORWARD_BATCH_BYTES, ROUTE_CHANGES_HELD_MAX};
use crate::routing::{RouteDelta, RouteVersion, SliceSnapshot, SnapshotChunk};

/// Route frames on the wire that the other side has not taken.
const FRAMES_AHEAD_MAX: u64 = 8;

/// Filters or changes in one frame; with [`FORWARD_BATCH_BYTES`] of text, whichever is first.
const FRAME_LEN_MAX: usize = 1024;

/// The sending end of one link's routes.
#[derive(Debug, Default)]
pub struct SliceOut {
    /// A snapshot was asked of the router and has not come.
    asking: bool,
    chunks: VecDeque<SnapshotChunk>,
    deltas: VecDeque<RouteDelta>,
    /// Changes in `deltas`.
    changes: usize,
    sent: u64,
    taken: u64,
    /// The version that the chunks and deltas lead to.
    version: RouteVersion,
}

/// What [`SliceOut::step`] wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Out {
    /// Ask the router for the slice; give it to [`SliceOut::begin`].
    Ask,
    /// Send this.
    Send(Vec<u8>),
}

impl SliceOut {
    /// The slice came: its chunks go first, deltas that are part of it are forgotten.
    pub fn begin(&mut self, slice: &SliceSnapshot) {
        self.asking = false;
        self.chunks = slice.chunks(FRAME_LEN_MAX, FORWARD_BATCH_BYTES).into();
        self.deltas.retain(|delta| delta.to > slice.version);
        self.changes = self.deltas.iter().map(|delta| delta.changes.len()).sum();
        self.version = self.deltas.back().map_or(slice.version, |delta| delta.to);
    }

    /// The own slice changed.
    pub fn changed(&mut self, delta: RouteDelta) {
        self.version = self.version.max(delta.to);
        self.changes += delta.changes.len();
        self.deltas.extend(delta.split(FRAME_LEN_MAX));
    }

    /// The other side wants a snapshot, or could not be told all.
    pub fn restart(&mut self) -> Option<Out> {
        self.chunks.clear();
        if self.asking {
            return None;
        }
        self.asking = true;
        Some(Out::Ask)
    }

    /// The other side has taken so many frames since the link is open. `false`: more than were sent.
    #[must_use]
    pub fn taken(&mut self, frames: u64) -> bool {
        self.taken = self.taken.max(frames);
        frames <= self.sent
    }

    /// Whether the other side has all that there is.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.asking && self.chunks.is_empty() && self.deltas.is_empty() && self.taken == self.sent
    }

    /// The version of the slice, as far as this link was told.
    #[must_use]
    pub fn version(&self) -> RouteVersion {
        self.version
    }

    /// What is to be done now, if anything; to be called until it is nothing.
    pub fn step(&mut self) -> Option<Out> {
        if self.changes > ROUTE_CHANGES_HELD_MAX {
            self.deltas.clear();
            self.changes = 0;
            return self.restart().or_else(|| self.step());
        }
        if self.asking || self.sent - self.taken >= FRAMES_AHEAD_MAX {
            return None;
        }
        let frame = if let Some(chunk) = self.chunks.pop_front() {
            Frame::Snapshot(chunk)
        } else {
            let delta = self.deltas.pop_front()?;
            self.changes -= delta.changes.len();
            Frame::Delta(delta)
        };
        self.sent += 1;
        Some(Out::Send(v1::encode(&frame)))
    }
}

mod inward;
#[cfg(test)]
mod tests;

pub use inward::{Mark, SliceIn};
