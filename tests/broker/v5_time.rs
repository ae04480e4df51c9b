//! 5.0 clause by clause: what lasts and what expires; properties that pass through; 3.1 and 3.1.1 beside it.

use bytes::Bytes;
use ermine::mqtt::packet::{Disconnect, Packet, ProtocolVersion, Publish, QoS, Will};
use ermine::mqtt::properties::{DisconnectProperties, PublishProperties, WillProperties};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::Host;

/// Payload Format Indicator 1, Content Type "t", Response Topic "r", Correlation Data "c", User
/// Properties a=1 and a=2.
const PASSED: &[u8] =
    b"\x01\x01\x03\x00\x01t\x08\x00\x01r\x09\x00\x01c\x26\x00\x01a\x00\x011\x26\x00\x01a\x00\x012";

fn disconnect(mut client: Client, reason: ReasonCode, expiry_s: Option<u32>) -> Option<Packet> {
    client.send(&Packet::Disconnect(Disconnect {
        reason,
        properties: DisconnectProperties {
            session_expiry_interval_s: expiry_s,
            ..DisconnectProperties::default()
        },
    }));
    client.assert_closed()
}

fn expiring(topic: &str, seconds: u32, retain: bool) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain,
        topic: topic.into(),
        packet_id: None,
        properties: PublishProperties {
            message_expiry_interval_s: Some(seconds),
            pass_through: Bytes::from_static(PASSED),
            ..PublishProperties::default()
        },
        payload: Bytes::from_static(b"x"),
    })
}

#[test]
fn disconnect_may_change_when_the_session_expires_but_not_make_it_stay() {
    // [MQTT-3.1.2-5] [MQTT-4.1.0-2]
    // [MQTT-3.1.2-23] [MQTT-3.14.2-2], §3.14.2.2.2
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let stay = || {
        let mut options = Options::v5("c").persistent();
        options.connect.properties.session_expiry_interval_s = Some(60);
        options.connect(node.mqtt)
    };
    stay().disconnect();
    let back = stay();
    assert!(back.connack.session_present);
    assert_eq!(disconnect(back, ReasonCode::Success, Some(0)), None);
    let anew = stay();
    assert!(!anew.connack.session_present);
    disconnect(anew, ReasonCode::Success, Some(0));

    let fleeting = Options::v5("c").connect(node.mqtt);
    match disconnect(fleeting, ReasonCode::Success, Some(5)) {
        Some(Packet::Disconnect(told)) => assert_eq!(told.reason, ReasonCode::ProtocolError),
        other => panic!("instead of DISCONNECT 0x82: {other:?}"),
    }
}

#[test]
fn what_a_message_carries_comes_through_unaltered_and_in_order() {
    // [MQTT-3.3.2-4] [MQTT-3.3.2-6] [MQTT-3.3.2-15..18] [MQTT-3.3.2-20]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut subscriber = Options::v5("subscriber").connect(node.mqtt);
    subscriber.subscribe("t", QoS::ExactlyOnce);
    let mut publisher = Options::v5("publisher").connect(node.mqtt);
    publisher.send(&expiring("t", 1000, true));
    let live = subscriber.message();
    subscriber.subscribe("t", QoS::ExactlyOnce);
    let kept = subscriber.message();
    for message in [live, kept] {
        assert_eq!(message.properties.pass_through, PASSED);
        let left = message
            .properties
            .message_expiry_interval_s
            .expect("counted down");
        assert!((980..=1000).contains(&left), "{left}");
    }
}

#[test]
fn a_message_expires_in_the_queue_and_in_the_retained_store() {
    // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut away = Options::v5("away").persistent().connect(node.mqtt);
    away.subscribe("q", QoS::AtLeastOnce);
    away.disconnect();
    let mut publisher = Options::v5("publisher").connect(node.mqtt);
    for seconds in [1, 1000] {
        let Packet::Publish(mut publish) = expiring("q", seconds, true) else {
            unreachable!("a PUBLISH")
        };
        publish.qos = QoS::AtLeastOnce;
        publish.packet_id = std::num::NonZeroU16::new(1);
        publish.retain = seconds == 1;
        publisher.send(&Packet::Publish(publish));
        assert!(matches!(publisher.next(), Packet::PubAck(_)));
    }
    // A will that is delayed by two seconds is the clock of this test.
    let mut clock = Options::v5("clock").persistent();
    clock.connect.will = Some(will("tick", 2));
    let mut ticked = Options::v5("ticked").connect(node.mqtt);
    ticked.subscribe("tick", QoS::AtMostOnce);
    drop(clock.connect(node.mqtt));
    assert_eq!(&*ticked.message().topic, "tick");

    let mut back = Options::v5("away").persistent().connect(node.mqtt);
    let left = back.message().properties.message_expiry_interval_s.expect("told");
    assert!((900..1000).contains(&left), "{left}");
    back.assert_quiet();
    back.subscribe("q", QoS::AtLeastOnce);
    back.assert_quiet();
}

