//! Messages that wait for the client, or for a slot in flight; bounded by number and by bytes.
//!
//! At the limit the newest message is dropped or the oldest, by policy; the order of the rest does not
//! change. Expired messages make room first.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use super::event::{ClientLimits, Counted, Effect, QueuePolicy};
use super::lasting::Seq;
use super::outbound::drop_counted;
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

/// The queue of one session.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Outgoing>,
    /// Sum of their weights.
    bytes: usize,
    /// Nothing in it expires before; saves looking through a full queue for what is not there.
    expiry_first: Option<Instant>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether one more message of `weight` fits.
    pub(super) fn has_room(&self, weight: usize, limits: &ClientLimits) -> bool {
        let bytes = self.bytes.saturating_add(weight);
        self.messages.len() < limits.queue_len_max && bytes <= limits.queue_bytes_max
    }

    /// Appends a message. What gives way, it or older ones, is dropped and counted.
    pub(super) fn push(&mut self, mut outgoing: Outgoing, limits: &ClientLimits, out: &mut Vec<Effect>) {
        let weight = outgoing.message.weight();
        if !self.has_room(weight, limits) {
            let never = limits.queue_len_max == 0 || weight > limits.queue_bytes_max;
            if limits.queue_policy == QueuePolicy::DropNewest || never {
                return drop_counted(Counted::DroppedQueueFull, outgoing.seq, out);
            }
            while !self.has_room(weight, limits)
                && let Some(oldest) = self.pop()
            {
                drop_counted(Counted::DroppedQueueOldest, oldest.seq, out);
            }
        }
        if let Some(at) = outgoing.message.expires_at {
            self.expiry_first = Some(self.expiry_first.map_or(at, |first| first.min(at)));
        }
        outgoing.detach();
        self.bytes += weight;
        self.messages.push_back(outgoing);
    }

    /// Takes the oldest message, if it may go.
    pub(super) fn pop_if(&mut self, may_go: impl FnOnce(&Outgoing) -> bool) -> Option<Outgoing> {
        may_go(self.messages.front()?).then(|| self.pop()).flatten()
    }

    /// All of it, the oldest first.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Outgoing> {
        self.messages.iter_mut()
    }

    /// Takes the oldest message.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.messages.pop_front()?;
        self.bytes -= outgoing.message.weight();
        if self.messages.is_empty() {
            self.expiry_first = None;
            self.messages.shrink_to(IDLE_CAPACITY);
        }
        Some(outgoing)
    }

    /// Drops what has expired, and counts it.
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
        self.recount();
    }

    fn recount(&mut self) {
        self.bytes = self
            .messages
            .iter()
            .map(|outgoing| outgoing.message.weight())
            .sum();
        self.expiry_first = self
            .messages
            .iter()
            .filter_map(|outgoing| outgoing.message.expires_at)
            .min();
    }

    /// Takes out what came to the client as a member of a shared group: of this one, or of any.
    pub(super) fn take_shared(&mut self, of: Option<NonZeroU64>) -> Vec<Outgoing> {
        let is_taken =
            |outgoing: &Outgoing| outgoing.share.is_some() && (of.is_none() || outgoing.share == of);
        if !self.messages.iter().any(is_taken) {
            return Vec::new();
        }
        let (taken, left): (VecDeque<_>, _) = self.messages.drain(..).partition(is_taken);
        self.messages = left;
        self.recount();
        taken.into()
    }

    /// Takes everything out, without the counts: they may be wrong.
    pub(super) fn salvage(&mut self) -> impl Iterator<Item = Outgoing> + use<> {
        std::mem::take(&mut self.messages).into_iter()
    }

    /// Empties it and says how many messages were in it.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).messages.len()
    }
}
