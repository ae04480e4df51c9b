//! A session that comes back from the store: its subscriptions are put in place before any door opens.

use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use supervisors::Context;
use tokio::sync::Notify;

use super::{Arrival, Session};
use crate::broker::office::Orphan;
use crate::session::event::Effect;
use crate::session::lasting::SessionRecord;

/// Counts the sessions that come back from the store and have not all their subscriptions in place.
#[derive(Debug, Default)]
pub struct Revivals {
    under_way: AtomicUsize,
    moved: Notify,
}

/// One session that is under way; dropped when it is in place, or has fallen.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Revivals>);

/// How a session comes from the store.
#[derive(Clone, Debug, Default)]
pub struct Ticket {
    /// What it is counted by, when the node starts.
    under_way: Arc<Mutex<Option<UnderWay>>>,
    /// What it left in place when it fell.
    orphan: Option<Orphan>,
}

impl Revivals {
    /// One more.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Ticket {
        self.under_way.fetch_add(1, AcqRel);
        Ticket {
            under_way: Arc::new(Mutex::new(Some(UnderWay(self.clone())))),
            orphan: None,
        }
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
    /// Of a session that has fallen while the node stands.
    #[must_use]
    pub fn of_fallen(orphan: Option<Orphan>) -> Self {
        Self {
            orphan,
            ..Self::default()
        }
    }

    /// What the session left in place.
    #[must_use]
    pub fn orphan(&self) -> Option<Orphan> {
        self.orphan
    }

    fn slip(&self) -> MutexGuard<'_, Option<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<UnderWay> {
        self.slip().take()
    }

    /// Whether nobody has taken it, and somebody waits for that: the node starts.
    pub(super) fn is_open(&self) -> bool {
        self.slip().is_some()
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
    /// Takes up what was stored of it. When the node starts its will, should that be due, rests until
    /// somebody is there to hear it (`wills::inherit`).
    pub(super) fn come_back(
        &mut self,
        record: &SessionRecord,
        ticket: &Ticket,
        effects: Vec<Effect>,
        ctx: &mut Context<Self>,
    ) {
        self.recognise(record.guest.as_ref());
        let (now, at_start) = (Instant::now(), ticket.is_open());
        let mut is_due = false;
        for effect in effects {
            match effect {
                Effect::PublishWill { will, delay_s } if at_start => {
                    is_due |= delay_s == 0;
                    self.leave_will(will, delay_s, now);
                }
                effect => self.carry_out(effect, now, ctx),
            }
        }
        // A will that is due is not safe before it was published: until then the record stays as it is.
        if !is_due && (!at_start || record.away_since_ms.is_none()) {
            self.note_record();
        }
    }

    /// It has come from the store: its subscriptions are put in place.
    pub(super) fn revive(&mut self, ticket: &Ticket, ctx: &mut Context<Self>) {
        // Few sessions are ever in it, and those not for long: a pointer in all the others.
        self.revival = Some(Box::new(Reviving {
            _under_way: ticket.take(),
            arrival: None,
        }));
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
