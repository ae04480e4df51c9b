//! Packets that are protocol errors.

use super::*;
use crate::mqtt::packet::{Auth, SubAck, UnsubAck};
use crate::mqtt::properties::{AckProperties, AuthProperties, ConnAckProperties};

fn not_from_a_client() -> Vec<Packet> {
    let properties = AckProperties::default;
    vec![
        Packet::Connect(Box::new(connect3(true))),
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: ConnAckProperties::default(),
        })),
        Packet::SubAck(SubAck {
            packet_id: id(1),
            properties: properties(),
            reasons: vec![],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: id(1),
            properties: properties(),
            reasons: vec![],
        }),
        Packet::PingResp,
        Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: AuthProperties::default(),
        }),
    ]
}

#[test]
fn a_second_connect_auth_and_what_only_a_server_sends_are_protocol_errors() {
    // [MQTT3-3.1.0-2] [MQTT-3.1.0-2] [MQTT-4.12.0-7]
    for packet in not_from_a_client() {
        let effects = Bench::v5(0).packet(packet.clone());
        let expected = [
            disconnected(ReasonCode::ProtocolError),
            Effect::CloseTransport,
            Effect::End,
        ];
        assert_eq!(effects, expected, "{packet:?}");
        assert_eq!(
            Bench::v3(true).packet(packet),
            [Effect::CloseTransport, Effect::End]
        );
    }
}

#[test]
fn an_acknowledgement_of_the_wrong_kind_is_a_protocol_error() {
    for (qos, wrong) in [
        (QoS::AtLeastOnce, pubrec(1)),
        (QoS::AtLeastOnce, pubcomp(1)),
        (QoS::ExactlyOnce, puback(1)),
        (QoS::ExactlyOnce, pubcomp(1)),
    ] {
        let mut bench = Bench::v5(0);
        bench.deliver(qos, "x");
        assert_eq!(bench.packet(wrong)[0], disconnected(ReasonCode::ProtocolError));
    }
    let mut bench = Bench::v5(0);
    bench.deliver(QoS::ExactlyOnce, "x");
    bench.packet(pubrec(1));
    assert_eq!(
        bench.packet(puback(1))[0],
        disconnected(ReasonCode::ProtocolError)
    );
}

#[test]
fn a_pubrel_before_its_pubrec_is_a_protocol_error() {
    let mut bench = Bench::v5(0);
    bench.publish(QoS::ExactlyOnce, 1);
    assert_eq!(
        bench.packet(pubrel(1))[0],
        disconnected(ReasonCode::ProtocolError)
    );
}

#[test]
fn more_messages_than_the_receive_maximum_are_told_as_such() {
    // [MQTT-3.3.4-7]
    let mut bench = Bench::v5(100);
    for packet_id in 1..=3 {
        bench.publish(QoS::ExactlyOnce, packet_id);
    }
    let effects = bench.packet(publish(QoS::AtLeastOnce, 4));
    assert_eq!(effects[0], disconnected(ReasonCode::ReceiveMaximumExceeded));
    bench.attach(connect5(100));
    assert!(
        bench.publish(QoS::ExactlyOnce, 4).is_some(),
        "the refused message was not noted as received"
    );
}

#[test]
fn the_quota_is_given_back_by_the_last_acknowledgement() {
    let mut bench = Bench::v5(100);
    let first = bench.publish(QoS::ExactlyOnce, 1);
    let second = bench.publish(QoS::AtLeastOnce, 2);
    let third = bench.publish(QoS::ExactlyOnce, 3);
    bench.taken(first);
    bench.taken(second);
    bench.published(third, PublishOutcome::Refused(ReasonCode::QuotaExceeded));
    // PUBACK and the failing PUBREC have ended two of three.
    bench.publish(QoS::ExactlyOnce, 4);
    bench.publish(QoS::ExactlyOnce, 5);
    bench.packet(pubrel(1));
    bench.publish(QoS::ExactlyOnce, 6);
    let effects = bench.packet(publish(QoS::ExactlyOnce, 7));
    assert_eq!(effects[0], disconnected(ReasonCode::ReceiveMaximumExceeded));
}

#[test]
fn a_3_1_1_client_is_slowed_down_instead() {
    let mut bench = Bench::v3(true);
    let mut tokens = Vec::new();
    for packet_id in 1..=4 {
        assert_eq!(bench.session.wants_input(), packet_id <= 3);
        tokens.push(bench.publish(QoS::AtLeastOnce, packet_id));
    }
    assert_eq!(bench.session.unanswered_len(), 4);
    for token in tokens {
        bench.taken(token);
    }
    assert!(bench.session.wants_input());
}

