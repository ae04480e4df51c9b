//! A session that comes back from the store: its subscriptions are put in place before any door opens.

use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, PoisonError};

use supervisors::Context;
use tokio::sync::Notify;

use super::{Arrival, Session};

/// Counts the sessions that come back from the store and have not all their subscriptions in place.
#[derive(Debug, Default)]
pub struct Revivals {
    under_way: AtomicUsize,
    moved: Notify,
}

/// One session that is under way; dropped when it is in place, or has fallen.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Revivals>);

/// What a session on its way from the store is counted by, if it is.
#[derive(Clone, Debug, Default)]
pub struct Ticket(Arc<Mutex<Option<UnderWay>>>);

impl Revivals {
    /// One more.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Ticket {
        self.under_way.fetch_add(1, AcqRel);
        Ticket(Arc::new(Mutex::new(Some(UnderWay(self.clone())))))
    }

    /// Waits until no more than so many sessions are under way.
    pub async fn until(&self, under_way: usize) {
        loop {
            let moved = self.moved.notified();
            if self.under_way.load(Acquire) <= under_way {
                return;
            }
            moved.await;
        }
    }
}

impl Ticket {
    fn take(&self) -> Option<UnderWay> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Of a session that did not take it: it could not be started.
    pub fn give_up(&self) {
        self.take();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, AcqRel);
        self.0.moved.notify_one();
    }
}

/// A session that comes back.
#[derive(Default)]
pub(super) struct Reviving {
    /// What it is counted by.
    _under_way: Option<UnderWay>,
    /// Its client, who is back already: it is answered when its subscriptions are in place, for from then
    /// on it counts on them.
    arrival: Option<Arrival>,
}

impl Session {
    /// It has come from the store: its subscriptions are put in place.
    pub(super) fn revive(&mut self, ticket: &Ticket, ctx: &mut Context<Self>) {
        self.revival = Some(Reviving {
            _under_way: ticket.take(),
            arrival: None,
        });
        self.restore_rows(ctx);
    }

    /// A client has come: at once, or when the session is back.
    pub(super) fn arrive(&mut self, arrival: Arrival, ctx: &mut Context<Self>) {
        match &mut self.revival {
            Some(reviving) => reviving.arrival = Some(arrival),
            None => self.attach(arrival, ctx),
        }
    }

    /// Its subscriptions are in place; true if it has come back from the store.
    pub(super) fn revived(&mut self, ctx: &mut Context<Self>) -> bool {
        let Some(reviving) = self.revival.take() else {
            return false;
        };
        if let Some(arrival) = reviving.arrival {
            self.attach(arrival, ctx);
        }
        true
    }
}
