mod rotation;

use proptest::prelude::*;

use super::*;
use crate::node_name::Incarnation;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ONE: Versions = Versions { min: 1, max: 1 };

type Outcome = Result<Proved, HandshakeError>;

fn cookie(text: &str) -> Cookie {
    Cookie::from_text(text).unwrap()
}

fn node(name: &str, incarnation: u64) -> NodeId {
    NodeId {
        name: name.parse().unwrap(),
        incarnation: Incarnation(incarnation),
    }
}

fn client(secret: &str, purpose: Purpose, expect: Option<&str>, nonce: u8) -> (Client, Vec<u8>) {
    let me = Identity::node(node("n1@h1", 7));
    let expect = expect.map(|name| name.parse().unwrap());
    Client::start(cookie(secret), me, purpose, expect, ONE, [nonce; 32])
}

fn server(secret: &str, nonce: u8) -> Server {
    Server::new(
        cookie(secret),
        node("n2@h2", 9),
        &[Purpose::Link, Purpose::Control],
        ONE,
        [nonce; 32],
    )
}

/// Runs both sides against each other; `tamper` sees every frame by its step. A side whose partner
/// fell silent ends with `Closed`.
fn exchange(
    (mut client, hello): (Client, Vec<u8>),
    mut server: Server,
    mut tamper: impl FnMut(u8, &mut Vec<u8>),
) -> (Outcome, Outcome) {
    let (mut client_end, mut server_end) = (None, None);
    let mut frame = hello;
    for step in 1..=4 {
        tamper(step, &mut frame);
        let (end, taken) = match step {
            1 | 3 => (&mut server_end, server.step(&frame)),
            _ => (&mut client_end, client.step(&frame)),
        };
        let say = match taken {
            Ok(Step::Say(say)) => Some(say),
            Ok(Step::Done { say, proved }) => {
                *end = Some(Ok(proved));
                say
            }
            Ok(Step::Refuse { say, error }) => {
                *end = Some(Err(error));
                Some(say)
            }
            Err(error) => {
                *end = Some(Err(error));
                None
            }
        };
        match say {
            Some(say) => frame = say,
            None => break,
        }
    }
    let closed = || Err(HandshakeError::Closed { step: 0 });
    (
        client_end.unwrap_or_else(closed),
        server_end.unwrap_or_else(closed),
    )
}

fn untouched(_: u8, _: &mut Vec<u8>) {}

#[test]
fn with_one_cookie_both_sides_know_each_other() {
    let (client_end, server_end) = exchange(
        client(SECRET, Purpose::Link, Some("n2@h2"), 1),
        server(SECRET, 2),
        untouched,
    );
    let proved = |node| Proved {
        identity: Identity::node(node),
        purpose: Purpose::Link,
        version: 1,
        cookie: cookie(SECRET).fingerprint(),
    };
    assert_eq!(client_end, Ok(proved(node("n2@h2", 9))));
    assert_eq!(server_end, Ok(proved(node("n1@h1", 7))));
}

