//! What was noted and is not yet safe, one entry per record: what is noted twice is written once, and a
//! message that was settled before anybody wrote it is not written at all.
//!
//! A record that must go leaves a tombstone only if an earlier generation has written it, or may have: of
//! messages that is known by their places, which are noted once each and grow.

use std::collections::BTreeMap;
use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;

use crate::broker::storage::Retained;
use crate::mqtt::packet::PacketId;
use crate::session::Subscription;
use crate::session::lasting::{Change, Exchange, Queued, Seq, SessionNo, SessionRecord};

/// Bytes that an entry takes beside what it carries, roughly.
const ENTRY_BYTES: usize = 96;

/// What becomes of a record.
#[derive(Clone, Debug)]
pub(super) enum Entry<T> {
    Put {
        what: T,
        /// Nobody has written this record before.
        fresh: bool,
    },
    Gone,
}

impl<T> Entry<T> {
    pub(super) fn put(&self) -> Option<&T> {
        match self {
            Self::Put { what, .. } => Some(what),
            Self::Gone => None,
        }
    }

    fn is_fresh(&self) -> bool {
        matches!(self, Self::Put { fresh: true, .. })
    }
}

/// What becomes of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct OfSession {
    /// First of all everything goes that was written of it.
    pub(super) forget: bool,
    pub(super) record: Option<Box<SessionRecord>>,
    pub(super) subscriptions: BTreeMap<ByteString, Option<Subscription>>,
    pub(super) received: BTreeMap<PacketId, bool>,
    pub(super) exchanges: BTreeMap<Seq, Entry<Exchange>>,
    pub(super) queue: BTreeMap<Seq, Entry<Queued>>,
}

impl OfSession {
    fn is_empty(&self) -> bool {
        !self.forget
            && self.record.is_none()
            && self.subscriptions.is_empty()
            && self.received.is_empty()
            && self.exchanges.is_empty()
            && self.queue.is_empty()
    }

    pub(super) fn entries(&self) -> usize {
        usize::from(self.forget)
            + usize::from(self.record.is_some())
            + self.subscriptions.len()
            + self.received.len()
            + self.exchanges.len()
            + self.queue.len()
    }

    /// What becomes of the session when `later` follows.
    pub(super) fn followed_by(mut self, later: Self) -> Self {
        if later.forget {
            return later;
        }
        self.record = later.record.or(self.record);
        self.subscriptions.extend(later.subscriptions);
        self.received.extend(later.received);
        self.exchanges.extend(later.exchanges);
        self.queue.extend(later.queue);
        self
    }

    /// Somebody has tried to write this, and may have.
    fn stale(mut self) -> Self {
        for entry in self.queue.values_mut() {
            if let Entry::Put { fresh, .. } = entry {
                *fresh = false;
            }
        }
        for entry in self.exchanges.values_mut() {
            if let Entry::Put { fresh, .. } = entry {
                *fresh = false;
            }
        }
        self
    }

    fn bytes(&self) -> usize {
        let record = self.record.as_ref().map_or(0, |record| record_bytes(record));
        let filters: usize = self.subscriptions.keys().map(|filter| filter.len()).sum();
        let messages = self.queue.values().filter_map(Entry::put);
        let messages: usize = messages.map(queued_bytes).sum();
        record + filters + messages + self.entries() * ENTRY_BYTES
    }
}

fn record_bytes(record: &SessionRecord) -> usize {
    let will = record.will.as_ref();
    record.client_id.len() + will.map_or(0, |(will, _)| will.topic.len() + will.payload.len())
}

fn queued_bytes(queued: &Queued) -> usize {
    queued.message.weight() + queued.message.publisher.len()
}

/// Bytes that a change keeps in memory, roughly.
pub(super) fn change_bytes(change: &Change) -> usize {
    ENTRY_BYTES
        + match change {
            Change::Session(_, record) => record_bytes(record),
            Change::Subscribed(_, filter, _) | Change::Unsubscribed(_, filter) => filter.len(),
            Change::Queued(_, _, queued) => queued_bytes(queued),
            _ => 0,
        }
}

fn retained_bytes(topic: &ByteString, retained: &Retained) -> usize {
    let message = match retained {
        Retained::Message(message, _) => message.weight() + message.publisher.len(),
        Retained::Cleared(..) | Retained::Forgotten => 0,
    };
    topic.len() + message + ENTRY_BYTES
}

/// The session that a change is of.
pub(super) fn session_of(change: &Change) -> SessionNo {
    match *change {
        Change::Session(no, _)
        | Change::Forget(no)
        | Change::Subscribed(no, ..)
        | Change::Unsubscribed(no, _)
        | Change::Queued(no, ..)
        | Change::Exchange(no, ..)
        | Change::Settled(no, _)
        | Change::Received(no, _)
        | Change::Completed(no, _) => no,
    }
}

/// All that one commit writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation {
    pub(super) sessions: AHashMap<SessionNo, OfSession>,
    /// Which session a client has from now on.
    pub(super) clients: AHashMap<ByteString, SessionNo>,
    pub(super) retained: BTreeMap<ByteString, Retained>,
    /// What it keeps in memory, roughly.
    pub(super) bytes: usize,
    /// When the first of it was noted.
    pub(super) since: Option<Instant>,
}

impl Generation {
    /// Something was noted, or nothing is left of what was.
    pub(super) fn begin(&mut self) {
        if self.is_empty() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.retained.is_empty()
    }

    /// Records that it changes.
    pub(super) fn entries(&self) -> usize {
        let sessions: usize = self.sessions.values().map(OfSession::entries).sum();
        sessions + self.retained.len()
    }

