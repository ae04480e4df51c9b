//! The office: what the actors of one arbiter share, without locks, because they never run at once.
//!
//! | held | written by | survives |
//! |---|---|---|
//! | desks: rows and inbox per filter | the filter's Topic here; publishers append | Topics |
//! | ports: mailbox per session | Topics; the session takes | nobody: a port ends with its session |
//! | outgoing and incoming mail | everyone here; the mailman carries it | the mailman |
//! | receipts of publications that wait | publishers here | — |
//! | matches: topic → where it goes | publishers here | — (a cache) |
//!
//! An office is opened by the mailman of its arbiter and belongs to the tables of one life of `core`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;

use super::counters::Counters;
use super::desk::{Desk, Entry};
use super::keeping::{Gates, Kept};
use super::mail::{Bundle, FilterId, Joint, MESSAGE_OVERHEAD, Parcel, PortId, Receipt, To};
use super::mailman::Collect;
use super::port::{Parting, Port, Sweep, WakeSlot};
use super::publish::{Forwards, Holds, Matches, Receipts};
use super::storage::Publication;
use super::tables::Tables;
use crate::limits::{MAIL_CREDIT_BYTES, SLOW_AFTER};
use crate::mqtt::message::Message;
use crate::session::event::Effect;

mod groups;
mod orphans;
mod tally;

pub use orphans::{Orphan, Orphans};

thread_local! {
    static HERE: RefCell<Option<Rc<Office>>> = const { RefCell::new(None) };
}

/// Mail that has been taken in is credited in steps of this size, so that credit rarely travels alone.
const CREDIT_STEP: usize = MAIL_CREDIT_BYTES / 16;

/// The office of one arbiter.
pub struct Office {
    me: usize,
    tables: Arc<Tables>,
    desks: RefCell<AHashMap<FilterId, Rc<Desk>>>,
    /// Counts how often a desk got its first row.
    desks_occupied: Cell<u64>,
    ports: RefCell<AHashMap<u64, Rc<Port>>>,
    ports_opened: Cell<u64>,
    /// Mail for each arbiter, gathered until the mailman's next poll.
    out: RefCell<Vec<Vec<Parcel>>>,
    /// Bytes mailed to each arbiter and not credited yet.
    uncredited: Vec<Cell<usize>>,
    /// Bytes dispatched for each arbiter and not told yet.
    credit: Vec<Cell<usize>>,
    /// Mail that was taken from the post box and not opened yet.
    incoming: RefCell<VecDeque<(u16, Parcel)>>,
    /// Filters that other arbiters have paused, and which.
    paused_elsewhere: RefCell<AHashMap<FilterId, u64>>,
    /// Publishers that hold their reading until something resumes.
    waiters: RefCell<Vec<Waker>>,
    /// Counts from 1 how often `waiters` was emptied.
    waiting_round: Cell<u64>,
    /// Ports that pause a desk: swept until they move or are slow.
    watched: RefCell<Vec<Rc<Port>>>,
    /// Ports of fallen sessions, and since when they wait.
    orphans: RefCell<Vec<(Rc<Port>, Instant)>>,
    /// Messages for other nodes, gathered until the mailman's next poll.
    pub(super) forwards: RefCell<Forwards>,
    pub(super) receipts: RefCell<Receipts>,
    /// What waits for the store.
    pub(super) gates: RefCell<Gates>,
    /// Sessions here that have something of a QoS 2 publication which is not safe.
    pub(super) penned: RefCell<AHashMap<Publication, Vec<Rc<Port>>>>,
    pub(super) matches: RefCell<Matches>,
    /// What one event of one session causes. Empty in between, kept for its room.
    pub(super) effects: RefCell<Vec<Effect>>,
    /// What the messages of other nodes wait for.
    pub(super) lane_holds: RefCell<Holds>,
    /// Wakes the mailman.
    pub(super) wake: WakeSlot,
}