#[test]
fn the_frames_are_frozen() {
    // Computed from docs/PROTOCOL.md by an independent program.
    let golden = [
        "0145524d4e00010001011111111111111111111111111111111111111111111111111111111111111111",
        "0245524d4e000100012222222222222222222222222222222222222222222222222222222222222222",
        "0300010100000000000000056e3140683100000000000000070100000000000000056e32406832\
         1977d237bfab90b8696d1f5ad1801a833fe3cdf2aa2b41095ada62ec85790a18",
        "040000000000000000056e324068320000000000000009\
         bbc7c3aa225e3cfa3dfb144d0fe283038f87411b3f1fbc2f57d3a4273634e9b5",
    ];
    let mut seen = Vec::new();
    let note = |_, frame: &mut Vec<u8>| seen.push(hex(frame));
    let (client_end, _) = exchange(
        client(SECRET, Purpose::Link, Some("n2@h2"), 0x11),
        server(SECRET, 0x22),
        note,
    );
    client_end.unwrap();
    assert_eq!(seen, golden);
    assert_eq!(hex(&frames::refused(frames::Refusal::Mismatch)), "0501");
    assert_eq!(cookie(SECRET).fingerprint().to_string(), "9235da65");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_wrong_cookie_is_a_cookie_mismatch_on_both_sides() {
    let other = "another-cookie-of-decent-length";
    let (client_end, server_end) = exchange(
        client(SECRET, Purpose::Link, Some("n2@h2"), 1),
        server(other, 2),
        untouched,
    );
    assert_eq!(
        client_end.unwrap_err().to_string(),
        format!(
            "cookie mismatch with n2@h2: it does not hold our cookie (fingerprint {}): \
             compare `ermine cookie fingerprint` on both sides",
            cookie(SECRET).fingerprint()
        )
    );
    assert_eq!(
        server_end.unwrap_err().to_string(),
        format!(
            "cookie mismatch with a node that calls itself n1@h1: it does not hold our cookie \
             (fingerprint {}): compare `ermine cookie fingerprint` on both sides",
            cookie(other).fingerprint()
        )
    );
}

#[test]
fn before_the_proof_a_server_says_only_its_versions_and_a_nonce() {
    let mut frames = Vec::new();
    let note = |step, frame: &mut Vec<u8>| frames.push((step, frame.clone()));
    let _ = exchange(
        client("another-cookie-of-decent-length", Purpose::Link, None, 1),
        server(SECRET, 2),
        note,
    );
    assert_eq!(frames[1].1, [&b"\x02ERMN\0\x01\0\x01"[..], &[2; 32]].concat());
    assert_eq!(frames[3].1, [5, 1], "the refusal holds nothing");
}

#[test]
fn a_node_without_the_cookie_cannot_pass_for_the_server() {
    // An impostor that leaves the client's proof unchecked and makes up its own.
    let (mut client, hello) = client(SECRET, Purpose::Link, None, 1);
    let mut honest = server(SECRET, 2);
    let mut impostor = server("another-cookie-of-decent-length", 2);
    let (Ok(Step::Say(challenge)), Ok(_)) = (honest.step(&hello), impostor.step(&hello)) else {
        panic!()
    };
    let Ok(Step::Say(_)) = client.step(&challenge) else {
        panic!()
    };
    let mut answer = frames::ServerProof {
        verdict: Verdict::Accepted,
        node: node("n2@h2", 9),
    }
    .encode();
    let len = answer.len();
    answer[len - 32..].fill(0x55);
    assert!(matches!(
        client.step(&answer),
        Err(HandshakeError::CookieMismatch { .. })
    ));
}

#[test]
fn a_replayed_proof_proves_nothing() {
    let mut recorded = Vec::new();
    let note = |_, frame: &mut Vec<u8>| recorded.push(frame.clone());
    exchange(client(SECRET, Purpose::Link, None, 1), server(SECRET, 2), note)
        .1
        .unwrap();
    let mut fresh = server(SECRET, 3);
    assert!(matches!(fresh.step(&recorded[0]), Ok(Step::Say(_))));
    let Ok(Step::Refuse { say, error }) = fresh.step(&recorded[2]) else {
        panic!()
    };
    assert!(matches!(error, HandshakeError::CookieMismatch { .. }));
    assert_eq!(say, frames::refused(frames::Refusal::Mismatch));
}

#[test]
fn what_a_side_said_itself_is_not_taken_from_the_other() {
    // Hello sent back in place of the challenge; the nonce sent back in a challenge; the proof sent back.
    let (mut one, hello) = client(SECRET, Purpose::Link, None, 1);
    assert_eq!(one.step(&hello), Err(HandshakeError::NotErmine));
    let (two, _) = exchange(
        client(SECRET, Purpose::Link, None, 1),
        server(SECRET, 1),
        untouched,
    );
    assert!(two.is_err());
    let (mut three, hello) = client(SECRET, Purpose::Link, None, 1);
    assert_eq!(server(SECRET, 1).step(&hello), Err(HandshakeError::Reflected));
    let mirrored = Challenge {
        versions: ONE,
        nonce: [1; 32],
    }
    .encode();
    assert_eq!(three.step(&mirrored), Err(HandshakeError::Reflected));
    let (mut four, _) = client(SECRET, Purpose::Link, None, 1);
    let Ok(Step::Say(proof)) = four.step(
        &Challenge {
            versions: ONE,
            nonce: [2; 32],
        }
        .encode(),
    ) else {
        panic!()
    };
    assert_eq!(four.step(&proof), Err(HandshakeError::Malformed { step: 4 }));
}

#[test]
fn a_role_cannot_be_played_with_the_key_of_the_other() {
    let transcript = Transcript::new(Purpose::Link, &[]);
    let sealed = transcript.seal(&cookie(SECRET), Role::Client, vec![0; 40]);
    assert!(transcript.verify(&cookie(SECRET), Role::Client, &sealed));
    assert!(!transcript.verify(&cookie(SECRET), Role::Server, &sealed));
    let other_door = Transcript::new(Purpose::Control, &[]);
    assert!(!other_door.verify(&cookie(SECRET), Role::Client, &sealed));
    assert!(
        !transcript.verify(&cookie(SECRET), Role::Client, &sealed[..31]),
        "too short for a proof"
    );
}

#[test]
fn a_wrong_node_is_named_on_both_sides() {
    let (client_end, server_end) = exchange(
        client(SECRET, Purpose::Link, Some("n3@h2"), 1),
        server(SECRET, 2),
        untouched,
    );
    let sentence = "n2@h2 was reached, not n3@h2: the name, its host or a port is wrong";
    assert_eq!(client_end.unwrap_err().to_string(), sentence);
    assert_eq!(server_end.unwrap_err().to_string(), sentence);
}

#[test]
fn a_wrong_door_is_named_on_both_sides() {
    let (client_end, server_end) = exchange(
        client(SECRET, Purpose::Registry, None, 1),
        server(SECRET, 2),
        untouched,
    );
    assert_eq!(
        client_end.unwrap_err().to_string(),
        "this port takes no registry connections"
    );
    assert_eq!(
        server_end,
        Err(HandshakeError::WrongDoor {
            asked: Purpose::Registry
        })
    );
}

#[test]
fn versions_without_a_common_one_are_named_on_both_sides() {
    let newer = Versions { min: 2, max: 3 };
    let old = client(SECRET, Purpose::Link, None, 1);
    let new = Server::new(cookie(SECRET), node("n2@h2", 9), &[Purpose::Link], newer, [2; 32]);
    let (client_end, server_end) = exchange(old, new, untouched);
    assert_eq!(
        client_end.unwrap_err().to_string(),
        "protocol version mismatch: we speak version 1, the other side 2 to 3: upgrade the older one"
    );
    assert_eq!(
        server_end.unwrap_err().to_string(),
        "protocol version mismatch: we speak version 2 to 3, the other side 1: upgrade the older one"
    );
}

#[test]
fn a_future_layout_behind_its_versions_is_still_a_version_mismatch() {
    let future = b"\x01ERMN\0\x02\0\x09and whatever follows then";
    assert!(matches!(
        server(SECRET, 2).step(future),
        Ok(Step::Refuse {
            error: HandshakeError::Versions {
                theirs: Versions { min: 2, max: 9 },
                ..
            },
            ..
        })
    ));
}

#[test]
fn the_highest_common_version_is_spoken() {
    let range = |min, max| Versions { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
    assert_eq!(range(1, 2).common(range(3, 4)), None);
    let wide = range(1, 3);
    let me = Identity::command();
    let dialled = Client::start(cookie(SECRET), me, Purpose::Control, None, wide, [1; 32]);
    let (client_end, server_end) = exchange(dialled, server(SECRET, 2), untouched);
    assert_eq!((client_end.unwrap().version, server_end.unwrap().version), (1, 1));
}

#[test]
fn a_command_has_no_node_and_a_mismatch_says_so() {
    let command = |secret| {
        let me = Identity::command();
        Client::start(cookie(secret), me, Purpose::Control, None, ONE, [1; 32])
    };
    let (_, server_end) = exchange(command(SECRET), server(SECRET, 2), untouched);
    assert_eq!(server_end.unwrap().identity, Identity::command());
    let (_, server_end) = exchange(
        command("another-cookie-of-decent-length"),
        server(SECRET, 2),
        untouched,
    );
    assert!(
        server_end
            .unwrap_err()
            .to_string()
            .starts_with("cookie mismatch with an ermine command: ")
    );
}

#[test]
fn strangers_are_told_apart_from_wrong_cookies() {
    let strangers: [&[u8]; 4] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x10\x0c\0\x04MQTT\x04\x02",
        &[0; 64],
    ];
    for stranger in strangers {
        assert_eq!(server(SECRET, 2).step(stranger), Err(HandshakeError::NotErmine));
        assert_eq!(
            client(SECRET, Purpose::Link, None, 1).0.step(stranger),
            Err(HandshakeError::NotErmine)
        );
    }
    let backwards = b"\x01ERMN\0\x02\0\x01";
    assert_eq!(
        server(SECRET, 2).step(backwards),
        Err(HandshakeError::Malformed { step: 1 })
    );
}

#[test]
fn a_side_that_is_over_takes_nothing_more() {
    let (mut client, hello) = client(SECRET, Purpose::Link, None, 1);
    let mut server = server(SECRET, 2);
    let Ok(Step::Say(challenge)) = server.step(&hello) else {
        panic!()
    };
    let Ok(Step::Say(proof)) = client.step(&challenge) else {
        panic!()
    };
    let Ok(Step::Done { say: Some(last), .. }) = server.step(&proof) else {
        panic!()
    };
    assert!(matches!(client.step(&last), Ok(Step::Done { say: None, .. })));
    assert_eq!(client.step(&last), Err(HandshakeError::Malformed { step: 4 }));
    assert_eq!(server.step(&proof), Err(HandshakeError::Malformed { step: 3 }));
}

#[test]
fn the_longest_names_fit_a_frame() {
    let longest = format!("n@{}", "h".repeat(253));
    let me = Identity::node(node(&longest, u64::MAX));
    let expect = Some(longest.parse().unwrap());
    let dialled = Client::start(cookie(SECRET), me, Purpose::Link, expect, ONE, [1; 32]);
    let long = Server::new(cookie(SECRET), node(&longest, 1), &[Purpose::Link], ONE, [2; 32]);
    let (client_end, server_end) = exchange(dialled, long, untouched);
    assert!(client_end.is_ok() && server_end.is_ok());
}

proptest! {
    #[test]
    fn any_flipped_bit_ends_the_handshake_of_the_side_that_reads_it(
        step in 1..=4u8, at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let flip = |now, frame: &mut Vec<u8>| if now == step {
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
        };
        let dialled = client(SECRET, Purpose::Link, Some("n2@h2"), 1);
        let (client_end, server_end) = exchange(dialled, server(SECRET, 2), flip);
        prop_assert!(client_end.is_err(), "{client_end:?}");
        // After (4) the server has its proof; it is the client that reads the flipped bit.
        prop_assert_eq!(server_end.is_err(), step < 4);
    }

    #[test]
    fn any_bytes_in_place_of_a_frame_end_it_without_a_panic(
        step in 1..=4u8, bytes in prop::collection::vec(any::<u8>(), 0..1024),
    ) {
        let put = |now, frame: &mut Vec<u8>| if now == step { *frame = bytes.clone(); };
        let (client_end, server_end) =
            exchange(client(SECRET, Purpose::Link, None, 1), server(SECRET, 2), put);
        prop_assert!(client_end.is_err());
        prop_assert_eq!(server_end.is_err(), step < 4);
    }

    #[test]
    fn cookies_that_differ_never_agree(ours in "[ -~]{16,64}", theirs in "[ -~]{16,64}") {
        prop_assume!(ours != theirs);
        let (client_end, server_end) =
            exchange(client(&ours, Purpose::Link, None, 1), server(&theirs, 2), untouched);
        let mismatch = |end: &Outcome| matches!(end, Err(HandshakeError::CookieMismatch { .. }));
        prop_assert!(mismatch(&client_end) && mismatch(&server_end));
    }
}

#[test]
fn a_proof_holds_for_its_own_connection_only() {
    let exchange = |near: &[u8], far: &[u8]| {
        let secret = cookie(SECRET);
        let (client, hello) = Client::start(
            secret.clone(),
            Identity::command(),
            Purpose::Link,
            None,
            PROTOCOL_VERSIONS,
            [1; 32],
        );
        let mut client = client.bound_to(near);
        let there = node("n2@h2", 9);
        let mut server =
            Server::new(secret, there, &[Purpose::Link], PROTOCOL_VERSIONS, [2; 32]).bound_to(far);
        let Ok(Step::Say(challenge)) = server.step(&hello) else {
            panic!("a challenge")
        };
        let Ok(Step::Say(proof)) = client.step(&challenge) else {
            panic!("a proof")
        };
        server.step(&proof).expect("an answer")
    };
    assert!(matches!(exchange(&[7; 32], &[7; 32]), Step::Done { .. }));
    // Forwarded from one TLS connection to another, or taken out of TLS.
    for (near, far) in [(&[7; 32][..], &[8; 32][..]), (&[7; 32], &[]), (&[], &[7; 32])] {
        let error = match exchange(near, far) {
            Step::Refuse { error, .. } => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(error, HandshakeError::CookieMismatch { .. }));
    }
}
