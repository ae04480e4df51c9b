//! Clauses that 3.1.1 and 5.0 share, shown in both versions on a real process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use ermine::mqtt::packet::{
    Ack, Packet, ProtocolVersion, Publish, QoS, Subscribe, SubscriptionOptions, Unsubscribe, Will,
};
use ermine::mqtt::properties::{
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::harness::host::Host;

const BOTH: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];

fn options(version: ProtocolVersion, client_id: &str) -> Options {
    if version.is_v5() {
        Options::v5(client_id)
    } else {
        Options::new(client_id)
    }
}

fn id(number: u16) -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(number).expect("not 0")
}

fn publish(topic: &str, qos: QoS, number: u16, dup: bool) -> Packet {
    Packet::Publish(Publish {
        dup,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| id(number)),
        properties: PublishProperties::default(),
        payload: Bytes::from_static(b"x"),
    })
}

#[track_caller]
fn received(client: &mut Client) -> Publish {
    match client.next() {
        Packet::Publish(publish) => publish,
        other => panic!("instead of PUBLISH: {other:?}"),
    }
}

/// What the server answers to these bytes until it closes.
fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.write_all(bytes).expect("written");
    let mut answer = Vec::new();
    if let Err(error) = socket.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    answer
}

#[test]
fn every_answer_carries_the_identifier_of_its_request_and_a_code_per_filter_in_order() {
    // [MQTT3-2.3.1-6..7] [MQTT3-3.8.4-1..2] [MQTT3-3.8.4-4..5] [MQTT3-3.9.3-1] [MQTT3-3.10.4-4..6]
    // [MQTT3-3.12.4-1] [MQTT-2.2.1-5..6] [MQTT-3.8.4-1..2] [MQTT-3.8.4-5..7] [MQTT-3.9.3-1]
    // [MQTT-3.10.4-4..6] [MQTT-3.11.3-1] [MQTT-3.12.4-1] [MQTT-3.3.4-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let mut client = options(version, "c").connect(node.mqtt);
        let deep = vec!["a"; ermine::limits::TOPIC_LEVELS_MAX + 1].join("/");
        let filters = [
            ("a", QoS::AtMostOnce),
            (&*deep, QoS::AtMostOnce),
            ("b", QoS::ExactlyOnce),
        ];
        let filter = |(filter, qos): (&str, QoS)| {
            (
                filter.into(),
                SubscriptionOptions {
                    qos,
                    ..Default::default()
                },
            )
        };
        client.send(&Packet::Subscribe(Subscribe {
            packet_id: id(77),
            properties: SubscribeProperties::default(),
            filters: filters.into_iter().map(filter).collect(),
        }));
        let Packet::SubAck(suback) = client.next() else {
            panic!("a SUBACK")
        };
        let failure = if version.is_v5() {
            ReasonCode::TopicFilterInvalid
        } else {
            ReasonCode::UnspecifiedError
        };
        assert_eq!(suback.packet_id, id(77));
        assert_eq!(
            suback.reasons,
            [ReasonCode::Success, failure, ReasonCode::GrantedQoS2]
        );
        for (filters, reasons) in [
            (
                vec!["b", "never"],
                [ReasonCode::Success, ReasonCode::NoSubscriptionExisted],
            ),
            (
                vec!["never", "a"],
                [ReasonCode::NoSubscriptionExisted, ReasonCode::Success],
            ),
        ] {
            client.send(&Packet::Unsubscribe(Unsubscribe {
                packet_id: id(78),
                properties: UnsubscribeProperties::default(),
                filters: filters.into_iter().map(Into::into).collect(),
            }));
            let Packet::UnsubAck(unsuback) = client.next() else {
                panic!("an UNSUBACK")
            };
            assert_eq!(unsuback.packet_id, id(78));
            assert_eq!(unsuback.reasons, if version.is_v5() { &reasons[..] } else { &[] });
        }
        acknowledged_with_their_identifiers(&mut client);
    }
}

fn acknowledged_with_their_identifiers(client: &mut Client) {
    client.send(&publish("nobody", QoS::AtLeastOnce, 79, false));
    assert!(matches!(client.next(), Packet::PubAck(ack) if ack.packet_id == id(79)));
    client.send(&publish("nobody", QoS::ExactlyOnce, 80, false));
    assert!(matches!(client.next(), Packet::PubRec(ack) if ack.packet_id == id(80)));
    client.send(&Packet::PubRel(Ack::success(id(80))));
    assert!(matches!(client.next(), Packet::PubComp(ack) if ack.packet_id == id(80)));
    client.send(&Packet::PingReq);
    assert_eq!(client.next(), Packet::PingResp);
}

