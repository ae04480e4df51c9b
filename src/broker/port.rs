//! The mailbox of one session in the office of its arbiter.
//!
//! Topics push deliveries into it and receipts come back through it; the session takes both when it is
//! polled. Nothing here crosses a thread. The port also carries the session's weight: what lies in
//! its inbox and its outbox together is bounded, and a Topic that meets a full port pauses.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;

use super::counters::{Count, Counters};
use super::desk::Desk;
use super::keeping::{Lasting, Pen};
use super::mail::{FilterId, PortId};
use crate::limits::OUTBOX_BYTES_MAX;
use crate::mqtt::message::Message;
use crate::session::event::{Delivery, PublishOutcome, PublishToken};
use crate::session::lasting::Seq;

/// Wakes an actor's future at most once between two of its polls.
#[derive(Debug, Default)]
pub(super) struct WakeSlot {
    waker: RefCell<Option<Waker>>,
    dirty: Cell<bool>,
}

impl WakeSlot {
    /// There is work: wakes the future unless it has been told already.
    pub(super) fn wake(&self) {
        if !self.dirty.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Called at the start of a poll: later wakes reach this future. Returns whether there was work.
    pub(super) fn register(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.dirty.replace(false)
    }
}

/// The mailbox of one session. Closed when the session ends, however it ends.
pub(super) struct Port {
    /// Its name.
    pub(super) id: PortId,
    /// The session's client id.
    pub(super) client_id: ByteString,
    /// Wakes the session.
    pub(super) wake: WakeSlot,
    /// Deliveries that the session has not taken yet.
    pub(super) inbox: RefCell<VecDeque<Delivery>>,
    /// Publications of the session that the broker has taken.
    pub(super) taken: RefCell<Vec<(PublishToken, PublishOutcome)>>,
    /// Weight of `inbox`.
    inbox_bytes: Cell<usize>,
    /// Weight of what the session has not written yet: its outbox and its queue.
    outbox_bytes: Cell<usize>,
    /// The outbox was full and made no progress: QoS 0 is dropped until it has room.
    slow: Cell<bool>,
    /// Whether deliveries stay in the inbox until the client has taken more.
    backed_up: Cell<bool>,
    /// Set once: no delivery is taken any more.
    closed: Cell<bool>,
    /// Its session has fallen and comes back from the store: deliveries wait.
    orphaned: Cell<bool>,
    /// Whether the session has a connection.
    online: Cell<bool>,
    /// How many of `rows` are of shared groups.
    shared: Cell<u32>,
    /// Since when Topics have been paused by this port.
    since: Cell<Option<Instant>>,
    /// Whether bytes were written since the last sweep.
    moved: Cell<bool>,
    /// Whether the office's sweep watches this port.
    pub(super) watched: Cell<bool>,
    /// The desks that this port pauses.
    blocks: RefCell<Vec<Rc<Desk>>>,
    /// Of a session that outlasts the process: its place in the store.
    pub(super) lasting: Cell<Option<Lasting>>,
    /// Its messages that are not safe yet.
    pub(super) pen: RefCell<Pen>,
    /// The rows of this session: the desk and the position in it. Written by the desk's Topic.
    pub(super) rows: RefCell<AHashMap<FilterId, (Rc<Desk>, usize)>>,
}

/// Bookkeeping that each waiting delivery costs beside its message's bytes. Not the shared message itself,
/// which the desk has counted: one receiver of many publishers would pause them after a few hundred.
const DELIVERY_OVERHEAD: usize = 64;

/// Longest message, in bytes, of which a waiting delivery has its own copy.
const DETACHED_MAX: usize = 4 << 10;

/// How a session leaves its port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parting {
    /// It is over, or begins anew, in good order.
    Ended,
    /// It fell.
    Crashed,
    /// It fell, and what it had is in the store.
    Stored,
}

impl Parting {
    /// Where copies are counted that were lost with it.
    pub(super) fn count(self, counters: &Counters) -> &Count {
        match self {
            Self::Ended => &counters.dropped_session_ended,
            Self::Crashed => &counters.dropped_session_crashed,
            Self::Stored => &counters.left_in_store,
        }
    }
}

/// What a port says to a delivery.
pub(super) enum Room {
    /// There is room, or the delivery must be taken anyway.
    Take,
    /// It is full: the desk is paused, the delivery is taken.
    Pause,
    /// It is slow: QoS 0 is not taken.
    Slow,
    /// The session is gone.
    Closed,
}

impl Port {
    pub(super) fn new(id: PortId, client_id: ByteString) -> Rc<Self> {
        Rc::new(Self {
            id,
            client_id,
            wake: WakeSlot::default(),
            inbox: RefCell::default(),
            taken: RefCell::default(),
            inbox_bytes: Cell::new(0),
            outbox_bytes: Cell::new(0),
            slow: Cell::new(false),
            backed_up: Cell::new(false),
            closed: Cell::new(false),
            orphaned: Cell::new(false),
            online: Cell::new(false),
            shared: Cell::new(0),
            since: Cell::new(None),
            moved: Cell::new(false),
            watched: Cell::new(false),
            blocks: RefCell::default(),
            lasting: Cell::new(None),
            pen: RefCell::default(),
            rows: RefCell::default(),
        })
    }

