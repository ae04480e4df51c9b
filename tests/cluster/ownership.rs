//! One session per client id, on whichever node its client connects.

use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::{await_route, cluster, running};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

fn clients(host: &Host, node: &str) -> Vec<String> {
    let listed = host.json(&["clients", "--node", node]);
    let listed = listed.as_array().expect("a list").iter();
    listed
        .filter_map(|client| client["client_id"].as_str())
        .map(str::to_owned)
        .collect()
}

fn await_gone(host: &Host, node: &str, client: &str) {
    eventually(&format!("{node} has no {client}"), || {
        (!clients(host, node).iter().any(|id| id == client)).then_some(())
    });
}

fn assert_taken_over(client: &mut Client) {
    match client.assert_closed() {
        Some(Packet::Disconnect(disconnect)) => {
            assert_eq!(disconnect.reason, ReasonCode::SessionTakenOver);
        }
        other => panic!("instead of DISCONNECT 0x8E: {other:?}"),
    }
}

fn resume(node: &Node, client: &str) -> Client {
    let client = Options::v5(client).persistent().connect(node.mqtt);
    assert!(client.connack.session_present, "the session has moved");
    client
}

#[test]
fn a_client_that_connects_elsewhere_takes_its_session_along() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut old = Options::v5("c").persistent().connect(nodes[0].mqtt);
    old.subscribe("moving/#", QoS::AtLeastOnce);
    let mut new = resume(&nodes[1], "c");
    assert_taken_over(&mut old);
    await_route(&host, N1, "moving/#", &[N2]);
    await_gone(&host, N1, "c");
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    publisher.publish("moving/1", "over there", QoS::AtLeastOnce);
    assert_eq!(new.text(), "over there");
    new.assert_quiet();
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn what_waited_for_an_absent_client_is_delivered_once_on_another_node() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut old = Options::v5("c").persistent().connect(nodes[0].mqtt);
    old.subscribe("queue/#", QoS::ExactlyOnce);
    old.disconnect();
    let mut publisher = Options::new("p").connect(nodes[1].mqtt);
    await_route(&host, N2, "queue/#", &[N1]);
    for number in 0..20 {
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][number % 2];
        publisher.publish("queue/x", &number.to_string(), qos);
    }
    let mut new = resume(&nodes[1], "c");
    for number in 0..20 {
        assert_eq!(new.text(), number.to_string());
    }
    new.assert_quiet();
    await_route(&host, N1, "queue/#", &[N2]);
    new.disconnect();
    // And back, with nothing waiting.
    let mut back = resume(&nodes[0], "c");
    back.assert_quiet();
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_clean_start_discards_the_session_on_the_other_node() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut old = Options::v5("c").persistent().connect(nodes[0].mqtt);
    old.subscribe("clean/#", QoS::AtLeastOnce);
    let mut new = Options::v5("c").connect(nodes[1].mqtt);
    assert!(!new.connack.session_present);
    assert_taken_over(&mut old);
    await_route(&host, N1, "clean/#", &[]);
    await_route(&host, N2, "clean/#", &[]);
    new.publish("clean/1", "for nobody", QoS::AtLeastOnce);
    new.assert_quiet();
    await_gone(&host, N1, "c");
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_client_that_reconnects_from_node_to_node_misses_nothing() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let mut client = Options::v5("c").persistent().connect(nodes[0].mqtt);
    client.subscribe("stream", QoS::AtLeastOnce);
    for node in &nodes {
        await_route(&host, &node.name, "stream", &[N1]);
    }
    let address = nodes[0].mqtt;
    let (more, allowed) = std::sync::mpsc::channel::<()>();
    let publishing = std::thread::spawn(move || {
        let mut publisher = Options::new("p").connect(address);
        let mut sent = 0_u32;
        while allowed.recv().is_ok() {
            publisher.publish("stream", &sent.to_string(), QoS::AtLeastOnce);
            sent += 1;
        }
        sent
    });
    // Some while it moves, some after; never more than a queue holds.
    let publish = || (0..60).for_each(|_| more.send(()).expect("the publisher listens"));
    // At least once: a message that was sent to the old connection comes again, in order.
    let mut next = 0_u32;
    let mut take = |client: &mut Client, count: u32| {
        for _ in 0..count {
            let number: u32 = client.text().parse().expect("a number");
            assert!(number <= next, "{next} is missing: {number} came");
            next = next.max(number + 1);
        }
        next
    };
    for round in 0..12 {
        publish();
        take(&mut client, 20);
        client = resume(&nodes[(round + 1) % 3], "c");
    }
    drop(more);
    let sent = publishing.join().expect("each publication was acknowledged");
    while take(&mut client, 1) < sent {}
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn the_client_of_a_killed_node_is_served_elsewhere_in_time() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let mut lost: Vec<Client> = (0..8)
        .map(|n| Options::v5(&format!("c{n}")).persistent().connect(nodes[2].mqtt))
        .collect();
    nodes.pop().expect("three").kill();
    for n in 0..8 {
        let started = Instant::now();
        Options::v5(&format!("c{n}"))
            .persistent()
            .connect(nodes[n % 2].mqtt);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    lost.clear();
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_stopped_node_holds_no_connect_up_and_loses_its_client_when_it_wakes() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut olds: Vec<Client> = (0..4)
        .map(|n| Options::v5(&format!("c{n}")).persistent().connect(nodes[1].mqtt))
        .collect();
    nodes[1].signal("STOP");
    let mut news = Vec::new();
    for n in 0..4 {
        let started = Instant::now();
        news.push(Options::v5(&format!("c{n}")).persistent().connect(nodes[0].mqtt));
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    eventually("n1 is alone", || (running(&host, N1) == [N1]).then_some(()));
    nodes[1].signal("CONT");
    for old in &mut olds {
        assert_taken_over(old);
    }
    eventually("both see both", || (running(&host, N2).len() == 2).then_some(()));
    for (n, new) in news.iter_mut().enumerate() {
        await_gone(&host, N2, &format!("c{n}"));
        new.assert_quiet();
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn nodes_that_join_leave_the_later_of_two_clients() {
    let host = Host::new();
    let n1 = host.start(N1);
    let n2 = host.start(N2);
    let mut earlier = Options::v5("c").persistent().connect(n1.mqtt);
    let mut later = Options::v5("c").persistent().connect(n2.mqtt);
    host.ok(&["cluster", "join", N2, "--node", N1]);
    assert_taken_over(&mut earlier);
    later.assert_quiet();
    await_gone(&host, N1, "c");
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn the_keeper_of_client_ids_may_crash_and_no_session_is_lost() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut old = Options::v5("c").persistent().connect(nodes[0].mqtt);
    old.subscribe("crash/#", QoS::AtLeastOnce);
    for node in &nodes {
        let mark = node.log.len();
        host.ok(&["crash", "root/cluster/owners", "--node", &node.name]);
        node.log
            .wait_after(mark, "the crash", |line| line.contains("panic"));
    }
    let started = Instant::now();
    let mut new = resume(&nodes[1], "c");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_taken_over(&mut old);
    new.publish_and_receive("crash/1");
    for name in [N1, N2] {
        assert_eq!(running(&host, name).len(), 2);
    }
    host.assert_balanced("n1@127.0.0.1");
}
