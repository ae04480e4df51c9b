//! What waits for one other node, in order, where a crash of the process behind the link does not reach it.
//!
//! As with a [`super::tray`] the message that follows only rings the bell, once per time that the outbox was
//! empty; who takes over the link hangs up a bell of its own and looks into it. As long as a link may come
//! back the publishers' shares stay; one that is given up takes nothing any more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use supervisors::Caster;

use super::links::{Outbound, link_weight};
use super::publish::{count_lost, give_again};
use super::tray::Bell;
use crate::limits::LINK_QUEUE_BYTES_MAX;

/// The outbox of one link. Publishers add to it, the link takes.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    /// Bytes (see [`link_weight`]) that publishers gave and the link has not taken.
    queued: AtomicUsize,
    /// The other node is down: publishers do not wait for it.
    released: AtomicBool,
    /// Messages that the link has taken and the other node has not.
    on_wire: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Outbound>,
    bell: Option<Caster<Bell>>,
    closed: bool,
}

impl Outbox {
    /// Bytes that wait, those that an arbiter is about to lay down included.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// Whether more than [`LINK_QUEUE_BYTES_MAX`] waits for a node that is up: QoS 0 is dropped and counted,
    /// and who publishes QoS 1 or 2 to it stops reading.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued() > LINK_QUEUE_BYTES_MAX && !self.released.load(Relaxed)
    }

    /// A message is about to be laid down.
    pub fn announce(&self, message: &Outbound) {
        self.queued.fetch_add(link_weight(message), Relaxed);
    }

    /// An announced message is not laid down after all.
    pub(super) fn renounce(&self, message: &Outbound) {
        self.queued.fetch_sub(link_weight(message), Relaxed);
    }

    /// Whether the other node is down, or the outbox closed.
    pub(super) fn is_released(&self) -> bool {
        self.released.load(Relaxed)
    }

    /// Lays announced messages down behind all else. Returns those that it does not take: all if it is
    /// closed, and behind [`LINK_QUEUE_BYTES_MAX`] all if its node is down, as then no publisher waits and it
    /// may be a while until the router hears of it.
    pub fn lay(&self, mut messages: Vec<Outbound>) -> Vec<Outbound> {
        let mut waiting = self.lock();
        let released = self.released.load(Relaxed);
        if released {
            messages.iter_mut().for_each(|message| message.share = None);
        }
        let mine = || messages.iter().map(link_weight).sum();
        let full = released && self.queued().saturating_sub(mine()) > LINK_QUEUE_BYTES_MAX;
        if waiting.closed || full {
            drop(waiting);
            self.forget(&messages);
            return messages;
        }
        let first = waiting.messages.is_empty();
        waiting.messages.extend(messages);
        if first && let Some(bell) = &waiting.bell {
            // Between two lives of the link's process nobody hears it; the next one looks.
            let _ = bell.cast(Bell);
        }
        Vec::new()
    }

    /// A link stands: its process hears this bell, and looks into the outbox now.
    pub fn open(&self, bell: Caster<Bell>) {
        self.lock().bell = Some(bell);
        self.engage();
    }

    /// Publishers wait for the other node from now on.
    pub fn engage(&self) {
        self.released.store(false, Relaxed);
    }

    /// Takes the oldest message if it suits.
    pub fn take_if(&self, suits: impl FnOnce(&Outbound) -> bool) -> Option<Outbound> {
        let mut waiting = self.lock();
        if !waiting.messages.front().is_some_and(suits) {
            return None;
        }
        let message = waiting.messages.pop_front();
        if waiting.messages.is_empty() && waiting.messages.capacity() > 1024 {
            waiting.messages = VecDeque::new();
        }
        drop(waiting);
        message.inspect(|message| {
            self.queued.fetch_sub(link_weight(message), Relaxed);
        })
    }

    /// Messages that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets the publishers go; the messages stay, but for what shared groups on other nodes can have.
    pub fn release(self: &Arc<Self>) {
        self.released.store(true, Relaxed);
        // Given and told without the lock.
        let mut messages = std::mem::take(&mut self.lock().messages);
        messages.retain_mut(|outbound| {
            let given = give_again(outbound, self, false);
            if given {
                self.renounce(outbound);
            }
            outbound.share = None;
            !given
        });
        let mut waiting = self.lock();
        messages.append(&mut waiting.messages);
        waiting.messages = messages;
    }

    /// Nobody will take from it any more. Returns how many messages were lost.
    pub fn close(self: &Arc<Self>) -> usize {
        self.released.store(true, Relaxed);
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.bell = None;
        let mut messages: Vec<_> = std::mem::take(&mut waiting.messages).into();
        drop(waiting);
        self.forget(&messages);
        messages.retain_mut(|outbound| !give_again(outbound, self, false));
        count_lost(&messages);
        messages.len()
    }

    /// How many messages that were taken from it are on their way, not acknowledged. Told by who takes.
    #[must_use]
    pub fn on_wire(&self) -> usize {
        self.on_wire.load(Relaxed)
    }

    /// Tells [`Outbox::on_wire`].
    pub fn set_on_wire(&self, messages: usize) {
        self.on_wire.store(messages, Relaxed);
    }

    fn forget(&self, messages: &[Outbound]) {
        let bytes = messages.iter().map(link_weight).sum();
        self.queued.fetch_sub(bytes, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Whole after every statement.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
