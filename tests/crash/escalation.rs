//! More crashes than the intensity: the tree gives up level by level, up to the node itself.

use ermine::mqtt::packet::QoS;

use crate::harness::client::{Client, Options};
use crate::harness::host::eventually;
use crate::rig::Rig;

/// Crashes of a worker of `core` after which `core` gives up.
const CORE_BEARS: usize = 5;

fn connected(rig: &Rig) -> Client {
    eventually("the node accepts", || {
        let client = Options::new("client").try_connect(rig.node.mqtt).ok()?;
        (!client.connack.reason.is_error()).then_some(client)
    })
}

fn incarnation(rig: &Rig) -> u64 {
    let status = eventually("the node's status", || {
        let output = rig.host.run(&["status", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    });
    status["incarnation"].as_u64().expect("a number")
}

#[test]
fn core_falls_and_the_node_comes_back_with_fresh_tables_and_a_new_incarnation() {
    let rig = Rig::start();
    let mut client = connected(&rig);
    client.publish_with("kept", "old", QoS::AtLeastOnce, true);
    let before = incarnation(&rig);
    rig.crash("root/core");
    client.assert_closed();
    rig.await_restart("root/core", 1);
    assert!(incarnation(&rig) > before);
    let mut client = connected(&rig);
    client.subscribe("kept", QoS::AtLeastOnce);
    let kept = client.message();
    assert_eq!(
        &kept.payload[..],
        b"old",
        "what is retained comes back from the store"
    );
    client.subscribe("a", QoS::AtLeastOnce);
    client.publish_and_receive("a");
    let mut after: Vec<_> = rig.tree().into_iter().map(|entry| entry.path).collect();
    after.retain(|path| path.matches('/').count() == 1);
    assert_eq!(
        after,
        ["core", "sessions", "revival", "doors", "cluster", "admin"].map(|id| format!("root/{id}"))
    );
}

#[test]
fn a_worker_that_falls_too_often_takes_core_along_and_root_builds_it_anew() {
    let rig = Rig::start();
    let mut client = connected(&rig);
    for nth in 1..=CORE_BEARS {
        rig.crash("root/core/retainer");
        rig.await_restart("root/core/retainer", nth);
        client.assert_quiet();
    }
    rig.crash("root/core/retainer");
    client.assert_closed();
    rig.await_restart("root/core", 1);
    let mut client = connected(&rig);
    client.subscribe("a", QoS::AtLeastOnce);
    client.publish_and_receive("a");
}

#[test]
fn a_root_that_gives_up_ends_the_node_with_status_70_and_the_whole_chain_in_the_log() {
    let mut rig = Rig::start();
    let mut restarts = 0;
    for life in 1..=3 {
        connected(&rig).assert_quiet();
        for _ in 1..=CORE_BEARS {
            rig.crash("root/core/wills");
            restarts += 1;
            rig.await_restart("root/core/wills", restarts);
        }
        rig.crash("root/core/wills");
        if life < 3 {
            rig.await_restart("root/core", life);
        }
    }
    assert_eq!(rig.node.wait_for_exit().code(), Some(70));
    let log = rig.node.log.all();
    let chain = [
        "root/core/wills",
        "reached_max_restart_intensity",
        "root of the supervision tree gave up",
    ];
    for link in chain {
        assert!(log.contains(link), "{link} is not in the log\n{log}");
    }
    let gave_up = log.matches("reached_max_restart_intensity").count();
    assert_eq!(gave_up, 4, "core three times, then root\n{log}");
}

#[test]
fn a_root_that_crashes_ends_the_node_with_status_70() {
    let mut rig = Rig::start();
    let mut client = connected(&rig);
    rig.crash("root");
    client.assert_closed();
    assert_eq!(rig.node.wait_for_exit().code(), Some(70));
    assert!(
        rig.node
            .log
            .all()
            .contains("root of the supervision tree gave up")
    );
}
