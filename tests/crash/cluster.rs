//! What another node notices: a link outlives the crash of its router, and a new life of `core` is met as a
//! new incarnation.

use std::time::Duration;

use ermine::mqtt::packet::{Packet, QoS};

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually};
use crate::rig::Rig;

pub(crate) const N1: &str = "n1@127.0.0.1";
pub(crate) const N2: &str = "n2@127.0.0.1";

fn pair() -> (Rig, Node) {
    let rig = Rig::on(Host::new(), N1);
    let other = rig.host.start(N2);
    rig.host.ok(&["cluster", "join", N1, "--node", N2]);
    await_both(&rig.host);
    (rig, other)
}

pub(crate) fn await_both(host: &Host) {
    for name in [N1, N2] {
        eventually("both run", || {
            let output = host.run(&["cluster", "status", "--node", name, "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            (status["running_nodes"].as_array()?.len() == 2).then_some(())
        });
    }
}

pub(crate) fn await_route(host: &Host, node: &str, filter: &str, to: &str) {
    eventually(&format!("{node} routes {filter} to {to}"), || {
        let output = host.run(&["routes", "--node", node, "--json"]);
        let table: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let entry = table.as_array()?.iter().find(|entry| entry["filter"] == filter)?;
        let there = entry["nodes"].as_array()?.iter().any(|name| name == to);
        there.then_some(())
    });
}

/// Streams from `n1` to `n2` and back while `n1` suffers `crash`; nothing may be missing.
fn nothing_is_lost_between(rig: &Rig, other: &Node, crash: impl Fn(usize)) {
    let mut here = Options::new("here").connect(rig.node.mqtt);
    let mut there = Options::new("there").connect(other.mqtt);
    here.subscribe("to/n1", QoS::AtLeastOnce);
    there.subscribe("to/n2", QoS::AtLeastOnce);
    await_route(&rig.host, N1, "to/n2", N2);
    await_route(&rig.host, N2, "to/n1", N1);
    let mut from_here = Options::new("from-here").connect(rig.node.mqtt);
    let mut from_there = Options::new("from-there").connect(other.mqtt);
    for round in 0..3 {
        for n in 0..60 {
            if n == 20 {
                crash(round);
            }
            from_here.publish("to/n2", &format!("{round} {n}"), QoS::AtLeastOnce);
            from_there.publish("to/n1", &format!("{round} {n}"), QoS::AtLeastOnce);
        }
        for n in 0..60 {
            assert_eq!(there.text(), format!("{round} {n}"), "n1 → n2");
            assert_eq!(here.text(), format!("{round} {n}"), "n2 → n1");
        }
    }
    here.assert_quiet();
    there.assert_quiet();
}

#[test]
fn the_crash_of_a_router_breaks_no_link_and_loses_nothing_between_nodes() {
    let (rig, other) = pair();
    nothing_is_lost_between(&rig, &other, |_| rig.crash("root/core/router"));
    assert!(!rig.node.log.all().contains("nodedown"), "{}", rig.node.log.all());
}

#[test]
fn the_mailmen_and_topics_lose_nothing_between_nodes() {
    let (rig, other) = pair();
    let paths = ["root/core/mail-2", "root/core/topics", "root/core/mail-0"];
    nothing_is_lost_between(&rig, &other, |round| rig.crash(paths[round]));
}

#[test]
fn routes_change_while_the_router_crashes_and_the_other_node_hears_of_all() {
    let (rig, other) = pair();
    let mut subscriber = Options::new("s").connect(rig.node.mqtt);
    for n in 0..30 {
        if n % 10 == 5 {
            rig.crash("root/core/router");
        }
        subscriber.subscribe(&format!("new/{n}"), QoS::AtLeastOnce);
    }
    let mut publisher = Options::new("p").connect(other.mqtt);
    for n in 0..30 {
        await_route(&rig.host, N2, &format!("new/{n}"), N1);
        publisher.publish(&format!("new/{n}"), &n.to_string(), QoS::AtLeastOnce);
        assert_eq!(subscriber.text(), n.to_string());
    }
}

#[test]
fn the_others_routes_change_while_our_router_crashes_and_the_link_stands() {
    let (rig, other) = pair();
    let mut subscriber = Options::new("s").connect(other.mqtt);
    for n in 0..30 {
        if n % 10 == 5 {
            rig.crash("root/core/router");
        }
        subscriber.subscribe(&format!("new/{n}"), QoS::AtLeastOnce);
    }
    let mut publisher = Options::new("p").connect(rig.node.mqtt);
    for n in 0..30 {
        await_route(&rig.host, N1, &format!("new/{n}"), N2);
        publisher.publish(&format!("new/{n}"), &n.to_string(), QoS::AtLeastOnce);
        assert_eq!(subscriber.text(), n.to_string());
    }
    assert!(!rig.node.log.all().contains("nodedown"), "{}", rig.node.log.all());
}

#[test]
fn a_new_life_of_core_is_met_as_a_new_incarnation_and_routes_are_synchronised_anew() {
    let (rig, other) = pair();
    let mut there = Options::new("there").connect(other.mqtt);
    there.subscribe("to/n2", QoS::AtLeastOnce);
    let mut lost = Options::new("lost").connect(rig.node.mqtt);
    lost.subscribe("to/n1", QoS::AtLeastOnce);
    await_route(&rig.host, N2, "to/n1", N1);
    rig.crash("root/core");
    lost.assert_closed();
    rig.await_restart("root/core", 1);
    await_both(&rig.host);
    await_route(&rig.host, N1, "to/n2", N2);
    let mut back = eventually("n1 accepts", || {
        Options::new("back").try_connect(rig.node.mqtt).ok()
    });
    back.publish("to/n2", "from the new life", QoS::AtLeastOnce);
    assert_eq!(there.text(), "from the new life");
    back.subscribe("to/n1", QoS::AtLeastOnce);
    await_route(&rig.host, N2, "to/n1", N1);
    there.publish("to/n1", "to the new life", QoS::AtLeastOnce);
    assert_eq!(back.text(), "to the new life");
    // What the old life had subscribed is nowhere any more.
    let stale = there.next_within(Duration::from_millis(1));
    assert!(!matches!(stale, Ok(Some(Packet::Publish(_)))), "{stale:?}");
}

#[test]
fn wills_of_clients_that_fell_with_core_are_published_once_in_its_next_life() {
    let (rig, other) = pair();
    let mut far = Options::new("far").connect(other.mqtt);
    far.subscribe("wills/#", QoS::AtLeastOnce);
    await_route(&rig.host, N1, "wills/#", N2);
    let mut falling: Vec<_> = (0..5)
        .map(|n| Options::new(&format!("gone-{n}")).will(&format!("wills/{n}"), "gone"))
        .map(|options| options.connect(rig.node.mqtt))
        .collect();
    let mut back = Options::new("back").will("wills/back", "offline");
    back.connect.will.as_mut().expect("just set").retain = true;
    falling.push(back.clone().connect(rig.node.mqtt));
    rig.crash("root/core");
    for client in &mut falling {
        client.assert_closed();
    }
    rig.await_restart("root/core", 1);
    // One client is back at once. Its will is published before it is served, so its word is the last.
    let mut returned = eventually("n1 accepts", || {
        let client = back.clone().try_connect(rig.node.mqtt).ok()?;
        (!client.connack.reason.is_error()).then_some(client)
    });
    returned.publish_with("wills/back", "online", QoS::AtLeastOnce, true);
    let mut near = Options::new("near").connect(rig.node.mqtt);
    near.subscribe("wills/#", QoS::AtLeastOnce);
    assert_eq!(near.text(), "online");
    for heir in [&mut near, &mut far] {
        let mut topics: Vec<_> = Vec::new();
        while topics.len() < 5 {
            let message = heir.message();
            // What the one that is back said may have come before the link was.
            if message.topic != "wills/back" {
                topics.push(message.topic.to_string());
            }
        }
        topics.sort();
        assert_eq!(topics, ["wills/0", "wills/1", "wills/2", "wills/3", "wills/4"]);
    }
    near.assert_quiet();
}
