//! SUBSCRIBE, UNSUBSCRIBE and the session's list.

use super::*;
use crate::mqtt::packet::{RetainHandling, SubAck, UnsubAck, Unsubscribe};
use crate::mqtt::properties::{AckProperties, UnsubscribeProperties};

fn suback(packet_id: u16, reasons: &[ReasonCode]) -> Effect {
    let properties = AckProperties::default();
    Effect::Send(Packet::SubAck(SubAck {
        packet_id: id(packet_id),
        properties,
        reasons: reasons.to_vec(),
    }))
}

fn unsuback(packet_id: u16, reasons: &[ReasonCode]) -> Effect {
    let properties = AckProperties::default();
    Effect::Send(Packet::UnsubAck(UnsubAck {
        packet_id: id(packet_id),
        properties,
        reasons: reasons.to_vec(),
    }))
}

fn subscribed(packet_id: u16, reasons: &[ReasonCode]) -> Event {
    Event::Subscribed {
        packet_id: id(packet_id),
        reasons: reasons.to_vec(),
    }
}

fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        properties: UnsubscribeProperties::default(),
        filters: filters.iter().map(|filter| ByteString::from(*filter)).collect(),
    })
}

/// What the router is asked, as (filter, whether retained messages are to follow).
fn asked(effects: &[Effect]) -> Vec<(String, bool)> {
    match effects.last() {
        Some(Effect::Subscribe { requests, .. }) => requests
            .iter()
            .map(|request| (request.filter.to_string(), request.send_retained))
            .collect(),
        _ => panic!("the router is asked: {effects:?}"),
    }
}

fn filters(bench: &Bench) -> Vec<String> {
    let mut filters: Vec<_> = bench
        .session
        .subscriptions()
        .map(|(filter, _)| filter.to_string())
        .collect();
    filters.sort();
    filters
}

#[test]
fn a_subscribe_is_acknowledged_when_the_router_has_answered() {
    // [MQTT3-3.8.4-1..2] [MQTT-3.8.4-1..2]
    let mut bench = Bench::v3(true);
    assert_eq!(
        asked(&bench.packet(subscribe(1, &["a", "b"]))),
        [("a".into(), true), ("b".into(), true)]
    );
    let reasons = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized];
    assert_eq!(bench.handle(subscribed(1, &reasons)), [suback(1, &reasons)]);
    assert_eq!(filters(&bench), ["a"], "what was refused is not had");
}

#[test]
fn what_the_session_refuses_keeps_its_place_in_the_answer() {
    // [MQTT3-3.9.3-1] [MQTT-3.9.3-1] [MQTT-3.8.4-6]
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a", "b"]));
    bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1; 2]));
    assert_eq!(
        asked(&bench.packet(subscribe(2, &["c", "d", "a"]))),
        [("c".into(), true), ("a".into(), true)]
    );
    let effects = bench.handle(subscribed(2, &[ReasonCode::GrantedQoS1; 2]));
    let expected = [
        ReasonCode::GrantedQoS1,
        ReasonCode::QuotaExceeded,
        ReasonCode::GrantedQoS1,
    ];
    assert_eq!(effects, [suback(2, &expected)]);
}

#[test]
fn where_nothing_is_left_to_ask_the_session_answers() {
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a", "b", "c"]));
    assert_eq!(
        bench.packet(subscribe(2, &["d"])),
        [
            Effect::Count(Counted::SubscriptionsRefused),
            suback(2, &[ReasonCode::QuotaExceeded])
        ]
    );
    let expected = unsuback(3, &[ReasonCode::NoSubscriptionExisted]);
    assert_eq!(bench.packet(unsubscribe(3, &["x"])), [expected]);
}

#[test]
fn a_router_that_says_too_little_has_failed() {
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a", "b"]));
    let effects = bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1]));
    assert_eq!(
        effects,
        [suback(
            1,
            &[ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError]
        )]
    );
    assert_eq!(filters(&bench), ["a"]);
}

