//! A server that holds several cookies, as after a rotation.

use super::*;

const NEW: &str = "the-new-cookie-of-all-nodes";
const OLDER: &str = "the-cookie-that-was-replaced";

fn rotated() -> Server {
    server(NEW, 2).also_taking(&[cookie(SECRET)], &[cookie(OLDER)])
}

fn meet(secret: &str) -> (Outcome, Outcome) {
    exchange(
        client(secret, Purpose::Link, Some("n2@h2"), 1),
        rotated(),
        untouched,
    )
}

#[test]
fn either_cookie_is_taken_and_both_sides_know_which_it_was() {
    for secret in [NEW, SECRET] {
        let (client_end, server_end) = meet(secret);
        let print = cookie(secret).fingerprint();
        assert_eq!(client_end.unwrap().cookie, print);
        assert_eq!(server_end.unwrap().cookie, print);
    }
}

#[test]
fn a_cookie_that_was_replaced_is_told_apart_from_a_stranger_s_on_both_sides() {
    let (client_end, server_end) = meet(OLDER);
    let (client_end, server_end) = (client_end.unwrap_err(), server_end.unwrap_err());
    let (old, new) = (cookie(OLDER).fingerprint(), cookie(NEW).fingerprint());
    assert_eq!(
        client_end.to_string(),
        format!(
            "our cookie (fingerprint {old}) was replaced there by `ermine cookie rotate`, and its grace is \
             over: copy the cookie file of a member here"
        )
    );
    assert_eq!(
        server_end.to_string(),
        format!(
            "a node that calls itself n1@h1 holds a cookie that was replaced, and its grace is over (ours \
             has fingerprint {new}): copy the cookie file of this cluster to it"
        )
    );
    assert!(client_end.is_of_cookie() && server_end.is_of_cookie());
    let (client_end, server_end) = meet("a-cookie-of-somebody-else");
    assert!(matches!(client_end, Err(HandshakeError::CookieMismatch { .. })));
    assert!(matches!(server_end, Err(HandshakeError::CookieMismatch { .. })));
}

#[test]
fn the_second_refusal_is_frozen() {
    assert_eq!(hex(&frames::refused(frames::Refusal::Replaced)), "0502");
    assert!(frames::refusal(&[5, 3]).is_none() && frames::refusal(&[5]).is_none());
}

#[test]
fn what_is_taken_from_others_proves_nothing_to_them() {
    // The server answers with the cookie that was proved to it, never with another one.
    let (mut asking, hello) = client(SECRET, Purpose::Link, Some("n2@h2"), 1);
    let mut answering = rotated();
    let Ok(Step::Say(challenge)) = answering.step(&hello) else {
        panic!("no challenge")
    };
    let Ok(Step::Say(proof)) = asking.step(&challenge) else {
        panic!("no proof")
    };
    let Ok(Step::Done {
        say: Some(answer), ..
    }) = answering.step(&proof)
    else {
        panic!("not accepted")
    };
    let mut transcript = Transcript::new(Purpose::Link, &[]);
    [&hello, &challenge, &proof]
        .into_iter()
        .for_each(|frame| transcript.absorb(frame));
    assert!(transcript.verify(&cookie(SECRET), Role::Server, &answer));
    assert!(!transcript.verify(&cookie(NEW), Role::Server, &answer));
}
