//! The ledger alone: the test plays router, supervisor and desks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::mqtt::packet::SubscriptionOptions;

fn join(port: u64) -> Errand {
    let ticket = Ticket {
        request: port,
        position: 0,
    };
    Errand::Join {
        port,
        options: SubscriptionOptions::default(),
        subscription_identifier: None,
        ticket,
    }
}

fn leave(port: u64) -> Errand {
    Errand::Leave {
        port,
        ticket: Ticket {
            request: port,
            position: 0,
        },
    }
}

fn ask(ledger: &mut Ledger, text: &str, arbiter: usize, errand: Errand) -> Vec<Order> {
    let mut out = Vec::new();
    ledger.ask(&text.into(), arbiter, errand, || None, &mut out);
    out
}

fn census(number: u64, filter: FilterId, arbiter: usize) -> Census {
    Census {
        number,
        filter,
        arbiter,
        errands: 0,
        rows: 0,
    }
}

/// Does what a call of the ledger caused, as text.
fn step(change: impl FnOnce(&mut Vec<Order>)) -> Vec<String> {
    let mut out = Vec::new();
    change(&mut out);
    out.iter().map(name).collect()
}

fn name(order: &Order) -> String {
    match order {
        Order::Open(place) => format!("open {}", place.child),
        Order::Close(place) => format!("close {}", place.child),
        Order::Post(place, Errand::Join { .. }) => format!("join {}", place.child),
        Order::Post(place, Errand::Leave { .. }) => format!("leave {}", place.child),
        Order::Post(place, Errand::Census(_)) => format!("census {}", place.child),
        Order::Route(plain) => format!("route {plain}"),
        Order::Refuse(_) => "refuse".into(),
        Order::Unknown(_) => "unknown".into(),
        Order::ForgetGroup(filter) => format!("forget {filter}"),
    }
}

const A: FilterId = FilterId(1);

#[test]
fn joins_wait_until_the_seat_is_open_and_the_route_until_the_first_row() {
    let mut ledger = Ledger::default();
    assert_eq!(
        ask(&mut ledger, "a", 0, join(1))
            .iter()
            .map(name)
            .collect::<Vec<_>>(),
        ["open a"]
    );
    assert!(ask(&mut ledger, "a", 0, join(2)).is_empty());
    assert_eq!(
        step(|out| ledger.opened(A, 0, out)),
        ["census a", "join a", "join a"]
    );
    assert!(ledger.seats("a").is_empty());
    assert_eq!(step(|out| ledger.joined(A, 0, 1, out)), ["route a"]);
    assert!(step(|out| ledger.joined(A, 0, 2, out)).is_empty());
    assert_eq!(ledger.seats("a")[0].arbiters, 1);
}

#[test]
fn a_seat_is_not_closed_while_a_join_is_on_its_way_to_it() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", 0, join(1));
    step(|out| ledger.opened(A, 0, out));
    step(|out| ledger.census(&census(1, A, 0), out));
    step(|out| ledger.joined(A, 0, 1, out));
    ask(&mut ledger, "a", 0, leave(1));
    ask(&mut ledger, "a", 0, join(2));
    assert!(
        step(|out| ledger.vacant(A, 0, 2, out)).is_empty(),
        "the second join is on its way"
    );
    assert!(step(|out| ledger.joined(A, 0, 1, out)).is_empty());
    assert_eq!(step(|out| ledger.vacant(A, 0, 3, out)), ["route a", "close a"]);
    assert!(
        ask(&mut ledger, "a", 0, join(3)).is_empty(),
        "it waits for the seat to be closed"
    );
    assert_eq!(step(|out| ledger.closed(A, 0, out)), ["open a"]);
}

