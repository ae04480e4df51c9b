//! Who runs on which thread, and the watchdog that names a process which does not come back to its arbiter.
//!
//! There is no preemption: a handler that loops holds up everybody on its arbiter, and cannot be killed. All
//! that can be done is to say who it is. Each process writes its number beside its thread when it is polled,
//! and a turn that counts polls: three plain stores. The watchdog, a thread of its own because any arbiter
//! may be the one that is stuck, looks from time to time; the same number in the same turn, twice, is one
//! poll that has lasted since.

use crate::pid::Pid;
use crate::report::{Cause, ChildFacts, ErrorContext, Report, SupervisorReport};
use crate::tree::Tree;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// The longest pause between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

static SEATS: Mutex<Vec<Weak<Note>>> = Mutex::new(Vec::new());

thread_local! {
    static SEAT: Seat = Seat::take();
}

/// One thread, and which process runs on it.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Note>);

#[derive(Debug)]
struct Note {
    thread: String,
    /// Number of the process that is being polled; 0 for none. Only the thread itself writes.
    occupant: AtomicU64,
    /// Polls that have begun. Only the thread itself writes.
    turn: AtomicU64,
}

impl Seat {
    fn take() -> Seat {
        let thread = std::thread::current();
        let note = Arc::new(Note {
            thread: thread.name().unwrap_or("unnamed").to_owned(),
            occupant: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        });
        let mut seats = SEATS.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.push(Arc::downgrade(&note));
        Seat(note)
    }

    /// The thread that asks.
    pub fn here() -> Seat {
        SEAT.with(Clone::clone)
    }

    /// The process of `tree` that is being polled on that thread at this moment.
    pub fn occupant(&self, tree: &Tree) -> Option<Pid> {
        match self.0.occupant.load(Acquire) {
            0 => None,
            number => tree.find_number(number),
        }
    }
}

/// One poll of one process, noted on its thread while it lasts.
pub(crate) struct Turn(());

impl Turn {
    pub(crate) fn of(number: u64) -> Turn {
        // A thread that is ending has no seat any more; nobody looks at it either.
        let _ = SEAT.try_with(|Seat(note)| {
            note.turn.store(note.turn.load(Relaxed).wrapping_add(1), Relaxed);
            note.occupant.store(number, Release);
        });
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = SEAT.try_with(|Seat(note)| note.occupant.store(0, Release));
    }
}

/// Ends its thread when it is dropped.
pub(crate) struct Watchdog {
    // Never used to send: the thread waits for it to be dropped.
    _leash: mpsc::Sender<()>,
}

impl Watchdog {
    /// Reports every process of `tree` that has not come back for `patience`.
    pub(crate) fn watch(tree: &Tree, patience: Duration) -> Option<Watchdog> {
        let (leash, end) = mpsc::channel::<()>();
        let tree = tree.clone();
        let pause = (patience / 4).clamp(Duration::from_millis(1), LOOK_EVERY_MAX);
        let look = move || {
            let mut looks = Looks::default();
            while end.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                looks.look(&tree, Instant::now(), pause, patience);
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(look);
        if let Err(error) = &thread {
            tracing::warn!(target: "supervisor", "there is no thread for a watchdog: {error}");
        }
        thread.ok().map(|_| Watchdog { _leash: leash })
    }
}

/// What the watchdog has seen.
#[derive(Default)]
struct Looks {
    last: Option<Instant>,
    seen: Vec<Seen>,
}

/// A poll that was under way at the last look.
struct Seen {
    note: Weak<Note>,
    occupant: u64,
    turn: u64,
    since: Instant,
    reported: Option<Pid>,
}

impl Looks {
    fn look(&mut self, tree: &Tree, now: Instant, pause: Duration, patience: Duration) {
        // We did not run either (the machine slept, the process was stopped): nobody is to blame.
        let overslept = self.last.is_some_and(|last| now.duration_since(last) > pause * 4);
        self.last = Some(now);
        let mut before = std::mem::take(&mut self.seen);
        let seats: Vec<_> = {
            let seats = SEATS.lock().unwrap_or_else(PoisonError::into_inner);
            seats.iter().filter_map(Weak::upgrade).collect()
        };
        for note in seats {
            let (occupant, turn) = (note.occupant.load(Acquire), note.turn.load(Relaxed));
            let at = before
                .iter()
                .position(|seen| seen.note.as_ptr() == Arc::as_ptr(&note));
            let seen = at.map(|at| before.swap_remove(at));
            let still = |seen: &Seen| occupant != 0 && (seen.occupant, seen.turn) == (occupant, turn);
            let seen = match seen {
                Some(mut seen) if still(&seen) => {
                    if overslept {
                        seen.since = now;
                    }
                    if seen.reported.is_none() && now.duration_since(seen.since) >= patience {
                        seen.reported = report(tree, &note, &seen, now);
                    }
                    seen
                }
                over => {
                    over.into_iter().for_each(|seen| seen.is_back(now));
                    let (note, since) = (Arc::downgrade(&note), now);
                    Seen {
                        note,
                        occupant,
                        turn,
                        since,
                        reported: None,
                    }
                }
            };
            if seen.occupant != 0 {
                self.seen.push(seen);
            }
        }
    }
}

fn report(tree: &Tree, note: &Note, seen: &Seen, now: Instant) -> Option<Pid> {
    // Perhaps it belongs to another tree of this program, which has a watchdog of its own.
    let pid = tree.find_number(seen.occupant)?;
    let held = now.duration_since(seen.since).as_millis();
    let reason = Cause::Unresponsive {
        for_ms: u64::try_from(held).unwrap_or(u64::MAX),
        thread: note.thread.clone(),
    };
    let supervisor = pid.0.parent.as_ref().unwrap_or(&pid).path().clone();
    let report = SupervisorReport {
        at: SystemTime::now(),
        supervisor,
        error_context: ErrorContext::Unresponsive,
        reason,
        offender: ChildFacts::new(&pid.0.info, Some(pid.clone())),
        restart: None,
    };
    tree.report(&Report::Supervisor(report));
    Some(pid)
}

impl Seen {
    fn is_back(&self, now: Instant) {
        if let Some(pid) = &self.reported {
            let held = now.duration_since(self.since);
            let path = pid.path();
            tracing::warn!(target: "supervisor", "{path} came back to its arbiter after about {held:.1?}");
        }
    }
}
