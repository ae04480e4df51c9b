//! The ACL at work: publish, subscribe, deliver and the will.

use std::num::NonZeroU16;

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::place::{PASSWORD, Place, user};

const ACL: &str = "
user alice
topic readwrite a/#
topic deny a/secret
topic write will/#
user bob
topic read #
topic write b
pattern readwrite own/%u/%c
";

/// What a PUBACK or PUBREC says.
#[track_caller]
fn refused(packet: Packet) -> (Option<NonZeroU16>, ReasonCode) {
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) => (Some(ack.packet_id), ack.reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn publishing_without_the_right_is_told_in_5_0_and_swallowed_before() {
    let place = Place::new();
    let node = place.ruled(ACL);
    let mut bob = user("bob", node.mqtt);
    assert_eq!(bob.subscribe("#", QoS::ExactlyOnce), ReasonCode::GrantedQoS2);
    let mut alice = user("alice", node.mqtt);
    for topic in ["a/secret", "b", "own/alice/other"] {
        let id = alice.send_publish(topic, b"x", QoS::AtLeastOnce, true);
        assert_eq!(refused(alice.next()), (id, ReasonCode::NotAuthorized), "{topic}");
        let id = alice.send_publish(topic, b"x", QoS::ExactlyOnce, false);
        assert_eq!(refused(alice.next()), (id, ReasonCode::NotAuthorized), "{topic}");
        alice.send_publish(topic, b"x", QoS::AtMostOnce, false);
    }
    let mut old = Options::new("old")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        old.publish("a/secret", "x", qos);
    }
    alice.publish("own/alice/alice", "mine", QoS::AtLeastOnce);
    assert_eq!(bob.text(), "mine", "the first thing that comes");
    bob.assert_quiet();
    let counters = place.host.ok(&["status", "--json"]);
    assert!(counters.contains("dropped_not_authorized"), "{counters}");
}

#[test]
fn subscribing_without_the_right_is_refused_filter_by_filter() {
    let place = Place::new();
    let node = place.ruled(ACL);
    let mut alice = user("alice", node.mqtt);
    assert_eq!(alice.subscribe("b", QoS::AtLeastOnce), ReasonCode::NotAuthorized);
    assert_eq!(
        alice.subscribe("will/#", QoS::AtLeastOnce),
        ReasonCode::NotAuthorized,
        "write only"
    );
    assert_eq!(
        alice.subscribe("a/secret", QoS::AtLeastOnce),
        ReasonCode::NotAuthorized
    );
    assert_eq!(
        alice.subscribe("$share/g/b", QoS::AtLeastOnce),
        ReasonCode::NotAuthorized
    );
    assert_eq!(alice.subscribe("a/+", QoS::AtLeastOnce), ReasonCode::GrantedQoS1);
    let mut old = Options::new("old")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
    assert_eq!(
        old.subscribe("b", QoS::AtLeastOnce),
        ReasonCode::UnspecifiedError,
        "0x80"
    );
}

#[test]
fn what_a_client_may_not_read_is_not_delivered_retained_or_not() {
    let place = Place::new();
    let node = place.ruled("user alice\ntopic read a/#\ntopic deny a/secret\nuser bob\ntopic write #\n");
    let mut bob = user("bob", node.mqtt);
    bob.publish_with("a/secret", "kept", QoS::AtLeastOnce, true);
    bob.publish_with("a/open", "kept", QoS::AtLeastOnce, true);
    let mut alice = user("alice", node.mqtt);
    assert_eq!(alice.subscribe("#", QoS::AtLeastOnce), ReasonCode::GrantedQoS1);
    assert_eq!(alice.message().topic, "a/open");
    for topic in ["a/secret", "z", "a/live"] {
        bob.send_publish(topic, b"live", QoS::AtMostOnce, false);
    }
    assert_eq!(alice.message().topic, "a/live");
    alice.assert_quiet();
}

#[test]
fn a_will_needs_the_right_to_publish_when_its_connection_ends() {
    let place = Place::new();
    let node = place.ruled(ACL);
    let mut bob = user("bob", node.mqtt);
    bob.subscribe("#", QoS::AtLeastOnce);
    for (id, topic) in [("w1", "b"), ("w2", "a/secret"), ("w3", "will/x")] {
        let client = Options::v5(id).credentials("alice", PASSWORD).will(topic, topic);
        drop(client.connect(node.mqtt));
    }
    assert_eq!(bob.text(), "will/x");
    bob.assert_quiet();
}
