//! What a supervisor shows to those who know its pid, without being asked: its strategy, how much of its
//! restart budget is used, its children that have no process. And the way to ask it something.

use crate::address::Ref;
use crate::dynamic::DynamicSupervisor;
use crate::intensity::{Intensity, RestartWindow, Verdict};
use crate::pid::Pid;
use crate::spec::{ChildInfo, Strategy};
use crate::supervisor::Supervisor;
use crate::tree::ProcessState;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

/// One for each life of a supervisor. Written by it, read by anybody.
pub(crate) struct Office {
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Intensity,
    window: Mutex<RestartWindow>,
    /// Shut when the supervisor has ended: a `Ref` leads back to the pid that this belongs to.
    door: Mutex<Option<Door>>,
    absent: Mutex<BTreeMap<Arc<str>, Absent>>,
    /// Restarts decided upon, failed attempts included.
    restarts: AtomicU64,
    /// Children that ended abnormally by themselves.
    crashes: AtomicU64,
}

/// How to ask a supervisor.
#[derive(Clone)]
pub(crate) enum Door {
    Named(Ref<Supervisor>),
    Dynamic(Ref<DynamicSupervisor>),
}

/// A child without a process.
#[derive(Clone)]
pub(crate) struct Absent {
    pub(crate) info: Arc<ChildInfo>,
    pub(crate) state: ProcessState,
    /// Of the incarnation that started last.
    pub(crate) generation: u64,
    pub(crate) since: SystemTime,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Office {
    /// Opens the office of `pid`, once in its life.
    pub(crate) fn open(pid: &Pid, strategy: Strategy, intensity: Intensity, door: Door) {
        let office = Office {
            strategy,
            intensity,
            window: Mutex::new(RestartWindow::new(intensity)),
            door: Mutex::new(Some(door)),
            absent: Mutex::default(),
            restarts: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
        };
        // An `init` runs once in the life of a pid.
        let _ = pid.0.office.set(Box::new(office));
    }

    pub(crate) fn door(&self) -> Option<Door> {
        lock(&self.door).clone()
    }

    pub(crate) fn close(&self) {
        let door = lock(&self.door).take();
        drop(door);
        lock(&self.absent).clear();
    }

    /// Counts one restart.
    pub(crate) fn add_restart(&self, now: Instant) -> Verdict {
        let verdict = lock(&self.window).add(now);
        if matches!(verdict, Verdict::Restart(_)) {
            self.restarts.fetch_add(1, Relaxed);
        }
        verdict
    }

    /// Restarts that count against the intensity at `now`.
    pub(crate) fn used(&self, now: Instant) -> u32 {
        lock(&self.window).used(now)
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    pub(crate) fn count_crash(&self) {
        self.crashes.fetch_add(1, Relaxed);
    }

    pub(crate) fn crashes(&self) -> u64 {
        self.crashes.load(Relaxed)
    }

    pub(crate) fn absent(&self) -> Vec<Absent> {
        lock(&self.absent).values().cloned().collect()
    }

    pub(crate) fn find_absent(&self, id: &str) -> Option<Absent> {
        lock(&self.absent).get(id).cloned()
    }

    /// Shows exactly these; who is in the same state as before keeps its time.
    pub(crate) fn show(&self, children: impl Iterator<Item = (Arc<ChildInfo>, ProcessState, u64)>) {
        let mut absent = lock(&self.absent);
        let mut before = std::mem::take(&mut *absent);
        for (info, state, generation) in children {
            let since = match before.remove(&info.id) {
                Some(was) if was.state == state => was.since,
                _ => SystemTime::now(),
            };
            let id = info.id.clone();
            absent.insert(
                id,
                Absent {
                    info,
                    state,
                    generation,
                    since,
                },
            );
        }
    }

    /// Shows one more.
    pub(crate) fn show_restarting(&self, info: &Arc<ChildInfo>, generation: u64) {
        let (state, since) = (ProcessState::Restarting, SystemTime::now());
        let info = info.clone();
        lock(&self.absent).insert(
            info.id.clone(),
            Absent {
                info,
                state,
                generation,
                since,
            },
        );
    }

    /// Shows one less.
    pub(crate) fn hide(&self, id: &str) {
        let hidden = lock(&self.absent).remove(id);
        drop(hidden);
    }
}

impl Pid {
    /// The office of a supervisor. It is opened by the `init` of every supervisor.
    pub(crate) fn office(&self) -> &Office {
        self.0
            .office
            .get()
            .expect("a supervisor opens its office in its init")
    }
}
