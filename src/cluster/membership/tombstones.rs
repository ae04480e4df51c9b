//! How many members there may be, and how many that were.
//!
//! A tombstone keeps an absent node from bringing back who has left. They are counted apart from members,
//! so that names which change (nodes in containers) do not fill the cluster; the oldest are forgotten.

use super::{Member, Membership, State};
use crate::limits::{NODES_MAX, TOMBSTONES_MAX};
use crate::node_name::NodeName;

impl Membership {
    /// Whether there are as many members, this node not counted, as there may be.
    pub(super) fn is_full(&self) -> bool {
        self.members.len() - self.tombstones().count() >= NODES_MAX
    }

    /// Whether a tombstone of then, unknown here, is one that would be forgotten at once.
    pub(super) fn is_forgotten(&self, stamp: u64) -> bool {
        let later = self.tombstones().filter(|(_, member)| member.stamp > stamp);
        later.count() >= TOMBSTONES_MAX
    }

    pub(super) fn forget_old_tombstones(&mut self) {
        while self.tombstones().count() > TOMBSTONES_MAX {
            let oldest = self.tombstones().min_by_key(|(_, member)| member.stamp);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.members.remove(&name);
        }
    }

    fn tombstones(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.state == State::Left)
    }
}
