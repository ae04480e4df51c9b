//! What a message goes through where a session that outlasts the process gets it.
//!
//! 1. The desk notes it for each of those sessions, before they see it (`Office::keep`).
//! 2. Its share in the publication comes back with [`Kept::Noted`]. When all shares are in, the publication
//!    waits at a gate until the store has committed, and only then its publisher is answered.
//! 3. A QoS 2 publication is sealed there: what it brought becomes safe together with its packet identifier.
//!    Until it is safe it stays in the
//!    pens of its receivers (`Pen`), for a client that had it already could
//!    not tell it from what the publisher sends again after a crash `[MQTT-4.3.3-10]`.
//!
//! While the store fails, nothing is promised: the publisher is refused with 0x97, and messages for clients
//! that are away are dropped and counted.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use actix::Message as ActixMessage;

use super::mail::{Parcel, Receipt};
use super::office::Office;
use super::port::Port;
use super::storage::{Condition, Listener, Mark, Publication};
use super::tables::Names;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::session::event::Delivery;
use crate::session::lasting::{Change, Queued, Seq, SessionNo};

/// Store → mailman: marks were reached, or the store fails or is sound again.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct StoreMoved;

/// What became of a message at those of its receivers whose sessions outlast the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Kept {
    /// There are none.
    #[default]
    Nothing,
    /// It was noted for them.
    Noted,
    /// The store takes nothing.
    Refused,
}

/// Something that waits until the store has committed.
pub(super) enum Gate {
    /// The publication in this slot of the receipts.
    Publication(u32),
    /// A session, which looks for itself.
    Wake(Rc<Port>),
}

/// What waits on one arbiter.
#[derive(Default)]
pub(super) struct Gates {
    /// In the order of the marks.
    waiting: VecDeque<(Mark, Gate)>,
    /// Whether who waited has been told that the store fails.
    failing: bool,
}

/// What the store calls: who waits is told once.
pub(super) fn listener(awaiting: &Arc<[AtomicBool]>, names: &Names) -> Listener {
    let (awaiting, mailmen) = (awaiting.clone(), names.mailmen.clone());
    Arc::new(move || {
        for (waits, mailman) in awaiting.iter().zip(mailmen.iter()) {
            if waits.swap(false, SeqCst) {
                // A mailman that is just restarting looks for itself when it starts.
                let _ = mailman.cast(StoreMoved);
            }
        }
    })
}

/// The name of a QoS 2 publication that is under way: its slot is not used again before it is safe.
pub(super) fn publication_of(receipt: Receipt) -> Publication {
    Publication(u64::from(receipt.arbiter) << 32 | u64::from(receipt.slot))
}

/// What of a session outlasts the process, as its port knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting {
    /// Its name in the store.
    pub(super) no: SessionNo,
    /// The place of its next message.
    pub(super) next: Seq,
}

/// Messages of a lasting session that its inbox does not have yet: those of QoS 2 publications that are not
/// safe, and what came behind them.
#[derive(Default)]
pub(super) struct Pen(VecDeque<(Option<Publication>, Delivery)>);

impl Pen {
    /// Puts a message behind all others; gives it back if it need not wait.
    pub(super) fn hold(&mut self, publication: Option<Publication>, delivery: Delivery) -> Option<Delivery> {
        if publication.is_none() && self.0.is_empty() {
            return Some(delivery);
        }
        self.0.push_back((publication, delivery));
        None
    }

    /// The publication is safe: what waits for nothing any more.
    fn release(&mut self, publication: Publication) -> Vec<Delivery> {
        for (waits_for, _) in &mut self.0 {
            if *waits_for == Some(publication) {
                *waits_for = None;
            }
        }
        self.flow()
    }

    /// The publication was refused: what was of it, and what waits for nothing any more.
    fn refuse(&mut self, publication: Publication) -> (Vec<Delivery>, Vec<Delivery>) {
        let (refused, kept) = self
            .0
            .drain(..)
            .partition::<VecDeque<_>, _>(|(waits_for, _)| *waits_for == Some(publication));
        self.0 = kept;
        (
            refused.into_iter().map(|(_, delivery)| delivery).collect(),
            self.flow(),
        )
    }

