//! Double entry: whatever happens to a session, each message that was offered to it has come to exactly one
//! end or is still held, and so has each PUBLISH of its client.

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::storm::event;
use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    /// The session goes to another node and is used there; what was delivered meanwhile follows.
    Move(Vec<QoS>),
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

/// A delivery of any kind: of a shared group, of the client's own messages, soon expired.
fn any_delivery() -> impl Strategy<Value = Event> {
    let parts = (qos(), any::<bool>(), any::<bool>(), 0_u64..3, 0_usize..300);
    parts.prop_map(|(qos, no_local, own, share, len)| {
        let mut delivery = delivery(qos, &"x".repeat(len));
        delivery.options.no_local = no_local;
        delivery.share = NonZeroU64::new(share);
        if own {
            let message = Message::clone(&delivery.message);
            delivery.message = Arc::new(Message {
                publisher: "c".into(),
                ..message
            });
        }
        Event::Deliver(delivery)
    })
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        20 => event().prop_map(Step::Event),
        12 => any_delivery().prop_map(Step::Event),
        1 => Just(Step::Event(Event::Discard)),
        2 => (1_u64..3).prop_map(|share| {
            Step::Event(Event::PassOn(NonZeroU64::new(share).expect("from 1 on")))
        }),
        1 => prop::collection::vec(qos(), 0..4).prop_map(Step::Move),
    ];
    prop::collection::vec((step, 0_u64..3), 1..200)
}

/// What the session should hold, by what it told.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) held: i64,
}

impl Books {
    pub(super) fn enter(&mut self, effects: &[Effect]) {
        for effect in effects {
            self.held += match effect {
                Effect::Transmit(transmit) if transmit.packet_id.is_none() => -1,
                Effect::PassOn { .. } => -1,
                Effect::Count(counted) => i64::from(counted.copies()),
                Effect::CountTimes(counted, times) => i64::from(counted.copies()) * *times as i64,
                _ => 0,
            };
        }
    }

    pub(super) fn check(&self, session: &Session) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.held, session.held_len() as i64, "{:?}", session);
        Ok(())
    }
}

/// How often it was told what became of a PUBLISH.
fn outcomes(effects: &[Effect]) -> usize {
    let tells = |effect: &&Effect| match effect {
        Effect::Publish { .. } => true,
        Effect::Count(counted) => counted.is_of_publish(),
        _ => false,
    };
    effects.iter().filter(tells).count()
}

fn walk(steps: Vec<(Step, u64)>) -> Result<(), TestCaseError> {
    let mut bench = Bench::new();
    let mut books = Books::default();
    for (step, seconds) in steps {
        bench.later(seconds);
        match step {
            Step::Event(event) => {
                books.held += i64::from(matches!(event, Event::Deliver(_)));
                let is_published =
                    matches!(event, Event::Packet(Packet::Publish(_))) && bench.session.is_attached();
                let effects = bench.handle_verbatim(event);
                prop_assert_eq!(outcomes(&effects), usize::from(is_published), "{:?}", effects);
                books.enter(&effects);
            }
            Step::Move(late) => move_away(&mut bench, &mut books, &late)?,
        }
        books.check(&bench.session)?;
    }
    let effects = bench.handle_verbatim(Event::Discard);
    books.enter(&effects);
    prop_assert_eq!(books.held, 0, "nothing is held by what is over");
    books.check(&bench.session)
}

/// Both ends of a move have books of their own; what left the one has come to the other.
fn move_away(bench: &mut Bench, books: &mut Books, late: &[QoS]) -> Result<(), TestCaseError> {
    let effects = bench.handle_verbatim(Event::TakenOver);
    books.enter(&effects);
    let mut effects = Vec::new();
    let packed = bench.session.pack(bench.now, &mut effects);
    books.enter(&effects);
    books.check(&bench.session)?;
    let Some(packed) = packed else { return Ok(()) };
    let left = moved(&effects, Counted::MovedAway);
    for qos in late {
        books.held += 1;
        let effects = bench.handle_verbatim(Event::Deliver(delivery(*qos, "late")));
        books.enter(&effects);
    }
    let mut effects = Vec::new();
    let late = bench.session.pack_late(bench.now, &mut effects);
    books.enter(&effects);
    books.check(&bench.session)?;
    let late_left = moved(&effects, Counted::MovedAway);
    let effects = bench.handle_verbatim(Event::Discard);
    books.enter(&effects);
    prop_assert_eq!(books.held, 0);

    let mut effects = Vec::new();
    let unpacked = Session::unpack("c".into(), &packed, bench.now, &mut effects);
    bench.session = unpacked.expect("packed is unpackable");
    prop_assert_eq!(moved(&effects, Counted::MovedIn), left);
    let admitted = bench.session.admit_late(&late, bench.now, &mut effects);
    prop_assert_eq!(admitted.expect("packed is unpackable").len(), late_left);
    books.enter(&effects);
    Ok(())
}

fn moved(effects: &[Effect], way: Counted) -> usize {
    let is_moved = |effect: &&Effect| **effect == Effect::Count(way);
    effects.iter().filter(is_moved).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_offered_to_a_session_has_one_end_or_is_held(steps in steps()) {
        walk(steps)?;
    }
}
