//! What a 5.0 client is told beside a reason code, and what it is refused.

use ermine::mqtt::packet::{Ack, Packet, QoS, Will};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::Host;

fn reason_of_unknown_pubrel(client: &mut Client) -> Option<String> {
    client.send(&Packet::PubRel(Ack::success(std::num::NonZeroU16::MIN)));
    match client.next() {
        Packet::PubComp(ack) => {
            assert_eq!(ack.reason, ReasonCode::PacketIdentifierNotFound);
            ack.properties.reason_string.map(|text| text.to_string())
        }
        other => panic!("instead of PUBCOMP: {other:?}"),
    }
}

/// [MQTT-3.1.2-29] [MQTT-3.7.2-2] [MQTT-3.14.2-3] [MQTT-3.1.2-24]
#[test]
fn a_reason_string_comes_unless_the_client_does_not_want_it_or_has_no_room_for_it() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for (problem_information, packet_size_max, told) in [
        (None, None, true),
        (Some(true), Some(100), true),
        (Some(false), None, false),
        (None, Some(20), false),
    ] {
        let mut options = Options::v5("client");
        options.connect.properties.request_problem_information = problem_information;
        options.connect.properties.maximum_packet_size = packet_size_max;
        // The CONNACK of a client that takes 20 bytes cannot be told what the server grants.
        let Ok(mut client) = options.try_connect(node.mqtt) else {
            assert_eq!(packet_size_max, Some(20));
            continue;
        };
        assert_eq!(reason_of_unknown_pubrel(&mut client).is_some(), told);
        // Also on DISCONNECT, where a server may always say it.
        client.send(&Packet::PubRel(Ack::success(std::num::NonZeroU16::MAX)));
        client.send(&Packet::PingResp);
        match client.assert_closed() {
            Some(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.reason, ReasonCode::ProtocolError);
                let fits = packet_size_max.is_none_or(|max| max >= 100);
                assert_eq!(disconnect.properties.reason_string.is_some(), fits);
            }
            other => panic!("instead of DISCONNECT: {other:?}"),
        }
    }
}

/// [MQTT-3.2.2-19]
#[test]
fn a_refused_connect_is_told_why_if_that_fits() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for (packet_size_max, told) in [(None, true), (Some(20), false)] {
        let mut options = Options::v5("client");
        options.connect.properties.authentication_method = Some("unheard-of".into());
        options.connect.properties.maximum_packet_size = packet_size_max;
        let refused = options.try_connect(node.mqtt).expect("a CONNACK").connack;
        assert_eq!(refused.reason, ReasonCode::BadAuthenticationMethod);
        assert_eq!(refused.properties.reason_string.is_some(), told);
    }
}

/// [MQTT-4.7.2-1]: `$SYS` is the broker's.
#[test]
fn what_clients_publish_below_sys_reaches_nobody() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut curious = Options::new("curious").connect(node.mqtt);
    curious.subscribe("$SYS/forged/#", QoS::AtMostOnce);
    let mut newer = Options::v5("newer").connect(node.mqtt);
    newer.send_publish("$SYS/forged/0", b"x", QoS::AtMostOnce, true);
    newer.send_publish("$SYS/forged/1", b"x", QoS::AtLeastOnce, true);
    match newer.next() {
        Packet::PubAck(ack) => assert_eq!(ack.reason, ReasonCode::NotAuthorized),
        other => panic!("instead of PUBACK: {other:?}"),
    }
    let mut older = Options::new("older");
    older.connect.will = Some(Will {
        retain: true,
        ..Options::new("")
            .will("$SYS/forged/will", "x")
            .connect
            .will
            .expect("a will")
    });
    let mut older = older.connect(node.mqtt);
    older.publish_with("$SYS/forged/2", "x", QoS::ExactlyOnce, true);
    drop(older);
    newer.publish("$mine/1", "free", QoS::AtLeastOnce);
    newer.publish("$SYSTEM", "free", QoS::AtLeastOnce);
    curious.assert_quiet();
    // Nor was it retained.
    newer.subscribe("$SYS/forged/#", QoS::AtMostOnce);
    newer.assert_quiet();
}

/// The names are mosquitto's where they mean the same.
#[test]
fn the_broker_tells_what_it_counts_and_how_much_per_minute() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut curious = Options::new("curious").connect(node.mqtt);
    curious.subscribe("$SYS/#", QoS::AtMostOnce);
    let mut missing = vec![
        "version",
        "uptime",
        "clients/total",
        "clients/maximum",
        "clients/expired",
        "messages/received",
        "messages/sent",
        "messages/stored",
        "publish/messages/dropped",
        "publish/bytes/received",
        "bytes/sent",
        "subscriptions/count",
        "shared_subscriptions/count",
        "store/messages/count",
        "retained messages/count",
        "load/messages/received/1min",
        "load/publish/sent/5min",
        "load/bytes/received/15min",
        "load/sockets/1min",
        "load/connections/1min",
    ];
    while !missing.is_empty() {
        let message = curious.message();
        let topic = message.topic.strip_prefix("$SYS/broker/").expect("of the broker");
        missing.retain(|name| *name != topic);
    }
}
