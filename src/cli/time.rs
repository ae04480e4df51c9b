//! Points in time as text: UTC, to the second, as RFC 3339 has it.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::macros::format_description;

/// `2026-02-03T04:05:06Z` of milliseconds since 1970; what the calendar cannot hold is printed as it is.
pub(super) fn utc(ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let moment = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(moment)
        .ok()
        .and_then(|moment| moment.format(&format).ok())
        .unwrap_or_else(|| format!("{ms}ms"))
}

/// The same of now, to the microsecond: the stamp of a line of the log.
pub(super) fn stamp(now: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::from(now).format(&format).unwrap_or_default()
}

/// `3s`, `2m05s`, `7h08m`, `12d03h`: how long something has lasted.
pub(super) fn age(lasted: Duration) -> String {
    let seconds = lasted.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_772_345_678_999), "2026-03-01T06:14:38Z");
        assert_eq!(utc(u64::MAX), format!("{}ms", u64::MAX));
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_001);
        assert_eq!(stamp(now), "1970-01-01T00:00:01.500001Z");
    }

    #[test]
    fn ages_have_two_units() {
        let text = [5, 65, 7200, 90_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(text, ["5s", "1m05s", "2h00m", "1d01h"]);
    }
}
