//! What a session that has fallen leaves in place: its port goes on taking what comes for it, until the
//! session is back from the store and takes it over with all its rows.
//!
//! What the fallen session had taken is in the store; what it had not taken lies in the port, in order. So
//! the store is read up to the first of those ([`Orphan::from`]), and nothing is lost and nothing comes
//! twice. An orphan that is full pauses its topics as a living session does; one that nobody takes over is
//! closed.

use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytestring::ByteString;

use super::Office;
use crate::broker::mail::{FilterId, PortId};
use crate::broker::port::{Parting, Port};
use crate::session::lasting::Seq;

/// How long an orphan waits: far longer than it takes to read a session, and not so long that publishers
/// which wait for it give up.
const WAITS_FOR: Duration = Duration::from_secs(5);

/// The port of a session that has fallen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// The port.
    pub port: PortId,
    /// The first message that lies there, or will: those before are in the store.
    pub from: Seq,
}

/// Which clients have orphans; written by the arbiters where they are.
#[derive(Debug, Default)]
pub struct Orphans(Mutex<AHashMap<ByteString, Orphan>>);

impl Orphans {
    fn all(&self) -> MutexGuard<'_, AHashMap<ByteString, Orphan>> {
        // A map that is whole after each step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the fallen session of a client has left.
    #[must_use]
    pub fn of(&self, client_id: &str) -> Option<Orphan> {
        self.all().get(client_id).copied()
    }
}

impl Office {
    /// The session of a port has fallen, and is in the store.
    pub(in crate::broker) fn leave_behind(&self, port: &Rc<Port>) {
        let Some(lasting) = port.lasting.get().filter(|_| !port.is_closed()) else {
            return self.close_port(port, Parting::Stored);
        };
        self.set_online(port, false);
        for desk in port.shared_desks() {
            if desk.group().is_some_and(|group| group.online_len() > 0)
                && let Some(share) = std::num::NonZeroU64::new(desk.id.0)
            {
                for delivery in port.take_shared(share) {
                    self.settle(port, delivery.seq);
                    self.pass_on(FilterId(share.get()), &delivery.message, delivery.dup);
                }
            }
        }
        port.leave_behind();
        self.let_go(port);
        let orphan = Orphan {
            port: port.id,
            from: port.first_untaken().unwrap_or(lasting.next),
        };
        let orphans = &self.tables.orphans;
        orphans.all().insert(port.client_id.clone(), orphan);
        self.orphans.borrow_mut().push((port.clone(), Instant::now()));
        // It sweeps as long as there are any.
        self.wake.wake();
    }

    /// The session of a client is back: a port that has all that the orphan had, which is no more. `None` if
    /// it is not here, or not the one that is meant: then the store was read too early, or too late.
    pub(in crate::broker) fn adopt(&self, client_id: &ByteString, orphan: Orphan) -> Option<Rc<Port>> {
        if self.tables.orphans.of(client_id) != Some(orphan) || usize::from(orphan.port.arbiter) != self.me {
            return None;
        }
        let old = self.port(orphan.port.serial)?;
        self.forget_orphan(&old);
        let fresh = self.open_port(client_id.clone());
        self.let_go(&old);
        fresh.inherit(&old);
        for ports in self.penned.borrow_mut().values_mut() {
            for port in ports.iter_mut().filter(|port| Rc::ptr_eq(port, &old)) {
                *port = fresh.clone();
            }
        }
        self.ports.borrow_mut().remove(&old.id.serial);
        self.counters().sessions_closed.one();
        Some(fresh)
    }

    fn forget_orphan(&self, port: &Rc<Port>) {
        self.orphans
            .borrow_mut()
            .retain(|(known, _)| !Rc::ptr_eq(known, port));
        let mut orphans = self.tables.orphans.all();
        if orphans
            .get(&port.client_id)
            .is_some_and(|orphan| orphan.port == port.id)
        {
            orphans.remove(&port.client_id);
        }
    }

    /// Closes those that have waited for too long: what comes from now on is not for them.
    pub(super) fn sweep_orphans(&self, now: Instant) {
        let orphans = self.orphans.borrow();
        let given_up = |(_, since): &&(Rc<Port>, Instant)| now.saturating_duration_since(*since) >= WAITS_FOR;
        let given_up: Vec<_> = orphans
            .iter()
            .filter(given_up)
            .map(|(port, _)| port.clone())
            .collect();
        drop(orphans);
        for port in given_up {
            tracing::warn!(client = %port.client_id, "its session is not back: what comes now is lost");
            self.forget_orphan(&port);
            self.close_port(&port, Parting::Stored);
        }
    }
}