#[test]
fn the_topics_own_seat_is_closed_last() {
    let mut ledger = Ledger::default();
    for arbiter in [0, 1] {
        ask(&mut ledger, "a", arbiter, join(1));
        step(|out| ledger.opened(A, arbiter, out));
        step(|out| ledger.census(&census(arbiter as u64 + 1, A, arbiter), out));
        step(|out| ledger.joined(A, arbiter, 1, out));
    }
    assert_eq!(step(|out| ledger.vacant(A, 0, 1, out)), ["route a"]);
    assert_eq!(ledger.seats("a")[0].arbiters, 2);
    assert_eq!(step(|out| ledger.vacant(A, 1, 1, out)), ["route a", "close a#1"]);
    assert_eq!(step(|out| ledger.closed(A, 1, out)), ["route a", "close a"]);
    assert_eq!(step(|out| ledger.closed(A, 0, out)), ["route a"]);
    assert_eq!(ledger.seats_len(), 0);
}

#[test]
fn a_seat_that_cannot_be_opened_refuses_what_waited() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", 0, join(1));
    ask(&mut ledger, "a", 0, leave(1));
    assert_eq!(
        step(|out| ledger.open_failed(A, 0, out)),
        ["refuse", "refuse", "route a"]
    );
    assert_eq!(ledger.seats_len(), 0);
    assert_eq!(
        ask(&mut ledger, "a", 0, leave(1))
            .iter()
            .map(name)
            .collect::<Vec<_>>(),
        ["unknown"]
    );
}

#[test]
fn a_plain_filter_and_its_shared_groups_are_one_route() {
    let mut ledger = Ledger::default();
    let mut out = Vec::new();
    let group = || Some(ShareGroup::new("$share/g/t".into(), 2, Default::default()));
    ledger.ask(&"$share/g/a".into(), 0, join(1), group, &mut out);
    ledger.opened(A, 0, &mut out);
    ledger.joined(A, 0, 1, &mut out);
    assert!(matches!(out.last(), Some(Order::Route(plain)) if plain == "a"));
    assert!(ledger.seats("a")[0].share.is_some());
    assert!(ledger.seats("$share/g/a").is_empty());
}

#[test]
fn a_new_life_of_the_router_opens_every_seat_again_and_forgets_what_waited() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, "a", 0, join(1));
    step(|out| ledger.opened(A, 0, out));
    step(|out| ledger.joined(A, 0, 1, out));
    ask(&mut ledger, "b", 1, join(2));
    let mut orders = step(|out| ledger.recover(out));
    orders.sort();
    assert_eq!(orders, ["open a", "open b", "route a", "route b"]);
    assert_eq!(ledger.seats("a")[0].arbiters, 1, "the route does not flicker");
    assert_eq!(step(|out| ledger.opened(FilterId(2), 1, out)), ["census b"]);
    assert_eq!(
        step(|out| ledger.census(&census(2, FilterId(2), 1), out)),
        ["close b"]
    );
}

/// Desks, supervisor and mail as a model, in any interleaving that keeps the order of each way.
#[derive(Default)]
struct World {
    ledger: Ledger,
    /// Errands on their way to a seat.
    mail: BTreeMap<(FilterId, usize), VecDeque<Errand>>,
    /// Answers on their way to the router.
    answers: VecDeque<(FilterId, usize, Answer)>,
    /// Starts and ends that the supervisor has not answered.
    starting: VecDeque<Place>,
    ending: VecDeque<Place>,
    /// Rows of the seats that are open.
    rows: BTreeMap<(FilterId, usize), (BTreeSet<u64>, u64)>,
    routed: BTreeMap<String, u64>,
}

enum Answer {
    Joined(usize),
    Vacant(u64),
    Census(Census),
}

