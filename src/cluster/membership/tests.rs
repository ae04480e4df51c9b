//! The membership as a value: joins, leaves, absences, simultaneous dials.

use std::time::Duration;

use super::*;
use crate::node_name::Incarnation;

const T0: SystemTime = SystemTime::UNIX_EPOCH;

fn at(start: Instant, ms: u64) -> Now {
    let after = Duration::from_millis(ms);
    Now {
        instant: start + after,
        wall: T0 + Duration::from_secs(1000) + after,
    }
}

fn id(name: &str, incarnation: u64) -> NodeId {
    NodeId {
        name: name.parse().unwrap(),
        incarnation: Incarnation(incarnation),
    }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn hello(of: &Membership, join: bool) -> Hello {
    Hello {
        node: of.me.clone(),
        link: 1,
        join,
        received: 0,
        members: of.records(),
    }
}

fn run(membership: &mut Membership, event: Event, now: Now) -> Vec<Effect> {
    let mut out = Vec::new();
    membership.handle(event, now, &mut out);
    out
}

/// `a` dials `b` and both take the link, as the actors do it.
fn link(a: &mut Membership, b: &mut Membership, join: bool, now: Now) -> Result<(), Refusal> {
    let (from_a, from_b) = (hello(a, join), b.records());
    b.admit(&from_a)?;
    run(b, Event::Linked(a.me.clone()), now);
    run(
        b,
        Event::Heard {
            from: a.me.name.clone(),
            records: from_a.members,
        },
        now,
    );
    run(a, Event::Linked(b.me.clone()), now);
    run(
        a,
        Event::Heard {
            from: b.me.name.clone(),
            records: from_b,
        },
        now,
    );
    Ok(())
}

fn states(membership: &Membership) -> Vec<(&str, State)> {
    membership
        .members()
        .map(|(name, member)| (name.short(), member.state))
        .collect()
}

#[test]
fn a_join_dials_at_once_and_a_failed_one_leaves_nothing_behind() {
    let start = Instant::now();
    let mut a = Membership::new(id("a@h", 1), &[], at(start, 0));
    let out = run(&mut a, Event::Join(name("typo@h")), at(start, 0));
    assert_eq!(
        out,
        [Effect::Dial {
            name: name("typo@h"),
            join: true
        }]
    );
    assert!(a.records().len() == 1, "a tentative member is told to nobody");
    assert_eq!(run(&mut a, Event::DialFailed(name("typo@h")), at(start, 1)), []);
    assert_eq!(states(&a), []);
}

#[test]
fn members_are_told_to_each_other_until_the_mesh_is_whole() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b, mut c] = ["a@h", "b@h", "c@h"].map(|n| Membership::new(id(n, 1), &[], now));
    run(&mut a, Event::Join(name("b@h")), now);
    link(&mut a, &mut b, true, now).unwrap();
    run(&mut b, Event::Join(name("c@h")), now);
    link(&mut b, &mut c, true, now).unwrap();
    let out = run(
        &mut a,
        Event::Heard {
            from: name("b@h"),
            records: b.records(),
        },
        now,
    );
    assert!(
        out.contains(&Effect::Dial {
            name: name("c@h"),
            join: false
        }),
        "{out:?}"
    );
    assert_eq!(
        c.admit(&hello(&a, false)),
        Err(Refusal::Simultaneous),
        "c dials a already"
    );
    link(&mut c, &mut a, false, now).unwrap();
    for member in [&a, &b, &c] {
        assert!(
            states(member).iter().all(|(_, state)| *state == State::Up),
            "{member:?}"
        );
        assert_eq!(states(member).len(), 2);
    }
}

/// Whether the member is dialled within so many milliseconds.
fn dials_within(a: &mut Membership, from: Instant, ms: u64) -> bool {
    let out = run(a, Event::Tick, at(from, ms));
    out.iter().any(|effect| matches!(effect, Effect::Dial { .. }))
}

