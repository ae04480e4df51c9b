//! What is being put together while the store is read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytestring::ByteString;

use super::Room;
use crate::mqtt::packet::PacketId;
use crate::session::Subscription;
use crate::session::lasting::{Backlog, Exchange, Page, Queued, Restored, Seq, SessionNo, SessionRecord};
use crate::store::Store;
use crate::store::key::Key;
use crate::store::pending::{Entry, OfSession};
use crate::store::record::{self, Clock, Damage};

/// A page of messages in the making.
pub(super) struct PageDraft {
    /// What was not yet written, of the range that is wanted.
    pub(super) above: BTreeMap<Seq, Entry<Queued>>,
    /// Messages that are on their way and no part of a backlog.
    pub(super) exchanges: BTreeSet<Seq>,
    pub(super) room: Room,
    pub(super) page: Page,
}

impl PageDraft {
    /// Adds what lies above and before `seq`.
    pub(super) fn before(&mut self, seq: Seq) {
        while !self.room.is_full()
            && self
                .above
                .first_key_value()
                .is_some_and(|(first, _)| *first < seq)
        {
            self.next_above();
        }
    }

    pub(super) fn next_above(&mut self) {
        if let Some((seq, Entry::Put { what, .. })) = self.above.pop_first()
            && !self.exchanges.contains(&seq)
        {
            self.add(seq, what);
        }
    }

    /// Whether the stored message counts; if another one lies above, that is added.
    pub(super) fn wants(&mut self, seq: Seq) -> bool {
        if self.above.contains_key(&seq) {
            self.next_above();
            return false;
        }
        !self.exchanges.contains(&seq)
    }

    pub(super) fn add(&mut self, seq: Seq, queued: Queued) {
        if self.room.takes(queued.message.weight()) {
            self.page.push((seq, queued));
        }
    }

    pub(super) fn rest(&mut self) {
        while !self.room.is_full() && !self.above.is_empty() {
            self.next_above();
        }
    }

    pub(super) fn flow(&self) -> ControlFlow<()> {
        if self.room.is_full() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// A session in the making.
#[derive(Default)]
pub(super) struct SessionDraft {
    record: Option<SessionRecord>,
    subscriptions: BTreeMap<ByteString, Subscription>,
    received: BTreeSet<PacketId>,
    exchanges: BTreeMap<Seq, (Exchange, Option<Queued>)>,
    queue: Option<Backlog>,
    /// The greatest place that is taken.
    last: Option<Seq>,
    /// Messages from here on are not wanted.
    before: Option<Seq>,
}

impl SessionDraft {
    pub(super) fn before(before: Option<Seq>) -> Self {
        Self {
            before,
            ..Self::default()
        }
    }

    /// Takes in what is stored, but for messages.
    pub(super) fn read(&mut self, store: &Store, key: &[u8], value: &[u8]) {
        match Key::parse(key) {
            Some(Key::Session(_)) => self.record = store.believe(key, record::read_session(key, value)),
            Some(Key::Subscription(_, filter)) => {
                let filter = std::str::from_utf8(filter).map(ByteString::from);
                let filter = filter.map_err(|_| Damage::Nonsense("no topic filter".into()));
                let read = filter.and_then(|filter| Ok((filter, record::read_subscription(key, value)?)));
                self.subscriptions.extend(store.believe(key, read));
            }
            Some(Key::Received(_, id)) => {
                let read = record::read::<()>(key, value);
                self.received.extend(store.believe(key, read).map(|()| id));
            }
            Some(Key::Exchange(_, seq)) => {
                let read = store.believe(key, record::read(key, value));
                self.last = self.last.max(Some(seq));
                self.exchanges
                    .extend(read.map(|exchange| (seq, (exchange, None))));
            }
            _ => store.leave_out(key, &Damage::Nonsense("no part of a session".into())),
        }
    }

    /// Takes in what was not yet written, but for messages.
    pub(super) fn lay_over(&mut self, above: &OfSession) {
        if let Some(record) = &above.record {
            self.record = Some((**record).clone());
        }
        for (filter, subscription) in &above.subscriptions {
            match subscription {
                Some(subscription) => drop(self.subscriptions.insert(filter.clone(), *subscription)),
                None => drop(self.subscriptions.remove(filter)),
            }
        }
        for (id, received) in &above.received {
            if *received {
                self.received.insert(*id);
            } else {
                self.received.remove(id);
            }
        }
        for (seq, entry) in &above.exchanges {
            self.last = self.last.max(Some(*seq));
            match entry.put() {
                Some(exchange) => drop(self.exchanges.insert(*seq, (*exchange, None))),
                None => drop(self.exchanges.remove(seq)),
            }
        }
    }

    /// Takes in a stored message, unless something lies above it.
    pub(super) fn read_queued(
        &mut self,
        store: &Store,
        above: &OfSession,
        record: (&[u8], &[u8]),
        clock: Clock,
    ) {
        let (key, value) = record;
        let Some(Key::Queued(_, seq)) = Key::parse(key) else {
            return store.leave_out(key, &Damage::Nonsense("no message of a session".into()));
        };
        self.last = self.last.max(Some(seq));
        if above.queue.contains_key(&seq) {
            return;
        }
        if let Some((_, message)) = self.exchanges.get_mut(&seq) {
            *message = store.believe(key, record::read_queued(key, value, clock));
        } else if let Some(weight) = store.believe(key, record::weight(key, value)) {
            self.add(seq, weight);
        }
    }

    pub(super) fn lay_queue_over(&mut self, above: OfSession) {
        for (seq, entry) in above.queue {
            self.last = self.last.max(Some(seq));
            let Entry::Put { what, .. } = entry else { continue };
            if let Some((_, message)) = self.exchanges.get_mut(&seq) {
                *message = Some(what);
            } else {
                self.add(seq, what.message.weight());
            }
        }
    }

    pub(super) fn add(&mut self, seq: Seq, weight: usize) {
        if self.before.is_some_and(|before| seq >= before) {
            return;
        }
        let queue = self.queue.get_or_insert(Backlog {
            len: 0,
            bytes: 0,
            first: seq,
            last: seq,
        });
        queue.len += 1;
        queue.bytes += weight;
        queue.first = queue.first.min(seq);
        queue.last = queue.last.max(seq);
    }

    pub(super) fn restored(self, no: SessionNo) -> Option<Restored> {
        let exchanges = self.exchanges.into_iter();
        // A message that was sent and is not there is not ours to send again: it was never safe, or is lost
        // and named in the log.
        let exchanges = exchanges.filter_map(|(seq, (exchange, message))| match exchange {
            Exchange::Sent(_) => Some((seq, exchange, Some(message?))),
            Exchange::Released(_) => Some((seq, exchange, None)),
        });
        Some(Restored {
            no,
            record: self.record?,
            subscriptions: self.subscriptions.into_iter().collect(),
            received: self.received.into_iter().collect(),
            exchanges: exchanges.collect(),
            queue: self.queue,
            next: self.last.map_or(Seq::FIRST, Seq::next),
        })
    }
}
