use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::node_name::Incarnation;
use crate::routing::RouteChange;
use crate::routing::trie::tests::naive_match;
use crate::routing::{RouteVersion, SliceSnapshot};

fn node(name: &str, incarnation: u64) -> NodeId {
    let name = format!("{name}@127.0.0.1").parse().unwrap();
    NodeId {
        name,
        incarnation: Incarnation(incarnation),
    }
}

/// A delta that continues what the table has of `node`.
fn next(table: &RouteTable<u32>, node: &NodeId, changes: Vec<RouteChange>) -> RouteDelta {
    let from = table
        .replicas()
        .find(|(id, _)| *id == node)
        .map_or(0, |(_, replica)| replica.version().0);
    RouteDelta {
        from: RouteVersion(from),
        to: RouteVersion(from + changes.len() as u64),
        changes,
    }
}

fn add(table: &mut RouteTable<u32>, node: &NodeId, filters: &[&str]) {
    let changes = filters
        .iter()
        .map(|filter| RouteChange::Add((*filter).into()))
        .collect();
    let delta = next(table, node, changes);
    assert_eq!(table.apply_delta(node, &delta), Applied::Applied);
}

fn matched(table: &RouteTable<u32>, topic: &str) -> (Vec<u32>, Vec<String>) {
    let mut found = Match::default();
    table.match_topic(topic, &mut found);
    let mut locals = found.locals.to_vec();
    locals.sort_unstable();
    let names = found
        .nodes
        .iter()
        .map(|index| table.node(index).unwrap().name.short().to_owned());
    (locals, names.collect())
}

#[test]
fn a_topic_finds_its_local_ends_and_each_node_once() {
    let mut table = RouteTable::new();
    let (n2, n3) = (node("n2", 1), node("n3", 1));
    table.node_up(&n2).unwrap();
    table.node_up(&n3).unwrap();
    table.set_local("a/+", 1);
    table.set_local("a/b", 2);
    add(&mut table, &n2, &["a/#", "a/b", "+/b"]);
    add(&mut table, &n3, &["x"]);
    assert_eq!(matched(&table, "a/b"), (vec![1, 2], vec!["n2".into()]));
    assert_eq!(matched(&table, "x"), (vec![], vec!["n3".into()]));
    assert_eq!(matched(&table, "y"), (vec![], vec![]));
    let mut locals = Vec::new();
    table.match_local("a/b", &mut |local| locals.push(*local));
    assert_eq!(locals.len(), 2);
}

#[test]
fn the_own_slice_is_told_by_deltas_and_by_snapshot() {
    let mut table = RouteTable::new();
    assert_eq!(table.set_local("a", 1), None);
    assert_eq!(table.set_local("a", 2), Some(1));
    assert_eq!(table.set_local("b", 3), None);
    assert_eq!(table.remove_local("a"), Some(2));
    assert_eq!(table.remove_local("a"), None);
    let changes = vec![
        RouteChange::Add("a".into()),
        RouteChange::Add("b".into()),
        RouteChange::Remove("a".into()),
    ];
    let delta = RouteDelta {
        from: RouteVersion(0),
        to: RouteVersion(3),
        changes,
    };
    assert_eq!(table.take_delta(), Some(delta));
    assert_eq!(table.take_delta(), None);
    let snapshot = table.own_snapshot();
    assert_eq!(
        (snapshot.version, &*snapshot.filters),
        (RouteVersion(3), &["b".into()][..])
    );
    assert_eq!(
        (table.own_len(), table.own_hash()),
        (1, crate::routing::delta::filter_hash("b"))
    );
}

#[test]
fn two_tables_that_tell_each_other_are_the_same() {
    let (mut one, mut two) = (RouteTable::new(), RouteTable::new());
    let (n1, n2) = (node("n1", 1), node("n2", 1));
    one.set_local("a/+", 1);
    one.set_local("b", 2);
    two.set_local("b", 3);
    one.node_up(&n2).unwrap();
    two.node_up(&n1).unwrap();
    for chunk in one.own_snapshot().chunks(1, 10) {
        assert_eq!(two.apply_snapshot(&n1, &chunk), Applied::Applied);
    }
    assert_eq!(one.apply_delta(&n2, &two.take_delta().unwrap()), Applied::Applied);
    // A delta that the snapshot contains already.
    assert_eq!(two.apply_delta(&n1, &one.take_delta().unwrap()), Applied::Stale);
    assert_eq!(one.listing(&n1.name), two.listing(&n2.name));
    let listing = one.listing(&n1.name);
    assert_eq!(listing[1], ("b".into(), vec![n1.name.clone(), n2.name.clone()]));
    assert_eq!(two.replicas().next().unwrap().1.hash(), one.own_hash());
}

