//! Goal: the language stays what it was. Method: golden bytes of each variant's number, and chunks
//! that are fed with what they must bound.

use super::*;
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::registry::wire::{decode, encode};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, bytes: &str) {
    let encoded = encode::<CONTROL_FRAME_BYTES_MAX>(value).unwrap();
    assert_eq!(hex(&encoded), bytes, "{value:?}");
    assert_eq!(&decode::<T, CONTROL_FRAME_BYTES_MAX>(&encoded).unwrap(), value);
}

#[test]
fn the_bytes_of_every_request_are_frozen() {
    golden(&Request::Status, "00000000");
    golden(&Request::Tree, "00000001");
    golden(&Request::Restarts, "00000002");
    golden(
        &Request::Crash { path: "a/b".into() },
        "000000030000000000000003612f62",
    );
    golden(&Request::Routes, "00000004");
    golden(&Request::Clients, "00000005");
    golden(&Request::ClusterStatus, "00000006");
    golden(
        &Request::Join { other: name("b@h") },
        "000000070000000000000003624068",
    );
    golden(&Request::Leave, "00000008");
    golden(&Request::Stop, "00000009");
    golden(&Request::TreeSummary, "0000000a");
    golden(&Request::Listeners, "00000014");
    golden(
        &Request::Children { path: "r".into() },
        "0000000b000000000000000172",
    );
    golden(&Request::Reload, "00000013");
    for (how, number) in [
        (Steering::Kill, "00000000"),
        (Steering::StopChild, "00000001"),
        (Steering::StartChild, "00000002"),
        (Steering::Stall(9), "0000000309"),
        (Steering::LoseRoute, "00000004"),
    ] {
        let path = "r".into();
        golden(
            &Request::Steer { how, path },
            &format!("0000000c{number}000000000000000172"),
        );
    }
    let details = |after: Option<&str>, limit| Request::ClientDetails {
        after: after.map(Into::into),
        limit,
    };
    golden(&details(None, 2), "0000000d0000000002");
    golden(&details(Some("c"), 0), "0000000d0100000000000000016300000000");
    let client_id = || "c".to_owned();
    golden(
        &Request::Client {
            client_id: client_id(),
        },
        "0000000e000000000000000163",
    );
    golden(
        &Request::Kick {
            client_id: client_id(),
        },
        "0000000f000000000000000163",
    );
    golden(&Request::Subscriptions, "00000010");
    golden(&Request::Metrics, "00000011");
    golden(&Request::Access, "00000012");
}

#[test]
fn the_bytes_of_replies_are_frozen() {
    golden(&Reply::Done, "00000000");
    golden(&Reply::Failed("no".into()), "0000000100000000000000026e6f");
    golden(&Reply::Tree(vec![]), "000000030000000000000000");
    golden(&Reply::Restarts(vec![]), "000000040000000000000000");
    golden(&Reply::Crashed("r".into()), "00000005000000000000000172");
    let route = RouteEntry {
        filter: "t".into(),
        nodes: vec![name("b@h")],
    };
    golden(
        &Reply::Routes(vec![route]),
        "0000000600000000000000010000000000000001740000000000000001\
         0000000000000003624068",
    );
    golden(&Reply::Clients(vec![]), "000000070000000000000000");
    let status = ClusterStatus {
        node: name("b@h"),
        members: vec![],
        left: vec![Left {
            node: name("c@h"),
            at_ms: 1,
            forced_out_by: Some(name("b@h")),
        }],
        forced_out: None,
    };
    golden(
        &Reply::Cluster(status),
        "000000080000000000000003624068000000000000000000000000000000010000000000000003\
         63406800000000000000010100000000000000036240\
         6800",
    );
    let step = JoinStep {
        step: "name".into(),
        ok: true,
        detail: "b".into(),
    };
    golden(
        &Reply::Step(step),
        "0000000900000000000000046e616d6501000000000000000162",
    );
    golden(&Reply::Steered("r".into()), "0000000a000000000000000172");
    golden(&Reply::ClientDetails(vec![]), "0000000b0000000000000000");
    golden(&Reply::Subscriptions(vec![]), "0000000c0000000000000000");
    golden(&Reply::Text("t".into()), "0000000d000000000000000174");
    let access = Access {
        url: None,
        token: Some("t".into()),
    };
    golden(&Reply::Access(access), "0000000e0001000000000000000174");
    golden(
        &Reply::Reloaded(vec![(true, "r".into())]),
        "0000000f000000000000000101000000000000000172",
    );
}

