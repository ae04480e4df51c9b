//! How connections and sessions end, and the will.

use super::*;

/// Every way for a connection to end that publishes the will.
fn bad_ends() -> Vec<Event> {
    vec![
        Event::TransportLost,
        Event::TakenOver,
        Event::Kick(ReasonCode::ServerShuttingDown),
        Event::Malformed(ReasonCode::MalformedPacket),
        Event::Packet(Packet::PingResp),
    ]
}

#[test]
fn a_normal_disconnect_closes_without_a_will() {
    // [MQTT3-3.14.4-3] [MQTT-3.14.4-3] [MQTT-3.1.2-10]
    let mut bench = Bench::new();
    bench.attach(with_will(connect3(true), 0));
    assert_eq!(
        bench.packet(disconnect(ReasonCode::Success)),
        [Effect::CloseTransport, Effect::End]
    );

    let mut bench = Bench::new();
    bench.attach(with_will(connect5(50), 0));
    let due = bench.now + Duration::from_secs(50);
    let effects = bench.packet(disconnect(ReasonCode::Success));
    assert_eq!(effects, [Effect::CloseTransport, Effect::WakeAt(due)]);
    assert!(!bench.session.is_attached() && !bench.session.is_ended());
}

#[test]
fn a_disconnect_with_will_publishes_it() {
    // [MQTT-3.1.2-8]
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError] {
        let mut bench = Bench::new();
        bench.attach(with_will(connect5(0), 0));
        let effects = bench.packet(disconnect(reason));
        assert_eq!(effects[0], Effect::CloseTransport);
        assert_eq!(will_delay(&effects), Some(0));
        assert!(ends(&effects));
    }
}

#[test]
fn every_other_end_of_a_connection_publishes_the_will() {
    // [MQTT3-3.1.2-8] [MQTT-3.1.2-8]
    for event in bad_ends() {
        let mut bench = Bench::new();
        bench.attach(with_will(connect3(false), 0));
        let effects = bench.handle(event.clone());
        assert_eq!(will_delay(&effects), Some(0), "{event:?}");
        assert!(!bench.session.is_attached());
    }
    let mut bench = Bench::new();
    bench.attach(Connect {
        keep_alive_s: 1,
        ..with_will(connect3(false), 0)
    });
    bench.later(2);
    assert_eq!(will_delay(&bench.handle(Event::Wake)), Some(0), "keep-alive");
}

#[test]
fn a_will_is_published_once() {
    // [MQTT3-3.1.2-10] [MQTT-3.1.2-10]
    let mut bench = Bench::new();
    bench.attach(with_will(connect3(false), 0));
    assert_eq!(will_delay(&bench.handle(Event::TransportLost)), Some(0));
    assert_eq!(bench.handle(Event::TransportLost), []);
    assert_eq!(will_delay(&bench.attach(connect3(false))), None);
    assert_eq!(
        will_delay(&bench.handle(Event::TransportLost)),
        None,
        "the new connection has none"
    );
}

#[test]
fn a_will_waits_for_its_delay_but_not_beyond_the_session() {
    // [MQTT-3.1.2-8]
    for (delay_s, expiry_s, expected) in [(5, 100, 5), (200, 100, 100), (5, 0, 0), (0, 100, 0)] {
        let mut bench = Bench::new();
        bench.attach(with_will(connect5(expiry_s), delay_s));
        assert_eq!(will_delay(&bench.handle(Event::TransportLost)), Some(expected));
    }
}

#[test]
fn a_client_that_is_back_in_time_cancels_its_will() {
    // [MQTT-3.1.3-9]
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 5));
    bench.handle(Event::TransportLost);
    bench.later(4);
    assert_eq!(bench.attach(connect5(100))[0], Effect::CancelWill);

    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 5));
    bench.handle(Event::TransportLost);
    bench.later(5);
    let effects = bench.attach(connect5(100));
    assert!(connack(&effects).session_present);
    assert!(!effects.contains(&Effect::CancelWill), "it was published");
}

#[test]
fn a_clean_start_ends_the_old_session_and_with_it_the_wills_delay() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 5));
    bench.handle(Event::TransportLost);
    let effects = bench.attach(Connect {
        clean_start: true,
        ..connect5(100)
    });
    assert_eq!(effects[0], Effect::CancelWill);
    assert_eq!(will_delay(&effects), Some(0));
}

#[test]
fn a_take_over_tells_the_old_client_and_treats_its_will_as_any_other() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 5));
    let effects = bench.handle(Event::TakenOver);
    assert_eq!(
        effects[..2],
        [disconnected(ReasonCode::SessionTakenOver), Effect::CloseTransport]
    );
    assert_eq!(will_delay(&effects), Some(5));
    let effects = bench.attach(connect5(100));
    assert_eq!(effects[0], Effect::CancelWill);
    assert!(connack(&effects).session_present);
}

