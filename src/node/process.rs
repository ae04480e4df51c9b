//! What the operating system tells of this process.

use std::fs;

use crate::admin::census::Process;

/// Clock ticks in a second, as `/proc` counts them: fixed at 100 on every Linux for user space (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

/// This process now; zeros where there is no `/proc`.
pub(super) fn now() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Process {
        resident_bytes: field(&status, "VmRSS:") * 1024,
        threads: field(&status, "Threads:"),
        cpu_s: ticks(&stat) as f64 / TICKS_PER_S,
        // Its size is their number, since Linux 6.2. To list 100,000 of them would hold everybody else up.
        descriptors: fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len()),
    }
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/self/stat`; the name in field 2 may hold anything.
fn ticks(stat: &str) -> u64 {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = behind_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_proc_are_found() {
        assert_eq!(field("Name:\tx\nVmRSS:\t  1234 kB\n", "VmRSS:"), 1234);
        assert_eq!(field("", "VmRSS:"), 0);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 4 0";
        assert_eq!(ticks(stat), 42);
        assert_eq!(ticks(""), 0);
    }
}
