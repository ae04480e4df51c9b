//! The choice among nodes, as a value.

use super::*;

fn message(topic: &str, publisher: &str) -> Message {
    Message {
        topic: topic.to_owned().into(),
        payload: bytes::Bytes::new(),
        qos: crate::mqtt::packet::QoS::AtLeastOnce,
        retain: false,
        pass_through: bytes::Bytes::new(),
        expires_at: None,
        publisher: publisher.to_owned().into(),
    }
}

fn candidates(names: &[&str]) -> Vec<Candidate> {
    let node = |(at, name): (usize, &&str)| {
        let name = format!("{name}@h").parse().expect("a node name");
        Candidate::new(&name, (at > 0).then_some(at), Members::There(Arc::default()))
    };
    names.iter().enumerate().map(node).collect()
}

fn crossing(strategy: ShareStrategy) -> Arc<Crossing> {
    Crossing::new("$share/g/t".into(), strategy)
}

fn chosen(crossing: &Crossing, of: &[Candidate], times: usize) -> Vec<u64> {
    let one = |_| crossing.choose(&message("t", "p"), of, |_| true).map(|it| it.key);
    (0..times).map(one).map(|key| key.expect("a node")).collect()
}

#[test]
fn nobody_is_chosen_of_none() {
    for strategy in ["round_robin", "random", "sticky", "hash_clientid", "hash_topic"] {
        let crossing = crossing(strategy.parse().expect("a strategy"));
        assert!(crossing.choose(&message("t", "p"), &[], |_| true).is_none());
        let of = candidates(&["a", "b"]);
        assert!(crossing.choose(&message("t", "p"), &of, |_| false).is_none());
    }
}

#[test]
fn the_turn_goes_round_the_nodes_and_passes_over_those_that_may_not() {
    let (crossing, of) = (crossing(ShareStrategy::RoundRobin), candidates(&["a", "b", "c"]));
    let keys: Vec<_> = of.iter().map(|it| it.key).collect();
    assert_eq!(chosen(&crossing, &of, 6), [keys.clone(), keys.clone()].concat());
    for _ in 0..4 {
        let one = crossing.choose(&message("t", "p"), &of, |it| it.key != keys[1]);
        assert_ne!(one.map(|it| it.key), Some(keys[1]));
    }
}

#[test]
fn a_hash_comes_to_the_same_node_everywhere_and_stays_while_others_leave() {
    let here = candidates(&["a", "b", "c"]);
    let mut there = candidates(&["a", "b", "c"]);
    there.reverse();
    let mut reached = std::collections::HashSet::new();
    for n in 0..60 {
        let message = message(&format!("t/{n}"), "p");
        let choose = |of: &[Candidate], but: u64| {
            let crossing = crossing(ShareStrategy::HashTopic);
            let one = crossing.choose(&message, of, |it| it.key != but);
            one.map(|it| it.key).expect("a node")
        };
        let first = choose(&here, 0);
        assert_eq!(first, choose(&there, 0));
        let gone = here.iter().map(|it| it.key).find(|key| *key != first);
        assert_eq!(first, choose(&here, gone.expect("there are three")));
        reached.insert(first);
    }
    assert_eq!(reached.len(), 3);
}

#[test]
fn a_sticky_group_stays_with_a_node_until_it_is_gone() {
    let (crossing, of) = (crossing(ShareStrategy::Sticky), candidates(&["a", "b", "c"]));
    let first = chosen(&crossing, &of, 1)[0];
    assert_eq!(chosen(&crossing, &of, 5), [first; 5]);
    let next = crossing.choose(&message("t", "p"), &of, |it| it.key != first);
    let next = next.map(|it| it.key).expect("another node");
    assert_eq!(chosen(&crossing, &of, 5), [next; 5]);
}

#[test]
fn random_reaches_every_node() {
    let (crossing, of) = (crossing(ShareStrategy::Random), candidates(&["a", "b", "c"]));
    let drawn = chosen(&crossing, &of, 60);
    for candidate in &of {
        let times = drawn.iter().filter(|key| **key == candidate.key).count();
        assert!((8..=34).contains(&times), "{times} of 60");
    }
}

/// Nodes with so many members each, with a connection and without.
fn weighted(members: &[(u32, u32)]) -> Vec<Candidate> {
    let weights = Weights::default();
    let node = |(at, (online, away)): (usize, &(u32, u32))| {
        let name: NodeName = format!("n{at}@h").parse().expect("a node name");
        let weight = weights.of(&name, "$share/g/t");
        weights.set(&name, "$share/g/t".into(), *online, *away);
        Candidate::new(&name, (at > 0).then_some(at), Members::There(weight))
    };
    members.iter().enumerate().map(node).collect()
}

fn times(chosen: &[u64], of: &[Candidate]) -> Vec<usize> {
    let count = |one: &Candidate| chosen.iter().filter(|key| **key == one.key).count();
    of.iter().map(count).collect()
}

#[test]
fn each_node_is_chosen_as_often_as_it_has_members_with_a_connection() {
    let of = weighted(&[(1, 5), (3, 0), (6, 1)]);
    let drawn = chosen(&crossing(ShareStrategy::RoundRobin), &of, 100);
    assert_eq!(times(&drawn, &of), [10, 30, 60]);
    let drawn = chosen(&crossing(ShareStrategy::Random), &of, 1000);
    let random = times(&drawn, &of);
    let hashing = crossing(ShareStrategy::HashTopic);
    let hashed = |n: u32| hashing.choose(&message(&format!("t/{n}"), "p"), &of, |_| true);
    let hashed: Vec<u64> = (0..1000).map(|n| hashed(n).expect("a node").key).collect();
    for counts in [random, times(&hashed, &of)] {
        let within = |at: usize, wanted: usize| counts[at].abs_diff(wanted) < 60;
        assert!(within(0, 100) && within(1, 300) && within(2, 600), "{counts:?}");
    }
}

#[test]
fn a_node_whose_members_are_all_away_has_its_turn_only_while_no_node_has_others() {
    let of = weighted(&[(0, 9), (1, 0), (0, 0)]);
    let drawn = chosen(&crossing(ShareStrategy::RoundRobin), &of, 10);
    assert_eq!(times(&drawn, &of), [0, 10, 0]);
    let of = weighted(&[(0, 3), (0, 1)]);
    let drawn = chosen(&crossing(ShareStrategy::RoundRobin), &of, 8);
    assert_eq!(times(&drawn, &of), [6, 2]);
    // A sticky group leaves a node that has nobody left with a connection.
    let (sticky, both) = (crossing(ShareStrategy::Sticky), weighted(&[(1, 0), (1, 0)]));
    let first = chosen(&sticky, &both, 1)[0];
    let at = usize::from(first == both[1].key);
    let mut members = [(1, 0), (1, 0)];
    members[at] = (0, 1);
    assert_eq!(times(&chosen(&sticky, &weighted(&members), 3), &both)[1 - at], 3);
}

#[test]
fn a_node_that_has_not_told_counts_as_one_member_and_one_that_ended_is_forgotten() {
    let weights = Weights::default();
    let name: NodeName = "a@h".parse().expect("a node name");
    let weight = weights.of(&name, "$share/g/t");
    assert_eq!(weight.counts(), (1, 0));
    weights.set(&name, "$share/g/t".into(), 4, 2);
    assert_eq!(weight.counts(), (4, 2));
    weights.set(&name, "$share/g/t".into(), 0, 0);
    assert_eq!(weight.counts(), (0, 0));
    assert_eq!(weights.of(&name, "$share/g/t").counts(), (1, 0));
}