impl World {
    fn carry_out(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Open(place) => self.starting.push_back(place),
                Order::Close(place) => self.ending.push_back(place),
                Order::Post(place, errand) => {
                    self.mail
                        .entry((place.filter, place.arbiter))
                        .or_default()
                        .push_back(errand);
                }
                Order::Route(plain) => {
                    let mask = self
                        .ledger
                        .seats(&plain)
                        .iter()
                        .fold(0, |mask, seats| mask | seats.arbiters);
                    self.routed.insert(plain.to_string(), mask);
                }
                Order::Refuse(_) | Order::Unknown(_) | Order::ForgetGroup(_) => {}
            }
        }
    }

    /// One thing happens, if there is one of that kind.
    fn happen(&mut self, kind: u8) {
        let mut out = Vec::new();
        match kind {
            0 => {
                if let Some(place) = self.starting.pop_front() {
                    self.rows.entry((place.filter, place.arbiter)).or_default();
                    self.ledger.opened(place.filter, place.arbiter, &mut out);
                }
            }
            1 => {
                if let Some(place) = self.ending.pop_front() {
                    let (rows, _) = self
                        .rows
                        .remove(&(place.filter, place.arbiter))
                        .unwrap_or_default();
                    assert!(rows.is_empty(), "a seat with rows was closed");
                    let left = self.mail.get(&(place.filter, place.arbiter));
                    assert!(left.is_none_or(VecDeque::is_empty), "a closed seat has mail");
                    self.ledger.closed(place.filter, place.arbiter, &mut out);
                }
            }
            2 | 3 => self.deliver_mail(),
            4 => {
                let mut orders = Vec::new();
                self.ledger.recover(&mut orders);
                self.starting.clear();
                self.ending.clear();
                out = orders;
            }
            _ => {
                if let Some((filter, arbiter, answer)) = self.answers.pop_front() {
                    match answer {
                        Answer::Joined(rows) => self.ledger.joined(filter, arbiter, rows, &mut out),
                        Answer::Vacant(done) => self.ledger.vacant(filter, arbiter, done, &mut out),
                        Answer::Census(census) => self.ledger.census(&census, &mut out),
                    }
                }
            }
        }
        self.carry_out(out);
    }

    fn deliver_mail(&mut self) {
        let full = self.mail.iter_mut().find(|(_, errands)| !errands.is_empty());
        let Some((&(filter, arbiter), errands)) = full else {
            return;
        };
        let Some(errand) = errands.pop_front() else { return };
        let (rows, done) = self
            .rows
            .get_mut(&(filter, arbiter))
            .expect("mail only to open seats");
        match errand {
            Errand::Join { port, .. } => {
                *done += 1;
                rows.insert(port);
                self.answers
                    .push_back((filter, arbiter, Answer::Joined(rows.len())));
            }
            Errand::Leave { port, .. } => {
                *done += 1;
                rows.remove(&port);
            }
            Errand::Census(number) => {
                let census = Census {
                    number,
                    filter,
                    arbiter,
                    errands: *done,
                    rows: rows.len(),
                };
                self.answers.push_back((filter, arbiter, Answer::Census(census)));
            }
        }
        if rows.is_empty() {
            self.answers.push_back((filter, arbiter, Answer::Vacant(*done)));
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            (0..=5_u8)
                .filter(|kind| *kind != 4)
                .for_each(|kind| self.happen(kind));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the interleaving of sessions, mail, supervisor and crashes of the router: no row is
    /// lost with its seat, and in the end routes are exactly where rows are and no empty seat is left.
    #[test]
    fn birth_and_death_never_cross(
        steps in prop::collection::vec((0_u8..12, 0_usize..3, 0_usize..3, 1_u64..4), 0..120),
    ) {
        let mut world = World::default();
        let filters = ["a", "b", "a/+"];
        for (kind, filter, arbiter, port) in steps {
            match kind {
                0..=5 if kind != 4 || port == 1 => world.happen(kind),
                6..=8 => {
                    let orders = ask(&mut world.ledger, filters[filter], arbiter, join(port));
                    world.carry_out(orders);
                }
                _ => {
                    let orders = ask(&mut world.ledger, filters[filter], arbiter, leave(port));
                    world.carry_out(orders);
                }
            }
        }
        world.settle();
        let routed: u32 = world.routed.values().map(|mask| mask.count_ones()).sum();
        let seated = world.rows.values().filter(|(rows, _)| !rows.is_empty()).count();
        prop_assert_eq!(routed as usize, seated);
        let homes = world.rows.values().filter(|(rows, _)| rows.is_empty()).count();
        prop_assert!(homes <= filters.len(), "only a Topic's own seat stands empty");
    }
}