#[test]
fn an_identifier_is_a_new_message_after_puback_and_pubcomp_and_the_same_before_pubrel() {
    // [MQTT3-4.3.2-2] [MQTT3-4.3.3-2] [MQTT-4.3.2-4..5] [MQTT-4.3.3-8] [MQTT-4.3.3-10..12]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let mut witness = options(version, "witness").connect(node.mqtt);
        witness.subscribe("t", QoS::AtMostOnce);
        let mut client = options(version, "c").connect(node.mqtt);
        for dup in [false, true] {
            client.send(&publish("t", QoS::AtLeastOnce, 5, dup));
            assert!(matches!(client.next(), Packet::PubAck(ack) if ack.packet_id == id(5)));
            assert_eq!(witness.text(), "x");
        }
        for _ in 0..2 {
            for dup in [false, true, true] {
                client.send(&publish("t", QoS::ExactlyOnce, 5, dup));
                assert!(matches!(client.next(), Packet::PubRec(ack) if ack.packet_id == id(5)));
            }
            client.send(&Packet::PubRel(Ack::success(id(5))));
            assert!(matches!(client.next(), Packet::PubComp(ack) if ack.packet_id == id(5)));
            assert_eq!(witness.text(), "x");
            witness.assert_quiet();
        }
    }
}

#[test]
fn what_the_server_sends_is_unacknowledged_until_it_is_and_then_never_sent_again() {
    // [MQTT3-2.3.1-4] [MQTT3-3.3.1-1] [MQTT3-3.3.1-3] [MQTT3-4.3.1-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]
    // [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT-2.2.1-4] [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.1-1]
    // [MQTT-4.3.2-1..3] [MQTT-4.3.3-1..6] [MQTT-4.4.0-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let connect = || options(version, "c").persistent().connect(node.mqtt);
        let mut client = connect();
        client.subscribe("t", QoS::ExactlyOnce);
        let mut publisher = options(version, "publisher").connect(node.mqtt);
        publisher.send(&publish("t", QoS::AtMostOnce, 0, false));
        // As if it were sent again: DUP is between two ends and goes no further.
        publisher.send(&publish("t", QoS::AtLeastOnce, 7, true));
        publisher.send(&publish("t", QoS::ExactlyOnce, 8, true));
        let sent = [
            received(&mut client),
            received(&mut client),
            received(&mut client),
        ];
        assert!(sent.iter().all(|publish| !publish.dup));
        let [None, Some(once), Some(twice)] = sent.map(|publish| publish.packet_id) else {
            panic!("identifiers for QoS 1 and 2 alone");
        };
        assert_ne!(once, twice);
        client.assert_quiet();
        drop(client);
        let mut client = connect();
        for expected in [once, twice] {
            let again = received(&mut client);
            assert_eq!((again.dup, again.packet_id), (true, Some(expected)));
        }
        client.send(&Packet::PubRec(Ack::success(twice)));
        assert_eq!(client.next(), Packet::PubRel(Ack::success(twice)));
        drop(client);
        let mut client = connect();
        let mut again = [client.next(), client.next()];
        again.sort_by_key(|packet| matches!(packet, Packet::PubRel(_)));
        assert!(
            matches!(&again[0], Packet::Publish(publish) if publish.dup && publish.packet_id == Some(once))
        );
        assert_eq!(again[1], Packet::PubRel(Ack::success(twice)));
        client.send(&Packet::PubAck(Ack::success(once)));
        client.send(&Packet::PubComp(Ack::success(twice)));
        client.assert_quiet();
        drop(client);
        let mut client = connect();
        client.assert_quiet();
        client.disconnect();
        options(version, "c").connect(node.mqtt).disconnect();
    }
}

#[test]
fn a_subscription_made_again_is_replaced_and_its_retained_messages_come_again() {
    // [MQTT3-3.8.4-3] [MQTT3-3.3.1-6] [MQTT-3.8.4-3..4]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish_with("t/kept", "kept", QoS::AtLeastOnce, true);
    for version in BOTH {
        let mut client = options(version, "c").connect(node.mqtt);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtMostOnce] {
            client.subscribe("t/+", qos);
            let kept = client.message();
            assert_eq!(
                (&kept.payload[..], kept.qos, kept.retain),
                (&b"kept"[..], qos, true)
            );
            publisher.publish("t/live", "live", QoS::ExactlyOnce);
            assert_eq!(client.message().qos, qos);
            client.assert_quiet();
        }
        // [MQTT3-3.10.4-1] [MQTT-3.10.4-1]: the filter as it stands is removed, not what it matches.
        client.unsubscribe("t/#");
        client.unsubscribe("t/kept");
        publisher.publish("t/live", "live", QoS::AtLeastOnce);
        assert_eq!(client.text(), "live");
    }
}

