//! Messages on their way to one node: numbered batches, a window, cumulative acknowledgement, resume.
//!
//! The sending end; the receiving one is [`super::intake`]. A value, but for the outbox that it cuts its
//! batches from. It outlives its Peer for a short while, however that ended: when the link to the same life
//! of the node comes back, batches that were not acknowledged are sent again under their old numbers, and
//! the other side drops what it has taken already. So neither a broken connection nor a crash of the Peer
//! loses or doubles anything. A message that leaves the lane, acknowledged or given up, drops the share that
//! its publisher waits for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::wire::v1::{self, Frame, WireMessage};
use crate::broker::counters::Counters;
use crate::broker::links::{Outbound, Outbox, link_weight};
use crate::broker::office::Office;
use crate::broker::publish::{count_lost, give_again};
use crate::limits::{FORWARD_BATCH_BYTES, FORWARD_BATCH_LEN, LINK_WINDOW_BYTES};

/// A batch that was sent and is not acknowledged.
#[derive(Debug)]
struct Batch {
    seq: u64,
    bytes: usize,
    messages: Vec<Outbound>,
}

/// The sending end.
#[derive(Debug)]
pub struct Lane {
    /// Waiting behind the window.
    outbox: Arc<Outbox>,
    /// Its Peer fell, and publishers wait for another one until then.
    held: Option<Instant>,
    /// To be sent again after a reconnect, before anything new.
    again: VecDeque<Batch>,
    /// On the wire.
    unacked: VecDeque<Batch>,
    unacked_bytes: usize,
    /// Messages in `again` and `unacked`.
    on_wire: usize,
    /// Number of the last batch that was cut.
    last: u64,
    /// Messages that were sent, each once however often it was repeated.
    sent: u64,
    /// Messages that the other side has taken, not told yet.
    acknowledged: u64,
    /// What was never sent, by reason.
    pub dropped: Dropped,
}

/// Messages that a lane gave up, by reason. QoS 0 beyond the bound is dropped by who sends to the link.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// Their expiry interval ran out in the queue.
    pub expired: u64,
    /// Of any QoS: the other node did not come back in time.
    pub link_down: u64,
}

/// An acknowledgement of what was never sent: the peer is broken, its link is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("batch {seq} was acknowledged, but the last one sent is {last}")]
pub struct AckAhead {
    seq: u64,
    last: u64,
}

