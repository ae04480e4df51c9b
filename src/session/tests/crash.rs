//! A naive client, a naive store and a process that falls at any moment.
//!
//! Goal: what the standard promises of QoS 1 and 2 holds over crashes, whatever the disk had not yet taken
//! when they came, with most of the queue in the store alone; and what is stored is at each moment exactly
//! what the session holds. Method: what the session says is noted in a log; a crash keeps any beginning of it
//! that includes what was waited for, and the session is restored from that. The client does by the book what
//! MQTT asks of it; at the end nothing falls until nothing moves any more, and the books are compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::stored::seq;
use super::*;
use crate::session::lasting::{Change, Exchange, Queued, Seq, SessionNo};

mod steps;
mod store;

use steps::{Step, steps};
use store::Store;

const NO: SessionNo = SessionNo(1);
const WALL_MS: u64 = 1_800_000_000_000;
const WINDOW: usize = 3;
const LEN_MAX: usize = 50;
const BYTES_MAX: usize = 700_000;

/// Message of the client that it has not let go of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Owned {
    Published(u32),
    Released(u32),
}

#[derive(Debug)]
struct World {
    bench: Bench,
    limits: ClientLimits,
    /// What is on the disk for certain, what was noted since, and how much of that is on the disk, too.
    base: Store,
    log: Vec<Change>,
    committed: usize,
    /// What was noted, all of it.
    live: Store,
    asked: Option<(Seq, Seq, usize, usize)>,
    to_session: VecDeque<Packet>,
    to_client: VecDeque<Packet>,
    next_number: u32,
    /// What the client is owed, in order, and where it lies.
    promised: Vec<(QoS, u32, Seq)>,
    /// What was written to a transport at any time, and so must have DUP from then on.
    transmitted: BTreeSet<u32>,
    /// What the client's application got, in order.
    client_got: Vec<(QoS, u32)>,
    client_received: BTreeSet<u16>,
    owned: Vec<(u16, Owned)>,
    next_id: u16,
    /// How often each message of the client was stored with those it was for.
    broker_got: BTreeMap<u32, usize>,
    done: Vec<u32>,
}

fn numbered(number: u32, padding: usize) -> Bytes {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + padding, 0);
    payload.into()
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().expect("payloads begin with numbers"))
}

impl World {
    fn new(queue_policy: QueuePolicy) -> Self {
        let limits = ClientLimits {
            inflight_max: WINDOW as u16,
            queue_len_max: LEN_MAX,
            queue_bytes_max: BYTES_MAX,
            session_expiry_max_s: u32::MAX,
            queue_policy,
            ..LIMITS
        };
        let mut world = Self {
            bench: Bench::new(),
            limits,
            base: Store::default(),
            log: Vec::new(),
            committed: 0,
            live: Store::default(),
            asked: None,
            to_session: VecDeque::new(),
            to_client: VecDeque::new(),
            next_number: 0,
            promised: Vec::new(),
            transmitted: BTreeSet::new(),
            client_got: Vec::new(),
            client_received: BTreeSet::new(),
            owned: Vec::new(),
            next_id: 0,
            broker_got: BTreeMap::new(),
            done: Vec::new(),
        };
        world.connect();
        world.committed = world.log.len();
        world
    }

    fn note(&mut self, change: Change) {
        self.live.apply(&change);
        self.log.push(change);
    }

    fn note_record(&mut self) {
        let record = self.bench.session.record(self.bench.now, WALL_MS);
        self.note(Change::Session(NO, Box::new(record.expect("it lasts"))));
    }

    fn connect(&mut self) {
        let waited = self.bench.session.queue_len() > 0;
        let effects = self.bench.attach_limited(connect5(u32::MAX), self.limits);
        assert_eq!(connack(&effects).session_present, self.live.record.is_some());
        self.run(effects);
        self.note_record();
        if waited {
            // Its actor sends nothing of what waited before it is safe that the client is back.
            self.committed = self.log.len();
        }
        for (packet_id, owned) in self.owned.clone() {
            self.to_session.push_back(match owned {
                Owned::Published(number) => self.published(packet_id, number, true),
                Owned::Released(_) => pubrel(packet_id),
            });
        }
    }

    fn published(&self, packet_id: u16, number: u32, dup: bool) -> Packet {
        Packet::Publish(Publish {
            payload: numbered(number, 0),
            dup,
            ..publish_value(QoS::ExactlyOnce, packet_id, "t")
        })
    }

    fn hang_up(&mut self) {
        self.to_session.clear();
        self.to_client.clear();
    }

    fn event(&mut self, event: Event) {
        let held = self.bench.session.queue_len();
        let effects = self.bench.handle(event);
        self.run(effects);
        let session = &self.bench.session;
        assert!(session.inflight_len() <= WINDOW, "the window is never exceeded");
        // More than the limit there is only if a crash has undone what had made room.
        assert!(session.queue_len() <= held.max(LEN_MAX));
        assert_eq!(
            session.queue_len() + session.inflight_len(),
            self.live.messages.len(),
            "what is stored is what the session holds"
        );
        let waiting = self
            .live
            .messages
            .values()
            .filter(|(_, exchange)| exchange.is_none());
        let bytes: usize = waiting.map(|(queued, _)| queued.message.weight()).sum();
        assert_eq!(session.queue_bytes(), bytes);
    }