#[test]
fn unsubscribing_ends_what_is_new_and_completes_what_was_begun() {
    // [MQTT3-3.10.4-2..3] [MQTT-3.10.4-2..3]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let mut client = options(version, "c").connect(node.mqtt);
        client.subscribe("t", QoS::ExactlyOnce);
        let mut publisher = options(version, "publisher").connect(node.mqtt);
        publisher.publish("t", "begun", QoS::ExactlyOnce);
        let begun = received(&mut client).packet_id.expect("QoS 2");
        client.unsubscribe("t");
        publisher.publish("t", "new", QoS::ExactlyOnce);
        client.send(&Packet::PubRec(Ack::success(begun)));
        assert_eq!(client.next(), Packet::PubRel(Ack::success(begun)));
        client.send(&Packet::PubComp(Ack::success(begun)));
        client.assert_quiet();
    }
}

#[test]
fn only_a_publish_that_asks_for_it_changes_what_is_retained_and_it_outlives_its_session() {
    // [MQTT3-3.1.2-7] [MQTT3-3.3.1-5] [MQTT3-3.3.1-7] [MQTT3-3.3.1-10..12] [MQTT-3.3.1-5..8]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let retained = |client_id: &str| {
            let mut client = options(version, client_id).connect(node.mqtt);
            client.subscribe("+", QoS::ExactlyOnce);
            let mut seen = Vec::new();
            // Retained messages come in the order of their topics: behind "z" there is no "t".
            loop {
                let publish = received(&mut client);
                match &*publish.topic {
                    "t" => seen.push((publish.payload, publish.qos)),
                    _ => return seen,
                }
            }
        };
        let mut last = options(version, "last").connect(node.mqtt);
        last.publish_with("z", "last", QoS::AtLeastOnce, true);
        let mut publisher = options(version, "publisher").connect(node.mqtt);
        publisher.publish_with("t", "first", QoS::ExactlyOnce, true);
        publisher.publish_with("t", "second", QoS::AtLeastOnce, true);
        publisher.publish("t", "passing", QoS::AtLeastOnce);
        publisher.publish("t", "", QoS::AtLeastOnce);
        publisher.disconnect();
        assert_eq!(retained("a"), [(Bytes::from_static(b"second"), QoS::AtLeastOnce)]);
        let mut publisher = options(version, "publisher").connect(node.mqtt);
        publisher.publish_with("t", "third", QoS::AtMostOnce, true);
        publisher.publish("other", "", QoS::AtLeastOnce);
        assert_eq!(retained("b"), [(Bytes::from_static(b"third"), QoS::AtMostOnce)]);
        let mut witness = options(version, "witness").connect(node.mqtt);
        witness.subscribe("t", QoS::AtMostOnce);
        assert_eq!(witness.text(), "third");
        publisher.publish_with("t", "", QoS::AtLeastOnce, true);
        let empty = witness.message();
        assert!(empty.payload.is_empty(), "it is delivered as any other");
        assert_eq!(retained("c"), []);
    }
}

#[test]
fn a_will_is_retained_only_if_it_says_so_and_without_one_nothing_is_published() {
    // [MQTT3-3.1.2-8] [MQTT3-3.1.2-12] [MQTT3-3.1.2-16..17] [MQTT-3.1.2-7..8] [MQTT-3.1.2-14..15]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let mut heir = options(version, "heir").connect(node.mqtt);
        heir.subscribe("w/#", QoS::AtLeastOnce);
        drop(options(version, "poor").connect(node.mqtt));
        for retain in [false, true] {
            let mut options = options(version, "rich");
            options.connect.will = Some(Will {
                topic: "w/t".into(),
                payload: Bytes::from_static(b"w"),
                qos: QoS::AtLeastOnce,
                retain,
                properties: WillProperties::default(),
            });
            drop(options.connect(node.mqtt));
            assert!(!heir.message().retain);
            let mut late = self::options(version, "late").connect(node.mqtt);
            late.subscribe("w/t", QoS::AtLeastOnce);
            if retain {
                assert!(late.message().retain);
            }
            late.assert_quiet();
        }
        let mut executor = options(version, "executor").connect(node.mqtt);
        executor.publish_with("w/t", "", QoS::AtLeastOnce, true);
        heir.message();
        heir.assert_quiet();
    }
}

