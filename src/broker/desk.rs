//! Where one filter's subscribers on one arbiter are kept, and the work of the Topic that sits there.
//!
//! The desk belongs to the office, not to the Topic: a Topic that crashes leaves its rows, its inbox
//! and even the entry in its hands behind, and its next life goes on at the row where the last one
//! fell. Over what two lives have fallen is poison: it is passed over and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bytestring::ByteString;

use super::mail::{Errand, FilterId, MESSAGE_OVERHEAD, Receipt};
use super::office::Office;
use super::port::{Port, Room, WakeSlot};
use super::router::{Joined, Left, Vacant};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{QoS, SubscriptionOptions};
use crate::session::event::Delivery;

/// Bytes undispatched at one desk before the publishers of its own arbiter pause; those of other
/// arbiters are bounded by their mail credit.
const DESK_BYTES_MAX: usize = 1 << 20;

/// Deliveries that a Topic makes in one poll before it lets its neighbours on.
const DELIVERIES_PER_POLL: usize = 8192;

/// Times an entry is begun before it counts as poison: once, and once again after a crash.
const ATTEMPTS_MAX: u8 = 2;

/// The members of a shared group on all arbiters of this node: how many each has, and whose turn it is.
#[derive(Debug)]
pub struct ShareGroup {
    members: Box<[AtomicU32]>,
    turn: AtomicU64,
}

impl ShareGroup {
    /// A group without members, on a node with so many arbiters.
    #[must_use]
    pub fn new(arbiters: usize) -> Self {
        Self {
            members: (0..arbiters).map(|_| AtomicU32::new(0)).collect(),
            turn: AtomicU64::new(0),
        }
    }

    /// The arbiter whose member is next: round robin over members, wherever they are. `None` when the
    /// group has no members.
    pub fn next_arbiter(&self) -> Option<usize> {
        let total: u32 = self.members.iter().map(|count| count.load(Relaxed)).sum();
        if total == 0 {
            return None;
        }
        let mut turn = (self.turn.fetch_add(1, Relaxed) % u64::from(total)) as u32;
        self.members.iter().position(|count| {
            let here = count.load(Relaxed);
            let found = turn < here;
            turn = turn.saturating_sub(here);
            found
        })
    }

    fn set(&self, arbiter: usize, count: usize) {
        self.members[arbiter].store(count as u32, Relaxed);
    }
}

/// One subscriber of the filter on this arbiter.
struct Row {
    port: Rc<Port>,
    options: SubscriptionOptions,
    subscription_identifier: Option<u32>,
}

/// Something for the Topic to do, in order.
pub(super) enum Entry {
    Message {
        message: Arc<Message>,
        receipt: Option<Receipt>,
        /// The arbiter that gets the mail credit back.
        from: u16,
    },
    Errand(Errand),
    /// A session is gone; its row is to be removed.
    Gone(Rc<Port>),
}

/// The desk of one filter on one arbiter.
pub(super) struct Desk {
    pub(super) id: FilterId,
    /// The whole filter, `$share/…` included.
    pub(super) filter: ByteString,
    share: Option<Arc<ShareGroup>>,
    /// Wakes the Topic.
    pub(super) wake: WakeSlot,
    inbox: RefCell<VecDeque<Entry>>,
    inbox_bytes: Cell<usize>,
    /// What the Topic has in its hands; survives its crash.
    current: RefCell<Option<Entry>>,
    attempts: Cell<u8>,
    /// The next row of `current`. Rows change only between entries, so it stays right.
    cursor: Cell<usize>,
    rows: RefCell<Vec<Row>>,
    /// Joins and leaves that were dispatched; the router compares it with what it sent.
    errands: Cell<u64>,
    /// Whether a Topic sits here.
    pub(super) seated: Cell<bool>,
    /// Ports that pause this desk.
    pub(super) blockers: Cell<u32>,
    /// Arbiters that mailed messages here: they are told when the desk pauses.
    pub(super) senders: Cell<u64>,
    /// Whose turn it is in a shared group.
    turn: Cell<usize>,
}

impl Desk {
    pub(super) fn new(id: FilterId, filter: ByteString, share: Option<Arc<ShareGroup>>) -> Rc<Self> {
        Rc::new(Self {
            id,
            filter,
            share,
            wake: WakeSlot::default(),
            inbox: RefCell::default(),
            inbox_bytes: Cell::new(0),
            current: RefCell::default(),
            attempts: Cell::new(0),
            cursor: Cell::new(0),
            rows: RefCell::default(),
            errands: Cell::new(0),
            seated: Cell::new(false),
            blockers: Cell::new(0),
            senders: Cell::new(0),
            turn: Cell::new(0),
        })
    }

