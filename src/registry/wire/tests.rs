use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::limits::REGISTRY_NAMES_MAX;
use crate::node_name::{Incarnation, NODE_NAME_LEN_MAX};

fn node(name: &str) -> NodeId {
    NodeId {
        name: name.parse().unwrap(),
        incarnation: Incarnation(7),
    }
}

fn registration() -> Registration {
    Registration {
        node: node("n1@h"),
        port: 0x9cbb,
        listeners: vec!["h:1883".into()],
        since_ms: 258,
    }
}

fn hex(message: &impl Serialize) -> String {
    let bytes = encode::<REGISTRY_FRAME_BYTES_MAX>(message).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Released bytes: a change here is a new protocol version.
#[test]
fn the_frames_are_frozen() {
    let name = "00000000000000046e314068";
    let node_bytes = format!("{name}0000000000000007");
    let listeners = "00000000000000010000000000000006683a31383833";
    let it = format!("{node_bytes}9cbb{listeners}0000000000000102");
    let announcement = Announcement {
        port: 0x9cbb,
        listeners: vec!["h:1883".into()],
    };
    let refused = |refusal| hex(&Reply::Refused(refusal));

    assert_eq!(
        hex(&Request::Register(announcement)),
        format!("000000009cbb{listeners}")
    );
    assert_eq!(hex(&Request::Names), "00000001");
    assert_eq!(
        hex(&Request::Resolve("n1@h".parse().unwrap())),
        format!("00000002{name}")
    );
    assert_eq!(
        hex(&Reply::Registered {
            server: node("n1@h"),
            address: "h:1".into()
        }),
        format!("00000000{node_bytes}0000000000000003683a31")
    );
    let list = NameList {
        server: node("n1@h"),
        port: 4366,
        names: vec![registration()],
    };
    assert_eq!(
        hex(&Reply::Names(list)),
        format!("00000001{node_bytes}110e0000000000000001{it}")
    );
    assert_eq!(hex(&Reply::Resolved(registration())), format!("00000002{it}"));
    assert_eq!(
        refused(Refusal::Duplicate(Box::new(registration()))),
        format!("0000000300000000{it}")
    );
    assert_eq!(refused(Refusal::Full), "0000000300000001");
    assert_eq!(refused(Refusal::NotLocal), "0000000300000002");
    assert_eq!(refused(Refusal::NotANode), "0000000300000003");
    assert_eq!(refused(Refusal::TooMuch), "0000000300000004");
    let known = vec!["n1@h".parse().unwrap()];
    assert_eq!(
        refused(Refusal::Unknown(known)),
        format!("00000003000000050000000000000001{name}")
    );
}

#[test]
fn a_full_registry_fits_its_frame() {
    let longest = Registration {
        node: node(&format!("n@{}", "h".repeat(NODE_NAME_LEN_MAX - 2))),
        port: u16::MAX,
        listeners: vec!["l".repeat(REGISTRY_LISTENER_BYTES_MAX); REGISTRY_LISTENERS_MAX],
        since_ms: u64::MAX,
    };
    let names = vec![longest; REGISTRY_NAMES_MAX];
    let list = Reply::Names(NameList {
        server: node("n1@h"),
        port: 4366,
        names,
    });
    assert!(encode::<REGISTRY_FRAME_BYTES_MAX>(&list).is_ok());
}

#[test]
fn a_body_has_to_be_used_up_and_known() {
    let decode = |body: &[u8]| decode::<Request, 64>(body);
    assert_eq!(decode(&[0, 0, 0, 1]), Ok(Request::Names));
    assert_eq!(decode(&[0, 0, 0, 1, 0]), Err(FrameError::Malformed));
    assert_eq!(decode(&[0, 0, 0, 9]), Err(FrameError::Malformed));
    assert_eq!(decode(&[0, 0, 0]), Err(FrameError::Malformed));
    let not_a_name = b"\0\0\0\x02\0\0\0\0\0\0\0\x02n1";
    assert_eq!(decode(not_a_name), Err(FrameError::Malformed));
    let huge = b"\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xffn1";
    assert_eq!(decode(huge), Err(FrameError::Malformed));
}

#[tokio::test]
async fn a_length_beyond_the_bound_is_refused_from_its_four_bytes() {
    let (mut near, mut far) = tokio::io::duplex(64);
    near.write_u32(REGISTRY_FRAME_BYTES_MAX as u32 + 1).await.unwrap();
    let refused = receive::<Request>(&mut far).await.unwrap_err();
    assert_eq!(refused.to_string(), "a frame of 262145 bytes is beyond the bound");
}

#[tokio::test]
async fn a_frame_is_length_and_body() {
    let (mut near, mut far) = tokio::io::duplex(64);
    send(&mut near, &Request::Names).await.unwrap();
    let body = read_frame(&mut far, 64).await.unwrap();
    assert_eq!(body, [0, 0, 0, 1]);
    near.write_all(&[0, 0, 0, 4, 0, 0]).await.unwrap();
    drop(near);
    assert_eq!(receive::<Request>(&mut far).await, Err(FrameError::Closed));
}

proptest! {
    #[test]
    fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode::<Request, REGISTRY_FRAME_BYTES_MAX>(&bytes);
        let _ = decode::<Reply, REGISTRY_FRAME_BYTES_MAX>(&bytes);
    }
}
