//! A naive client and a naive broker around a session, with transports that are lost at any moment.
//!
//! Goal: what the standard promises of QoS 1 and 2 holds end to end. Method: packets travel through two
//! pipes that a loss empties; the client does by the book what MQTT asks of it; at the end the last
//! connection stands until nothing moves any more, and the books are compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// The client publishes, if its quota allows.
    ClientPublishes(QoS),
    /// One packet reaches the session.
    SessionReads,
    /// One packet reaches the client.
    ClientReads,
    /// The broker answers one of the messages that wait.
    BrokerAnswers(usize),
    /// A topic has a message.
    TopicDelivers(QoS),
    /// The transport is lost, with all that was under way; the client connects again.
    TransportBreaks,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let step = prop_oneof![
        4 => qos.clone().prop_map(Step::ClientPublishes),
        8 => Just(Step::SessionReads),
        8 => Just(Step::ClientReads),
        4 => any::<usize>().prop_map(Step::BrokerAnswers),
        4 => qos.prop_map(Step::TopicDelivers),
        1 => Just(Step::TransportBreaks),
    ];
    prop::collection::vec(step, 1..300)
}

/// A message of the client that it has not let go of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Owned {
    Published(QoS, u32),
    Released,
}

#[derive(Debug)]
struct World {
    bench: Bench,
    connect: Connect,
    to_session: VecDeque<Packet>,
    to_client: VecDeque<Packet>,
    /// The client's own messages by identifier, in order of sending.
    owned: Vec<(u16, Owned)>,
    next_id: u16,
    next_number: u32,
    /// QoS 2 identifiers that the client has received and not seen released.
    client_received: BTreeSet<u16>,
    /// What the client's application got, in order.
    client_got: Vec<(QoS, u32)>,
    /// What it was sent at first, in order.
    topic_delivered: Vec<(QoS, u32)>,
    /// Tokens that wait for the broker.
    unanswered: Vec<PublishToken>,
    /// How often the broker was given each message.
    broker_got: BTreeMap<(u8, u32), usize>,
    /// Messages that the client holds to be delivered.
    client_done: Vec<(QoS, u32)>,
    /// Identifiers from session to client between PUBLISH and last acknowledgement.
    in_use: BTreeSet<u16>,
    /// PUBLISHes that the session has read on this connection and not acknowledged, in order.
    to_acknowledge: VecDeque<u16>,
}

fn numbered(qos: QoS, packet_id: u16, number: u32, dup: bool) -> Packet {
    let payload = Bytes::copy_from_slice(&number.to_be_bytes());
    Packet::Publish(Publish {
        payload,
        dup,
        ..publish_value(qos, packet_id, "t")
    })
}

fn number(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload.try_into().expect("payloads are numbers"))
}

const WINDOW: usize = 3;

