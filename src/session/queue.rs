//! Messages that wait for the client, or for a slot in flight; bounded by number and by bytes.
//!
//! At the limit the newest message is dropped or the oldest, by policy; the order of the rest does not
//! change. Expired messages make room first.
//!
//! Only the head of a long queue is in memory ([`Head`]) where the rest is stored: see [`super::backlog`].
//! The limits hold for both together. What is read again is appended to the head, what comes meanwhile waits
//! behind it; when the client goes away the head shrinks. What has expired in the store is dropped when it is
//! read; until then it counts.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::backlog::{Behind, Load, given_up, run_of};
use super::event::{ClientLimits, Counted, Effect, QueuePolicy};
use super::lasting::{Backlog, Page, Seq};
use super::outbound::drop_counted;
use crate::limits::{
    QUEUE_AWAY_HEAD_BYTES_MAX, QUEUE_AWAY_HEAD_LEN_MAX, QUEUE_HEAD_BYTES_MAX, QUEUE_HEAD_LEN_MAX,
    QUEUE_PAGE_BYTES_MAX, QUEUE_PAGE_LEN_MAX, SESSION_PACKED_BYTES_MAX,
};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{QoS, SubscriptionIds};

/// Slots that an empty queue keeps; a burst's memory beyond it is given back.
const IDLE_CAPACITY: usize = 32;

/// Longest message, in bytes, of which each waiting receiver has its own copy.
const DETACHED_MAX: usize = 4 << 10;

/// A message for one client, as it is to be sent. QoS 0 only where it waits for a client that is away.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Shared with the other receivers, unless it was [`Outgoing::detach`]ed.
    pub(super) message: Arc<Message>,
    /// Subscription Identifiers (5.0).
    pub(super) subscription_ids: SubscriptionIds,
    /// QoS towards the client.
    pub(super) qos: QoS,
    /// Retain flag towards the client.
    pub(super) retain: bool,
    /// The shared group as a member of which the client gets it.
    pub(super) share: Option<NonZeroU64>,
    /// Whether it is sent with DUP at first: another member may have had it, or the client before a crash.
    pub(super) dup: bool,
    /// Its place in the store, if it is stored.
    pub(super) seq: Option<Seq>,
}

impl Outgoing {
    /// Before it waits for long: a short message is copied, for it is a range of a read of up to 32 KiB and
    /// would keep all of that alive. A long one stays shared.
    pub(super) fn detach(&mut self) {
        if self.message.weight() <= DETACHED_MAX {
            self.message = Arc::new(self.message.detached());
        }
    }

    /// Whether its Message Expiry Interval is over.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        is_expired(&self.message, now)
    }
}

/// Whether the Message Expiry Interval of a message is over `[MQTT-3.3.2-5]`.
pub(super) fn is_expired(message: &Message, now: Instant) -> bool {
    message.expires_at.is_some_and(|at| at <= now)
}

/// How much of a queue is in memory, at most; what cannot lie in the store alone comes on top.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    len_max: usize,
    bytes_max: usize,
    /// With no more messages than this, and no more bytes, it runs low.
    low_len: usize,
    low_bytes: usize,
    /// Whether what does not fit is given up to the store.
    gives_up: bool,
}

impl Head {
    /// While there is a client to send to.
    pub(super) const ATTACHED: Self = Self {
        len_max: QUEUE_HEAD_LEN_MAX,
        bytes_max: QUEUE_HEAD_BYTES_MAX,
        low_len: QUEUE_HEAD_LEN_MAX / 4,
        low_bytes: QUEUE_HEAD_BYTES_MAX / 4,
        gives_up: true,
    };

    /// While the client is away.
    pub(super) const AWAY: Self = Self {
        len_max: QUEUE_AWAY_HEAD_LEN_MAX,
        bytes_max: QUEUE_AWAY_HEAD_BYTES_MAX,
        low_len: QUEUE_AWAY_HEAD_LEN_MAX / 4,
        low_bytes: QUEUE_AWAY_HEAD_BYTES_MAX / 4,
        gives_up: true,
    };

