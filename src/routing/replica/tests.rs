use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::limits::TOPIC_LEVELS_MAX;
use crate::routing::SliceSnapshot;

fn delta(from: u64, changes: &[&str]) -> RouteDelta {
    let change = |text: &&str| match text.split_at(1) {
        ("+", filter) => RouteChange::Add(filter.into()),
        (_, filter) => RouteChange::Remove(filter.into()),
    };
    let changes: Vec<_> = changes.iter().map(change).collect();
    RouteDelta {
        from: RouteVersion(from),
        to: RouteVersion(from + changes.len() as u64),
        changes,
    }
}

fn chunk(version: u64, filters: &[&str], first: bool, last: bool) -> SnapshotChunk {
    let filters = filters.iter().map(|filter| ByteString::from(*filter)).collect();
    SnapshotChunk {
        version: RouteVersion(version),
        filters,
        first,
        last,
    }
}

/// A replica and what its changes make of a table.
struct Fed {
    replica: Replica,
    table: BTreeSet<String>,
}

impl Fed {
    fn new() -> Self {
        Self {
            replica: Replica::new(Incarnation(1)),
            table: BTreeSet::new(),
        }
    }

    fn take(&mut self, apply: impl FnOnce(&mut Replica, &mut Vec<SliceChange>) -> Applied) -> Applied {
        let mut changes = Vec::new();
        let applied = apply(&mut self.replica, &mut changes);
        for change in changes {
            let changed = match &change {
                SliceChange::Added(filter) => self.table.insert(filter.to_string()),
                SliceChange::Removed(filter) => self.table.remove(&**filter),
            };
            assert!(changed, "{change:?} tells nothing new");
        }
        let sum = self
            .table
            .iter()
            .fold(0_u64, |sum, filter| sum.wrapping_add(filter_hash(filter)));
        assert_eq!((self.replica.hash(), self.replica.len()), (sum, self.table.len()));
        applied
    }

    fn delta(&mut self, delta: &RouteDelta) -> Applied {
        self.take(|replica, changes| replica.apply_delta(delta, changes))
    }

    fn chunk(&mut self, chunk: &SnapshotChunk) -> Applied {
        self.take(|replica, changes| replica.apply_snapshot(chunk, changes))
    }

    fn routes(&self) -> Vec<&str> {
        self.table.iter().map(String::as_str).collect()
    }
}

#[test]
fn deltas_in_order_are_applied() {
    let mut fed = Fed::new();
    assert_eq!(fed.delta(&delta(0, &["+a", "+b/#"])), Applied::Applied);
    assert_eq!(fed.delta(&delta(2, &["-a", "+c"])), Applied::Applied);
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["b/#", "c"], RouteVersion(4))
    );
}

#[test]
fn a_repeated_delta_is_stale_and_a_missing_one_is_a_gap() {
    let mut fed = Fed::new();
    fed.delta(&delta(0, &["+a"]));
    assert_eq!(fed.delta(&delta(0, &["+a"])), Applied::Stale);
    assert_eq!(fed.delta(&delta(2, &["+c"])), Applied::Gap);
    assert_eq!(fed.delta(&delta(1, &[])), Applied::Stale);
    assert_eq!(fed.delta(&delta(5, &[])), Applied::Gap);
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["a"], RouteVersion(1))
    );
}

#[test]
fn of_an_overlapping_delta_only_the_new_part_counts() {
    let mut fed = Fed::new();
    fed.delta(&delta(0, &["+a", "-a"]));
    let mut changes = Vec::new();
    assert_eq!(
        fed.replica
            .apply_delta(&delta(0, &["+a", "-a", "+b"]), &mut changes),
        Applied::Applied
    );
    assert_eq!(changes, [SliceChange::Added("b".into())]);
}

