//! Messages to the client.

use super::*;
use crate::mqtt::packet::SubscriptionIds;
use bytes::BytesMut;

fn line(payload: &str, qos: u8, packet_id: u16) -> (String, u8, u16, bool) {
    (payload.to_string(), qos, packet_id, false)
}

fn transmitted(effects: &[Effect]) -> &Transmit {
    match effects {
        [Effect::Transmit(transmit)] => transmit,
        other => panic!("one PUBLISH: {other:?}"),
    }
}

#[test]
fn the_qos_is_the_lower_of_message_and_subscription() {
    // [MQTT3-3.8.4-6] [MQTT-3.8.4-8]
    for (published, allowed, expected) in [(0, 2, 0), (1, 2, 1), (2, 2, 2), (2, 1, 1), (2, 0, 0), (1, 0, 0)] {
        let qos = |bits| QoS::from_bits(bits).expect("0, 1 or 2");
        let mut bench = Bench::v3(true);
        let delivery = Delivery {
            options: options(qos(allowed)),
            ..delivery(qos(published), "x")
        };
        let effects = bench.handle(Event::Deliver(delivery));
        assert_eq!(sent(&effects), [line("x", expected, u16::from(expected > 0))]);
    }
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    for (publisher, no_local, count) in [("c", true, 0), ("c", false, 1), ("d", true, 1), ("", true, 1)] {
        let message = Message {
            publisher: publisher.into(),
            ..message(QoS::AtMostOnce, "x")
        };
        let mut delivery = of_message(message);
        delivery.options.no_local = no_local;
        assert_eq!(sent(&Bench::v5(0).handle(Event::Deliver(delivery))).len(), count);
    }
}

#[test]
fn the_retain_flag_is_of_the_store_or_kept_as_published() {
    // [MQTT3-3.3.1-8..9] [MQTT-3.3.1-12..13]
    for (from_retained, as_published, retain, expected) in [
        (true, false, true, true),
        (true, true, true, true),
        (false, true, true, true),
        (false, true, false, false),
        (false, false, true, false),
    ] {
        let message = Message {
            retain,
            ..message(QoS::AtMostOnce, "x")
        };
        let mut delivery = Delivery {
            from_retained,
            ..of_message(message)
        };
        delivery.options.retain_as_published = as_published;
        let effects = Bench::v5(0).handle(Event::Deliver(delivery));
        assert_eq!(transmitted(&effects).retain, expected);
    }
}

#[test]
fn only_5_0_is_told_subscription_identifier_and_expiry() {
    let delivery = |now: Instant| {
        let expires_at = now.checked_add(Duration::from_millis(9_001));
        let message = Message {
            expires_at,
            ..message(QoS::AtLeastOnce, "x")
        };
        Event::Deliver(Delivery {
            subscription_ids: SubscriptionIds::One(268_435_455),
            ..of_message(message)
        })
    };
    let mut bench = Bench::v5(0);
    let effects = bench.handle(delivery(bench.now));
    assert_eq!(transmitted(&effects).subscription_ids.as_slice(), [268_435_455]);
    assert_eq!(
        transmitted(&effects).expiry_s,
        Some(10),
        "a second begun is a second left"
    );

    let mut bench = Bench::v3(true);
    let effects = bench.handle(delivery(bench.now));
    assert_eq!(transmitted(&effects).subscription_ids, SubscriptionIds::None);
    assert_eq!(transmitted(&effects).expiry_s, None);
}

#[test]
fn the_window_bounds_what_is_in_flight_and_acknowledgements_open_it() {
    // [MQTT-4.9.0-2]
    let mut bench = Bench::v3(true);
    assert_eq!(sent(&bench.deliver(QoS::AtLeastOnce, "1")), [line("1", 1, 1)]);
    assert_eq!(sent(&bench.deliver(QoS::ExactlyOnce, "2")), [line("2", 2, 2)]);
    assert_eq!(bench.deliver(QoS::AtLeastOnce, "3"), []);
    assert_eq!(bench.deliver(QoS::ExactlyOnce, "4"), []);
    assert_eq!((bench.session.inflight_len(), bench.session.queue_len()), (2, 2));
    assert_eq!(sent(&bench.packet(puback(1))), [line("3", 1, 3)]);
    assert_eq!(
        bench.packet(pubrec(2)),
        [Effect::Send(pubrel(2))],
        "PUBREC opens nothing"
    );
    assert_eq!(sent(&bench.packet(pubcomp(2))), [line("4", 2, 4)]);
    assert_eq!(bench.packet(puback(3)), []);
    assert_eq!(bench.packet(pubrec(4)), [Effect::Send(pubrel(4))]);
    assert_eq!(bench.packet(pubcomp(4)), []);
    assert_eq!(bench.session.inflight_len(), 0);
}

