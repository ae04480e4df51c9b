//! Messages from publishers to subscribers.

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::harness::host::Host;

const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn each_qos_arrives_at_the_lower_of_what_was_published_and_subscribed() {
    // [MQTT3-3.3.4-1] [MQTT3-3.8.4-6] [MQTT3-4.3.1-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for (number, subscribed) in LEVELS.into_iter().enumerate() {
        let mut subscriber = Options::new(&format!("sub{number}")).connect(node.mqtt);
        let granted = subscriber.subscribe("a/+/c", subscribed);
        assert_eq!(granted as u8, subscribed as u8);
        let mut publisher = Options::new(&format!("pub{number}")).connect(node.mqtt);
        for published in LEVELS {
            publisher.publish("a/b/c", &format!("{published:?}"), published);
            let message = subscriber.message();
            assert_eq!(message.payload, format!("{published:?}"));
            assert_eq!(
                (message.qos, message.retain, message.dup),
                (published.min(subscribed), false, false)
            );
        }
        subscriber.assert_quiet();
        subscriber.unsubscribe("a/+/c");
        publisher.publish("a/b/c", "nobody", QoS::AtLeastOnce);
        subscriber.assert_quiet();
    }
    host.assert_balanced(&node.name);
}

#[test]
fn many_messages_keep_their_order_within_each_qos_and_none_is_lost() {
    // [MQTT3-4.5.0-1] [MQTT3-4.6.0-5..6] [MQTT-4.5.0-1] [MQTT-4.6.0-5..6]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut subscribers: Vec<_> = (0..4)
        .map(|number| Options::new(&format!("s{number}")).connect(node.mqtt))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("stream/#", QoS::ExactlyOnce);
    }
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    for number in 0..300 {
        publisher.publish("stream/of/numbers", &number.to_string(), LEVELS[number % 3]);
    }
    for subscriber in &mut subscribers {
        let mut received: [Vec<usize>; 3] = Default::default();
        for _ in 0..300 {
            let message = subscriber.message();
            let number = String::from_utf8_lossy(&message.payload)
                .parse()
                .expect("a number");
            received[message.qos as usize].push(number);
        }
        // QoS 0 may overtake what waits for the client's window: order is per QoS [MQTT-4.6.0-6].
        for (qos, numbers) in received.into_iter().enumerate() {
            assert_eq!(
                numbers,
                (0..300).filter(|number| number % 3 == qos).collect::<Vec<_>>()
            );
        }
        subscriber.assert_quiet();
    }
    host.assert_balanced(&node.name);
}

#[test]
fn a_retained_message_greets_a_new_subscriber_until_it_is_cleared() {
    // [MQTT3-3.3.1-5..6] [MQTT3-3.3.1-8] [MQTT3-3.3.1-10..11]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish_with("room/1/temp", "21.5", QoS::AtLeastOnce, true);
    publisher.publish_with("room/2/temp", "19.0", QoS::AtLeastOnce, true);

    let mut early = Options::new("early").connect(node.mqtt);
    early.subscribe("room/1/#", QoS::AtLeastOnce);
    let message = early.message();
    assert_eq!(
        (&*message.topic, &message.payload[..], message.retain),
        ("room/1/temp", &b"21.5"[..], true)
    );

    publisher.publish_with("room/1/temp", "", QoS::AtLeastOnce, true);
    let live = early.message();
    assert!(
        live.payload.is_empty() && !live.retain,
        "a live message has no retain flag [MQTT3-3.3.1-9]"
    );
    let mut late = Options::new("late").connect(node.mqtt);
    late.subscribe("room/+/temp", QoS::AtMostOnce);
    assert_eq!(&*late.message().topic, "room/2/temp");
    late.assert_quiet();
    host.assert_balanced(&node.name);
}

#[test]
fn overlapping_subscriptions_and_dollar_topics_follow_the_standard() {
    // [MQTT3-4.7.2-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut wide = Options::new("wide").connect(node.mqtt);
    wide.subscribe("#", QoS::AtMostOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("$private/x", "hidden", QoS::AtLeastOnce);
    publisher.publish("/", "empty levels", QoS::AtLeastOnce);
    assert_eq!(wide.text(), "empty levels");
    wide.assert_quiet();
    host.assert_balanced(&node.name);
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut members: Vec<_> = (0..2)
        .map(|n| Options::new(&format!("m{n}")).connect(node.mqtt))
        .collect();
    for member in &mut members {
        member.subscribe("$share/group/jobs/#", QoS::AtLeastOnce);
    }
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    for number in 0..20 {
        publisher.publish("jobs/x", &number.to_string(), QoS::AtLeastOnce);
    }
    let mut seen: Vec<u32> = Vec::new();
    for member in &mut members {
        member.send(&Packet::PingReq);
        loop {
            match member.next() {
                Packet::PingResp => break,
                Packet::Publish(publish) => {
                    member.acknowledge(&publish);
                    seen.push(
                        String::from_utf8_lossy(&publish.payload)
                            .parse()
                            .expect("a number"),
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    host.assert_balanced(&node.name);
}

#[test]
fn a_client_of_5_0_is_answered_in_5_0() {
    // [MQTT-3.1.3-6..7] [MQTT-3.2.2-16] [MQTT-3.8.4-8]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut nameless = Options::v5("").connect(node.mqtt);
    let assigned = nameless.connack.properties.assigned_client_identifier.clone();
    assert!(
        assigned.is_some_and(|id| !id.is_empty()),
        "the client is told the id that it was given"
    );
    assert_eq!(
        nameless.subscribe("v5/#", QoS::AtLeastOnce),
        ReasonCode::GrantedQoS1
    );
    let mut old = Options::new("old").connect(node.mqtt);
    old.publish("v5/from/3.1.1", "hello", QoS::ExactlyOnce);
    let message = nameless.message();
    assert_eq!(
        (message.qos, &message.payload[..]),
        (QoS::AtLeastOnce, &b"hello"[..])
    );
    host.assert_balanced(&node.name);
}
