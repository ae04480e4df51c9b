//! Wills of the clients of a node that is lost: published once, by those that are left.

use std::collections::BTreeMap;

use ermine::mqtt::packet::{QoS, SubscriptionOptions};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::{await_route, cluster};

const NODES: [&str; 3] = ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1"];

/// A client with a will of its name.
fn with_will(id: &str, delay_s: u32, retain: bool) -> Options {
    let mut options = Options::v5(id).persistent().will(&format!("wills/{id}"), id);
    let will = options.connect.will.as_mut().expect("it has one");
    will.retain = retain;
    will.properties.will_delay_interval_s = Some(delay_s);
    options
}

/// Subscribers of all wills on some nodes.
fn heirs(host: &Host, nodes: &[Node]) -> Vec<Client> {
    let mut heirs = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let mut heir = Options::v5(&format!("heir-{n}")).connect(node.mqtt);
        heir.subscribe("wills/#", QoS::AtLeastOnce);
        heirs.push(heir);
    }
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    NODES
        .iter()
        .for_each(|node| await_route(host, node, "wills/#", &names));
    heirs
}

/// Waits until so many wills of this node's clients are held by others.
fn await_held(host: &Host, nodes: &[Node], count: u64) {
    eventually(&format!("{count} wills are held"), || {
        let held = |node: &Node| {
            let metrics = host.ok(&["metrics", "--node", &node.name]);
            let line = metrics
                .lines()
                .find(|line| line.starts_with("ermine_wills_held "));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let sum: f64 = nodes.iter().map(held).sum();
        (sum as u64 == count).then_some(())
    });
}

/// The wills that a subscriber gets until this one has come: how often each.
fn until(heir: &mut Client, last: &str) -> BTreeMap<String, usize> {
    let mut came = BTreeMap::new();
    loop {
        let text = heir.text();
        *came.entry(text.clone()).or_default() += 1;
        if text == last {
            return came;
        }
    }
}

#[test]
fn kill_9_of_a_node_brings_each_will_of_its_clients_once_to_subscribers_of_both_others() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let n1 = nodes.remove(0);
    let mut heirs = heirs(&host, &nodes);
    let at_once: Vec<String> = (0..10).map(|n| format!("at-once-{n}")).collect();
    let mut clients: Vec<Client> = Vec::new();
    for id in &at_once {
        clients.push(with_will(id, 0, false).connect(n1.mqtt));
    }
    clients.push(with_will("kept", 0, true).connect(n1.mqtt));
    clients.push(with_will("back-too-late-to-matter", 0, false).connect(n1.mqtt));
    for n in 0..4 {
        // Due before the last one, had they not been cancelled.
        clients.push(with_will(&format!("back-in-time-{n}"), 6, false).connect(n1.mqtt));
    }
    clients.push(with_will("said-goodbye", 0, false).connect(n1.mqtt));
    clients.pop().expect("the last").disconnect();
    clients.push(with_will("last", 8, false).connect(n1.mqtt));
    await_held(&host, &nodes, 17);
    n1.kill();
    // On either of the others, before and after they know of the loss.
    let mut back = vec![with_will("back-in-time-0", 60, false).connect(nodes[0].mqtt)];
    for node in &nodes {
        node.await_log("nodedown of n1", |line| line.contains("nodedown n1@"));
    }
    for (n, node) in [(1, 1), (2, 0), (3, 1)] {
        let id = format!("back-in-time-{n}");
        back.push(with_will(&id, 60, false).connect(nodes[node].mqtt));
    }
    back.push(Options::v5("back-too-late-to-matter").connect(nodes[1].mqtt));
    let mut wanted: BTreeMap<String, usize> = at_once.into_iter().map(|id| (id, 1)).collect();
    for id in ["kept", "back-too-late-to-matter", "last"] {
        wanted.insert(id.into(), 1);
    }
    for heir in &mut heirs {
        assert_eq!(until(heir, "last"), wanted);
        heir.assert_quiet();
    }
    for (n, node) in nodes.iter().enumerate() {
        let mut late = Options::v5(&format!("late-{n}")).connect(node.mqtt);
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        late.send_subscribe("wills/#", options);
        let kept = late.message();
        assert_eq!((&*kept.topic, kept.retain), ("wills/kept", true));
        late.assert_quiet();
    }
    // Those that came back have wills of their own here, and nothing is left of the others.
    await_held(&host, &nodes, 4);
    host.assert_balanced("n2@127.0.0.1");
}

#[test]
fn a_node_that_stops_in_order_publishes_wills_itself_and_hands_over_those_that_wait() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let n1 = nodes.remove(0);
    let mut heirs = heirs(&host, &nodes);
    let ids: Vec<String> = (0..5).map(|n| format!("at-once-{n}")).collect();
    let mut clients: Vec<Client> = ids
        .iter()
        .map(|id| with_will(id, 0, false).connect(n1.mqtt))
        .collect();
    // Its client is gone already; its will waits in the memory of the node that stops.
    let away = with_will("last", 8, false).connect(n1.mqtt);
    drop(away);
    clients.push(with_will("back-in-time", 6, false).connect(n1.mqtt));
    await_held(&host, &nodes, 7);
    assert!(n1.stop().success());
    let back = with_will("back-in-time", 60, false).connect(nodes[0].mqtt);
    let mut wanted: BTreeMap<String, usize> = ids.into_iter().map(|id| (id, 1)).collect();
    wanted.insert("last".into(), 1);
    for heir in &mut heirs {
        assert_eq!(until(heir, "last"), wanted);
        heir.assert_quiet();
    }
    drop(back);
    host.assert_balanced("n2@127.0.0.1");
}

#[test]
fn a_core_that_falls_publishes_the_wills_of_its_clients_and_no_other_node_does() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let mut heirs = heirs(&host, &nodes[1..]);
    let client = with_will("fell", 0, false).connect(nodes[0].mqtt);
    let delayed = with_will("last", 8, false).connect(nodes[0].mqtt);
    await_held(&host, &nodes, 2);
    host.ok(&["crash", "root/core", "--node", NODES[0]]);
    let wanted = BTreeMap::from([("fell".to_owned(), 1), ("last".to_owned(), 1)]);
    for heir in &mut heirs {
        assert_eq!(until(heir, "last"), wanted);
        heir.assert_quiet();
    }
    drop((client, delayed));
    host.assert_balanced("n2@127.0.0.1");
}

#[test]
fn the_keeper_of_wills_may_crash_before_and_after_a_node_is_lost() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let crash = |node: &str| drop(host.ok(&["crash", "root/cluster/owners", "--node", node]));
    let mut heirs = heirs(&host, &nodes[1..]);
    let mut clients: Vec<Client> = (0..6)
        .map(|n| with_will(&format!("before-{n}"), 0, false).connect(nodes[0].mqtt))
        .collect();
    await_held(&host, &nodes[1..], 6);
    NODES.iter().for_each(|node| crash(node));
    // All is told anew, and what comes is told too.
    clients.push(with_will("last", 8, false).connect(nodes[0].mqtt));
    await_held(&host, &nodes[1..], 7);
    nodes.remove(0).kill();
    for node in &nodes {
        node.await_log("nodedown of n1", |line| line.contains("nodedown n1@"));
    }
    NODES[1..].iter().for_each(|node| crash(node));
    let mut wanted: BTreeMap<String, usize> = (0..6).map(|n| (format!("before-{n}"), 1)).collect();
    wanted.insert("last".into(), 1);
    for heir in &mut heirs {
        assert_eq!(until(heir, "last"), wanted);
        heir.assert_quiet();
    }
}
