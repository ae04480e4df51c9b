//! A store by the book: each change at once, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::super::stored::seq;
use super::{NO, PacketId};
use crate::session::lasting::{Backlog, Change, Exchange, Page, Queued, Restored, Seq, SessionRecord};

/// What a store has of the session.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) record: Option<SessionRecord>,
    pub(super) messages: BTreeMap<Seq, (Queued, Option<Exchange>)>,
    pub(super) received: BTreeSet<PacketId>,
    pub(super) next: u64,
}

impl Store {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Session(_, record) => self.record = Some((**record).clone()),
            Change::Queued(_, seq, queued) => {
                self.next = seq.0.get() + 1;
                assert!(self.messages.insert(*seq, (queued.clone(), None)).is_none());
            }
            Change::Exchange(_, seq, exchange) => {
                let known = self.messages.get_mut(seq).expect("only what waits is sent");
                known.1 = Some(*exchange);
            }
            Change::Settled(_, seq) => assert!(self.messages.remove(seq).is_some(), "settled once"),
            Change::Received(_, packet_id) => assert!(self.received.insert(*packet_id)),
            Change::Completed(_, packet_id) => assert!(self.received.remove(packet_id)),
            other => panic!("nobody notes {other:?}"),
        }
    }

    pub(super) fn page(&self, from: Seq, last: Seq, len: usize, bytes: usize) -> Page {
        let mut left = bytes;
        let all = self.messages.range(from..=last).take(len);
        let fitting = all.enumerate().take_while(|(index, (_, (queued, _)))| {
            let weight = queued.message.weight();
            let fits = *index == 0 || weight <= left;
            left = left.saturating_sub(weight);
            fits
        });
        fitting
            .map(|(_, (seq, (queued, _)))| (*seq, queued.clone()))
            .collect()
    }

    pub(super) fn restored(&self) -> Restored {
        let exchanges = self.messages.iter().filter_map(|(seq, (queued, exchange))| {
            let exchange = (*exchange)?;
            let message = matches!(exchange, Exchange::Sent(_)).then(|| queued.clone());
            Some((*seq, exchange, message))
        });
        let waiting = self
            .messages
            .iter()
            .filter(|(_, (_, exchange))| exchange.is_none());
        let waiting: Vec<_> = waiting
            .map(|(seq, (queued, _))| (*seq, queued.message.weight()))
            .collect();
        let queue = waiting.first().zip(waiting.last()).map(|(first, last)| Backlog {
            len: waiting.len(),
            bytes: waiting.iter().map(|(_, weight)| weight).sum(),
            first: first.0,
            last: last.0,
        });
        Restored {
            no: NO,
            record: self.record.clone().expect("it was noted at first"),
            subscriptions: Vec::new(),
            received: self.received.iter().copied().collect(),
            exchanges: exchanges.collect(),
            queue,
            next: seq(self.next.max(1)),
        }
    }
}
