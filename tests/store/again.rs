//! What is there again after a restart, to the packet: exchanges in their middle, DUP flags and packet
//! identifiers, expiry, options of subscriptions, retained messages, wills.

use std::net::SocketAddr;
use std::time::Duration;

use ermine::mqtt::packet::{Ack, Packet, PacketId, ProtocolVersion, QoS, SubscriptionOptions};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, free_port};
use crate::house::{Ending, House, NAME, next_publish, publication};

fn sleeper(version: ProtocolVersion, house: &House) -> Client {
    let options = if version.is_v5() {
        let mut options = Options::v5("sleeper");
        options.connect.properties.receive_maximum = Some(3);
        options
    } else {
        Options::new("sleeper")
    };
    options.persistent().connect(house.address)
}

/// Waits until the store has what the client has told so far: an acknowledged SUBSCRIBE is behind it.
fn until_safe(client: &mut Client) {
    let packet_id = client.send_subscribe("until/safe", SubscriptionOptions::default());
    loop {
        match client.next() {
            Packet::SubAck(suback) if suback.packet_id == packet_id => return,
            Packet::PubRel(release) => client.send(&Packet::PubComp(Ack::success(release.packet_id))),
            other => panic!("instead of SUBACK: {other:?}"),
        }
    }
}

/// A subscriber is left in the middle of everything: PUBREL without PUBCOMP, PUBLISH without PUBREC, QoS 1
/// without PUBACK, and messages behind the window.
fn left_in_the_middle(version: ProtocolVersion, ending: Ending) {
    let mut house = House::start("[limits]\ninflight_max = 3\n");
    let mut client = sleeper(version, &house);
    client.subscribe("mail/#", QoS::ExactlyOnce);
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish("mail/0", "settled", QoS::AtLeastOnce);
    assert_eq!(client.text(), "settled");
    sender.publish("mail/1", "released", QoS::ExactlyOnce);
    sender.publish("mail/2", "sent twice", QoS::ExactlyOnce);
    sender.publish("mail/3", "sent once", QoS::AtLeastOnce);
    sender.publish("mail/4", "queued", QoS::ExactlyOnce);
    sender.publish("mail/5", "queued too", QoS::AtLeastOnce);
    let [released, twice, once] = [0; 3].map(|_| next_publish(&mut client));
    client.acknowledge(&released);
    let released_id = released.packet_id.expect("QoS 2 has one");
    assert_eq!(client.next(), Packet::PubRel(Ack::success(released_id)));
    client.assert_quiet();
    house.again_after(ending);
    let what = format!("{version:?} {ending:?}");
    let mut client = sleeper(version, &house);
    assert!(client.connack.session_present, "{what}");
    assert_eq!(client.next(), Packet::PubRel(Ack::success(released_id)), "{what}");
    for before in [&twice, &once] {
        let again = next_publish(&mut client);
        assert!(again.dup, "{what}: {again:?}");
        assert_eq!(
            (&again.topic, &again.payload, again.qos, again.packet_id),
            (&before.topic, &before.payload, before.qos, before.packet_id),
            "{what}"
        );
    }
    client.assert_quiet();
    client.send(&Packet::PubComp(Ack::success(released_id)));
    let queued = client.message();
    assert_eq!(&queued.payload[..], b"queued", "{what}");
    assert_eq!(queued.qos, QoS::ExactlyOnce);
    client.acknowledge(&once);
    assert_eq!(client.text(), "queued too", "{what}");
    client.acknowledge(&twice);
    client.assert_quiet();
    let mut again = sleeper(version, &house);
    again.assert_quiet();
}

#[test]
fn a_subscriber_of_5_0_finds_its_exchanges_where_they_were() {
    for ending in Ending::BOTH {
        left_in_the_middle(ProtocolVersion::V5, ending);
    }
}

#[test]
fn a_subscriber_of_3_1_1_finds_its_exchanges_where_they_were() {
    for ending in Ending::BOTH {
        left_in_the_middle(ProtocolVersion::V3_1_1, ending);
    }
}