#[test]
fn topic_aliases_are_remembered_for_the_connection() {
    // [MQTT-3.3.2-7]
    let mut bench = Bench::v5(100);
    let with_alias = |topic: &'static str, alias: u16| {
        let mut publish = publish_value(QoS::AtMostOnce, 0, topic);
        publish.properties.topic_alias = Some(alias);
        Packet::Publish(publish)
    };
    let topic_of = |effects: &[Effect]| match effects {
        [Effect::Publish { message, .. }] => message.topic.to_string(),
        other => panic!("published: {other:?}"),
    };
    assert_eq!(topic_of(&bench.packet(with_alias("a", 2))), "a");
    assert_eq!(topic_of(&bench.packet(with_alias("", 2))), "a");
    assert_eq!(topic_of(&bench.packet(with_alias("b", 2))), "b");
    assert_eq!(topic_of(&bench.packet(with_alias("", 2))), "b");
    bench.handle(Event::TransportLost);
    bench.attach(connect5(100));
    assert_eq!(
        bench.packet(with_alias("", 2))[0],
        disconnected(ReasonCode::ProtocolError)
    );
}

#[test]
fn a_topic_alias_beyond_the_maximum_is_invalid() {
    // [MQTT-3.3.2-9] [MQTT-3.2.2-17]
    for alias in [0, 3] {
        let mut publish = publish_value(QoS::AtMostOnce, 0, "a");
        publish.properties.topic_alias = Some(alias);
        let effects = Bench::v5(0).packet(Packet::Publish(publish));
        assert_eq!(effects[0], disconnected(ReasonCode::TopicAliasInvalid));
    }
}

#[test]
fn a_topic_that_is_empty_without_an_alias_is_a_protocol_error() {
    let effects = Bench::v5(0).packet(Packet::Publish(publish_value(QoS::AtMostOnce, 0, "")));
    assert_eq!(effects[0], disconnected(ReasonCode::ProtocolError));
}

#[test]
fn too_many_unanswered_subscribes_close_the_connection() {
    let mut bench = Bench::new();
    bench.attach_limited(
        connect5(0),
        ClientLimits {
            subscriptions_max: 10_000,
            ..LIMITS
        },
    );
    for packet_id in 1..=1024 {
        assert_eq!(bench.session.wants_input(), packet_id <= 64);
        bench.packet(subscribe(packet_id, &["a"]));
    }
    assert_eq!(
        bench.packet(subscribe(2000, &["a"]))[0],
        disconnected(ReasonCode::QuotaExceeded)
    );
}

/// [MQTT-3.14.2-3] [MQTT-3.4.2-2]
#[test]
fn a_5_0_client_reads_why_something_failed() {
    let why = |effects: Vec<Effect>| {
        effects.into_iter().find_map(|effect| match effect {
            Effect::Send(Packet::Disconnect(disconnect)) => disconnect.properties.reason_string,
            Effect::Send(Packet::PubAck(ack) | Packet::PubComp(ack)) => ack.properties.reason_string,
            Effect::Send(Packet::SubAck(ack)) => ack.properties.reason_string,
            _ => None,
        })
    };
    let mut bench = Bench::v5(0);
    let token = bench.publish(QoS::AtLeastOnce, 1).expect("QoS 1");
    let outcome = PublishOutcome::Refused(ReasonCode::NotAuthorized);
    let refused = bench.handle_verbatim(Event::Published { token, outcome });
    assert_eq!(why(refused).as_deref(), Some("not authorised"));
    let unknown = bench.handle_verbatim(Event::Packet(pubrel(9)));
    assert_eq!(
        why(unknown).as_deref(),
        Some("no message has this packet identifier")
    );
    let refused = bench.handle_verbatim(Event::Packet(subscribe(2, &["$share/g"])));
    assert_eq!(
        why(refused).as_deref(),
        Some("the topic filter is not valid here")
    );
    let closed = bench.handle_verbatim(Event::Packet(Packet::PingResp));
    assert_eq!(
        why(closed).as_deref(),
        Some("a second CONNECT, or a packet that only servers send")
    );
}

#[test]
fn where_no_topic_alias_is_allowed_each_is_invalid() {
    // [MQTT-3.2.2-18]
    let mut bench = Bench::new();
    let limits = ClientLimits {
        topic_alias_max: 0,
        ..LIMITS
    };
    bench.attach_limited(connect5(0), limits);
    let mut publish = publish_value(QoS::AtMostOnce, 1, "t");
    publish.properties.topic_alias = Some(1);
    let effects = bench.packet(Packet::Publish(publish));
    assert_eq!(effects[0], disconnected(ReasonCode::TopicAliasInvalid));
}
