//! Any sequence of changes with a power cut anywhere: what is found again is what a model says, up to some
//! moment, and never less than what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::faults::FaultyDisk;
use super::*;
use crate::session::lasting::Exchange;

/// What a store holds, as simply as can be.
#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    sessions: BTreeMap<u64, ModelSession>,
    retained: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct ModelSession {
    client: Option<String>,
    subscriptions: BTreeMap<String, u32>,
    received: BTreeSet<u16>,
    exchanges: BTreeMap<u64, (bool, u16)>,
    queue: BTreeMap<u64, String>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Act {
    Session(u8),
    Forget(u8),
    Subscribe(u8, u8, u32),
    Unsubscribe(u8, u8),
    Queue(u8),
    /// Of the session's messages, the one of this number, modulo how many there are.
    Send(u8, u8),
    Release(u8, u8),
    Settle(u8, u8),
    Receive(u8, u16),
    Complete(u8, u16),
    Retain(u8, u32),
    Clear(u8),
    /// A publication to these sessions that is sealed some acts later.
    Publish(Vec<u8>),
    Commit,
    /// A commit that the disk does not take.
    Fail,
}

fn act() -> impl Strategy<Value = Act> {
    let no = 0..4_u8;
    prop_oneof![
        2 => no.clone().prop_map(Act::Session),
        1 => no.clone().prop_map(Act::Forget),
        1 => (no.clone(), 0..3_u8, 1..9_u32).prop_map(|(no, filter, with)| Act::Subscribe(no, filter, with)),
        1 => (no.clone(), 0..3_u8).prop_map(|(no, filter)| Act::Unsubscribe(no, filter)),
        8 => no.clone().prop_map(Act::Queue),
        4 => (no.clone(), any::<u8>()).prop_map(|(no, which)| Act::Send(no, which)),
        2 => (no.clone(), any::<u8>()).prop_map(|(no, which)| Act::Release(no, which)),
        5 => (no.clone(), any::<u8>()).prop_map(|(no, which)| Act::Settle(no, which)),
        1 => (no.clone(), 1..4_u16).prop_map(|(no, id)| Act::Receive(no, id)),
        1 => (no.clone(), 1..4_u16).prop_map(|(no, id)| Act::Complete(no, id)),
        1 => (0..3_u8, any::<u32>()).prop_map(|(topic, what)| Act::Retain(topic, what)),
        1 => (0..3_u8).prop_map(Act::Clear),
        2 => proptest::collection::vec(no, 1..4).prop_map(Act::Publish),
        5 => Just(Act::Commit),
        1 => Just(Act::Fail),
    ]
}

/// A store and its model, side by side.
struct Pair {
    disk: FaultyDisk,
    store: Arc<Store>,
    model: Model,
    /// The model at each moment that a crash may go back to: what was committed last, and all since.
    moments: Vec<Model>,
    /// The numbers of the sessions; a forgotten one gets another.
    numbers: [SessionNo; 4],
    next: BTreeMap<u64, u64>,
    publications: u64,
}

impl Pair {
    fn new() -> Self {
        let disk = FaultyDisk::default();
        let store = disk.store(Pace::default()).expect("it opens");
        let mut pair = Self {
            disk,
            numbers: std::array::from_fn(|_| store.number()),
            store,
            model: Model::default(),
            moments: vec![Model::default()],
            next: BTreeMap::new(),
            publications: 0,
        };
        for which in 0..4 {
            pair.begin(which);
        }
        pair.commit();
        pair
    }

    fn begin(&mut self, which: u8) {
        let no = self.numbers[usize::from(which)];
        let client = format!("client {which}");
        self.store.note(Change::Session(no, record(&client)));
        self.session(which).client = Some(client);
    }

    fn session(&mut self, which: u8) -> &mut ModelSession {
        let no = self.numbers[usize::from(which)];
        self.model.sessions.entry(no.0).or_default()
    }

    fn place(&mut self, which: u8) -> u64 {
        let next = self.next.entry(self.numbers[usize::from(which)].0).or_insert(0);
        *next += 1;
        *next
    }

    /// A message of the session that is there.
    fn one_of(&mut self, which: u8, number: u8) -> Option<u64> {
        let session = self.session(which);
        let places: BTreeSet<_> = session
            .queue
            .keys()
            .chain(session.exchanges.keys())
            .copied()
            .collect();
        let at = usize::from(number) % places.len().max(1);
        places.into_iter().nth(at)
    }

    fn commit(&mut self) {
        let mark = self.store.mark();
        self.store.commit();
        assert!(self.store.committed() >= mark);
        self.moments = vec![self.model.clone()];
    }

    fn act(&mut self, act: Act) {
        let store = self.store.clone();
        let no = |pair: &Self, which: u8| pair.numbers[usize::from(which)];
        match act {
            Act::Session(which) => self.begin(which),
            Act::Forget(which) => {
                store.note(Change::Forget(no(self, which)));
                self.model.sessions.remove(&no(self, which).0);
                self.moments.push(self.model.clone());
                self.numbers[usize::from(which)] = store.number();
                self.begin(which);
            }
            Act::Subscribe(which, filter, with) => {
                let filter = format!("f/{filter}");
                let (no, what) = (no(self, which), subscription(with));
                store.note(Change::Subscribed(no, filter.as_str().into(), what));
                self.session(which).subscriptions.insert(filter, with);
            }
            Act::Unsubscribe(which, filter) => {
                let filter = format!("f/{filter}");
                store.note(Change::Unsubscribed(no(self, which), filter.as_str().into()));
                self.session(which).subscriptions.remove(&filter);
            }
            Act::Queue(which) => {
                let place = self.place(which);
                let text = format!("{which}/{place}");
                store.note(Change::Queued(no(self, which), seq(place), queued(&text)));
                self.session(which).queue.insert(place, text);
            }
            Act::Send(which, number) => self.exchange(which, number, false),
            Act::Release(which, number) => self.exchange(which, number, true),
            Act::Settle(which, number) => {
                let Some(place) = self.one_of(which, number) else {
                    return;
                };
                store.note(Change::Settled(no(self, which), seq(place)));
                let session = self.session(which);
                session.queue.remove(&place);
                session.exchanges.remove(&place);
            }
            Act::Receive(which, packet_id) => {
                store.note(Change::Received(no(self, which), id(packet_id)));
                self.session(which).received.insert(packet_id);
            }
            Act::Complete(which, packet_id) => {
                store.note(Change::Completed(no(self, which), id(packet_id)));
                self.session(which).received.remove(&packet_id);
            }
            Act::Retain(..) | Act::Clear(_) => self.retain(&act),
            Act::Publish(to) => self.publish(to),
            Act::Commit => return self.commit(),
            Act::Fail => {
                self.disk.weather(super::faults::Weather::Broken);
                store.commit();
                self.disk.weather(super::faults::Weather::Fair);
                return;
            }
        }
        self.moments.push(self.model.clone());
    }

    fn exchange(&mut self, which: u8, number: u8, released: bool) {
        let Some(place) = self.one_of(which, number) else {
            return;
        };
        let packet_id = seq(place).packet_id();
        let session = self.session(which);
        if session
            .exchanges
            .get(&place)
            .is_some_and(|(released, _)| *released)
        {
            return;
        }
        session.exchanges.insert(place, (released, packet_id.get()));
        if released {
            session.queue.remove(&place);
        }
        let exchange = match released {
            true => Exchange::Released(packet_id),
            false => Exchange::Sent(packet_id),
        };
        let no = self.numbers[usize::from(which)];
        self.store.note(Change::Exchange(no, seq(place), exchange));
    }

    fn retain(&mut self, act: &Act) {
        let stamp = crate::routing::stamps::Stamp {
            time: crate::routing::stamps::HybridTime(1),
            node: "a@localhost".parse().expect("a name"),
        };
        match act {
            Act::Retain(topic, what) => {
                let (topic, text) = (format!("t/{topic}"), what.to_string());
                let what = Retained::Message(message(&text), stamp);
                self.store.retain(&topic.as_str().into(), what);
                self.model.retained.insert(topic, text);
            }
            Act::Clear(topic) => {
                let topic = format!("t/{topic}");
                self.store.retain(&topic.as_str().into(), Retained::Forgotten);
                self.model.retained.remove(&topic);
            }
            _ => unreachable!("what retains"),
        }
    }

    /// Its messages are all there or none of them.
    fn publish(&mut self, to: Vec<u8>) {
        self.publications += 1;
        let publication = Publication(self.publications);
        for which in to {
            let place = self.place(which);
            let text = format!("{which}/{place}");
            let no = self.numbers[usize::from(which)];
            self.store
                .note_of(publication, Change::Queued(no, seq(place), queued(&text)));
            self.session(which).queue.insert(place, text);
        }
        let packet_id = 60_000 + self.publications as u16;
        let publisher = self.numbers[0];
        let received = Change::Received(publisher, id(packet_id));
        self.store.seal(publication, Some(received));
        self.session(0).received.insert(packet_id);
    }
}

/// What a store says of itself, through the way that everybody reads it.
fn found(store: &Arc<Store>) -> Model {
    let mut model = Model::default();
    for restored in sessions(store) {
        let mut session = ModelSession {
            client: Some(restored.record.client_id.to_string()),
            received: restored.received.iter().map(|id| id.get()).collect(),
            queue: page(store, restored.no).into_iter().collect(),
            ..ModelSession::default()
        };
        let backlog = restored.queue.map_or(0, |backlog| backlog.len);
        assert_eq!(backlog, session.queue.len(), "the backlog is what pages bring");
        for (filter, what) in &restored.subscriptions {
            let with = what.identifier.expect("all have one");
            session.subscriptions.insert(filter.to_string(), with);
        }
        for (seq, exchange, message) in restored.exchanges {
            assert!(seq < restored.next);
            let (released, id) = match exchange {
                Exchange::Sent(id) => (false, id),
                Exchange::Released(id) => (true, id),
            };
            session.exchanges.insert(seq.0.get(), (released, id.get()));
            if let Some(queued) = message {
                let text = String::from_utf8(queued.message.payload.to_vec()).expect("text");
                session.queue.insert(seq.0.get(), text);
            }
        }
        model.sessions.insert(restored.no.0, session);
    }
    let retained = read(|answer| store.retained(None, usize::MAX, usize::MAX, answer));
    for (topic, what) in retained.expect("readable") {
        let Retained::Message(message, _) = what else {
            panic!("no tombstones here")
        };
        let text = String::from_utf8(message.payload.to_vec()).expect("text");
        model.retained.insert(topic.to_string(), text);
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_after_a_power_cut_is_what_once_was_and_never_less_than_acknowledged(
        acts in proptest::collection::vec(act(), 1..120),
        dies_after in proptest::option::of(1..30_u32),
        survivors in any::<u64>(),
    ) {
        let mut pair = Pair::new();
        for act in acts {
            pair.act(act);
        }
        // A file that could not be opened again after an error cannot be read until the next try.
        if pair.store.condition() == Condition::Sound {
            prop_assert_eq!(found(&pair.store), pair.model.clone(), "while it runs");
        }
        if let Some(writes) = dies_after {
            // In the middle of a commit.
            pair.disk.weather(super::faults::Weather::Dies(writes));
            pair.store.commit();
        }
        let survives = |write: usize| survivors >> (write % 64) & 1 == 1;
        let after = pair.disk.after_power_cut(survives).store(Pace::default()).expect("it opens");
        let found = found(&after);
        let acknowledged = pair.moments.first().expect("one at least");
        let all = pair.moments.last().expect("one at least");
        prop_assert!(
            found == *acknowledged || found == *all,
            "neither what was acknowledged nor what was being written:\n{:#?}\n{:#?}", found, acknowledged
        );
    }
}
