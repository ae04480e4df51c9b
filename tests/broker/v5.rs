//! 5.0 clause by clause: subscriptions and their options, aliases, flow control, reasons.

use std::num::NonZeroU16;

use bytes::Bytes;
use ermine::mqtt::packet::{
    Ack, Auth, Packet, Publish, QoS, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe,
};
use ermine::mqtt::properties::{
    AuthProperties, PublishProperties, SubscribeProperties, UnsubscribeProperties,
};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::Host;

const PLAIN: SubscriptionOptions = SubscriptionOptions {
    qos: QoS::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::Send,
};

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

#[track_caller]
fn subscribe(
    client: &mut Client,
    filter: &str,
    options: SubscriptionOptions,
    identifier: Option<u32>,
) -> ReasonCode {
    client.send(&Packet::Subscribe(Subscribe {
        packet_id: id(900),
        properties: SubscribeProperties {
            subscription_identifier: identifier,
            ..SubscribeProperties::default()
        },
        filters: vec![(filter.into(), options)],
    }));
    match client.next() {
        Packet::SubAck(suback) => suback.reasons[0],
        other => panic!("instead of SUBACK: {other:?}"),
    }
}

fn publish(topic: &str, qos: QoS, number: u16, properties: PublishProperties) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| id(number)),
        properties,
        payload: Bytes::from_static(b"x"),
    })
}

fn with_alias(alias: u16) -> PublishProperties {
    PublishProperties {
        topic_alias: Some(alias),
        ..PublishProperties::default()
    }
}

/// The reason of the DISCONNECT with which the server ends the connection.
#[track_caller]
fn closed_for(client: &mut Client) -> ReasonCode {
    match client.assert_closed() {
        Some(Packet::Disconnect(disconnect)) => disconnect.reason,
        other => panic!("instead of DISCONNECT: {other:?}"),
    }
}

#[test]
fn overlapping_subscriptions_get_one_copy_with_every_identifier_at_the_highest_qos() {
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = Options::v5("ids").connect(node.mqtt);
    subscribe(&mut client, "t", PLAIN, Some(2));
    let twice = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        ..PLAIN
    };
    subscribe(&mut client, "t/#", twice, Some(268_435_455));
    subscribe(&mut client, "+", PLAIN, None);
    let mut older = Options::new("older").connect(node.mqtt);
    older.subscribe("t", QoS::AtMostOnce);
    older.subscribe("#", QoS::AtLeastOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("t", "x", QoS::ExactlyOnce);
    let mut seen = client.message();
    seen.properties.subscription_identifiers.sort_unstable();
    assert_eq!(seen.properties.subscription_identifiers, [2, 268_435_455]);
    assert_eq!(seen.qos, QoS::ExactlyOnce);
    client.assert_quiet();
    // [MQTT3-3.3.5-1]
    assert_eq!(older.message().qos, QoS::AtLeastOnce);
    older.assert_quiet();
}

#[test]
fn no_local_keeps_a_client_from_its_own_messages_only() {
    // [MQTT-3.8.3-3]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = Options::v5("local").connect(node.mqtt);
    let options = SubscriptionOptions {
        no_local: true,
        ..PLAIN
    };
    subscribe(&mut client, "t", options, None);
    client.publish("t", "mine", QoS::AtLeastOnce);
    client.assert_quiet();
    let mut other = Options::v5("other").connect(node.mqtt);
    other.publish("t", "yours", QoS::AtLeastOnce);
    assert_eq!(client.text(), "yours");
}

#[test]
fn retain_as_published_and_retain_handling_are_heeded() {
    // [MQTT-3.3.1-9..13]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut publisher = Options::v5("publisher").connect(node.mqtt);
    let mut client = Options::v5("keeper").connect(node.mqtt);
    let options = SubscriptionOptions {
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
        ..PLAIN
    };
    subscribe(&mut client, "t/+", options, None);
    publisher.publish_with("t/1", "kept", QoS::ExactlyOnce, true);
    assert!(client.message().retain, "as published");
    publisher.publish("t/1", "passing", QoS::AtLeastOnce);
    assert!(!client.message().retain, "as published");
    client.assert_quiet();

    subscribe(&mut client, "t/+", options, None);
    client.assert_quiet();
    let never = SubscriptionOptions {
        retain_handling: RetainHandling::DontSend,
        ..PLAIN
    };
    subscribe(&mut client, "t/#", never, None);
    client.assert_quiet();
    for _ in 0..2 {
        subscribe(&mut client, "t/1", PLAIN, None);
        let message = client.message();
        assert_eq!((&message.payload[..], message.retain), (&b"kept"[..], true));
    }
    // MQTT 5.0 §4.8.2: a shared subscription is not greeted.
    subscribe(&mut client, "$share/group/t/1", PLAIN, None);
    client.assert_quiet();
}

