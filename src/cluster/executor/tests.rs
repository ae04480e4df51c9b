//! Nodes as values, with a network between them that carries all that is said, or nothing.

use std::collections::VecDeque;

use bytes::Bytes;

use super::*;
use crate::mqtt::packet::QoS;
use crate::mqtt::properties::WillProperties;

fn node(n: u64) -> NodeId {
    life(n, n)
}

fn life(n: u64, incarnation: u64) -> NodeId {
    NodeId {
        name: format!("n{n}@h").parse().unwrap(),
        incarnation: Incarnation(incarnation),
    }
}

fn will(topic: &str) -> Arc<Will> {
    Arc::new(Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: WillProperties::default(),
    })
}

/// Some nodes, all of them linked.
struct World {
    start: Instant,
    later: Duration,
    nodes: BTreeMap<NodeId, Executor>,
    said: VecDeque<(NodeId, NodeId, WillSlip)>,
    /// What was published where, and when.
    published: Vec<(NodeId, String, Duration)>,
    adopted: BTreeSet<(NodeId, ByteString)>,
}

impl World {
    fn of(size: u64) -> Self {
        let mut world = Self {
            start: Instant::now(),
            later: Duration::ZERO,
            nodes: BTreeMap::new(),
            said: VecDeque::new(),
            published: Vec::new(),
            adopted: BTreeSet::new(),
        };
        (1..=size).for_each(|n| world.join(node(n), n));
        world
    }

    /// A node comes, of a process whose first life was `since`.
    fn join(&mut self, new: NodeId, since: u64) {
        let others: Vec<_> = self.nodes.keys().cloned().collect();
        self.nodes.insert(new.clone(), Executor::new(Incarnation(since)));
        for other in others {
            self.link(&new, &other);
        }
        self.settle();
    }

    fn link(&mut self, one: &NodeId, other: &NodeId) {
        for (me, other) in [(one, other), (other, one)] {
            self.feed(me, Event::Up(other.clone()));
            let ask = self.nodes[me].ask();
            self.said.push_back((me.clone(), other.clone(), ask));
        }
    }

    fn feed(&mut self, at: &NodeId, event: Event) {
        let (mut out, now) = (Vec::new(), self.start + self.later);
        let node = self.nodes.get_mut(at).expect("it lives");
        node.handle(event, now, &mut out);
        for effect in out {
            match effect {
                Effect::Say(to, slip) => self.said.push_back((at.clone(), to, slip)),
                Effect::Publish(_, will) => {
                    self.published
                        .push((at.clone(), will.topic.to_string(), self.later));
                }
                Effect::Adopt(id) => drop(self.adopted.insert((at.clone(), id))),
                Effect::Renounce(id) => drop(self.adopted.remove(&(at.clone(), id))),
                Effect::Refused | Effect::WakeAt(_) => {}
            }
        }
    }

    /// All that was said arrives.
    fn settle(&mut self) {
        while let Some((from, to, slip)) = self.said.pop_front() {
            if self.nodes.contains_key(&to) {
                self.feed(&to, Event::Slip(from, slip));
            }
        }
    }

    fn news(&mut self, at: u64, id: &str, news: WillNews) {
        self.feed(&node(at), Event::News(id.into(), news));
        self.settle();
    }

    fn down(&mut self, gone: &NodeId, parted: Parted) {
        for at in self
            .nodes
            .keys()
            .filter(|at| *at != gone)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.feed(&at, Event::Down(gone.clone(), parted));
        }
        self.settle();
    }

    /// A node is killed.
    fn kill(&mut self, n: u64) {
        self.nodes.remove(&node(n));
        self.down(&node(n), Parted::Lost);
    }

    /// So many seconds later every node looks what is due.
    fn pass(&mut self, seconds: u64) {
        self.later += Duration::from_secs(seconds);
        for at in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.feed(&at, Event::Wake);
        }
        self.settle();
    }

    fn topics(&self) -> Vec<&str> {
        let topics = self.published.iter().map(|(_, topic, _)| &**topic);
        topics.collect()
    }

    /// How many wills all nodes together keep for others.
    fn held(&self) -> usize {
        self.nodes.values().map(|node| node.counts().0).sum()
    }
}

const REST_S: u64 = WILLS_REST.as_secs();

#[test]
fn a_will_is_told_to_one_other_node_until_it_is_over() {
    let mut world = World::of(4);
    for n in 0..50 {
        world.news(1, &format!("c{n}"), WillNews::Lives(will("w"), 0));
    }
    assert_eq!(world.held(), 50);
    let shares: Vec<usize> = (2..=4).map(|n| world.nodes[&node(n)].counts().0).collect();
    assert!(shares.iter().all(|share| *share > 5), "{shares:?}");
    for n in 0..50 {
        world.news(1, &format!("c{n}"), WillNews::Over);
    }
    assert_eq!(world.held(), 0);
    assert!(world.nodes.values().all(|node| node.bytes() == 0));
    world.kill(1);
    world.pass(REST_S);
    assert!(world.topics().is_empty());
}

