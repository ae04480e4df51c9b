//! Links (OTP `link/1`): two processes of which neither outlives an abnormal end of the other.

use super::{Cold, LINKED, Pid, Rare};
use crate::exit::ExitReason;
use crate::spec::ProcessKind;

impl Pid {
    /// Joins two processes; `self` is alive, for it is the one that asks.
    pub(crate) fn link(&self, other: &Pid) {
        if self == other || !self.note_link(other) {
            return;
        }
        if !other.note_link_if_alive(self) {
            self.part_from(other);
            self.hear_exit(ExitReason::NoProc);
        }
    }

    /// False if it was noted already.
    fn note_link(&self, other: &Pid) -> bool {
        self.0.mortal.with(|cold, _| cold.rare().note(other))
    }

    fn note_link_if_alive(&self, other: &Pid) -> bool {
        self.0.mortal.with(|cold, alive| {
            if alive {
                cold.rare().note(other);
            }
            alive
        })
    }

    pub(crate) fn unlink(&self, other: &Pid) {
        self.part_from(other);
        other.part_from(self);
    }

    fn part_from(&self, other: &Pid) {
        let gone = self.0.mortal.with(|cold, _| {
            let links = &mut cold.rare.as_mut()?.links;
            let at = links.iter().position(|linked| linked == other)?;
            Some(links.swap_remove(at))
        });
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
            self.0.mortal.with(|cold, _| {
                cold.rare().linked_exit.get_or_insert(reason);
            });
            self.signal(LINKED);
        }
    }

    pub(crate) fn take_linked_exit(&self) -> ExitReason {
        let reason = |cold: &mut Cold, _| cold.rare.as_mut().and_then(|rare| rare.linked_exit.take());
        self.0.mortal.with(reason).unwrap_or(ExitReason::Killed)
    }
}

impl Rare {
    /// False if it was there already.
    fn note(&mut self, other: &Pid) -> bool {
        let new = !self.links.contains(other);
        if new {
            self.links.push(other.clone());
        }
        new
    }
}
