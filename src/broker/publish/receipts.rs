//! What publishers of QoS 1 and 2 wait for.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::broker::keeping::Kept;
use crate::broker::mail::{Parcel, Receipt};
use crate::broker::office::Office;
use crate::broker::port::Port;
use crate::broker::publish::Publisher;
use crate::broker::tables::Tables;
use crate::mqtt::packet::PacketId;
use crate::mqtt::reason::ReasonCode;
use crate::session::event::{PublishOutcome, PublishToken};
use crate::session::lasting::SessionNo;

/// A link's share of a QoS 1 or 2 publication: dropped, it is complete, wherever and whyever that happens.
/// So a message that is acknowledged, given up or lost with a crash never leaves its publisher waiting.
pub struct Share {
    receipt: Receipt,
    /// Those that the publication belongs to: after a new life of `core` nobody waits for it.
    tables: Arc<Tables>,
    /// It was split: the last part of it counts.
    parts: Option<Arc<()>>,
    /// Whether what was done for it is in the hands of the store.
    kept: Kept,
}

impl Share {
    /// Takes over what was counted for this receipt.
    pub(super) fn of(receipt: Receipt, tables: &Arc<Tables>) -> Self {
        Self {
            receipt,
            tables: tables.clone(),
            parts: None,
            kept: Kept::Nothing,
        }
    }

    /// What was done for it waits for the store.
    pub(in crate::broker) fn noted(&mut self) {
        self.kept = Kept::Noted;
    }

    /// One more part of it: it is complete once all of them were dropped.
    pub(super) fn split(&mut self) -> Self {
        let parts = self.parts.get_or_insert_default().clone();
        Self {
            receipt: self.receipt,
            tables: self.tables.clone(),
            parts: Some(parts),
            kept: self.kept,
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.receipt.fmt(f)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self
            .parts
            .take()
            .is_some_and(|parts| Arc::into_inner(parts).is_none())
        {
            return;
        }
        if let Some(office) = Office::here().filter(|office| Arc::ptr_eq(office.tables(), &self.tables)) {
            office.send(
                self.receipt.arbiter.into(),
                Parcel::Taken(self.receipt, self.kept),
            );
        }
    }
}

/// Publications of one arbiter's sessions that are not taken yet. Bounded by what the sessions may have
/// in flight (Receive Maximum).
#[derive(Default)]
pub(in crate::broker) struct Receipts {
    slots: Vec<Option<Pending>>,
    free: Vec<u32>,
}

struct Pending {
    answer: To,
    /// Of QoS 2: its packet identifier.
    exchange: Option<PacketId>,
    /// Whether it becomes safe in one step: of QoS 2, or a batch with anything of that.
    exactly_once: bool,
    /// How it went if nothing hinders it.
    outcome: PublishOutcome,
    shares: u32,
    /// The worst of what the shares brought.
    kept: Kept,
    /// The arbiters that noted it for somebody, one bit each.
    noted_on: u64,
}

/// Who waits for a publication.
enum To {
    /// The session that published it.
    Session(Rc<Port>, PublishToken),
    /// The link by which a batch of another node came.
    Link(oneshot::Sender<()>),
}

/// What is to be done with a publication that has been everywhere.
pub(super) enum Complete {
    /// Its publisher is answered.
    Answer(Finished),
    /// It is to be made safe first; its slot is kept until then.
    Keep(Kept),
}

/// A publication that is safe, or was refused.
pub(in crate::broker) struct Finished {
    answer: To,
    outcome: PublishOutcome,
    /// Whether it is of QoS 2.
    pub(in crate::broker) exactly_once: bool,
    /// The arbiters that noted it for somebody, one bit each.
    pub(in crate::broker) noted_on: u64,
}

impl Finished {
    /// Tells its publisher, who may be gone.
    pub(in crate::broker) fn answer(self) {
        match self.answer {
            To::Session(port, token) => port.published(token, self.outcome),
            To::Link(link) => drop(link.send(())),
        }
    }

    /// Tells its publisher that it was not taken. A link is told by the end of its channel.
    pub(in crate::broker) fn refuse(self, reason: ReasonCode) {
        if let To::Session(port, token) = self.answer {
            port.published(token, PublishOutcome::Refused(reason));
        }
    }
}

impl Receipts {
    /// Opens a publication with one share, the publisher's own.
    pub(super) fn open(&mut self, publisher: &Publisher<'_>) -> u32 {
        let answer = To::Session(publisher.port.clone(), publisher.token);
        self.put(answer, publisher.exchange, publisher.exchange.is_some())
    }

    /// Opens what a batch of another node waits for, with one share.
    pub(super) fn open_batch(&mut self, link: oneshot::Sender<()>, exactly_once: bool) -> u32 {
        self.put(To::Link(link), None, exactly_once)
    }

    fn put(&mut self, answer: To, exchange: Option<PacketId>, exactly_once: bool) -> u32 {
        let pending = Some(Pending {
            answer,
            exchange,
            exactly_once,
            outcome: PublishOutcome::Taken,
            shares: 1,
            kept: Kept::Nothing,
            noted_on: 0,
        });
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = pending;
            return slot;
        }
        self.slots.push(pending);
        self.slots.len() as u32 - 1
    }

    pub(super) fn add_share(&mut self, receipt: Receipt) {
        if let Some(Some(pending)) = self.slots.get_mut(receipt.slot as usize) {
            pending.shares += 1;
        }
    }

    /// One share less, which comes from that arbiter; with the last one the publication has been everywhere.
    pub(super) fn complete(&mut self, receipt: Receipt, kept: Kept, from: u16) -> Option<Complete> {
        let pending = self.slots.get_mut(receipt.slot as usize)?.as_mut()?;
        pending.shares -= 1;
        if kept != Kept::Nothing {
            pending.kept = pending.kept.max(kept);
            pending.noted_on |= 1 << from;
        }
        if pending.shares > 0 {
            return None;
        }
        if pending.kept != Kept::Nothing {
            return Some(Complete::Keep(pending.kept));
        }
        self.finish(receipt.slot).map(Complete::Answer)
    }

    /// Nobody has subscribed to it.
    pub(super) fn unrouted(&mut self, receipt: Receipt) {
        if let Some(Some(pending)) = self.slots.get_mut(receipt.slot as usize) {
            pending.outcome = PublishOutcome::NoSubscribers;
        }
    }

    /// Of what becomes safe in one step: the stored session of its publisher, if it has one, and its packet
    /// identifier.
    pub(in crate::broker) fn exchange(&self, receipt: Receipt) -> Option<Option<(SessionNo, PacketId)>> {
        let pending = self.slots.get(receipt.slot as usize)?.as_ref()?;
        if !pending.exactly_once {
            return None;
        }
        let To::Session(port, _) = &pending.answer else {
            return Some(None);
        };
        let lasting = port.lasting.get().filter(|_| !port.is_closed());
        Some(lasting.map(|lasting| lasting.no).zip(pending.exchange))
    }

    /// Takes a publication out; its slot is free.
    pub(in crate::broker) fn finish(&mut self, slot: u32) -> Option<Finished> {
        let pending = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        Some(Finished {
            answer: pending.answer,
            outcome: pending.outcome,
            exactly_once: pending.exactly_once,
            noted_on: pending.noted_on,
        })
    }
}
