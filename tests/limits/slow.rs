//! Subscribers that do not read.

use ermine::limits::{INFLIGHT_MAX, OUTBOX_BYTES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_LEN_MAX};
use ermine::mqtt::codec;
use ermine::mqtt::packet::{Packet, ProtocolVersion, Publish, QoS};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node};
use crate::scale::{Scale, Witness, counted, flood_bytes};

/// What one attached subscriber may cost: an outbox and one message over it; for QoS 1 what is in flight
/// and what is queued.
fn cost(payload: usize, qos: QoS) -> u64 {
    let outbox = OUTBOX_BYTES_MAX + payload;
    let queue = match qos {
        QoS::AtMostOnce => 0,
        _ => {
            usize::from(INFLIGHT_MAX) * payload + SESSION_QUEUE_BYTES_MAX.min(SESSION_QUEUE_LEN_MAX * payload)
        }
    };
    // Each in its buffer, which may be half empty.
    2 * (outbox + queue) as u64
}

fn packet(payload: usize, qos: QoS, id: u16) -> Vec<u8> {
    let packet = Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "flood".into(),
        packet_id: (qos != QoS::AtMostOnce).then(|| id.try_into().expect("not 0")),
        properties: Default::default(),
        payload: vec![b'x'; payload].into(),
    });
    let mut out = Vec::new();
    codec::encode(&packet, ProtocolVersion::V3_1_1, &mut out).expect("encoded");
    out
}

/// Publishes so many bytes as fast as the node takes them.
fn flood(publisher: &mut Client, bytes: usize, payload: usize, qos: QoS) {
    let messages = (bytes / payload.max(1)).max(1);
    let batch = (1 << 16) / (payload + 12) + 1;
    let packets: Vec<u8> = (0..batch)
        .flat_map(|id| packet(payload, qos, id as u16 + 1))
        .collect();
    for _ in 0..messages.div_ceil(batch) {
        publisher.send_bytes(&packets);
        if qos != QoS::AtMostOnce {
            for _ in 0..batch {
                assert!(matches!(publisher.next(), Packet::PubAck(_)));
            }
        }
    }
    // Everything before it has been handled.
    publisher.assert_quiet();
}

fn deaf(node: &Node, count: usize, qos: QoS) -> Vec<Client> {
    let subscriber = |n| {
        let mut client = Options::new(&format!("deaf-{n}")).connect(node.mqtt);
        client.subscribe("flood", qos);
        client
    };
    (0..count).map(subscriber).collect()
}

/// Short messages take long in a debug build, so fewer bytes of them are sent.
fn volume(payload: usize) -> usize {
    if payload < 1000 {
        flood_bytes() / 2
    } else {
        flood_bytes()
    }
}

fn flood_past(count: usize, payload: usize, qos: QoS) {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let subscribers = deaf(&node, count, qos);
    let witness = Witness::of(node.mqtt);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    let scale = Scale::under(&node);
    flood(&mut publisher, volume(payload), payload, qos);
    let what = format!("{count} deaf, {payload} bytes, {qos:?}");
    scale.assert_grew_by_at_most(&what, count as u64 * cost(payload, qos));
    witness.assert_unharmed();
    let reason = match qos {
        QoS::AtMostOnce => "dropped_slow_consumer",
        _ => "dropped_queue_full",
    };
    assert!(counted(&host, &node, reason) > 0, "{reason}");
    host.assert_balanced(&node.name);
    drop(subscribers);
    host.assert_balanced(&node.name);
}

#[test]
fn a_subscriber_that_stops_reading_costs_an_outbox_at_qos_0() {
    flood_past(1, 64 << 10, QoS::AtMostOnce);
    flood_past(1, 100, QoS::AtMostOnce);
}

#[test]
fn many_subscribers_that_stop_reading_cost_an_outbox_each() {
    flood_past(50, 16 << 10, QoS::AtMostOnce);
}

#[test]
fn a_subscriber_that_stops_reading_costs_its_queue_at_qos_1() {
    flood_past(1, 64 << 10, QoS::AtLeastOnce);
    flood_past(1, 1000, QoS::AtLeastOnce);
}

#[test]
fn many_subscribers_that_stop_reading_cost_a_queue_each_at_qos_1() {
    flood_past(10, 16 << 10, QoS::AtLeastOnce);
}

#[test]
fn a_subscriber_that_reads_and_never_acknowledges_costs_its_queue() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut silent = deaf(&node, 1, QoS::AtLeastOnce).remove(0);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    let scale = Scale::under(&node);
    let payload = 8 << 10;
    flood(&mut publisher, flood_bytes(), payload, QoS::AtLeastOnce);
    for _ in 0..INFLIGHT_MAX {
        assert!(matches!(silent.next(), Packet::Publish(_)));
    }
    scale.assert_grew_by_at_most("never acknowledges", cost(payload, QoS::AtLeastOnce));
    assert!(counted(&host, &node, "dropped_queue_full") > 0);
    host.assert_balanced(&node.name);
}

#[test]
fn an_absent_subscriber_costs_its_queue_and_no_more() {
    for (payload, qos) in [
        (64 << 10, QoS::AtLeastOnce),
        (100, QoS::AtLeastOnce),
        (64 << 10, QoS::AtMostOnce),
    ] {
        let host = Host::new();
        let node = host.start("ermine@127.0.0.1");
        let mut absent = Options::new("absent").persistent().connect(node.mqtt);
        absent.subscribe("flood", QoS::AtLeastOnce);
        absent.disconnect();
        let witness = Witness::of(node.mqtt);
        let mut publisher = Options::new("publisher").connect(node.mqtt);
        let scale = Scale::under(&node);
        flood(&mut publisher, volume(payload), payload, qos);
        scale.assert_grew_by_at_most(&format!("absent, {payload} bytes, {qos:?}"), cost(payload, qos));
        witness.assert_unharmed();
        let reason = match qos {
            QoS::AtMostOnce => "dropped_qos0_offline",
            _ => "dropped_queue_full",
        };
        assert!(counted(&host, &node, reason) > 0, "{reason}");
        host.assert_balanced(&node.name);
    }
}
