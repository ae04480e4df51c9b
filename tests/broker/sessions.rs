//! Sessions that outlive their connection, and clients that meet themselves.

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::harness::host::Host;

#[test]
fn a_persistent_session_keeps_what_comes_while_its_client_is_away() {
    // [MQTT3-3.1.2-4..6] [MQTT3-3.2.2-1..3]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut sleeper = Options::new("sleeper").persistent().connect(node.mqtt);
    assert!(!sleeper.connack.session_present);
    sleeper.subscribe("mail/#", QoS::ExactlyOnce);
    sleeper.disconnect();
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("mail/1", "lost: QoS 0 is not kept", QoS::AtMostOnce);
    publisher.publish("mail/2", "one", QoS::AtLeastOnce);
    publisher.publish("mail/3", "two", QoS::ExactlyOnce);

    let mut woken = Options::new("sleeper").persistent().connect(node.mqtt);
    assert!(woken.connack.session_present);
    assert_eq!((woken.text(), woken.text()), ("one".into(), "two".into()));
    woken.assert_quiet();
    woken.disconnect();

    let mut fresh = Options::new("sleeper").connect(node.mqtt);
    assert!(
        !fresh.connack.session_present,
        "a clean start discards the session"
    );
    publisher.publish("mail/4", "nobody", QoS::AtLeastOnce);
    fresh.assert_quiet();
    host.assert_balanced(&node.name);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_with_dup() {
    // [MQTT3-2.3.1-4] [MQTT3-3.3.1-1] [MQTT3-4.4.0-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut first = Options::new("forgetful").persistent().connect(node.mqtt);
    first.subscribe("again", QoS::AtLeastOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("again", "take this", QoS::AtLeastOnce);
    let Packet::Publish(unacknowledged) = first.next() else {
        panic!("a PUBLISH")
    };
    assert!(!unacknowledged.dup);
    drop(first);

    let mut second = Options::new("forgetful").persistent().connect(node.mqtt);
    let again = second.message();
    assert!(again.dup);
    assert_eq!(
        (again.packet_id, again.payload),
        (unacknowledged.packet_id, unacknowledged.payload)
    );
    second.assert_quiet();
    host.assert_balanced(&node.name);
}

#[test]
fn a_second_connection_of_the_same_client_takes_over_and_the_first_is_told() {
    // [MQTT-3.1.4-3] [MQTT-3.14.4-2] [MQTT-3.1.3-2]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut old = Options::v5("twin").persistent().connect(node.mqtt);
    old.subscribe("twin/#", QoS::AtLeastOnce);
    let mut new = Options::v5("twin").persistent().connect(node.mqtt);
    assert!(new.connack.session_present);
    match old.assert_closed() {
        Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver),
        other => panic!("instead of DISCONNECT 0x8E: {other:?}"),
    }
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("twin/1", "to the new one", QoS::AtLeastOnce);
    assert_eq!(new.text(), "to the new one");
    host.assert_balanced(&node.name);
}

#[test]
fn a_hundred_takeovers_in_a_row_leave_one_session_that_works() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut last = Options::new("hot").connect(node.mqtt);
    for round in 0..100 {
        let options = Options::new("hot");
        last = if round % 2 == 0 {
            options.persistent()
        } else {
            options
        }
        .connect(node.mqtt);
    }
    last.subscribe("still/here", QoS::AtLeastOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("still/here", "yes", QoS::AtLeastOnce);
    assert_eq!(last.text(), "yes");
    host.assert_balanced(&node.name);
}

#[test]
fn a_will_is_published_when_the_client_vanishes_and_not_when_it_says_goodbye() {
    // [MQTT3-3.1.2-8] [MQTT3-3.1.2-10] [MQTT3-3.14.4-3]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut heir = Options::new("heir").connect(node.mqtt);
    heir.subscribe("wills/#", QoS::AtLeastOnce);
    let polite = Options::new("polite")
        .will("wills/polite", "never")
        .connect(node.mqtt);
    polite.disconnect();
    let vanishing = Options::new("vanishing")
        .will("wills/vanishing", "gone")
        .connect(node.mqtt);
    drop(vanishing);
    let message = heir.message();
    assert_eq!(
        (&*message.topic, &message.payload[..]),
        ("wills/vanishing", &b"gone"[..])
    );
    heir.assert_quiet();
    host.assert_balanced(&node.name);
}

#[test]
fn a_client_that_is_silent_beyond_its_keep_alive_is_closed_and_its_will_published() {
    // [MQTT3-3.1.2-24]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut heir = Options::new("heir").connect(node.mqtt);
    heir.subscribe("wills/#", QoS::AtLeastOnce);
    let mut silent = Options::new("silent")
        .keep_alive(1)
        .will("wills/silent", "late")
        .connect(node.mqtt);
    silent.assert_closed();
    assert_eq!(heir.text(), "late");
    host.assert_balanced(&node.name);
}
