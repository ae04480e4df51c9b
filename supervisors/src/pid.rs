//! A process as others see it: its identity, its mailbox's depth, exit signals, monitors.

use crate::exit::{Down, ExitReason, MonitorRef};
use crate::office::Office;
use crate::spec::ChildInfo;
use crate::tree::Tree;
use mortal::Mortal;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, SystemTime};

mod links;
mod mortal;

/// What `mortal` is made of; its test has it made of something else.
mod sync {
    pub(super) use std::sync::atomic::AtomicU8;
    pub(super) use std::sync::{Mutex, MutexGuard};
}

/// Bits of [`Control::signals`].
pub(crate) const SHUTDOWN: u8 = 1;
pub(crate) const KILL: u8 = 2;
pub(crate) const CRASH: u8 = 4;
/// A linked process has ended abnormally.
pub(crate) const LINKED: u8 = 8;

static NEXT_PID: AtomicU64 = AtomicU64::new(1);
static NEXT_MONITOR: AtomicU64 = AtomicU64::new(1);

/// Identity of one process: of one incarnation of a child, never reused. Printed like Erlang's, `<0.42.0>`.
#[derive(Clone)]
pub struct Pid(pub(crate) Arc<Control>);

type Notice = Box<dyn FnOnce(Down) + Send>;

/// What a process and those who know it share.
pub(crate) struct Control {
    pub(crate) number: u64,
    pub(crate) path: Arc<str>,
    pub(crate) info: Arc<ChildInfo>,
    pub(crate) tree: Tree,
    /// The supervisor's pid; none for the root.
    pub(crate) parent: Option<Pid>,
    /// Which start of this child this is, from 1.
    pub(crate) generation: u64,
    pub(crate) since: SystemTime,
    /// What a supervisor shows and offers, known when its spec is.
    pub(crate) office: OnceLock<Box<Office>>,
    /// Messages given to the mailbox (any thread) …
    sent: AtomicUsize,
    /// … and taken out of it (only the process itself writes).
    handled: AtomicUsize,
    mortal: Mortal<Waker, Cold>,
    /// Processes below this one that have not ended.
    children: AtomicUsize,
}

/// What is touched at birth, death and signals only.
#[derive(Default)]
struct Cold {
    /// The first of `monitors`; most processes have one, and a map with one entry takes a third of a KiB.
    monitor: Option<(u64, (u64, Notice))>,
    monitors: BTreeMap<u64, (u64, Notice)>,
    /// Boxed because it is nearly always absent, and there may be 100,000 processes.
    rare: Option<Box<Rare>>,
}

#[derive(Default)]
struct Rare {
    /// What the process is to suffer when it is polled next.
    ordeal: Option<Ordeal>,
    /// Whose end is ours, and the other way round.
    links: Vec<Pid>,
    /// Why a linked process ended.
    linked_exit: Option<ExitReason>,
}

/// What an operator does to a process to see what becomes of it.
enum Ordeal {
    Panic(String),
    /// Hold its thread, as a handler that does not return.
    Stall(Duration),
}

#[allow(clippy::disallowed_methods)] // That it blocks every actor of the arbiter is what it is for.
fn hold_the_thread(time: Duration) {
    std::thread::sleep(time);
}

impl Cold {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Pid {
    pub(crate) fn new(
        tree: Tree,
        path: Arc<str>,
        info: Arc<ChildInfo>,
        parent: Option<Pid>,
        generation: u64,
    ) -> Pid {
        if let Some(parent) = &parent {
            parent.0.children.fetch_add(1, AcqRel);
        }
        let pid = Pid(Arc::new(Control {
            number: NEXT_PID.fetch_add(1, Relaxed),
            path,
            info,
            tree,
            parent,
            generation,
            since: SystemTime::now(),
            office: OnceLock::new(),
            sent: AtomicUsize::new(0),
            handled: AtomicUsize::new(0),
            mortal: Mortal::new(),
            children: AtomicUsize::new(0),
        }));
        pid.0.tree.insert(&pid);
        pid
    }

    /// Where the process stands in the tree: `root/core/router`.
    pub fn path(&self) -> &Arc<str> {
        &self.0.path
    }

    /// The child's id in its supervisor.
    pub fn id(&self) -> &Arc<str> {
        &self.0.info.id
    }

    /// Which start of this child it is, counted from 1 within one life of its supervisor.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// True until its exit has been reported.
    pub fn is_alive(&self) -> bool {
        self.0.mortal.is_alive()
    }

    /// True once its `init` (of a supervisor: its children's too) has succeeded, also after its end.
    pub(crate) fn has_started(&self) -> bool {
        self.0.mortal.has_started()
    }

    pub(crate) fn set_started(&self) {
        self.0.mortal.set_started();
    }

    /// The tree that it belongs to.
    pub fn tree(&self) -> Tree {
        self.0.tree.clone()
    }

