//! What a session says of its stored messages, and how it is found again.

use std::num::NonZeroU64;

use super::*;
use crate::session::lasting::{Change, Exchange, Queued, Restored, Seq, SessionNo, SessionRecord};

const NO: SessionNo = SessionNo(7);
const WALL_MS: u64 = 1_800_000_000_000;

pub(super) fn seq(place: u64) -> Seq {
    Seq(NonZeroU64::new(place).expect("not 0"))
}

pub(super) fn stored(qos: QoS, payload: &str, place: u64) -> Delivery {
    Delivery {
        seq: Some(seq(place)),
        ..delivery(qos, payload)
    }
}

impl Bench {
    pub(super) fn deliver_stored(&mut self, qos: QoS, payload: &str, place: u64) -> Vec<Effect> {
        self.handle(Event::Deliver(stored(qos, payload, place)))
    }

    fn record(&self) -> Option<SessionRecord> {
        self.session.record(self.now, WALL_MS)
    }

    fn restored(restored: Restored, wall_ms: u64) -> (Self, Vec<Effect>) {
        let (now, mut out) = (Instant::now(), Vec::new());
        let session = Session::restore(restored, LIMITS, now, wall_ms, &mut out);
        (Self { session, now }, out)
    }
}

pub(super) fn settled(effects: &[Effect]) -> Vec<u64> {
    let all = effects.iter().filter_map(|effect| match effect {
        Effect::Settled(seq) => Some(seq.0.get()),
        _ => None,
    });
    all.collect()
}

fn sent_as(place: u64, packet_id: u16) -> Effect {
    Effect::Exchange(seq(place), Exchange::Sent(id(packet_id)))
}

fn released_as(place: u64, packet_id: u16) -> Effect {
    Effect::Exchange(seq(place), Exchange::Released(id(packet_id)))
}

pub(super) fn queued(qos: QoS, payload: &str) -> Queued {
    Queued {
        message: Arc::new(message(qos, payload)),
        subscription_ids: Default::default(),
        qos,
        retain: false,
        dup: false,
    }
}

pub(super) fn record_of(away_since_ms: Option<u64>) -> SessionRecord {
    SessionRecord {
        noted_ms: WALL_MS,
        client_id: "c".into(),
        version: ProtocolVersion::V5,
        expiry_interval_s: 100,
        away_since_ms,
        will: None,
        suspect: None,
        guest: None,
    }
}

pub(super) fn found(record: SessionRecord) -> Restored {
    Restored {
        no: NO,
        record,
        subscriptions: Vec::new(),
        received: Vec::new(),
        exchanges: Vec::new(),
        queue: None,
        next: Seq::FIRST,
    }
}

#[test]
fn the_exchange_of_a_stored_message_is_told_step_by_step_and_before_what_is_sent() {
    // [MQTT-4.3.3-5] [MQTT-4.4.0-1]
    let mut bench = Bench::v5(100);
    let effects = bench.deliver_stored(QoS::ExactlyOnce, "2", 5);
    assert_eq!(effects[0], sent_as(5, 5));
    assert_eq!(sent(&effects), [("2".into(), 2, 5, false)]);
    assert_eq!(
        bench.packet(pubrec(5)),
        [released_as(5, 5), Effect::Send(pubrel(5))]
    );
    assert_eq!(bench.packet(pubrec(5)), [Effect::Send(pubrel(5))], "it is known");
    assert_eq!(bench.packet(pubcomp(5)), [Effect::Settled(seq(5))]);
    bench.deliver_stored(QoS::AtLeastOnce, "1", 6);
    assert_eq!(bench.packet(puback(6)), [Effect::Settled(seq(6))]);
}

#[test]
fn a_client_that_refuses_a_message_has_settled_it() {
    let mut bench = Bench::v5(100);
    bench.deliver_stored(QoS::ExactlyOnce, "2", 1);
    let refusal = Ack::with_reason(id(1), ReasonCode::QuotaExceeded);
    assert_eq!(bench.packet(Packet::PubRec(refusal)), [Effect::Settled(seq(1))]);
}

