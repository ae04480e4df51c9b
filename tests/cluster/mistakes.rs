//! What operators get wrong: one sentence each, on both sides where both must know, and everything else
//! goes on.

use std::io::{Read, Write};
use std::net::TcpStream;

use ermine::mqtt::packet::QoS;

use crate::cluster;
use crate::harness::client::Options;
use crate::harness::host::{Host, Node, free_port};

const N1: &str = "n1@127.0.0.1";

#[track_caller]
fn join_fails(host: &Host, other: &str) -> String {
    let output = host.run(&["cluster", "join", other, "--node", N1]);
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!err.trim().is_empty(), "a sentence on standard error");
    err
}

#[track_caller]
fn assert_alive(node: &Node) {
    let mut client = Options::new("probe").connect(node.mqtt);
    client.subscribe("probe", QoS::AtLeastOnce);
    client.publish_and_receive("probe");
}

#[test]
fn an_unknown_node_a_malformed_name_and_oneself_cannot_be_joined() {
    let host = Host::new();
    let n1 = host.start(N1);
    let err = join_fails(&host, "n9@127.0.0.1");
    assert!(err.contains("n9@127.0.0.1"), "{err}");
    let err = join_fails(&host, N1);
    assert!(err.contains("itself"), "{err}");
    let output = host.run(&["cluster", "join", "nonsense", "--node", N1]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("name@host"));
    assert_alive(&n1);
}

#[test]
fn commands_without_a_running_node_say_so() {
    let host = Host::new();
    let commands = [&["names"][..], &["cluster", "status"], &["tree"], &["routes"]];
    let assert_told = |remedy: &str| {
        for command in commands {
            let (err, status) = host.fails(command);
            assert_eq!(status, 1, "{command:?}");
            assert!(
                err.contains(remedy) && err.trim().lines().count() == 1,
                "{command:?}: {err}"
            );
        }
    };
    assert_told("`ermine start` makes one");
    assert!(host.start(N1).stop().success());
    assert_told("ermine start");
}

#[test]
fn a_wrong_cookie_is_told_apart_on_both_sides() {
    let host = Host::new();
    let n1 = host.start(N1);
    let stranger = host.with_another_cookie();
    // The stranger has made its own cookie once it has started; its registry port is the other's.
    let n2 = stranger.start("n2@127.0.0.1");
    let (err, _) = stranger.fails(&["cluster", "status", "--node", N1]);
    assert!(err.contains("cookie"), "{err}");
    n1.await_log("the node's side of the mismatch", |line| line.contains("cookie"));
    n2.await_log("the stranger's side of the mismatch", |line| {
        line.contains("cookie")
    });
    assert_alive(&n1);
    assert_alive(&n2);
}

#[test]
fn garbage_on_the_ports_between_nodes_harms_nobody() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let names = host.json(&["names"]);
    let ports = names
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|name| name["port"].as_u64());
    let ports: Vec<u16> = ports
        .map(|port| port as u16)
        .chain([host.registry_port])
        .collect();
    assert_eq!(ports.len(), 3, "{names}");
    for port in ports {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 4096],
            &[0, 0, 0, 4, 1, 2, 3, 4],
        ] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("connected");
            let _ = socket.write_all(garbage);
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
        }
    }
    let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
    subscriber.subscribe("after/garbage", QoS::AtLeastOnce);
    crate::await_route(&host, N1, "after/garbage", &["n2@127.0.0.1"]);
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    publisher.publish("after/garbage", "fine", QoS::AtLeastOnce);
    assert_eq!(subscriber.text(), "fine");
}

#[test]
fn a_second_node_of_the_same_name_is_refused() {
    let host = Host::new();
    let n1 = host.start(N1);
    let listen = format!("127.0.0.1:{}", free_port());
    let mut twin = host.spawn(N1, &["--listen", &listen, "--data-dir", "/nonexistent/twin"]);
    assert!(!twin.wait_for_exit().success());
    assert_alive(&n1);
}
