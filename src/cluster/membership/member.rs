//! One member, as the membership keeps it.

use std::time::{Duration, Instant, SystemTime};

use super::Now;
use crate::cluster::wire::v1::MemberRecord;
use crate::limits::RECONNECT_PAUSE;
use crate::node_name::{Incarnation, NodeName};

/// How a member stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Known, never yet linked in this life of ours.
    Joining,
    /// Linked and heard of.
    Up,
    /// Linked, silent for a while.
    Suspect,
    /// Was linked; being dialled.
    Down,
    /// Left the cluster. Kept as a tombstone, so that no absent node brings it back.
    Left,
}

impl State {
    /// The word of the table above.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

/// What is known of one member.
#[derive(Clone, Debug)]
pub struct Member {
    /// How it stands.
    pub state: State,
    /// Since when, for people.
    pub since: SystemTime,
    /// Which life of it was linked last; `None` before the first link.
    pub incarnation: Option<Incarnation>,
    pub(super) stamp: u64,
    pub(super) dial: Dial,
    pub(super) pause: Duration,
    /// An operator asked for the next dial.
    pub(super) join: bool,
    /// Only an operator's word speaks for it: as before if the dial fails.
    pub(super) tentative: bool,
    /// What it was before it was tentative.
    pub(super) was_left: bool,
    /// The configuration names it: while it is tentative it is dialled again and again.
    pub(super) seed: bool,
    /// Who forced it out, if somebody did.
    pub by: Option<NodeName>,
}

/// Whether a member is dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dial {
    Idle,
    Due(Instant),
    Running { join: bool },
}

impl Member {
    pub(super) fn joining(stamp: u64, now: Now) -> Self {
        Self {
            state: State::Joining,
            since: now.wall,
            incarnation: None,
            stamp,
            dial: Dial::Due(now.instant),
            pause: RECONNECT_PAUSE.0,
            join: false,
            tentative: false,
            was_left: false,
            seed: false,
            by: None,
        }
    }

    pub(super) fn of(record: &MemberRecord, now: Now) -> Self {
        let mut member = Self::joining(record.stamp, now);
        if record.left {
            member.bury(record.stamp, record.by.clone(), now);
        }
        member
    }

    /// When it left or joined last, as whoever saw it has stamped it.
    #[must_use]
    pub fn stamped(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.stamp)
    }

    pub(super) fn record(&self, name: &NodeName) -> MemberRecord {
        MemberRecord {
            name: name.clone(),
            stamp: self.stamp,
            left: self.state == State::Left,
            by: self.by.clone().filter(|_| self.state == State::Left),
        }
    }

    /// Whether the record holds from now on. Of equal stamps, which two clocks can give, the leave holds:
    /// every node has to decide alike.
    pub(super) fn is_older_than(&self, record: &MemberRecord) -> bool {
        let left = self.state == State::Left || (self.tentative && self.was_left);
        (record.stamp, record.left) > (self.stamp, left)
    }

    pub(super) fn bury(&mut self, stamp: u64, by: Option<NodeName>, now: Now) {
        self.set(State::Left, now);
        self.by = by;
        self.stamp = self.stamp.max(stamp);
        (self.dial, self.join, self.tentative) = (Dial::Idle, false, false);
    }

    pub(super) fn set(&mut self, state: State, now: Now) {
        if self.state != state {
            (self.state, self.since) = (state, now.wall);
        }
    }

    pub(super) fn dial_after_pause(&mut self, now: Now, jitter_percent: u32) {
        self.dial = Dial::Due(now.instant + self.pause * jitter_percent / 100);
    }

    /// The same, and the next pause will be longer.
    pub(super) fn dial_again(&mut self, now: Now, jitter_percent: u32) {
        self.dial_after_pause(now, jitter_percent);
        self.pause = (self.pause * 2).min(RECONNECT_PAUSE.1);
    }
}
