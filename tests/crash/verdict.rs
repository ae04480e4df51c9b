//! What clients saw of some crashes: what they lost, and how long they waited.

use std::time::{Duration, Instant};

/// A message is concerned by a crash if it was on its way then, or sent within this time.
const AFTERMATH: Duration = Duration::from_millis(100);

/// One delivery.
#[derive(Clone, Copy)]
pub(crate) struct Came {
    pub sent: Instant,
    pub at: Instant,
}

/// One crash, and when what crashed was there again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    pub at: Instant,
    pub back: Instant,
}

/// What the clients of a load saw.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Connections that did not live to the end of the load.
    pub closed: u64,
    /// QoS 1 and 2 messages that did not come.
    pub lost: u64,
    /// QoS 1 and 2 messages that came again.
    pub doubled: u64,
    pub came: Vec<Came>,
    /// The first few reasons for `closed`.
    pub why: Vec<String>,
}

/// From publication to delivery, in milliseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Delay {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict {
            closed,
            lost,
            doubled,
            came,
            why,
        } = self;
        let came = came.len();
        write!(
            f,
            "{closed} closed, {lost} lost, {doubled} doubled of {came}: {why:?}"
        )
    }
}

impl Verdict {
    pub(crate) fn broken(&mut self, why: String) {
        self.closed += 1;
        if self.why.len() < 5 {
            self.why.push(why);
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        (self.closed, self.lost, self.doubled) == (0, 0, 0)
    }

    /// The delay of the messages that met a crash, and of all others. `crashes` are in order.
    pub(crate) fn delays(&self, crashes: &[Crash]) -> (Delay, Delay) {
        let met = |came: &Came| {
            let before = crashes.partition_point(|crash| crash.at <= came.at);
            let last = before.checked_sub(1).map(|index| crashes[index]);
            last.is_some_and(|crash| came.sent <= crash.back.max(crash.at + AFTERMATH))
        };
        let (met, others): (Vec<Came>, Vec<Came>) = self.came.iter().partition(|came| met(came));
        (Delay::of(&met), Delay::of(&others))
    }
}

impl Delay {
    fn of(came: &[Came]) -> Self {
        let took = |came: &Came| came.at.saturating_duration_since(came.sent).as_secs_f64() * 1e3;
        let mut took: Vec<f64> = came.iter().map(took).collect();
        took.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = (took.len() as f64 * share) as usize;
            took.get(position.min(took.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0.0)
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}
