//! What came: how much of it, and whether anything came twice, out of order, or never.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

/// What one sender waits for before it sends on.
#[derive(Default)]
pub(crate) struct Awaited {
    /// Deliveries of its messages to all of its receivers, each counted once.
    pub(crate) came: Cell<u64>,
    /// The bell rings when `came` gets here.
    pub(crate) target: Cell<u64>,
    pub(crate) bell: Notify,
}

/// What one client has received.
#[derive(Default)]
pub(crate) struct Tally {
    /// Deliveries, whatever they were.
    pub(crate) delivered: Cell<u64>,
    /// Publications that the broker has acknowledged.
    pub(crate) acked: Cell<u64>,
    pub(crate) duplicates: Cell<u64>,
    pub(crate) disorder: Cell<u64>,
    /// Payloads that nobody here has sent.
    pub(crate) strange: Cell<u64>,
    senders: Rc<[Awaited]>,
    seen: RefCell<Vec<Seen>>,
}

/// What one receiver has seen of one sender.
#[derive(Clone, Default)]
struct Seen {
    next: u64,
    /// Ranges below `next` that were passed over.
    missing: Vec<(u64, u64)>,
}

impl Tally {
    pub(crate) fn new(senders: &Rc<[Awaited]>) -> Self {
        Self {
            senders: senders.clone(),
            seen: RefCell::new(vec![Seen::default(); senders.len()]),
            ..Self::default()
        }
    }

    /// Notes one payload.
    pub(crate) fn note(&self, payload: &[u8]) {
        add(&self.delivered);
        let parsed = payload.split_first_chunk::<4>().and_then(|(sender, rest)| {
            let sender = u32::from_be_bytes(*sender) as usize;
            Some((sender, u64::from_be_bytes(*rest.first_chunk::<8>()?)))
        });
        let Some((sender, seq)) = parsed.filter(|(sender, _)| *sender < self.senders.len()) else {
            return add(&self.strange);
        };
        let seen = &mut self.seen.borrow_mut()[sender];
        if seq >= seen.next {
            if seq > seen.next {
                seen.missing.push((seen.next, seq));
            }
            seen.next = seq + 1;
        } else if let Some(at) = seen
            .missing
            .iter()
            .position(|&(from, to)| (from..to).contains(&seq))
        {
            let (from, to) = seen.missing.swap_remove(at);
            let left = [(from, seq), (seq + 1, to)];
            seen.missing
                .extend(left.into_iter().filter(|(from, to)| from < to));
            add(&self.disorder);
        } else {
            return add(&self.duplicates);
        }
        let awaited = &self.senders[sender];
        add(&awaited.came);
        if awaited.came.get() == awaited.target.get() {
            awaited.bell.notify_one();
        }
    }

    /// Messages that were overtaken and have not come.
    pub(crate) fn missing(&self) -> u64 {
        let seen = self.seen.borrow();
        seen.iter()
            .flat_map(|seen| &seen.missing)
            .map(|(from, to)| to - from)
            .sum()
    }

    /// Messages that came, each counted once.
    pub(crate) fn distinct(&self) -> u64 {
        self.delivered.get() - self.duplicates.get() - self.strange.get()
    }
}

pub(crate) fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}
