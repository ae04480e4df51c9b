//! The words in which nodes tell each other their routes: versions, deltas, snapshots.

use std::sync::Arc;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::limits::{NODES_MAX, ROUTES_OF_NODE_MAX};
use crate::mqtt::topic::TopicError;

/// Counts the changes of one node's own slice in one incarnation; 0 is the empty slice it began with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RouteVersion(pub u64);

/// One change of a node's own slice.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RouteChange {
    /// The node has its first subscriber of this filter.
    Add(ByteString),
    /// The node's last subscriber of this filter is gone.
    Remove(ByteString),
}

impl RouteChange {
    /// The filter that is added or removed.
    #[must_use]
    pub fn filter(&self) -> &ByteString {
        match self {
            Self::Add(filter) | Self::Remove(filter) => filter,
        }
    }
}

/// The changes that lead from one version of a slice to a later one, in order: as many as the versions
/// are apart. With none and equal versions it only tells the version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RouteDelta {
    /// The version before the first change.
    pub from: RouteVersion,
    /// The version after the last change.
    pub to: RouteVersion,
    /// One per version.
    pub changes: Vec<RouteChange>,
}

impl RouteDelta {
    /// Whether it has exactly one change per version; a replica refuses any other.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.to.0.checked_sub(self.from.0) == Some(self.changes.len() as u64)
    }

    /// The same delta in parts of at most `len_max` changes (at least 1), to fit the frames of a link.
    #[must_use]
    pub fn split(mut self, len_max: usize) -> Vec<Self> {
        let len_max = len_max.max(1);
        let mut parts = Vec::with_capacity(self.changes.len() / len_max + 1);
        while self.changes.len() > len_max {
            let rest = self.changes.split_off(len_max);
            let to = RouteVersion(self.from.0 + len_max as u64);
            let changes = std::mem::replace(&mut self.changes, rest);
            parts.push(Self {
                from: self.from,
                to,
                changes,
            });
            self.from = to;
        }
        parts.push(self);
        parts
    }
}

/// A whole slice as it was at one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SliceSnapshot {
    /// Deltas from here on continue it.
    pub version: RouteVersion,
    /// Every filter once, in no promised order.
    pub filters: Arc<[ByteString]>,
}

impl SliceSnapshot {
    /// The snapshot in chunks of at most `len_max` filters (at least 1) and, unless a single filter is
    /// longer, `bytes_max` bytes of text. An empty slice is one empty chunk.
    #[must_use]
    pub fn chunks(&self, len_max: usize, bytes_max: usize) -> Vec<SnapshotChunk> {
        let chunk = |filters| SnapshotChunk {
            version: self.version,
            filters,
            first: false,
            last: false,
        };
        let mut chunks = Vec::new();
        let (mut filters, mut bytes) = (Vec::new(), 0);
        for filter in self.filters.iter() {
            let full = filters.len() >= len_max.max(1) || bytes + filter.len() > bytes_max;
            if full && !filters.is_empty() {
                chunks.push(chunk(std::mem::take(&mut filters)));
                bytes = 0;
            }
            bytes += filter.len();
            filters.push(filter.clone());
        }
        chunks.push(chunk(filters));
        if let [first, ..] = &mut chunks[..] {
            first.first = true;
        }
        if let [.., last] = &mut chunks[..] {
            last.last = true;
        }
        chunks
    }
}

/// A part of a [`SliceSnapshot`] on the wire. The parts come in order; the last makes it valid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotChunk {
    /// The version of the whole; equal in all chunks.
    pub version: RouteVersion,
    /// Some of its filters.
    pub filters: Vec<ByteString>,
    /// Begins a snapshot; an unfinished one is forgotten.
    pub first: bool,
    /// Ends it: the slice is replaced in one step.
    pub last: bool,
}

/// How a replica took a delta or a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Taken; during a snapshot it may have been put aside until the snapshot is whole.
    Applied,
    /// Known already, or from an earlier incarnation. Nothing was changed.
    Stale,
    /// Something before it is missing: ask the other side for a snapshot. Nothing was changed, but an
    /// unfinished snapshot is forgotten.
    Gap,
    /// The other side breaks the protocol or a limit: close the link and say why.
    Refused(RefusedSlice),
}

