//! Each oracle against a world that is broken on purpose: one that never objects proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ermine::cluster::wire::v1::Frame;

use crate::world::World;

/// Worlds that are tried: whether a fault comes to bear is a matter of the seed.
const SEEDS: u64 = 40;

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sabotage {
    /// Batches are acknowledged, and not dispatched; one in eight.
    BatchesLost,
    /// Batches are dispatched twice; one in eight.
    BatchesDoubled,
    /// Batches are acknowledged before they are in the store.
    StoreNotAwaited,
    /// What a node tells of its routes is not looked at.
    RoutesLost,
    /// What a node asks of retained messages is not answered.
    RetainedLost,
    /// What nodes say about client ids is not looked at.
    LettersLost,
    /// A publisher goes on when a link has more waiting than it may.
    NobodyWaits,
}

impl World {
    pub(crate) fn is_broken(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    /// Whether this frame is thrown away.
    pub(crate) fn is_ignored(&self, frame: &Frame<'_>) -> bool {
        match self.sabotage {
            Some(Sabotage::RoutesLost) => {
                matches!(
                    frame,
                    Frame::Snapshot(_) | Frame::Delta(_) | Frame::SliceMark { .. }
                )
            }
            Some(Sabotage::RetainedLost) => matches!(frame, Frame::RetainedAsk { .. }),
            Some(Sabotage::LettersLost) => matches!(frame, Frame::Ownership(_)),
            _ => false,
        }
    }

    /// How often the next batch is dispatched.
    pub(crate) fn times_taken(&mut self) -> usize {
        match self.sabotage {
            Some(Sabotage::BatchesLost) if self.rng.once_in(8) => 0,
            Some(Sabotage::BatchesDoubled) if self.rng.once_in(8) => 2,
            _ => 1,
        }
    }
}

/// What the oracles say of the first world in which the fault comes to bear.
fn objection(sabotage: Sabotage) -> String {
    for seed in 1..=SEEDS {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed);
            world.sabotage = Some(sabotage);
            world.mood.heavy |= sabotage == Sabotage::NobodyWaits;
            world.run();
        }));
        if let Err(panic) = run {
            let text = panic.downcast_ref::<String>().expect("an oracle's sentence");
            let sentence = text.lines().find(|line| line.starts_with("seed "));
            return sentence.expect("the seed and what is wrong").to_owned();
        }
    }
    panic!("no oracle objects to {sabotage:?} in {SEEDS} worlds");
}

#[track_caller]
fn objects(sabotage: Sabotage, words: &str) {
    let sentence = objection(sabotage);
    assert!(sentence.contains(words), "{sabotage:?}: {sentence}");
}

#[test]
fn a_batch_that_is_acknowledged_and_lost_is_noticed() {
    objects(Sabotage::BatchesLost, "was acknowledged, but");
    objects(Sabotage::BatchesLost, "did not dispatch it");
}

#[test]
fn a_batch_that_is_taken_twice_is_noticed() {
    objects(Sabotage::BatchesDoubled, "took message");
}

#[test]
fn a_batch_that_is_acknowledged_before_it_is_stored_is_noticed() {
    objects(Sabotage::StoreNotAwaited, "has not stored it");
}

#[test]
fn routes_that_do_not_converge_are_noticed() {
    objects(Sabotage::RoutesLost, " for Some((");
}

#[test]
fn retained_messages_that_do_not_converge_are_noticed() {
    objects(Sabotage::RetainedLost, "the retained messages differ");
}

#[test]
fn a_client_id_with_two_owners_is_noticed() {
    objects(Sabotage::LettersLost, "has sessions at");
}

#[test]
fn an_outbox_beyond_its_bound_is_noticed() {
    objects(Sabotage::NobodyWaits, "an outbox holds more than its bound");
}
