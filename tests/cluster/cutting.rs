//! A link whose connection is reset again and again, each time 100 ms after it is back, or each 100 ms
//! however it stands: no message of QoS 1 is lost, none comes twice. Nor is one lost that was acknowledged
//! over such a link for a session that is away, if the node of that session is killed.
//!
//! The kernel resets it (`ss -K`), which needs root; skipped with the reason where that cannot be done.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ermine::limits::SESSION_QUEUE_LEN_MAX;
use ermine::mqtt::packet::QoS;

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, text};
use crate::{await_route, cluster};

/// How long a connection lives.
const CUT_AFTER: Duration = Duration::from_millis(100);

/// Resets that hit a connection, unless `ERMINE_LINK_CUTS` says otherwise.
const CUTS: usize = 40;

/// Resets before the node is killed that has the session.
const KILLED_AFTER: usize = 15;

const PUBLISHERS: usize = 3;

/// The last word of a publisher.
const END: &str = "end";

/// Resets what other nodes have open to these ports; how many connections that were, or why it cannot be
/// done.
fn reset(ports: &[u64]) -> Result<usize, String> {
    let ports: Vec<String> = ports.iter().map(|port| format!("dport = :{port}")).collect();
    let filter = format!("( {} )", ports.join(" or "));
    let mut command = Command::new("ss");
    command.args(["-K", "-H", "-t", "state", "established", &filter]);
    let output = command
        .output()
        .map_err(|error| format!("ss does not run: {error}"))?;
    let complaint = text(&output.stderr);
    if !output.status.success() || !complaint.trim().is_empty() {
        return Err(format!("ss -K: {}", complaint.trim()));
    }
    Ok(text(&output.stdout).lines().count())
}

/// Where the nodes take links.
fn ports(host: &Host) -> Vec<u64> {
    let names = host.json(&["names"]);
    let names = names.as_array().expect("an array");
    names
        .iter()
        .map(|name| name["port"].as_u64().expect("a port"))
        .collect()
}

/// Publishes numbers until it is told to stop; how many were acknowledged.
fn publish(node: &Node, publisher: usize, stopped: impl Fn() -> bool) -> usize {
    let topic = format!("cut/{publisher}");
    let mut client = Options::new(&topic).connect(node.mqtt);
    let mut sent = 0;
    while !stopped() {
        client.publish(&topic, &sent.to_string(), QoS::AtLeastOnce);
        sent += 1;
    }
    client.publish(&topic, END, QoS::AtLeastOnce);
    sent
}

/// Reads until every publisher has said its last word: how many of each came, in order and once each.
fn read(subscriber: &mut Client) -> BTreeMap<String, usize> {
    let (mut came, mut ended) = (BTreeMap::new(), 0);
    while ended < PUBLISHERS {
        let message = subscriber.message();
        let (topic, payload) = (message.topic.to_string(), text(&message.payload));
        let next: &mut usize = came.entry(topic.clone()).or_default();
        if payload == END {
            ended += 1;
        } else {
            assert_eq!(payload, next.to_string(), "{topic}: what came is what is next");
            *next += 1;
        }
    }
    subscriber.assert_quiet();
    came
}

/// Two nodes with a subscriber at the second.
struct Rig {
    host: Host,
    nodes: Vec<Node>,
    ports: Vec<u64>,
    subscriber: Client,
}

impl Rig {
    /// `None`, with the reason, where connections cannot be reset.
    fn new() -> Option<Self> {
        let host = Host::new();
        let nodes = cluster(&host, 2);
        let ports = ports(&host);
        let mut subscriber = Options::new("s").connect(nodes[1].mqtt);
        subscriber.subscribe("cut/#", QoS::AtLeastOnce);
        await_route(&host, &nodes[0].name, "cut/#", &[&nodes[1].name]);
        let mark = nodes[0].log.len();
        if let Err(why) = reset(&ports) {
            eprintln!("skipped: connections cannot be reset here: {why}");
            return None;
        }
        is_back(&nodes[0], mark);
        Some(Self {
            host,
            nodes,
            ports,
            subscriber,
        })
    }

