//! Keep-alive and the timer.

use super::*;

fn with_keep_alive(connect: Connect, keep_alive_s: u16) -> Connect {
    Connect {
        keep_alive_s,
        ..connect
    }
}

#[test]
fn a_silent_client_is_given_up_after_one_and_a_half_keep_alives() {
    // [MQTT3-3.1.2-24] [MQTT-3.1.2-22]
    let mut bench = Bench::new();
    let effects = bench.attach(with_keep_alive(connect5(0), 10));
    assert_eq!(
        effects.last(),
        Some(&Effect::WakeAt(bench.now + Duration::from_secs(15)))
    );
    bench.later(15);
    let effects = bench.handle(Event::Wake);
    assert_eq!(
        effects,
        [
            disconnected(ReasonCode::KeepAliveTimeout),
            Effect::CloseTransport,
            Effect::End
        ]
    );
}

#[test]
fn a_packet_only_notes_the_time_and_the_timer_is_armed_again_when_it_fires() {
    let mut bench = Bench::new();
    bench.attach(with_keep_alive(connect3(true), 10));
    bench.later(14);
    assert_eq!(bench.packet(Packet::PingReq), [Effect::Send(Packet::PingResp)]);
    bench.later(1);
    let due = bench.now + Duration::from_secs(14);
    assert_eq!(bench.handle(Event::Wake), [Effect::WakeAt(due)]);
    bench.later(14);
    assert_eq!(bench.handle(Event::Wake), [Effect::CloseTransport, Effect::End]);
}

#[test]
fn deliveries_to_the_client_do_not_keep_it_alive() {
    let mut bench = Bench::new();
    bench.attach(with_keep_alive(connect3(true), 10));
    bench.later(15);
    bench.deliver(QoS::AtMostOnce, "x");
    assert!(ends(&bench.handle(Event::Wake)));
}

#[test]
fn without_keep_alive_there_is_no_timer() {
    let mut bench = Bench::new();
    assert_eq!(bench.attach(with_keep_alive(connect3(true), 0)).len(), 1);
    bench.later(1_000_000);
    assert_eq!(bench.handle(Event::Wake), []);
}

#[test]
fn a_5_0_client_is_told_a_shorter_keep_alive() {
    // [MQTT-3.2.2-22]
    let limits = ClientLimits {
        keep_alive_max_s: 60,
        ..LIMITS
    };
    for (asked, told) in [(0, Some(60)), (61, Some(60)), (60, None), (5, None)] {
        let effects = Bench::new().attach_limited(with_keep_alive(connect5(0), asked), limits);
        assert_eq!(
            connack(&effects).properties.server_keep_alive_s,
            told,
            "asked for {asked}"
        );
    }
}

#[test]
fn a_3_1_1_client_cannot_be_told_and_keeps_its_own() {
    let limits = ClientLimits {
        keep_alive_max_s: 60,
        ..LIMITS
    };
    let mut bench = Bench::new();
    let effects = bench.attach_limited(with_keep_alive(connect3(true), 100), limits);
    assert_eq!(
        effects.last(),
        Some(&Effect::WakeAt(bench.now + Duration::from_secs(150)))
    );
}

#[test]
fn a_wake_up_from_the_past_is_harmless_to_a_session_that_is_away() {
    let mut bench = Bench::v5(100);
    bench.handle(Event::TransportLost);
    let due = bench.now + Duration::from_secs(100);
    bench.later(1);
    assert_eq!(bench.handle(Event::Wake), [Effect::WakeAt(due)]);
    bench.later(99);
    assert_eq!(bench.handle(Event::Wake), [Effect::End]);
}
