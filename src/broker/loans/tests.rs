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
        Candidate::new(&name, (at > 0).then_some(at))
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