#[test]
fn a_take_over_of_a_session_that_is_not_persistent_waits_for_the_attach_and_starts_anew() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(0), 5));
    bench.deliver(QoS::AtLeastOnce, "old");
    let effects = bench.handle(Event::TakenOver);
    assert_eq!(will_delay(&effects), Some(0), "its session is over");
    assert!(!bench.session.is_ended());
    let effects = bench.attach(connect5(0));
    assert!(!connack(&effects).session_present);
    assert_eq!(sent(&effects), []);
}

#[test]
fn a_session_whose_taker_never_comes_ends_by_itself() {
    let mut bench = Bench::v3(true);
    let effects = bench.handle(Event::TakenOver);
    let Some(Effect::WakeAt(at)) = effects.last() else {
        panic!("a timer: {effects:?}")
    };
    bench.now = *at;
    assert_eq!(bench.handle(Event::Wake), [Effect::End]);
}

#[test]
fn a_3_1_1_client_is_closed_without_a_word() {
    for event in bad_ends() {
        let mut bench = Bench::v3(true);
        let effects = bench.handle(event.clone());
        assert!(
            !effects.iter().any(|effect| matches!(effect, Effect::Send(_))),
            "{event:?}"
        );
    }
}

#[test]
fn a_kick_tells_the_reason_and_leaves_a_persistent_session() {
    let mut bench = Bench::v5(100);
    let effects = bench.handle(Event::Kick(ReasonCode::ServerShuttingDown));
    assert_eq!(
        effects[..2],
        [
            disconnected(ReasonCode::ServerShuttingDown),
            Effect::CloseTransport
        ]
    );
    assert!(!bench.session.is_ended());
    assert_eq!(
        bench.handle(Event::Kick(ReasonCode::AdministrativeAction)),
        [],
        "there is no connection"
    );
    assert!(connack(&bench.attach(connect5(100))).session_present);
}

#[test]
fn a_malformed_packet_closes_with_the_codecs_reason() {
    // [MQTT-4.13.1-1]
    let mut bench = Bench::v5(0);
    let effects = bench.handle(Event::Malformed(ReasonCode::PacketTooLarge));
    assert_eq!(
        effects,
        [
            disconnected(ReasonCode::PacketTooLarge),
            Effect::CloseTransport,
            Effect::End
        ]
    );
}

#[test]
fn a_discarded_session_ends_at_once_whatever_its_expiry() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 50));
    bench.deliver(QoS::AtLeastOnce, "x");
    let effects = bench.handle(Event::Discard);
    assert_eq!(
        effects[..2],
        [disconnected(ReasonCode::SessionTakenOver), Effect::CloseTransport]
    );
    assert_eq!(will_delay(&effects), Some(0));
    assert!(ends(&effects));

    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 50));
    bench.handle(Event::TransportLost);
    bench.deliver(QoS::AtLeastOnce, "x");
    let effects = bench.handle(Event::Discard);
    assert_eq!(effects[0], Effect::CancelWill);
    assert_eq!(will_delay(&effects), Some(0));
    assert_eq!(counted(&effects), [Counted::DroppedSessionEnded]);
    assert!(ends(&effects));
}

#[test]
fn disconnect_may_change_the_expiry() {
    // [MQTT-4.1.0-2]
    let mut bench = Bench::v5(100);
    let packet = disconnect_value(ReasonCode::Success, Some(7));
    bench.packet(Packet::Disconnect(packet));
    assert_eq!(
        bench.session.expires_at(),
        Some(bench.now + Duration::from_secs(7))
    );

    let mut bench = Bench::v5(100);
    let packet = disconnect_value(ReasonCode::Success, Some(0));
    assert_eq!(
        bench.packet(Packet::Disconnect(packet)),
        [Effect::CloseTransport, Effect::End]
    );

    let mut bench = Bench::v5(100);
    let packet = disconnect_value(ReasonCode::Success, Some(u32::MAX));
    bench.packet(Packet::Disconnect(packet));
    assert_eq!(
        bench.session.expires_at(),
        Some(bench.now + Duration::from_secs(1000)),
        "capped"
    );
}

#[test]
fn disconnect_cannot_make_a_session_stay_that_was_to_end() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(0), 0));
    let packet = disconnect_value(ReasonCode::Success, Some(7));
    let effects = bench.packet(Packet::Disconnect(packet));
    assert_eq!(
        effects[..2],
        [disconnected(ReasonCode::ProtocolError), Effect::CloseTransport]
    );
    assert_eq!(will_delay(&effects), Some(0));
    assert!(ends(&effects));
}

#[test]
fn after_the_close_packets_of_the_same_read_are_ignored() {
    // [MQTT3-4.8.0-1] [MQTT-4.13.2-1]
    let mut bench = Bench::v3(false);
    bench.packet(disconnect(ReasonCode::Success));
    assert_eq!(bench.packet(publish(QoS::AtLeastOnce, 1)), []);
    assert_eq!(bench.packet(Packet::PingReq), []);
}
