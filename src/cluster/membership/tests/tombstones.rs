//! Members that were, beside members that are.

use super::*;
use crate::limits::{NODES_MAX, TOMBSTONES_MAX};

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

fn left(a: &Membership) -> Vec<&NodeName> {
    let left = a.members().filter(|(_, member)| member.state == State::Left);
    left.map(|(name, _)| name).collect()
}

#[test]
fn who_has_left_takes_up_no_place_of_a_member() {
    let now = at(Instant::now(), 0);
    let mut a = linked(now);
    let gone = (0..NODES_MAX).map(|n| record(&format!("gone{n}@h"), 5, true));
    hear(&mut a, gone.collect(), now);
    let members = (1..NODES_MAX).map(|n| record(&format!("n{n}@h"), 5, false));
    hear(&mut a, members.collect(), now);
    assert_eq!((left(&a).len(), a.members().count()), (NODES_MAX, 2 * NODES_MAX));
    // Full of members now, in whichever way another one comes.
    hear(
        &mut a,
        vec![record("one@more", 9, false), record("gone7@h", 9, false)],
        now,
    );
    assert!(!a.holds(&name("one@more")) && !a.holds(&name("gone7@h")));
    for late in ["one@more", "gone7@h"] {
        let late = Membership::new(id(late, 1), &[], now);
        assert_eq!(a.admit(&hello(&late, true)), Err(Refusal::Full));
    }
    run(&mut a, Event::Join(name("one@more")), now);
    run(&mut a, Event::Seeds(vec![name("one@more")]), now);
    assert!(a.get(&name("one@more")).is_none());
    // A place is free as soon as somebody leaves.
    hear(
        &mut a,
        vec![record("n7@h", 9, true), record("gone7@h", 9, false)],
        now,
    );
    assert!(a.holds(&name("gone7@h")) && !a.holds(&name("n7@h")));
}

#[test]
fn the_oldest_tombstones_are_forgotten_and_their_old_news_is_no_news() {
    let now = at(Instant::now(), 0);
    let mut a = linked(now);
    let stamp = |n: usize| n as u64 + 10;
    let gone = (0..TOMBSTONES_MAX).map(|n| record(&format!("gone{n}@h"), stamp(n), true));
    hear(&mut a, gone.collect(), now);
    let later = record("later@h", stamp(TOMBSTONES_MAX), true);
    assert!(hear(&mut a, vec![later], now).contains(&Effect::Gossip));
    assert_eq!(left(&a).len(), TOMBSTONES_MAX);
    assert!(a.get(&name("gone0@h")).is_none() && a.get(&name("gone1@h")).is_some());
    let out = hear(&mut a, vec![record("gone0@h", stamp(0), true)], now);
    assert!(
        !out.contains(&Effect::Gossip),
        "nobody is told of it again and again"
    );
    assert!(a.get(&name("gone0@h")).is_none());
    // What that means: who was away since before takes it for a member.
    hear(
        &mut a,
        vec![record("gone0@h", 4, false), record("gone1@h", 4, false)],
        now,
    );
    assert!(a.holds(&name("gone0@h")) && !a.holds(&name("gone1@h")));
}

#[test]
fn a_file_with_more_tombstones_than_are_kept_gives_the_latest() {
    let now = at(Instant::now(), 0);
    let gone = (0..TOMBSTONES_MAX + 3).map(|n| record(&format!("gone{n}@h"), n as u64 + 1, true));
    let remembered: Vec<_> = gone.chain([record("b@h", 1, false)]).collect();
    let a = Membership::new(id("a@h", 1), &remembered, now);
    assert_eq!(left(&a).len(), TOMBSTONES_MAX);
    assert!(a.get(&name("gone2@h")).is_none() && a.get(&name("gone3@h")).is_some());
    assert!(a.holds(&name("b@h")));
}
