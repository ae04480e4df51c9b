//! Routes that are not what their owner has are found and repaired.

use std::time::{Duration, Instant};

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::{await_route, cluster};

/// The value of a metric of one node.
fn metric(host: &Host, node: &str, name: &str) -> f64 {
    let text = host.ok(&["metrics", "--node", node]);
    let line = text.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    let value = line.split_whitespace().last().expect("a value");
    value.parse().expect("a number")
}

#[test]
fn a_lost_route_is_logged_with_both_hashes_and_repaired_within_three_seconds() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let (n1, n2) = ("n1@127.0.0.1", "n2@127.0.0.1");
    let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
    subscriber.subscribe("kept/#", QoS::AtLeastOnce);
    await_route(&host, n1, "kept/#", &[n2]);
    assert_eq!(metric(&host, n1, "ermine_route_drift"), 0.0);
    assert_eq!(metric(&host, n1, "ermine_route_repairs_total"), 0.0);

    let out = host.ok(&["crash", "--lose-route", n2, "--node", n1]);
    assert!(out.contains("lost a route"), "{out}");
    let lost = Instant::now();
    let line = nodes[0].await_log("the drift", |line| line.contains("have drifted"));
    assert!(line.contains("we hold 0000000000000000"), "{line}");
    nodes[0].await_log("the repair", |line| line.contains("are repaired"));
    assert!(lost.elapsed() < Duration::from_secs(3), "{:?}", lost.elapsed());
    await_route(&host, n1, "kept/#", &[n2]);
    assert_eq!(metric(&host, n1, "ermine_route_repairs_total"), 1.0);
    eventually("the gauge is 0 again", || {
        (metric(&host, n1, "ermine_route_drift") == 0.0).then_some(())
    });
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    publisher.publish("kept/1", "here", QoS::AtLeastOnce);
    assert_eq!(subscriber.text(), "here");
    let status = host.json(&["cluster", "status", "--node", n1]);
    assert_eq!(status["members"][1]["route_drift"], false, "{status}");
}

#[test]
fn of_a_node_whose_routes_are_not_held_none_can_be_lost() {
    let host = Host::new();
    let _nodes = cluster(&host, 2);
    let (sentence, _) = host.fails(&["crash", "--lose-route", "n2@127.0.0.1", "--node", "n1@127.0.0.1"]);
    assert!(
        sentence.contains("no route of n2@127.0.0.1 is held here"),
        "{sentence}"
    );
}
