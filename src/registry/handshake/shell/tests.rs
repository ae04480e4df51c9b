use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::node_name::Incarnation;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

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

fn jar() -> CookieJar {
    cookie(SECRET).into()
}

async fn both(ours: &str, theirs: &str, expect: Option<&str>) -> (Outcome, Outcome) {
    let (mut near, mut far) = duplex(4096);
    let (ours, theirs) = (cookie(ours), cookie(theirs).into());
    let expect = expect.map(|name| name.parse().unwrap());
    let (me, there) = (Identity::node(node("n1@h1", 7)), node("n2@h2", 9));
    tokio::join!(
        prove_as_client(&mut near, &ours, Purpose::Link, &me, expect.as_ref()),
        prove_as_server(&mut far, &theirs, &[Purpose::Link], &there),
    )
}

#[tokio::test]
async fn both_ends_agree_or_both_know_why_not() {
    let (client_end, server_end) = both(SECRET, SECRET, Some("n2@h2")).await;
    assert_eq!(client_end.unwrap().identity.to_string(), "n2@h2");
    assert_eq!(server_end.unwrap().identity.to_string(), "n1@h1");
    let (client_end, server_end) = both(SECRET, "another-cookie-of-decent-length", None).await;
    assert!(matches!(client_end, Err(HandshakeError::CookieMismatch { .. })));
    assert!(matches!(server_end, Err(HandshakeError::CookieMismatch { .. })));
    let (client_end, server_end) = both(SECRET, SECRET, Some("n9@h2")).await;
    assert!(matches!(client_end, Err(HandshakeError::WrongNode { .. })));
    assert!(matches!(server_end, Err(HandshakeError::WrongNode { .. })));
}

#[tokio::test]
async fn not_a_byte_beyond_the_handshake_is_read() {
    let (mut near, mut far) = duplex(4096);
    let (secret, there) = (cookie(SECRET), node("n2@h2", 9));
    let client = async {
        prove_as_client(&mut near, &secret, Purpose::Link, &Identity::command(), None)
            .await
            .unwrap();
        near.write_all(b"next").await.unwrap();
        near.read_u8().await.unwrap()
    };
    let server = async {
        prove_as_server(&mut far, &jar(), &[Purpose::Link], &there)
            .await
            .unwrap();
        far.write_u8(42).await.unwrap();
        let mut next = [0; 4];
        far.read_exact(&mut next).await.unwrap();
        next
    };
    assert_eq!(tokio::join!(client, server), (42, *b"next"));
}

#[tokio::test]
async fn who_says_nothing_is_given_up_at_the_deadline() {
    let ((mut near, _far), (_near, mut far)) = (duplex(4096), duplex(4096));
    let (secret, me, there) = (cookie(SECRET), Identity::command(), node("n2@h2", 9));
    let cookies = jar();
    let (client_end, server_end) = tokio::join!(
        prove_as_client(&mut near, &secret, Purpose::Link, &me, None),
        prove_as_server(&mut far, &cookies, &[Purpose::Link], &there),
    );
    assert_eq!(
        client_end.unwrap_err().to_string(),
        "the other side took the connection and did not finish the handshake within 3 s"
    );
    assert_eq!(server_end, Err(HandshakeError::Silent));
}

#[tokio::test]
async fn a_stranger_and_a_closed_connection_have_their_own_sentences() {
    let there = node("n2@h2", 9);
    let (mut near, mut far) = duplex(4096);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let stranger = prove_as_server(&mut far, &jar(), &[Purpose::Link], &there)
        .await
        .unwrap_err();
    assert_eq!(
        stranger.to_string(),
        "what answers there does not speak Ermine's protocol"
    );
    let (near, mut far) = duplex(4096);
    drop(near);
    let closed = prove_as_server(&mut far, &jar(), &[Purpose::Link], &there)
        .await
        .unwrap_err();
    assert_eq!(
        closed.to_string(),
        "the other side closed the connection in step 1 of the handshake"
    );
}