impl World {
    fn new(connect: Connect) -> Self {
        let mut world = Self {
            bench: Bench::new(),
            connect,
            to_session: VecDeque::new(),
            to_client: VecDeque::new(),
            owned: Vec::new(),
            next_id: 0,
            next_number: 0,
            client_received: BTreeSet::new(),
            client_got: Vec::new(),
            topic_delivered: Vec::new(),
            unanswered: Vec::new(),
            broker_got: BTreeMap::new(),
            client_done: Vec::new(),
            in_use: BTreeSet::new(),
            to_acknowledge: VecDeque::new(),
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        let limits = ClientLimits {
            inflight_max: WINDOW as u16,
            queue_len_max: 10_000,
            queue_bytes_max: 1 << 20,
            session_expiry_max_s: u32::MAX,
            ..LIMITS
        };
        let effects = self.bench.attach_limited(self.connect.clone(), limits);
        self.run(effects);
        for (packet_id, owned) in self.owned.clone() {
            self.to_session.push_back(match owned {
                Owned::Published(qos, number) => numbered(qos, packet_id, number, true),
                Owned::Released => pubrel(packet_id),
            });
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::ClientPublishes(qos) => self.client_publishes(*qos),
            Step::SessionReads => self.session_reads(),
            Step::ClientReads => self.client_reads(),
            Step::BrokerAnswers(which) if !self.unanswered.is_empty() => {
                let token = self.unanswered.remove(which % self.unanswered.len());
                let effects = self.bench.taken(Some(token));
                self.run(effects);
            }
            Step::BrokerAnswers(_) => {}
            Step::TopicDelivers(qos) => {
                self.next_number += 1;
                self.topic_delivered.push((*qos, self.next_number));
                let payload = Bytes::copy_from_slice(&self.next_number.to_be_bytes());
                let delivery = of_message(Message {
                    payload,
                    ..message(*qos, "")
                });
                let effects = self.bench.handle(Event::Deliver(delivery));
                self.run(effects);
            }
            Step::TransportBreaks => {
                let effects = self.bench.handle(Event::TransportLost);
                self.run(effects);
                self.to_session.clear();
                self.to_client.clear();
                self.to_acknowledge.clear();
                self.connect();
            }
        }
        assert!(
            self.bench.session.inflight_len() <= WINDOW,
            "the window is never exceeded"
        );
    }

    fn client_publishes(&mut self, qos: QoS) {
        if self.owned.len() >= usize::from(LIMITS.receive_maximum) {
            return;
        }
        self.next_number += 1;
        loop {
            self.next_id = self.next_id % 5 + 1;
            if self.owned.iter().all(|(packet_id, _)| *packet_id != self.next_id) {
                break;
            }
        }
        self.owned
            .push((self.next_id, Owned::Published(qos, self.next_number)));
        self.to_session
            .push_back(numbered(qos, self.next_id, self.next_number, false));
    }

    fn session_reads(&mut self) {
        let Some(packet) = self.to_session.pop_front() else {
            return;
        };
        match &packet {
            Packet::Publish(publish) => self.to_acknowledge.extend(publish.packet_id.map(PacketId::get)),
            Packet::PubAck(ack) | Packet::PubComp(ack) => assert!(self.in_use.remove(&ack.packet_id.get())),
            _ => {}
        }
        let effects = self.bench.packet(packet);
        self.run(effects);
    }

    /// Carries out what the session causes, and checks what must hold of it.
    fn run(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(packet) => {
                    if let Packet::PubAck(ack) | Packet::PubRec(ack) = &packet {
                        let expected = self.to_acknowledge.pop_front();
                        assert_eq!(Some(ack.packet_id.get()), expected, "in order of the messages");
                    }
                    self.to_client.push_back(packet);
                }
                Effect::Transmit(transmit) => {
                    let packet_id = transmit.packet_id.expect("only QoS 1 and 2 here").get();
                    assert_eq!(
                        self.in_use.insert(packet_id),
                        !transmit.dup,
                        "an identifier is used once"
                    );
                    self.to_client.push_back(numbered(
                        transmit.qos,
                        packet_id,
                        number(&transmit.message.payload),
                        transmit.dup,
                    ));
                }
                Effect::Publish { token, message, .. } => {
                    self.unanswered.extend(token);
                    *self
                        .broker_got
                        .entry((message.qos as u8, number(&message.payload)))
                        .or_default() += 1;
                }
                // A PUBREL that is sent again because its PUBCOMP was lost.
                Effect::Count(Counted::UnknownAck) | Effect::WakeAt(_) | Effect::Completed(_) => {}
                other => panic!("nothing else happens here: {other:?}"),
            }
        }
    }

    fn client_reads(&mut self) {
        let Some(packet) = self.to_client.pop_front() else {
            return;
        };
        match packet {
            Packet::Publish(publish) => self.client_receives(&publish),
            Packet::PubRel(ack) => {
                self.client_received.remove(&ack.packet_id.get());
                self.to_session
                    .push_back(Packet::PubComp(Ack::success(ack.packet_id)));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                let index = self.index_of(ack.packet_id);
                if let Owned::Published(qos, number) = self.owned.remove(index).1 {
                    self.client_done.push((qos, number));
                }
            }
            Packet::PubRec(ack) => {
                let index = self.index_of(ack.packet_id);
                if let Owned::Published(qos, number) = self.owned[index].1 {
                    self.client_done.push((qos, number));
                }
                self.owned[index].1 = Owned::Released;
                self.to_session
                    .push_back(Packet::PubRel(Ack::success(ack.packet_id)));
            }
            Packet::ConnAck(_) => {}
            other => panic!("a client by the book gets no {other:?}"),
        }
    }

    fn client_receives(&mut self, publish: &Publish) {
        let packet_id = publish.packet_id.expect("QoS 1 or 2").get();
        let is_new = publish.qos == QoS::AtLeastOnce || self.client_received.insert(packet_id);
        if is_new {
            self.client_got.push((publish.qos, number(&publish.payload)));
        }
        self.to_session.push_back(if publish.qos == QoS::AtLeastOnce {
            puback(packet_id)
        } else {
            pubrec(packet_id)
        });
    }

    fn index_of(&self, packet_id: PacketId) -> usize {
        let found = self.owned.iter().position(|(owned, _)| *owned == packet_id.get());
        found.expect("only what the client owns is acknowledged")
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        while !(self.to_session.is_empty() && self.to_client.is_empty() && self.unanswered.is_empty()) {
            self.step(&Step::SessionReads);
            self.step(&Step::ClientReads);
            self.step(&Step::BrokerAnswers(0));
        }
    }

    fn check(&self) {
        assert!(
            self.owned.is_empty(),
            "every exchange of the client ended: {:?}",
            self.owned
        );
        assert_eq!(
            (self.bench.session.inflight_len(), self.bench.session.queue_len()),
            (0, 0)
        );
        for (qos, number) in &self.client_done {
            let times = self.broker_got.get(&(*qos as u8, *number)).copied().unwrap_or(0);
            match qos {
                QoS::ExactlyOnce => assert_eq!(times, 1, "{number} is published exactly once"),
                _ => assert!(times >= 1, "{number} is published at least once"),
            }
        }
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let delivered: Vec<u32> = of_qos(&self.topic_delivered, qos).collect();
            let mut seen = BTreeSet::new();
            let firsts: Vec<u32> = of_qos(&self.client_got, qos)
                .filter(|number| seen.insert(*number))
                .collect();
            assert_eq!(firsts, delivered, "all arrive, first copies in order");
        }
        let exactly_once = of_qos(&self.client_got, QoS::ExactlyOnce).count();
        assert_eq!(
            exactly_once,
            of_qos(&self.topic_delivered, QoS::ExactlyOnce).count()
        );
    }
}

fn of_qos(list: &[(QoS, u32)], wanted: QoS) -> impl Iterator<Item = u32> {
    list.iter()
        .filter(move |(qos, _)| *qos == wanted)
        .map(|(_, number)| *number)
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.session.fmt(f)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn qos_1_and_2_keep_their_promises_over_lost_transports(steps in steps(), is_v5 in any::<bool>()) {
        let mut world = World::new(if is_v5 { connect5(u32::MAX) } else { connect3(false) });
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}
