//! What was in flight when a connection was lost is sent again on the next `[MQTT-4.4.0-1]`.

use super::*;

fn again(payload: &str, qos: u8, packet_id: u16) -> (String, u8, u16, bool) {
    (payload.to_string(), qos, packet_id, true)
}

fn released(effects: &[Effect]) -> Vec<u16> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(Packet::PubRel(ack)) => Some(ack.packet_id.get()),
            _ => None,
        })
        .collect()
}

fn wide() -> ClientLimits {
    ClientLimits {
        inflight_max: 4,
        ..LIMITS
    }
}

/// Four messages in flight, of which 2 has come as far as PUBREL.
fn four_in_flight() -> Bench {
    let mut bench = Bench::new();
    bench.attach_limited(connect3(false), wide());
    for (qos, payload) in [
        (QoS::AtLeastOnce, "1"),
        (QoS::ExactlyOnce, "2"),
        (QoS::ExactlyOnce, "3"),
        (QoS::AtLeastOnce, "4"),
    ] {
        bench.deliver(qos, payload);
    }
    bench.packet(pubrec(2));
    bench.handle(Event::TransportLost);
    bench
}

#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_its_identifier() {
    // [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT-4.4.0-1] [MQTT3-4.6.0-4]
    let mut bench = four_in_flight();
    bench.deliver(QoS::AtLeastOnce, "new");
    let effects = bench.attach_limited(connect3(false), wide());
    assert!(
        connack(&effects[..1]).session_present,
        "CONNACK is the first packet"
    );
    assert_eq!(released(&effects), [2]);
    assert_eq!(
        sent(&effects),
        [again("1", 1, 1), again("3", 2, 3), again("4", 1, 4)]
    );
    assert_eq!(sent(&bench.packet(puback(1))), [("new".into(), 1, 5, false)]);
    assert_eq!(bench.packet(pubcomp(2)), []);
    assert_eq!(bench.packet(pubrec(3)), [Effect::Send(pubrel(3))]);
}

#[test]
fn a_narrower_window_holds_back_what_was_in_flight() {
    let mut bench = four_in_flight();
    let mut connect = connect5(100);
    connect.properties.receive_maximum = Some(2);
    let effects = bench.attach_limited(connect, wide());
    assert_eq!(released(&effects), [2]);
    assert_eq!(
        sent(&effects),
        [again("1", 1, 1)],
        "PUBREL and one PUBLISH fill a window of two"
    );
    assert_eq!(bench.deliver(QoS::AtLeastOnce, "new"), [], "it waits behind them");
    assert_eq!(sent(&bench.packet(puback(1))), [again("3", 2, 3)]);
    assert_eq!(sent(&bench.packet(pubcomp(2))), [again("4", 1, 4)]);
    bench.packet(pubrec(3));
    assert_eq!(sent(&bench.packet(pubcomp(3))), [("new".into(), 1, 5, false)]);
}

#[test]
fn an_acknowledgement_of_a_message_that_is_held_back_counts() {
    let mut bench = four_in_flight();
    let mut connect = connect5(100);
    connect.properties.receive_maximum = Some(1);
    bench.attach_limited(connect, wide());
    assert_eq!(bench.packet(puback(4)), []);
    assert_eq!(bench.packet(pubrec(3)), [Effect::Send(pubrel(3))]);
    assert_eq!(bench.session.inflight_len(), 3);
    bench.handle(Event::TransportLost);
    let effects = bench.attach_limited(connect3(false), wide());
    assert_eq!(released(&effects), [2, 3]);
    assert_eq!(sent(&effects), [again("1", 1, 1)]);
}

#[test]
fn what_is_too_large_for_the_new_connection_is_given_up() {
    let mut bench = Bench::v5(100);
    bench.deliver(QoS::AtLeastOnce, &"x".repeat(200));
    bench.deliver(QoS::AtLeastOnce, "small");
    bench.handle(Event::TransportLost);
    let mut connect = connect5(100);
    connect.properties.maximum_packet_size = Some(100);
    let effects = bench.attach(connect);
    assert_eq!(counted(&effects), [Counted::DroppedTooLarge]);
    assert_eq!(sent(&effects), [again("small", 1, 2)]);
    assert_eq!(bench.session.inflight_len(), 1);
}

#[test]
fn a_message_whose_delivery_has_begun_does_not_expire() {
    // [MQTT-4.3.3-7]
    let mut bench = Bench::v5(100);
    let expires_at = bench.now.checked_add(Duration::from_secs(5));
    bench.handle(Event::Deliver(of_message(Message {
        expires_at,
        ..message(QoS::AtLeastOnce, "x")
    })));
    bench.handle(Event::TransportLost);
    bench.later(10);
    assert_eq!(sent(&bench.attach(connect5(100))), [again("x", 1, 1)]);
}

#[test]
fn nothing_is_sent_again_on_the_same_connection() {
    // [MQTT-4.4.0-1]
    let mut bench = Bench::v3(false);
    bench.deliver(QoS::AtLeastOnce, "1");
    bench.later(1000);
    assert_eq!(bench.handle(Event::Wake), []);
    assert_eq!(bench.handle(Event::Writable), []);
}
