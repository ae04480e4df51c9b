//! Floor 2: which filters match a topic, which nodes have them, who subscribes here.
//!
//! | file | value |
//! |---|---|
//! | [`trie`] | [`Trie`]: topic filter → anything, matched against a topic without allocating |
//! | [`route_table`] | [`RouteTable`]: filter → what is here and which nodes; the own slice; the replicas |
//! | [`replica`] | [`Replica`]: the slice of one remote node, kept by deltas and snapshots |
//! | [`delta`] | the words of replication: versions, changes, snapshots |
//! | [`node_set`] | [`NodeIndex`] and [`NodeSet`] |
//! | [`retained`] | [`RetainedStore`]: topic → the last retained message |
//! | [`stamps`] | [`stamps::StampBook`]: which write of a retained topic holds, on all nodes alike |
//!
//! Each node writes its own slice and nobody else's, so merging is a union and healing is a copy.

pub mod delta;
pub mod node_set;
mod own_slice;
pub mod replica;
pub mod retained;
pub mod route_table;
mod shared;
pub mod stamps;
pub mod trie;
mod wildcards;

pub use delta::{
    Applied, Checked, RefusedSlice, RouteChange, RouteDelta, RouteVersion, SliceSnapshot, SnapshotChunk,
};
pub use node_set::{NodeIndex, NodeSet};
pub use replica::Replica;
pub use retained::{RetainOutcome, RetainedCursor, RetainedLimits, RetainedStore};
pub use route_table::{Match, RouteTable};
pub use trie::Trie;
