//! A session that moved to another node is for its client the same session.

use proptest::prelude::*;

use super::storm::event;
use super::*;

/// The same session on another node.
fn moved(bench: &mut Bench) -> Option<(Bench, Vec<Effect>)> {
    let mut out = Vec::new();
    let packed = bench.session.pack(bench.now, &mut out)?;
    let mut effects = Vec::new();
    let session =
        Session::unpack("c".into(), &packed, bench.now, &mut effects).expect("packed is unpackable");
    let now = bench.now;
    Some((Bench { session, now }, effects))
}

/// What client and router notice.
fn noticed(effects: Vec<Effect>) -> Vec<Effect> {
    let all = effects.into_iter().filter_map(|effect| match effect {
        Effect::Publish {
            message,
            token,
            exchange,
        } => Some(Effect::Publish {
            message,
            exchange,
            token: token.map(|_| PublishToken(0)),
        }),
        Effect::Send(_) | Effect::Transmit(_) | Effect::CancelWill | Effect::PublishWill { .. } => {
            Some(effect)
        }
        Effect::Subscribe { .. } | Effect::Unsubscribe { .. } | Effect::CloseTransport => Some(effect),
        Effect::Count(_) | Effect::CountTimes(..) | Effect::End => Some(effect),
        _ => None,
    });
    all.collect()
}

fn subscriptions(bench: &Bench) -> Vec<(String, String)> {
    let all = bench.session.subscriptions();
    let mut all: Vec<_> = all
        .map(|(filter, subscription)| (filter.to_string(), format!("{subscription:?}")))
        .collect();
    all.sort();
    all
}

/// The broker has answered everything: what it had not would be answered on the old node only.
fn settle(bench: &mut Bench) {
    for token in 1..200 {
        let (token, outcome) = (PublishToken(token), PublishOutcome::Taken);
        bench.handle(Event::Published { token, outcome });
    }
    for packet_id in (1..6).map(id).cycle().take(100) {
        let reasons = vec![ReasonCode::Success; 3];
        bench.handle(Event::Subscribed {
            packet_id,
            reasons: reasons.clone(),
        });
        bench.handle(Event::Unsubscribed { packet_id, reasons });
    }
    bench.handle(Event::TakenOver);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_has_moved_behaves_as_who_has_stayed(
        before in prop::collection::vec(event(), 0..80),
        after in prop::collection::vec(event(), 0..40),
        is_v5: bool,
    ) {
        let (mut stays, mut moves) = (Bench::new(), Bench::new());
        moves.now = stays.now;
        for event in before {
            stays.handle(event.clone());
            moves.handle(event);
        }
        settle(&mut stays);
        settle(&mut moves);
        let Some((mut moves, _)) = moved(&mut moves) else { return Ok(()) };
        prop_assert_eq!(subscriptions(&stays), subscriptions(&moves));
        prop_assert_eq!(stays.session.queue_len(), moves.session.queue_len());
        prop_assert_eq!(stays.session.inflight_len(), moves.session.inflight_len());
        prop_assert_eq!(stays.session.expires_at(), moves.session.expires_at());
        let connect = || if is_v5 { connect5(10) } else { connect3(false) };
        prop_assert_eq!(noticed(stays.attach(connect())), noticed(moves.attach(connect())));
        for event in after {
            // Tokens were given out anew.
            if !matches!(event, Event::Published { .. }) {
                prop_assert_eq!(noticed(stays.handle(event.clone())), noticed(moves.handle(event)));
            }
        }
    }
}

#[test]
fn a_session_that_ends_with_its_connection_is_not_packed() {
    let mut bench = Bench::v5(0);
    bench.handle(Event::TakenOver);
    assert!(moved(&mut bench).is_none());
    assert!(bench.session.is_ended());
}

#[test]
fn a_delayed_will_moves_along_and_is_cancelled_by_the_client() {
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 30));
    assert_eq!(will_delay(&bench.handle(Event::TakenOver)), Some(30));
    bench.later(10);
    let (mut there, effects) = moved(&mut bench).expect("it moves");
    assert_eq!(will_delay(&effects), Some(20));
    assert!(there.attach(connect5(100)).contains(&Effect::CancelWill));
}

#[test]
fn what_comes_late_follows() {
    let mut bench = Bench::v5(100);
    bench.handle(Event::TakenOver);
    bench.deliver(QoS::AtLeastOnce, "1");
    let (mut there, _) = moved(&mut bench).expect("it moves");
    bench.deliver(QoS::AtLeastOnce, "2");
    let (mut out, now) = (Vec::new(), bench.now);
    let late = bench.session.pack_late(now, &mut out);
    assert_eq!(bench.session.queue_len(), 0);
    assert_eq!(sent(&there.attach(connect5(100))), [("1".into(), 1, 1, false)]);
    let came = there.session.admit_late(&late, now, &mut out).expect("packed");
    assert_eq!(came.len(), 1);
    assert_eq!(sent(&out), [("2".into(), 1, 2, false)]);
}

#[test]
fn bytes_that_are_no_session_are_refused() {
    let mut out = Vec::new();
    for bytes in [&b""[..], &[2, 0, 0], &[1, 0xFF, 0xFF], &[1; 64]] {
        assert!(Session::unpack("c".into(), bytes, Instant::now(), &mut out).is_err());
    }
    assert!(out.is_empty());
}
