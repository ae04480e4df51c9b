//! Where threads meet over one process: signals and the wake-up that they cause, and what must be told
//! exactly once when it ends.
//!
//! Knows neither processes nor monitors, so that `tests/interleavings.rs` can run this very file in every
//! order of steps of its threads.

use super::sync::{AtomicU8, Mutex, MutexGuard};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

const STARTING: u8 = 0;
const STARTED: u8 = 1;
const BURIED: u8 = 2;

/// `W` wakes the process, `C` is what its end has to settle.
pub(crate) struct Mortal<W, C> {
    signals: AtomicU8,
    stage: AtomicU8,
    estate: Mutex<Estate<W, C>>,
}

/// Touched at birth, death and signals only.
struct Estate<W, C> {
    waker: Option<W>,
    settle: C,
}

impl<W: Clone, C: Default> Mortal<W, C> {
    pub(crate) fn new() -> Self {
        Mortal {
            signals: AtomicU8::new(0),
            stage: AtomicU8::new(STARTING),
            estate: Mutex::new(Estate {
                waker: None,
                settle: C::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Estate<W, C>> {
        // Nothing panics while it is held; were it poisoned, the data would still be whole.
        self.estate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.stage.load(Acquire) != BURIED
    }

    /// True once it has started, also after its end.
    pub(crate) fn has_started(&self) -> bool {
        self.stage.load(Acquire) != STARTING
    }

    /// By the process itself.
    pub(crate) fn set_started(&self) {
        self.stage.store(STARTED, Release);
    }

    pub(crate) fn signals(&self) -> u8 {
        self.signals.load(Acquire)
    }

    /// Raises a signal; the caller wakes the process with what is returned. If that is nothing, the process
    /// has not been polled yet and will look at its signals when it is, or it has ended.
    pub(crate) fn signal(&self, bit: u8) -> Option<W> {
        if !self.is_alive() {
            return None;
        }
        self.signals.fetch_or(bit, AcqRel);
        self.waker()
    }

    pub(crate) fn waker(&self) -> Option<W> {
        self.lock().waker.clone()
    }

    /// By the process, before it looks at its signals for the first time.
    pub(crate) fn bind(&self, waker: W) {
        self.lock().waker = Some(waker);
    }

    /// Changes what its end has to settle. Told `false`, the end has been: nothing put in is settled.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut C, bool) -> R) -> R {
        let mut estate = self.lock();
        // Under the lock: an end comes before or after, never in between.
        let alive = self.is_alive();
        act(&mut estate.settle, alive)
    }

    /// The end: hands over what is to be settled. By the process itself, once.
    pub(crate) fn bury(&self) -> C {
        let (waker, settle) = {
            let mut estate = self.lock();
            self.stage.store(BURIED, Release);
            (estate.waker.take(), std::mem::take(&mut estate.settle))
        };
        // Dropped after the lock: it may be the last that held the task.
        drop(waker);
        settle
    }
}