#[test]
fn a_connection_that_breaks_before_it_is_ready_is_dialled_again_by_whoever_made_it() {
    let start = Instant::now();
    let broke = || Event::Unlinked(id("b@h", 1));
    for dialled in [true, false] {
        let mut a = Membership::new(id("a@h", 1), &[], at(start, 0));
        run(&mut a, Event::Linked(id("b@h", 1)), at(start, 0));
        run(&mut a, broke(), at(start, 0));
        if dialled {
            assert!(dials_within(&mut a, start, 20), "the first time");
        } else {
            run(&mut a, Event::Welcomed(name("b@h")), at(start, 0));
            assert!(!dials_within(&mut a, start, 20), "it waits for the other's");
        }
        run(&mut a, broke(), at(start, 20));
        assert!(dials_within(&mut a, start, 50), "dialled: {dialled}");
    }
}

#[test]
fn a_lost_member_is_dialled_with_growing_pauses_and_jitter() {
    let start = Instant::now();
    let mut a = Membership::new(id("a@h", 1), &[], at(start, 0));
    run(&mut a, Event::Linked(id("b@h", 1)), at(start, 0));
    let out = run(&mut a, Event::Unlinked(id("b@h", 1)), at(start, 0));
    assert_eq!(a.get(&name("b@h")).unwrap().state, State::Down);
    let [Effect::WakeAt(mut due)] = out[..] else {
        panic!("{out:?}")
    };
    let mut pauses = vec![];
    let mut before = start;
    for _ in 0..12 {
        let now = Now {
            instant: due,
            wall: T0,
        };
        let out = run(&mut a, Event::Tick, now);
        assert_eq!(
            out,
            [Effect::Dial {
                name: name("b@h"),
                join: false
            }]
        );
        pauses.push((due - before).as_millis());
        let out = run(&mut a, Event::DialFailed(name("b@h")), now);
        let [Effect::WakeAt(next)] = out[..] else {
            panic!("{out:?}")
        };
        (before, due) = (due, next);
    }
    assert!((7..=12).contains(&pauses[0]), "{pauses:?}");
    assert!(
        pauses[1..].iter().all(|pause| (7..=2500).contains(pause)),
        "{pauses:?}"
    );
    assert!(pauses.last().unwrap() >= &1500, "{pauses:?}");
}

#[test]
fn a_restarted_node_remembers_whom_to_dial() {
    let start = Instant::now();
    let now = at(start, 0);
    let mut a = Membership::new(id("a@h", 1), &[], now);
    run(&mut a, Event::Linked(id("b@h", 1)), now);
    let mut again = Membership::new(id("a@h", 2), &a.records(), now);
    let out = run(&mut again, Event::Tick, now);
    assert_eq!(
        out,
        [Effect::Dial {
            name: name("b@h"),
            join: false
        }]
    );
}

#[test]
fn of_simultaneous_dials_the_one_of_the_greater_name_is_kept() {
    let start = Instant::now();
    let now = at(start, 0);
    let both = |me: &str, other: &str| {
        let record = MemberRecord {
            name: name(other),
            stamp: 1,
            left: false,
            by: None,
        };
        let mut it = Membership::new(id(me, 1), &[record], now);
        run(&mut it, Event::Tick, now);
        it
    };
    let (a, b) = (both("a@h", "b@h"), both("b@h", "a@h"));
    assert_eq!(b.admit(&hello(&a, false)), Err(Refusal::Simultaneous));
    assert_eq!(a.admit(&hello(&b, false)), Ok(()));
}

#[test]
fn the_newest_connection_of_the_same_or_a_newer_life_replaces_and_an_older_life_is_refused() {
    let start = Instant::now();
    let now = at(start, 0);
    let mut b = Membership::new(id("b@h", 1), &[], now);
    run(&mut b, Event::Linked(id("a@h", 5)), now);
    let life = |incarnation| Membership::new(id("a@h", incarnation), &[], now);
    assert_eq!(b.admit(&hello(&life(5), false)), Ok(()));
    assert_eq!(b.admit(&hello(&life(6), false)), Ok(()));
    assert_eq!(b.admit(&hello(&life(4), false)), Err(Refusal::Outdated));
    run(&mut b, Event::Linked(id("a@h", 6)), now);
    assert!(run(&mut b, Event::Unlinked(id("a@h", 5)), now).is_empty());
    assert_eq!(b.get(&name("a@h")).unwrap().state, State::Up);
}