#[test]
fn the_clients_receive_maximum_narrows_the_window() {
    // [MQTT-4.9.0-1..2]
    let mut bench = Bench::new();
    let mut connect = connect5(0);
    connect.properties.receive_maximum = Some(1);
    bench.attach(connect);
    assert_eq!(sent(&bench.deliver(QoS::AtLeastOnce, "1")).len(), 1);
    assert_eq!(sent(&bench.deliver(QoS::AtLeastOnce, "2")).len(), 0);
}

#[test]
fn qos_0_overtakes_what_waits() {
    let mut bench = Bench::v3(true);
    for payload in ["1", "2", "3"] {
        bench.deliver(QoS::AtLeastOnce, payload);
    }
    assert_eq!(sent(&bench.deliver(QoS::AtMostOnce, "now")), [line("now", 0, 0)]);
}

#[test]
fn a_5_0_client_may_refuse_a_message_and_frees_its_slot() {
    // [MQTT-4.4.0-2]
    let mut bench = Bench::v5(0);
    bench.deliver(QoS::AtLeastOnce, "1");
    bench.deliver(QoS::ExactlyOnce, "2");
    bench.deliver(QoS::AtLeastOnce, "3");
    bench.deliver(QoS::AtLeastOnce, "4");
    let refused = Ack::with_reason(id(1), ReasonCode::NotAuthorized);
    assert_eq!(sent(&bench.packet(Packet::PubAck(refused))), [line("3", 1, 3)]);
    let refused = Ack::with_reason(id(2), ReasonCode::QuotaExceeded);
    assert_eq!(
        sent(&bench.packet(Packet::PubRec(refused))),
        [line("4", 1, 4)],
        "no PUBREL follows"
    );
}

#[test]
fn a_second_pubrec_is_answered_as_the_first() {
    let mut bench = Bench::v3(true);
    bench.deliver(QoS::ExactlyOnce, "x");
    for _ in 0..2 {
        assert_eq!(bench.packet(pubrec(1)), [Effect::Send(pubrel(1))]);
    }
    assert_eq!(bench.session.inflight_len(), 1);
}

#[test]
fn acknowledgements_of_what_is_not_in_flight_are_counted() {
    for packet in [puback(9), pubcomp(9)] {
        assert_eq!(Bench::v5(0).packet(packet), [Effect::Count(Counted::UnknownAck)]);
    }
    let unknown = Effect::Count(Counted::UnknownAck);
    let not_found = Ack::with_reason(id(9), ReasonCode::PacketIdentifierNotFound);
    assert_eq!(
        Bench::v5(0).packet(pubrec(9)),
        [unknown.clone(), Effect::Send(Packet::PubRel(not_found))]
    );
    assert_eq!(
        Bench::v3(true).packet(pubrec(9)),
        [unknown.clone(), Effect::Send(pubrel(9))]
    );
    let error = Ack::with_reason(id(9), ReasonCode::UnspecifiedError);
    assert_eq!(
        Bench::v5(0).packet(Packet::PubRec(error)),
        [unknown],
        "the client has let go"
    );
}