    fn step(&mut self, step: &Step) {
        let is_attached = self.bench.session.is_attached();
        match step {
            Step::TopicDelivers(qos, len, expiry_s) => self.topic_delivers(*qos, *len, *expiry_s),
            Step::ClientPublishes if is_attached && self.owned.len() < 3 => self.client_publishes(),
            Step::SessionReads => {
                if let Some(packet) = self.to_session.pop_front() {
                    self.event(Event::Packet(packet));
                }
            }
            Step::ClientReads => self.client_reads(),
            Step::TransportBreaks if is_attached => {
                self.event(Event::TransportLost);
                self.note_record();
                self.hang_up();
            }
            Step::ClientConnects if !is_attached => self.connect(),
            Step::StoreAnswers => {
                if let Some((from, last, len, bytes)) = self.asked.take() {
                    let page = self.live.page(from, last, len, bytes);
                    self.event(Event::Fetched(page));
                }
            }
            Step::StoreFails if self.asked.take().is_some() => self.event(Event::FetchFailed),
            Step::StoreCommits => self.committed = self.log.len(),
            Step::TimePasses => {
                self.bench.later(2);
                self.event(Event::Wake);
            }
            Step::Crash(at) => self.crash(at),
            _ => {}
        }
    }

    fn topic_delivers(&mut self, qos: QoS, len: usize, expiry_s: Option<u64>) {
        self.next_number += 1;
        let message = Arc::new(Message {
            payload: numbered(self.next_number, len),
            expires_at: expiry_s.map(|left| self.bench.now + Duration::from_secs(left)),
            ..message(qos, "")
        });
        let place = seq(self.live.next.max(1));
        let queued = Queued {
            message: message.clone(),
            subscription_ids: Default::default(),
            qos,
            retain: false,
            dup: false,
        };
        self.promised.push((qos, self.next_number, place));
        self.note(Change::Queued(NO, place, queued));
        if qos == QoS::ExactlyOnce {
            self.committed = self.log.len();
        }
        self.event(Event::Deliver(Delivery {
            message,
            seq: Some(place),
            ..delivery(qos, "")
        }));
    }

    fn client_publishes(&mut self) {
        self.next_number += 1;
        loop {
            self.next_id = self.next_id % 5 + 1;
            if self.owned.iter().all(|(packet_id, _)| *packet_id != self.next_id) {
                break;
            }
        }
        self.owned
            .push((self.next_id, Owned::Published(self.next_number)));
        let publish = self.published(self.next_id, self.next_number, false);
        self.to_session.push_back(publish);
    }