    fn flow(&mut self) -> Vec<Delivery> {
        let mut free = Vec::new();
        while let Some((None, _)) = self.0.front() {
            free.extend(self.0.pop_front().map(|(_, delivery)| delivery));
        }
        free
    }

    /// The first that is stored.
    pub(super) fn first(&self) -> Option<Seq> {
        self.0.iter().find_map(|(_, delivery)| delivery.seq)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes everything out: the session is over.
    pub(super) fn empty(&mut self) -> impl Iterator<Item = Delivery> + use<> {
        std::mem::take(&mut self.0)
            .into_iter()
            .map(|(_, delivery)| delivery)
    }
}

impl Office {
    /// Notes a delivery for a session that lasts, and numbers it. `publication` is what it waits for.
    pub(super) fn keep(
        &self,
        port: &Port,
        delivery: &mut Delivery,
        publication: Option<Publication>,
    ) -> Kept {
        let qos = delivery.message.qos.min(delivery.options.qos);
        let (Some(lasting), Some(storage)) = (port.lasting.get(), &self.tables().storage) else {
            return Kept::Nothing;
        };
        if qos == QoS::AtMostOnce || delivery.seq.is_some() {
            return Kept::Nothing;
        }
        if storage.condition() == Condition::Failing {
            return Kept::Refused;
        }
        let seq = lasting.next;
        port.lasting.set(Some(Lasting {
            next: seq.next(),
            ..lasting
        }));
        delivery.seq = Some(seq);
        let queued = Queued {
            message: delivery.message.clone(),
            subscription_ids: delivery.subscription_ids.clone(),
            qos,
            retain: delivery.sent_with_retain(),
            dup: delivery.dup,
        };
        let change = Change::Queued(lasting.no, seq, queued);
        match publication {
            Some(publication) => storage.note_of(publication, change),
            None => storage.note(change),
        }
        Kept::Noted
    }

    /// Puts a delivery that was kept into the inbox of its session, or into its pen.
    pub(super) fn hand_in(&self, port: &Rc<Port>, delivery: Delivery, publication: Option<Publication>) {
        if let Some(publication) = publication {
            let mut penned = self.penned.borrow_mut();
            let ports = penned.entry(publication).or_default();
            if !ports.iter().any(|known| Rc::ptr_eq(known, port)) {
                ports.push(port.clone());
            }
        }
        let free = port.pen.borrow_mut().hold(publication, delivery);
        if let Some(delivery) = free {
            port.push(delivery);
        }
    }

    /// A publication that was noted somewhere has been everywhere: it is answered once it is safe.
    pub(super) fn make_safe(&self, receipt: Receipt, kept: Kept) {
        let Some(storage) = &self.tables().storage else {
            return self.finish(receipt.slot, true);
        };
        let twice = self.receipts.borrow().exchange(receipt);
        if let Some(exchange) = twice {
            let change = exchange.map(|(no, packet_id)| Change::Received(no, packet_id));
            storage.seal(publication_of(receipt), change);
        }
        match kept {
            Kept::Refused => self.finish(receipt.slot, false),
            Kept::Nothing | Kept::Noted => {
                self.wait_for_store(storage.mark(), Gate::Publication(receipt.slot))
            }
        }
    }

    /// The publication in a slot of the receipts is safe, or is refused.
    fn finish(&self, slot: u32, safe: bool) {
        let Some(finished) = self.receipts.borrow_mut().finish(slot) else {
            return;
        };
        if finished.exactly_once {
            let receipt = Receipt {
                arbiter: self.me() as u16,
                slot,
            };
            let publication = publication_of(receipt);
            for arbiter in (0..u64::BITS as usize).filter(|arbiter| finished.noted_on >> arbiter & 1 == 1) {
                self.send(arbiter, Parcel::Finished { publication, safe });
            }
        }
        if safe {
            finished.answer();
        } else {
            finished.refuse(ReasonCode::QuotaExceeded);
        }
    }