    /// Before it is packed: as much as a packed session may have.
    pub(super) const PACKED: Self = Self {
        len_max: usize::MAX,
        bytes_max: SESSION_PACKED_BYTES_MAX,
        low_len: usize::MAX,
        low_bytes: SESSION_PACKED_BYTES_MAX - 1,
        gives_up: false,
    };
}

/// The queue of one session: its head, and what lies behind it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The head.
    messages: VecDeque<Outgoing>,
    /// Sum of its weights.
    bytes: usize,
    /// Nothing in memory expires before; saves looking through a full queue for what is not there.
    expiry_first: Option<Instant>,
    /// What lies behind the head; nothing where nothing is stored.
    behind: Option<Box<Behind>>,
    /// Messages up to here may have been sent before the process fell.
    suspect: Option<Seq>,
}

impl Queue {
    /// How many messages wait, in memory and in the store.
    pub(super) fn len(&self) -> usize {
        self.messages.len() + self.behind.as_ref().map_or(0, |behind| behind.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.behind.is_none()
    }

    /// Sum of their weights.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.behind.as_ref().map_or(0, |behind| behind.bytes())
    }

    /// What is in memory and is bounded by nothing but the limits of the queue. Where some of it lies in the
    /// store alone that is what nobody else has; the head is as large as it may be then, and does not grow.
    pub(super) fn pinned(&self) -> Load {
        match &self.behind {
            Some(behind) => behind.kept_load(),
            None => Load {
                len: self.messages.len(),
                bytes: self.bytes,
            },
        }
    }

    /// Whether one more message of `weight` fits.
    pub(super) fn has_room(&self, weight: usize, limits: &ClientLimits) -> bool {
        let bytes = self.bytes().saturating_add(weight);
        self.len() < limits.queue_len_max && bytes <= limits.queue_bytes_max
    }

    /// Appends a message. What gives way, it or older ones, is dropped and counted. The oldest ones are those
    /// of the head; should they not be enough, and the next ones not be read yet, it is the newest that goes.
    /// Whether older ones gave way.
    pub(super) fn push(
        &mut self,
        mut outgoing: Outgoing,
        limits: &ClientLimits,
        head: Head,
        out: &mut Vec<Effect>,
    ) -> bool {
        let weight = outgoing.message.weight();
        let gave_way = !self.has_room(weight, limits);
        if gave_way {
            if limits.queue_policy == QueuePolicy::DropNewest || !self.can_make_room(weight, limits) {
                drop_counted(Counted::DroppedQueueFull, outgoing.seq, out);
                return false;
            }
            while !self.has_room(weight, limits)
                && let Some(oldest) = self.pop()
            {
                drop_counted(Counted::DroppedQueueOldest, oldest.seq, out);
            }
        }
        self.note_expiry(&outgoing);
        let fits = self.messages.len() < head.len_max && self.bytes + weight <= head.bytes_max;
        let seq = given_up(&outgoing).filter(|_| head.gives_up && !fits);
        match (&mut self.behind, seq) {
            // QoS 0 may overtake the others [MQTT-4.6.0-6]; among itself it is in order in the head.
            (Some(behind), _) if outgoing.qos != QoS::AtMostOnce => {
                behind.push(outgoing, head.gives_up);
            }
            (None, Some(seq)) => self.behind = Some(Behind::new(run_of(seq, weight))),
            _ => {
                outgoing.detach();
                self.push_back(outgoing);
            }
        }
        gave_way
    }

    /// Whether one more message of `weight` fits when all of the head gives way.
    fn can_make_room(&self, weight: usize, limits: &ClientLimits) -> bool {
        let (len, bytes) = (self.len() - self.messages.len(), self.bytes() - self.bytes);
        len < limits.queue_len_max && bytes.saturating_add(weight) <= limits.queue_bytes_max
    }

    fn push_back(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.message.weight();
        self.messages.push_back(outgoing);
    }

    fn note_expiry(&mut self, outgoing: &Outgoing) {
        if let Some(at) = outgoing.message.expires_at {
            self.expiry_first = Some(self.expiry_first.map_or(at, |first| first.min(at)));
        }
    }