    /// Carries out what the session causes, and checks what must hold of it.
    fn run(&mut self, effects: Vec<Effect>) {
        let drops = counted(&effects).into_iter().filter(|counted| is_drop(*counted));
        let (mut drops, mut settled) = (drops.count(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Send(packet) => {
                    if matches!(packet, Packet::PubRel(_) | Packet::PubComp(_) | Packet::PubRec(_)) {
                        self.committed = self.log.len();
                    }
                    self.to_client.push_back(packet);
                }
                Effect::Transmit(transmit) => self.transmit(&transmit),
                Effect::Exchange(seq, exchange) => self.note(Change::Exchange(NO, seq, exchange)),
                Effect::Settled(seq) => {
                    settled.push(seq);
                    self.note(Change::Settled(NO, seq));
                }
                Effect::Completed(packet_id) => self.note(Change::Completed(NO, packet_id)),
                Effect::Publish {
                    token,
                    message,
                    exchange,
                } => {
                    let packet_id = exchange.expect("QoS 2");
                    self.note(Change::Received(NO, packet_id));
                    self.committed = self.log.len();
                    *self.broker_got.entry(number(&message.payload)).or_default() += 1;
                    let effects = self.bench.taken(token);
                    self.run(effects);
                }
                Effect::Fetch {
                    from,
                    last,
                    len,
                    bytes,
                } => {
                    assert!(self.asked.replace((from, last, len, bytes)).is_none());
                }
                Effect::Count(_) | Effect::CountTimes(..) | Effect::WakeAt(_) => {}
                other => panic!("nothing else happens here: {other:?}"),
            }
        }
        // What was settled and the client does not have was dropped, and that was counted.
        for seq in settled {
            let Some(index) = self.promised.iter().position(|(_, _, place)| *place == seq) else {
                continue;
            };
            let (qos, number, _) = self.promised[index];
            if !self.client_got.contains(&(qos, number)) {
                self.promised.remove(index);
                drops = drops.checked_sub(1).expect("each drop is counted");
            }
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let packet_id = transmit.packet_id.expect("only QoS 1 and 2 here");
        let number = number(&transmit.message.payload);
        let sent = |exchange: &Option<Exchange>| *exchange == Some(Exchange::Sent(packet_id));
        let mut known = self
            .live
            .messages
            .iter()
            .filter(|(_, (_, exchange))| sent(exchange));
        known.next().expect("its exchange was told before");
        assert!(transmit.dup || !self.transmitted.contains(&number));
        self.transmitted.insert(number);
        self.to_client.push_back(Packet::Publish(Publish {
            payload: transmit.message.payload.clone(),
            dup: transmit.dup,
            ..publish_value(transmit.qos, packet_id.get(), "t")
        }));
    }

    fn client_reads(&mut self) {
        match self.to_client.pop_front() {
            Some(Packet::Publish(publish)) => {
                let packet_id = publish.packet_id.expect("QoS 1 or 2").get();
                let is_twice = publish.qos == QoS::ExactlyOnce;
                if !is_twice || self.client_received.insert(packet_id) {
                    self.client_got.push((publish.qos, number(&publish.payload)));
                }
                self.to_session.push_back(if is_twice {
                    pubrec(packet_id)
                } else {
                    puback(packet_id)
                });
            }
            Some(Packet::PubRel(ack)) => {
                self.client_received.remove(&ack.packet_id.get());
                self.to_session.push_back(pubcomp(ack.packet_id.get()));
            }
            Some(Packet::PubRec(ack)) => {
                let owned = self
                    .owned
                    .iter_mut()
                    .find(|(packet_id, _)| *packet_id == ack.packet_id.get());
                let (_, owned) = owned.expect("only what the client owns is acknowledged");
                let (Owned::Published(number) | Owned::Released(number)) = *owned;
                *owned = Owned::Released(number);
                self.to_session.push_back(pubrel(ack.packet_id.get()));
            }
            Some(Packet::PubComp(ack)) => {
                let is_its = |(packet_id, _): &(u16, Owned)| *packet_id == ack.packet_id.get();
                let index = self.owned.iter().position(is_its).expect("it is the client's");
                let (Owned::Published(number) | Owned::Released(number)) = self.owned.remove(index).1;
                self.done.push(number);
            }
            Some(Packet::ConnAck(_)) | None => {}
            Some(other) => panic!("a client by the book gets no {other:?}"),
        }
    }

    fn crash(&mut self, at: &prop::sample::Index) {
        let kept = self.committed + at.index(self.log.len() - self.committed + 1);
        let lost: BTreeSet<Seq> = self.log[kept..]
            .iter()
            .filter_map(|change| match change {
                Change::Queued(_, seq, _) => Some(*seq),
                _ => None,
            })
            .collect();
        // Nobody was told that these are taken.
        self.promised.retain(|(_, _, place)| !lost.contains(place));
        for change in self.log.drain(..).take(kept) {
            self.base.apply(&change);
        }
        self.committed = 0;
        self.live = self.base.clone();
        self.asked = None;
        self.hang_up();
        let restored = self.live.restored();
        let mut effects = Vec::new();
        self.bench.session = Session::restore(restored, self.limits, self.bench.now, WALL_MS, &mut effects);
        self.run(effects);
        self.event(Event::Wake);
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        if !self.bench.session.is_attached() {
            self.connect();
        }
        for _ in 0..10_000 {
            let moves = self.asked.is_some() || !(self.to_session.is_empty() && self.to_client.is_empty());
            if !moves && self.bench.session.queue_len() == 0 {
                return;
            }
            self.step(&Step::StoreAnswers);
            self.step(&Step::SessionReads);
            self.step(&Step::ClientReads);
            if !moves {
                self.step(&Step::TimePasses);
            }
        }
        panic!("it goes on for ever: {self:?}");
    }

    fn check(&self) {
        assert!(
            self.owned.is_empty(),
            "every exchange of the client ended: {:?}",
            self.owned
        );
        assert!(self.live.messages.is_empty() && self.live.received.is_empty());
        for number in &self.done {
            assert_eq!(
                self.broker_got.get(number),
                Some(&1),
                "published exactly once [MQTT-4.3.3-10]"
            );
        }
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let promised: Vec<u32> = self
                .promised
                .iter()
                .filter(|(q, ..)| *q == qos)
                .map(|(_, n, _)| *n)
                .collect();
            let mut seen = BTreeSet::new();
            let got = self
                .client_got
                .iter()
                .filter(|(q, _)| *q == qos)
                .map(|(_, number)| *number);
            let got: Vec<u32> = got.collect();
            if qos == QoS::ExactlyOnce {
                assert!(
                    got.iter().all(|number| seen.insert(*number)),
                    "exactly once: {got:?}"
                );
                seen.clear();
            }
            let owed: BTreeSet<u32> = promised.iter().copied().collect();
            let firsts = got
                .iter()
                .filter(|number| seen.insert(**number) && owed.contains(number));
            assert_eq!(
                firsts.copied().collect::<Vec<_>>(),
                promised,
                "all come, first copies in order"
            );
        }
    }
}

fn is_drop(counted: Counted) -> bool {
    matches!(
        counted,
        Counted::DroppedQueueFull | Counted::DroppedQueueOldest | Counted::DroppedExpired
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn qos_1_and_2_keep_their_promises_over_crashes(steps in steps(), drops_oldest: bool) {
        let policy = if drops_oldest { QueuePolicy::DropOldest } else { QueuePolicy::DropNewest };
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
