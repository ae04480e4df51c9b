//! What publishers of QoS 1 and 2 wait for.

use std::rc::Rc;
use std::sync::Arc;

use crate::broker::mail::{Parcel, Receipt};
use crate::broker::office::Office;
use crate::broker::port::Port;
use crate::broker::tables::Tables;
use crate::session::event::PublishToken;

/// A link's share of a QoS 1 or 2 publication: dropped, it is complete, wherever and whyever that happens.
/// So a message that is acknowledged, given up or lost with a crash never leaves its publisher waiting.
pub struct Share {
    receipt: Receipt,
    /// Those that the publication belongs to: after a new life of `core` nobody waits for it.
    tables: Arc<Tables>,
    /// It was split: the last part of it counts.
    parts: Option<Arc<()>>,
}

impl Share {
    /// Takes over what was counted for this receipt.
    pub(super) fn of(receipt: Receipt, tables: &Arc<Tables>) -> Self {
        Self {
            receipt,
            tables: tables.clone(),
            parts: None,
        }
    }

    /// One more part of it: it is complete once all of them were dropped.
    pub(super) fn split(&mut self) -> Self {
        let parts = self.parts.get_or_insert_default().clone();
        Self {
            receipt: self.receipt,
            tables: self.tables.clone(),
            parts: Some(parts),
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
            office.send(self.receipt.arbiter.into(), Parcel::Taken(self.receipt));
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
    port: Rc<Port>,
    token: PublishToken,
    shares: u32,
}

impl Receipts {
    /// Opens a publication with one share, the publisher's own.
    pub(super) fn open(&mut self, port: &Rc<Port>, token: PublishToken) -> u32 {
        let pending = Some(Pending {
            port: port.clone(),
            token,
            shares: 1,
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

    /// One share less; with the last one the publication is taken.
    pub(super) fn complete(&mut self, receipt: Receipt) -> Option<(Rc<Port>, PublishToken)> {
        let slot = self.slots.get_mut(receipt.slot as usize)?;
        let pending = slot.as_mut()?;
        pending.shares -= 1;
        if pending.shares > 0 {
            return None;
        }
        self.free.push(receipt.slot);
        slot.take().map(|pending| (pending.port, pending.token))
    }
}