impl Office {
    /// Opens the office of the arbiter that this runs on, or finds it if it is already open for these
    /// tables.
    pub fn open(tables: &Arc<Tables>, me: usize) -> Rc<Self> {
        if let Some(known) = Self::here().filter(|office| Arc::ptr_eq(&office.tables, tables)) {
            return known;
        }
        let count = tables.arbiters.all.len();
        let office = Rc::new(Self {
            me,
            tables: tables.clone(),
            desks: RefCell::default(),
            desks_occupied: Cell::new(0),
            ports: RefCell::default(),
            ports_opened: Cell::new(0),
            out: RefCell::new((0..count).map(|_| Vec::new()).collect()),
            uncredited: (0..count).map(|_| Cell::new(0)).collect(),
            credit: (0..count).map(|_| Cell::new(0)).collect(),
            incoming: RefCell::default(),
            paused_elsewhere: RefCell::default(),
            waiters: RefCell::default(),
            waiting_round: Cell::new(1),
            watched: RefCell::default(),
            forwards: RefCell::default(),
            receipts: RefCell::default(),
            gates: RefCell::default(),
            penned: RefCell::default(),
            orphans: RefCell::default(),
            matches: RefCell::default(),
            effects: RefCell::default(),
            lane_holds: RefCell::default(),
            wake: WakeSlot::default(),
        });
        HERE.with(|here| here.replace(Some(office.clone())))
            .inspect(|old| old.clear());
        office
    }

    /// The office of this arbiter; `None` where no mailman was started.
    #[must_use]
    pub fn here() -> Option<Rc<Self>> {
        // A thread that is ending has none: what it drops last still asks.
        HERE.try_with(|here| here.borrow().clone()).ok().flatten()
    }

    /// Index of this arbiter.
    #[must_use]
    pub fn me(&self) -> usize {
        self.me
    }

