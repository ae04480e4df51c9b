//! What befalls a link: its processes crash, its connection breaks, its other end falls silent, goes, or
//! talks nonsense.

use std::net::TcpStream as StdStream;
use std::time::{Duration, Instant};

use ermine::cluster::wire::v1::{self, Answer, Hello};
use ermine::cluster::wire::{self, VERSIONS, VersionRange};
use ermine::mqtt::packet::QoS;
use ermine::node_name::{Incarnation, NodeId};
use ermine::registry::{Cookie, Identity, Purpose, prove_as_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually};
use crate::{await_route, cluster, running};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

/// Publishes on `from` at QoS 1 while `meanwhile` runs: every publication is acknowledged, a subscriber on
/// `to` gets all of them, in order and none twice.
fn the_stream_goes_on(host: &Host, from: &Node, to: &Node, meanwhile: impl Fn()) {
    let mut subscriber = Options::new("s").connect(to.mqtt);
    subscriber.subscribe("stream", QoS::AtLeastOnce);
    await_route(host, &from.name, "stream", &[&to.name]);
    let address = from.mqtt;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let publishing = std::thread::spawn(move || {
        let mut publisher = Options::new("p").connect(address);
        let mut sent = 0_u32;
        while stopped.try_recv().is_err() {
            publisher.publish("stream", &sent.to_string(), QoS::AtLeastOnce);
            sent += 1;
        }
        sent
    });
    for number in 0..50 {
        assert_eq!(subscriber.text(), number.to_string());
    }
    meanwhile();
    await_route(host, &from.name, "stream", &[&to.name]);
    stop.send(()).expect("the publisher listens");
    let sent = publishing.join().expect("each publication was acknowledged");
    for number in 50..sent {
        assert_eq!(subscriber.text(), number.to_string());
    }
    subscriber.assert_quiet();
}

fn crash(host: &Host, node: &Node, path: &str) {
    let mark = node.log.len();
    host.ok(&["crash", path, "--node", &node.name]);
    node.log.wait_after(mark, "the crash report", |line| {
        line.contains("made to crash") || line.contains("panic")
    });
}

/// Waits until both nodes see each other. While their gate or registry restarts they cannot be asked.
fn both_run(host: &Host) {
    for name in [N1, N2] {
        eventually(&format!("{name} sees both"), || {
            let output = host.run(&["cluster", "status", "--node", name, "--json"]);
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            (status["running_nodes"].as_array()?.len() == 2).then_some(())
        });
    }
}

#[test]
fn every_process_between_nodes_may_crash_under_traffic() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut local = Options::new("local").connect(nodes[0].mqtt);
    local.subscribe("local", QoS::AtLeastOnce);
    for path in [
        "root/cluster/gate",
        "root/cluster/connector",
        "root/cluster/dist",
        "root/cluster/peers/n2@127.0.0.1",
        "root/cluster/peers",
        "root/cluster",
    ] {
        the_stream_goes_on(&host, &nodes[0], &nodes[1], || {
            crash(&host, &nodes[0], path);
            both_run(&host);
        });
        local.publish_and_receive("local");
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn the_receiving_end_may_crash_under_traffic_and_its_subscribers_miss_nothing() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    for path in ["dist", "peers/n1@127.0.0.1"] {
        the_stream_goes_on(&host, &nodes[0], &nodes[1], || {
            crash(&host, &nodes[1], &format!("root/cluster/{path}"));
            both_run(&host);
        });
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_killed_node_is_down_within_a_second() {
    let host = Host::new();
    let mut nodes = cluster(&host, 2);
    let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
    subscriber.subscribe("killed/#", QoS::AtMostOnce);
    await_route(&host, N1, "killed/#", &[N2]);
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    let n2 = nodes.pop().expect("two");
    let killed = Instant::now();
    n2.kill();
    // Held until the node is known to be down, and no longer.
    publisher.publish("killed/x", "in flight", QoS::AtLeastOnce);
    nodes[0].await_log("nodedown", |line| {
        line.contains("nodedown n2") && line.contains("connection_closed")
    });
    let after = killed.elapsed();
    assert!(after < Duration::from_secs(1), "{after:?}");
    await_route(&host, N1, "killed/#", &[]);
    publisher.publish("killed/x", "nobody is left", QoS::AtLeastOnce);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_silent_node_is_down_after_its_ticks_fail_and_up_again_when_it_wakes() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
    subscriber.subscribe("silent/#", QoS::AtMostOnce);
    await_route(&host, N1, "silent/#", &[N2]);
    nodes[1].signal("STOP");
    let stopped = Instant::now();
    nodes[0].await_log("suspicion", |line| {
        line.contains("nothing came from n2@127.0.0.1")
    });
    let suspect = stopped.elapsed();
    nodes[0].await_log("nodedown", |line| {
        line.contains("nodedown n2") && line.contains("net_tick_timeout")
    });
    let down = stopped.elapsed();
    // The last tick came up to a second before, and it is looked every quarter of one.
    assert!(
        suspect > Duration::from_millis(900) && suspect < Duration::from_secs(4),
        "{suspect:?}"
    );
    assert!(
        down > Duration::from_millis(3900) && down < Duration::from_secs(7),
        "{down:?}"
    );
    await_route(&host, N1, "silent/#", &[]);
    assert_eq!(running(&host, N1), [N1]);
    nodes[1].signal("CONT");
    await_route(&host, N1, "silent/#", &[N2]);
    both_run(&host);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn who_leaves_is_not_brought_back_by_a_node_that_was_away_but_by_a_join() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    nodes.pop().expect("three").kill();
    host.ok(&["cluster", "leave", "--node", N2]);
    assert_eq!(running(&host, N2), [N2]);
    eventually("n1 is alone", || (running(&host, N1) == [N1]).then_some(()));
    let n3 = host.start("n3@127.0.0.1");
    eventually("n3 finds n1", || (running(&host, N1).len() == 2).then_some(()));
    n3.await_log("n2 told n3 that it left, or n1 did", |line| {
        line.contains("nodeup n1")
    });
    assert_eq!(running(&host, N2), [N2]);
    host.ok(&["cluster", "join", N2, "--node", N1]);
    for name in [N1, N2, "n3@127.0.0.1"] {
        eventually(&format!("{name} sees three"), || {
            (running(&host, name).len() == 3).then_some(())
        });
    }
}

#[test]
fn joins_from_all_sides_at_once_make_one_cluster() {
    let host = Host::new();
    let names = [N1, N2, "n3@127.0.0.1"];
    let _nodes: Vec<_> = names.iter().map(|name| host.start(name)).collect();
    std::thread::scope(|scope| {
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 0)] {
            let host = &host;
            // Which of them comes too late ("is a member already") is chance; all of them may.
            scope.spawn(move || host.run(&["cluster", "join", names[to], "--node", names[from]]));
        }
    });
    for name in names {
        eventually(&format!("{name} sees three"), || {
            (running(&host, name).len() == 3).then_some(())
        });
    }
}

