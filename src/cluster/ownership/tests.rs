//! Ownership, step by step: the time-outs that the model tries at any moment, at their own.

use std::time::{Duration, Instant, UNIX_EPOCH};

use super::*;
use crate::node_name::Incarnation;

fn node(n: u64) -> NodeId {
    NodeId {
        name: format!("n{n}@h").parse().unwrap(),
        incarnation: Incarnation(n),
    }
}

/// An id whose home is the second of two nodes.
fn id_of_the_other(ownership: &Ownership) -> ByteString {
    let ids = (0..100).map(|n| ByteString::from(format!("client-{n}")));
    let mut others = ids.filter(|id| *ownership.home_of(id) == node(2));
    others
        .next()
        .expect("rendezvous hashing gives each of two nodes some of a hundred")
}

fn opens(out: &[Effect]) -> bool {
    out.iter().any(|effect| matches!(effect, Effect::Open { .. }))
}

fn at(start: Instant, later: Duration) -> Now {
    Now {
        instant: start + later,
        wall: UNIX_EPOCH,
    }
}

#[test]
fn a_node_alone_opens_at_once_and_says_nothing() {
    let mut alone = Ownership::new(node(1));
    let mut out = Vec::new();
    alone.handle(
        Event::Connect("c".into()),
        at(Instant::now(), Duration::ZERO),
        &mut out,
    );
    assert!(opens(&out));
    assert!(
        !out.iter().any(|effect| matches!(effect, Effect::Send(..))),
        "{out:?}"
    );
}

#[test]
fn a_silent_home_is_passed_over_when_its_time_is_up_and_not_before() {
    let (start, mut out) = (Instant::now(), Vec::new());
    let mut claimant = Ownership::new(node(1));
    claimant.handle(Event::Up(node(2)), at(start, Duration::ZERO), &mut out);
    let id = id_of_the_other(&claimant);
    claimant.handle(Event::Connect(id), at(start, Duration::ZERO), &mut out);
    claimant.handle(
        Event::Wake,
        at(start, CLAIM_WITHIN - Duration::from_millis(1)),
        &mut out,
    );
    assert!(!opens(&out) && claimant.claims_len() == 1);
    claimant.handle(Event::Wake, at(start, CLAIM_WITHIN), &mut out);
    assert!(opens(&out) && claimant.claims_len() == 0);
}

#[test]
fn an_owner_that_does_not_answer_is_fenced_and_a_connect_waits_less_than_five_seconds() {
    let (start, mut out) = (Instant::now(), Vec::new());
    let mut claimant = Ownership::new(node(1));
    claimant.handle(Event::Up(node(2)), at(start, Duration::ZERO), &mut out);
    let id = id_of_the_other(&claimant);
    claimant.handle(Event::Connect(id.clone()), at(start, Duration::ZERO), &mut out);
    let granted = Letter::Granted {
        id,
        claim: 1,
        epoch: Epoch { counter: 7, by: 2 },
        previous: Some(node(2)),
    };
    // The home's answer comes as late as it may, and names an owner that says nothing.
    let late = CLAIM_WITHIN - Duration::from_millis(1);
    claimant.handle(Event::Letter(node(2), granted), at(start, late), &mut out);
    assert!(!opens(&out));
    claimant.handle(Event::Wake, at(start, late + OWNER_ANSWERS_WITHIN), &mut out);
    assert!(opens(&out));
    assert!(CLAIM_WITHIN + OWNER_ANSWERS_WITHIN < Duration::from_secs(5));
}