    /// Puts an entry behind all others and wakes the Topic.
    pub(super) fn push(&self, entry: Entry) {
        if let Entry::Message { message, .. } = &entry {
            self.inbox_bytes
                .set(self.inbox_bytes.get() + message.weight() + MESSAGE_OVERHEAD);
        }
        self.inbox.borrow_mut().push_back(entry);
        self.wake.wake();
    }

    /// Whether who publishes to it must stop reading.
    pub(super) fn is_paused(&self) -> bool {
        self.blockers.get() > 0 || self.inbox_bytes.get() > DESK_BYTES_MAX
    }

    /// Subscribers here.
    pub(super) fn len(&self) -> usize {
        self.rows.borrow().len()
    }

    /// The Topic's work: one poll's worth of entries. True when there is more.
    pub(super) fn work(self: &Rc<Self>, office: &Rc<Office>) -> bool {
        let mut budget = DELIVERIES_PER_POLL;
        let full = self.inbox_bytes.get() > DESK_BYTES_MAX;
        let more = loop {
            if budget == 0 {
                break true;
            }
            if !self.take_up(office) {
                break false;
            }
            self.attempts.set(self.attempts.get() + 1);
            budget = budget.saturating_sub(self.do_current(office));
            self.put_away(office);
        };
        if full && !self.is_paused() {
            office.wake_waiters();
        }
        more
    }

    /// Takes the next entry in hand unless one is; false when there is none.
    fn take_up(&self, office: &Office) -> bool {
        if self.attempts.get() >= ATTEMPTS_MAX {
            self.give_up(office);
        }
        if self.current.borrow().is_some() {
            return true;
        }
        let mut inbox = self.inbox.borrow_mut();
        let next = inbox.pop_front();
        if next.is_none() && inbox.capacity() > 64 {
            *inbox = VecDeque::new();
        }
        let found = next.is_some();
        *self.current.borrow_mut() = next;
        found
    }

    /// Two lives fell over the entry in hand: its row is passed over if there are others behind it, else
    /// the entry is put away.
    fn give_up(&self, office: &Office) {
        tracing::error!(filter = %self.filter, "given up on something over which its Topic crashed twice");
        office.counters().dropped_poison.one();
        let next = self.cursor.get() + 1;
        let is_message = matches!(*self.current.borrow(), Some(Entry::Message { .. }));
        if is_message && self.share.is_none() && next < self.len() {
            self.attempts.set(0);
            self.cursor.set(next);
        } else {
            self.put_away(office);
        }
    }

    /// The entry in hand is done (or given up): receipts and credit go back.
    fn put_away(&self, office: &Office) {
        self.attempts.set(0);
        self.cursor.set(0);
        if let Some(Entry::Message {
            message,
            receipt,
            from,
        }) = self.current.take()
        {
            self.inbox_bytes.set(
                self.inbox_bytes
                    .get()
                    .saturating_sub(message.weight() + MESSAGE_OVERHEAD),
            );
            office.dispatched(receipt, from, &message);
        }
    }

    /// Does the entry in hand; returns what it cost in deliveries.
    fn do_current(self: &Rc<Self>, office: &Rc<Office>) -> usize {
        let current = self.current.borrow();
        match current.as_ref() {
            Some(Entry::Message { message, .. }) if self.share.is_some() => {
                self.dispatch_to_one(office, message);
                1
            }
            Some(Entry::Message { message, .. }) => self.dispatch_to_all(office, message),
            Some(Entry::Errand(errand)) => {
                self.run_errand(office, errand);
                1
            }
            Some(Entry::Gone(port)) => {
                self.remove(port);
                self.tell_if_vacant(office);
                1
            }
            None => 0,
        }
    }

    fn dispatch_to_all(self: &Rc<Self>, office: &Rc<Office>, message: &Arc<Message>) -> usize {
        let rows = self.rows.borrow();
        let first = self.cursor.get();
        for (position, row) in rows.iter().enumerate().skip(first) {
            self.cursor.set(position);
            self.deliver(office, row, message);
        }
        rows.len() - first.min(rows.len()) + 1
    }

