//! Messages that come from one node: batches that are taken once, and acknowledged when they are safe.
//!
//! Values. [`Intake`] is what this node knows of one life of another, however often the link between them is
//! made anew: the board keeps it. [`Waiting`] is what came over one link and waits for room here; it goes
//! with the link, as nothing of it was acknowledged. A batch is *taken* when it was dispatched: it must not
//! be dispatched again. It is *safe* when this node has in its store what persistent sessions were promised
//! of it, and only then the other side hears that it may forget it, whether in a `Forwarded` or in the
//! opening of a link: else a message that was acknowledged would be lost with this process.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::broker::links::Inbound;

/// Ends when it is safe what came with a batch. `None`: it is at once.
pub type Gate = Option<oneshot::Receiver<()>>;

/// The receiving end of the lane of one life of a node.
#[derive(Debug, Default)]
pub struct Intake {
    /// The last batch that was dispatched, 0 for none.
    taken: u64,
    /// All batches up to this one are safe.
    safe: u64,
    /// Batches that were taken and are not known to be safe, oldest first. As many as the window of the
    /// other side lets through.
    gates: VecDeque<(u64, Gate)>,
}

impl Intake {
    /// Number of the last batch that was dispatched, 0 for none.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The other side may forget all batches up to this one.
    #[must_use]
    pub fn safe(&self) -> u64 {
        self.safe
    }

    /// A batch was dispatched, and is safe when its gate ends.
    pub fn take(&mut self, seq: u64, gate: Gate) {
        self.taken = seq;
        self.gates.push_back((seq, gate));
    }

    /// Ready when all batches up to `seq` are safe; those behind it are not looked at.
    pub fn poll_safe(&mut self, seq: u64, cx: &mut Context<'_>) -> Poll<u64> {
        while let Some((number, gate)) = self.gates.front_mut().filter(|(number, _)| *number <= seq) {
            if let Some(gate) = gate {
                // A gate that was dropped keeps nobody: while the store takes nothing, who is online has
                // the messages, and what was dropped is counted.
                let Poll::Ready(Ok(()) | Err(_)) = Pin::new(gate).poll(cx) else {
                    return Poll::Pending;
                };
            }
            self.safe = *number;
            self.gates.pop_front();
        }
        Poll::Ready(self.safe)
    }
}

/// What to do with a batch that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// Dispatch it, and acknowledge it when it is safe.
    Fresh,
    /// It came before: tell how far all is safe.
    Again,
    /// Batches are missing before it, which is to follow that number: the link is broken.
    Gap(u64),
}

/// Batches of one link that wait until this arbiter has room for them.
#[derive(Debug, Default)]
pub struct Waiting {
    batches: VecDeque<(u64, Vec<Inbound>)>,
    /// One is being taken.
    taking: bool,
    /// A batch came over the present connection.
    begun: bool,
}

impl Waiting {
    /// The link goes on over a new connection.
    pub fn reconnected(&mut self) {
        self.begun = false;
    }

    /// A batch came, with that number, where `taken` is the last one that was dispatched. The first one of a
    /// connection may leave numbers out: a sender that gave batches up uses their numbers for no others.
    pub fn came(&mut self, taken: u64, seq: u64) -> Came {
        let last = self.batches.back().map_or(taken, |(waiting, _)| *waiting);
        let begun = std::mem::replace(&mut self.begun, true);
        match seq {
            _ if seq <= last => Came::Again,
            _ if seq == last + 1 || !begun => Came::Fresh,
            _ => Came::Gap(last),
        }
    }

    /// Keeps a fresh batch.
    pub fn push(&mut self, seq: u64, messages: Vec<Inbound>) {
        self.batches.push_back((seq, messages));
    }

    /// The next batch to be taken, unless there is none or one is being taken.
    pub fn next_batch(&mut self) -> Option<(u64, Vec<Inbound>)> {
        if self.taking {
            return None;
        }
        let next = self.batches.pop_front();
        self.taking = next.is_some();
        next
    }

    /// What was being taken has found room.
    pub fn found_room(&mut self) {
        self.taking = false;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn safe_up_to(intake: &mut Intake, seq: u64) -> Option<u64> {
        match intake.poll_safe(seq, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(safe) => Some(safe),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_batch_that_comes_again_is_not_acknowledged_before_its_first_copy_is_safe() {
        let (mut intake, mut waiting) = (Intake::default(), Waiting::default());
        let (store, gate) = oneshot::channel();
        assert_eq!(waiting.came(intake.taken(), 1), Came::Fresh);
        intake.take(1, Some(gate));
        waiting.reconnected();
        assert_eq!(waiting.came(intake.taken(), 1), Came::Again);
        // What an opening and an answer to the second copy tell: nothing is safe yet.
        assert_eq!((intake.safe(), safe_up_to(&mut intake, 1)), (0, None));
        store.send(()).expect("it is waited for");
        assert_eq!((safe_up_to(&mut intake, 1), intake.safe()), (Some(1), 1));
    }

    #[test]
    fn batches_are_acknowledged_in_order_whichever_is_safe_first() {
        let mut intake = Intake::default();
        let (store, gate) = oneshot::channel();
        intake.take(1, Some(gate));
        intake.take(2, None);
        assert_eq!((safe_up_to(&mut intake, 2), intake.safe()), (None, 0));
        store.send(()).expect("it is waited for");
        assert_eq!(safe_up_to(&mut intake, 1), Some(1));
        assert_eq!(safe_up_to(&mut intake, 2), Some(2));
    }

    #[test]
    fn a_gate_that_nobody_opens_any_more_keeps_nothing_back() {
        let mut intake = Intake::default();
        let (store, gate) = oneshot::channel();
        intake.take(1, Some(gate));
        drop(store);
        assert_eq!(safe_up_to(&mut intake, 1), Some(1));
    }

    #[test]
    fn only_the_first_batch_of_a_connection_may_leave_numbers_out() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.came(0, 5), Came::Fresh);
        waiting.push(5, Vec::new());
        assert_eq!(waiting.came(0, 6), Came::Fresh);
        waiting.push(6, Vec::new());
        assert_eq!(waiting.came(0, 8), Came::Gap(6));
        waiting.reconnected();
        assert_eq!(waiting.came(0, 6), Came::Again, "it waits for room");
        assert_eq!(waiting.came(0, 8), Came::Gap(6), "only the very first");
        waiting.reconnected();
        assert_eq!(waiting.came(0, 8), Came::Fresh);
    }

    #[test]
    fn one_batch_is_taken_at_a_time() {
        let mut waiting = Waiting::default();
        waiting.push(1, Vec::new());
        waiting.push(2, Vec::new());
        assert_eq!(waiting.next_batch().map(|(seq, _)| seq), Some(1));
        assert!(waiting.next_batch().is_none());
        waiting.found_room();
        assert_eq!(waiting.next_batch().map(|(seq, _)| seq), Some(2));
    }
}
