//! What a broker's process costs, from `/proc`.

use std::fs;

/// A broker that is measured.
#[derive(Clone)]
pub(crate) struct Broker {
    /// How it is called in the table.
    pub(crate) name: String,
    /// HOST:PORT of its MQTT listener.
    pub(crate) at: String,
    /// Its process, if it runs here.
    pub(crate) pid: Option<u32>,
}

impl Broker {
    /// User and system time of all its threads so far, in seconds. The kernel tells it in hundredths.
    pub(crate) fn cpu_s(&self) -> f64 {
        let Some(pid) = self.pid else { return f64::NAN };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may contain anything but ends at the last parenthesis.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> f64 {
        let Some(pid) = self.pid else { return f64::NAN };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(f64::NAN)
    }
}