#[test]
fn a_message_larger_than_the_client_accepts_is_dropped_to_the_byte() {
    // [MQTT-3.1.2-24..25]
    let three = SubscriptionIds::Many(Arc::new(vec![200, 201, 202]));
    for (qos, identifiers, expiry) in [
        (QoS::AtMostOnce, SubscriptionIds::None, None),
        (QoS::AtLeastOnce, SubscriptionIds::One(200), Some(60)),
        (QoS::ExactlyOnce, three, Some(1)),
    ] {
        // topic 2 + 1, id 2, property length 1, identifiers 1 + 2 each, expiry 5, payload 130
        let id_len = if qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties = 1 + 3 * identifiers.as_slice().len() + expiry.map_or(0, |_| 5);
        let remaining = 3 + id_len + properties + 130;
        let exact = 1 + 2 + remaining as u32;
        for (max, count) in [(exact, 1), (exact - 1, 0)] {
            let mut bench = Bench::new();
            let mut connect = connect5(0);
            connect.properties.maximum_packet_size = Some(max);
            bench.attach(connect);
            let expires_at = expiry.and_then(|seconds| bench.now.checked_add(Duration::from_secs(seconds)));
            let payload = BytesMut::zeroed(130).freeze();
            let message = Message {
                payload,
                expires_at,
                ..message(qos, "")
            };
            let delivery = Delivery {
                subscription_ids: identifiers.clone(),
                ..of_message(message)
            };
            let effects = bench.handle(Event::Deliver(delivery));
            assert_eq!(sent(&effects).len(), count, "{qos:?}");
            let expected = if count == 0 {
                vec![Counted::DroppedTooLarge]
            } else {
                vec![]
            };
            assert_eq!(counted(&effects), expected);
            assert_eq!(
                bench.session.inflight_len(),
                if qos == QoS::AtMostOnce { 0 } else { count }
            );
        }
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn a_message_that_expires_as_it_comes_is_sent_at_once_or_not_at_all() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut bench = Bench::v5(60);
        let now = bench.now;
        let expired = |ago_ms| {
            let expires_at = now.checked_sub(Duration::from_millis(ago_ms));
            Event::Deliver(of_message(Message {
                expires_at,
                ..message(qos, "x")
            }))
        };
        assert_eq!(transmitted(&bench.handle(expired(0))).expiry_s, Some(0));
        let dropped = [Effect::Count(Counted::DroppedExpired)];
        assert_eq!(bench.handle(expired(1000)), dropped);
        bench.handle(Event::TransportLost);
        bench.handle(expired(0));
        assert_eq!(
            sent(&bench.attach(connect5(60))).len(),
            usize::from(qos as u8).min(1),
            "the one in flight"
        );
    }
}

#[test]
fn for_a_client_that_is_away_qos_0_is_dropped_and_the_rest_waits() {
    // [MQTT3-3.1.2-5]
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    assert_eq!(
        bench.deliver(QoS::AtMostOnce, "0"),
        [Effect::Count(Counted::DroppedQoS0Offline)]
    );
    assert_eq!(bench.deliver(QoS::AtLeastOnce, "1"), []);
    assert_eq!(bench.deliver(QoS::ExactlyOnce, "2"), []);
    let effects = bench.attach(connect3(false));
    assert_eq!(sent(&effects), [line("1", 1, 1), line("2", 2, 2)]);
}

#[test]
fn what_expires_while_waiting_is_not_sent() {
    let mut bench = Bench::v5(100);
    bench.handle(Event::TransportLost);
    for (payload, expiry_s) in [("short", 5), ("long", 50)] {
        let expires_at = bench.now.checked_add(Duration::from_secs(expiry_s));
        bench.handle(Event::Deliver(of_message(Message {
            expires_at,
            ..message(QoS::AtLeastOnce, payload)
        })));
    }
    bench.later(20);
    let effects = bench.attach(connect5(100));
    assert_eq!(counted(&effects), [Counted::DroppedExpired]);
    let Some(Effect::Transmit(transmit)) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (&transmit.message.payload[..], transmit.expiry_s),
        (&b"long"[..], Some(30))
    );
}

