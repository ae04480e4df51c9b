//! How a session is written down, and found again after its process, or the whole node, was gone.
//!
//! A session that outlives its connection is noted when it begins and whenever its connection comes or goes
//! ([`Session::record`]); of its messages it is noted, as they come and go, what
//! [`Effect::Exchange`], [`Effect::Settled`] and [`Effect::Completed`] say. [`Session::restore`] makes of
//! that the same session with its client away, and [`Session::enlist`] tells all that there is to note of one
//! that was never written down here.
//!
//! What was noted last may not have reached the disk. So whatever may have been sent before the crash is sent
//! with DUP `[MQTT-3.3.1-1]`, under the same packet identifier.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ending::{Away, publish_will_of};
use super::event::{ClientLimits, Counted, Effect};
use super::inbound::Inbound;
use super::inflight::{Inflight, Stage, far_from};
use super::lasting::{Backlog, Change, Exchange, Page, Queued, Restored, Seq, SessionNo, SessionRecord};
use super::outbound::settle;
use super::queue::{Head, Outgoing};
use super::{Session, State};
use crate::limits::QUEUE_PAGE_RETRY_AFTER;
use crate::mqtt::packet::{QoS, Will};

/// An expiry interval of so many seconds never ends `[MQTT-3.1.2.11.2]`.
const NEVER_S: u32 = u32::MAX;

impl Outgoing {
    /// As it lies in the store.
    fn queued(&self) -> Queued {
        Queued {
            message: self.message.clone(),
            subscription_ids: self.subscription_ids.clone(),
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
        }
    }

    /// As it was in the store. The shared group as a member of which it came is not known any more: it stays
    /// with this client.
    pub(super) fn of_queued(seq: Seq, queued: Queued) -> Self {
        Self {
            message: queued.message,
            subscription_ids: queued.subscription_ids,
            qos: queued.qos,
            retain: queued.retain,
            share: None,
            dup: queued.dup,
            seq: Some(seq),
        }
    }
}

/// An instant of this process on the wall clock, in milliseconds since 1970.
fn on_the_wall(at: Instant, now: Instant, wall_ms: u64) -> u64 {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let ahead = millis(at.saturating_duration_since(now));
    let behind = millis(now.saturating_duration_since(at));
    wall_ms.saturating_add(ahead).saturating_sub(behind)
}

fn lives_ms(expiry_interval_s: u32) -> u64 {
    u64::from(expiry_interval_s) * 1000
}

impl Session {
    /// What the store is to know of the session itself, at this instant and this time of the wall clock in
    /// milliseconds since 1970. `None` if it does not outlive its connection, or is over.
    #[must_use]
    pub fn record(&self, now: Instant, wall_ms: u64) -> Option<SessionRecord> {
        if !self.is_persistent() {
            return None;
        }
        let (away_since_ms, will) = match &self.state {
            State::New | State::Ended => return None,
            State::Attached(link) => {
                let will = link.will.as_ref();
                (None, will.map(|will| ((**will).clone(), u64::MAX)))
            }
            State::Away(away) => {
                let since_ms = away.expires_at.map_or(wall_ms, |at| {
                    on_the_wall(at, now, wall_ms).saturating_sub(lives_ms(self.expiry_interval_s))
                });
                let will = away.delayed_will(now).map(|(will, due)| {
                    let due_ms = due.map_or(u64::MAX, |due| on_the_wall(due, now, wall_ms));
                    (Will::clone(will), due_ms)
                });
                (Some(since_ms), will)
            }
        };
        Some(SessionRecord {
            client_id: self.client_id.clone(),
            version: self.version,
            expiry_interval_s: self.expiry_interval_s,
            away_since_ms,
            noted_ms: wall_ms,
            will,
            suspect: self.queue.suspect(),
            guest: None,
        })
    }