    /// Takes the oldest message, if it may go.
    pub(super) fn pop_if(&mut self, may_go: impl FnOnce(&Outgoing) -> bool) -> Option<Outgoing> {
        may_go(self.messages.front()?).then(|| self.pop()).flatten()
    }

    /// All that is in memory, the oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Outgoing> {
        let behind = self.behind.iter_mut().flat_map(|behind| behind.kept_mut());
        self.messages.iter_mut().chain(behind)
    }

    /// Takes the oldest message of the head.
    fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.messages.pop_front()?;
        self.bytes -= outgoing.message.weight();
        if self.messages.is_empty() {
            if self.behind.is_none() {
                self.expiry_first = None;
            }
            self.messages.shrink_to(IDLE_CAPACITY);
        }
        Some(outgoing)
    }

    /// Drops what has expired of what is in memory, and counts it. The rest is looked at when it is read.
    pub(super) fn remove_expired(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.expiry_first.is_none_or(|first| first > now) {
            return;
        }
        self.messages.retain(|outgoing| {
            let is_expired = outgoing.is_expired(now);
            if is_expired {
                drop_counted(Counted::DroppedExpired, outgoing.seq, out);
            }
            !is_expired
        });
        if let Some(behind) = &mut self.behind {
            for outgoing in behind.take_kept(|outgoing| outgoing.is_expired(now)) {
                drop_counted(Counted::DroppedExpired, outgoing.seq, out);
            }
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.bytes = self
            .messages
            .iter()
            .map(|outgoing| outgoing.message.weight())
            .sum();
        let behind = self.behind.iter().flat_map(|behind| behind.kept());
        let all = self.messages.iter().chain(behind);
        self.expiry_first = all.filter_map(|outgoing| outgoing.message.expires_at).min();
    }

    /// Takes out what came to the client as a member of a shared group: of this one, or of any. All of that
    /// is in memory.
    pub(super) fn take_shared(&mut self, of: Option<NonZeroU64>) -> Vec<Outgoing> {
        let is_taken =
            |outgoing: &Outgoing| outgoing.share.is_some() && (of.is_none() || outgoing.share == of);
        let mut all = Vec::new();
        if self.messages.iter().any(is_taken) {
            let (taken, left): (VecDeque<_>, _) = self.messages.drain(..).partition(is_taken);
            self.messages = left;
            all = taken.into();
        }
        if let Some(behind) = &mut self.behind {
            all.append(&mut behind.take_kept(is_taken));
        }
        if !all.is_empty() {
            self.recount();
        }
        all
    }

    /// Takes all out that is in memory, without the counts: they may be wrong.
    pub(super) fn salvage(&mut self) -> impl Iterator<Item = Outgoing> + use<> {
        let Self { messages, behind, .. } = std::mem::take(self);
        let behind = behind.into_iter().flat_map(|behind| behind.salvage());
        messages.into_iter().chain(behind)
    }

    /// Empties it and says how many messages were in it.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).len()
    }
}

/// What lies in the store alone, and how it comes back.
impl Queue {
    /// What was found in the store. Messages up to `suspect` may have been sent before.
    pub(super) fn restore(&mut self, backlog: Backlog, suspect: Option<Seq>) {
        if backlog.len > 0 {
            self.behind = Some(Behind::new(backlog));
            self.suspect = suspect;
        }
    }

    /// The last message that may have been sent before an earlier process fell.
    pub(super) fn suspect(&self) -> Option<Seq> {
        self.suspect
    }

    /// What lies in the store alone.
    pub(super) fn backlog(&self) -> Option<Backlog> {
        self.behind.as_ref()?.backlog()
    }

    /// Asks for the next page of the store, if the head runs low and none is on its way.
    pub(super) fn ask(&mut self, head: Head, now: Instant) -> Option<Effect> {
        self.behind.as_ref()?;
        if !self.is_low(head) {
            return None;
        }
        let (from, last) = self.behind.as_mut()?.ask(now)?;
        let len = head.len_max.saturating_sub(self.messages.len());
        let bytes = head.bytes_max.saturating_sub(self.bytes);
        Some(Effect::Fetch {
            from,
            last,
            len: len.clamp(1, QUEUE_PAGE_LEN_MAX),
            bytes: bytes.clamp(1, QUEUE_PAGE_BYTES_MAX),
        })
    }

