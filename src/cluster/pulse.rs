//! The signs of life of one connection: when the other side was heard, when it is told that we are here.
//!
//! A value; looked at four times a tick. Silence is what is measured, so a host that was asleep, or an
//! arbiter that was busy, first reads what came meanwhile: it does not take its own absence for the other's.

use std::time::{Duration, Instant};

use crate::limits::{HANDSHAKE_DEADLINE, PEER_DOWN_AFTER, PEER_SUSPECT_AFTER, PEER_TICK};

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// Nothing to be done.
    Well,
    /// It was opened [`HANDSHAKE_DEADLINE`] ago, and its other end is not ready: close it.
    NotReady,
    /// Nothing came for so long, for the first time: the other side is suspect.
    Suspect(Duration),
    /// Nothing came for [`PEER_DOWN_AFTER`]: it is down.
    Down,
}

/// See the module's doc.
#[derive(Clone, Debug)]
pub struct Pulse {
    opened: Instant,
    heard: Instant,
    suspect: bool,
    /// When silence was looked for last.
    looked: Instant,
    /// When we ticked last, and the number.
    ticked: Instant,
    tick: u64,
}

impl Pulse {
    /// Of a connection that is opened now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            opened: now,
            heard: now,
            suspect: false,
            looked: now,
            ticked: now,
            tick: 0,
        }
    }

    /// A frame came. Whether the other side was suspect until now.
    #[must_use]
    pub fn heard(&mut self, now: Instant) -> bool {
        self.heard = now;
        std::mem::take(&mut self.suspect)
    }

    /// Is the other side there? `ready` once frames can be sent to it, `up` once the link carries routes.
    #[must_use]
    pub fn look(&mut self, ready: bool, up: bool, now: Instant) -> Finding {
        let overslept = now.saturating_duration_since(self.looked) > PEER_TICK * 2;
        self.looked = now;
        if !ready {
            let late = now.saturating_duration_since(self.opened) > HANDSHAKE_DEADLINE;
            return if late { Finding::NotReady } else { Finding::Well };
        }
        if overslept {
            // This arbiter was busy or the host asleep: what came meanwhile waits to be read.
            self.heard = self.heard.max(now.checked_sub(PEER_TICK).unwrap_or(now));
        }
        let silence = now.saturating_duration_since(self.heard);
        if silence >= PEER_DOWN_AFTER {
            return Finding::Down;
        }
        if silence >= PEER_SUSPECT_AFTER && up && !std::mem::replace(&mut self.suspect, true) {
            return Finding::Suspect(silence);
        }
        Finding::Well
    }

    /// Once per [`PEER_TICK`] of a connection that is ready: the number of the tick that is due.
    #[must_use]
    pub fn tick_due(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.ticked) < PEER_TICK {
            return None;
        }
        (self.tick, self.ticked) = (self.tick + 1, now);
        Some(self.tick)
    }

    /// A tick was answered: the round trip, unless it is the late answer to an earlier one.
    #[must_use]
    pub fn answered(&self, number: u64, now: Instant) -> Option<Duration> {
        (number == self.tick).then(|| now.saturating_duration_since(self.ticked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(since: Instant, seconds: f64) -> Instant {
        since + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_silent_side_is_suspect_once_then_down_and_a_frame_clears_it() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        let look = |pulse: &mut Pulse, after| pulse.look(true, true, seconds(began, after));
        assert_eq!(look(&mut pulse, 1.9), Finding::Well);
        assert_eq!(look(&mut pulse, 2.0), Finding::Suspect(PEER_SUSPECT_AFTER));
        assert_eq!(look(&mut pulse, 2.2), Finding::Well);
        assert!(pulse.heard(seconds(began, 2.3)));
        assert!(!pulse.heard(seconds(began, 2.3)));
        for quarter in 10..29 {
            assert_ne!(look(&mut pulse, f64::from(quarter) / 4.0), Finding::Down);
        }
        assert_eq!(look(&mut pulse, 7.3), Finding::Down);
    }

    #[test]
    fn who_overslept_reads_first_what_came_meanwhile() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        assert_eq!(pulse.look(true, true, seconds(began, 60.0)), Finding::Well);
        let silent = (1..=16).map(|quarter| seconds(began, 60.0 + f64::from(quarter) / 4.0));
        let found: Vec<_> = silent.map(|now| pulse.look(true, true, now)).collect();
        assert!(matches!(found[3], Finding::Suspect(_)), "{found:?}");
        assert_eq!(found[15], Finding::Down);
    }

    #[test]
    fn an_end_that_is_not_ready_in_time_is_given_up_and_is_never_suspect() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        assert_eq!(
            pulse.look(false, false, began + HANDSHAKE_DEADLINE),
            Finding::Well
        );
        let late = began + HANDSHAKE_DEADLINE + Duration::from_millis(1);
        assert_eq!(pulse.look(false, false, late), Finding::NotReady);
    }

    #[test]
    fn ticks_are_numbered_and_only_the_last_one_measures_the_way() {
        let began = Instant::now();
        let mut pulse = Pulse::new(began);
        assert_eq!(pulse.tick_due(seconds(began, 0.9)), None);
        assert_eq!(pulse.tick_due(seconds(began, 1.0)), Some(1));
        assert_eq!(pulse.tick_due(seconds(began, 1.5)), None);
        assert_eq!(
            pulse.answered(1, seconds(began, 1.25)),
            Some(Duration::from_millis(250))
        );
        assert_eq!(pulse.tick_due(seconds(began, 2.0)), Some(2));
        assert_eq!(pulse.answered(1, seconds(began, 2.1)), None);
    }
}
