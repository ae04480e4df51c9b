//! What the store does.

use std::fmt::Error;

use prometheus_client::metrics::MetricType;

use super::{Label, Metrics};
use crate::broker::storage::{COMMIT_BOUNDS_MS, Condition, Figures};

pub(super) fn encode(metrics: &mut Metrics<'_, '_>, store: &Figures) -> Result<(), Error> {
    metrics.gauge(
        "ermine_store_failing",
        "1 if the disk takes nothing: what must be stored is refused",
        if store.condition == Condition::Failing {
            1.0
        } else {
            0.0
        },
    )?;
    commits(metrics, store)?;
    counters(metrics, store)?;
    gauges(metrics, store)
}

fn counters(metrics: &mut Metrics<'_, '_>, store: &Figures) -> Result<(), Error> {
    let counters = [
        (
            "ermine_store_failures",
            "Commits that were tried in vain",
            store.failures,
        ),
        ("ermine_store_syncs", "Syncs of the file", store.syncs),
        (
            "ermine_store_record_bytes",
            "Bytes of the records that were written",
            store.record_bytes,
        ),
        (
            "ermine_store_written_bytes",
            "Bytes that were written to the file, for records and all that they need",
            store.file_bytes_written,
        ),
        ("ermine_store_changes", "Changes that were noted", store.changes),
        (
            "ermine_store_changes_spared",
            "Changes that were never written, as others had made them superfluous",
            store.spared,
        ),
        (
            "ermine_store_records_damaged",
            "Records that were found damaged and left out",
            store.damaged,
        ),
    ];
    counters
        .into_iter()
        .try_for_each(|(name, help, value)| metrics.counter(name, help, value))
}

fn gauges(metrics: &mut Metrics<'_, '_>, store: &Figures) -> Result<(), Error> {
    let gauges = [
        (
            "ermine_store_file_bytes",
            "Bytes of the file",
            store.file_bytes as f64,
        ),
        (
            "ermine_store_pending_records",
            "Records that are to be written",
            store.pending as f64,
        ),
        (
            "ermine_store_pending_bytes",
            "Bytes that are noted and not yet safe",
            store.pending_bytes as f64,
        ),
        (
            "ermine_store_held_changes",
            "Changes of QoS 2 publications that have not been everywhere yet",
            store.held as f64,
        ),
        (
            "ermine_store_waiting_seconds",
            "How long the oldest change that is not yet safe has waited",
            store.waiting_us as f64 / 1e6,
        ),
    ];
    gauges
        .into_iter()
        .try_for_each(|(name, help, value)| metrics.gauge(name, help, value))
}

/// How many commits there were, and what they took.
fn commits(metrics: &mut Metrics<'_, '_>, store: &Figures) -> Result<(), Error> {
    let bounds = COMMIT_BOUNDS_MS.iter().map(|bound| *bound as f64 / 1000.0);
    let classes = bounds.chain([f64::MAX]).zip(store.commits_within);
    let classes: Vec<_> = classes.collect();
    let mut metric = metrics.0.encode_descriptor(
        "ermine_store_commit_seconds",
        "What commits took, with the wait for the disk",
        None,
        MetricType::Histogram,
    )?;
    metric.encode_histogram::<[Label<'_>; 0]>(store.commit_us as f64 / 1e6, store.commits, &classes, None)
}
