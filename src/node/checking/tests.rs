//! Goal: each fault of a check has a sentence of its own. Method: what a socket would bring about is
//! given as a value; `tests/cluster/check.rs` has those that need none.

use super::*;
use crate::registry::handshake::Versions;

fn n2() -> NodeName {
    "n2@h".parse().unwrap()
}

#[test]
fn clocks_that_are_close_pass_and_others_say_which_and_by_how_much() {
    assert_eq!(skew(&n2(), -40).unwrap(), "40 ms apart");
    let ahead = skew(&n2(), 37_250).unwrap_err();
    assert_eq!(
        (ahead.step, ahead.sentence.as_str()),
        (
            "clock",
            "the clock of n2@h is 37.2 s ahead: set both hosts by NTP"
        )
    );
    let behind = skew(&n2(), -6000).unwrap_err().sentence;
    assert!(behind.contains("6.0 s behind"), "{behind}");
}

#[test]
fn a_link_protocol_that_is_not_shared_names_both_ranges() {
    assert!(versions(&n2(), (VERSIONS.min, VERSIONS.max)).is_ok());
    let newer = (VERSIONS.max + 1, VERSIONS.max + 2);
    let fault = versions(&n2(), newer).unwrap_err();
    assert_eq!(fault.step, "version");
    assert!(fault.sentence.contains("versions 2 to 3") && fault.sentence.contains("upgrade the older one"));
}

#[test]
fn what_a_node_answers_instead_is_told_apart() {
    let one = |max| Versions { min: max, max };
    let handshake = |error| AskError::Handshake { node: n2(), error };
    let errors = [
        AskError::Unreachable {
            node: n2(),
            place: "h:1".into(),
            cause: "refused".into(),
        },
        handshake(HandshakeError::Versions {
            ours: one(1),
            theirs: one(2),
        }),
        handshake(HandshakeError::Silent),
        handshake(HandshakeError::WrongNode {
            reached: "n3@h".parse().unwrap(),
            expected: n2(),
        }),
        AskError::BrokenOff {
            node: n2(),
            cause: "closed".into(),
        },
    ];
    let faults: Vec<Fault> = errors.into_iter().map(|error| unreached(&n2(), error)).collect();
    let steps: Vec<&str> = faults.iter().map(|fault| fault.step).collect();
    assert_eq!(steps, ["port", "version", "port", "port", "version"]);
    let mut sentences: Vec<&str> = faults.iter().map(|fault| fault.sentence.as_str()).collect();
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(sentences.len(), 5);
}

#[test]
fn a_missing_way_back_says_what_must_hold_on_the_other_side() {
    let me = "n1@a.invalid".parse().unwrap();
    let sentence = no_way_back(&n2(), &me, "no such host");
    assert_eq!(
        sentence,
        "n2@h does not reach this node: no such host; the host part of n1@a.invalid must be valid there, and \
         this host's ports open for h"
    );
}
