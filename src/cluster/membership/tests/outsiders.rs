//! Who is forced out, and who is found without a join.

use super::*;

#[test]
fn who_is_forced_out_is_told_so_when_it_returns_also_after_its_restart_and_a_join_undoes_it() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b, mut c] = ["a@h", "b@h", "c@h"].map(|n| Membership::new(id(n, 1), &[], now));
    link(&mut a, &mut b, true, now).unwrap();
    link(&mut c, &mut a, true, now).unwrap();
    link(&mut c, &mut b, false, now).unwrap();
    let later = at(start, 5000);
    let out = run(&mut a, Event::Expel(name("b@h")), later);
    let told_first = [Effect::Gossip, Effect::Close(name("b@h")), Effect::Save];
    assert!(out.starts_with(&told_first), "{out:?}");
    let records = a.records();
    let heard = Event::Heard {
        from: name("a@h"),
        records,
    };
    run(&mut c, heard, later);
    assert_eq!(states(&c), [("a", State::Up), ("b", State::Left)]);
    assert_eq!(c.get(&name("b@h")).unwrap().by, Some(name("a@h")));
    // Either of them tells it.
    let Err(Refusal::Left(record)) = c.admit(&hello(&b, false)) else {
        panic!("b is welcome at c")
    };
    run(&mut b, Event::RefusedAsLeft(record), later);
    assert_eq!(states(&b), []);
    let mut b = Membership::new(id("b@h", 2), &b.records(), later);
    assert_eq!(b.forced_out().map(|(by, _)| by.clone()), Some(name("a@h")));
    assert_eq!(run(&mut b, Event::Tick, later), [], "it dials nobody");
    run(&mut b, Event::Seeds(vec![name("a@h")]), later);
    assert_eq!(states(&b), [], "seeds do not bring it back");
    run(&mut b, Event::Join(name("a@h")), later);
    link(&mut b, &mut a, true, later).unwrap();
    assert_eq!(b.forced_out(), None);
    assert_eq!(states(&a), [("b", State::Up), ("c", State::Up)]);
    assert_eq!(a.get(&name("b@h")).unwrap().by, None);
}

#[test]
fn only_another_member_can_be_forced_out_and_only_once() {
    let start = Instant::now();
    let now = at(start, 0);
    let mut a = Membership::new(id("a@h", 1), &[], now);
    assert_eq!(run(&mut a, Event::Expel(name("a@h")), now), []);
    assert_eq!(run(&mut a, Event::Expel(name("b@h")), now), []);
    run(&mut a, Event::Linked(id("b@h", 1)), now);
    run(&mut a, Event::Unlinked(id("b@h", 1)), now);
    let out = run(&mut a, Event::Expel(name("b@h")), now);
    assert_eq!(out, [Effect::Gossip, Effect::Save], "there is no link to close");
    assert_eq!(run(&mut a, Event::Expel(name("b@h")), now), []);
}

#[test]
fn seeds_are_dialled_until_they_are_linked_and_told_to_nobody_before() {
    let start = Instant::now();
    let now = at(start, 0);
    let mut a = Membership::new(id("a@h", 1), &[], now);
    let seeds = |names: &[&str]| Event::Seeds(names.iter().map(|text| name(text)).collect());
    let out = run(&mut a, seeds(&["a@h", "b@h", "c@h"]), now);
    let dials = |out: &[Effect]| -> Vec<String> {
        let of = |effect: &Effect| match effect {
            Effect::Dial { name, join: false } => Some(name.short().to_owned()),
            _ => None,
        };
        out.iter().filter_map(of).collect()
    };
    assert_eq!(dials(&out), ["b", "c"]);
    assert_eq!(a.records().len(), 1);
    run(&mut a, Event::DialFailed(name("b@h")), now);
    run(&mut a, Event::DialFailed(name("c@h")), now);
    let out = run(&mut a, Event::Tick, at(start, 200));
    assert_eq!(dials(&out), ["b", "c"], "again");
    run(&mut a, Event::Linked(id("b@h", 1)), now);
    assert_eq!(a.records().len(), 2);
    // DNS names others now: who was linked stays, who never was is forgotten.
    run(&mut a, Event::DialFailed(name("c@h")), now);
    run(&mut a, seeds(&["d@h"]), now);
    assert_eq!(states(&a), [("b", State::Up), ("d", State::Joining)]);
}

#[test]
fn a_join_of_a_seed_that_fails_leaves_the_seed_and_who_left_is_not_brought_back_by_one() {
    let start = Instant::now();
    let now = at(start, 0);
    let [mut a, mut b] = ["a@h", "b@h"].map(|n| Membership::new(id(n, 1), &[], now));
    run(&mut a, Event::Seeds(vec![name("b@h")]), now);
    run(&mut a, Event::DialFailed(name("b@h")), now);
    run(&mut a, Event::Join(name("b@h")), now);
    run(&mut a, Event::DialFailed(name("b@h")), now);
    assert_eq!(states(&a), [("b", State::Joining)]);
    link(&mut a, &mut b, false, now).unwrap();
    run(&mut b, Event::Leave, at(start, 9));
    let records = b.records();
    let heard = Event::Heard {
        from: name("b@h"),
        records,
    };
    run(&mut a, heard, at(start, 9));
    run(&mut a, Event::Seeds(vec![name("b@h")]), at(start, 9));
    assert_eq!(states(&a), [("b", State::Left)]);
}
