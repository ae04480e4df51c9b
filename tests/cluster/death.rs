//! Nodes that end, in order and not, and come back.

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::{await_route, cluster, running};

#[test]
fn a_node_that_stops_in_order_is_reported_with_its_reason_and_its_routes_go() {
    let host = Host::new();
    let mut nodes = cluster(&host, 2);
    let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
    subscriber.subscribe("leaving/#", QoS::AtMostOnce);
    await_route(&host, "n1@127.0.0.1", "leaving/#", &["n2@127.0.0.1"]);
    assert!(nodes.remove(1).stop().success());
    let line = nodes[0].await_log("nodedown of n2", |line| {
        line.contains("nodedown") && line.contains("n2@")
    });
    assert!(line.contains("leaving"), "{line}");
    await_route(&host, "n1@127.0.0.1", "leaving/#", &[]);
    let status = host.json(&["cluster", "status", "--node", "n1@127.0.0.1"]);
    assert_eq!(status["running_nodes"].as_array().expect("an array").len(), 1);
}

#[test]
fn kill_9_of_one_of_three_under_traffic_leaves_the_others_going_and_it_rejoins_by_itself() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let n3 = nodes.pop().expect("three nodes");
    let mut lost = Options::new("on-n3").connect(n3.mqtt);
    lost.subscribe("traffic/#", QoS::AtMostOnce);
    let mut survivor = Options::new("on-n2").connect(nodes[1].mqtt);
    survivor.subscribe("traffic/#", QoS::AtLeastOnce);
    for name in ["n1@127.0.0.1", "n2@127.0.0.1"] {
        await_route(&host, name, "traffic/#", &["n2@127.0.0.1", "n3@127.0.0.1"]);
    }
    let address = nodes[0].mqtt;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let publishing = std::thread::spawn(move || {
        let mut publisher = Options::new("publisher").connect(address);
        let mut sent = 0_u32;
        while stopped.try_recv().is_err() {
            publisher.publish("traffic/x", &sent.to_string(), QoS::AtLeastOnce);
            sent += 1;
        }
        sent
    });
    for _ in 0..50 {
        survivor.text();
    }
    let mark = [nodes[0].log.len(), nodes[1].log.len()];
    n3.kill();
    for (node, mark) in nodes.iter().zip(mark) {
        let down = |line: &str| line.contains("nodedown") && line.contains("n3@127.0.0.1");
        node.log.wait_after(mark, "nodedown of n3", down);
        await_route(&host, &node.name, "traffic/#", &["n2@127.0.0.1"]);
    }
    let back = host.start("n3@127.0.0.1");
    for name in ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1"] {
        eventually(&format!("{name} sees three"), || {
            (running(&host, name).len() == 3).then_some(())
        });
    }
    let mut again = Options::new("on-n3").connect(back.mqtt);
    again.subscribe("traffic/#", QoS::AtMostOnce);
    again.text();
    stop.send(()).expect("the publisher listens");
    let sent = publishing.join().expect("the publisher never failed");
    let last = (sent - 1).to_string();
    while survivor.text() != last {}
    host.assert_balanced("n2@127.0.0.1");
}

#[test]
fn the_registry_is_taken_over_when_its_node_dies() {
    let host = Host::new();
    let n1 = host.start("n1@127.0.0.1");
    let _n2 = host.start("n2@127.0.0.1");
    let before = host.json(&["names"]);
    assert_eq!(before.as_array().expect("an array").len(), 2, "{before}");
    n1.kill();
    eventually("n2 serves the registry", || {
        let output = host.run(&["names", "--json"]);
        let names: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (names.as_array()?.len() == 1).then_some(())
    });
    let out = host.ok(&["names"]);
    assert!(out.contains("n2") && !out.contains("n1"), "{out}");
}
