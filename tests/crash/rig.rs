//! A node that may be crashed, the operator who does it, and what happened.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ermine::admin::client::Operator;
use ermine::admin::protocol::{Reply, Request, RestartEntry, TreeEntry};
use ermine::mqtt::packet::QoS;
use ermine::registry::{Cookie, Endpoint, Registration};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::load::Load;
use crate::verdict::{Crash, Delay, Verdict};

/// Crashes of each kind in the tests that are not a soak.
pub(crate) const ROUNDS: usize = 3;

/// Clients of the load in those tests.
pub(crate) const CLIENTS: usize = 24;

/// No supervisor gives up: what is judged is a single crash, a hundred times.
const PATIENT: &str = "[supervision]
root = { restarts = 10000, period_ms = 1000 }
core = { restarts = 10000, period_ms = 1000 }
topics = { restarts = 10000, period_ms = 1000 }
sessions = { restarts = 10000, period_ms = 1000 }
doors = { restarts = 10000, period_ms = 1000 }
cluster = { restarts = 10000, period_ms = 1000 }
admin = { restarts = 10000, period_ms = 1000 }
";

/// A node on a host of its own, and an operator who knows where it is: also while it has no registry.
pub(crate) struct Rig {
    pub node: Node,
    pub host: Host,
    operator: Operator,
    registration: Registration,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    /// A node on a host of its own.
    pub(crate) fn start() -> Self {
        Self::on(Host::new(), "ermine@127.0.0.1")
    }

    /// A node on a given host.
    pub(crate) fn on(host: Host, name: &str) -> Self {
        Self::with(host, name, &[])
    }

    /// A node whose supervisors never give up.
    pub(crate) fn patient(name: &str) -> Self {
        let host = Host::new();
        let file = host.home().join("patient.toml");
        std::fs::write(&file, PATIENT).expect("written");
        let file = file.to_str().expect("a path of ours").to_owned();
        Self::with(host, name, &["--config", &file])
    }

