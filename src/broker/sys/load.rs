//! The load averages of `$SYS/broker/load`: how much per minute, over the last 1, 5 and 15 minutes, as
//! mosquitto reckons them.

use std::time::Duration;

use crate::broker::counters::Snapshot;

/// Over how many minutes, and the level of the topic that says so.
const SPANS: [(f64, &str); 3] = [(1.0, "1min"), (5.0, "5min"), (15.0, "15min")];

/// What is averaged: the levels of the topic below `load/`, and the counter.
type Measure = (&'static str, fn(&Snapshot) -> u64);

const MEASURES: [Measure; 9] = [
    ("messages/received", |counted| counted.packets_received),
    ("messages/sent", |counted| {
        counted.packets_sent + counted.publishes_sent
    }),
    ("publish/received", |counted| counted.received),
    ("publish/sent", |counted| counted.publishes_sent),
    ("publish/dropped", Snapshot::dropped),
    ("bytes/received", |counted| counted.bytes_received),
    ("bytes/sent", |counted| counted.bytes_sent),
    ("sockets", |counted| counted.sockets_opened),
    ("connections", |counted| counted.connects_accepted),
];

/// The averages; moved on by [`Load::update`].
#[derive(Debug, Default)]
pub(super) struct Load {
    /// What each counter was at the last update.
    before: [u64; MEASURES.len()],
    /// Per minute.
    averages: [[f64; SPANS.len()]; MEASURES.len()],
    began: bool,
}

impl Load {
    /// So much has been counted, this long after the last update.
    pub(super) fn update(&mut self, counted: &Snapshot, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        for (index, (_, count)) in MEASURES.iter().enumerate() {
            let now = count(counted);
            // Fewer than before: the tables are new.
            let per_minute = now.saturating_sub(self.before[index]) as f64 / minutes;
            self.before[index] = now;
            for (average, (span, _)) in self.averages[index].iter_mut().zip(SPANS) {
                let kept = if self.began { (-minutes / span).exp() } else { 0.0 };
                *average = per_minute + kept * (*average - per_minute);
            }
        }
        self.began = true;
    }

    /// Topics and what they say.
    pub(super) fn values(&self) -> impl Iterator<Item = (String, String)> {
        MEASURES
            .iter()
            .zip(&self.averages)
            .flat_map(|((name, _), averages)| {
                let spans = SPANS.iter().zip(averages);
                spans.map(move |((_, span), average)| {
                    (format!("$SYS/broker/load/{name}/{span}"), format!("{average:.2}"))
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(load: &Load, topic: &str) -> String {
        let mut values = load.values();
        let found = values.find(|(name, _)| name == &format!("$SYS/broker/load/{topic}"));
        found.expect("the topic is there").1
    }

    #[test]
    fn an_average_begins_with_the_first_rate_and_follows_it_the_faster_the_shorter_its_span() {
        let (mut load, mut counted) = (Load::default(), Snapshot::default());
        counted.received = 10;
        load.update(&counted, Duration::from_secs(10));
        for span in ["1min", "5min", "15min"] {
            assert_eq!(said(&load, &format!("publish/received/{span}")), "60.00");
        }
        load.update(&counted, Duration::from_secs(60));
        assert_eq!(said(&load, "publish/received/1min"), "22.07");
        assert_eq!(said(&load, "publish/received/5min"), "49.12");
        assert_eq!(said(&load, "publish/received/15min"), "56.13");
        assert_eq!(said(&load, "sockets/1min"), "0.00");
        assert_eq!(load.values().count(), 27);
    }
}