    /// Whether the port takes another delivery.
    pub(super) fn room(&self) -> Room {
        if self.closed.get() {
            Room::Closed
        } else if self.weight() <= OUTBOX_BYTES_MAX {
            Room::Take
        } else if self.slow.get() {
            Room::Slow
        } else {
            Room::Pause
        }
    }

    /// Puts a delivery into the inbox and wakes the session.
    pub(super) fn push(&self, mut delivery: Delivery) {
        // It will wait: a short message is a range of a read of up to 32 KiB and would keep that alive.
        if self.backed_up.get() && delivery.message.weight() <= DETACHED_MAX {
            delivery.message = Arc::new(delivery.message.detached());
        }
        self.inbox_bytes
            .set(self.inbox_bytes.get() + delivery_weight(&delivery));
        self.inbox.borrow_mut().push_back(delivery);
        self.wake.wake();
    }

    /// A publication of the session was answered for.
    pub(super) fn published(&self, token: PublishToken, outcome: PublishOutcome) {
        if !self.is_closed() && !self.is_orphaned() {
            self.taken.borrow_mut().push((token, outcome));
            self.wake.wake();
        }
    }

    /// Takes the oldest delivery.
    pub(super) fn pop(&self) -> Option<Delivery> {
        let mut inbox = self.inbox.borrow_mut();
        let delivery = inbox.pop_front();
        match &delivery {
            Some(delivery) => {
                self.inbox_bytes
                    .set(self.inbox_bytes.get().saturating_sub(delivery_weight(delivery)));
            }
            // An idle session holds no memory for deliveries that may never come again.
            None if inbox.capacity() > 0 => *inbox = VecDeque::new(),
            None => {}
        }
        delivery
    }

    /// Tells the weight of what the session holds back, whether bytes were written, and whether the session
    /// leaves deliveries in the inbox.
    pub(super) fn set_outbox(&self, bytes: usize, moved: bool, backed_up: bool) {
        self.backed_up.set(backed_up);
        self.outbox_bytes.set(bytes);
        if moved {
            self.moved.set(true);
        }
    }

    /// Bytes in inbox and outbox.
    pub(super) fn weight(&self) -> usize {
        self.inbox_bytes.get() + self.outbox_bytes.get()
    }

    /// Whether the outbox made no progress while it was full.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// Whether the session is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether the session has fallen.
    pub(super) fn is_orphaned(&self) -> bool {
        self.orphaned.get()
    }

    /// The session has fallen: what it has not taken stays, and more may come. Who publishes in its name does
    /// not.
    pub(super) fn leave_behind(&self) {
        self.orphaned.set(true);
        self.taken.take();
        self.outbox_bytes.set(0);
        self.slow.set(false);
        self.backed_up.set(false);
    }

    /// The first stored message that was not taken.
    pub(super) fn first_untaken(&self) -> Option<Seq> {
        let inbox = self.inbox.borrow();
        let first = inbox.iter().find_map(|delivery| delivery.seq);
        first.or_else(|| self.pen.borrow().first())
    }

    /// Takes over all that the port of a fallen session has.
    pub(super) fn inherit(self: &Rc<Self>, old: &Self) {
        self.lasting.set(old.lasting.take());
        self.inbox.replace(old.inbox.take());
        self.inbox_bytes.set(old.inbox_bytes.take());
        self.pen.replace(old.pen.take());
        self.shared.set(old.shared.take());
        let rows = old.rows.take();
        for (desk, position) in rows.values() {
            desk.reseat(*position, self);
        }
        self.rows.replace(rows);
        old.closed.set(true);
    }

    /// Whether the session has a connection.
    pub(super) fn is_online(&self) -> bool {
        self.online.get()
    }

    /// The connection came or went. The shared groups that must hear of it.
    pub(super) fn set_online(&self, online: bool) -> Vec<Rc<Desk>> {
        if self.online.replace(online) == online {
            return Vec::new();
        }
        self.shared_desks()
    }

    /// The shared groups that the session is a member of.
    pub(super) fn shared_desks(&self) -> Vec<Rc<Desk>> {
        if self.shared.get() == 0 {
            return Vec::new();
        }
        let rows = self.rows.borrow();
        let desks = rows.values().map(|(desk, _)| desk);
        desks.filter(|desk| desk.group().is_some()).cloned().collect()
    }

    /// Whether there are deliveries that the session has not taken, or may not yet.
    pub(super) fn holds_deliveries(&self) -> bool {
        !self.inbox.borrow().is_empty() || self.pen.borrow().len() > 0
    }

