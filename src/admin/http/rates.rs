//! What was counted each second of the last minutes: a page that is opened has a past to show.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::broker::counters::Snapshot;

/// Samples that are kept: five minutes.
const SAMPLES_MAX: usize = 301;

/// The counters of messages at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// When, in milliseconds since 1970.
    pub(super) at_ms: u64,
    /// PUBLISH packets that clients sent.
    pub(super) received: u64,
    /// PUBLISH packets given to clients.
    pub(super) delivered: u64,
    /// Messages that were dropped.
    pub(super) dropped: u64,
}

/// The samples, oldest first.
#[derive(Default)]
pub(super) struct Rates(Mutex<VecDeque<Sample>>);

impl Rates {
    /// Takes a sample. The oldest gives way.
    pub(super) fn note(&self, at_ms: u64, counted: &Snapshot) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(Sample {
            at_ms,
            received: counted.received,
            delivered: counted.delivered,
            dropped: counted.dropped(),
        });
    }

    /// The samples later than that.
    pub(super) fn since(&self, at_ms: u64) -> Vec<Sample> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples
            .iter()
            .filter(|sample| sample.at_ms > at_ms)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_bounded_and_told_from_any_moment_on() {
        let rates = Rates::default();
        for at_ms in 1..=400 {
            rates.note(
                at_ms,
                &Snapshot {
                    received: at_ms,
                    ..Snapshot::default()
                },
            );
        }
        assert_eq!(rates.since(0).len(), SAMPLES_MAX);
        let last = rates.since(399);
        assert_eq!((last.len(), last[0].received), (1, 400));
    }
}