    /// Messages sent to it by `cast` and `call` and not yet handled; 0 once it has ended.
    pub fn mailbox_len(&self) -> usize {
        if !self.is_alive() {
            return 0;
        }
        let handled = self.0.handled.load(Relaxed);
        self.0.sent.load(Relaxed).saturating_sub(handled)
    }

    /// Sends an exit signal (OTP `exit(Pid, Reason)`); nothing happens to a process that has ended.
    ///
    /// `Killed` cannot be refused and runs no callback; every other reason asks the process to stop: its
    /// `stopping()` may finish work first, its exit reason is `Shutdown`. A process that is inside a handler
    /// sees the signal when the handler returns: there is no preemption.
    pub fn exit(&self, reason: ExitReason) {
        self.signal(if reason == ExitReason::Killed {
            KILL
        } else {
            SHUTDOWN
        });
    }

    pub(crate) fn crash(&self, why: &str) {
        self.ordeal(Ordeal::Panic(why.to_owned()));
    }

    pub(crate) fn stall(&self, time: Duration) {
        self.ordeal(Ordeal::Stall(time));
    }

    fn ordeal(&self, ordeal: Ordeal) {
        self.0.mortal.with(|cold, _| cold.rare().ordeal = Some(ordeal));
        self.signal(CRASH);
    }

    fn signal(&self, bit: u8) {
        if let Some(waker) = self.0.mortal.signal(bit) {
            waker.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.0.mortal.waker() {
            waker.wake();
        }
    }

    pub(crate) fn signals(&self) -> u8 {
        self.0.mortal.signals()
    }

    /// By the process itself, inside its poll.
    ///
    /// # Panics
    /// If that is what it is to suffer.
    pub(crate) fn suffer(&self) {
        let ordeal = |cold: &mut Cold, _| cold.rare.as_mut().and_then(|rare| rare.ordeal.take());
        match self.0.mortal.with(ordeal) {
            Some(Ordeal::Panic(why)) => panic!("{why}"),
            // The very thing that must never happen in a handler, on purpose.
            Some(Ordeal::Stall(time)) => hold_the_thread(time),
            None => {}
        }
    }

    /// Who is to be woken by a signal. A task's waker stays the same for its life.
    pub(crate) fn bind(&self, waker: &Waker) {
        self.0.mortal.bind(waker.clone());
    }

    pub(crate) fn count_sent(&self) {
        self.0.sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn uncount_sent(&self) {
        self.0.sent.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count_handled(&self) {
        // Only the process itself writes here, so no read-modify-write is needed.
        self.0
            .handled
            .store(self.0.handled.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    pub(crate) fn live_children(&self) -> usize {
        self.0.children.load(Acquire)
    }

    pub(crate) fn watch(&self, watcher: u64, notice: Notice) -> MonitorRef {
        let monitor = MonitorRef(NEXT_MONITOR.fetch_add(1, Relaxed));
        let too_late = self.0.mortal.with(|cold, alive| {
            if !alive {
                return Some(notice);
            }
            if cold.monitor.is_none() {
                cold.monitor = Some((monitor.0, (watcher, notice)));
            } else {
                cold.monitors.insert(monitor.0, (watcher, notice));
            }
            None
        });
        if let Some(notice) = too_late {
            let (pid, reason) = (self.clone(), ExitReason::NoProc);
            notice(Down {
                pid,
                reason,
                monitor,
                watcher,
            });
        }
        monitor
    }

    pub(crate) fn unwatch(&self, monitor: MonitorRef) {
        // Dropped after the lock: a notice holds a reference to the watcher's mailbox.
        let notice =
            self.0.mortal.with(
                |cold, _| match cold.monitor.take_if(|(number, _)| *number == monitor.0) {
                    Some((_, notice)) => Some(notice),
                    None => cold.monitors.remove(&monitor.0),
                },
            );
        drop(notice);
    }

    /// The end: from here on nobody finds it, and everybody who watched is told.
    pub(crate) fn bury(&self, reason: &ExitReason) {
        self.0.tree.remove(self);
        if let Some(office) = self.0.office.get() {
            office.close();
        }
        let Cold {
            monitor: first,
            monitors,
            rare,
        } = self.0.mortal.bury();
        self.end_links(rare.map(|rare| rare.links).unwrap_or_default(), reason);
        for (number, (watcher, notice)) in first.into_iter().chain(monitors) {
            notice(Down {
                pid: self.clone(),
                reason: reason.clone(),
                monitor: MonitorRef(number),
                watcher,
            });
        }
        if let Some(parent) = &self.0.parent
            && parent.0.children.fetch_sub(1, AcqRel) == 1
        {
            // A dead supervisor waits for its last child before it is reported.
            parent.wake();
        }
    }
}

impl PartialEq for Pid {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Pid {}

impl Hash for Pid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<0.{}.0>", self.0.number)
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
