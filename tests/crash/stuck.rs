//! A process that does not come back to its arbiter cannot be ended, only named: who it is, on which thread,
//! since when. Its neighbours wait, lose nothing, and go on when it does.

use std::time::Instant;

use ermine::admin::protocol::{Request, Steering};
use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::text;
use crate::rig::Rig;

/// Rather more than a process may take until it is reported (5 s).
const STUCK_S: u8 = 7;

#[test]
fn a_stuck_process_is_named_and_its_neighbours_go_on_after_it() {
    let rig = Rig::start();
    // Two workers: some of these share the thread with the one that gets stuck, some do not.
    let mut clients: Vec<_> = (0..6)
        .map(|n| Options::v5(&format!("client-{n}")).connect(rig.node.mqtt))
        .collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.subscribe(&format!("to/{n}"), QoS::AtLeastOnce);
    }
    let mut sessions = rig.below("root/sessions").into_iter();
    let path = sessions.rfind(|path| path.ends_with("/client-0"));
    let path = path.expect("its session");
    let mark = rig.node.log.len();
    let began = Instant::now();
    let how = Steering::Stall(STUCK_S);
    rig.ask(&Request::Steer {
        how,
        path: path.clone(),
    });
    // Sent now, answered when the threads are free again.
    for (n, client) in clients.iter_mut().enumerate() {
        client.send_publish(&format!("to/{n}"), b"waiting", QoS::AtLeastOnce, false);
    }
    let line = rig
        .node
        .log
        .wait_after(mark, "it is named", |line| line.contains("unresponsive"));
    let report: serde_json::Value = serde_json::from_str(&line).expect("a report");
    assert_eq!(report["offender"]["id"], "client-0", "{line}");
    let reason = &report["reason"]["unresponsive"];
    assert!(reason["for_ms"].as_u64() >= Some(5000), "{line}");
    assert!(
        reason["thread"]
            .as_str()
            .is_some_and(|thread| thread.contains("arbiter")),
        "{line}"
    );
    let back = format!("{path} came back to its arbiter");
    rig.node
        .log
        .wait_after(mark, "it is back", |line| line.contains(&back));
    assert!(began.elapsed().as_secs() >= u64::from(STUCK_S));
    for client in &mut clients {
        // Its own PUBACK may come before or after it.
        assert_eq!(client.text(), "waiting");
    }
    let mut late = Options::new("late").connect(rig.node.mqtt);
    late.subscribe("late", QoS::AtLeastOnce);
    late.publish_and_receive("late");
    assert!(rig.restarts().is_empty(), "nothing has ended");
}

#[test]
fn getting_stuck_is_for_nodes_that_may_be_crashed_and_not_for_ever() {
    let rig = Rig::start();
    let (sentence, status) = rig.host.fails(&["crash", "root/core/wills", "--stuck", "61"]);
    assert!(sentence.contains("61"), "{sentence}");
    assert_eq!(status, 64);
    let said = rig.host.run(&["crash", "root/core/wills", "--stuck", "1"]);
    assert!(
        text(&said.stdout).contains("holds its arbiter for 1 s now"),
        "{said:?}"
    );
    let mut client = Options::new("client").connect(rig.node.mqtt);
    client.subscribe("a", QoS::AtLeastOnce);
    client.publish_and_receive("a");
}