    /// The tables that this office belongs to.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The counters of this arbiter.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.tables.counters[self.me]
    }

    /// Desks and ports point at each other; an office that is replaced lets them go.
    fn clear(&self) {
        for port in self.ports.take().into_values() {
            port.close();
            port.rows.take();
            port.unblock();
        }
        self.desks.take();
        self.watched.take();
        self.orphans.take();
        self.wake_waiters();
    }

    // Desks.

    /// The desk of a filter, made if there is none.
    pub(super) fn desk(&self, id: FilterId, filter: &ByteString) -> Rc<Desk> {
        if let Some(desk) = self.desks.borrow().get(&id) {
            return desk.clone();
        }
        let share = self.tables.share_group(filter);
        if let Some(group) = &share {
            group.set_filter(id);
        }
        let desk = Desk::new(id, filter.clone(), share);
        self.desks.borrow_mut().insert(id, desk.clone());
        desk
    }

    /// The desk of a filter that has one.
    pub(super) fn known_desk(&self, id: FilterId) -> Option<Rc<Desk>> {
        self.desks.borrow().get(&id).cloned()
    }

    /// A number for a desk that gets its first row, greater than that of any other.
    pub(super) fn next_occupation(&self) -> u64 {
        let next = self.desks_occupied.get() + 1;
        self.desks_occupied.set(next);
        next
    }

    /// The desk that dispatches for several filters: the one that has had rows for longest. So messages of
    /// one topic keep their order when a filter is added, and [`Desk::hand_on`] sees to it when one goes.
    pub(super) fn lead(&self, joint: &Joint) -> Option<Rc<Desk>> {
        let desks = self.desks.borrow();
        let occupied = joint.iter().filter_map(|id| desks.get(id));
        let lead = occupied
            .filter(|desk| desk.len() > 0)
            .min_by_key(|desk| desk.since.get());
        lead.cloned()
    }

    /// The router has ended the filter's Topic here. If it has started another one since, the desk is in
    /// use again.
    fn close_desk(&self, id: FilterId) {
        let Some(desk) = self.known_desk(id).filter(|desk| !desk.seated.get()) else {
            return;
        };
        self.desks.borrow_mut().remove(&id);
        desk.close(self);
        self.tell_senders(&desk, || Parcel::Resume(id));
        self.wake_waiters();
    }

    // Ports.

    /// Opens the mailbox of a session.
    pub(super) fn open_port(&self, client_id: ByteString) -> Rc<Port> {
        let serial = self.ports_opened.get() + 1;
        self.ports_opened.set(serial);
        let port = Port::new(
            PortId {
                arbiter: self.me as u16,
                serial,
            },
            client_id,
        );
        self.ports.borrow_mut().insert(serial, port.clone());
        self.counters().sessions_opened.one();
        port
    }

    /// The mailbox with this serial, if its session lives.
    pub(super) fn port(&self, serial: u64) -> Option<Rc<Port>> {
        self.ports.borrow().get(&serial).cloned()
    }

    /// The session is over, however it ended: its rows go, and what it blocked goes on. What it has not taken
    /// is lost, but for what another member of a shared group may take.
    pub(super) fn close_port(&self, port: &Rc<Port>, parting: Parting) {
        if self.ports.borrow_mut().remove(&port.id.serial).is_none() {
            return;
        }
        self.counters().sessions_closed.one();
        let (desks, untaken) = port.close();
        for desk in desks {
            if desk.group().is_some() {
                // At once: what it leaves is for another member.
                desk.remove(port);
                desk.tell_members(self);
            }
            desk.push(Entry::Gone(port.clone()));
        }
        self.let_go(port);
        for delivery in untaken {
            match delivery.share {
                Some(share) => {
                    self.settle(port, delivery.seq);
                    self.pass_on(FilterId(share.get()), &delivery.message, delivery.dup);
                }
                None => parting.count(self.counters()).one(),
            }
        }
    }

    // Pauses.

    /// A full port pauses a desk: local publishers see it, those elsewhere are told.
    pub(super) fn pause(&self, desk: &Rc<Desk>, port: &Rc<Port>, now: Instant) {
        let was = desk.blockers.get();
        if port.block(desk, now) {
            self.watched.borrow_mut().push(port.clone());
            self.wake.wake();
        }
        if was == 0 && desk.blockers.get() > 0 {
            self.tell_senders(desk, || Parcel::Pause(desk.id));
        }
    }

    /// The port blocks nobody any more.
    pub(super) fn let_go(&self, port: &Port) {
        for desk in port.unblock().into_iter().filter(|desk| desk.blockers.get() == 0) {
            self.tell_senders(&desk, || Parcel::Resume(desk.id));
            self.wake_waiters();
        }
    }

    fn tell_senders(&self, desk: &Desk, parcel: impl Fn() -> Parcel) {
        for arbiter in (0..self.uncredited.len()).filter(|k| desk.senders.get() >> k & 1 == 1) {
            self.send(arbiter, parcel());
        }
    }

    /// Whether publishing to this filter is paused, here or elsewhere.
    pub(super) fn is_paused(&self, id: FilterId) -> bool {
        self.paused_elsewhere.borrow().contains_key(&id)
            || self.desks.borrow().get(&id).is_some_and(|desk| desk.is_paused())
    }

    /// Whether this arbiter has used up its mail credit with another.
    #[must_use]
    pub fn is_choked(&self) -> bool {
        self.uncredited
            .iter()
            .any(|bytes| bytes.get() > MAIL_CREDIT_BYTES)
    }

    /// Wakes this publisher when something resumes; it looks for itself what. `since` is the round in which
    /// it did so last, so that nobody looks for it among thousands; the present one is returned.
    pub(super) fn wait(&self, waker: &Waker, since: u64) -> u64 {
        let round = self.waiting_round.get();
        if since != round {
            self.waiters.borrow_mut().push(waker.clone());
            // The mailman sweeps as long as somebody waits: the queue of a link wakes nobody.
            self.wake.wake();
        }
        round
    }

    pub(super) fn wake_waiters(&self) {
        self.waiting_round.set(self.waiting_round.get() + 1);
        for waker in self.waiters.take() {
            waker.wake();
        }
    }

    /// Whether there is something to sweep.
    pub(super) fn must_sweep(&self) -> bool {
        !(self.watched.borrow().is_empty()
            && self.waiters.borrow().is_empty()
            && self.orphans.borrow().is_empty())
    }

    /// Finds out which full ports are slow. Waiters look again too: the queue of a link has no waker.
    pub(super) fn sweep(&self, now: Instant) {
        let mut slow = Vec::new();
        self.watched.borrow_mut().retain(|port| {
            let found = port.sweep(now, SLOW_AFTER);
            if matches!(found, Sweep::Slow) {
                slow.push(port.clone());
            }
            let keep = matches!(found, Sweep::Watch);
            port.watched.set(keep);
            keep
        });
        for port in slow {
            tracing::debug!(client = %port.client_id, "slow: QoS 0 to it is dropped until it reads");
            self.let_go(&port);
            port.wake.wake();
        }
        self.sweep_orphans(now);
        self.wake_waiters();
    }

    // Mail.

    /// Puts a parcel into the mail, or opens it at once if it is for this arbiter.
    pub(super) fn send(&self, arbiter: usize, parcel: Parcel) {
        if arbiter == self.me {
            return self.open_parcel(self.me as u16, parcel);
        }
        if let Parcel::Message { message, .. } = &parcel {
            let bytes = &self.uncredited[arbiter];
            bytes.set(bytes.get() + message.weight() + MESSAGE_OVERHEAD);
        }
        self.out.borrow_mut()[arbiter].push(parcel);
        self.wake.wake();
    }

    /// The mailman's round: everything gathered goes out, one bundle and at most one bell per arbiter.
    pub(super) fn send_out(&self) {
        for arbiter in 0..self.uncredited.len() {
            let parcels = std::mem::take(&mut self.out.borrow_mut()[arbiter]);
            if parcels.is_empty() {
                continue;
            }
            let bundle = Bundle {
                from: self.me as u16,
                parcels,
            };
            if self.tables.post[arbiter].put(bundle) {
                // A mailman that is just restarting opens its box when it starts.
                let _ = self.tables.names.mailmen[arbiter].cast(Collect);
            }
        }
        let ready = self.forwards.borrow_mut().take();
        ready.for_each(super::publish::hand_over);
    }

    /// The bell has rung: takes in and opens all mail.
    pub(super) fn collect(&self) {
        for bundle in self.tables.post[self.me].take() {
            let parcels = bundle.parcels.into_iter().map(|parcel| (bundle.from, parcel));
            self.incoming.borrow_mut().extend(parcels);
        }
        loop {
            let Some((from, parcel)) = self.incoming.borrow_mut().pop_front() else {
                break;
            };
            self.open_parcel(from, parcel);
        }
        let mut incoming = self.incoming.borrow_mut();
        if incoming.capacity() > 1024 {
            *incoming = VecDeque::new();
        }
    }

    pub(super) fn open_parcel(&self, from: u16, parcel: Parcel) {
        match parcel {
            Parcel::Message {
                filter,
                to,
                message,
                receipt,
            } => {
                let desk = match &to {
                    To::All | To::Member(_) => self.known_desk(filter),
                    To::Joint(joint) => self.lead(joint),
                };
                let Some(desk) = desk else {
                    return self.find_no_desk(filter, &to, &message, receipt, from);
                };
                self.note_sender(&desk, from);
                desk.push(Entry::Message {
                    message,
                    to,
                    receipt,
                    from,
                });
            }
            Parcel::Errand(errand) => {
                let (id, filter, errand) = *errand;
                self.desk(id, &filter).push(Entry::Errand(errand));
            }
            Parcel::Taken(receipt, kept) => self.complete(receipt, kept, from),
            Parcel::Finished { publication, safe } => self.let_out(publication, safe),
            Parcel::Vacated(id) => self.close_desk(id),
            Parcel::Pause(id) => {
                *self.paused_elsewhere.borrow_mut().entry(id).or_default() |= 1 << from;
            }
            Parcel::Resume(id) => {
                let mut paused = self.paused_elsewhere.borrow_mut();
                if let Some(mask) = paused.get_mut(&id) {
                    *mask &= !(1 << from);
                    if *mask == 0 {
                        paused.remove(&id);
                    }
                }
                drop(paused);
                self.wake_waiters();
            }
            Parcel::Credit(bytes) => {
                let uncredited = &self.uncredited[usize::from(from)];
                uncredited.set(uncredited.get().saturating_sub(bytes));
                if !self.is_choked() {
                    self.wake_waiters();
                }
            }
        }
    }

    /// Another arbiter publishes to a desk here: from now on it hears of pauses, also of a present one.
    fn note_sender(&self, desk: &Desk, from: u16) {
        let (mask, known) = (1 << from, desk.senders.get());
        if usize::from(from) != self.me && known & mask == 0 {
            desk.senders.set(known | mask);
            if desk.blockers.get() > 0 {
                self.send(from.into(), Parcel::Pause(desk.id));
            }
        }
    }

    /// A message that came from arbiter `from` has been dispatched here: its receipt and its mail
    /// credit go back.
    pub(super) fn dispatched(&self, receipt: Option<Receipt>, kept: Kept, from: u16, message: &Message) {
        if let Some(receipt) = receipt {
            self.send(receipt.arbiter.into(), Parcel::Taken(receipt, kept));
        }
        let from = usize::from(from);
        if from != self.me {
            let credit = self.credit[from].get() + message.weight() + MESSAGE_OVERHEAD;
            self.credit[from].set(credit);
            if credit >= CREDIT_STEP {
                self.credit[from].set(0);
                self.send(from, Parcel::Credit(credit));
            }
        }
    }
}
