//! The wing between nodes and the rooms of operators: local clients notice nothing of their crashes.

use crate::load::Load;
use crate::rig::{CLIENTS, Rig};

#[test]
fn dist() {
    Rig::nothing_is_lost_by("dist", |_, _| "root/cluster/dist".into());
}

#[test]
fn peers() {
    Rig::nothing_is_lost_by("peers", |_, _| "root/cluster/peers".into());
}

#[test]
fn gate() {
    Rig::nothing_is_lost_by("gate", |_, _| "root/cluster/gate".into());
}

#[test]
fn registry() {
    Rig::nothing_is_lost_by("registry", |_, _| "root/cluster/registry".into());
}

#[test]
fn connector() {
    Rig::nothing_is_lost_by("connector", |_, _| "root/cluster/connector".into());
}

#[test]
fn control() {
    Rig::nothing_is_lost_by("control", |_, _| "root/admin/control".into());
}

#[test]
fn the_supervisors_cluster_and_admin_take_no_client_along() {
    let rig = Rig::start();
    let load = Load::start(rig.node.mqtt, CLIENTS);
    for path in ["root/cluster", "root/admin"] {
        let before = load.received();
        rig.crash(path);
        rig.probe(0, "wing");
        rig.await_restart(path, 1);
        load.await_more(&before);
    }
    load.finish();
}

#[test]
fn the_registry_knows_the_node_again() {
    let rig = Rig::start();
    for round in 1..=3 {
        rig.crash("root/cluster/registry");
        rig.await_restart("root/cluster/registry", round);
        crate::harness::host::eventually("the name is back", || {
            let output = rig.host.run(&["names"]);
            crate::harness::host::text(&output.stdout)
                .contains("name ermine at port")
                .then_some(())
        });
    }
}