    fn with(host: Host, name: &str, more: &[&str]) -> Self {
        // Two workers, so that there are delegates and mail; JSON, so that reports are read as data.
        let mut arguments = vec!["--worker-threads", "2", "--log-format", "json"];
        arguments.extend(more);
        let node = host.start_with(name, &arguments);
        let cookie = Cookie::load(&host.home().join(".ermine.cookie")).expect("the node made one");
        let here: SocketAddr = ([127, 0, 0, 1], host.registry_port).into();
        let operator = Operator::new(
            cookie,
            Endpoint {
                bind: here,
                contact: here,
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let name = name.parse().expect("a node name");
        let registration = eventually("the node is registered", || {
            runtime.block_on(operator.find(Some(&name), None)).ok()
        });
        Self {
            node,
            host,
            operator,
            registration,
            runtime,
        }
    }

    /// Asks once.
    pub(crate) fn try_ask(&self, request: &Request) -> Option<Vec<Reply>> {
        let mut replies = Vec::new();
        let asked = self
            .operator
            .ask(&self.registration, request, |reply| replies.push(reply));
        self.runtime.block_on(asked).ok().map(|()| replies)
    }

    /// Asks until there is an answer: what answers may itself be restarting.
    pub(crate) fn ask(&self, request: &Request) -> Vec<Reply> {
        eventually("the node answers its operator", || self.try_ask(request))
    }

    /// Crashes one process. What answers may itself be restarting, or not be there yet.
    pub(crate) fn crash(&self, path: &str) {
        let request = Request::Crash { path: path.into() };
        let mut last = None;
        eventually(&format!("{path} is crashed"), || {
            let mut said = false;
            // The answer to a crash of what answers may be lost with it.
            let told = |reply| said |= matches!(reply, Reply::Crashed(_));
            let asked = self.operator.ask(&self.registration, &request, told);
            let asked = self.runtime.block_on(asked);
            if !said && format!("{asked:?}") != format!("{last:?}") {
                // For the reader of a failed test.
                eprintln!("{path} was not crashed: {asked:?}");
                last = Some(asked);
            }
            said.then_some(())
        });
    }

    /// Waits for the report of an end after the first `mark` lines of the log; if `restarted`, for the one of
    /// the restart. How long it was down, in µs.
    pub(crate) fn await_report(&self, mark: usize, path: &str, restarted: bool) -> u64 {
        let (parent, id) = path.rsplit_once('/').expect("a child");
        let id = id.replace("%2F", "/").replace("%25", "%");
        let downtime = |line: &str| {
            let mark = if restarted {
                "downtime_us"
            } else {
                "child_terminated"
            };
            if !line.contains(mark) {
                return None;
            }
            let report: serde_json::Value = serde_json::from_str(line).ok()?;
            let child = if restarted {
                &report["started"]
            } else {
                &report["offender"]
            };
            let mine = report["supervisor"] == parent && child["id"] == *id;
            mine.then(|| report["downtime_us"].as_u64().unwrap_or_default())
        };
        let line = self
            .node
            .log
            .wait_after(mark, &format!("a report of {path}"), |line| {
                downtime(line).is_some()
            });
        downtime(&line).unwrap_or_default()
    }

    /// All processes.
    pub(crate) fn tree(&self) -> Vec<TreeEntry> {
        let replies = self.ask(&Request::Tree).into_iter();
        let chunks = replies.filter_map(|reply| match reply {
            Reply::Tree(entries) => Some(entries),
            _ => None,
        });
        chunks.flatten().collect()
    }

    /// The paths below a supervisor, in the order of the tree.
    pub(crate) fn below(&self, supervisor: &str) -> Vec<String> {
        let inside = format!("{supervisor}/");
        let paths = self.tree().into_iter().map(|entry| entry.path);
        paths.filter(|path| path.starts_with(&inside)).collect()
    }

    /// Every restart so far.
    pub(crate) fn restarts(&self) -> Vec<RestartEntry> {
        let replies = self.ask(&Request::Restarts).into_iter();
        let chunks = replies.filter_map(|reply| match reply {
            Reply::Restarts(entries) => Some(entries),
            _ => None,
        });
        chunks.flatten().collect()
    }

    /// Restarts of one process.
    pub(crate) fn restarts_of(&self, path: &str) -> Vec<RestartEntry> {
        let mine = |entry: &RestartEntry| entry.path == path && entry.outcome == "restarted";
        self.restarts().into_iter().filter(mine).collect()
    }

    /// Waits until one process has been restarted so often; how long it was down the last time.
    pub(crate) fn await_restart(&self, path: &str, times: usize) -> Duration {
        let last = eventually(&format!("restart {times} of {path}"), || {
            self.restarts_of(path).get(times - 1).cloned()
        });
        Duration::from_micros(last.downtime_us)
    }

    /// All counters of the node. They begin anew with each life of `core`.
    pub(crate) fn counters(&self) -> Vec<(String, u64)> {
        let status = eventually("the node's status", || {
            self.try_ask(&Request::Status)?
                .into_iter()
                .find_map(|reply| match reply {
                    Reply::Status(status) => Some(status),
                    _ => None,
                })
        });
        status.counters
    }

    /// A new client uses what it can: subscribes, publishes, gets what is retained.
    pub(crate) fn probe(&self, round: usize, kept: &str) {
        let mut client = Options::new(&format!("probe-{round}")).connect(self.node.mqtt);
        self.use_it(&mut client, round, kept);
        client.disconnect();
    }

    fn use_it(&self, client: &mut Client, round: usize, kept: &str) {
        let topic = format!("probe/{round}");
        client.subscribe(&topic, QoS::AtLeastOnce);
        client.publish_and_receive(&topic);
        let topic = format!("kept/{kept}");
        client.publish_with(&topic, &round.to_string(), QoS::AtLeastOnce, true);
        client.subscribe(&topic, QoS::AtLeastOnce);
        assert_eq!(client.text(), round.to_string(), "what was retained just now");
        client.unsubscribe(&topic);
    }

    /// Crashes something a few times under load and asserts that nothing is lost by it: no connection is
    /// closed, no QoS 1 or 2 message is lost or comes twice, and new clients are served at once.
    pub(crate) fn nothing_is_lost_by(what: &str, mut pick: impl FnMut(&Self, usize) -> String) {
        let rig = Self::start();
        let load = Load::start(rig.node.mqtt, CLIENTS);
        let ordeal = rig.ordeal(what, ROUNDS, load, |rig, round| (pick(rig, round), true));
        ordeal.print();
        assert!(ordeal.cost_nothing(), "{ordeal:?}");
    }

    /// Crashes what is picked so often under load, each time as soon as it runs again (if it is to be
    /// restarted) and traffic flows.
    pub(crate) fn ordeal(
        &self,
        what: &str,
        rounds: usize,
        load: Load,
        mut pick: impl FnMut(&Self, usize) -> (String, bool),
    ) -> Ordeal {
        let (mut crashes, mut down_us, mut stalled) = (Vec::new(), 0, None);
        for round in 0..rounds {
            let (path, restarted) = pick(self, round);
            let (before, mark) = (load.received(), self.node.log.len());
            let at = Instant::now();
            self.crash(&path);
            down_us = self.await_report(mark, &path, restarted).max(down_us);
            let back = Instant::now();
            crashes.push(Crash { at, back });
            self.probe(round, what);
            stalled = load.flows_after(&before).err();
            if stalled.is_some() {
                break;
            }
            if rounds > ROUNDS && (round + 1) % 20 == 0 {
                say(&format!("{what}: {} of {rounds}", round + 1));
            }
        }
        let mut verdict = load.judge();
        stalled.into_iter().for_each(|why| verdict.broken(why));
        self.host.assert_balanced(&self.node.name);
        let dropped = self.counters().into_iter().filter(|(name, count)| {
            let gone = ["dropped_session_ended", "dropped_unacknowledged"].contains(&name.as_str());
            *count > 0 && name.starts_with("dropped_") && !gone
        });
        let dropped = dropped.collect();
        let what = what.to_owned();
        Ordeal {
            what,
            crashes,
            down_us,
            verdict,
            dropped,
        }
    }
}

/// What a kind of crash cost.
#[derive(Debug)]
pub(crate) struct Ordeal {
    pub what: String,
    pub crashes: Vec<Crash>,
    /// The longest time that what crashed did not run.
    pub down_us: u64,
    pub verdict: Verdict,
    /// Counters of dropped messages that are not 0.
    pub dropped: Vec<(String, u64)>,
}

impl Ordeal {
    pub(crate) fn cost_nothing(&self) -> bool {
        self.verdict.is_clean() && self.dropped.is_empty()
    }

    /// One line: how long it was down, what clients saw of it.
    pub(crate) fn print(&self) {
        let (met, others) = self.verdict.delays(&self.crashes);
        let Delay { p50, p99, max } = met;
        say(&format!(
            "crash {:<12} {:>3} times: down {:>6.1} ms at most; {} deliveries, {} lost; from publication to \
             delivery p50 {p50:.1} ms, p99 {p99:.1} ms, at most {max:.0} ms (without a crash {:.1}, {:.1} \
             and {:.0} ms)",
            self.what,
            self.crashes.len(),
            self.down_us as f64 / 1e3,
            self.verdict.came.len(),
            self.verdict.lost,
            others.p50,
            others.p99,
            others.max,
        ));
    }
}

/// A line for the reader of the gate, past the capture of the test harness.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