#[test]
fn the_old_routes_stay_until_the_last_chunk() {
    let mut fed = Fed::new();
    fed.delta(&delta(0, &["+a", "+b"]));
    assert_eq!(fed.chunk(&chunk(9, &["b"], true, false)), Applied::Applied);
    assert_eq!(fed.routes(), ["a", "b"]);
    assert_eq!(fed.chunk(&chunk(9, &["c"], false, true)), Applied::Applied);
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["b", "c"], RouteVersion(9))
    );
}

#[test]
fn deltas_between_chunks_follow_the_snapshot() {
    let mut fed = Fed::new();
    fed.chunk(&chunk(9, &["a"], true, false));
    assert_eq!(fed.delta(&delta(8, &["+a"])), Applied::Stale);
    assert_eq!(fed.delta(&delta(9, &["-a", "+d"])), Applied::Applied);
    assert_eq!(fed.routes(), [""; 0]);
    assert_eq!(fed.chunk(&chunk(9, &["b"], false, true)), Applied::Applied);
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["b", "d"], RouteVersion(11))
    );
}

#[test]
fn a_gap_in_the_held_deltas_shows_with_the_last_chunk() {
    let mut fed = Fed::new();
    fed.chunk(&chunk(9, &["a"], true, false));
    assert_eq!(fed.delta(&delta(10, &["+d"])), Applied::Applied);
    assert_eq!(fed.chunk(&chunk(9, &["b"], false, true)), Applied::Gap);
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["a", "b"], RouteVersion(9))
    );
}

#[test]
fn held_deltas_are_bounded() {
    let mut fed = Fed::new();
    fed.chunk(&chunk(1, &["a"], true, false));
    let tells = std::iter::repeat_with(|| fed.delta(&delta(7, &[]))).take(ROUTE_CHANGES_HELD_MAX + 1);
    assert_eq!(tells.last(), Some(Applied::Gap));
    assert_eq!(fed.chunk(&chunk(1, &["b"], false, true)), Applied::Gap);
}

#[test]
fn a_snapshot_begins_anew_with_a_first_chunk_and_forgets_strays() {
    let mut fed = Fed::new();
    fed.chunk(&chunk(4, &["a"], true, false));
    assert_eq!(fed.chunk(&chunk(6, &["x"], true, false)), Applied::Applied);
    assert_eq!(fed.chunk(&chunk(4, &["b"], false, true)), Applied::Stale);
    assert_eq!(fed.chunk(&chunk(6, &[], false, true)), Applied::Applied);
    assert_eq!(fed.routes(), ["x"]);
    assert_eq!(fed.chunk(&chunk(5, &["old"], true, true)), Applied::Stale);
    assert_eq!(fed.chunk(&chunk(8, &["y"], false, true)), Applied::Gap);
    assert_eq!(fed.routes(), ["x"]);
}

#[test]
fn a_snapshot_of_the_same_version_repairs_the_slice() {
    let mut fed = Fed::new();
    fed.delta(&delta(0, &["+a", "+b"]));
    assert_eq!(fed.chunk(&chunk(2, &["a", "c"], true, true)), Applied::Applied);
    assert_eq!(fed.routes(), ["a", "c"]);
}

#[test]
fn garbage_is_refused_with_a_sentence_and_changes_nothing() {
    let mut fed = Fed::new();
    fed.delta(&delta(0, &["+a"]));
    let uneven = RouteDelta {
        to: RouteVersion(9),
        ..delta(1, &["+b"])
    };
    let Applied::Refused(why) = fed.delta(&uneven) else {
        panic!("taken")
    };
    assert_eq!(
        why.to_string(),
        "route delta from 1 to 9 carries 1 changes; the slice is unchanged"
    );
    let backwards = RouteDelta {
        from: RouteVersion(9),
        to: RouteVersion(1),
        changes: vec![],
    };
    assert!(matches!(
        fed.delta(&backwards),
        Applied::Refused(RefusedSlice::Uneven { .. })
    ));
    for bad in [
        "",
        "a/#/b",
        "a#",
        "+a",
        "a/b+",
        "nul\0",
        &"/".repeat(TOPIC_LEVELS_MAX),
        &"x".repeat(65_536),
    ] {
        let bad_delta = RouteDelta {
            changes: vec![RouteChange::Add(bad.into())],
            ..delta(1, &["+x"])
        };
        assert!(matches!(
            fed.delta(&bad_delta),
            Applied::Refused(RefusedSlice::BadFilter { .. })
        ));
        let applied = fed.chunk(&chunk(5, &["ok", bad], true, true));
        assert!(matches!(
            applied,
            Applied::Refused(RefusedSlice::BadFilter { .. })
        ));
    }
    assert_eq!(
        (fed.routes(), fed.replica.version()),
        (vec!["a"], RouteVersion(1))
    );
}