#[test]
fn a_publisher_ends_its_qos_2_exchange_after_a_restart_and_brings_nothing_twice() {
    for ending in Ending::BOTH {
        let mut house = House::start("");
        let mut reader = Options::v5("reader").persistent().connect(house.address);
        reader.subscribe("once", QoS::ExactlyOnce);
        let mut sender = Options::v5("sender").persistent().connect(house.address);
        let packet = |dup| Packet::Publish(publication(7, "once", b"first", QoS::ExactlyOnce, dup));
        let id = PacketId::new(7).expect("not 0");
        sender.send(&packet(false));
        assert_eq!(sender.next(), Packet::PubRec(Ack::success(id)));
        assert_eq!(reader.text(), "first");
        until_safe(&mut reader);
        house.again_after(ending);
        let mut sender = Options::v5("sender").persistent().connect(house.address);
        assert!(sender.connack.session_present);
        sender.send(&packet(true));
        assert_eq!(sender.next(), Packet::PubRec(Ack::success(id)));
        sender.send(&Packet::PubRel(Ack::success(id)));
        assert_eq!(sender.next(), Packet::PubComp(Ack::success(id)));
        house.again_after(ending);
        // The identifier is free: this is another message.
        let mut sender = Options::v5("sender").persistent().connect(house.address);
        sender.send(&Packet::Publish(publication(
            7,
            "once",
            b"second",
            QoS::ExactlyOnce,
            false,
        )));
        assert_eq!(sender.next(), Packet::PubRec(Ack::success(id)));
        let mut reader = Options::v5("reader").persistent().connect(house.address);
        assert_eq!(reader.text(), "second", "{ending:?}");
        reader.assert_quiet();
    }
}

#[test]
fn what_a_client_subscribed_to_is_there_again_with_its_options() {
    for ending in Ending::BOTH {
        let mut house = House::start("");
        let stay = |house: &House| Options::v5("s").persistent().connect(house.address);
        let mut client = stay(&house);
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            ..SubscriptionOptions::default()
        };
        client.subscribe_with("kept/+", options);
        client.subscribe("gone", QoS::AtLeastOnce);
        client.unsubscribe("gone");
        client.subscribe("$share/g/work", QoS::AtLeastOnce);
        house.again_after(ending);
        let mut sender = Options::v5("sender").connect(house.address);
        sender.publish("gone", "no", QoS::AtLeastOnce);
        sender.publish_with("kept/1", "retained", QoS::AtLeastOnce, true);
        sender.publish("work", "shared", QoS::AtLeastOnce);
        let mut client = stay(&house);
        assert!(client.connack.session_present, "{ending:?}");
        let mut came = [client.message(), client.message()];
        came.sort_by_key(|publish| publish.topic.to_string());
        assert_eq!(
            (&came[0].payload[..], came[0].retain),
            (&b"retained"[..], true),
            "{ending:?}"
        );
        assert_eq!(&came[1].payload[..], b"shared");
        let id = client.send_publish("kept/2", b"my own", QoS::AtLeastOnce, false);
        let id = id.expect("QoS 1 has one");
        assert_eq!(client.next(), Packet::PubAck(Ack::success(id)));
        client.assert_quiet();
        // What was retained, with its flag, is there for a new client after one more restart.
        house.again_after(ending);
        let mut late = Options::new("late").connect(house.address);
        late.subscribe("kept/#", QoS::AtLeastOnce);
        let kept = late.message();
        assert_eq!((&kept.payload[..], kept.retain), (&b"retained"[..], true));
        late.disconnect();
        let mut sender = Options::new("sender").connect(house.address);
        sender.publish_with("kept/1", "", QoS::AtLeastOnce, true);
        house.again_after(ending);
        let mut later = Options::new("later").connect(house.address);
        later.subscribe("kept/#", QoS::AtLeastOnce);
        later.assert_quiet();
    }
}