#[test]
fn a_client_that_allows_aliases_is_sent_each_topic_once() {
    // [MQTT-3.3.2-11]
    // [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-7]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut options = Options::v5("aliased").persistent();
    options.connect.properties.topic_alias_maximum = Some(1);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    for _ in 0..2 {
        // The aliases of a connection end with it.
        let mut client = options.clone().connect(node.mqtt);
        client.subscribe("long/+", QoS::AtLeastOnce);
        for (topic, seen, alias) in [
            ("long/topic", "long/topic", Some(1)),
            ("long/topic", "", Some(1)),
            ("long/other", "long/other", None),
        ] {
            publisher.publish(topic, "x", QoS::AtLeastOnce);
            let message = client.message();
            assert_eq!((&*message.topic, message.properties.topic_alias), (seen, alias));
        }
        client.assert_quiet();
        client.disconnect();
    }
    let mut plain = Options::v5("plain").connect(node.mqtt);
    plain.subscribe("long/+", QoS::AtLeastOnce);
    publisher.publish("long/topic", "x", QoS::AtLeastOnce);
    let message = plain.message();
    assert_eq!(
        (&*message.topic, message.properties.topic_alias),
        ("long/topic", None)
    );
}

#[test]
fn aliases_of_the_client_live_as_long_as_its_connection() {
    // [MQTT-3.14.4-1..2]
    // [MQTT-3.3.2-9] [MQTT-3.3.2-12] [MQTT-3.2.2-17]
    // [MQTT-3.3.2-8] [MQTT-3.3.2-10]; an alias that nothing was said of is a protocol error.
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut witness = Options::v5("witness").connect(node.mqtt);
    witness.subscribe("t", QoS::AtMostOnce);
    let mut client = Options::v5("client").connect(node.mqtt);
    let max = client.connack.properties.topic_alias_maximum.expect("allowed");
    client.send(&publish("t", QoS::AtMostOnce, 0, with_alias(max)));
    client.send(&publish("", QoS::AtMostOnce, 0, with_alias(max)));
    for _ in 0..2 {
        let message = witness.message();
        assert_eq!((&*message.topic, message.properties.topic_alias), ("t", None));
    }
    client.disconnect();
    let mut client = Options::v5("client").connect(node.mqtt);
    client.send(&publish("", QoS::AtMostOnce, 0, with_alias(max)));
    assert_eq!(closed_for(&mut client), ReasonCode::ProtocolError);
    let mut client = Options::v5("client").connect(node.mqtt);
    client.send(&publish("t", QoS::AtMostOnce, 0, with_alias(max + 1)));
    assert_eq!(closed_for(&mut client), ReasonCode::TopicAliasInvalid);
}

