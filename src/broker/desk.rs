//! Where one filter's subscribers on one arbiter are kept, and the work of the Topic that sits there.
//!
//! The desk belongs to the office, not to the Topic: a Topic that crashes leaves its rows, its inbox
//! and even the entry in its hands behind, and its next life goes on at the row where the last one
//! fell. Over what two lives have fallen is poison: it is passed over and counted.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytestring::ByteString;

use self::rows::Row;
use super::keeping::{Kept, publication_of};
use super::mail::{Errand, FilterId, MESSAGE_OVERHEAD, Parcel, Receipt, To};
use super::office::Office;
use super::port::{Port, WakeSlot};
use super::router::{Joined, Left, Vacant};
use super::storage::Publication;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;

mod group;
mod members;
mod rows;

pub(super) use self::group::mixed;
pub use self::group::{ShareGroup, ShareStrategy, Sharing};
pub(super) use self::members::HOPS_MAX;
use self::members::Onward;
pub use self::members::Turn;

/// Bytes undispatched at one desk before the publishers of its own arbiter pause; those of other
/// arbiters are bounded by their mail credit.
const DESK_BYTES_MAX: usize = 1 << 20;

/// Deliveries that a Topic makes in one poll before it lets its neighbours on.
const DELIVERIES_PER_POLL: usize = 8192;

/// Times an entry is begun before it counts as poison: once, and once again after a crash.
const ATTEMPTS_MAX: u8 = 2;

/// Something for the Topic to do, in order.
pub(super) enum Entry {
    Message {
        message: Arc<Message>,
        to: To,
        receipt: Option<Receipt>,
        /// The arbiter that gets the mail credit back.
        from: u16,
    },
    Errand(Errand),
    /// A session is gone; its row is to be removed.
    Gone(Rc<Port>),
}

impl Entry {
    /// The QoS 2 publication that somebody waits for.
    fn publication(&self) -> Option<Publication> {
        match self {
            Self::Message { message, receipt, .. } if message.qos == QoS::ExactlyOnce => {
                receipt.map(publication_of)
            }
            _ => None,
        }
    }
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
    /// Counts the changes of `rows`.
    changes: Cell<u64>,
    /// The changes of all desks of a joint `current` when it was begun.
    seen_changes: Cell<u64>,
    /// When the first row came ([`Office::next_occupation`]).
    pub(super) since: Cell<u64>,
    /// Joins and leaves that were dispatched; the router compares it with what it sent.
    errands: Cell<u64>,
    /// Whether a Topic sits here.
    pub(super) seated: Cell<bool>,
    /// Ports that pause this desk.
    pub(super) blockers: Cell<u32>,
    /// Arbiters that mailed messages here: they are told when the desk pauses.
    pub(super) senders: Cell<u64>,
    /// Of a shared group: how many rows have a connection. They lie before the others.
    online: Cell<usize>,
    /// Where `current` is sent on to, because nobody of its group is here.
    goes_on: Cell<Option<Onward>>,
    /// What has become of the entry in hand at sessions that last.
    kept: Cell<Kept>,
    /// The QoS 2 publication that the entry in hand is of.
    publication: Cell<Option<Publication>>,
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
            changes: Cell::new(0),
            seen_changes: Cell::new(0),
            since: Cell::new(0),
            errands: Cell::new(0),
            seated: Cell::new(false),
            blockers: Cell::new(0),
            senders: Cell::new(0),
            online: Cell::new(0),
            goes_on: Cell::new(None),
            kept: Cell::default(),
            publication: Cell::new(None),
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
        let next = self.cursor.get() + 1;
        let rows = match &*self.current.borrow() {
            Some(Entry::Message { to, .. }) => {
                // The copy that was about to be offered.
                office.counters().offered.one();
                office.counters().dropped_poison.one();
                self.rows_of(office, to)
            }
            _ => 0,
        };
        if next < rows {
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
            to,
            receipt,
            from,
        }) = self.current.take()
        {
            let mut receipt = receipt;
            match (self.goes_on.take(), to) {
                (Some(onward), To::Member(turn)) => {
                    self.send_on(office, onward, &message, receipt.take(), turn);
                }
                _ => office.counters().topic_entries_done.one(),
            }
            self.inbox_bytes.set(
                self.inbox_bytes
                    .get()
                    .saturating_sub(message.weight() + MESSAGE_OVERHEAD),
            );
            office.dispatched(receipt, self.kept.take(), from, &message);
        }
    }

    /// Does the entry in hand; returns what it cost in deliveries.
    fn do_current(self: &Rc<Self>, office: &Rc<Office>) -> usize {
        let current = self.current.borrow();
        self.publication
            .set(current.as_ref().and_then(Entry::publication));
        match current.as_ref() {
            Some(Entry::Message { message, to, .. }) => match (to, &self.share) {
                (To::Member(turn), Some(group)) => {
                    let on = self.dispatch_to_one(office, group, message, *turn);
                    self.goes_on.set(on);
                    1
                }
                (To::Joint(joint), _) => self.dispatch_jointly(office, message, joint),
                _ => self.dispatch_to_all(office, message),
            },
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
                    self.write(office, &port, *options, *subscription_identifier);
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
            self.hand_on(office);
        }
    }

    /// Nobody is left here: what is for other filters too goes to their desks, in order and before what is
    /// published from now on.
    fn hand_on(&self, office: &Office) {
        let mut inbox = self.inbox.borrow_mut();
        let is_joint = |entry: &Entry| matches!(entry, Entry::Message { to: To::Joint(_), .. });
        if !inbox.iter().any(is_joint) {
            return;
        }
        let (joint, own): (VecDeque<_>, _) = inbox.drain(..).partition(is_joint);
        *inbox = own;
        drop(inbox);
        for entry in joint {
            if let Entry::Message {
                message,
                to,
                receipt,
                from,
            } = entry
            {
                let bytes = message.weight() + MESSAGE_OVERHEAD;
                self.inbox_bytes.set(self.inbox_bytes.get().saturating_sub(bytes));
                let parcel = Parcel::Message {
                    filter: self.id,
                    to,
                    message,
                    receipt,
                };
                office.open_parcel(from, parcel);
            }
        }
    }

    /// The router has ended the filter here: whatever is left counts as dispatched, but
    /// what is for a shared group goes to who has members of it.
    pub(super) fn close(&self, office: &Office) {
        while self.current.borrow().is_some() || self.next() {
            let is_shared = matches!(
                &*self.current.borrow(),
                Some(Entry::Message {
                    to: To::Member(_),
                    ..
                })
            );
            if is_shared {
                self.goes_on.set(Some(Onward::Heirs));
            }
            self.put_away(office);
        }
        for row in self.rows.take() {
            row.port.rows.borrow_mut().remove(&self.id);
        }
        self.online.set(0);
        self.tell_members(office);
    }

    /// Messages in its inbox and in the hands of its Topic.
    pub(super) fn waiting_len(&self) -> usize {
        let is_message = |entry: &&Entry| matches!(entry, Entry::Message { .. });
        let (inbox, current) = (self.inbox.borrow(), self.current.borrow());
        inbox.iter().chain(current.as_ref()).filter(is_message).count()
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