    /// Publishes while `cut` is busy with the link: what was acknowledged has come, in order and once.
    fn publish_while(self, cut: impl FnOnce(&Node, &[u64])) {
        let Self {
            host,
            nodes,
            ports,
            mut subscriber,
        } = self;
        let from = &nodes[0];
        let stop = AtomicBool::new(false);
        let stopped = || stop.load(Relaxed);
        let (sent, came) = std::thread::scope(|scope| {
            let publishing: Vec<_> = (0..PUBLISHERS)
                .map(|number| scope.spawn(move || publish(from, number, stopped)))
                .collect();
            let reading = scope.spawn(move || read(&mut subscriber));
            cut(from, &ports);
            stop.store(true, Relaxed);
            let sent: Vec<usize> = publishing
                .into_iter()
                .map(|one| one.join().expect("all acknowledged"))
                .collect();
            (sent, reading.join().expect("in order and once each"))
        });
        eprintln!("{} messages", sent.iter().sum::<usize>());
        for (number, sent) in sent.into_iter().enumerate() {
            assert_eq!(came[&format!("cut/{number}")], sent, "of publisher {number}");
            assert!(sent > 0, "publisher {number} got none through");
        }
        host.assert_balanced(&from.name);
    }
}

/// Waits until the link goes on.
#[track_caller]
fn is_back(node: &Node, mark: usize) {
    node.log.wait_after(mark, "it goes on", |line| {
        line.contains("is back over a new connection")
    });
}

/// Lets that much time go by: the pace is what is tested.
fn pace(pause: Duration) {
    let (_ticking, ticks) = channel::<()>();
    assert_eq!(ticks.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
}

fn cuts() -> usize {
    std::env::var("ERMINE_LINK_CUTS").map_or(CUTS, |cuts| cuts.parse().expect("a number"))
}

#[test]
fn a_link_that_is_reset_100_ms_after_it_is_back_loses_no_message_of_qos_1_and_doubles_none() {
    let Some(rig) = Rig::new() else { return };
    rig.publish_while(|from, ports| {
        for _ in 0..cuts() {
            pace(CUT_AFTER);
            let mark = from.log.len();
            reset(ports).expect("as before");
            is_back(from, mark);
        }
    });
}

#[test]
fn a_link_that_is_reset_every_100_ms_loses_no_message_of_qos_1_and_doubles_none() {
    let Some(rig) = Rig::new() else { return };
    rig.publish_while(|from, ports| {
        let began = from.log.len();
        // Whether the link is up, opening or waiting for a dial.
        for _ in 0..cuts() {
            pace(CUT_AFTER);
            reset(ports).expect("as before");
        }
        let lines = from.log.all();
        let said = |word: &str| {
            lines
                .lines()
                .skip(began)
                .filter(|line| line.contains(word))
                .count()
        };
        let (back, down) = (said("is back over a new connection"), said("nodedown"));
        eprintln!("{} resets, {back} times back, {down} times down", cuts());
    });
}

#[test]
fn what_was_acknowledged_over_a_link_that_is_reset_outlasts_the_node_that_has_the_session() {
    let Some(mut rig) = Rig::new() else { return };
    let away = || Options::new("away").persistent();
    let mut client = away().connect(rig.nodes[1].mqtt);
    client.subscribe("kept", QoS::AtLeastOnce);
    await_route(&rig.host, &rig.nodes[0].name, "kept", &[&rig.nodes[1].name]);
    client.disconnect();

    let (from, to) = (rig.nodes.remove(0), rig.nodes.remove(0));
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kept = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Options::new("p").connect(from.mqtt);
            // As many as the queue of a session takes.
            while !stop.load(Relaxed) && acknowledged.load(Relaxed) < SESSION_QUEUE_LEN_MAX {
                let number = acknowledged.load(Relaxed).to_string();
                client.publish("kept", &number, QoS::AtLeastOnce);
                acknowledged.fetch_add(1, Relaxed);
            }
        });
        for _ in 0..KILLED_AFTER {
            pace(CUT_AFTER);
            reset(&rig.ports).expect("as before");
        }
        let kept = acknowledged.load(Relaxed);
        to.kill();
        stop.store(true, Relaxed);
        kept
    });
    eprintln!("{kept} messages before the kill");
    assert!(kept > 0, "none got through");
    let to = rig.host.start("n2@127.0.0.1");
    let mut client = away().connect(to.mqtt);
    for number in 0..kept {
        assert_eq!(client.text(), number.to_string(), "what comes is what is next");
    }
}