#[test]
fn of_a_node_that_is_killed_each_will_comes_once_after_its_rest_and_its_delay() {
    let mut world = World::of(3);
    world.news(1, "at once", WillNews::Lives(will("at once"), 0));
    world.news(1, "delayed", WillNews::Lives(will("delayed"), 60));
    let due = world.start + Duration::from_secs(30);
    world.news(1, "running", WillNews::Runs(will("running"), due));
    world.kill(1);
    world.pass(REST_S - 1);
    assert!(world.topics().is_empty());
    world.pass(1);
    assert_eq!(world.topics(), ["at once"]);
    world.pass(30 - REST_S);
    assert_eq!(world.topics(), ["at once", "running"]);
    world.pass(30);
    assert_eq!(world.topics(), ["at once", "running", "delayed"]);
    world.pass(1000);
    assert_eq!(world.published.len(), 3);
    assert!(world.adopted.is_empty());
    assert!(world.nodes.values().all(|node| node.bytes() == 0));
}

#[test]
fn the_will_of_a_client_that_is_back_comes_before_it_or_not_at_all() {
    let mut world = World::of(3);
    world.news(1, "at once", WillNews::Lives(will("at once"), 0));
    world.news(1, "delayed", WillNews::Lives(will("delayed"), 60));
    world.kill(1);
    for id in ["at once", "delayed"] {
        let (at, _) = world
            .adopted
            .iter()
            .find(|(_, adopted)| adopted == id)
            .unwrap()
            .clone();
        world.feed(&at, Event::Back(id.into()));
    }
    world.settle();
    assert_eq!(world.topics(), ["at once"]);
    world.pass(1000);
    assert_eq!(world.published.len(), 1);
    assert!(world.nodes.values().all(|node| node.bytes() == 0));
}

#[test]
fn a_link_that_is_back_in_time_leaves_nothing_published_and_all_told_again() {
    let mut world = World::of(2);
    world.news(1, "c", WillNews::Lives(will("w"), 0));
    world.feed(&node(2), Event::Down(node(1), Parted::Lost));
    world.feed(&node(1), Event::Down(node(2), Parted::Lost));
    assert_eq!(world.adopted.len(), 1);
    world.link(&node(1), &node(2));
    world.settle();
    assert!(world.adopted.is_empty());
    world.pass(1000);
    assert!(world.topics().is_empty());
    assert_eq!(world.nodes[&node(2)].counts(), (1, 0));
    world.kill(1);
    world.pass(REST_S);
    assert_eq!(world.topics(), ["w"]);
}

#[test]
fn a_process_that_goes_on_in_a_new_life_publishes_its_wills_itself_and_a_restarted_one_cannot() {
    for (since, published) in [(1, 0), (9, 1)] {
        let mut world = World::of(3);
        world.news(1, "c", WillNews::Lives(will("w"), 0));
        world.kill(1);
        world.pass(1);
        world.join(life(1, 9), since);
        world.pass(1000);
        assert_eq!(world.published.len(), published, "since {since}");
        assert!(world.adopted.is_empty());
    }
}

/// A node falls, and another one hears of its clients, which are back, before it has a link to the new life:
/// through a third one that has.
#[test]
fn whether_a_process_goes_on_is_known_before_anything_of_its_clients_is_published() {
    for (since, published) in [(1, 0), (9, 1)] {
        let mut world = World::of(2);
        world.news(1, "c", WillNews::Lives(will("w"), 0));
        world.kill(1);
        world.feed(&node(2), Event::Elsewhere("c".into()));
        assert!(world.topics().is_empty());
        world.join(life(1, 9), since);
        assert_eq!(world.published.len(), published, "since {since}");
        world.pass(1000);
        assert_eq!(world.published.len(), published, "since {since}");
    }
}

#[test]
fn the_will_of_a_client_that_is_found_elsewhere_comes_at_once_if_its_node_is_known_to_have_begun_anew() {
    let mut world = World::of(2);
    world.news(1, "c", WillNews::Lives(will("w"), 0));
    world.kill(1);
    world.join(life(1, 9), 9);
    world.feed(&node(2), Event::Elsewhere("c".into()));
    assert_eq!(world.topics(), ["w"]);
    world.feed(&node(2), Event::Elsewhere("c".into()));
    world.pass(1000);
    assert_eq!(world.published.len(), 1);
}