    /// What a QoS 2 publication brought here may be delivered, or is not to be.
    pub(super) fn let_out(&self, publication: Publication, safe: bool) {
        for port in self.penned.borrow_mut().remove(&publication).unwrap_or_default() {
            let free = if safe {
                port.pen.borrow_mut().release(publication)
            } else {
                let (refused, free) = port.pen.borrow_mut().refuse(publication);
                self.unnote(&port, &refused);
                free
            };
            free.into_iter().for_each(|delivery| port.push(delivery));
        }
    }

    /// What was noted and never reached its session is not to be found again.
    fn unnote(&self, port: &Port, deliveries: &[Delivery]) {
        for delivery in deliveries {
            self.counters().dropped_store_failing.one();
            self.settle(port, delivery.seq);
        }
    }

    /// Its session has no more to do with a message that was kept for it.
    pub(super) fn settle(&self, port: &Port, seq: Option<Seq>) {
        if let (Some(lasting), Some(storage), Some(seq)) = (port.lasting.get(), &self.tables().storage, seq) {
            storage.note(Change::Settled(lasting.no, seq));
        }
    }

    /// Passes a gate at once, or when the store has reached the mark. While it fails nothing is promised.
    pub(super) fn wait_for_store(&self, mark: Mark, gate: Gate) {
        let Some(storage) = &self.tables().storage else {
            return self.pass(gate, true);
        };
        let first = self.gates.borrow().waiting.is_empty();
        if first && storage.committed() >= mark {
            return self.pass(gate, true);
        }
        if storage.condition() == Condition::Failing && !matches!(gate, Gate::Wake(_)) {
            return self.pass(gate, false);
        }
        self.gates.borrow_mut().waiting.push_back((mark, gate));
        if first {
            self.await_store();
        }
    }

    /// From now on the mailman is told when the store moves; looks whether it has moved just now.
    fn await_store(&self) {
        let Some(storage) = &self.tables().storage else {
            return;
        };
        self.tables().awaiting_store[self.me()].store(true, SeqCst);
        let gates = self.gates.borrow();
        let failing = storage.condition() == Condition::Failing;
        let front = gates.waiting.front().map(|(mark, _)| *mark);
        if failing != gates.failing || front.is_some_and(|mark| storage.committed() >= mark) {
            // Not from within what is waiting: the caller may hold something that a gate wants.
            let _ = self.tables().names.mailmen[self.me()].cast(StoreMoved);
        }
    }

    /// The store has moved: what waits for it goes on as far as it may.
    pub(super) fn look_at_store(&self) {
        let Some(storage) = &self.tables().storage else {
            return;
        };
        let failing = storage.condition() == Condition::Failing;
        let was_failing = std::mem::replace(&mut self.gates.borrow_mut().failing, failing);
        if failing && !was_failing {
            self.refuse_waiting();
        }
        loop {
            let committed = storage.committed();
            let next = {
                let gates = &mut self.gates.borrow_mut().waiting;
                let reached = gates.front().is_some_and(|(mark, _)| *mark <= committed);
                reached.then(|| gates.pop_front()).flatten()
            };
            let Some((_, gate)) = next else { break };
            self.pass(gate, true);
        }
        if !self.gates.borrow().waiting.is_empty() {
            self.await_store();
        }
    }

    /// The store fails: who waits is told so. Sessions see for themselves, and what of theirs cannot be
    /// refused waits on.
    fn refuse_waiting(&self) {
        let waiting = std::mem::take(&mut self.gates.borrow_mut().waiting);
        for (mark, gate) in waiting {
            if let Gate::Wake(port) = gate {
                port.wake.wake();
                let gate = Gate::Wake(port);
                self.gates.borrow_mut().waiting.push_back((mark, gate));
            } else {
                self.pass(gate, false);
            }
        }
    }

    fn pass(&self, gate: Gate, safe: bool) {
        match gate {
            Gate::Publication(slot) => self.finish(slot, safe),
            Gate::Wake(port) => port.wake.wake(),
        }
    }
}
