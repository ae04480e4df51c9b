//! Restart intensity, OTP's `add_restart/1` (stdlib `supervisor.erl`): how many restarts in how long are too
//! many.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At most `restarts` restarts within `period`; one more and the supervisor gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are tolerated within the period.
    pub restarts: u32,
    /// The sliding window.
    pub period: Duration,
}

impl Intensity {
    /// `restarts` within `period_secs` seconds.
    pub const fn new(restarts: u32, period_secs: u64) -> Self {
        Intensity {
            restarts,
            period: Duration::from_secs(period_secs),
        }
    }
}

impl Default for Intensity {
    /// OTP's default: 1 in 5 s.
    fn default() -> Self {
        Intensity::new(1, 5)
    }
}

/// The verdict over one more restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; this is the `n`-th restart within the period.
    Restart(u32),
    /// Give up: `reached_max_restart_intensity`.
    GiveUp,
}

/// The times of the restarts that still count. Never longer than `restarts + 1`.
///
/// ```
/// use std::time::{Duration, Instant};
/// use supervisors::intensity::{Intensity, RestartWindow, Verdict};
///
/// let (start, mut window) = (Instant::now(), RestartWindow::new(Intensity::new(2, 60)));
/// assert_eq!(window.add(start), Verdict::Restart(1));
/// assert_eq!(window.add(start + Duration::from_secs(30)), Verdict::Restart(2));
/// // The first is more than a minute ago and forgotten.
/// assert_eq!(window.add(start + Duration::from_secs(61)), Verdict::Restart(2));
/// assert_eq!(window.add(start + Duration::from_secs(62)), Verdict::GiveUp);
/// ```
#[derive(Clone, Debug)]
pub struct RestartWindow {
    intensity: Intensity,
    restarts: VecDeque<Instant>,
}

impl RestartWindow {
    /// A window in which nothing has happened.
    pub fn new(intensity: Intensity) -> Self {
        RestartWindow {
            intensity,
            restarts: VecDeque::new(),
        }
    }

    /// The numbers it was made with.
    pub fn intensity(&self) -> Intensity {
        self.intensity
    }

    /// Restarts that still count at `now`.
    pub fn used(&self, now: Instant) -> u32 {
        let counts = |then: &&Instant| now.saturating_duration_since(**then) <= self.intensity.period;
        u32::try_from(self.restarts.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// Counts one restart at `now`. A restart exactly `period` ago still counts, as in OTP.
    pub fn add(&mut self, now: Instant) -> Verdict {
        while self
            .restarts
            .front()
            .is_some_and(|&then| now.saturating_duration_since(then) > self.intensity.period)
        {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        let count = self.restarts.len();
        if count > self.intensity.restarts as usize {
            self.restarts.pop_front();
            return Verdict::GiveUp;
        }
        Verdict::Restart(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// supervisor.erl, word for word.
    fn otp(restarts: &mut Vec<Duration>, now: Duration, intensity: Intensity) -> bool {
        restarts.insert(0, now);
        restarts.retain(|&then| then + intensity.period >= now);
        restarts.len() <= intensity.restarts as usize
    }

    #[test]
    fn ten_in_a_hundred_seconds_are_tolerated_and_the_eleventh_is_not() {
        let (start, mut window) = (Instant::now(), RestartWindow::new(Intensity::new(10, 100)));
        for n in 1..=10 {
            assert_eq!(
                window.add(start + Duration::from_secs(u64::from(n))),
                Verdict::Restart(n)
            );
        }
        assert_eq!(window.add(start + Duration::from_secs(100)), Verdict::GiveUp);
    }

    #[test]
    fn an_intensity_of_zero_tolerates_nothing() {
        assert_eq!(
            RestartWindow::new(Intensity::new(0, 60)).add(Instant::now()),
            Verdict::GiveUp
        );
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_supervisor_erl(
            restarts in 0u32..8, period in 0u64..20, gaps in prop::collection::vec(0u64..12, 1..40)
        ) {
            let intensity = Intensity::new(restarts, period);
            let (start, mut window, mut model) = (Instant::now(), RestartWindow::new(intensity), Vec::new());
            let mut at = Duration::ZERO;
            for gap in gaps {
                at += Duration::from_secs(gap);
                let go_on = otp(&mut model, at, intensity);
                prop_assert_eq!(window.add(start + at) != Verdict::GiveUp, go_on);
                if !go_on { break }
            }
        }
    }
}
