//! What this node tells the others of its own routes: numbered changes, waiting for the router.

use bytestring::ByteString;

use super::delta::{RouteChange, RouteDelta, RouteVersion, filter_hash};
use crate::limits::ROUTE_CHANGES_PENDING_MAX;

/// Version and hash of the own slice, and the changes since the last delta. The filters themselves are
/// in the table.
#[derive(Debug, Default)]
pub(super) struct OwnSlice {
    pub(super) version: RouteVersion,
    pub(super) hash: u64,
    pub(super) len: usize,
    pending: Vec<RouteChange>,
    /// Changes were thrown away since the last delta: the next one tells at least the version.
    overrun: bool,
}

impl OwnSlice {
    pub(super) fn added(&mut self, filter: &str) {
        self.hash = self.hash.wrapping_add(filter_hash(filter));
        self.len += 1;
        self.note(RouteChange::Add(ByteString::from(filter)));
    }

    pub(super) fn removed(&mut self, filter: &str) {
        self.hash = self.hash.wrapping_sub(filter_hash(filter));
        self.len -= 1;
        self.note(RouteChange::Remove(ByteString::from(filter)));
    }

    /// The changes since the last call. After an overrun the delta starts behind what was thrown away,
    /// so that every replica sees a gap and asks for a snapshot.
    pub(super) fn take_delta(&mut self) -> Option<RouteDelta> {
        if self.pending.is_empty() && !std::mem::take(&mut self.overrun) {
            return None;
        }
        self.overrun = false;
        let changes = std::mem::take(&mut self.pending);
        let from = RouteVersion(self.version.0 - changes.len() as u64);
        Some(RouteDelta {
            from,
            to: self.version,
            changes,
        })
    }

    fn note(&mut self, change: RouteChange) {
        self.version.0 += 1;
        if self.pending.len() >= ROUTE_CHANGES_PENDING_MAX {
            self.pending = Vec::new();
            self.overrun = true;
        } else {
            self.pending.push(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_numbered_and_taken_once() {
        let mut own = OwnSlice::default();
        assert_eq!(own.take_delta(), None);
        own.added("a");
        own.added("b");
        own.removed("a");
        let delta = own.take_delta().unwrap();
        assert!(delta.is_whole());
        assert_eq!(
            (delta.from, delta.to, own.len),
            (RouteVersion(0), RouteVersion(3), 1)
        );
        assert_eq!((own.take_delta(), own.hash), (None, filter_hash("b")));
    }

    #[test]
    fn an_overrun_leaves_a_gap_that_every_replica_sees() {
        let mut own = OwnSlice::default();
        for n in 0..=ROUTE_CHANGES_PENDING_MAX {
            own.added(&n.to_string());
        }
        let version = RouteVersion(ROUTE_CHANGES_PENDING_MAX as u64 + 1);
        assert_eq!(
            own.take_delta(),
            Some(RouteDelta {
                from: version,
                to: version,
                changes: vec![]
            })
        );
        assert_eq!(own.take_delta(), None);
    }
}