fn will(topic: &str, delay_s: u32) -> Will {
    Will {
        topic: topic.into(),
        payload: Bytes::from_static(b"w"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties {
            will_delay_interval_s: Some(delay_s),
            publish: PublishProperties {
                pass_through: Bytes::from_static(PASSED),
                ..PublishProperties::default()
            },
        },
    }
}

#[test]
fn a_will_comes_with_its_properties_when_the_client_asks_for_it_and_is_retained() {
    // [MQTT-3.1.2-7] [MQTT-3.1.3-10]
    // [MQTT-3.1.2-8] [MQTT-3.1.2-15] [MQTT-3.14.4-3]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut heir = Options::v5("heir").connect(node.mqtt);
    heir.subscribe("w", QoS::AtLeastOnce);
    let mut options = Options::v5("testator");
    // The session ends with its connection, and the will's delay with the session.
    options.connect.will = Some(will("w", 3600));
    disconnect(options.connect(node.mqtt), ReasonCode::DisconnectWithWill, None);
    let message = heir.message();
    assert_eq!(
        (message.retain, &message.properties.pass_through[..]),
        (false, PASSED)
    );
    heir.subscribe("w", QoS::AtLeastOnce);
    assert!(heir.message().retain);
}

#[test]
fn a_delayed_will_is_cancelled_by_a_client_that_is_back_in_time() {
    // [MQTT-3.1.3-9]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut heir = Options::v5("heir").connect(node.mqtt);
    heir.subscribe("w/#", QoS::AtLeastOnce);
    let connect = |topic: &str, client: &str, delay_s| {
        let mut options = Options::v5(client).persistent();
        options.connect.will = Some(will(topic, delay_s));
        options.connect(node.mqtt)
    };
    drop(connect("w/never", "back", 1));
    connect("w/never", "back", 1).disconnect();
    drop(connect("w/later", "gone", 2));
    assert_eq!(&*heir.message().topic, "w/later");
}

#[test]
fn an_older_client_is_answered_as_its_version_wants() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    // 3.1 has no empty client id; 3.1.1 has one for a clean session only [MQTT3-3.1.3-8].
    for (version, clean, code) in [
        (ProtocolVersion::V3_1, true, 2),
        (ProtocolVersion::V3_1_1, false, 2),
        (ProtocolVersion::V3_1_1, true, 0),
    ] {
        let mut options = Options::new("");
        options.connect.version = version;
        options.connect.clean_start = clean;
        let client = options.try_connect(node.mqtt).expect("an answer");
        assert_eq!(client.connack.return_code() as u8, code, "{version:?} {clean}");
    }
    let mut options = Options::new("named");
    options.connect.version = ProtocolVersion::V3_1;
    let mut oldest = options.connect(node.mqtt);
    oldest.subscribe("t", QoS::ExactlyOnce);
    oldest.publish_and_receive("t");

    let mut old = Options::new("old").connect(node.mqtt);
    // [MQTT3-3.9.3-2] a failure is 0x80, whatever it is.
    let deep = vec!["a"; ermine::limits::TOPIC_LEVELS_MAX + 1].join("/");
    assert_eq!(
        old.subscribe(&deep, QoS::AtMostOnce),
        ReasonCode::UnspecifiedError
    );
    old.unsubscribe("never/had");
    // A PUBREL is answered even if its message is not known.
    old.send_bytes(&[0x62, 2, 0, 9]);
    match old.next() {
        Packet::PubComp(ack) => assert_eq!(ack.packet_id.get(), 9),
        other => panic!("instead of PUBCOMP: {other:?}"),
    }
    // [MQTT3-3.1.0-2]: a second CONNECT ends the connection, without a word before 5.0.
    old.send_bytes(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'a']);
    assert_eq!(old.assert_closed(), None);
}

#[test]
fn the_broker_tells_of_itself_in_topics_that_no_wildcard_in_front_matches() {
    // [MQTT-4.7.2-1]; the names are mosquitto's where they mean the same.
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut wide = Options::v5("wide").connect(node.mqtt);
    wide.subscribe("#", QoS::AtMostOnce);
    let mut curious = Options::v5("curious").connect(node.mqtt);
    curious.subscribe("$SYS/broker/clients/+", QoS::AtMostOnce);
    let mut missing = vec![("total", "2"), ("connected", "2"), ("disconnected", "0")];
    while !missing.is_empty() {
        // The first round may have been before both had come.
        let message = curious.message();
        missing.retain(|(name, number)| !message.topic.ends_with(name) || message.payload != *number);
    }
    wide.assert_quiet();
}
