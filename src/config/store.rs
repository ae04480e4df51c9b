//! The `[store]` of a configuration: when what must outlast the process is safe on the disk.

use std::time::Duration;

use super::file::{ConfigError, Section};
use crate::store::{Pace, Sync};

/// The keys.
pub(super) const KEYS: &[&str] = &["sync", "group_ms", "interval_ms"];

/// What the section says.
pub(super) fn read(section: &Section<'_>) -> Result<Pace, ConfigError> {
    let mut pace = Pace::default();
    if let Some(sync) = section.parsed_by("sync", sync)? {
        pace.sync = sync;
    }
    if let Some(group_ms) = section.number("group_ms", 0, 100)? {
        pace.group = Duration::from_millis(group_ms);
    }
    if let Some(interval_ms) = section.number("interval_ms", 10, 60_000)? {
        if pace.sync != Sync::Interval {
            let what = "interval_ms has no effect without sync = \"interval\"";
            return Err(section.lacks("interval_ms", what));
        }
        pace.interval = Duration::from_millis(interval_ms);
    }
    Ok(pace)
}

fn sync(text: &str) -> Result<Sync, String> {
    match text {
        "group" => Ok(Sync::Group),
        "interval" => Ok(Sync::Interval),
        "off" => Ok(Sync::Off),
        _ => Err(format!("sync must be one of group, interval, off, not '{text}'")),
    }
}
