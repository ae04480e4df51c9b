//! What one member hears of another, in whatever order it comes.

use super::*;

fn record(name: &str, stamp: u64, left: bool) -> MemberRecord {
    MemberRecord {
        name: name.parse().unwrap(),
        stamp,
        left,
        by: None,
    }
}

/// `a@h`, linked with `b@h`, from which all is heard.
fn linked(now: Now) -> Membership {
    let mut a = Membership::new(id("a@h", 1), &[], now);
    run(&mut a, Event::Linked(id("b@h", 1)), now);
    a
}

fn hear(a: &mut Membership, records: Vec<MemberRecord>, now: Now) -> Vec<Effect> {
    let from = name("b@h");
    run(a, Event::Heard { from, records }, now)
}

#[test]
fn a_later_stamp_of_a_member_that_is_known_is_told_on_once() {
    let now = at(Instant::now(), 0);
    let mut a = linked(now);
    hear(&mut a, vec![record("c@h", 5, false)], now);
    let later = record("c@h", 1001, false);
    let out = hear(&mut a, vec![later.clone()], now);
    assert!(
        out.contains(&Effect::Gossip) && out.contains(&Effect::Save),
        "{out:?}"
    );
    let out = hear(&mut a, vec![later.clone()], now);
    assert!(!out.contains(&Effect::Gossip), "{out:?}");
    // The leave before that join comes late, by another way.
    hear(&mut a, vec![record("c@h", 1000, true)], now);
    assert!(a.records().contains(&later));
}

#[test]
fn who_is_refused_by_a_node_that_knows_less_dials_again() {
    let start = Instant::now();
    let mut a = linked(at(start, 0));
    hear(&mut a, vec![record("c@h", 7, false)], at(start, 0));
    run(&mut a, Event::DialFailed(name("c@h")), at(start, 1));
    let refused = Event::RefusedAsLeft(record("c@h", 6, true));
    let out = run(&mut a, refused, at(start, 1));
    assert!(matches!(out[..], [Effect::WakeAt(_)]), "{out:?}");
    let out = run(&mut a, Event::Tick, at(start, 9000));
    let again = Effect::Dial {
        name: name("c@h"),
        join: false,
    };
    assert!(out.contains(&again), "{out:?}");
    // A leave that is news ends it.
    run(&mut a, Event::DialFailed(name("c@h")), at(start, 9001));
    let refused = Event::RefusedAsLeft(record("c@h", 8, true));
    run(&mut a, refused, at(start, 9001));
    let out = run(&mut a, Event::Tick, at(start, 99_000));
    assert!(!out.contains(&again), "{out:?}");
}

#[test]
fn of_two_records_with_one_stamp_every_node_keeps_the_leave() {
    let now = at(Instant::now(), 0);
    let (mut a, mut b) = (linked(now), linked(now));
    let records = [record("c@h", 9, true), record("c@h", 9, false)];
    for record in &records {
        hear(&mut a, vec![record.clone()], now);
    }
    for record in records.iter().rev() {
        hear(&mut b, vec![record.clone()], now);
    }
    let of_c = |it: &Membership| it.get(&name("c@h")).unwrap().state;
    assert_eq!((of_c(&a), of_c(&b)), (State::Left, State::Left));
}

#[test]
fn a_node_whose_clock_is_behind_still_leaves() {
    let now = at(Instant::now(), 0);
    let behind = Now {
        wall: now.wall - Duration::from_secs(20),
        ..now
    };
    let [mut a, mut b] = ["a@h", "b@h"].map(|n| Membership::new(id(n, 1), &[], now));
    link(&mut b, &mut a, true, now).unwrap();
    // What a gave b as its stamp comes with the first Members over the link.
    let from = name("a@h");
    let records = a.records();
    run(&mut b, Event::Heard { from, records }, behind);
    run(&mut b, Event::Leave, behind);
    let refusal = b.admit(&hello(&a, false));
    assert!(matches!(refusal, Err(Refusal::Left(_))), "{refusal:?}");
    hear(&mut a, b.records(), now);
    assert_eq!(states(&a), [("b", State::Left)]);
}

#[test]
fn a_join_that_fails_forgets_nobody_whom_a_member_has_named_meanwhile() {
    let now = at(Instant::now(), 0);
    let mut a = linked(now);
    run(&mut a, Event::Join(name("c@h")), now);
    let out = hear(&mut a, vec![record("c@h", 5, false)], now);
    assert!(out.contains(&Effect::Save), "{out:?}");
    run(&mut a, Event::DialFailed(name("c@h")), now);
    assert!(a.holds(&name("c@h")));
}