#[test]
fn an_unsubscribe_removes_what_there_is() {
    // [MQTT3-3.10.4-1] [MQTT3-3.10.4-5] [MQTT-3.10.4-1] [MQTT-3.10.4-5]
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a", "b"]));
    bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1; 2]));
    let effects = bench.packet(unsubscribe(2, &["x", "a"]));
    assert_eq!(
        effects,
        [Effect::Unsubscribe {
            packet_id: id(2),
            filters: vec!["a".into()]
        }]
    );
    assert_eq!(filters(&bench), ["b"]);
    let effects = bench.handle(Event::Unsubscribed {
        packet_id: id(2),
        reasons: vec![ReasonCode::Success],
    });
    assert_eq!(
        effects,
        [unsuback(
            2,
            &[ReasonCode::NoSubscriptionExisted, ReasonCode::Success]
        )]
    );
}

#[test]
fn a_filter_may_be_unsubscribed_before_the_router_has_answered() {
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a"]));
    let effects = bench.packet(unsubscribe(2, &["a"]));
    assert_eq!(
        effects,
        [Effect::Unsubscribe {
            packet_id: id(2),
            filters: vec!["a".into()]
        }]
    );
    bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1]));
    assert_eq!(filters(&bench), [""; 0]);
}

#[test]
fn a_refused_change_leaves_the_subscription_as_it_was() {
    let mut bench = Bench::v5(0);
    bench.packet(subscribe(1, &["a"]));
    bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1]));
    let Packet::Subscribe(mut change) = subscribe(2, &["a"]) else {
        unreachable!()
    };
    change.properties.subscription_identifier = Some(9);
    bench.packet(Packet::Subscribe(change));
    assert_eq!(
        bench
            .session
            .subscriptions()
            .next()
            .and_then(|(_, subscription)| subscription.identifier),
        Some(9)
    );
    bench.handle(subscribed(2, &[ReasonCode::NotAuthorized]));
    assert_eq!(
        bench
            .session
            .subscriptions()
            .next()
            .and_then(|(_, subscription)| subscription.identifier),
        None
    );
}

#[test]
fn retained_messages_follow_as_the_retain_handling_says() {
    // [MQTT-3.3.1-9..11] [MQTT-3.8.4-4]
    for (handling, first, second) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DontSend, false, false),
    ] {
        let mut bench = Bench::v5(0);
        for expected in [first, second] {
            let Packet::Subscribe(mut packet) = subscribe(1, &["a"]) else {
                unreachable!()
            };
            packet.filters[0].1.retain_handling = handling;
            assert_eq!(
                asked(&bench.packet(Packet::Subscribe(packet))),
                [("a".into(), expected)]
            );
            bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1]));
        }
    }
}

#[test]
fn an_answer_for_a_lost_connection_is_noted_and_not_sent() {
    let mut bench = Bench::v3(false);
    bench.packet(subscribe(1, &["a", "b"]));
    bench.handle(Event::TransportLost);
    bench.attach(connect3(false));
    assert_eq!(
        bench.handle(subscribed(
            1,
            &[ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized]
        )),
        []
    );
    assert_eq!(filters(&bench), ["a"]);
}

#[test]
fn an_answer_to_nothing_is_ignored() {
    let mut bench = Bench::v3(true);
    assert_eq!(bench.handle(subscribed(1, &[ReasonCode::GrantedQoS1])), []);
    let event = Event::Unsubscribed {
        packet_id: id(1),
        reasons: vec![ReasonCode::Success],
    };
    assert_eq!(bench.handle(event), []);
}

#[test]
fn many_subscriptions_are_kept_as_well_as_few() {
    let mut bench = Bench::new();
    bench.attach_limited(
        connect3(false),
        ClientLimits {
            subscriptions_max: 100,
            ..LIMITS
        },
    );
    for number in 0..101_u16 {
        bench.packet(subscribe(number + 1, &[&format!("f/{number}")]));
        bench.handle(subscribed(number + 1, &[ReasonCode::GrantedQoS1]));
        assert_eq!(
            bench.session.subscriptions_len(),
            usize::from(number + 1).min(100)
        );
    }
    for number in 0..100_u16 {
        assert_eq!(
            bench
                .packet(unsubscribe(number + 1, &[&format!("f/{number}")]))
                .len(),
            1
        );
    }
    assert_eq!(bench.session.subscriptions_len(), 0);
    assert_eq!(bench.session.subscriptions().count(), 0);
}
