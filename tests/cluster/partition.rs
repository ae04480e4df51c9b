//! A cut network: two nodes in network namespaces of their own, with a switch between them that loses
//! everything for a while. Needs root and `ip`; is skipped with the reason where there is neither.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::host::{Host, Log, Node, eventually, text};

/// How long the network is cut.
const CUT_FOR: Duration = Duration::from_secs(15);

const ENDS: [(&str, &str); 2] = [("a", "10.77.0.1"), ("b", "10.77.0.2")];

/// Runs `ip`; its complaint if it fails.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip does not run: {error}"))?;
    let why = || format!("ip {words}: {}", text(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(why)
}

/// Three namespaces: two ends, and the switch between them.
struct Network {
    prefix: String,
}

impl Network {
    /// Lays the cables, or says why that cannot be done here.
    fn new() -> Result<Self, String> {
        let network = Self {
            prefix: format!("erm{}", std::process::id()),
        };
        let switch = network.name("s");
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add name hub type bridge"))?;
        ip(&format!("-n {switch} link set dev hub up"))?;
        for (end, address) in ENDS {
            let name = network.name(end);
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "-n {name} link add name wire type veth peer name port-{end} netns {switch}"
            ))?;
            ip(&format!("-n {name} addr add {address}/24 dev wire"))?;
            ip(&format!("-n {name} link set dev wire up"))?;
            ip(&format!("-n {name} link set dev lo up"))?;
            ip(&format!("-n {switch} link set dev port-{end} up"))?;
        }
        network.heal();
        Ok(network)
    }

    fn name(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }

    /// Everything between the two is lost; both interfaces stay up.
    fn cut(&self) {
        ip(&format!("-n {} link set dev port-a nomaster", self.name("s"))).expect("cut");
    }

    fn heal(&self) {
        for (end, _) in ENDS {
            ip(&format!(
                "-n {} link set dev port-{end} master hub",
                self.name("s")
            ))
            .expect("plugged in");
        }
    }

    /// A command of the CLI, run at one end.
    fn ermine(&self, host: &Host, end: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name(end), env!("CARGO_BIN_EXE_ermine")])
            .env("HOME", host.home())
            .env("ERMINE_REGISTRY_PORT", host.registry_port.to_string())
            .env_remove("ERMINE_COOKIE")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, host: &Host, end: &str, words: &[&str]) -> Output {
        self.ermine(host, end).args(words).output().expect("ip runs")
    }

    #[track_caller]
    fn ok(&self, host: &Host, end: &str, words: &[&str]) -> String {
        let output = self.run(host, end, words);
        let err = text(&output.stderr);
        assert!(output.status.success(), "at {end}: ermine {words:?}: {err}");
        text(&output.stdout)
    }

    fn json(&self, host: &Host, end: &str, words: &[&str]) -> Value {
        let out = self.ok(host, end, words);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }

    fn start(&self, host: &Host, end: &str, address: &str) -> Node {
        let name = format!("n-{end}@{address}");
        let mut command = self.ermine(host, end);
        command.args(["start", "--name", &name, "--listen", "127.0.0.1:1883"]);
        command.arg("--data-dir").arg(host.data_dir(&name));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the node starts");
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        let mqtt = "127.0.0.1:1883".parse().expect("an address");
        let node = Node {
            name,
            child,
            log,
            mqtt,
        };
        node.await_log("the node is up", |line| line.contains("node started"));
        node
    }

    /// A message goes in and comes out at one end.
    fn serves(&self, host: &Host, end: &str, word: &str) {
        self.ok(host, end, &["pub", "-t", "kept", "-m", word, "-q", "1", "-r"]);
        let out = self.ok(host, end, &["sub", "-t", "kept", "-C", "1", "-W", "10"]);
        assert_eq!(out.trim(), word, "at {end}");
    }

    fn running(&self, host: &Host, end: &str) -> usize {
        let status = self.json(host, end, &["cluster", "status", "--json"]);
        status["running_nodes"].as_array().expect("a list").len()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for end in ["a", "b", "s"] {
            let _ = ip(&format!("netns del {}", self.name(end)));
        }
    }
}

#[test]
fn both_sides_of_a_cut_network_serve_and_find_each_other_when_it_heals() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => return eprintln!("skipped: network namespaces need root and iproute2: {why}"),
    };
    let host = Host::new();
    let nodes = ENDS.map(|(end, address)| network.start(&host, end, address));
    network.ok(&host, "a", &["cluster", "join", &nodes[1].name]);
    let before = ENDS.map(|(end, _)| network.json(&host, end, &["status", "--json"]));
    let marks = nodes.each_ref().map(|node| node.log.len());

    network.cut();
    let cut = Instant::now();
    for (node, mark) in nodes.iter().zip(marks) {
        node.log
            .wait_after(mark, "suspected", |line| line.contains("nothing came from"));
        let suspected = cut.elapsed();
        node.log
            .wait_after(mark, "down", |line| line.contains("nodedown"));
        let down = cut.elapsed();
        eprintln!("{}: suspect after {suspected:?}, down after {down:?}", node.name);
        assert!(down < Duration::from_secs(8), "{down:?}");
    }
    // Long enough for the pauses between two dials to have grown as far as they do.
    while cut.elapsed() < CUT_FOR {
        for (end, _) in ENDS {
            assert_eq!(network.running(&host, end), 1);
            network.serves(&host, end, &format!("alone at {end} for {:?}", cut.elapsed()));
        }
    }

    network.heal();
    let healed = Instant::now();
    for (end, _) in ENDS {
        eventually(&format!("{end} sees two"), || {
            (network.running(&host, end) == 2).then_some(())
        });
    }
    eprintln!("healed after {:?}", healed.elapsed());
    assert!(
        healed.elapsed() < Duration::from_secs(5),
        "{:?}",
        healed.elapsed()
    );
    for ((end, _), before) in ENDS.iter().zip(&before) {
        let status = network.json(&host, end, &["status", "--json"]);
        assert_eq!(
            status["incarnation"], before["incarnation"],
            "nobody was restarted"
        );
        assert_eq!(status["restarts"], 0, "{status}");
    }
    let mut subscriber = network.ermine(&host, "b");
    let subscriber = subscriber.args(["sub", "-t", "across", "-C", "1", "-W", "15"]);
    let subscriber = subscriber.stdout(Stdio::piped()).spawn().expect("ip runs");
    let deadline = Instant::now() + PATIENCE;
    while !network.ok(&host, "a", &["routes"]).contains("across") {
        assert!(Instant::now() < deadline, "the route did not come");
    }
    network.ok(&host, "a", &["pub", "-t", "across", "-m", "hello", "-q", "1"]);
    let output = subscriber.wait_with_output().expect("it ends");
    assert_eq!(text(&output.stdout).trim(), "hello");
}