#[test]
fn a_clean_session_leaves_nothing_and_a_clean_start_takes_everything_away() {
    let mut house = House::start("");
    let mut clean = Options::new("clean").connect(house.address);
    clean.subscribe("a", QoS::AtLeastOnce);
    let mut kept = Options::v5("kept").persistent().connect(house.address);
    kept.subscribe("a", QoS::AtLeastOnce);
    kept.disconnect();
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish("a", "for nobody in the end", QoS::AtLeastOnce);
    let mut options = Options::v5("kept").persistent();
    options.connect.clean_start = true;
    let mut kept = options.connect(house.address);
    assert!(!kept.connack.session_present);
    kept.subscribe("b", QoS::AtLeastOnce);
    house.again_after(Ending::Killed);
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish("a", "not subscribed to", QoS::AtLeastOnce);
    sender.publish("b", "subscribed to", QoS::AtLeastOnce);
    let clean = Options::new("clean").persistent().connect(house.address);
    assert!(!clean.connack.session_present);
    let mut kept = Options::v5("kept").persistent().connect(house.address);
    assert!(kept.connack.session_present);
    assert_eq!(kept.text(), "subscribed to");
    kept.assert_quiet();
}

#[test]
fn what_expires_goes_on_expiring_while_the_node_is_down() {
    for ending in Ending::BOTH {
        let mut house = House::start("");
        let stay = |id: &str, expiry_s: u32, house: &House| {
            let mut options = Options::v5(id).persistent();
            options.connect.properties.session_expiry_interval_s = Some(expiry_s);
            options.connect(house.address)
        };
        stay("short", 1, &house).subscribe("t", QoS::AtLeastOnce);
        stay("long", 600, &house).subscribe("t", QoS::AtLeastOnce);
        let mut sender = Options::v5("sender").connect(house.address);
        for (id, expiry_s) in [(1, 1), (2, 600)] {
            let mut publish = publication(id, "t", b"m", QoS::AtLeastOnce, false);
            publish.properties.message_expiry_interval_s = Some(expiry_s);
            let id = publish.packet_id.expect("QoS 1 has one");
            sender.send(&Packet::Publish(publish));
            assert_eq!(sender.next(), Packet::PubAck(Ack::success(id)));
        }
        drop(sender);
        house.end(ending);
        // Time is what is to pass.
        std::thread::park_timeout(Duration::from_millis(2100));
        house.start_again();
        let mut long = stay("long", 600, &house);
        assert!(long.connack.session_present, "{ending:?}");
        let message = long.message();
        let left_s = message.properties.message_expiry_interval_s;
        assert!(
            left_s.is_some_and(|left_s| (500..=598).contains(&left_s)),
            "{ending:?}: {message:?}"
        );
        long.assert_quiet();
        let short = stay("short", 1, &house);
        let ended = !short.connack.session_present;
        // After `kill -9` nobody knows how long its client had been away before the node was back.
        assert!(ended || ending == Ending::Killed, "{ending:?}");
    }
}

#[test]
fn until_its_client_is_back_a_session_has_the_limits_of_the_listener_it_came_through() {
    let host = Host::new();
    let config = host.home().join("listeners.toml");
    let addresses = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let [narrow, wide] = addresses;
    let text = format!(
        "[limits]\nqueue_len_max = 5\n[[listener]]\nlisten = \"{narrow}\"\nqueue_len_max = 2\n\
         [[listener]]\nlisten = \"{wide}\"\nqueue_len_max = 9\n"
    );
    std::fs::write(&config, text).expect("written");
    let start = || {
        let node = host.spawn(NAME, &["--config", config.to_str().expect("a path of ours")]);
        node.await_log("the node is up", |line| line.contains("node started"));
        node
    };
    let node = start();
    let sleeper = |address: SocketAddr| {
        let id = format!("sleeper-{address}");
        Options::v5(&id).persistent().connect(address)
    };
    for address in addresses {
        sleeper(address).subscribe("mail", QoS::AtLeastOnce);
    }
    node.kill();
    let node = start();
    let mut sender = Options::new("sender").connect(wide);
    for number in 0..20 {
        sender.publish("mail", &number.to_string(), QoS::AtLeastOnce);
    }
    for (address, len) in [(narrow, 2), (wide, 9)] {
        let mut client = sleeper(address);
        for number in 0..len {
            assert_eq!(client.text(), number.to_string());
        }
        client.assert_quiet();
    }
    drop(node);
}