/// What the link does with the owner's words: mangled on the way, but snapshot chunks in order.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// After the next one.
    Late,
    /// Between the chunks of the next snapshot, if there is one; else lost.
    Between,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Arrives), 1 => Just(Fate::Lost), 1 => Just(Fate::Twice),
        1 => Just(Fate::Late), 2 => Just(Fate::Between),
    ]
}

/// The node that owns the slice.
#[derive(Default)]
struct Owner {
    filters: BTreeSet<String>,
    version: u64,
}

impl Owner {
    fn change(&mut self, toggles: &[u8]) -> RouteDelta {
        let from = RouteVersion(self.version);
        let changes = toggles.iter().map(|number| {
            let filter = format!("t/{number}/+");
            self.version += 1;
            if self.filters.remove(&filter) {
                return RouteChange::Remove(filter.into());
            }
            self.filters.insert(filter.clone());
            RouteChange::Add(filter.into())
        });
        let changes = changes.collect();
        RouteDelta {
            from,
            to: RouteVersion(self.version),
            changes,
        }
    }

    fn chunks(&self) -> Vec<SnapshotChunk> {
        let filters = self
            .filters
            .iter()
            .map(|filter| ByteString::from(filter.as_str()))
            .collect();
        SliceSnapshot {
            version: RouteVersion(self.version),
            filters,
        }
        .chunks(3, 1000)
    }
}

/// Answers a gap: the chunks of a snapshot, with deltas that come between them.
fn resync(fed: &mut Fed, owner: &Owner, between: &mut Vec<RouteDelta>) {
    let mut gap = true;
    while std::mem::take(&mut gap) {
        for chunk in owner.chunks() {
            for delta in between.drain(..) {
                fed.delta(&delta);
            }
            gap = fed.chunk(&chunk) == Applied::Gap;
        }
    }
}

proptest! {
    #[test]
    fn a_replica_converges_whatever_the_link_does_to_the_deltas(
        steps in prop::collection::vec((prop::collection::vec(0..12_u8, 1..5), fate()), 1..40),
    ) {
        let (mut owner, mut fed) = (Owner::default(), Fed::new());
        let (mut late, mut between) = (None, Vec::new());
        for (toggles, fate) in steps {
            let delta = owner.change(&toggles);
            let mut arriving = match fate {
                Fate::Arrives => vec![delta],
                Fate::Twice => vec![delta.clone(), delta],
                Fate::Lost => vec![],
                Fate::Between => {
                    between.push(delta);
                    vec![]
                }
                Fate::Late => late.replace(delta).into_iter().collect(),
            };
            if !matches!(fate, Fate::Late) {
                arriving.extend(late.take());
            }
            for delta in arriving {
                if fed.delta(&delta) == Applied::Gap {
                    resync(&mut fed, &owner, &mut between);
                }
            }
        }
        // The owner tells its version at the end, as it does each second.
        if fed.delta(&owner.change(&[])) == Applied::Gap {
            resync(&mut fed, &owner, &mut between);
        }
        prop_assert_eq!(fed.replica.version(), RouteVersion(owner.version));
        prop_assert_eq!(&fed.table, &owner.filters);
    }
}
