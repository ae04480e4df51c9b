//! The slice of one remote node: its own routes, as this node knows them.
//!
//! | slice is | a delta that continues it | … overlaps | … is old | … leaves a gap | a snapshot |
//! |---|---|---|---|---|---|
//! | at rest | applied | its new part applied | [`Stale`] | [`Gap`] | its chunks are gathered |
//! | gathering | held until the last chunk | held | [`Stale`] | held | a new `first` begins anew |
//!
//! While a snapshot is gathered the old routes stay: the last chunk replaces them in one step and the
//! held deltas follow. Nobody needs to be quick, and a busy slice still comes to rest.
//!
//! [`Stale`]: Applied::Stale
//! [`Gap`]: Applied::Gap

use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
use bytestring::ByteString;

use super::delta::{
    Applied, Checked, RefusedSlice, RouteChange, RouteDelta, RouteVersion, SnapshotChunk, filter_hash,
};
use crate::limits::{ROUTE_CHANGES_HELD_MAX, ROUTES_OF_NODE_MAX};
use crate::mqtt::topic::check_filter;
use crate::node_name::Incarnation;

#[cfg(test)]
mod tests;

/// Characters that are shown of a filter that is refused; it may be long.
const REFUSED_SHOWN_MAX: usize = 64;

/// What is to be changed in the route table, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SliceChange {
    /// The node has this route now.
    Added(Arc<str>),
    /// The node has it no longer.
    Removed(Arc<str>),
}

type Filters = HashSet<Arc<str>, RandomState>;

/// The slice of one life of one remote node.
#[derive(Debug)]
pub struct Replica {
    incarnation: Incarnation,
    version: RouteVersion,
    filters: Filters,
    hash: u64,
    arriving: Option<Arriving>,
    /// It was found to differ from its owner's: the next snapshot names every route to the table anew.
    drifted: bool,
}

/// A snapshot of which the last chunk has not come.
#[derive(Debug)]
struct Arriving {
    version: RouteVersion,
    filters: Filters,
    /// Deltas that came between the chunks.
    held: Vec<RouteDelta>,
    held_len: usize,
}

impl Replica {
    /// The slice of a node that has just begun this incarnation: version 0, no routes. A new incarnation
    /// is a new replica.
    #[must_use]
    pub fn new(incarnation: Incarnation) -> Self {
        let version = RouteVersion(0);
        Self {
            incarnation,
            version,
            filters: Filters::default(),
            hash: 0,
            arriving: None,
            drifted: false,
        }
    }

    /// Which life of the node this is the slice of.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The version that the slice stands at.
    #[must_use]
    pub fn version(&self) -> RouteVersion {
        self.version
    }

    /// The sum of [`filter_hash`] over the slice; equal on both nodes when version and routes are.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Compares the slice with what its owner has at `version`. `linked` is how many of its routes the route
    /// table holds.
    pub fn check(&mut self, version: RouteVersion, hash: u64, linked: usize) -> Checked {
        if self.arriving.is_some() || version != self.version {
            return Checked::Apart;
        }
        self.drifted = hash != self.hash || linked != self.filters.len();
        if self.drifted {
            Checked::Drift { held: self.hash }
        } else {
            Checked::Same
        }
    }

    /// Loses one route without a word, as a bug would: for tests of the repair. `false`: there is none.
    pub fn lose_one(&mut self, changes: &mut Vec<SliceChange>) -> bool {
        let one = self.filters.iter().next().cloned();
        if let Some(filter) = &one {
            self.remove(filter, changes);
        }
        one.is_some()
    }