#[test]
fn what_is_dropped_on_arrival_is_settled() {
    let own = |bench: &mut Bench| {
        let mut own = of_message(Message {
            publisher: "c".into(),
            ..message(QoS::AtLeastOnce, "x")
        });
        own.options.no_local = true;
        own.seq = Some(seq(1));
        bench.handle(Event::Deliver(own))
    };
    assert_eq!(
        own(&mut Bench::v5(100)),
        [Effect::Settled(seq(1))],
        "[MQTT-3.8.3-3]"
    );

    let mut connect = connect5(100);
    connect.properties.maximum_packet_size = Some(20);
    let mut bench = Bench::new();
    bench.attach(connect);
    let effects = bench.deliver_stored(QoS::AtLeastOnce, &"x".repeat(30), 1);
    let too_large = [Effect::Count(Counted::DroppedTooLarge), Effect::Settled(seq(1))];
    assert_eq!(effects, too_large, "[MQTT-3.1.2-25]");

    let mut expired = stored(QoS::AtLeastOnce, "x", 2);
    expired.message = Arc::new(Message {
        expires_at: bench.now.checked_sub(Duration::from_secs(5)),
        ..message(QoS::AtLeastOnce, "x")
    });
    let effects = bench.handle(Event::Deliver(expired));
    let expired = [Effect::Count(Counted::DroppedExpired), Effect::Settled(seq(2))];
    assert_eq!(effects, expired, "[MQTT-3.3.2-5]");
}

#[test]
fn whichever_gives_way_in_a_full_queue_is_settled() {
    for (queue_policy, expected) in [(QueuePolicy::DropNewest, 5), (QueuePolicy::DropOldest, 1)] {
        let mut bench = Bench::new();
        let limits = ClientLimits {
            queue_policy,
            ..LIMITS
        };
        bench.attach_limited(connect5(100), limits);
        bench.handle(Event::TransportLost);
        for place in 1..=4 {
            assert_eq!(bench.deliver_stored(QoS::AtLeastOnce, "x", place), []);
        }
        assert_eq!(
            settled(&bench.deliver_stored(QoS::AtLeastOnce, "x", 5)),
            [expected]
        );
    }
}

#[test]
fn what_expired_while_the_client_was_away_is_settled_when_it_is_back() {
    let mut bench = Bench::v5(100);
    bench.handle(Event::TransportLost);
    let mut delivery = stored(QoS::AtLeastOnce, "x", 1);
    delivery.message = Arc::new(Message {
        expires_at: bench.now.checked_add(Duration::from_secs(5)),
        ..message(QoS::AtLeastOnce, "x")
    });
    bench.handle(Event::Deliver(delivery));
    bench.later(10);
    assert_eq!(settled(&bench.attach(connect5(100))), [1]);
}

#[test]
fn what_is_given_to_another_member_is_settled_here() {
    // [MQTT-4.8.2-4] [MQTT-4.8.2-5]: what was sent at QoS 2 stays.
    let mut bench = Bench::v5(100);
    for (place, qos) in [
        (1, QoS::AtLeastOnce),
        (2, QoS::ExactlyOnce),
        (3, QoS::ExactlyOnce),
    ] {
        let share = Some(NonZeroU64::MIN);
        let delivery = stored(qos, "x", place);
        bench.handle(Event::Deliver(Delivery { share, ..delivery }));
    }
    bench.handle(Event::TransportLost);
    assert_eq!(settled(&bench.handle(Event::PassOn(NonZeroU64::MIN))), [1, 3]);
}

#[test]
fn a_session_that_ends_with_its_connection_leaves_no_record() {
    assert_eq!(Bench::new().record(), None);
    assert_eq!(Bench::v5(0).record(), None);
    let mut bench = Bench::v5(100);
    assert_eq!(bench.record(), Some(record_of(None)));
    bench.handle(Event::TransportLost);
    bench.later(3);
    assert_eq!(bench.record(), Some(record_of(Some(WALL_MS - 3000))));
    bench.handle(Event::Discard);
    assert_eq!(bench.record(), None);
}

#[test]
fn a_restored_session_expires_when_it_would_have_and_not_before() {
    // [MQTT-3.1.2-23]
    for (away_since_ms, left_s) in [
        (Some(WALL_MS - 40_000), 60),
        (Some(WALL_MS - 1_000_000), 0),
        (Some(WALL_MS + 5000), 100),
        (None, 100),
    ] {
        let (bench, effects) = Bench::restored(found(record_of(away_since_ms)), WALL_MS);
        let expires_at = bench.now + Duration::from_secs(left_s);
        assert_eq!(bench.session.expires_at(), Some(expires_at));
        assert_eq!(effects, [Effect::WakeAt(expires_at)]);
    }
    let (mut bench, _) = Bench::restored(found(record_of(Some(1))), WALL_MS);
    assert_eq!(bench.handle(Event::Wake), [Effect::End]);
}

#[test]
fn the_will_of_a_connection_that_a_crash_ended_is_published() {
    // [MQTT-3.1.2-8]
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 0));
    let record = bench.record().expect("it lasts");
    assert_eq!(record.will, Some((will(0), u64::MAX)));
    let (_, effects) = Bench::restored(found(record), WALL_MS);
    assert_eq!(will_delay(&effects), Some(0));
}