#[test]
fn the_receive_maximum_holds_both_ways() {
    // [MQTT-3.3.4-10] [MQTT-4.9.0-2..3]
    // [MQTT-3.3.4-7] [MQTT-3.3.4-9]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut options = Options::v5("narrow");
    options.connect.properties.receive_maximum = Some(2);
    let mut narrow = options.connect(node.mqtt);
    narrow.subscribe("t", QoS::AtLeastOnce);
    let mut flood = Options::v5("flood").connect(node.mqtt);
    for _ in 0..3 {
        flood.publish("t", "x", QoS::AtLeastOnce);
    }
    let Packet::Publish(first) = narrow.next() else {
        panic!("a PUBLISH")
    };
    assert!(matches!(narrow.next(), Packet::Publish(_)));
    narrow.assert_quiet();
    narrow.acknowledge(&first);
    assert!(matches!(narrow.next(), Packet::Publish(_)));

    let quota = flood.connack.properties.receive_maximum.expect("told");
    for number in 1..=quota + 1 {
        flood.send(&publish(
            "q",
            QoS::ExactlyOnce,
            number,
            PublishProperties::default(),
        ));
    }
    assert_eq!(closed_for(&mut flood), ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn a_message_that_is_too_large_for_its_receiver_is_dropped_for_it_alone() {
    // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut options = Options::v5("small");
    options.connect.properties.maximum_packet_size = Some(64);
    let mut small = options.connect(node.mqtt);
    small.subscribe("t", QoS::AtLeastOnce);
    let mut large = Options::v5("large").connect(node.mqtt);
    large.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("t", &"x".repeat(64), QoS::AtLeastOnce);
    publisher.publish("t", "fits", QoS::AtLeastOnce);
    assert_eq!(small.text(), "fits");
    assert_eq!(large.text().len(), 64);
}

#[test]
fn filters_that_name_nothing_are_refused_one_by_one() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.9.3-1]; the number of levels is ours to bound.
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = Options::v5("client").connect(node.mqtt);
    let deep = vec!["a"; ermine::limits::TOPIC_LEVELS_MAX + 1].join("/");
    let filters = [
        "ok",
        "$share/g",
        "$share//a",
        "$share/+/a",
        "$share/g/",
        &deep,
        "$share/g/ok",
    ];
    client.send(&Packet::Subscribe(Subscribe {
        packet_id: id(1),
        properties: SubscribeProperties::default(),
        filters: filters.iter().map(|filter| ((*filter).into(), PLAIN)).collect(),
    }));
    let Packet::SubAck(suback) = client.next() else {
        panic!("a SUBACK")
    };
    let (granted, refused) = (ReasonCode::GrantedQoS1, ReasonCode::TopicFilterInvalid);
    assert_eq!(
        suback.reasons,
        [granted, refused, refused, refused, refused, refused, granted]
    );
    client.send(&Packet::Unsubscribe(Unsubscribe {
        packet_id: id(2),
        properties: UnsubscribeProperties::default(),
        filters: vec!["ok".into(), "$share/g".into()],
    }));
    let Packet::UnsubAck(unsuback) = client.next() else {
        panic!("an UNSUBACK")
    };
    // [MQTT-3.11.3-2]
    assert_eq!(
        unsuback.reasons,
        [ReasonCode::Success, ReasonCode::NoSubscriptionExisted]
    );
}

#[test]
fn acknowledgements_of_what_is_unknown_say_so() {
    // §3.6.2.1, §3.7.2.1, §3.4.2.1
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = Options::v5("client").connect(node.mqtt);
    let unknown = |number| {
        let mut ack = Ack::with_reason(id(number), ReasonCode::PacketIdentifierNotFound);
        ack.properties.reason_string = Some("no message has this packet identifier".into());
        ack
    };
    client.send(&Packet::PubRel(Ack::success(id(7))));
    assert_eq!(client.next(), Packet::PubComp(unknown(7)));
    client.send(&Packet::PubRec(Ack::success(id(8))));
    assert_eq!(client.next(), Packet::PubRel(unknown(8)));
    client.send(&publish(
        "nobody",
        QoS::AtLeastOnce,
        9,
        PublishProperties::default(),
    ));
    let nobody = Ack::with_reason(id(9), ReasonCode::NoMatchingSubscribers);
    assert_eq!(client.next(), Packet::PubAck(nobody));
}

#[test]
fn authentication_that_was_not_agreed_on_is_refused() {
    // [MQTT-4.12.0-1] [MQTT-4.12.0-7]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut options = Options::v5("client");
    options.connect.properties.authentication_method = Some("UNHEARD-OF".into());
    let refused = options.try_connect(node.mqtt).expect("an answer");
    assert_eq!(refused.connack.reason, ReasonCode::BadAuthenticationMethod);
    let mut client = Options::v5("client").connect(node.mqtt);
    client.send(&Packet::Auth(Auth {
        reason: ReasonCode::ReAuthenticate,
        properties: AuthProperties {
            authentication_method: Some("UNHEARD-OF".into()),
            ..AuthProperties::default()
        },
    }));
    assert_eq!(closed_for(&mut client), ReasonCode::ProtocolError);
}