    /// The session as it was stored, as that of a client that is away. Until that comes back, the session has
    /// these limits. Its subscriptions are still to be told to the router; the rest is in `out`: its will,
    /// and when to wake it.
    ///
    /// A session that was stored with a connection has lost that with the process that kept it: its will is
    /// due, and it lives on from now as long as it is to outlive a connection. One whose time is over ends
    /// when it is woken.
    #[must_use]
    pub fn restore(
        restored: Restored,
        limits: ClientLimits,
        now: Instant,
        wall_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Self {
        let record = restored.record;
        let mut session = Self::new(record.client_id.clone());
        session.limits = limits;
        session.version = record.version;
        session.expiry_interval_s = record.expiry_interval_s;
        for (filter, subscription) in restored.subscriptions {
            session.subscriptions.insert(filter, subscription);
        }
        if !restored.received.is_empty() {
            session.inbound = Some(Box::new(Inbound::awaiting(restored.received)));
        }
        let begun = restored.exchanges.into_iter();
        let begun = begun.filter_map(|(seq, exchange, queued)| match (exchange, queued) {
            (Exchange::Released(packet_id), _) => Some((packet_id, Stage::Released(Some(seq)))),
            (Exchange::Sent(packet_id), Some(queued)) => {
                Some((packet_id, Stage::Held(Outgoing::of_queued(seq, queued))))
            }
            (Exchange::Sent(_), None) => {
                settle(Some(seq), out);
                None
            }
        });
        session.inflight = Inflight::of(begun, far_from(restored.next.packet_id()));
        if let Some(backlog) = restored.queue {
            session.queue.restore(backlog, suspect(&backlog, &record));
        }
        out.extend(Counted::Restored.times(session.held_len()));
        let lived_ms = |since_ms| wall_ms.saturating_sub(since_ms);
        let left_ms =
            lives_ms(record.expiry_interval_s).saturating_sub(record.away_since_ms.map_or(0, lived_ms));
        let expires_at = match record.expiry_interval_s {
            NEVER_S => None,
            _ => now.checked_add(Duration::from_millis(left_ms)),
        };
        let delayed = match (record.will, record.away_since_ms) {
            (None, _) => None,
            (Some((will, _)), None) => publish_will_of(Arc::new(will), record.expiry_interval_s, now, out),
            (Some((will, due_ms)), Some(_)) => restored_will(will, due_ms, now, wall_ms, out),
        };
        out.extend(expires_at.map(Effect::WakeAt));
        session.state = State::Away(Away::new(expires_at, delayed));
        session
    }

    /// Gives each QoS 1 and 2 message that waits or is in flight, and is not stored, a place in the store, in
    /// order, and returns all that is to be noted so that the session is stored under `no`: for one that came
    /// from another node, or has begun to outlive its connections. Nothing if it does not, or is over.
    #[must_use]
    pub fn enlist(
        &mut self,
        no: SessionNo,
        now: Instant,
        wall_ms: u64,
        next: &mut dyn FnMut() -> Seq,
    ) -> Vec<Change> {
        let Some(record) = self.record(now, wall_ms) else {
            return Vec::new();
        };
        let mut changes = vec![Change::Session(no, Box::new(record))];
        let subscriptions = self.subscriptions.iter();
        changes.extend(
            subscriptions.map(|(filter, subscription)| Change::Subscribed(no, filter.clone(), *subscription)),
        );
        if let Some(inbound) = &self.inbound {
            let received = inbound.received();
            changes.extend(received.map(|packet_id| Change::Received(no, packet_id)));
        }
        self.inflight.enlist(next, |seq, exchange, outgoing| {
            changes.extend(outgoing.map(|outgoing| Change::Queued(no, seq, outgoing.queued())));
            changes.push(Change::Exchange(no, seq, exchange));
        });
        for outgoing in self.queue.iter_mut() {
            if outgoing.seq.is_none() && outgoing.qos != QoS::AtMostOnce {
                let seq = next();
                outgoing.seq = Some(seq);
                changes.push(Change::Queued(no, seq, outgoing.queued()));
            }
        }
        changes
    }
}

/// How much of the session's queue is in memory, and how more of it comes there.
impl Session {
    pub(super) fn head(&self) -> Head {
        match self.state {
            _ if self.is_leaving => Head::PACKED,
            State::Attached(_) => Head::ATTACHED,
            _ => Head::AWAY,
        }
    }

    /// Asks the store for more of the queue, if the head runs low.
    pub(super) fn fetch(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let head = self.head();
        out.extend(self.queue.ask(head, now));
    }

    /// A page of the queue has come.
    pub(super) fn on_fetched(&mut self, page: Page, now: Instant, out: &mut Vec<Effect>) {
        if matches!(self.state, State::Ended) {
            return;
        }
        self.queue.take_page(page, self.inflight.seqs(), now, out);
        if self.is_attached() {
            self.pump(now, out);
        } else if self.is_leaving {
            self.fetch(now, out);
        } else {
            self.queue.shrink(self.head());
        }
    }

    /// It has not.
    pub(super) fn on_fetch_failed(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.queue.fetch_failed(now.checked_add(QUEUE_PAGE_RETRY_AFTER)) {
            self.arm(now, out);
        }
    }

    /// Begins to read all of the queue that lies in the store alone, so that the session can be packed. It is
    /// all there when nothing is [`Session::unfetched`]; a CONNECT ends it.
    pub fn gather(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if matches!(self.state, State::Away(_)) {
            self.is_leaving = true;
            self.fetch(now, out);
        }
    }

    /// What of the queue lies in the store alone. Nothing, too, once as much of it is in memory as a packed
    /// session may have.
    #[must_use]
    pub fn unfetched(&self) -> Option<Backlog> {
        self.queue.backlog().filter(|_| self.queue.is_low(Head::PACKED))
    }
}

/// The last message that may have been sent before the process fell, of those that are not known to have
/// been: what was noted last is lost, and with it that messages were sent and acknowledged. A client that was
/// there may have had all of them; one that was away none but those of an earlier life, for it is not sent
/// what has waited for it before it is safe that it is back.
fn suspect(backlog: &Backlog, record: &SessionRecord) -> Option<Seq> {
    let was_there = record.away_since_ms.is_none();
    record.suspect.max(was_there.then_some(backlog.last))
}

/// A will that was waiting for its delay when it was stored; and when it is due, if it still waits.
fn restored_will(
    will: Will,
    due_ms: u64,
    now: Instant,
    wall_ms: u64,
    out: &mut Vec<Effect>,
) -> Option<(Arc<Will>, Option<Instant>)> {
    let left_ms = due_ms.saturating_sub(wall_ms);
    let (delay_s, due) = match due_ms {
        u64::MAX => (u32::MAX, None),
        _ => (
            u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX),
            now.checked_add(Duration::from_millis(left_ms)),
        ),
    };
    let will = Arc::new(will);
    let delayed = (delay_s > 0).then(|| (will.clone(), due));
    out.push(Effect::PublishWill { will, delay_s });
    delayed
}