impl Lane {
    /// An empty lane whose first batch follows number `last`: the last one of an earlier lane of ours to the
    /// same life of the node, 0 for none. The other side may still take what was sent in that one, long after
    /// it was given up here, and drops a number that it knows.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self {
            outbox: Arc::default(),
            held: None,
            again: VecDeque::new(),
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            on_wire: 0,
            last,
            sent: 0,
            acknowledged: 0,
            dropped: Dropped::default(),
        }
    }

    /// Where publishers lay their messages.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Its Peer fell: publishers wait for the next one until `until`, or as long as they were told before.
    pub fn hold(&mut self, until: Instant) {
        self.held.get_or_insert(until);
    }

    /// Until when publishers wait for the next Peer, if one fell.
    #[must_use]
    pub fn held(&self) -> Option<Instant> {
        self.held
    }

    /// A link stands again. Whether publishers had waited for it all the time.
    pub fn linked(&mut self) -> bool {
        self.held.take().is_some()
    }

    /// Goes on over a new connection on which the other side has taken all up to `received`.
    ///
    /// # Errors
    /// [`AckAhead`] when that was never sent; the lane is unchanged.
    pub fn resume(&mut self, received: u64) -> Result<(), AckAhead> {
        self.acknowledge(received)?;
        let mut again = std::mem::take(&mut self.unacked);
        again.append(&mut self.again);
        self.again = again;
        self.unacked_bytes = 0;
        Ok(())
    }

    /// The next batch as an encoded frame, if the window is open and there is one.
    pub fn next_batch(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.unacked_bytes >= LINK_WINDOW_BYTES {
            return None;
        }
        let batch = match self.again.pop_front() {
            Some(batch) => self.without_expired(batch, now),
            None => self.cut(now)?,
        };
        let wire = batch
            .messages
            .iter()
            .filter_map(|outbound| WireMessage::lent(outbound, now));
        let frame = v1::encode(&Frame::Forward {
            seq: batch.seq,
            messages: wire.collect(),
        });
        self.unacked_bytes += batch.bytes;
        self.unacked.push_back(batch);
        self.tell();
        Some(frame)
    }

    /// Whether a call of [`Lane::next_batch`] may yield something.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unacked_bytes < LINK_WINDOW_BYTES && !(self.outbox.is_empty() && self.again.is_empty())
    }

    /// The other side has taken all batches up to `seq`.
    ///
    /// # Errors
    /// [`AckAhead`] when that was never sent; the lane is unchanged.
    pub fn acknowledge(&mut self, seq: u64) -> Result<(), AckAhead> {
        if seq > self.last {
            return Err(AckAhead { seq, last: self.last });
        }
        let mut taken = 0;
        while self.unacked.front().is_some_and(|batch| batch.seq <= seq) {
            let batch = self.unacked.pop_front().expect("front was just seen");
            self.unacked_bytes -= batch.bytes;
            taken += batch.messages.len();
        }
        while self.again.front().is_some_and(|batch| batch.seq <= seq) {
            taken += self.again.pop_front().map_or(0, |batch| batch.messages.len());
        }
        self.acknowledged += taken as u64;
        self.on_wire -= taken;
        count(|counters| counters.forwards_acknowledged.add(taken as u64));
        self.tell();
        Ok(())
    }

    /// Lets the publishers go: the other node is down, and nobody waits for it. The messages stay,
    /// but for what shared groups on other nodes can have.
    pub fn release(&mut self) {
        self.give_again();
        let batches = self.unacked.iter_mut().chain(&mut self.again);
        let sent = batches.flat_map(|batch| &mut batch.messages);
        sent.for_each(|outbound| outbound.share = None);
        self.outbox.release();
        self.held = None;
    }

    /// Of what was sent and not acknowledged, other nodes get what shared groups there can have.
    fn give_again(&mut self) {
        for batch in self.unacked.iter_mut().chain(&mut self.again) {
            batch
                .messages
                .retain_mut(|outbound| !give_again(outbound, &self.outbox, true));
        }
        let batches = self.unacked.iter().chain(&self.again);
        self.on_wire = batches.map(|batch| batch.messages.len()).sum();
        self.tell();
    }

    /// Tells the outbox how many messages are under way.
    fn tell(&self) {
        self.outbox.set_on_wire(self.on_wire);
    }

    /// Number of the last batch that was cut.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Messages that were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages that the other side has taken since this was asked last.
    #[must_use]
    pub fn newly_acknowledged(&mut self) -> u64 {
        std::mem::take(&mut self.acknowledged)
    }

    /// Messages that are neither acknowledged nor dropped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outbox.len() + self.on_wire
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives everything up, counted as [`Dropped::link_down`], but for what shared groups on other nodes
    /// can have.
    pub fn abandon(&mut self) {
        self.give_again();
        for batch in self.unacked.iter().chain(&self.again) {
            count_lost(&batch.messages);
        }
        self.dropped.link_down += (self.on_wire + self.outbox.close()) as u64;
        self.unacked.clear();
        self.again.clear();
        self.on_wire = 0;
        self.unacked_bytes = 0;
        self.held = None;
        self.tell();
    }

    /// An expired message of a batch that is sent again leaves its batch, perhaps empty.
    fn without_expired(&mut self, mut batch: Batch, now: Instant) -> Batch {
        let before = batch.messages.len();
        batch
            .messages
            .retain(|message| message.expires_at.is_none_or(|at| at > now));
        let expired = before - batch.messages.len();
        self.on_wire -= expired;
        self.dropped.expired += expired as u64;
        count(|counters| counters.dropped_link_expired.add(expired as u64));
        batch
    }

    /// Cuts the next batch from the queue.
    fn cut(&mut self, now: Instant) -> Option<Batch> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let fits = |message: &Outbound, len: usize, bytes: usize| {
            let full = len >= FORWARD_BATCH_LEN || bytes + link_weight(message) > FORWARD_BATCH_BYTES;
            !full || len == 0
        };
        while let Some(message) = self.outbox.take_if(|next| fits(next, messages.len(), bytes)) {
            if message.expires_at.is_some_and(|at| at <= now) {
                self.dropped.expired += 1;
                count(|counters| counters.dropped_link_expired.one());
                continue;
            }
            bytes += link_weight(&message);
            messages.push(message);
        }
        if messages.is_empty() {
            return None;
        }
        self.last += 1;
        self.sent += messages.len() as u64;
        self.on_wire += messages.len();
        Some(Batch {
            seq: self.last,
            bytes,
            messages,
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // However it ends: no publisher waits for an outbox that nobody takes from.
        self.outbox.close();
    }
}

/// Counts at once, on the arbiter of the lane: a Peer that falls takes no figures along.
fn count(count: impl FnOnce(&Counters)) {
    if let Some(office) = Office::here() {
        count(office.counters());
    }
}

#[cfg(test)]
mod tests;