#[test]
fn a_delayed_will_keeps_its_time_over_a_restart() {
    // [MQTT-3.1.3-9]
    let mut bench = Bench::new();
    bench.attach(with_will(connect5(100), 30));
    bench.handle(Event::TransportLost);
    bench.later(10);
    let record = bench.record().expect("it lasts");
    assert_eq!(record.will, Some((will(30), WALL_MS + 20_000)));
    let (mut back, effects) = Bench::restored(found(record.clone()), WALL_MS + 5000);
    assert_eq!(will_delay(&effects), Some(15));
    assert!(back.attach(connect5(100)).contains(&Effect::CancelWill));
    let (mut late, effects) = Bench::restored(found(record), WALL_MS + 50_000);
    assert_eq!(will_delay(&effects), Some(0));
    assert!(!late.attach(connect5(100)).contains(&Effect::CancelWill));
}

#[test]
fn exchanges_go_on_where_they_were_after_a_crash() {
    // [MQTT-4.4.0-1] [MQTT-4.3.3-10]
    let restored = Restored {
        received: vec![id(9)],
        exchanges: vec![
            (seq(1), Exchange::Released(id(1)), None),
            (seq(2), Exchange::Sent(id(2)), Some(queued(QoS::AtLeastOnce, "2"))),
            (
                seq(3),
                Exchange::Sent(id(300)),
                Some(queued(QoS::ExactlyOnce, "3")),
            ),
        ],
        next: seq(4),
        ..found(record_of(None))
    };
    let (mut bench, _) = Bench::restored(restored, WALL_MS);
    let wide = ClientLimits {
        inflight_max: 9,
        ..LIMITS
    };
    let effects = bench.attach_limited(connect5(100), wide);
    assert!(connack(&effects).session_present);
    assert!(effects.contains(&Effect::Send(pubrel(1))));
    assert_eq!(
        sent(&effects),
        [("2".into(), 1, 2, true), ("3".into(), 2, 300, true)]
    );
    assert_eq!(bench.packet(pubcomp(1)), [Effect::Settled(seq(1))]);
    assert_eq!(bench.packet(puback(2)), [Effect::Settled(seq(2))]);
    assert_eq!(bench.packet(pubrec(300))[0], released_as(3, 300));
    let received = Effect::Send(Packet::PubRec(Ack::success(id(9))));
    assert_eq!(
        bench.packet(publish(QoS::ExactlyOnce, 9)),
        [received],
        "it was published before"
    );
}

#[test]
fn a_session_from_elsewhere_is_written_down_whole_and_in_order() {
    let mut bench = Bench::v5(100);
    bench.packet(subscribe(1, &["a"]));
    let token = bench.publish(QoS::ExactlyOnce, 8);
    bench.taken(token);
    bench.publish(QoS::ExactlyOnce, 9);
    for (qos, payload) in [
        (QoS::ExactlyOnce, "1"),
        (QoS::AtLeastOnce, "2"),
        (QoS::AtLeastOnce, "3"),
    ] {
        bench.deliver(qos, payload);
    }
    bench.packet(pubrec(1));
    bench.handle(Event::TransportLost);
    let mut places = 40..;
    let mut next = || seq(places.next().expect("endless"));
    let changes = bench.session.enlist(NO, bench.now, WALL_MS, &mut next);
    let subscription = *bench.session.subscriptions().next().expect("one").1;
    assert_eq!(
        changes,
        [
            Change::Session(NO, Box::new(record_of(Some(WALL_MS)))),
            Change::Subscribed(NO, "a".into(), subscription),
            // 9 may yet be refused; when it is taken that is noted with it.
            Change::Received(NO, id(8)),
            Change::Exchange(NO, seq(40), Exchange::Released(id(1))),
            Change::Queued(NO, seq(41), queued(QoS::AtLeastOnce, "2")),
            Change::Exchange(NO, seq(41), Exchange::Sent(id(2))),
            Change::Queued(NO, seq(42), queued(QoS::AtLeastOnce, "3")),
        ]
    );
    bench.attach(connect5(100));
    assert_eq!(settled(&bench.packet(pubcomp(1))), [40]);
    assert_eq!(settled(&bench.packet(puback(2))), [41]);
    assert_eq!(settled(&bench.packet(puback(42))), [42]);
}

#[test]
fn a_clean_start_says_that_what_is_stored_is_to_be_forgotten() {
    // [MQTT-3.1.2-4]
    let mut bench = Bench::v5(100);
    bench.deliver_stored(QoS::AtLeastOnce, "x", 1);
    bench.handle(Event::TransportLost);
    let mut connect = connect5(100);
    connect.clean_start = true;
    let effects = bench.attach(connect);
    assert!(effects.contains(&Effect::ForgetSubscriptions));
    assert_eq!(bench.session.inflight_len(), 0);
}