    /// How many routes the node has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filters.len()
    }

    /// Whether the node has no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Takes a delta in; see the table above. Changes for the route table are appended to `changes`.
    pub fn apply_delta(&mut self, delta: &RouteDelta, changes: &mut Vec<SliceChange>) -> Applied {
        if !delta.is_whole() {
            let (from, to) = (delta.from.0, delta.to.0);
            return self.refuse(RefusedSlice::Uneven {
                from,
                to,
                changes: delta.changes.len(),
            });
        }
        if let Some(why) = refused(delta.changes.iter().map(RouteChange::filter)) {
            return self.refuse(why);
        }
        let Some(arriving) = &mut self.arriving else {
            return self.advance(delta, changes);
        };
        if delta.to <= arriving.version {
            return Applied::Stale;
        }
        arriving.held_len += delta.changes.len().max(1);
        if arriving.held_len > ROUTE_CHANGES_HELD_MAX {
            self.arriving = None;
            return Applied::Gap;
        }
        arriving.held.push(delta.clone());
        Applied::Applied
    }

    /// Takes a chunk of a snapshot in; the last one replaces the slice. Chunks come over one link in
    /// order, so that a missing middle is no case; a missing first chunk is a gap.
    pub fn apply_snapshot(&mut self, chunk: &SnapshotChunk, changes: &mut Vec<SliceChange>) -> Applied {
        if let Some(why) = refused(chunk.filters.iter()) {
            return self.refuse(why);
        }
        let expected = self
            .arriving
            .as_ref()
            .map_or(self.version, |arriving| arriving.version);
        if chunk.first && chunk.version >= self.version {
            let held = self
                .arriving
                .take()
                .map(|old| (old.held, old.held_len))
                .unwrap_or_default();
            let filters = Filters::default();
            self.arriving = Some(Arriving {
                version: chunk.version,
                filters,
                held: held.0,
                held_len: held.1,
            });
        } else if chunk.first || chunk.version < expected {
            return Applied::Stale;
        } else if chunk.version > expected {
            self.arriving = None;
            return Applied::Gap;
        }
        let Some(arriving) = &mut self.arriving else {
            return Applied::Stale;
        };
        arriving
            .filters
            .extend(chunk.filters.iter().map(|filter| Arc::from(&**filter)));
        if arriving.filters.len() > ROUTES_OF_NODE_MAX {
            return self.refuse(RefusedSlice::TooManyRoutes);
        }
        if chunk.last {
            self.replace(changes)
        } else {
            Applied::Applied
        }
    }

    /// The gathered snapshot becomes the slice, and the held deltas continue it.
    fn replace(&mut self, changes: &mut Vec<SliceChange>) -> Applied {
        let Some(Arriving {
            version,
            filters,
            held,
            ..
        }) = self.arriving.take()
        else {
            return Applied::Gap;
        };
        let old = std::mem::replace(&mut self.filters, filters);
        let gone = old.iter().filter(|filter| !self.filters.contains(*filter));
        changes.extend(gone.cloned().map(SliceChange::Removed));
        // What the table has already, it takes again without harm.
        let all = self.drifted;
        let new = self.filters.iter().filter(|filter| all || !old.contains(*filter));
        changes.extend(new.cloned().map(SliceChange::Added));
        self.hash = self
            .filters
            .iter()
            .fold(0, |sum, filter| sum.wrapping_add(filter_hash(filter)));
        self.version = version;
        for delta in held {
            match self.advance(&delta, changes) {
                Applied::Applied | Applied::Stale => {}
                missing => return missing,
            }
        }
        Applied::Applied
    }

    /// Applies the part of a whole and valid delta that lies behind the slice's version.
    fn advance(&mut self, delta: &RouteDelta, changes: &mut Vec<SliceChange>) -> Applied {
        if delta.from > self.version {
            return Applied::Gap;
        }
        if delta.to <= self.version {
            return Applied::Stale;
        }
        let known = usize::try_from(self.version.0 - delta.from.0).unwrap_or(usize::MAX);
        let news = delta.changes.get(known..).unwrap_or_default();
        if self.filters.len() + news.len() > ROUTES_OF_NODE_MAX {
            return self.refuse(RefusedSlice::TooManyRoutes);
        }
        for change in news {
            match change {
                RouteChange::Add(filter) => self.add(filter, changes),
                RouteChange::Remove(filter) => self.remove(filter, changes),
            }
        }
        self.version = delta.to;
        Applied::Applied
    }

    fn add(&mut self, filter: &str, changes: &mut Vec<SliceChange>) {
        if !self.filters.contains(filter) {
            let filter: Arc<str> = filter.into();
            self.hash = self.hash.wrapping_add(filter_hash(&filter));
            self.filters.insert(filter.clone());
            changes.push(SliceChange::Added(filter));
        }
    }

    fn remove(&mut self, filter: &str, changes: &mut Vec<SliceChange>) {
        if let Some(filter) = self.filters.take(filter) {
            self.hash = self.hash.wrapping_sub(filter_hash(&filter));
            changes.push(SliceChange::Removed(filter));
        }
    }

    fn refuse(&mut self, why: RefusedSlice) -> Applied {
        self.arriving = None;
        Applied::Refused(why)
    }
}

/// What is wrong with the first filter that is no topic filter.
fn refused<'a>(mut filters: impl Iterator<Item = &'a ByteString>) -> Option<RefusedSlice> {
    filters.find_map(|filter| {
        let why = check_filter(filter).err()?;
        let filter = filter.chars().take(REFUSED_SHOWN_MAX).collect();
        Some(RefusedSlice::BadFilter { filter, why })
    })
}