#[test]
fn a_full_queue_drops_the_newest() {
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    for payload in ["1", "2", "3", "4"] {
        assert_eq!(bench.deliver(QoS::AtLeastOnce, payload), []);
    }
    assert_eq!(
        bench.deliver(QoS::AtLeastOnce, "5"),
        [Effect::Count(Counted::DroppedQueueFull)]
    );
    assert_eq!(bench.session.queue_len(), 4);
    assert_eq!(
        sent(&bench.attach(connect3(false))),
        [line("1", 1, 1), line("2", 1, 2)]
    );
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    let big = "x".repeat(600);
    assert_eq!(bench.deliver(QoS::AtLeastOnce, &big), []);
    assert_eq!(
        bench.deliver(QoS::AtLeastOnce, &big),
        [Effect::Count(Counted::DroppedQueueFull)]
    );
    assert_eq!(bench.deliver(QoS::AtLeastOnce, "small"), []);
    assert_eq!(bench.session.queue_bytes(), 601 + 6);
    bench.attach(connect3(false));
    assert_eq!((bench.session.queue_bytes(), bench.session.queue_len()), (0, 0));
}

#[test]
fn expired_messages_make_room_in_a_full_queue() {
    let mut bench = Bench::v5(100);
    bench.handle(Event::TransportLost);
    let expires_at = bench.now.checked_add(Duration::from_secs(5));
    for _ in 0..4 {
        bench.handle(Event::Deliver(of_message(Message {
            expires_at,
            ..message(QoS::AtLeastOnce, "x")
        })));
    }
    bench.later(5);
    assert_eq!(
        bench.deliver(QoS::AtLeastOnce, "y"),
        vec![Effect::Count(Counted::DroppedExpired); 4]
    );
    assert_eq!(bench.session.queue_len(), 1);
}

#[test]
fn writable_lets_the_queue_flow_as_far_as_the_window_goes() {
    let mut bench = Bench::v3(true);
    for payload in ["1", "2", "3"] {
        bench.deliver(QoS::AtLeastOnce, payload);
    }
    assert_eq!(bench.handle(Event::Writable), []);
}

fn shared(qos: QoS, payload: &str) -> Event {
    Event::Deliver(Delivery {
        share: std::num::NonZeroU64::new(3),
        ..delivery(qos, payload)
    })
}

fn passed_on(effects: &[Effect]) -> Vec<(String, bool)> {
    let payload = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::PassOn { message, dup, .. } => Some((payload(message), *dup)),
            _ => None,
        })
        .collect()
}

/// [MQTT-4.8.2-4] [MQTT-4.8.2-5] [MQTT-3.3.1-1]
#[test]
fn a_member_that_goes_passes_on_all_but_the_qos_2_messages_that_were_sent_to_it() {
    for expiry_s in [0, 60] {
        let mut bench = Bench::v5(expiry_s);
        bench.handle(shared(QoS::AtLeastOnce, "1"));
        bench.handle(shared(QoS::ExactlyOnce, "2"));
        bench.handle(shared(QoS::ExactlyOnce, "3"));
        bench.deliver(QoS::AtLeastOnce, "own");
        bench.handle(shared(QoS::AtLeastOnce, "4"));
        let mut effects = bench.handle(Event::TransportLost);
        if expiry_s > 0 {
            assert_eq!(passed_on(&effects), [], "nobody else may be there");
            let other = std::num::NonZeroU64::MIN;
            assert_eq!(bench.handle(Event::PassOn(other)), [], "of another group");
            effects = bench.handle(Event::PassOn(std::num::NonZeroU64::new(3).expect("not 0")));
            assert_eq!((bench.session.inflight_len(), bench.session.queue_len()), (1, 1));
        }
        let expected = [("1", true), ("3", false), ("4", false)];
        assert_eq!(
            passed_on(&effects),
            expected.map(|(payload, dup)| (payload.to_owned(), dup))
        );
    }
}

#[test]
fn what_another_member_may_have_had_is_sent_with_dup_at_first() {
    let mut bench = Bench::v3(true);
    let again = Delivery {
        dup: true,
        ..delivery(QoS::AtLeastOnce, "x")
    };
    let effects = bench.handle(Event::Deliver(again.clone()));
    assert_eq!(sent(&effects), [("x".to_owned(), 1, 1, true)]);
    let lower = Delivery {
        options: options(QoS::AtMostOnce),
        ..again
    };
    // [MQTT-3.3.1-2]
    assert_eq!(sent(&bench.handle(Event::Deliver(lower))), [line("x", 0, 0)]);
}