/// A node that holds the cookie and is played by the test.
struct Impostor {
    stream: TcpStream,
    node: NodeId,
}

impl Impostor {
    async fn prove(host: &Host) -> Self {
        let names = host.json(&["names"]);
        let of_n1 = names
            .as_array()
            .expect("an array")
            .iter()
            .find(|name| name["name"] == N1 || name["node"]["name"] == N1);
        let port = of_n1
            .and_then(|name| name["port"].as_u64())
            .expect("the port of n1");
        let stream = StdStream::connect(("127.0.0.1", port as u16)).expect("connected");
        stream.set_nonblocking(true).expect("set");
        let mut stream = TcpStream::from_std(stream).expect("in a runtime");
        let node = NodeId {
            name: "odd@127.0.0.1".parse().expect("a name"),
            incarnation: Incarnation(1),
        };
        let cookie = Cookie::load(&host.home().join(".ermine.cookie")).expect("the cookie of n1");
        let me = Identity::node(node.clone());
        prove_as_client(&mut stream, &cookie, Purpose::Link, &me, None)
            .await
            .expect("proved");
        Self { stream, node }
    }

    async fn open(mut self) -> TcpStream {
        wire::agree(&mut self.stream, VERSIONS).await.expect("agreed");
        let hello = Hello {
            node: self.node,
            link: 7,
            join: false,
            received: 0,
            members: vec![],
        };
        wire::put(&mut self.stream, &v1::encode(&hello))
            .await
            .expect("sent");
        let answer = wire::get(&mut self.stream).await.expect("answered");
        assert!(matches!(v1::decode(&answer), Ok(Answer::Welcome { .. })));
        self.stream
    }
}

fn in_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn a_node_of_another_version_is_refused_with_both_versions() {
    let host = Host::new();
    let n1 = host.start(N1);
    in_a_runtime(async {
        let mut impostor = Impostor::prove(&host).await;
        let newer = VersionRange { min: 8, max: 9 };
        let error = wire::agree(&mut impostor.stream, newer)
            .await
            .expect_err("no common version");
        assert!(
            error
                .to_string()
                .contains("we speak 8 to 9, the other node speaks 1"),
            "{error}"
        );
    });
    n1.await_log("both versions", |line| {
        line.contains("we speak 1, the other node speaks 8 to 9")
    });
}

#[test]
fn a_node_that_holds_the_cookie_and_sends_garbage_loses_its_link_and_nothing_else_happens() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mark = nodes[0].log.len();
    in_a_runtime(async {
        // In the opening: no frame at all, and a frame that is no Hello.
        for garbage in [&[0xff; 64][..], b"ERML\0\x01\0\x01\0\0\0\x03abc"] {
            let mut stream = Impostor::prove(&host).await.stream;
            stream.write_all(garbage).await.expect("sent");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        // After the welcome: the carrier gets nonsense.
        let mut stream = Impostor::prove(&host).await.open().await;
        stream.write_all(&[0xff; 4096]).await.expect("sent");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let log = &nodes[0].log;
    log.wait_after(mark, "no magic", |line| {
        line.contains("does not speak the language of links")
    });
    log.wait_after(mark, "no Hello", |line| {
        line.contains("not a frame of the link protocol")
    });
    log.wait_after(mark, "the link", |line| {
        line.contains("the link to odd@127.0.0.1 did not come up")
    });
    both_run(&host);
    the_stream_goes_on(&host, &nodes[0], &nodes[1], || {});
    host.assert_balanced("n1@127.0.0.1");
}