#[test]
fn connack_comes_first_and_once_and_nothing_behind_a_refused_connect_is_processed() {
    // [MQTT3-3.1.4-4..5] [MQTT3-3.2.0-1] [MQTT3-3.2.2-5..6] [MQTT3-7.1.1-1] [MQTT-3.1.4-2] [MQTT-3.1.4-5..6]
    // [MQTT-3.2.0-1..2] [MQTT-3.2.2-7] [MQTT-3.14.0-1] [MQTT-4.2.0-1] [MQTT-4.13.2-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut witness = Options::new("witness").connect(node.mqtt);
    witness.subscribe("t", QoS::AtMostOnce);
    let bye = b"\xC0\0\xE0\0";
    let good = [&b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a"[..], bye].concat();
    assert_eq!(answer_to(node.mqtt, &good), [0x20, 2, 0, 0, 0xD0, 0]);
    let good = [&b"\x10\x0e\0\x04MQTT\x05\x02\0\0\0\0\x01a"[..], bye].concat();
    let answer = answer_to(node.mqtt, &good);
    assert_eq!((answer[0], &answer[2..4]), (0x20, &[0, 0][..]));
    assert_eq!(answer[2 + usize::from(answer[1])..], [0xD0, 0]);
    let refused: [(&[u8], &[u8], &[u8]); 5] = [
        // An empty client id that wants a session; a level that is not spoken; a reserved flag.
        (
            b"\x10\x0c\0\x04MQTT\x04\0\0\0\0\0",
            b"\x30\x05\0\x01txx",
            b"\x20\x02\0\x02",
        ),
        (
            b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\x01a",
            b"\x30\x05\0\x01txx",
            b"\x20\x02\0\x01",
        ),
        (
            b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01a",
            b"\x30\x05\0\x01txx",
            b"",
        ),
        // A reserved flag; a method of authentication that nobody has.
        (
            b"\x10\x0e\0\x04MQTT\x05\x03\0\0\0\0\x01a",
            b"\x30\x06\0\x01t\0xx",
            b"\x20\x03\0\x81\0",
        ),
        (
            b"\x10\x15\0\x04MQTT\x05\x02\0\0\x07\x15\0\x04none\0\x01a",
            b"\x30\x06\0\x01t\0xx",
            b"\x20\x2c\0\x8c\x29\x1f\0\x26the authentication method is not known",
        ),
    ];
    for (connect, behind, expected) in refused {
        let answer = answer_to(node.mqtt, &[connect, behind, bye].concat());
        assert_eq!(answer, expected, "{connect:02x?}");
    }
    witness.assert_quiet();
}

#[test]
fn client_ids_of_letters_and_digits_are_allowed_and_the_server_gives_out_new_ones() {
    // [MQTT3-3.1.3-5..6] [MQTT-3.1.3-5..7] [MQTT-3.2.2-16]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in BOTH {
        let ids = [&letters[..1], &letters[..23], &letters[23..46], &letters[39..]];
        let clients: Vec<_> = ids
            .map(|client_id| options(version, client_id).connect(node.mqtt))
            .into();
        let nameless = || options(version, "").connect(node.mqtt);
        let (mut one, mut other) = (nameless(), nameless());
        one.subscribe("t", QoS::AtLeastOnce);
        // Neither has taken the other's place.
        other.publish("t", "hello", QoS::AtLeastOnce);
        assert_eq!(one.text(), "hello");
        let assigned = |client: &Client| client.connack.properties.assigned_client_identifier.clone();
        assert_eq!(assigned(&one).is_some(), version.is_v5());
        assert!(!version.is_v5() || assigned(&one) != assigned(&other));
        for mut client in clients {
            client.assert_quiet();
        }
    }
}

#[test]
fn a_client_id_names_its_session_and_a_second_connection_ends_the_first() {
    // [MQTT3-3.1.2-6] [MQTT3-3.1.3-2] [MQTT3-3.1.4-2] [MQTT3-3.2.2-1..2] [MQTT3-4.1.0-1..2]
    // [MQTT-3.1.2-4..6] [MQTT-3.1.3-2] [MQTT-3.1.4-3..4] [MQTT-3.2.2-2..3] [MQTT-4.1.0-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for version in BOTH {
        let connect = |client_id: &str| options(version, client_id).persistent().connect(node.mqtt);
        let (mut one, other) = (connect("one"), connect("two"));
        one.subscribe("t", QoS::AtLeastOnce);
        assert!(!other.connack.session_present);
        let mut back = connect("one");
        assert!(back.connack.session_present);
        let last = one.assert_closed();
        if version.is_v5() {
            assert!(
                matches!(last, Some(Packet::Disconnect(told)) if told.reason == ReasonCode::SessionTakenOver)
            );
        } else {
            assert_eq!(last, None);
        }
        back.publish_and_receive("t");
        drop(back);
        let mut clean = options(version, "one").connect(node.mqtt);
        assert!(!clean.connack.session_present);
        clean.publish("t", "x", QoS::AtLeastOnce);
        clean.assert_quiet();
        drop(other);
        options(version, "two").connect(node.mqtt).disconnect();
    }
}