    /// What was taken and could not be written, followed by what was noted meanwhile.
    pub(super) fn followed_by(mut self, later: Self) -> Self {
        for of in self.sessions.values_mut() {
            *of = std::mem::take(of).stale();
        }
        for (no, of) in later.sessions {
            let before = self.sessions.remove(&no).unwrap_or_default();
            self.sessions.insert(no, before.followed_by(of));
        }
        self.clients.extend(later.clients);
        self.retained.extend(later.retained);
        let sessions: usize = self.sessions.values().map(OfSession::bytes).sum();
        let retained = self.retained.iter();
        let retained: usize = retained.map(|(topic, what)| retained_bytes(topic, what)).sum();
        self.bytes = sessions + retained;
        self
    }

    pub(super) fn retain(&mut self, topic: ByteString, what: Retained) {
        self.bytes += retained_bytes(&topic, &what);
        if let Some(before) = self.retained.insert(topic.clone(), what) {
            self.bytes = self.bytes.saturating_sub(retained_bytes(&topic, &before));
        }
    }
}

/// What is pending, and the greatest place of each session that was ever noted by this process.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) open: Generation,
    newest: AHashMap<SessionNo, Seq>,
    /// Sessions with such a number, and greater ones, have begun in this process.
    born_from: u64,
}

impl Pending {
    pub(super) fn new(born_from: u64) -> Self {
        Self {
            born_from,
            ..Self::default()
        }
    }

    /// Takes a change in; how many entries that are now superfluous it has spared a commit.
    pub(super) fn note(&mut self, change: Change) -> usize {
        let no = session_of(&change);
        match change {
            Change::Forget(no) => return self.forget(no),
            Change::Settled(no, seq) => return self.settle(no, seq),
            Change::Queued(_, seq, queued) => return self.queue(no, seq, queued),
            _ => {}
        }
        let open = &mut self.open;
        let bytes = change_bytes(&change);
        let of = open.sessions.entry(no).or_default();
        let spared = match change {
            Change::Session(_, record) => {
                open.clients.insert(record.client_id.clone(), no);
                of.record.replace(record).is_some()
            }
            Change::Subscribed(_, filter, subscription) => {
                of.subscriptions.insert(filter, Some(subscription)).is_some()
            }
            Change::Unsubscribed(_, filter) => of.subscriptions.insert(filter, None).is_some(),
            Change::Received(_, id) => of.received.insert(id, true).is_some(),
            Change::Completed(_, id) => of.received.insert(id, false).is_some(),
            Change::Exchange(_, seq, exchange) => {
                let mut fresh = of.queue.get(&seq).is_some_and(Entry::is_fresh);
                if matches!(exchange, Exchange::Released(_)) {
                    // The client has it: the message itself is needed no more.
                    match of.queue.remove(&seq) {
                        Some(entry) if entry.is_fresh() => {
                            let queued = entry.put().map_or(0, queued_bytes);
                            open.bytes = open.bytes.saturating_sub(queued + ENTRY_BYTES);
                        }
                        _ => {
                            fresh |= of.exchanges.get(&seq).is_some_and(Entry::is_fresh);
                            if !fresh {
                                of.queue.insert(seq, Entry::Gone);
                            }
                        }
                    }
                }
                let what = exchange;
                of.exchanges.insert(seq, Entry::Put { what, fresh }).is_some()
            }
            Change::Forget(_) | Change::Settled(..) | Change::Queued(..) => false,
        };
        // What replaces something is counted twice until it is written; the bound is a rough one.
        if !spared {
            open.bytes += bytes;
        }
        usize::from(spared)
    }

    fn queue(&mut self, no: SessionNo, seq: Seq, what: Queued) -> usize {
        let newest = self.newest.get(&no).copied();
        let fresh = match newest {
            Some(newest) => seq > newest,
            None => no.0 >= self.born_from,
        };
        if newest.is_none_or(|newest| seq > newest) {
            self.newest.insert(no, seq);
        }
        self.open.bytes += queued_bytes(&what) + ENTRY_BYTES;
        let of = self.open.sessions.entry(no).or_default();
        // A message that is noted twice was tried to be written once, perhaps.
        usize::from(of.queue.insert(seq, Entry::Put { what, fresh }).is_some())
    }

    fn settle(&mut self, no: SessionNo, seq: Seq) -> usize {
        let open = &mut self.open;
        let of = open.sessions.entry(no).or_default();
        let queued = of.queue.remove(&seq);
        let exchange = of.exchanges.remove(&seq);
        let entries = usize::from(queued.is_some()) + usize::from(exchange.is_some());
        let bytes = queued.as_ref().and_then(Entry::put).map_or(0, queued_bytes);
        open.bytes = open.bytes.saturating_sub(bytes + entries * ENTRY_BYTES);
        let never_written = queued.as_ref().is_some_and(Entry::is_fresh)
            || (queued.is_none() && exchange.as_ref().is_some_and(Entry::is_fresh));
        if never_written {
            if of.is_empty() {
                open.sessions.remove(&no);
            }
            // Itself, and what was noted before.
            return entries + 1;
        }
        open.bytes += 2 * ENTRY_BYTES;
        of.queue.insert(seq, Entry::Gone);
        of.exchanges.insert(seq, Entry::Gone);
        entries
    }

    fn forget(&mut self, no: SessionNo) -> usize {
        self.newest.remove(&no);
        let open = &mut self.open;
        let before = open.sessions.remove(&no).unwrap_or_default();
        if let Some(record) = &before.record
            && open.clients.get(&record.client_id) == Some(&no)
        {
            open.clients.remove(&record.client_id);
        }
        open.bytes = open.bytes.saturating_sub(before.bytes()) + ENTRY_BYTES;
        let forgotten = OfSession {
            forget: true,
            ..OfSession::default()
        };
        open.sessions.insert(no, forgotten);
        before.entries()
    }
}
