//! CONNECT → CONNACK.

use super::*;

#[test]
fn a_first_connection_finds_no_session() {
    // [MQTT3-3.2.2-3] [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT-3.1.4-5]
    for connect in [connect3(true), connect3(false), connect5(0), connect5(100)] {
        let effects = Bench::new().attach(connect);
        assert!(!connack(&effects).session_present);
        assert_eq!(connack(&effects).reason, ReasonCode::Success);
        assert_eq!(effects.len(), 1, "no keep-alive, no timer: {effects:?}");
    }
}

#[test]
fn a_3_1_1_client_is_told_no_properties() {
    let effects = Bench::new().attach(connect3(true));
    assert_eq!(
        connack(&effects).properties,
        crate::mqtt::properties::ConnAckProperties::default()
    );
}

#[test]
fn a_5_0_client_is_told_the_limits_of_the_server() {
    let effects = Bench::new().attach(connect5(0));
    let told = &connack(&effects).properties;
    assert_eq!(told.receive_maximum, Some(3));
    assert_eq!(told.maximum_packet_size, Some(1 << 20));
    assert_eq!(told.topic_alias_maximum, Some(2));
    assert_eq!(told.session_expiry_interval_s, None, "what it asked for holds");
    assert_eq!(told.server_keep_alive_s, None);
    assert_eq!(told.assigned_client_identifier, None);
}

#[test]
fn an_assigned_client_id_is_told_to_a_5_0_client_only() {
    // [MQTT-3.1.3-7]
    for (connect, expected) in [(connect5(0), Some("c".into())), (connect3(true), None)] {
        let mut bench = Bench::new();
        let attach = Attach {
            connect,
            assigned_client_id: true,
            limits: LIMITS,
            authentication_data: None,
        };
        let effects = bench.handle(Event::Attach(Box::new(attach)));
        assert_eq!(connack(&effects).properties.assigned_client_identifier, expected);
    }
}

#[test]
fn a_session_expiry_beyond_the_limit_is_capped_and_told() {
    // [MQTT-3.1.2-23]
    let mut bench = Bench::new();
    let effects = bench.attach(connect5(5000));
    assert_eq!(connack(&effects).properties.session_expiry_interval_s, Some(1000));
    bench.handle(Event::TransportLost);
    assert_eq!(
        bench.session.expires_at(),
        Some(bench.now + Duration::from_secs(1000))
    );
}

#[test]
fn a_3_1_1_session_that_is_not_clean_stays_as_long_as_the_limit_allows() {
    // [MQTT3-3.1.2-4]
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    assert_eq!(
        bench.session.expires_at(),
        Some(bench.now + Duration::from_secs(1000))
    );

    let mut bench = Bench::new();
    bench.attach_limited(
        connect3(false),
        ClientLimits {
            session_expiry_max_s: u32::MAX,
            ..LIMITS
        },
    );
    assert_eq!(bench.handle(Event::TransportLost), [], "it never ends: no timer");
    assert_eq!(bench.session.expires_at(), None);
    assert!(bench.session.is_persistent());
}

#[test]
fn where_nothing_may_stay_a_3_1_1_session_ends_with_its_connection() {
    let mut bench = Bench::new();
    bench.attach_limited(
        connect3(false),
        ClientLimits {
            session_expiry_max_s: 0,
            ..LIMITS
        },
    );
    assert!(ends(&bench.handle(Event::TransportLost)));
}

#[test]
fn a_session_that_stayed_is_present() {
    // [MQTT3-3.2.2-2] [MQTT-3.2.2-3]
    for connect in [connect3(false), connect5(100)] {
        let mut bench = Bench::new();
        bench.attach(connect.clone());
        bench.handle(Event::TransportLost);
        assert!(connack(&bench.attach(connect)).session_present);
    }
}

#[test]
fn a_client_may_come_back_with_another_protocol() {
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    assert!(connack(&bench.attach(connect5(10))).session_present);
    assert_eq!(bench.session.version(), ProtocolVersion::V5);
    bench.handle(Event::TransportLost);
    assert_eq!(
        bench.session.expires_at(),
        Some(bench.now + Duration::from_secs(10))
    );
}

