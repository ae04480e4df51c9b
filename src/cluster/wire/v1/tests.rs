//! Golden bytes of version 1, and what is done with bytes that are no frame.

use super::*;
use crate::cluster::executor::{WillChange, WillRecord, WillSlip};
use crate::cluster::ownership::{Epoch, Letter};
use crate::node_name::Incarnation;
use crate::registry::jar::Edition;
use crate::registry::sealed::Sealed;
use crate::routing::RouteChange;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message(payload: &[u8]) -> Message {
    Message {
        topic: "a/b".into(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: true,
        pass_through: Bytes::from_static(&[1, 1]),
        expires_at: None,
        publisher: "c1".into(),
    }
}

fn record() -> MemberRecord {
    MemberRecord {
        name: "a@h".parse().unwrap(),
        stamp: 7,
        left: true,
        by: Some("b@h".parse().unwrap()),
    }
}

fn slips() -> Vec<Slip> {
    let released = Letter::Released {
        id: "c".into(),
        epoch: Epoch { counter: 5, by: 2 },
        state: Some(Bytes::from_static(&[7])),
    };
    let claim = Letter::Claim {
        id: "c".into(),
        claim: 3,
    };
    let late = Slip::Late {
        id: "c".into(),
        state: Bytes::new(),
    };
    let place = Slip::InPlace { id: "c".into() };
    vec![Slip::Letter(claim), Slip::Letter(released), place, late]
}

fn will_slips() -> Vec<Slip> {
    let record = WillRecord {
        topic: "w".into(),
        payload: Bytes::from_static(b"hi"),
        qos: QoS::AtLeastOnce,
        retain: true,
        expiry_interval_s: Some(60),
        pass_through: Bytes::from_static(&[1, 1]),
        delay_s: 5,
        due_in_ms: Some(300),
    };
    let changes = [("c", Some(record)), ("d", None)].map(|(id, will)| WillChange { id: id.into(), will });
    let part = WillSlip::Part {
        number: 1,
        first: true,
        changes: changes.into(),
    };
    let slips = [WillSlip::Ask { since: 3 }, part, WillSlip::Taken { number: 1 }];
    slips.map(Slip::Will).into()
}

fn retained_record() -> RetainedRecord {
    RetainedRecord {
        topic: "a/b".into(),
        time: HybridTime(5),
        node: "a@h".parse().unwrap(),
        died_us: Some(9),
    }
}

#[test]
fn the_bytes_of_every_frame_are_frozen() {
    let now = Instant::now();
    let sent = message(b"hi");
    let chunk = SnapshotChunk {
        version: RouteVersion(300),
        filters: vec!["x/#".into()],
        first: false,
        last: true,
    };
    let changes = vec![RouteChange::Add("x".into()), RouteChange::Remove("y".into())];
    let delta = RouteDelta {
        from: RouteVersion(1),
        to: RouteVersion(3),
        changes,
    };
    let golden: Vec<(Frame<'_>, &str)> = vec![
        (Frame::Snapshot(chunk), "00fb2c010103782f230001"),
        (Frame::Delta(delta), "01010302000178010179"),
        (Frame::Resync, "02"),
        (
            Frame::RoutesHeld {
                frames: 5,
                version: RouteVersion(2),
            },
            "030502",
        ),
        (
            Frame::Forward {
                seq: 9,
                messages: vec![WireMessage::of(&sent, now).unwrap()],
            },
            "04090103612f6205000002633102010102686900",
        ),
        (Frame::Forwarded { seq: 9 }, "0509"),
        (Frame::Canary { nonce: 250 }, "06fa"),
        (Frame::CanaryBack { nonce: 251 }, "07fbfb00"),
        (
            Frame::Tick {
                number: 1,
                routes: RouteVersion(2),
            },
            "080102",
        ),
        (Frame::TickBack { number: 1 }, "0901"),
        (
            Frame::Members {
                members: vec![record()],
            },
            "0a010361406807010103624068",
        ),
        (Frame::Leaving { reason: "left" }, "0b046c656674"),
        (
            Frame::SliceMark {
                version: RouteVersion(2),
                hash: 3,
            },
            "0c0203",
        ),
        (
            Frame::Ownership(slips()),
            "0d04000001630300030163050201010701016302016300",
        ),
        (
            Frame::Ownership(will_slips()),
            "0d03030003030101010201630101770268690101013c0201010501fb2c01016400030201",
        ),
    ];
    frozen(golden);
}

#[test]
fn the_bytes_of_frames_about_retained_messages_are_frozen() {
    let now = Instant::now();
    let sent = message(b"hi");
    frozen(vec![
        (
            Frame::RetainedDigest {
                buckets: vec![1, 300],
            },
            "0e0201fb2c01",
        ),
        (
            Frame::RetainedAsk {
                buckets: vec![7, 255],
                after: Some("a/b".into()),
            },
            "0f0207ff0103612f62",
        ),
        (
            Frame::RetainedKnown {
                records: vec![retained_record()],
                done: 1,
            },
            "100103612f620503614068010901",
        ),
        (
            Frame::RetainedWant {
                topics: vec!["a/b".into()],
            },
            "110103612f62",
        ),
        (
            Frame::RetainedMessages {
                messages: vec![(
                    WireMessage::of(&sent, now).unwrap().retained_at(HybridTime(5)),
                    "a@h".parse().unwrap(),
                )],
                answered: 1,
            },
            "120103612f6205000105026331020101026869000361406801",
        ),
    ]);
}

#[test]
fn the_bytes_of_frames_about_the_cookie_are_frozen() {
    let edition = Edition(300);
    let salt_and_tag = [&[1; 32][..], &[1, 7]].concat();
    let sealed: Sealed = decode(&salt_and_tag).unwrap();
    let salt = "01".repeat(32);
    let refused = Some("x".to_owned());
    let slips = [
        (
            CookieSlip::Prepare {
                edition,
                grace_s: 5,
                sealed: sealed.clone(),
            },
            format!("1300fb2c0105{salt}0107"),
        ),
        (
            CookieSlip::Prepared { edition, refused },
            "1301fb2c01010178".into(),
        ),
        (CookieSlip::Commit { edition }, "1302fb2c01".into()),
        (CookieSlip::Abort { edition }, "1303fb2c01".into()),
        (
            CookieSlip::Renew {
                edition,
                grace_s: 5,
                sealed,
            },
            format!("1304fb2c0105{salt}0107"),
        ),
        (
            CookieSlip::Held {
                edition,
                unwritten: None,
            },
            "1305fb2c0100".into(),
        ),
    ];
    for (slip, bytes) in slips {
        frozen(vec![(Frame::Cookie(slip), &bytes)]);
    }
}

#[test]
fn the_bytes_of_the_frame_about_members_of_shared_groups_are_frozen() {
    let groups = vec![("$share/g/x".into(), 2, 1)];
    frozen(vec![(
        Frame::ShareMembers { groups },
        "14010a2473686172652f672f780201",
    )]);
}

fn frozen(golden: Vec<(Frame<'_>, &str)>) {
    for (frame, bytes) in golden {
        let encoded = encode(&frame);
        assert_eq!(hex(&encoded), bytes, "{frame:?}");
        assert_eq!(decode::<Frame<'_>>(&encoded).unwrap(), frame);
    }
}

#[test]
fn the_bytes_of_the_opening_are_frozen() {
    let node = NodeId {
        name: "a@h".parse().unwrap(),
        incarnation: Incarnation(3),
    };
    let hello = Hello {
        node: node.clone(),
        link: 4,
        join: true,
        received: 0,
        members: vec![record()],
    };
    assert_eq!(hex(&encode(&hello)), "0361406803040100010361406807010103624068");
    assert_eq!(decode::<Hello>(&encode(&hello)).unwrap(), hello);
    let welcome = Answer::Welcome {
        node,
        received: 2,
        members: vec![],
    };
    assert_eq!(hex(&encode(&welcome)), "0003614068030200");
    let refusals = [
        (Refusal::Simultaneous, "0100"),
        (Refusal::Myself, "0101"),
        (Refusal::Outdated, "0102"),
        (Refusal::Left(record()), "01030361406807010103624068"),
        (Refusal::NotReady, "0104"),
        (Refusal::Full, "0105"),
    ];
    for (refusal, bytes) in refusals {
        let answer = Answer::Refuse(refusal);
        assert_eq!(hex(&encode(&answer)), bytes, "{answer:?}");
        assert_eq!(decode::<Answer>(&encode(&answer)).unwrap(), answer);
    }
}

#[test]
fn a_message_comes_out_as_it_went_in_whether_copied_or_kept() {
    let now = Instant::now();
    for size in [0, 2, 5000] {
        let mut sent = message(&vec![7; size]);
        sent.expires_at = Some(now + Duration::from_secs(60));
        let small = message(b"");
        let messages = vec![
            WireMessage::of(&sent, now).unwrap(),
            WireMessage::of(&small, now).unwrap(),
        ];
        let frame = Bytes::from(encode(&Frame::Forward { seq: 1, messages }));
        let Frame::Forward { messages, .. } = decode(&frame).unwrap() else {
            panic!("not a forward")
        };
        let came: Vec<_> = messages
            .into_iter()
            .map(|it| it.into_message(&frame, now).unwrap())
            .collect();
        assert_eq!((&*came[0], &*came[1]), (&sent, &small));
    }
}

#[test]
fn an_expired_message_is_not_sent() {
    let now = Instant::now();
    let mut sent = message(b"late");
    sent.expires_at = Some(now);
    assert!(WireMessage::of(&sent, now).is_none());
}

#[test]
fn qos_3_and_unknown_flags_are_refused() {
    let now = Instant::now();
    let sent = message(b"x");
    for flags in [3, 7, 16, 255] {
        let wire = WireMessage {
            flags,
            ..WireMessage::of(&sent, now).unwrap()
        };
        assert!(wire.into_message(&Bytes::new(), now).is_err(), "{flags}");
    }
}

#[test]
fn shared_groups_travel_with_a_message_and_are_bounded() {
    let now = Instant::now();
    let mut loans = Loans::default();
    for (group, tried, dup) in [("$share/g/a/b", 0, false), ("$share/h/a/#", 3, true)] {
        let group = group.into();
        loans.add(Loan { group, tried, dup });
    }
    loans.only = true;
    let mut sent = Outbound {
        message: Arc::new(message(b"hi")),
        share: None,
        loans: Some(Box::new(loans)),
        retained: None,
        only_retained: false,
    };
    let wire = WireMessage::lent(&sent, now).unwrap();
    let bytes = Bytes::from(encode(&wire));
    let golden = "03612f620d00000263310201010268690\
                  20c2473686172652f672f612f62000c2473686172652f682f612f2383";
    assert_eq!(hex(&bytes), golden);
    let came: WireMessage<'_> = decode(&bytes).unwrap();
    let came = came.into_inbound(&bytes, now, &"a@h".parse().unwrap()).unwrap();
    assert_eq!(
        (came.message, came.loans),
        (sent.message.clone(), sent.loans.clone())
    );
    let mut many = Loans::default();
    for _ in 0..=LOANS_MAX {
        let group = "$share/g/x".into();
        many.add(Loan {
            group,
            tried: 0,
            dup: false,
        });
    }
    sent.loans = Some(Box::new(many));
    let wire = WireMessage::lent(&sent, now).unwrap();
    assert!(
        wire.into_inbound(&Bytes::new(), now, &"a@h".parse().unwrap())
            .is_err()
    );
}

#[test]
fn garbage_is_refused_at_every_cut_and_never_panics() {
    let now = Instant::now();
    let sent = message(b"payload");
    let good = encode(&Frame::Forward {
        seq: 1,
        messages: vec![WireMessage::of(&sent, now).unwrap()],
    });
    for cut in 0..good.len() {
        assert!(decode::<Frame<'_>>(&good[..cut]).is_err(), "cut at {cut}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(
        decode::<Frame<'_>>(&long)
            .unwrap_err()
            .to_string()
            .contains("1 bytes follow")
    );
    assert!(decode::<Frame<'_>>(&[200; 64]).is_err());
    // A length of 2^60 elements reserves nothing.
    assert!(decode::<Frame<'_>>(&[4, 1, 253, 0, 0, 0, 0, 0, 0, 0, 16]).is_err());
}
