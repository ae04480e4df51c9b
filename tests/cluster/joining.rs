//! Nodes become one cluster from the command line.

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::Host;
use crate::{await_route, cluster, routes, running};

#[test]
fn a_join_prints_its_steps_and_ends_with_the_status_of_the_cluster() {
    let host = Host::new();
    let _n1 = host.start("n1@127.0.0.1");
    let _n2 = host.start("n2@127.0.0.1");
    let out = host.ok(&["cluster", "join", "n2@127.0.0.1", "--node", "n1@127.0.0.1"]);
    let mut rest = &out[..];
    for step in [
        "name",
        "registry",
        "connection",
        "version",
        "cookie",
        "route sync",
        "canary",
    ] {
        let at = rest
            .find(step)
            .unwrap_or_else(|| panic!("step '{step}' in order in:\n{out}"));
        rest = &rest[at + step.len()..];
    }
    assert!(
        rest.contains("n1@127.0.0.1") && rest.contains("n2@127.0.0.1"),
        "{out}"
    );
    assert_eq!(running(&host, "n1@127.0.0.1"), ["n1@127.0.0.1", "n2@127.0.0.1"]);
    assert_eq!(running(&host, "n2@127.0.0.1"), ["n1@127.0.0.1", "n2@127.0.0.1"]);
}

#[test]
fn a_message_published_on_one_node_arrives_on_every_other_once() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let mut subscribers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let mut subscriber = Options::new(&format!("sub-{}", node.name)).connect(node.mqtt);
            subscriber.subscribe("sensors/+/temp", QoS::AtLeastOnce);
            subscriber
        })
        .collect();
    let names = ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1"];
    for name in names {
        await_route(&host, name, "sensors/+/temp", &names);
    }
    let mut publisher = Options::new("publisher").connect(nodes[0].mqtt);
    for number in 0..100 {
        publisher.publish("sensors/1/temp", &number.to_string(), QoS::AtLeastOnce);
    }
    for subscriber in &mut subscribers {
        for number in 0..100 {
            assert_eq!(subscriber.text(), number.to_string());
        }
        subscriber.assert_quiet();
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn joining_a_member_merges_both_meshes_and_the_route_tables_are_equal() {
    let host = Host::new();
    let _left: Vec<_> = (1..=2).map(|n| host.start(&format!("n{n}@127.0.0.1"))).collect();
    let right: Vec<_> = (3..=4).map(|n| host.start(&format!("n{n}@127.0.0.1"))).collect();
    host.ok(&["cluster", "join", "n2@127.0.0.1", "--node", "n1@127.0.0.1"]);
    host.ok(&["cluster", "join", "n4@127.0.0.1", "--node", "n3@127.0.0.1"]);
    let mut subscriber = Options::new("s").connect(right[1].mqtt);
    subscriber.subscribe("merged/#", QoS::AtMostOnce);
    host.ok(&["cluster", "join", "n3@127.0.0.1", "--node", "n1@127.0.0.1"]);
    for n in 1..=4 {
        await_route(&host, &format!("n{n}@127.0.0.1"), "merged/#", &["n4@127.0.0.1"]);
    }
    assert_eq!(routes(&host, "n1@127.0.0.1"), routes(&host, "n4@127.0.0.1"));
}
