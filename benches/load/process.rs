//! What a broker's process costs, from `/proc`.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// A broker that is measured.
#[derive(Clone)]
pub(crate) struct Broker {
    /// How it is called in the table.
    pub(crate) name: String,
    /// HOST:PORT of the MQTT listener of each of its nodes.
    pub(crate) at: Vec<String>,
    /// Their processes, as far as they run here.
    pub(crate) pids: Vec<u32>,
}

impl Broker {
    /// Where a client connects: they are spread over the nodes.
    pub(crate) fn seat(&self, client: usize) -> &str {
        &self.at[client % self.at.len()]
    }

    /// The same nodes, each client one further on: whoever is to hear of another node's clients.
    pub(crate) fn turned(&self) -> Self {
        let mut turned = self.clone();
        turned.at.rotate_left(1);
        turned
    }

    /// Of all processes together; not a number where nothing is known.
    fn sum(&self, of: impl Fn(u32) -> f64) -> f64 {
        if self.pids.is_empty() {
            return f64::NAN;
        }
        self.pids.iter().map(|pid| of(*pid)).sum()
    }

    /// User and system time of all threads so far, in seconds. The kernel tells it in hundredths.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.sum(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name, which may contain anything but ends at the last parenthesis.
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let ticks = fields.split_whitespace().skip(11).take(2);
            ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
        })
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> f64 {
        self.sum(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(f64::NAN)
        })
    }
}

/// What a broker does to the disk from here on.
pub(crate) struct Disk {
    broker: Broker,
    written: f64,
    /// `perf stat`, which counts the calls of fsync and fdatasync; not everywhere there, or allowed.
    counting: Option<Child>,
}

impl Broker {
    pub(crate) fn disk(&self) -> Disk {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let counting = (!pids.is_empty()).then(|| {
            Command::new("perf")
                .args(["stat", "-x", ";", "-e"])
                .arg("syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync")
                .args(["-p", &pids.join(",")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        });
        let counting = counting.and_then(Result::ok);
        Disk {
            broker: self.clone(),
            written: self.written(),
            counting,
        }
    }

    /// Bytes that its writes have made dirty, as the kernel counts them.
    fn written(&self) -> f64 {
        self.sum(|pid| {
            let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
            let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
            line.and_then(|line| line.parse().ok()).unwrap_or(f64::NAN)
        })
    }
}

impl Disk {
    /// Syncs and bytes since then; NaN where nobody can tell.
    pub(crate) fn used(self) -> (f64, f64) {
        let written = self.broker.written() - self.written;
        let Some(mut counting) = self.counting else {
            return (f64::NAN, written);
        };
        let pid = counting.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let mut told = String::new();
        if let Some(mut stderr) = counting.stderr.take() {
            let _ = stderr.read_to_string(&mut told);
        }
        let _ = counting.wait();
        let counts: Vec<f64> = told
            .lines()
            .filter(|line| line.contains("sys_enter_f"))
            .filter_map(|line| line.split(';').next()?.parse().ok())
            .collect();
        let syncs = if counts.is_empty() {
            f64::NAN
        } else {
            counts.iter().sum()
        };
        (syncs, written)
    }
}
