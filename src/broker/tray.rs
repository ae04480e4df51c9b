//! What lies before one actor, in order, where a crash of that actor does not reach it.
//!
//! The message that follows only rings the bell, once per time that the tray was empty. Whoever takes from
//! a tray also looks into it when its life begins: the bell may have been lost with the life before. What is
//! in its hands when it falls is lost, so that nothing fells two lives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix::{Actor, Handler, Message};
use supervisors::{Context, Name};

use crate::limits::TRAY_BYTES_MAX;

/// Anyone → whoever takes from a tray: there is something in it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Bell;

/// What lies on a tray.
pub trait Burden {
    /// Bytes that it keeps in memory, roughly.
    fn weight(&self) -> usize {
        size_of_val(self)
    }
}

/// The tray of one actor. It belongs to the tables. As long as that actor is polled it is emptied.
///
/// Nothing that is laid down is refused. What bounds a tray is that its writers wait: publishers of retained
/// messages do not read on while the retainer's is full ([`TRAY_BYTES_MAX`]); a session tells Clients two
/// things per CONNECT, which Clients itself has to let in; a session asks Wills one thing per CONNECT too.
#[derive(Debug)]
pub struct Tray<T> {
    items: Mutex<VecDeque<T>>,
    /// Of what lies there; changed under the lock, read without it.
    bytes: AtomicUsize,
}

impl<T> Default for Tray<T> {
    fn default() -> Self {
        Self {
            items: Mutex::default(),
            bytes: AtomicUsize::new(0),
        }
    }
}

impl<T: Burden> Tray<T> {
    /// Bytes that lie there.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether whoever can wait must not lay down more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes() > TRAY_BYTES_MAX
    }

    /// Lays something down behind all else, and rings the bell of its taker if that is needed.
    pub fn lay<A>(&self, item: T, taker: &Name<A>)
    where
        A: Actor<Context = Context<A>> + Handler<Bell>,
    {
        let mut items = self.lock();
        self.bytes.fetch_add(item.weight(), Relaxed);
        items.push_back(item);
        let first = items.len() == 1;
        drop(items);
        if first {
            // One that is just restarting looks into its tray when it starts.
            let _ = taker.cast(Bell);
        }
    }

    /// Takes the oldest.
    pub fn take(&self) -> Option<T> {
        let mut items = self.lock();
        let item = items.pop_front();
        if let Some(item) = &item {
            self.bytes.fetch_sub(item.weight(), Relaxed);
        } else if items.capacity() > 64 {
            *items = VecDeque::new();
        }
        item
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // A push or a pop is all that happens under this lock: a poisoned one holds a whole list.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
