//! Re-authentication `[MQTT-4.12.1]`, and what CONNACK tells of the first one.

use bytes::Bytes;

use super::*;
use crate::mqtt::packet::Auth;
use crate::mqtt::properties::AuthProperties;
use crate::session::event::AuthOutcome;

fn auth(reason: ReasonCode, method: &str, data: &'static [u8]) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.into()),
            authentication_data: Some(Bytes::from_static(data)),
            ..AuthProperties::default()
        },
    })
}

/// A session whose client came in by the method `m`.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let mut connect = connect5(0);
    connect.properties.authentication_method = Some("m".into());
    let effects = bench.handle(Event::Attach(Box::new(Attach {
        connect,
        assigned_client_id: false,
        limits: LIMITS,
        authentication_data: Some(Bytes::from_static(b"last word")),
    })));
    let Some(Effect::Send(Packet::ConnAck(connack))) = effects.first() else {
        panic!("{effects:?}")
    };
    let properties = &connack.properties;
    assert_eq!(properties.authentication_method.as_deref(), Some("m"));
    assert_eq!(properties.authentication_data.as_deref(), Some(&b"last word"[..]));
    bench
}

fn asked(begins: bool, data: &'static [u8]) -> Vec<Effect> {
    vec![Effect::Authenticate {
        begins,
        data: Bytes::from_static(data),
    }]
}

#[test]
fn it_goes_to_and_fro_and_may_be_repeated() {
    let mut bench = bench();
    for _ in 0..2 {
        let effects = bench.packet(auth(ReasonCode::ReAuthenticate, "m", b"1"));
        assert_eq!(effects, asked(true, b"1"));
        let outcome = AuthOutcome::Continue(Bytes::from_static(b"2"));
        let effects = bench.handle(Event::Authenticated(outcome));
        assert_eq!(
            effects,
            [Effect::Send(auth(ReasonCode::ContinueAuthentication, "m", b"2"))]
        );
        let effects = bench.packet(auth(ReasonCode::ContinueAuthentication, "m", b"3"));
        assert_eq!(effects, asked(false, b"3"));
        let outcome = AuthOutcome::Success(Bytes::from_static(b"4"));
        let effects = bench.handle(Event::Authenticated(outcome));
        assert_eq!(effects, [Effect::Send(auth(ReasonCode::Success, "m", b"4"))]);
    }
}

#[test]
fn whoever_is_not_in_turn_breaks_the_protocol() {
    let begins = || auth(ReasonCode::ReAuthenticate, "m", b"1");
    let closed = |effects: &[Effect]| effects.first() == Some(&disconnected(ReasonCode::ProtocolError));
    for packet in [
        auth(ReasonCode::ContinueAuthentication, "m", b""),
        auth(ReasonCode::Success, "m", b""),
        auth(ReasonCode::ReAuthenticate, "n", b""),
    ] {
        assert!(closed(&bench().packet(packet.clone())), "{packet:?}");
    }
    let mut twice = bench();
    twice.packet(begins());
    assert!(closed(&twice.packet(begins())));
    assert!(closed(&Bench::v5(0).packet(begins())), "no method in its CONNECT");
}

#[test]
fn a_failure_closes_the_connection_and_a_late_answer_is_not_heard() {
    let mut bench = bench();
    let failed = || Event::Authenticated(AuthOutcome::Failed(ReasonCode::NotAuthorized));
    assert_eq!(bench.handle(failed()), [], "nobody asked");
    bench.packet(auth(ReasonCode::ReAuthenticate, "m", b""));
    let effects = bench.handle(failed());
    assert_eq!(effects.first(), Some(&disconnected(ReasonCode::NotAuthorized)));
    assert_eq!(bench.handle(failed()), []);
}