    /// Shared subscription: exactly one member gets it, in turn `[MQTT-4.8.2-4]`.
    fn dispatch_to_one(self: &Rc<Self>, office: &Rc<Office>, message: &Arc<Message>) {
        let rows = self.rows.borrow();
        for _ in 0..rows.len() {
            let turn = self.turn.get() % rows.len();
            self.turn.set(turn + 1);
            if self.deliver(office, &rows[turn], message) {
                return;
            }
        }
        office.counters().dropped_no_member.one();
    }

    /// Hands a message to one session; false when it did not take it.
    fn deliver(self: &Rc<Self>, office: &Rc<Office>, row: &Row, message: &Arc<Message>) -> bool {
        #[cfg(test)]
        tests::fall_over(row, message);
        match row.port.room() {
            Room::Take => {}
            Room::Closed => return false,
            Room::Slow if message.qos.min(row.options.qos) == QoS::AtMostOnce => {
                office.counters().dropped_slow_consumer.one();
                return false;
            }
            Room::Slow => {}
            Room::Pause => office.pause(self, &row.port, Instant::now()),
        }
        row.port.push(Delivery {
            message: message.clone(),
            options: row.options,
            subscription_identifier: row.subscription_identifier,
            from_retained: false,
        });
        true
    }

    fn run_errand(self: &Rc<Self>, office: &Office, errand: &Errand) {
        let (router, filter, arbiter) = (&office.tables().names.router, self.id, office.me());
        match errand {
            Errand::Join {
                port,
                options,
                subscription_identifier,
                ticket,
            } => {
                self.errands.set(self.errands.get() + 1);
                if let Some(port) = office.port(*port) {
                    self.write(&port, *options, *subscription_identifier);
                }
                self.tell_members(office);
                // A router that is just restarting asks again; so does the session.
                let _ = router.cast(Joined {
                    filter,
                    arbiter,
                    ticket: *ticket,
                    rows: self.len(),
                });
            }
            Errand::Leave { port, ticket } => {
                self.errands.set(self.errands.get() + 1);
                let had = office.port(*port).is_some_and(|port| self.remove(&port));
                self.tell_members(office);
                let _ = router.cast(Left { ticket: *ticket, had });
            }
            Errand::Census(number) => {
                let _ = router.cast(super::router::Census {
                    number: *number,
                    filter,
                    arbiter,
                    errands: self.errands.get(),
                    rows: self.len(),
                });
            }
        }
        self.tell_if_vacant(office);
    }

    fn tell_members(&self, office: &Office) {
        if let Some(share) = &self.share {
            share.set(office.me(), self.len());
        }
    }

    fn tell_if_vacant(&self, office: &Office) {
        self.tell_members(office);
        if self.len() == 0 {
            let vacant = Vacant {
                filter: self.id,
                arbiter: office.me(),
                errands: self.errands.get(),
            };
            // Lost only while the router restarts, which begins with a census.
            let _ = office.tables().names.router.cast(vacant);
        }
    }

    /// Writes the row of a session, or replaces it.
    fn write(self: &Rc<Self>, port: &Rc<Port>, options: SubscriptionOptions, identifier: Option<u32>) {
        if port.is_closed() {
            return;
        }
        let mut rows = self.rows.borrow_mut();
        let known = port.rows.borrow().get(&self.id).map(|(_, position)| *position);
        let row = Row {
            port: port.clone(),
            options,
            subscription_identifier: identifier,
        };
        if let Some(position) = known {
            rows[position] = row;
        } else {
            port.rows.borrow_mut().insert(self.id, (self.clone(), rows.len()));
            rows.push(row);
        }
    }

    /// Removes the row of a session; false when it has none.
    fn remove(&self, port: &Rc<Port>) -> bool {
        let Some((_, position)) = port.rows.borrow_mut().remove(&self.id) else {
            return false;
        };
        let mut rows = self.rows.borrow_mut();
        rows.swap_remove(position);
        if let Some(moved) = rows.get(position)
            && let Some(entry) = moved.port.rows.borrow_mut().get_mut(&self.id)
        {
            entry.1 = position;
        }
        true
    }

    /// The router has ended the filter here: whatever is left counts as dispatched.
    pub(super) fn close(&self, office: &Office) {
        while self.current.borrow().is_some() || self.next() {
            self.put_away(office);
        }
        for row in self.rows.take() {
            row.port.rows.borrow_mut().remove(&self.id);
        }
        self.tell_members(office);
    }

    fn next(&self) -> bool {
        let next = self.inbox.borrow_mut().pop_front();
        let found = next.is_some();
        *self.current.borrow_mut() = next;
        found
    }
}

#[cfg(test)]
mod tests;
