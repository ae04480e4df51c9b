//! Links (OTP `link/1`): two processes of which neither outlives an abnormal end of the other.

use super::{LINKED, Pid};
use crate::exit::ExitReason;
use crate::spec::ProcessKind;

impl Pid {
    /// Joins two processes; `self` is alive, for it is the one that asks.
    pub(crate) fn link(&self, other: &Pid) {
        if self == other || self.cold().rare().links.contains(other) {
            return;
        }
        self.cold().rare().links.push(other.clone());
        let mut there = other.cold();
        if other.is_alive() {
            there.rare().links.push(self.clone());
            return;
        }
        drop(there);
        self.part_from(other);
        self.hear_exit(ExitReason::NoProc);
    }

    pub(crate) fn unlink(&self, other: &Pid) {
        self.part_from(other);
        other.part_from(self);
    }

    fn part_from(&self, other: &Pid) {
        let mut cold = self.cold();
        let Some(rare) = &mut cold.rare else { return };
        let at = rare.links.iter().position(|linked| linked == other);
        let gone = at.map(|at| rare.links.swap_remove(at));
        drop(cold);
        // Dropped after the lock: it may be the last that knew of the process.
        drop(gone);
    }

    /// The exit signal to whom this process was linked with.
    pub(super) fn end_links(&self, links: Vec<Pid>, reason: &ExitReason) {
        for other in links {
            other.part_from(self);
            if *reason != ExitReason::Normal {
                other.hear_exit(reason.clone());
            }
        }
    }

    /// Supervisors trap exits: only their own supervisor and their children concern them.
    fn hear_exit(&self, reason: ExitReason) {
        if self.0.info.kind == ProcessKind::Worker {
            self.cold().rare().linked_exit.get_or_insert(reason);
            self.signal(LINKED);
        }
    }

    pub(crate) fn take_linked_exit(&self) -> ExitReason {
        let mut cold = self.cold();
        let reason = cold.rare.as_mut().and_then(|rare| rare.linked_exit.take());
        reason.unwrap_or(ExitReason::Killed)
    }
}
