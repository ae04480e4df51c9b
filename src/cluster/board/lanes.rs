//! What the board keeps of each node's messages between two links: both ends of the lanes.

use std::task::{Context, Poll};
use std::time::Instant;

use super::{Board, Kept};
use crate::cluster::intake::{Gate, Intake};
use crate::cluster::lane::{AckAhead, Lane};
use crate::limits::LINK_RESUME_WITHIN;
use crate::node_name::{NodeId, NodeName};

impl Board {
    /// The last batch that was taken of this life of a node, 0 for none: whatever comes up to it comes again.
    #[must_use]
    pub fn taken(&self, node: &NodeId) -> u64 {
        self.intake(node, |intake| intake.taken())
    }

    /// The last batch of this life of a node that is safe here with all before it, 0 for none: what the
    /// opening of a link tells it to forget.
    #[must_use]
    pub fn received(&self, node: &NodeId) -> u64 {
        self.intake(node, |intake| intake.safe())
    }

    fn intake(&self, node: &NodeId, ask: impl FnOnce(&Intake) -> u64) -> u64 {
        let inner = self.lock();
        let kept = inner.kept.get(&node.name).filter(|kept| kept.node == *node);
        kept.map_or(0, |kept| ask(&kept.intake))
    }

    /// Notes that a batch of so many messages was taken, which is safe when its gate ends.
    pub fn take(&self, node: &NodeId, seq: u64, messages: u64, gate: Gate) {
        self.kept_of(node, |kept| {
            kept.intake.take(seq, gate);
            kept.came += messages;
        });
    }

    /// Ready with the last batch that is safe, when all up to `seq` are; see [`Intake::poll_safe`]. Of a life
    /// that is over nothing is waited for.
    pub fn poll_safe(&self, node: &NodeId, seq: u64, cx: &mut Context<'_>) -> Poll<u64> {
        let mut inner = self.lock();
        match inner.kept.get_mut(&node.name).filter(|kept| kept.node == *node) {
            Some(kept) => kept.intake.poll_safe(seq, cx),
            None => Poll::Ready(0),
        }
    }

    /// The lane for a new link to this life of a node, which has all batches up to `received`: what was put
    /// aside of it goes on, else an empty one begins behind every number that was ever used.
    ///
    /// # Errors
    /// [`AckAhead`] when that was never sent. What was put aside was given up, and counted.
    pub fn lane_for(&self, node: &NodeId, received: u64) -> Result<Lane, AckAhead> {
        let (lane, lost) = self.kept_of(node, |kept| {
            let Some((mut lane, _)) = kept.lane.take() else {
                return (Ok(Lane::new(kept.given_up.max(received))), 0);
            };
            match lane.resume(received) {
                Ok(()) => (Ok(lane), 0),
                Err(error) => (Err(error), kept.abandon(lane)),
            }
        });
        self.lock().lost += lost;
        lane
    }

    /// Puts a lane aside whose link broke, for [`LINK_RESUME_WITHIN`].
    pub fn put_aside(&self, node: &NodeId, lane: Lane, now: Instant) {
        let lost = self.kept_of(node, |kept| {
            let lost = kept.give_up();
            kept.lane = Some((lane, now + LINK_RESUME_WITHIN));
            lost
        });
        self.lock().lost += lost;
    }

    /// Gives a lane up whose node goes, or is sent away. Returns how many messages were lost.
    pub fn abandon(&self, node: &NodeId, lane: Lane) -> u64 {
        self.kept_of(node, |kept| kept.abandon(lane))
    }

    /// A node seems to have ended: what was put aside for it waits no longer than `until`.
    pub fn hurry(&self, name: &NodeName, until: Instant) {
        if let Some((_, at)) = self.lock().kept.get_mut(name).and_then(|kept| kept.lane.as_mut()) {
            *at = until.min(*at);
        }
    }

    /// Gives up the lanes whose time is over, and lets the publishers of those go that are not held any
    /// longer. Returns how many messages were lost, with those of
    /// earlier lives since the last call.
    pub fn sweep(&self, now: Instant) -> u64 {
        let mut inner = self.lock();
        let mut lost = std::mem::take(&mut inner.lost);
        for kept in inner.kept.values_mut() {
            if kept.lane.as_ref().is_some_and(|(_, until)| *until <= now) {
                lost += kept.give_up();
            }
            if let Some((lane, _)) = &mut kept.lane
                && lane.held().is_some_and(|until| until <= now)
            {
                lane.release();
            }
        }
        lost
    }

    /// What is kept of this life of a node; what waits for an earlier one is lost.
    pub(super) fn kept_of<T>(&self, node: &NodeId, change: impl FnOnce(&mut Kept) -> T) -> T {
        let mut inner = self.lock();
        let kept = inner
            .kept
            .entry(node.name.clone())
            .or_insert_with(|| Kept::of(node));
        let mut lost = 0;
        if kept.node != *node {
            lost = kept.give_up();
            *kept = kept.reborn(node);
        }
        let changed = change(kept);
        inner.lost += lost;
        changed
    }
}

impl Kept {
    pub(super) fn of(node: &NodeId) -> Self {
        Self {
            node: node.clone(),
            intake: Intake::default(),
            lane: None,
            given_up: 0,
            acknowledged: 0,
            came: 0,
            before: (0, 0),
        }
    }

    /// Counts and forgets the lane that was put aside.
    fn give_up(&mut self) -> u64 {
        let lane = self.lane.take();
        lane.map_or(0, |(lane, _)| self.abandon(lane))
    }

    /// Counts and forgets a lane, but not its numbers.
    fn abandon(&mut self, mut lane: Lane) -> u64 {
        let before = lane.dropped.link_down;
        lane.abandon();
        self.given_up = self.given_up.max(lane.last());
        lane.dropped.link_down - before
    }
}
