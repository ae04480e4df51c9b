//! A session and its store, and a client that acknowledges what it is sent.

use std::collections::BTreeMap;

use super::super::books::Books;
use super::super::stored::{queued, seq};
use super::super::*;
use crate::session::lasting::{Page, Queued, Seq};

/// A session and its store.
pub(super) struct Shelf {
    pub(super) bench: Bench,
    pub(super) limits: ClientLimits,
    pub(super) stored: BTreeMap<Seq, Queued>,
    pub(super) asked: Option<(Seq, Seq, usize, usize)>,
    pub(super) next: u64,
    /// What the session should hold, by what it told.
    pub(super) books: Books,
}

impl Shelf {
    pub(super) fn new(queue_policy: QueuePolicy) -> Self {
        let limits = ClientLimits {
            inflight_max: 4,
            queue_len_max: 500,
            queue_bytes_max: 100_000,
            queue_policy,
            ..LIMITS
        };
        Self {
            bench: Bench::new(),
            limits,
            stored: BTreeMap::new(),
            asked: None,
            next: 1,
            books: Books::default(),
        }
    }

    /// Its client has come and gone.
    pub(super) fn away(queue_policy: QueuePolicy) -> Self {
        let mut shelf = Self::new(queue_policy);
        shelf.attach();
        shelf.event(Event::TransportLost);
        shelf
    }

    pub(super) fn attach(&mut self) -> Vec<Effect> {
        self.attach_with(connect5(100))
    }

    pub(super) fn attach_with(&mut self, connect: Connect) -> Vec<Effect> {
        self.event(Event::Attach(Box::new(Attach {
            connect,
            assigned_client_id: false,
            limits: self.limits,
            authentication_data: None,
        })))
    }

    pub(super) fn event(&mut self, event: Event) -> Vec<Effect> {
        self.books.held += i64::from(matches!(event, Event::Deliver(_)));
        let effects = self.bench.handle_verbatim(event);
        self.noted(effects)
    }

    pub(super) fn noted(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.books.enter(&effects);
        self.books
            .check(&self.bench.session)
            .expect("each message has one end");
        effects.retain(is_of_interest);
        for effect in &effects {
            match effect {
                Effect::Settled(seq) => assert!(self.stored.remove(seq).is_some(), "settled once"),
                Effect::Fetch {
                    from,
                    last,
                    len,
                    bytes,
                } => {
                    let asked = (*from, *last, *len, *bytes);
                    assert!(self.asked.replace(asked).is_none(), "one at a time");
                }
                Effect::ForgetSubscriptions | Effect::End => {
                    self.stored.clear();
                    self.asked = None;
                }
                _ => {}
            }
        }
        effects
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) -> Vec<Effect> {
        let place = seq(self.next);
        self.next += 1;
        let stored = Queued {
            message: delivery.message.clone(),
            ..queued(delivery.message.qos, "")
        };
        self.stored.insert(place, stored);
        let seq = Some(place);
        self.event(Event::Deliver(Delivery { seq, ..delivery }))
    }

    /// Short messages of QoS 1 with these payloads.
    pub(super) fn deliver_all(&mut self, payloads: impl Iterator<Item = usize>) {
        for payload in payloads {
            self.deliver(delivery(QoS::AtLeastOnce, &payload.to_string()));
        }
    }

    pub(super) fn answer(&mut self) -> Vec<Effect> {
        let (from, last, len, _) = self.asked.take().expect("a page was asked for");
        let page: Page = self
            .stored
            .range(from..=last)
            .take(len)
            .map(|(seq, queued)| (*seq, queued.clone()))
            .collect();
        self.event(Event::Fetched(page))
    }

    pub(super) fn unfetched_len(&self) -> usize {
        self.bench.session.unfetched().map_or(0, |backlog| backlog.len)
    }

    /// Acknowledges everything, with pages coming when they are asked for; the payloads in order of sending.
    pub(super) fn drain(&mut self, effects: Vec<Effect>) -> Vec<String> {
        let (mut all, mut got) = (effects, Vec::new());
        loop {
            let sent = sent(&all);
            if sent.is_empty() && self.asked.is_none() {
                return got;
            }
            all = Vec::new();
            for (payload, _, packet_id, _) in sent {
                got.push(payload);
                all.append(&mut self.event(Event::Packet(puback(packet_id))));
            }
            if self.asked.is_some() {
                all.append(&mut self.answer());
            }
        }
    }
}

pub(super) fn payloads(payloads: impl Iterator<Item = usize>) -> Vec<String> {
    payloads.map(|payload| payload.to_string()).collect()
}

/// What a client answers.
pub(super) fn answer_to(effect: &Effect) -> Option<Packet> {
    match effect {
        Effect::Transmit(transmit) => {
            let packet_id = transmit.packet_id?.get();
            let is_twice = transmit.qos == QoS::ExactlyOnce;
            Some(if is_twice {
                pubrec(packet_id)
            } else {
                puback(packet_id)
            })
        }
        Effect::Send(Packet::PubRel(ack)) => Some(pubcomp(ack.packet_id.get())),
        _ => None,
    }
}