#[test]
fn a_node_that_stops_in_order_and_closes_one_link_before_the_other_leaves_each_will_to_one() {
    let mut world = World::of(3);
    let due = world.start + Duration::from_secs(30);
    for n in 0..20 {
        world.news(1, &format!("c{n}"), WillNews::Runs(will(&format!("w{n}")), due));
    }
    world.nodes.get_mut(&node(1)).unwrap().stop();
    for other in [2, 3] {
        world.feed(&node(1), Event::Down(node(other), Parted::Left));
        world.settle();
        world.feed(&node(other), Event::Down(node(1), Parted::Stopped));
    }
    world.nodes.remove(&node(1));
    world.settle();
    world.pass(1000);
    assert_eq!(world.published.len(), 20);
}

#[test]
fn a_node_that_stops_in_order_hands_over_what_waits_and_one_that_leaves_hands_over_nothing() {
    for (parted, published) in [(Parted::Stopped, vec!["runs"]), (Parted::Left, vec![])] {
        let mut world = World::of(3);
        world.news(1, "lives", WillNews::Lives(will("lives"), 0));
        let due = world.start + Duration::from_secs(30);
        world.news(1, "runs", WillNews::Runs(will("runs"), due));
        world.nodes.remove(&node(1));
        world.down(&node(1), parted);
        world.pass(1000);
        assert_eq!(world.topics(), published);
        assert!(world.nodes.values().all(|node| node.bytes() == 0));
    }
}

#[test]
fn who_has_adopted_wills_may_be_lost_too() {
    let mut world = World::of(4);
    for n in 0..20 {
        world.news(1, &format!("c{n}"), WillNews::Lives(will(&format!("w{n}")), 60));
    }
    for n in 1..=3 {
        world.kill(n);
        world.pass(15);
    }
    assert!(world.topics().is_empty());
    world.pass(15);
    let topics: BTreeSet<_> = world.topics().into_iter().collect();
    assert_eq!((topics.len(), world.published.len()), (20, 20));
}

#[test]
fn what_was_published_is_forgotten_unless_the_client_has_another_will_by_then() {
    let mut world = World::of(2);
    let (first, second) = (will("first"), will("second"));
    world.news(1, "c", WillNews::Runs(first.clone(), world.start));
    world.news(1, "c", WillNews::Lives(second.clone(), 0));
    world.news(1, "c", WillNews::Published(first));
    assert_eq!(world.held(), 1);
    world.news(1, "c", WillNews::Published(second));
    assert_eq!(world.held(), 0);
}

#[test]
fn one_part_is_on_its_way_at_a_time_and_bounded() {
    let mut world = World::of(2);
    let mut out = Vec::new();
    let now = world.start;
    let one = world.nodes.get_mut(&node(1)).unwrap();
    for n in 0..5000 {
        let news = WillNews::Lives(will("w"), 0);
        one.handle(Event::News(format!("c{n}").into(), news), now, &mut out);
    }
    let [Effect::Say(to, part)] = out.as_slice() else {
        panic!("{} effects", out.len())
    };
    assert_eq!(*to, node(2));
    let WillSlip::Part { number, .. } = part else {
        panic!("{part:?}")
    };
    let taken = WillSlip::Taken { number: *number };
    let one = world.nodes.get_mut(&node(1)).unwrap();
    let mut next = Vec::new();
    one.handle(Event::Slip(node(2), taken.clone()), now, &mut next);
    // An acknowledgement that comes again is none.
    one.handle(Event::Slip(node(2), taken), now, &mut next);
    let [Effect::Say(_, WillSlip::Part { changes, .. })] = next.as_slice() else {
        panic!("{} effects", next.len())
    };
    assert!((100..5000).contains(&changes.len()), "{}", changes.len());
    assert!(next.len() == 1);
}

#[test]
fn no_more_is_kept_of_others_than_the_limit_allows() {
    let (mut one, mut out, now) = (Executor::new(Incarnation(1)), Vec::new(), Instant::now());
    one.handle(Event::Up(node(2)), now, &mut out);
    let long = Arc::unwrap_or_clone(will("w"));
    let long = Will {
        payload: Bytes::from_static(&[0; 1 << 20]),
        ..long
    };
    let count = WILLS_HELD_BYTES_MAX / (1 << 20) + 3;
    let changes = (0..count).map(|n| WillChange {
        id: format!("c{n}").into(),
        will: Some(WillRecord::of(&long, 0, None, now)),
    });
    let part = WillSlip::Part {
        number: 1,
        first: true,
        changes: changes.collect(),
    };
    out.clear();
    one.handle(Event::Slip(node(2), part), now, &mut out);
    let refused = out.iter().filter(|effect| **effect == Effect::Refused).count();
    assert!((3..=5).contains(&refused), "{refused}");
    assert!(one.bytes() <= WILLS_HELD_BYTES_MAX);
    assert_eq!(one.counts().0, count - refused);
}