#[test]
fn who_left_is_not_brought_back_by_a_node_that_was_away() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b, mut c] = ["a@h", "b@h", "c@h"].map(|n| Membership::new(id(n, 1), &[], now));
    run(&mut a, Event::Join(name("b@h")), now);
    link(&mut a, &mut b, true, now).unwrap();
    link(&mut c, &mut a, true, now).unwrap();
    link(&mut c, &mut b, false, now).unwrap();
    // c goes away; b leaves; a learns it, c does not.
    run(&mut a, Event::Unlinked(id("c@h", 1)), now);
    let later = at(start, 5000);
    let out = run(&mut b, Event::Leave, later);
    assert!(
        out.starts_with(&[Effect::Gossip]) && out.contains(&Effect::Close(name("a@h"))),
        "{out:?}"
    );
    let out = run(
        &mut a,
        Event::Heard {
            from: name("b@h"),
            records: b.records(),
        },
        later,
    );
    assert!(out.contains(&Effect::Close(name("b@h"))), "{out:?}");
    assert_eq!(a.get(&name("b@h")).unwrap().state, State::Left);
    // c returns and dials b, then a.
    let mut c = Membership::new(id("c@h", 2), &c.records(), later);
    let refusal = b.admit(&hello(&c, false)).unwrap_err();
    let Refusal::Left(record) = refusal else {
        panic!("{refusal:?}")
    };
    assert!(record.left && record.name == name("b@h"));
    link(&mut c, &mut a, false, later).unwrap();
    assert_eq!(c.get(&name("b@h")).unwrap().state, State::Left);
    // A join undoes the leave, everywhere.
    let later = at(start, 9000);
    run(&mut a, Event::Join(name("b@h")), later);
    link(&mut a, &mut b, true, later).unwrap();
    assert_eq!(states(&a), [("b", State::Up), ("c", State::Up)]);
    let out = run(
        &mut c,
        Event::Heard {
            from: name("a@h"),
            records: a.records(),
        },
        later,
    );
    assert!(
        out.contains(&Effect::Dial {
            name: name("b@h"),
            join: false
        }),
        "{out:?}"
    );
    link(&mut c, &mut b, false, later).unwrap();
}

#[test]
fn a_late_frame_of_a_former_peer_does_not_undo_a_leave() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b] = ["a@h", "b@h"].map(|n| Membership::new(id(n, 1), &[], now));
    link(&mut a, &mut b, true, now).unwrap();
    run(&mut b, Event::Leave, now);
    run(
        &mut b,
        Event::Heard {
            from: name("a@h"),
            records: a.records(),
        },
        now,
    );
    assert_eq!(states(&b), []);
}

#[test]
fn a_node_that_was_told_that_it_left_forgets_the_cluster_and_remembers_that_over_a_restart() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b] = ["a@h", "b@h"].map(|n| Membership::new(id(n, 1), &[], now));
    link(&mut a, &mut b, true, now).unwrap();
    let tombstone = MemberRecord {
        name: name("b@h"),
        stamp: u64::MAX / 2,
        left: true,
        by: None,
    };
    run(&mut b, Event::RefusedAsLeft(tombstone.clone()), now);
    assert_eq!((states(&b), b.records()), (vec![], vec![tombstone.clone()]));
    let again = Membership::new(id("b@h", 2), &b.records(), now);
    assert_eq!(again.records(), [tombstone]);
    assert_eq!(again.admit(&hello(&b, false)), Err(Refusal::Myself));
}

#[test]
fn suspicion_comes_and_goes() {
    let start = Instant::now();
    let now = at(start, 0);
    let mut a = Membership::new(id("a@h", 1), &[], now);
    run(&mut a, Event::Linked(id("b@h", 1)), now);
    run(&mut a, Event::Suspect(name("b@h")), now);
    assert_eq!(states(&a), [("b", State::Suspect)]);
    run(&mut a, Event::Trusted(name("b@h")), now);
    assert_eq!(states(&a), [("b", State::Up)]);
}

mod news;
mod outsiders;
mod tombstones;