#[test]
fn a_node_that_goes_down_takes_its_routes_along_and_no_others() {
    let mut table = RouteTable::new();
    let (n2, n3) = (node("n2", 1), node("n3", 1));
    table.node_up(&n2).unwrap();
    table.node_up(&n3).unwrap();
    table.set_local("a", 1);
    add(&mut table, &n2, &["a", "b", "c/+"]);
    add(&mut table, &n3, &["b"]);
    assert_eq!(table.node_down(&node("n2", 2)), 0);
    let version = table.version();
    assert_eq!(table.node_down(&n2), 3);
    assert!(table.version() > version);
    assert_eq!((table.node_down(&n2), table.len()), (0, 2));
    assert_eq!(matched(&table, "b"), (vec![], vec!["n3".into()]));
    let late = next(&table, &n2, vec![RouteChange::Add("z".into())]);
    assert_eq!(table.apply_delta(&n2, &late), Applied::Stale);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_node_that_comes_back_in_a_new_life_has_none_of_its_old_routes() {
    let mut table = RouteTable::<u32>::new();
    let (old, new) = (node("n2", 1), node("n2", 2));
    let index = table.node_up(&old).unwrap();
    add(&mut table, &old, &["a"]);
    assert_eq!(table.node_up(&old), Ok(index));
    assert_eq!(table.len(), 1);
    let index = table.node_up(&new).unwrap();
    assert_eq!((table.len(), table.node(index)), (0, Some(&new)));
    assert_eq!(table.node_up(&old), Err(RefusedSlice::OldIncarnation));
    let chunk = SnapshotChunk {
        version: RouteVersion(9),
        filters: vec!["b".into()],
        first: true,
        last: true,
    };
    assert_eq!(table.apply_snapshot(&old, &chunk), Applied::Stale);
    assert_eq!(table.apply_snapshot(&new, &chunk), Applied::Applied);
}

/// `count` routes of `node`, all below `t/`.
fn add_many(table: &mut RouteTable<u32>, node: &NodeId, count: usize) {
    let filters = (0..count)
        .map(|number| ByteString::from(format!("t/{number}")))
        .collect();
    let snapshot = SliceSnapshot {
        version: RouteVersion(1),
        filters,
    };
    for chunk in snapshot.chunks(1000, usize::MAX) {
        assert_eq!(table.apply_snapshot(node, &chunk), Applied::Applied);
    }
}

#[test]
fn many_routes_of_a_dead_node_are_hidden_at_once_and_swept_by_and_by() {
    let (mut table, count) = (RouteTable::new(), SWEPT_AT_ONCE * 3);
    let (n2, n3) = (node("n2", 1), node("n3", 1));
    let index = table.node_up(&n2).unwrap();
    table.node_up(&n3).unwrap();
    add_many(&mut table, &n2, count);
    add(&mut table, &n3, &["t/7"]);
    table.set_local("t/8", 1);
    assert_eq!(table.node_down(&n2), count);
    assert!(table.len() > count / 2, "the rest is yet to be swept");
    assert_eq!(table.routes().count(), 2);
    assert_eq!(table.listing(&n2.name).len(), 2);
    assert_eq!(matched(&table, "t/7"), (vec![], vec!["n3".into()]));
    for number in 0..count {
        assert_eq!(
            matched(&table, &format!("t/{number}")).1.len(),
            usize::from(number == 7)
        );
    }
    // The node is back before its old place is swept: nothing of the old shows under the new.
    let new = node("n2", 2);
    assert_ne!(table.node_up(&new), Ok(index));
    add(&mut table, &new, &["t/9", "t/8"]);
    let version = table.version();
    while table.sweep(100) {}
    assert_eq!((table.len(), table.version()), (3, version));
    assert_eq!(matched(&table, "t/8"), (vec![1], vec!["n2".into()]));
    assert_eq!(matched(&table, "t/10"), (vec![], vec![]));
    assert_eq!(table.node_up(&node("n4", 1)), Ok(index));
}

#[test]
fn every_change_sweeps_a_little() {
    let mut table = RouteTable::new();
    let n2 = node("n2", 1);
    table.node_up(&n2).unwrap();
    add_many(&mut table, &n2, SWEPT_AT_ONCE + SWEPT_PER_CHANGE * 2);
    table.node_down(&n2);
    table.set_local("a", 1);
    assert_eq!(table.len(), 1 + SWEPT_PER_CHANGE);
    table.remove_local("a");
    assert!(table.is_empty());
}

#[test]
fn the_number_of_nodes_is_bounded_and_places_are_used_again() {
    let mut table = RouteTable::<u32>::new();
    for number in 0..NODES_MAX {
        table.node_up(&node(&format!("n{number}"), 1)).unwrap();
    }
    assert_eq!(table.node_up(&node("more", 1)), Err(RefusedSlice::TooManyNodes));
    add(&mut table, &node("n200", 1), &["a"]);
    assert_eq!(matched(&table, "a"), (vec![], vec!["n200".into()]));
    let index = table.node_index(&node("n7", 1)).unwrap();
    table.node_down(&node("n7", 1));
    assert_eq!(table.node_up(&node("more", 1)), Ok(index));
}

fn groups(table: &RouteTable<u32>, topic: &str) -> Vec<(String, usize)> {
    let mut found = Match::default();
    table.match_topic(topic, &mut found);
    let mut groups: Vec<_> = found
        .groups
        .iter()
        .map(|(text, nodes)| (text.to_string(), nodes.len()))
        .collect();
    groups.sort();
    groups
}

#[test]
fn a_shared_group_is_an_entry_of_its_own_and_matched_with_its_filter() {
    let mut table = RouteTable::new();
    let (n2, n3) = (node("n2", 1), node("n3", 1));
    table.node_up(&n2).unwrap();
    table.node_up(&n3).unwrap();
    add(&mut table, &n2, &["$share/g/a/+", "$share/h/a/+", "a/+"]);
    add(&mut table, &n3, &["$share/g/a/+"]);
    let both = [("$share/g/a/+".to_owned(), 2), ("$share/h/a/+".to_owned(), 1)];
    assert_eq!(groups(&table, "a/b"), both);
    assert_eq!(matched(&table, "a/b"), (vec![], vec!["n2".to_owned()]));
    assert_eq!(groups(&table, "$share/g/a/b"), []);
    assert_eq!((table.len(), table.routes().count()), (1, 3));

    table.set_shared("a/+", 1, false, &["$share/g/a/+".into()]);
    assert_eq!(table.own_snapshot().filters.to_vec(), ["$share/g/a/+"]);
    table.set_shared("a/+", 2, true, &["$share/g/a/+".into()]);
    table.set_shared("a/+", 3, true, &[]);
    let mine = |change: fn(ByteString) -> RouteChange, text: &str| change(text.to_owned().into());
    let changes = [
        mine(RouteChange::Add, "$share/g/a/+"),
        mine(RouteChange::Add, "a/+"),
        mine(RouteChange::Remove, "$share/g/a/+"),
    ];
    assert_eq!(table.take_delta().unwrap().changes, changes);
    assert_eq!(table.own_len(), 1);

    let gone = next(&table, &n2, vec![RouteChange::Remove("$share/g/a/+".into())]);
    assert_eq!(table.apply_delta(&n2, &gone), Applied::Applied);
    let held = table
        .replicas()
        .find(|(id, _)| **id == n2)
        .map(|(_, slice)| (slice.version(), slice.hash()));
    let (version, hash) = held.unwrap();
    assert_eq!(table.check(&n2, version, hash), Checked::Same);
    assert_eq!(groups(&table, "a/b"), both.clone().map(|(group, _)| (group, 1)));
    assert_eq!(table.node_down(&n2), 2);
    assert_eq!(groups(&table, "a/b"), [("$share/g/a/+".to_owned(), 1)]);
    table.node_down(&n3);
    assert_eq!(table.remove_local("a/+"), Some(3));
    assert_eq!(
        (groups(&table, "a/b").len(), table.len(), table.own_len()),
        (0, 0, 0)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Local(bool, String),
    Remote(u8, bool, String),
    Down(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let level = prop::sample::select(vec!["a", "b", "+"]);
    let filter = (prop::collection::vec(level, 1..4), any::<bool>());
    let filter = filter.prop_map(|(levels, rest)| levels.join("/") + if rest { "/#" } else { "" });
    (0..10_u8, any::<bool>(), 0..3_u8, filter).prop_map(|(kind, add, node, filter)| match kind {
        0 => Step::Down(node),
        1..4 => Step::Local(add, filter),
        _ => Step::Remote(node, add, filter),
    })
}

proptest! {
    #[test]
    fn the_table_is_a_list_of_filters_per_node(steps in prop::collection::vec(step(), 1..80)) {
        let nodes = [node("n0", 1), node("n1", 1), node("n2", 1)];
        let (mut table, mut locals) = (RouteTable::new(), BTreeMap::new());
        let mut remotes = [const { BTreeSet::new() }; 3];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Local(true, filter) => {
                    let local = number as u32;
                    prop_assert_eq!(table.set_local(&filter, local), locals.insert(filter, local));
                }
                Step::Local(false, filter) => {
                    prop_assert_eq!(table.remove_local(&filter), locals.remove(&filter));
                }
                Step::Down(node) => {
                    let routes = std::mem::take(&mut remotes[usize::from(node)]);
                    prop_assert_eq!(table.node_down(&nodes[usize::from(node)]), routes.len());
                }
                Step::Remote(node, add, filter) => {
                    let (id, routes) = (&nodes[usize::from(node)], &mut remotes[usize::from(node)]);
                    table.node_up(id).unwrap();
                    let change = if add {
                        routes.insert(filter.clone());
                        RouteChange::Add(filter.into())
                    } else {
                        routes.remove(&filter);
                        RouteChange::Remove(filter.into())
                    };
                    let delta = next(&table, id, vec![change]);
                    prop_assert_eq!(table.apply_delta(id, &delta), Applied::Applied);
                }
            }
        }
        let all: BTreeSet<_> = remotes.iter().flatten().chain(locals.keys()).collect();
        prop_assert_eq!(table.len(), all.len());
        for topic in ["a", "b", "a/b", "b/a", "a/b/a", "a/b/a/b", "c"] {
            let here = locals.iter().filter(|(filter, _)| naive_match(filter, topic));
            let mut here: Vec<_> = here.map(|(_, local)| *local).collect();
            here.sort_unstable();
            let (found, mut names) = matched(&table, topic);
            prop_assert_eq!(found, here);
            names.sort();
            let there = remotes.iter().zip(["n0", "n1", "n2"]);
            let there = there.filter(|(routes, _)| routes.iter().any(|filter| naive_match(filter, topic)));
            prop_assert_eq!(names, there.map(|(_, name)| name.to_owned()).collect::<Vec<_>>());
        }
    }
}

/// Takes the slice of `node` anew, as it is after a Resync.
fn send_again(table: &mut RouteTable<u32>, node: &NodeId, version: u64, filters: &[&str]) {
    let chunk = SnapshotChunk {
        version: RouteVersion(version),
        filters: filters.iter().map(|filter| (*filter).into()).collect(),
        first: true,
        last: true,
    };
    assert_eq!(table.apply_snapshot(node, &chunk), Applied::Applied);
}

#[test]
fn a_slice_that_lost_a_route_is_found_out_and_a_snapshot_repairs_it() {
    let mut table = RouteTable::new();
    let n2 = node("n2", 1);
    table.node_up(&n2).unwrap();
    let filters = ["a/1", "a/+", "b"];
    add(&mut table, &n2, &filters);
    let hash = |table: &RouteTable<u32>| table.replicas().next().unwrap().1.hash();
    let (good, at) = (hash(&table), RouteVersion(3));
    assert_eq!(table.check(&n2, at, good), Checked::Same);
    assert_eq!(table.check(&n2, RouteVersion(4), good), Checked::Apart);
    assert_eq!(table.check(&node("n3", 1), at, good), Checked::Apart);

    assert!(table.lose_one(&n2.name));
    let held = hash(&table);
    assert_eq!(table.check(&n2, at, good), Checked::Drift { held });
    send_again(&mut table, &n2, 3, &filters);
    assert_eq!(table.check(&n2, at, good), Checked::Same);

    // The table itself lost it, the slice did not.
    let index = table.node_index(&n2).unwrap();
    table.withdraw("b", index);
    assert_eq!(matched(&table, "b").1, [""; 0]);
    assert_eq!(table.check(&n2, at, good), Checked::Drift { held: good });
    send_again(&mut table, &n2, 3, &filters);
    assert_eq!(table.check(&n2, at, good), Checked::Same);
    assert_eq!(matched(&table, "b").1, ["n2"]);
    assert!(!table.lose_one(&node("n3", 1).name));
}