    /// Whether the head has so little left that more should be read.
    pub(super) fn is_low(&self, head: Head) -> bool {
        self.messages.len() <= head.low_len && self.bytes <= head.low_bytes
    }

    /// The page that was asked for does not come; it is asked for again at `retry_at`. False if none was.
    pub(super) fn fetch_failed(&mut self, retry_at: Option<Instant>) -> bool {
        let behind = self.behind.as_mut();
        behind.is_some_and(|behind| behind.fetch_failed(retry_at))
    }

    /// Somebody waits: a store that could not be read is asked again at once.
    pub(super) fn retry_now(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.retry_now();
        }
    }

    /// When the store is to be asked again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.behind.as_ref()?.retry_at()
    }

    /// Appends a page to the head; one that was not asked for is not taken. What is `in_flight` is not in it.
    pub(super) fn take_page(
        &mut self,
        page: Page,
        in_flight: impl Iterator<Item = Seq>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut behind) = self.behind.take_if(|behind| behind.is_asked()) else {
            return;
        };
        let span = page
            .first()
            .zip(page.last())
            .map(|(first, last)| first.0..=last.0);
        let waiting = self.messages.iter().chain(behind.kept());
        let known = waiting.filter_map(|outgoing| outgoing.seq).chain(in_flight);
        let known: Vec<Seq> = known
            .filter(|seq| span.as_ref().is_some_and(|span| span.contains(seq)))
            .collect();
        let missing = behind.take_page(
            page,
            |seq| known.contains(&seq),
            |seq, queued| {
                let mut outgoing = Outgoing::of_queued(seq, queued);
                outgoing.dup |= self.suspect.is_some_and(|suspect| seq <= suspect);
                if outgoing.is_expired(now) {
                    return drop_counted(Counted::DroppedExpired, outgoing.seq, out);
                }
                self.note_expiry(&outgoing);
                self.push_back(outgoing);
            },
        );
        out.extend(Counted::DroppedNotFound.times(missing));
        while let Some(outgoing) = behind.pop_kept() {
            self.push_back(outgoing);
        }
        self.behind = (!behind.is_empty()).then_some(behind);
    }

    /// Gives up of the head what the store has and what is beyond its limits. Not while a page is on its way,
    /// which is the continuation of the head.
    pub(super) fn shrink(&mut self, head: Head) {
        let fits = self.messages.len() <= head.len_max && self.bytes <= head.bytes_max;
        let is_asked = self.behind.as_ref().is_some_and(|behind| behind.is_asked());
        if fits || is_asked || !head.gives_up {
            return;
        }
        let mut bytes = 0;
        let weights = self.messages.iter().map(|outgoing| outgoing.message.weight());
        let stays = weights.take(head.len_max).take_while(|weight| {
            bytes += weight;
            bytes <= head.bytes_max
        });
        let rest = self.messages.split_off(stays.count());
        let before = self.behind.as_ref().and_then(|behind| behind.first());
        let front = Behind::of(rest.into_iter(), before, |outgoing| {
            self.messages.push_back(outgoing);
        });
        if let Some(mut front) = front {
            if let Some(behind) = self.behind.take() {
                front.append(*behind);
            }
            self.behind = Some(front);
        }
        self.messages.shrink_to(IDLE_CAPACITY);
        self.recount();
    }

    /// Takes all that is in memory, and says how many messages were not.
    pub(super) fn take_all(&mut self) -> (Vec<Outgoing>, usize) {
        let mut all = std::mem::take(self);
        let len = all.len();
        let mut messages: Vec<Outgoing> = all.messages.into();
        if let Some(behind) = &mut all.behind {
            messages.append(&mut behind.take_kept(|_| true));
        }
        let missing = len - messages.len();
        (messages, missing)
    }
}
