//! `ermine cluster check`: each fault has its own step and its own sentence, and the other node logs its
//! half. Clocks, versions and what a node answers instead are tested as values in `src/node/checking`.

use std::net::TcpListener;

use ermine::admin::client::Operator;
use ermine::admin::protocol::{Reply, Request};
use ermine::node_name::{Incarnation, NodeId, NodeName};
use ermine::registry::{Announcement, Cookie, Endpoint, Identity, RegistryClient};

use crate::cluster;
use crate::harness::host::{Host, text};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

pub(crate) fn cookie(host: &Host) -> Cookie {
    Cookie::load(&host.home().join(".ermine.cookie")).expect("a cookie")
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Runs a check that must fail; the steps that passed, and the sentence.
#[track_caller]
pub(crate) fn fault(host: &Host, from: &str, to: &str) -> (Vec<String>, String) {
    let output = host.run(&["cluster", "check", to, "--node", from]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(err.trim().lines().count(), 1, "{err}");
    let passed = out.lines().filter_map(|line| line.strip_prefix("ok   "));
    let steps = passed.map(|line| line.split("  ").next().unwrap_or(line).trim().to_owned());
    (steps.collect(), err)
}

#[test]
fn a_check_between_two_healthy_nodes_passes_every_step_and_changes_nothing() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let n2 = host.start(N2);
    let value = host.json(&["cluster", "check", N2, "--node", N1]);
    let steps = value["steps"].as_array().expect("steps");
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(
        names,
        [
            "name",
            "resolution",
            "registry",
            "port",
            "version",
            "cookie",
            "clock",
            "way back",
            "mesh",
            "canary"
        ]
    );
    assert!(
        value["ok"] == true && steps.iter().all(|step| step["ok"] == true),
        "{value}"
    );
    n2.await_log("its half", |line| {
        line.contains("a check by n1@127.0.0.1: n1@127.0.0.1 is reached")
    });
    assert_eq!(crate::running(&host, N1), [N1]);
    let out = host.ok(&["cluster", "check", N2, "--node", N1]);
    assert!(out.contains("n1@127.0.0.1 can join n2@127.0.0.1"), "{out}");
}

#[test]
fn names_hosts_registries_and_ports_that_are_wrong_are_told_apart() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let mut sentences = Vec::new();
    let mut told = |to: &str, last: Option<&str>, wanted: &str| {
        let (steps, sentence) = fault(&host, N1, to);
        assert_eq!(steps.last().map(String::as_str), last, "{to}: {sentence}");
        assert!(sentence.contains(wanted), "{to}: {sentence}");
        sentences.push(sentence);
    };
    told(N1, None, "is this node");
    told("n2@nowhere.invalid", Some("name"), "has no address here");
    // Nobody listens on that address of this host.
    told("n2@127.0.0.9", Some("resolution"), "no node runs on that host");
    told("n9@127.0.0.1", Some("resolution"), "is not registered");
    let stranger = TcpListener::bind(("127.0.0.8", host.registry_port)).expect("bound");
    std::thread::spawn(move || {
        use std::io::Write;
        for mut socket in stranger.incoming().flatten() {
            let _ = socket.write_all(&[b'x'; 512]);
        }
    });
    told("n2@127.0.0.8", Some("resolution"), "not an Ermine registry");
    let runtime = runtime();
    let _lease = runtime.block_on(async {
        let id = NodeId {
            name: name("ghost@127.0.0.1"),
            incarnation: Incarnation(1),
        };
        let client = RegistryClient::new(cookie(&host), Identity::node(id), host.registry_port);
        let announcement = Announcement {
            port: 1,
            listeners: Vec::new(),
        };
        let contact = ([127, 0, 0, 1], host.registry_port).into();
        client.register(contact, announcement).await.expect("registered")
    });
    told("ghost@127.0.0.1", Some("registry"), "open it in the firewall");
    sentences.sort_unstable();
    sentences.dedup();
    assert_eq!(sentences.len(), 6);
}

#[test]
fn a_wrong_cookie_is_the_cookie_s_step_and_both_sides_say_so() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let stranger = host.with_another_cookie();
    let n2 = stranger.start("n2@127.0.0.2");
    let (steps, sentence) = fault(&host, N1, "n2@127.0.0.2");
    assert_eq!(steps, ["name", "resolution", "registry"]);
    assert!(sentence.contains("cookie mismatch") && sentence.contains("ermine cookie fingerprint"));
    n2.await_log("its half", |line| line.contains("cookie mismatch"));
}

#[test]
fn the_other_node_tells_and_logs_that_it_has_no_way_back() {
    let host = Host::new();
    let n2 = host.start(N2);
    let reached = runtime().block_on(async {
        let port = ([127, 0, 0, 1], host.registry_port).into();
        let here = Endpoint {
            bind: port,
            contact: port,
        };
        let operator = Operator::new(cookie(&host), here);
        let n2 = operator.find(Some(&name(N2)), None).await.expect("found");
        let request = Request::Reach {
            from: name("n1@a.invalid"),
            nodes: vec![name("n1@a.invalid")],
            canary: false,
        };
        let mut reached = Vec::new();
        let asked = operator.ask(&n2, &request, |reply| {
            if let Reply::Reached(ways) = reply {
                reached = ways;
            }
        });
        asked.await.expect("answered");
        reached
    });
    let why = reached[0].failed.as_deref().expect("no such host");
    assert!(why.contains("check the host name"), "{why}");
    n2.await_log("its half", |line| {
        line.contains("a check by n1@a.invalid: n1@a.invalid is not reached from here")
    });
}

#[test]
fn a_member_there_that_is_not_reached_from_here_is_named() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let _alone = host.start("n0@127.0.0.1");
    nodes[2].signal("STOP");
    let (steps, sentence) = fault(&host, "n0@127.0.0.1", N1);
    assert_eq!(steps.last().map(String::as_str), Some("way back"), "{sentence}");
    assert!(
        sentence.contains("n3@127.0.0.1, a member of the cluster of n1@127.0.0.1, is not reached from here"),
        "{sentence}"
    );
    nodes[2].signal("CONT");
}

#[test]
fn an_invitation_names_the_cookie_s_place_and_never_the_cookie() {
    let host = Host::new();
    let _n1 = host.start(N1);
    let out = host.ok(&["cluster", "invite"]);
    let cookie = std::fs::read_to_string(host.home().join(".ermine.cookie")).expect("a cookie");
    assert!(
        out.contains("ermine cluster join n1@127.0.0.1") && out.contains(".ermine.cookie"),
        "{out}"
    );
    assert!(!out.contains(cookie.trim()), "{out}");
    let value = host.json(&["cluster", "invite"]);
    assert_eq!(value["commands"].as_array().map(Vec::len), Some(3));
}