/// Whoever carries it out has what was delivered and not taken yet: also that is forgotten.
#[test]
fn a_clean_start_forgets_a_session_without_subscriptions_too() {
    let mut bench = Bench::v3(false);
    bench.handle(Event::TransportLost);
    let effects = bench.attach(connect3(true));
    assert_eq!(effects[0], Effect::ForgetSubscriptions);
}

#[test]
fn a_clean_start_forgets_everything_in_place() {
    // [MQTT3-3.1.4-3] [MQTT-3.1.4-4]
    let mut bench = Bench::v3(false);
    bench.packet(subscribe(1, &["a"]));
    bench.handle(Event::Subscribed {
        packet_id: id(1),
        reasons: vec![ReasonCode::GrantedQoS1],
    });
    for payload in ["1", "2", "3"] {
        bench.deliver(QoS::AtLeastOnce, payload);
    }
    let token = bench.publish(QoS::ExactlyOnce, 9);
    bench.taken(token);
    bench.handle(Event::TransportLost);

    let effects = bench.attach(connect3(true));
    assert_eq!(
        effects[..3],
        [
            Effect::ForgetSubscriptions,
            Effect::CountTimes(Counted::DroppedUnacknowledged, 2),
            Effect::Count(Counted::DroppedSessionEnded)
        ]
    );
    assert!(!connack(&effects).session_present);
    assert_eq!(sent(&effects), []);
    assert_eq!(bench.session.subscriptions_len(), 0);
    assert_eq!((bench.session.inflight_len(), bench.session.queue_len()), (0, 0));
    assert!(
        bench.publish(QoS::ExactlyOnce, 9).is_some(),
        "the old exchange is forgotten"
    );
    assert!(!bench.session.is_persistent());
}

#[test]
fn answers_that_were_asked_for_before_a_clean_start_change_nothing() {
    let mut bench = Bench::v3(false);
    bench.packet(subscribe(1, &["a"]));
    let token = bench.publish(QoS::AtLeastOnce, 2);
    bench.handle(Event::TransportLost);
    bench.attach(connect3(true));
    bench.packet(subscribe(7, &["a"]));
    assert_eq!(
        bench.handle(Event::Subscribed {
            packet_id: id(1),
            reasons: vec![ReasonCode::QuotaExceeded]
        }),
        []
    );
    assert_eq!(bench.taken(token), []);
    assert_eq!(
        bench.session.subscriptions_len(),
        1,
        "the new subscription stands"
    );
}

#[test]
fn an_expired_session_is_not_resumed_though_its_timer_is_late() {
    // [MQTT-4.1.0-2]
    let mut bench = Bench::v5(10);
    bench.handle(Event::TransportLost);
    bench.later(10);
    assert!(!connack(&bench.attach(connect5(10))).session_present);
}

#[test]
fn attaching_to_an_attached_session_takes_it_over() {
    let mut bench = Bench::v5(10);
    let effects = bench.attach(connect5(10));
    assert_eq!(
        effects[..2],
        [disconnected(ReasonCode::SessionTakenOver), Effect::CloseTransport]
    );
    assert!(connack(&effects).session_present);
}

#[test]
fn an_ended_session_answers_nothing() {
    let mut bench = Bench::v3(true);
    bench.handle(Event::TransportLost);
    assert!(bench.session.is_ended());
    assert_eq!(bench.attach(connect3(false)), []);
    let late = [Effect::Count(Counted::DroppedSessionEnded)];
    assert_eq!(bench.deliver(QoS::AtLeastOnce, "x"), late);
    assert_eq!(bench.deliver(QoS::AtMostOnce, "x"), late);
    for event in [
        Event::Wake,
        Event::Discard,
        Event::TakenOver,
        Event::TransportLost,
        Event::Writable,
    ] {
        assert_eq!(bench.handle(event), []);
    }
}

#[test]
fn a_new_session_ignores_what_only_a_connection_can_cause() {
    let mut bench = Bench::new();
    assert_eq!(bench.packet(Packet::PingReq), []);
    for event in [
        Event::Wake,
        Event::TakenOver,
        Event::TransportLost,
        Event::Writable,
    ] {
        assert_eq!(bench.handle(event), []);
    }
    assert_eq!(bench.handle(Event::Kick(ReasonCode::ServerBusy)), []);
    for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
        assert_eq!(
            bench.deliver(qos, "x"),
            [Effect::Count(Counted::DroppedSessionEnded)]
        );
    }
    assert_eq!(bench.handle(Event::Discard), [Effect::End]);
}
