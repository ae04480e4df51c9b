//! What lies before one actor, in order, where a crash of that actor does not reach it.
//!
//! The message that follows only rings the bell, once per time that the tray was empty. Whoever takes from
//! a tray also looks into it when its life begins: the bell may have been lost with the life before. What is
//! in its hands when it falls is lost, so that nothing fells two lives.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use actix::{Actor, Handler, Message};
use supervisors::{Context, Name};

/// Anyone → whoever takes from a tray: there is something in it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Bell;

/// The tray of one actor. It belongs to the tables. As long as that actor is polled it is emptied; nobody
/// waits for room in it, as nobody would for room in a mailbox.
#[derive(Debug)]
pub struct Tray<T>(Mutex<VecDeque<T>>);

impl<T> Default for Tray<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Tray<T> {
    /// Lays something down behind all else, and rings the bell of its taker if that is needed.
    pub fn lay<A>(&self, item: T, taker: &Name<A>)
    where
        A: Actor<Context = Context<A>> + Handler<Bell>,
    {
        let mut items = self.lock();
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
        if item.is_none() && items.capacity() > 64 {
            *items = VecDeque::new();
        }
        item
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // A push or a pop is all that happens under this lock: a poisoned one holds a whole list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