/// Whether a replica is what its owner has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// It is.
    Same,
    /// It stands at another version, or a snapshot is on its way: nothing can be said.
    Apart,
    /// At the same version there are other routes: the next snapshot replaces everything.
    Drift {
        /// The hash of what is held.
        held: u64,
    },
}

/// Why a slice was refused. The replica's routes are unchanged; an unfinished snapshot is forgotten.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefusedSlice {
    /// As many changes as versions are needed.
    #[error("route delta from {from} to {to} carries {changes} changes; the slice is unchanged")]
    Uneven {
        /// Version before.
        from: u64,
        /// Version after.
        to: u64,
        /// Changes in it.
        changes: usize,
    },
    /// A route is no topic filter.
    #[error("route '{filter}' is not a valid topic filter: {why}; the slice is unchanged")]
    BadFilter {
        /// How it begins.
        filter: String,
        /// The rule that it breaks.
        why: TopicError,
    },
    /// More than [`ROUTES_OF_NODE_MAX`] routes.
    #[error("a node may announce at most {ROUTES_OF_NODE_MAX} routes; the slice is unchanged")]
    TooManyRoutes,
    /// A later incarnation of the node is known: this is a ghost.
    #[error("a later incarnation of this node is known; the table is unchanged")]
    OldIncarnation,
    /// More than [`NODES_MAX`] nodes.
    #[error("routes of at most {NODES_MAX} nodes are held; the table is unchanged")]
    TooManyNodes,
}

/// The hash of one filter, the same on every node and in every release: FNV-1a with 64 bits, then the
/// finisher of SplitMix64. A slice's hash is the wrapping sum over its filters, so order does not matter
/// and a change costs one addition.
#[must_use]
pub fn filter_hash(filter: &str) -> u64 {
    let fnv = filter.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(len: usize) -> RouteDelta {
        let changes = (0..len)
            .map(|n| RouteChange::Add(format!("t/{n}").into()))
            .collect();
        RouteDelta {
            from: RouteVersion(10),
            to: RouteVersion(10 + len as u64),
            changes,
        }
    }

    #[test]
    fn the_parts_of_a_delta_are_whole_and_continue_each_other() {
        let parts = delta(7).split(3);
        assert_eq!(
            parts.iter().map(|part| part.changes.len()).collect::<Vec<_>>(),
            [3, 3, 1]
        );
        assert!(parts.iter().all(RouteDelta::is_whole));
        assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!(delta(0).split(3), [delta(0)]);
        assert_eq!(delta(3).split(0).len(), 3);
    }

    #[test]
    fn the_chunks_of_a_snapshot_hold_every_filter_once() {
        let filters: Arc<[ByteString]> = (0..10).map(|n| format!("t/{n}").into()).collect();
        let snapshot = SliceSnapshot {
            version: RouteVersion(3),
            filters: filters.clone(),
        };
        for (len_max, bytes_max, count) in [(3, 1000, 4), (100, 6, 5), (0, 0, 10), (100, 100, 1)] {
            let chunks = snapshot.chunks(len_max, bytes_max);
            assert_eq!(chunks.len(), count);
            assert_eq!(
                chunks
                    .iter()
                    .flat_map(|chunk| chunk.filters.clone())
                    .collect::<Vec<_>>(),
                &*filters
            );
            assert_eq!(chunks.iter().filter(|chunk| chunk.first).count(), 1);
            assert!(chunks[0].first && chunks[count - 1].last);
            assert_eq!(chunks.iter().filter(|chunk| chunk.last).count(), 1);
        }
        let empty = SliceSnapshot {
            version: RouteVersion(0),
            filters: Arc::new([]),
        }
        .chunks(3, 3);
        assert!(matches!(
            &empty[..],
            [SnapshotChunk {
                first: true,
                last: true,
                ..
            }]
        ));
    }

    #[test]
    fn the_hash_of_a_filter_is_the_same_in_every_release() {
        assert_eq!(filter_hash(""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(filter_hash("sensors/+/temp"), 0xe236_3a4e_be7c_68a9);
    }
}
