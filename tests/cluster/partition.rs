//! A cut network: two nodes in network namespaces of their own, with a switch between them that loses
//! everything for a while. Needs root and `ip`; is skipped with the reason where there is neither.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::host::{Host, eventually, text};
use crate::network::Network;

/// How long the network is cut.
const CUT_FOR: Duration = Duration::from_secs(15);

const ENDS: [&str; 2] = ["a", "b"];

impl Network {
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

#[test]
fn both_sides_of_a_cut_network_serve_and_find_each_other_when_it_heals() {
    let network = match Network::new(0, &ENDS) {
        Ok(network) => network,
        Err(why) => return eprintln!("skipped: network namespaces need root and iproute2: {why}"),
    };
    let host = Host::new();
    let nodes = ENDS.map(|end| network.start(&host, end));
    network.ok(&host, "a", &["cluster", "join", &nodes[1].name]);
    let before = ENDS.map(|end| network.json(&host, end, &["status", "--json"]));
    let marks = nodes.each_ref().map(|node| node.log.len());

    network.cut("a");
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
        for end in ENDS {
            assert_eq!(network.running(&host, end), 1);
            network.serves(&host, end, &format!("alone at {end} for {:?}", cut.elapsed()));
        }
    }

    network.heal("a");
    let healed = Instant::now();
    for end in ENDS {
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
    for (end, before) in ENDS.iter().zip(&before) {
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
