//! The scale under the node, and the witness beside the flood.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, Node};

/// What the node may take for itself beside what the limits say: code that runs for the first time, its
/// queues between threads (1 MiB of mail per pair of arbiters, 1 MiB per topic), and what the allocator
/// keeps.
pub(crate) const OWN_MIB: u64 = 24;

/// Bytes of one flood.
pub(crate) fn flood_bytes() -> usize {
    let mib = std::env::var("ERMINE_FLOOD_MIB").ok();
    mib.and_then(|text| text.parse::<usize>().ok()).unwrap_or(48) << 20
}

/// Resident memory of a node, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a Linux process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.expect("VmRSS in KiB") << 10
}

/// Weighs a node as long as it is not asked for the result.
pub(crate) struct Scale {
    before: u64,
    stop: Arc<AtomicBool>,
    weighing: JoinHandle<u64>,
}

impl Scale {
    pub(crate) fn under(node: &Node) -> Self {
        let (pid, stop) = (node.pid(), Arc::new(AtomicBool::new(false)));
        let before = resident(pid);
        let told = stop.clone();
        let weighing = std::thread::spawn(move || {
            let mut most = before;
            while !told.load(Relaxed) {
                most = most.max(resident(pid));
                std::thread::park_timeout(Duration::from_millis(5));
            }
            most.max(resident(pid))
        });
        Self {
            before,
            stop,
            weighing,
        }
    }

    /// Asserts that the node has never been heavier than `bound` bytes (and [`OWN_MIB`]) more than before.
    #[track_caller]
    pub(crate) fn assert_grew_by_at_most(self, what: &str, bound: u64) {
        self.stop.store(true, Relaxed);
        let most = self.weighing.join().expect("weighed");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let grown = most.saturating_sub(self.before);
        println!(
            "{what}: {:.1} MiB before, {:.1} MiB at most, bound {:.1} MiB + {OWN_MIB}",
            mib(self.before),
            mib(most),
            mib(bound)
        );
        assert!(
            grown <= bound + (OWN_MIB << 20),
            "{what}: grew by {:.1} MiB, may grow by {:.1} MiB + {OWN_MIB}",
            mib(grown),
            mib(bound)
        );
    }
}

/// A client that sends itself messages during a flood.
pub(crate) struct Witness {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<(u32, Duration)>,
}

impl Witness {
    pub(crate) fn of(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let mut client = Options::new("witness").connect(address);
        client.subscribe("witness", QoS::AtLeastOnce);
        let watching = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !told.load(Relaxed) {
                let began = Instant::now();
                client.publish_and_receive("witness");
                slowest = slowest.max(began.elapsed());
                count += 1;
                std::thread::park_timeout(Duration::from_millis(5));
            }
            (count, slowest)
        });
        Self { stop, watching }
    }

    /// Asserts that each of its messages came, and none late.
    #[track_caller]
    pub(crate) fn assert_unharmed(self) {
        self.stop.store(true, Relaxed);
        let (count, slowest) = self.watching.join().expect("every message came");
        println!("witness: {count} messages, the slowest took {slowest:?}");
        // Debug builds on a machine that runs other tests: a second tells waiting from being stopped.
        assert!(
            count > 0 && slowest < Duration::from_secs(3),
            "{count}, {slowest:?}"
        );
    }
}

/// What the node has counted under a name.
pub(crate) fn counted(host: &Host, node: &Node, name: &str) -> u64 {
    let status = host.json(&["status", "--node", &node.name]);
    let counters = status["counters"].as_array().expect("a list of counters");
    let found = counters.iter().find(|counter| counter[0] == name);
    found.and_then(|counter| counter[1].as_u64()).expect("counted")
}
