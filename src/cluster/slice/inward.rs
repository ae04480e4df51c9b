//! Another node's slice of the route table on its way to this one: the receiving end of a link.
//!
//! A value. The router applies each frame; here is kept what the other side is told of that, and when the
//! whole slice is asked for anew: after a gap, after a frame that got lost with the router, when their ticks
//! tell of more than we hold for too long, and when their marks tell of other routes than ours.

use crate::cluster::wire::v1::Frame;
use crate::routing::{Applied, Checked, RouteVersion};

/// Ticks that may tell of a later version than we hold before we ask for the slice again.
const TICKS_BEHIND_MAX: u32 = 3;

/// Marks until a repair that did not help is tried again: a long snapshot takes its time.
const MARKS_PER_REPAIR: u32 = 3;

/// The receiving end of a link's routes.
#[derive(Debug, Default)]
pub struct SliceIn {
    /// Route frames of theirs that were taken over this connection.
    frames: u64,
    /// The version of their slice that we hold, and how often a tick told of a later one since.
    held: RouteVersion,
    behind: u32,
    /// How often in a row a mark told of other routes than we hold.
    drifts: u32,
}

/// What a mark shows, compared with what we hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing new.
    Nothing,
    /// Our routes of that node differ: ask for its slice. `held` is the hash of ours.
    Drifted {
        /// The hash of what we hold.
        held: u64,
    },
    /// They had differed and do no longer.
    Repaired,
}

impl SliceIn {
    /// Frames are counted anew over a new connection.
    pub fn reconnected(&mut self) {
        self.frames = 0;
    }

    /// The version of their slice that we hold.
    #[must_use]
    pub fn held(&self) -> RouteVersion {
        self.held
    }

    /// The router has taken a frame that leads to `version` (`None`: it got lost with the router); `whole`
    /// unless more of the same snapshot follows. Whether their slice is to be asked for anew. What was
    /// refused ends the link, and is not told here.
    #[must_use]
    pub fn applied(&mut self, applied: Option<&Applied>, version: RouteVersion, whole: bool) -> bool {
        self.frames += 1;
        match applied {
            Some(Applied::Applied | Applied::Stale) => {
                if whole {
                    self.held = self.held.max(version);
                    self.behind = 0;
                }
                false
            }
            Some(Applied::Gap | Applied::Refused(_)) | None => true,
        }
    }

    /// What the other side is told after each frame of its routes.
    #[must_use]
    pub fn receipt(&self) -> Frame<'static> {
        Frame::RoutesHeld {
            frames: self.frames,
            version: self.held,
        }
    }

    /// Their tick tells their version. Whether their slice is to be asked for anew: a delta got lost.
    #[must_use]
    pub fn tick_came(&mut self, version: RouteVersion) -> bool {
        if version <= self.held {
            self.behind = 0;
            return false;
        }
        self.behind += 1;
        if self.behind < TICKS_BEHIND_MAX {
            return false;
        }
        self.behind = 0;
        true
    }

    /// Their mark was compared with what we hold.
    #[must_use]
    pub fn mark_came(&mut self, checked: Checked) -> Mark {
        match checked {
            Checked::Same if std::mem::take(&mut self.drifts) > 0 => Mark::Repaired,
            Checked::Drift { held } => {
                self.drifts += 1;
                if self.drifts % MARKS_PER_REPAIR == 1 {
                    Mark::Drifted { held }
                } else {
                    Mark::Nothing
                }
            }
            Checked::Same | Checked::Apart => Mark::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: fn(u64) -> RouteVersion = RouteVersion;

    #[test]
    fn only_what_is_whole_counts_as_held_but_every_frame_is_acknowledged() {
        let mut slice = SliceIn::default();
        assert!(!slice.applied(Some(&Applied::Applied), V(7), false));
        let (frames, version) = (1, V(0));
        assert_eq!(slice.receipt(), Frame::RoutesHeld { frames, version });
        assert!(!slice.applied(Some(&Applied::Applied), V(7), true));
        assert!(!slice.applied(Some(&Applied::Stale), V(5), true));
        let (frames, version) = (3, V(7));
        assert_eq!(slice.receipt(), Frame::RoutesHeld { frames, version });
        slice.reconnected();
        let frames = 0;
        assert_eq!(slice.receipt(), Frame::RoutesHeld { frames, version });
    }

    #[test]
    fn a_gap_and_a_frame_that_got_lost_are_reasons_to_ask_anew() {
        let mut slice = SliceIn::default();
        assert!(slice.applied(Some(&Applied::Gap), V(9), true));
        assert!(slice.applied(None, V(9), true));
        assert_eq!(slice.held(), V(0));
    }

    #[test]
    fn ticks_that_tell_of_more_for_too_long_are_a_reason_to_ask_anew() {
        let mut slice = SliceIn::default();
        let asked: Vec<bool> = (0..6).map(|_| slice.tick_came(V(3))).collect();
        assert_eq!(asked, [false, false, true, false, false, true]);
        assert!(!slice.applied(Some(&Applied::Applied), V(3), true));
        assert!(!(0..6).any(|_| slice.tick_came(V(3))));
    }

    #[test]
    fn a_drift_is_repaired_at_once_again_after_three_marks_and_told_when_it_is_over() {
        let mut slice = SliceIn::default();
        let drift = Checked::Drift { held: 1 };
        let marks: Vec<Mark> = (0..4).map(|_| slice.mark_came(drift)).collect();
        let drifted = Mark::Drifted { held: 1 };
        assert_eq!(marks, [drifted, Mark::Nothing, Mark::Nothing, drifted]);
        assert_eq!(slice.mark_came(Checked::Apart), Mark::Nothing);
        assert_eq!(slice.mark_came(Checked::Same), Mark::Repaired);
        assert_eq!(slice.mark_came(Checked::Same), Mark::Nothing);
    }
}