    /// Takes out of the inbox what came as a member of this shared group.
    pub(super) fn take_shared(&self, share: NonZeroU64) -> Vec<Delivery> {
        let mut inbox = self.inbox.borrow_mut();
        let mut taken = Vec::new();
        for _ in 0..inbox.len() {
            match inbox.pop_front() {
                Some(delivery) if delivery.share == Some(share) => taken.push(delivery),
                Some(delivery) => inbox.push_back(delivery),
                None => break,
            }
        }
        let bytes: usize = taken.iter().map(delivery_weight).sum();
        self.inbox_bytes.set(self.inbox_bytes.get().saturating_sub(bytes));
        taken
    }

    /// Drops from the inbox what the session has from elsewhere: as many of each as there are. How many, and
    /// the places of those that were kept.
    pub(super) fn drop_twins(&self, elsewhere: &[Arc<Message>]) -> (u64, Vec<Seq>) {
        let mut twins: Vec<&Arc<Message>> = elsewhere.iter().collect();
        twins.sort_unstable_by(|one, other| identity(one).cmp(&identity(other)));
        let mut had = vec![false; twins.len()];
        let mut kept = Vec::new();
        self.inbox.borrow_mut().retain(|delivery| {
            let wanted = identity(&delivery.message);
            let from = twins.partition_point(|twin| identity(twin) < wanted);
            let twin = (from..twins.len())
                .take_while(|at| identity(twins[*at]) == wanted)
                .find(|at| !had[*at]);
            let Some(twin) = twin else { return true };
            had[twin] = true;
            kept.extend(delivery.seq);
            let bytes = self.inbox_bytes.get();
            self.inbox_bytes
                .set(bytes.saturating_sub(delivery_weight(delivery)));
            false
        });
        (had.iter().filter(|had| **had).count() as u64, kept)
    }

    /// A row of a shared group came or went.
    pub(super) fn count_shared(&self, came: bool) {
        let count = self.shared.get();
        self.shared
            .set(if came { count + 1 } else { count.saturating_sub(1) });
    }

    /// Pauses `desk`; true when the office's sweep must watch this port from now on.
    pub(super) fn block(&self, desk: &Rc<Desk>, now: Instant) -> bool {
        if self.since.get().is_none() {
            self.since.set(Some(now));
            self.moved.set(false);
        }
        let mut blocks = self.blocks.borrow_mut();
        if !blocks.iter().any(|known| Rc::ptr_eq(known, desk)) {
            blocks.push(desk.clone());
            desk.blockers.set(desk.blockers.get() + 1);
        }
        !self.watched.replace(true)
    }

    /// The desks that this port paused and now lets go.
    pub(super) fn unblock(&self) -> Vec<Rc<Desk>> {
        self.since.set(None);
        let desks = self.blocks.take();
        for desk in &desks {
            desk.blockers.set(desk.blockers.get() - 1);
        }
        desks
    }

    /// Whether there is room enough to let paused desks go (a quarter, so that it does not flap).
    pub(super) fn has_drained(&self) -> bool {
        let held = self.slow.get() || self.since.get().is_some();
        held && self.weight() < OUTBOX_BYTES_MAX / 4
    }

    /// The outbox has room again.
    pub(super) fn not_slow(&self) {
        self.slow.set(false);
    }

    /// One sweep of the office: true when the port has made no progress for long enough to be slow.
    pub(super) fn sweep(&self, now: Instant, slow_after: std::time::Duration) -> Sweep {
        match self.since.get() {
            None => Sweep::Forget,
            // Whoever waits for it waits until it is back, or given up.
            Some(_) if self.is_orphaned() => Sweep::Watch,
            Some(since) if now.saturating_duration_since(since) >= slow_after => {
                if self.moved.replace(false) {
                    Sweep::Watch
                } else {
                    self.slow.set(true);
                    Sweep::Slow
                }
            }
            Some(_) => Sweep::Watch,
        }
    }

    /// The session is gone: nothing is taken any more, the rows are to be purged by their Topics. With what
    /// it has not taken.
    pub(super) fn close(&self) -> (Vec<Rc<Desk>>, Vec<Delivery>) {
        self.closed.set(true);
        let mut untaken = self.inbox.take();
        untaken.extend(self.pen.borrow_mut().empty());
        self.taken.take();
        self.inbox_bytes.set(0);
        self.outbox_bytes.set(0);
        let desks = self.rows.borrow();
        let desks = desks.values().map(|(desk, _)| desk.clone()).collect();
        (desks, untaken.into())
    }
}

/// What a sweep found.
pub(super) enum Sweep {
    /// It blocks nobody.
    Forget,
    /// It blocks somebody and still moves.
    Watch,
    /// It has become slow.
    Slow,
}

/// What two copies of a message that came on different ways have in common.
fn identity(message: &Message) -> (&str, &str, &[u8], &[u8]) {
    (
        &message.publisher,
        &message.topic,
        &message.payload,
        &message.pass_through,
    )
}

fn delivery_weight(delivery: &Delivery) -> usize {
    delivery.message.weight() + DELIVERY_OVERHEAD
}
