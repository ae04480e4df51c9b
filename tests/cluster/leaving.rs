//! Nodes leave, are emptied before, or are forced out; the others go on.

use ermine::mqtt::packet::{Packet, QoS};

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::{cluster, running};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";
const N3: &str = "n3@127.0.0.1";

#[track_caller]
fn await_running(host: &Host, node: &str, nodes: &[&str]) {
    eventually(&format!("{node} sees {nodes:?}"), || {
        (running(host, node) == nodes).then_some(())
    });
}

/// What a node says of who is out: name and who forced it.
fn left(host: &Host, node: &str) -> Vec<(String, Option<String>)> {
    let status = host.json(&["cluster", "status", "--node", node]);
    let left = status["left"].as_array().expect("left");
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let of = |entry: &serde_json::Value| {
        (
            text(&entry["node"]).expect("a name"),
            text(&entry["forced_out_by"]),
        )
    };
    left.iter().map(of).collect()
}

#[test]
fn a_living_node_that_is_forced_out_hears_of_it_and_stays_out_until_it_is_joined() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    host.ok(&["cluster", "force-leave", N2, "--node", N1]);
    nodes[1].await_log("it is told", |line| {
        line.contains("was forced out of its cluster by n1@127.0.0.1")
    });
    for node in [N1, N3] {
        await_running(&host, node, &[N1, N3]);
        assert_eq!(left(&host, node), [(N2.to_owned(), Some(N1.to_owned()))]);
    }
    await_running(&host, N2, &[N2]);
    let status = host.json(&["cluster", "status", "--node", N2]);
    assert_eq!(status["forced_out"]["by"], N1);
    let text = host.ok(&["cluster", "status", "--node", N2]);
    assert!(text.contains("was forced out by n1@127.0.0.1 at "), "{text}");
    host.ok(&["cluster", "join", N3, "--node", N2]);
    for node in [N1, N2, N3] {
        await_running(&host, node, &[N1, N2, N3]);
    }
    assert_eq!(left(&host, N1), []);
    let status = host.json(&["cluster", "status", "--node", N2]);
    assert!(status["forced_out"].is_null(), "{status}");
}

#[test]
fn a_dead_node_that_is_forced_out_is_told_when_it_returns_and_remembers_it() {
    let host = Host::new();
    let mut nodes = cluster(&host, 2);
    nodes.pop().expect("two").kill();
    host.ok(&["cluster", "force-leave", N2, "--node", N1]);
    let n2 = host.start(N2);
    n2.await_log("it is told", |line| {
        line.contains("was forced out of its cluster")
    });
    await_running(&host, N1, &[N1]);
    assert!(n2.stop().success());
    let n2 = host.start(N2);
    n2.await_log("it remembers", |line| {
        line.contains("was forced out of its cluster")
    });
    await_running(&host, N2, &[N2]);
}

#[test]
fn what_cannot_be_forced_out_is_said() {
    let host = Host::new();
    let _nodes = cluster(&host, 2);
    let (err, status) = host.fails(&["cluster", "force-leave", "n9@127.0.0.1", "--node", N1]);
    assert!(err.contains("n9@127.0.0.1 is no member") && status == 1, "{err}");
    let (err, _) = host.fails(&["cluster", "force-leave", N1, "--node", N1]);
    assert!(err.contains("ermine cluster leave"), "{err}");
    host.ok(&["cluster", "force-leave", N2, "--node", N1]);
    let (err, _) = host.fails(&["cluster", "force-leave", N2, "--node", N1]);
    assert!(err.contains("is out already"), "{err}");
}

#[test]
fn a_node_that_leaves_sends_its_clients_to_another_server_at_the_rate_and_goes_on_alone() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut clients: Vec<_> = (0..20)
        .map(|n| Options::v5(&format!("c{n}")).connect(nodes[1].mqtt))
        .collect();
    let mut old = Options::new("old").connect(nodes[1].mqtt);
    let began = std::time::Instant::now();
    let out = host.ok(&[
        "cluster",
        "leave",
        "--rate",
        "20",
        "--server",
        "mqtt.example:1883",
        "--node",
        N2,
    ]);
    // 21 clients, two in each tenth of a second, the first two at once.
    assert!(began.elapsed().as_millis() >= 900, "{:?}", began.elapsed());
    assert!(
        out.contains("21 sent away") && out.contains("left the cluster"),
        "{out}"
    );
    for client in &mut clients {
        let Some(Packet::Disconnect(disconnect)) = client.assert_closed() else {
            panic!("no DISCONNECT")
        };
        assert_eq!(disconnect.reason as u8, 0x9C);
        assert_eq!(
            disconnect.properties.server_reference.as_deref(),
            Some("mqtt.example:1883")
        );
    }
    assert_eq!(old.assert_closed(), None);
    await_running(&host, N1, &[N1]);
    assert_eq!(left(&host, N1), [(N2.to_owned(), None)]);
    await_running(&host, N2, &[N2]);
    // It takes clients again.
    let mut client = Options::new("late").connect(nodes[1].mqtt);
    client.subscribe("late", QoS::AtLeastOnce);
    client.publish_and_receive("late");
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn while_a_node_is_emptied_a_connect_is_sent_away_too_and_with_stop_it_ends() {
    let host = Host::new();
    let mut nodes = cluster(&host, 2);
    let mut n2 = nodes.pop().expect("two");
    let _clients: Vec<_> = (0..3)
        .map(|n| Options::v5(&format!("c{n}")).connect(n2.mqtt))
        .collect();
    std::thread::scope(|scope| {
        let leaving = scope.spawn(|| {
            host.ok(&[
                "cluster", "leave", "--rate", "1", "--server", "b:1", "--moved", "--stop", "--node", N2,
            ])
        });
        n2.await_log("it has begun", |line| {
            line.contains("leaving: no client is let in")
        });
        let refused = Options::v5("late")
            .try_connect(n2.mqtt)
            .expect("an answer")
            .connack;
        assert_eq!(refused.reason as u8, 0x9D);
        assert_eq!(refused.properties.server_reference.as_deref(), Some("b:1"));
        let (err, _) = host.fails(&["cluster", "leave", "--node", N2]);
        assert!(err.contains("is being emptied already"), "{err}");
        let out = leaving.join().expect("the command ends");
        assert!(out.contains("3 sent away"), "{out}");
    });
    assert!(n2.wait_for_exit().success());
    await_running(&host, N1, &[N1]);
}
