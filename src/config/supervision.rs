//! The `[supervision]` of a configuration: how many restarts each supervisor of the tree tolerates.
//!
//! Only what differs from the tree's own numbers (`src/tree.rs`) is kept here. Supervisors that have only
//! temporary children (a shard of sessions, `connections`, `peers`) restart nobody and have no key.

use std::collections::BTreeMap;
use std::time::Duration;

use supervisors::Intensity;

use super::file::{ConfigError, Section};

/// The supervisors that an intensity can be set for: their ids in the tree.
pub(super) const SUPERVISORS: [&str; 7] = ["root", "core", "topics", "sessions", "doors", "cluster", "admin"];

/// Most restarts in one period: each is remembered with its time until the period is over.
const RESTARTS_MAX: u64 = 10_000;

/// Longest period: a day.
const PERIOD_MS_MAX: u64 = 24 * 3600 * 1000;

/// How the inner tables are called in sentences.
pub(super) const TITLE: &str = "an intensity of [supervision]";
pub(super) const KEYS: [&str; 2] = ["restarts", "period_ms"];

/// The intensities that the operator has set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervision(BTreeMap<&'static str, Intensity>);

impl Supervision {
    /// What was set for the supervisor with this id, if anything.
    #[must_use]
    pub fn of(&self, supervisor: &str) -> Option<Intensity> {
        self.0.get(supervisor).copied()
    }
}

/// Reads `core = { restarts = 5, period_ms = 60000 }` and its like.
pub(super) fn read(section: &Section<'_>, supervision: &mut Supervision) -> Result<(), ConfigError> {
    for name in SUPERVISORS {
        let Some(value) = section.value(name) else {
            continue;
        };
        let example = format!("for example {name} = {{ restarts = 5, period_ms = 60000 }}");
        let Some(table) = value.get_ref().as_table() else {
            let what = format!("{name} must be an intensity, {example}");
            return Err(section.document.error(value.span(), what));
        };
        let intensity = Section::new(section.document, TITLE, &KEYS, table)?;
        let restarts = intensity.number("restarts", 0, RESTARTS_MAX)?;
        let period_ms = intensity.number("period_ms", 1, PERIOD_MS_MAX)?;
        let (Some(restarts), Some(period_ms)) = (restarts, period_ms) else {
            let missing = if restarts.is_none() { KEYS[0] } else { KEYS[1] };
            let what =
                format!("{name} lacks {missing}: an intensity is so many restarts in such a time, {example}");
            return Err(section.document.error(value.span(), what));
        };
        let intensity = Intensity {
            // In range, see above.
            restarts: restarts as u32,
            period: Duration::from_millis(period_ms),
        };
        supervision.0.insert(name, intensity);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
