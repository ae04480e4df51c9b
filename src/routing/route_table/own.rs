//! The table's part about this node: local ends, and the own slice that is told to the others.

use bytestring::ByteString;

use super::{RouteTable, SWEPT_PER_CHANGE};
use crate::routing::delta::{RouteDelta, RouteVersion, SliceSnapshot};

#[cfg(doc)]
use crate::routing::Replica;

impl<L> RouteTable<L> {
    /// The local end of exactly this filter.
    #[must_use]
    pub fn local(&self, filter: &str) -> Option<&L> {
        self.trie.get(filter)?.local.as_ref()
    }

    /// Sets the local end of a filter and returns the old one. A filter without one before is a new
    /// route of this node: the next [`take_delta`](Self::take_delta) tells it.
    pub fn set_local(&mut self, filter: &str, local: L) -> Option<L> {
        self.set_shared(filter, local, true, &[])
    }

    /// The same for a filter with shared groups: `plain` tells whether it has subscribers beside them, and
    /// `groups` are the whole filters of those that have members here. Each is an entry of its own.
    pub fn set_shared(&mut self, filter: &str, local: L, plain: bool, groups: &[ByteString]) -> Option<L> {
        self.sweep(SWEPT_PER_CHANGE);
        self.version += 1;
        let slot = self.slot(filter, || filter.into());
        let (route, own) = (self.trie.at_mut(slot), &mut self.own);
        match (std::mem::replace(&mut route.plain, plain), plain) {
            (false, true) => own.added(filter),
            (true, false) => own.removed(filter),
            _ => {}
        }
        route.groups.set_own(groups, |group, came| match came {
            true => own.added(group),
            false => own.removed(group),
        });
        route.local.replace(local)
    }

    /// Withdraws this node's route; its local end, if there was one.
    pub fn remove_local(&mut self, filter: &str) -> Option<L> {
        self.sweep(SWEPT_PER_CHANGE);
        let slot = self.trie.slot(filter)?;
        let route = self.trie.at_mut(slot);
        let old = route.local.take()?;
        let own = &mut self.own;
        route.groups.set_own(&[], |group, _| own.removed(group));
        if std::mem::take(&mut route.plain) {
            own.removed(filter);
        }
        if route.is_vacant() {
            self.trie.remove_at(slot);
        }
        self.version += 1;
        Some(old)
    }

    /// The own changes since the last call, for every peer. The router calls it after each change, also
    /// without any peer: what waits is bounded, and whoever missed it sees a gap.
    pub fn take_delta(&mut self) -> Option<RouteDelta> {
        self.own.take_delta()
    }

    /// The own slice as it is, changes that were not taken included: for a peer that is new or has a gap.
    #[must_use]
    pub fn own_snapshot(&self) -> SliceSnapshot {
        let own = self.trie.iter().flat_map(|(filter, route)| {
            let plain = route.plain.then_some(filter);
            plain.into_iter().chain(route.groups.own())
        });
        let filters = own.map(ByteString::from).collect();
        SliceSnapshot {
            version: self.own.version,
            filters,
        }
    }

    /// The version of the own slice.
    #[must_use]
    pub fn own_version(&self) -> RouteVersion {
        self.own.version
    }

    /// The hash of the own slice; see [`Replica::hash`].
    #[must_use]
    pub fn own_hash(&self) -> u64 {
        self.own.hash
    }

    /// How many entries it has: filters with subscribers here, and shared groups with members.
    #[must_use]
    pub fn own_len(&self) -> usize {
        self.own.len
    }
}
