//! A node that may be crashed, the operator who does it, and what happened.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ermine::admin::client::Operator;
use ermine::admin::protocol::{Reply, Request, RestartEntry, TreeEntry};
use ermine::mqtt::packet::QoS;
use ermine::registry::{Cookie, Endpoint, Registration};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::load::{Load, Seen};

/// A node on a host of its own, and an operator who knows where it is: also while it has no registry.
pub(crate) struct Rig {
    pub node: Node,
    pub host: Host,
    operator: Operator,
    registration: Registration,
    runtime: tokio::runtime::Runtime,
}

/// How many crashes of each kind: three unless a soak is wanted.
pub(crate) fn rounds() -> usize {
    number("ERMINE_CRASH_ROUNDS", 3)
}

fn number(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number")),
        Err(_) => default,
    }
}

impl Rig {
    /// A node with two workers, so that there are delegates and mail.
    pub(crate) fn start() -> Self {
        Self::on(Host::new(), "ermine@127.0.0.1")
    }

    /// A node on a given host.
    pub(crate) fn on(host: Host, name: &str) -> Self {
        let node = host.start_with(name, &["--worker-threads", "2"]);
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

    /// Crashes one process. The answer to a crash of what answers may be lost with it.
    pub(crate) fn crash(&self, path: &str) {
        let request = Request::Crash { path: path.into() };
        let mut said = false;
        let told = |reply| said |= matches!(reply, Reply::Crashed(_));
        let asked = self
            .runtime
            .block_on(self.operator.ask(&self.registration, &request, told));
        assert!(said, "{path} was not crashed: {asked:?}\n{}", self.node.log.all());
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

    /// Crashes something again and again under load and asserts that nothing is lost by it: no connection
    /// is closed, no QoS 1 or 2 message is lost or comes twice, and new clients are served at once.
    pub(crate) fn nothing_is_lost_by(what: &str, mut pick: impl FnMut(&Self, usize) -> String) {
        let rig = Self::start();
        let load = Load::start(rig.node.mqtt, number("ERMINE_CRASH_CLIENTS", 24));
        let mut crashes = Vec::new();
        let mut times = std::collections::BTreeMap::<String, usize>::new();
        for round in 0..rounds() {
            let path = pick(&rig, round);
            within_the_budget(&path, round);
            let before = load.received();
            crashes.push(Instant::now());
            rig.crash(&path);
            rig.probe(round, what);
            let nth = times.entry(path.clone()).or_default();
            *nth += 1;
            rig.await_restart(&path, *nth);
            load.await_more(&before);
        }
        let seen = load.finish();
        for (name, count) in rig.counters() {
            let lost = name.starts_with("dropped_") && name != "dropped_session_ended";
            assert!(!lost || count == 0, "{name}: {count}");
        }
        report(what, &rig.restarts(), &seen, &crashes);
    }
}

/// In a soak crashes are spread over time, so that no supervisor gives up.
fn within_the_budget(path: &str, round: usize) {
    let apart = match path {
        _ if round == 0 || rounds() <= 3 || path.starts_with("root/core/topics/") => return,
        _ if path.starts_with("root/cluster/") => Duration::from_millis(20_500),
        _ => Duration::from_millis(12_500),
    };
    let (_open, time) = channel::<()>();
    let passed = time.recv_timeout(apart);
    assert_eq!(passed, Err(RecvTimeoutError::Timeout));
}

/// One line for each kind: how long it was down, what clients saw of it.
pub(crate) fn report(what: &str, restarts: &[RestartEntry], seen: &Seen, crashes: &[Instant]) {
    let down = restarts
        .iter()
        .map(|entry| entry.downtime_us)
        .max()
        .unwrap_or_default();
    let pause = seen.pause(crashes);
    // Past the capture of the test harness: these are figures for the reader of the gate.
    let _ = writeln!(
        std::io::stderr(),
        "crash {what:<12} {:>3} times: down {:>6.1} ms at most; {} messages, none lost; longest silence of a \
         subscriber p50 {:.0} ms, p99 {:.0} ms (without a crash {:.0} and {:.0} ms)",
        crashes.len(),
        down as f64 / 1e3,
        seen.messages(),
        pause.around.0,
        pause.around.1,
        pause.elsewhere.0,
        pause.elsewhere.1,
    );
}
