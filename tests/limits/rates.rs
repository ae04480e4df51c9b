//! Rates, quotas and policies, as clients meet them.

use std::time::{Duration, Instant};

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually};
use crate::scale::counted;

fn node_with(host: &Host, limits: &str) -> Node {
    let path = host.home().join("ermine.toml");
    std::fs::write(&path, format!("[limits]\n{limits}\n")).expect("written");
    host.start_with("ermine@127.0.0.1", &["--config", path.to_str().expect("text")])
}

#[test]
fn a_client_over_its_message_rate_is_read_later_and_loses_nothing() {
    let host = Host::new();
    let node = node_with(&host, "message_rate = 20");
    let mut reader = Options::new("reader").connect(node.mqtt);
    reader.subscribe("t", QoS::AtMostOnce);
    // Its keep-alive runs out three times while it is not read.
    let mut fast = Options::new("fast").keep_alive(1).connect(node.mqtt);
    let began = Instant::now();
    for n in 0..100 {
        fast.send_publish("t", format!("{n}").as_bytes(), QoS::AtMostOnce, false);
    }
    for n in 0..100 {
        assert_eq!(reader.text(), n.to_string());
    }
    // The first twenty at once, eighty more at twenty a second.
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(3900)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    fast.assert_quiet();
    assert!(counted(&host, &node, "clients_throttled") > 0);
    host.assert_balanced(&node.name);
}

#[test]
fn a_client_over_its_byte_rate_does_not_slow_another() {
    let host = Host::new();
    let node = node_with(&host, "byte_rate = 20000");
    let mut fast = Options::new("fast").connect(node.mqtt);
    let mut other = Options::new("other").connect(node.mqtt);
    other.subscribe("o", QoS::AtLeastOnce);
    let began = Instant::now();
    for _ in 0..60 {
        fast.send_publish("t", &[0; 1000], QoS::AtMostOnce, false);
    }
    for _ in 0..10 {
        other.publish_and_receive("o");
    }
    let others = began.elapsed();
    fast.assert_quiet();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900), "{took:?}");
    assert!(others < took, "{others:?}");
    host.assert_balanced(&node.name);
}

#[test]
fn connections_beyond_the_node_s_and_the_address_s_are_closed_and_counted() {
    for (limits, counter) in [
        ("connections_max = 2", "refused_node_full"),
        ("connections_per_address_max = 2", "refused_address_full"),
        ("connect_rate_per_address = 2", "refused_address_rate"),
    ] {
        let host = Host::new();
        let node = node_with(&host, limits);
        let first = Options::new("first").connect(node.mqtt);
        let _second = Options::new("second").connect(node.mqtt);
        let third = Options::new("third").try_connect(node.mqtt);
        assert!(third.is_err(), "{limits}");
        assert_eq!(counted(&host, &node, counter), 1, "{limits}");
        first.disconnect();
        eventually("a place is free again", || {
            Options::new("fourth").try_connect(node.mqtt).ok().map(drop)
        });
        let listeners = host.json(&["listeners", "--node", &node.name]);
        assert!(listeners[0]["refused"].as_u64() >= Some(1), "{listeners}");
    }
}

#[test]
fn a_listener_at_its_connect_rate_accepts_everybody_later() {
    let host = Host::new();
    let node = node_with(&host, "connect_rate = 10");
    let began = Instant::now();
    let clients: Vec<_> = (0..25)
        .map(|n| Options::new(&format!("c{n}")).connect(node.mqtt))
        .collect();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1200), "{took:?}");
    drop(clients);
}

#[test]
fn the_queue_of_an_absent_client_keeps_the_newest_and_qos_0_where_it_is_told_to() {
    let host = Host::new();
    let node = node_with(
        &host,
        "queue_len_max = 3\nqueue_policy = \"drop_oldest\"\nqueue_qos0 = true",
    );
    let mut absent = Options::new("absent").persistent().connect(node.mqtt);
    absent.subscribe("t", QoS::AtLeastOnce);
    absent.disconnect();
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    for n in 0..5 {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce);
    }
    publisher.publish("t", "zero", QoS::AtMostOnce);
    // Acknowledged when the queue has it, and with it what came before.
    publisher.publish("t", "last", QoS::AtLeastOnce);
    let mut absent = Options::new("absent").persistent().connect(node.mqtt);
    let texts: Vec<_> = (0..3).map(|_| absent.text()).collect();
    assert_eq!(texts, ["4", "zero", "last"]);
    assert_eq!(counted(&host, &node, "dropped_queue_oldest"), 4);
    host.assert_balanced(&node.name);
}

#[test]
fn a_full_store_of_retained_messages_takes_no_more_and_says_so() {
    let host = Host::new();
    let node = node_with(&host, "retained_len_max = 2");
    let mut client = Options::new("client").connect(node.mqtt);
    for topic in ["a", "b", "c"] {
        client.publish_with(topic, "x", QoS::AtLeastOnce, true);
    }
    // $SYS is retained too.
    eventually("it is counted", || {
        (counted(&host, &node, "retained_refused") >= 1).then_some(())
    });
    host.assert_balanced(&node.name);
}
