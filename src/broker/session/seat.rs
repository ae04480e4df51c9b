//! The seat of a session: its port in the office, and the books of what was offered to it. It outlives a
//! value that a panic has torn, so it can tell what was lost with it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::access::rights::Rights;
use crate::broker::counters::Count;
use crate::broker::links::WillNews;
use crate::broker::office::Office;
use crate::broker::poison::Fingerprint;
use crate::broker::port::{Parting, Port};
use crate::broker::wills;
use crate::mqtt::packet::Will;
use crate::session::event::Counted;

/// The session's port. Dropping it releases the port, also when the session was torn by a panic: what it
/// blocked goes on, its rows are removed, the will of a client that was attached is published, and what was
/// in its hands is counted.
pub(super) struct PortSeat {
    pub(super) office: Rc<Office>,
    pub(super) port: Rc<Port>,
    /// The will as long as the value has not decided about it.
    pub(super) will: Option<Arc<Will>>,
    /// What the client may do; `None` is everything.
    pub(super) rights: Option<Box<Rights>>,
    /// The packet that is being handled. Still there when the seat is dropped: it tore the session.
    pub(super) in_hand: Option<Fingerprint>,
    /// Subscriptions, queued messages and those in flight as they stand in the counters of this arbiter.
    held: Cell<(u32, u32, u32)>,
    /// Copies that the session has taken from its port or from elsewhere, and that have not come to their
    /// end. Between two events it is what the value holds.
    open: Cell<u64>,
    /// Whether it is not yet told what becomes of the PUBLISH in hand.
    publishing: Cell<bool>,
    /// It was stopped in good order: what it holds is not passed on.
    pub(super) stopped: bool,
}

impl PortSeat {
    pub(super) fn new(office: Rc<Office>, port: Rc<Port>) -> Self {
        Self {
            office,
            port,
            will: None,
            rights: None,
            in_hand: None,
            held: Cell::default(),
            open: Cell::default(),
            publishing: Cell::default(),
            stopped: false,
        }
    }

    /// Brings the counters of this arbiter up to what the session holds now.
    pub(super) fn tell_held(&self, subscriptions: usize, queued: usize, inflight: usize) {
        let now = (subscriptions as u32, queued as u32, inflight as u32);
        let before = self.held.replace(now);
        if now != before {
            let counters = self.office.counters();
            let moved = |count: &Count, before: u32, now: u32| count.moved(before.into(), now.into());
            moved(&counters.held_subscriptions, before.0, now.0);
            moved(&counters.held_messages, before.1, now.1);
            moved(&counters.held_inflight, before.2, now.2);
        }
    }

    /// Counts what the value told.
    pub(super) fn count(&self, counted: Counted) {
        self.office.counters().count(counted);
        match counted.copies() {
            1 => self.take_up(),
            -1 => self.put_down(),
            _ if counted.is_of_publish() => self.published(),
            _ => {}
        }
    }

    /// A copy was taken in hand.
    pub(super) fn take_up(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// A copy has come to its end, whichever was counted.
    pub(super) fn put_down(&self) {
        debug_assert!(self.open.get() > 0, "more ends than copies");
        self.open.set(self.open.get().wrapping_sub(1));
    }

    /// The same of one that is found in what is left of a torn session. It may have come to an end before:
    /// then this is one copy more.
    pub(super) fn put_down_torn(&self) {
        match self.open.get().checked_sub(1) {
            Some(left) => self.open.set(left),
            None => self.office.counters().offered.one(),
        }
    }

    /// A PUBLISH has come.
    pub(super) fn publishing(&self) {
        self.office.counters().received.one();
        self.publishing.set(true);
    }

    /// It was counted what became of it.
    pub(super) fn published(&self) {
        self.publishing.set(false);
    }
}

impl Drop for PortSeat {
    fn drop(&mut self) {
        self.tell_held(0, 0, 0);
        let counters = self.office.counters();
        // One that has ended holds nothing; were it otherwise, the audit is to tell.
        let parting = if self.stopped {
            Parting::Ended
        } else if self.port.lasting.get().is_some() {
            Parting::Stored
        } else {
            Parting::Crashed
        };
        if !self.port.is_closed() {
            parting.count(counters).add(self.open.take());
        }
        if self.publishing.take() {
            counters.dropped_publisher_crashed.one();
        }
        match parting {
            Parting::Stored => self.office.leave_behind(&self.port),
            _ => self.office.close_port(&self.port, parting),
        }
        if let Some(packet) = self.in_hand {
            let poison = &self.office.tables().poison;
            poison.crashed(&self.port.client_id, packet, Instant::now());
        }
        if let Some(will) = self.will.take()
            && self.allows_will(&will)
        {
            wills::tell(self.office.tables(), &self.port.client_id, WillNews::Over);
            wills::publish_now(&self.office, &self.port.client_id, will, Instant::now());
        }
    }
}
