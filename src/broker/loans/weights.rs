//! How many members of each shared group other nodes have, as far as they have told.
//!
//! Told from time to time, not with each change, and read at each choice without a lock. So a choice may be
//! behind the times: whoever is chosen and has no member, or only such without a connection, gives the
//! message on.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use bytestring::ByteString;

use crate::node_name::NodeName;

/// The members of one group on one other node.
#[derive(Debug)]
pub(in crate::broker) struct Weight {
    online: AtomicU32,
    away: AtomicU32,
}

impl Default for Weight {
    /// A node that has not told yet has a member.
    fn default() -> Self {
        Self {
            online: AtomicU32::new(1),
            away: AtomicU32::new(0),
        }
    }
}

impl Weight {
    /// Members with a connection, and without.
    pub(super) fn counts(&self) -> (u32, u32) {
        (self.online.load(Relaxed), self.away.load(Relaxed))
    }

    fn set(&self, online: u32, away: u32) {
        self.online.store(online, Relaxed);
        self.away.store(away, Relaxed);
    }
}

type OfNode = AHashMap<ByteString, Arc<Weight>>;

/// The members of all groups on all other nodes. Bounded by what the route table holds of those nodes: a
/// group that ends there is told with no members.
#[derive(Debug, Default)]
pub struct Weights(Mutex<AHashMap<NodeName, OfNode>>);

impl Weights {
    /// A node tells how many members of a group it has.
    pub fn set(&self, node: &NodeName, group: ByteString, online: u32, away: u32) {
        let mut nodes = self.lock();
        let groups = nodes.entry(node.clone()).or_default();
        if online == 0 && away == 0 {
            if let Some(gone) = groups.remove(&group) {
                gone.set(0, 0);
            }
            return;
        }
        groups.entry(group).or_default().set(online, away);
    }

    /// A node is gone, or tells anew.
    pub fn forget(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    pub(in crate::broker) fn of(&self, node: &NodeName, group: &str) -> Arc<Weight> {
        let mut nodes = self.lock();
        let groups = nodes.entry(node.clone()).or_default();
        if let Some(known) = groups.get(group) {
            return known.clone();
        }
        groups.entry(group.into()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<NodeName, OfNode>> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