#[test]
fn the_bytes_of_drains_and_checks_are_frozen() {
    golden(
        &Request::Expel { node: name("b@h") },
        "000000150000000000000003624068",
    );
    let order = DrainOrder {
        rate: 3,
        server: Some("s".into()),
        moved: true,
        stop: false,
    };
    golden(
        &Request::Drain(order),
        "000000160000000301000000000000000173\
         0100",
    );
    golden(
        &Request::Check { other: name("b@h") },
        "000000170000000000000003624068",
    );
    let greet = Request::Greet {
        from: name("b@h"),
        clock_ms: 5,
    };
    golden(&greet, "0000001800000000000000036240680000000000000005");
    let reach = Request::Reach {
        from: name("b@h"),
        nodes: vec![],
        canary: true,
    };
    golden(&reach, "000000190000000000000003624068000000000000000001");
    golden(&Request::Canary(vec![7]), "0000001a000000000000000107");
    golden(&Request::Audit, "0000001c");
    let greeting = Greeting {
        clock_ms: 5,
        link_versions: (1, 2),
        members: vec![],
    };
    golden(
        &Reply::Greeting(greeting),
        "000000110000000000000005000100020000000000000000",
    );
    let reach = Reach {
        node: name("b@h"),
        failed: None,
    };
    golden(
        &Reply::Reached(vec![reach]),
        "00000012000000000000000100000000000000036240\
         6800",
    );
    golden(&Reply::Canary(vec![7]), "00000013000000000000000107");
}

#[test]
fn the_bytes_of_a_rotation_are_frozen() {
    let salt_and_tag = [&[1; 32][..], &[0, 0, 0, 0, 0, 0, 0, 1, 7]].concat();
    let order = RotateOrder {
        sealed: decode::<_, CONTROL_FRAME_BYTES_MAX>(&salt_and_tag).unwrap(),
        grace_s: 5,
        only_here: true,
    };
    let salt = "01".repeat(32);
    golden(
        &Request::Rotate(order),
        &format!("0000001b{salt}0000000000000001070000000501"),
    );
}

#[test]
fn the_bytes_of_rotations_are_frozen() {
    let rotated = Rotated {
        before: "a".into(),
        after: "b".into(),
        grace_s: 5,
        members: vec![RotatedMember {
            node: name("b@h"),
            state: "down".into(),
            left_to_do: None,
        }],
    };
    golden(
        &Reply::Rotated(rotated),
        "00000014000000000000000161000000000000000162000000050000000000000001\
         00000000000000036240680000000000000004646f776e00",
    );
}

#[test]
fn the_bytes_of_books_are_frozen() {
    let entry = |name: &str, count| vec![(name.to_owned(), count)];
    let audit = NodeAudit {
        node: name("b@h"),
        incarnation: Incarnation(2),
        accounts: vec![AccountEntry {
            account: "a".into(),
            came: entry("c", 1),
            went: entry("w", 2),
            held: vec![],
        }],
        dealings: vec![DealingsEntry {
            node: name("c@h"),
            incarnation: Incarnation(3),
            acknowledged: 4,
            came: 5,
            acknowledged_before: 6,
            came_before: 7,
        }],
    };
    golden(
        &Reply::Audit(audit),
        "0000001500000000000000036240680000000000000002\
         00000000000000010000000000000001610000000000000001000000000000000163\
         0000000000000001000000000000000100000000000000017700000000000000020000000000000000\
         0000000000000001000000000000000363406800000000000000030000000000000004\
         000000000000000500000000000000060000000000000007",
    );
}

#[test]
fn garbage_is_no_request() {
    for bytes in [
        &[][..],
        &[0, 0, 0],
        &[0, 0, 0, 99],
        &[0, 0, 0, 0, 1],
        &[0, 0, 0, 3, 255, 255, 255, 255],
    ] {
        assert!(
            decode::<Request, CONTROL_FRAME_BYTES_MAX>(bytes).is_err(),
            "{bytes:?}"
        );
    }
}

#[test]
fn a_list_is_cut_by_number_and_by_bytes() {
    let route = |len: usize| RouteEntry {
        filter: "f".repeat(len),
        nodes: vec![],
    };
    let lens = |entries: Vec<RouteEntry>| chunks(entries).map(|chunk| chunk.len()).collect::<Vec<_>>();
    assert_eq!(lens(vec![]), Vec::<usize>::new());
    assert_eq!(lens(vec![route(1); CHUNK_LEN_MAX + 1]), [CHUNK_LEN_MAX, 1]);
    let large = lens(vec![route(65_535); 100]);
    assert_eq!(large.iter().sum::<usize>(), 100);
    assert!(large.len() > 1);
    for chunk in chunks(vec![route(65_535); 100]) {
        assert!(encode::<CONTROL_FRAME_BYTES_MAX>(&Reply::Routes(chunk)).is_ok());
    }
    // What is too large for a chunk goes alone: the frame's bound has room for twice as much.
    assert_eq!(lens(vec![route(CHUNK_BYTES_MAX + 1); 2]), [1, 1]);
}

#[test]
fn only_what_changes_the_node_is_audited() {
    assert!(Request::Stop.changes() && Request::Leave.changes());
    assert!(!Request::Status.changes() && !Request::Tree.changes());
    assert_eq!(Request::Crash { path: "a\n".into() }.words(), "crash a\\n");
    assert_eq!(Request::Join { other: name("b@h") }.words(), "cluster join b@h");
}
