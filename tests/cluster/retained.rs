//! What is retained on one node is retained on all.

use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Packet, Publish, QoS, SubscriptionOptions};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::{await_route, cluster, running};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";

fn retain(node: &Node, topic: &str, payload: &str) {
    let mut client = Options::new("retaining").connect(node.mqtt);
    client.publish_with(topic, payload, QoS::AtLeastOnce, true);
    client.disconnect();
}

/// What a new subscriber of a node is greeted with, sorted: topic and payload.
fn greeting(node: &Node, filter: &str, len: usize) -> Vec<(String, String)> {
    let mut client = Options::new("greeted").connect(node.mqtt);
    client.subscribe(filter, QoS::AtLeastOnce);
    let mut found: Vec<_> = (0..len).map(|_| greeted_with(&mut client)).collect();
    client.assert_quiet();
    client.disconnect();
    found.sort();
    found
}

fn greeted_with(client: &mut Client) -> (String, String) {
    let Publish {
        topic,
        payload,
        retain,
        ..
    } = client.message();
    assert!(retain, "{topic}");
    (
        topic.to_string(),
        String::from_utf8(payload.to_vec()).expect("text"),
    )
}

/// The value of one of a node's figures, the sum of those with labels.
fn figure(host: &Host, node: &str, name: &str) -> u64 {
    let text = host.ok(&["metrics", "--node", node]);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let of = lines.filter(|line| line.split(['{', ' ']).next() == Some(name));
    let values = of.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

#[track_caller]
fn await_shared(host: &Host, nodes: &[&str], len: u64) {
    for node in nodes {
        eventually(&format!("{node} retains {len}"), || {
            (figure(host, node, "ermine_messages_retained_shared") == len).then_some(())
        });
    }
}

#[track_caller]
fn await_no_drift(host: &Host, nodes: &[&str]) {
    for node in nodes {
        eventually(&format!("{node} sees no drift"), || {
            (figure(host, node, "ermine_retained_drift") == 0).then_some(())
        });
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(topic, payload): &(&str, &str)| ((*topic).to_owned(), (*payload).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn a_message_retained_on_one_node_greets_subscribers_of_the_other_until_it_is_cleared_there() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    // Acknowledged, so it is there already: nobody subscribes to it anywhere.
    retain(&nodes[0], "spread/1", "one");
    retain(&nodes[0], "spread/2", "two");
    assert_eq!(
        greeting(&nodes[1], "spread/#", 2),
        pairs(&[("spread/1", "one"), ("spread/2", "two")])
    );
    retain(&nodes[1], "spread/1", "");
    retain(&nodes[1], "spread/2", "later");
    for node in &nodes {
        assert_eq!(greeting(node, "spread/#", 1), pairs(&[("spread/2", "later")]));
    }
    await_shared(&host, &[N1, N2], 1);
    await_no_drift(&host, &[N1, N2]);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_retained_message_comes_once_with_its_flag_as_each_subscriber_wants_it() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut plain = Options::v5("plain").connect(nodes[1].mqtt);
    plain.subscribe("flag", QoS::AtLeastOnce);
    let mut as_published = Options::v5("as-published").connect(nodes[1].mqtt);
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        retain_as_published: true,
        ..SubscriptionOptions::default()
    };
    as_published.subscribe_with("flag", options);
    await_route(&host, N1, "flag", &[N2]);
    retain(&nodes[0], "flag", "x");
    assert!(!plain.message().retain);
    assert!(as_published.message().retain);
    plain.assert_quiet();
    as_published.assert_quiet();
    assert_eq!(greeting(&nodes[1], "flag", 1), pairs(&[("flag", "x")]));
    // What expires does so on both.
    await_no_drift(&host, &[N1, N2]);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn subscribers_that_come_while_it_is_published_miss_nothing() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let address = nodes[0].mqtt;
    let publishing = std::thread::spawn(move || {
        let mut publisher = Options::new("p").connect(address);
        for number in 0..300 {
            publisher.publish_with("busy", &number.to_string(), QoS::AtLeastOnce, true);
        }
    });
    let mut subscribers = Vec::new();
    while !publishing.is_finished() {
        let mut subscriber = Options::new(&format!("s{}", subscribers.len())).connect(nodes[1].mqtt);
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        subscriber.send_subscribe("busy", options);
        subscribers.push(subscriber);
    }
    publishing.join().expect("each publication was acknowledged");
    for mut subscriber in subscribers {
        // Each is greeted with the last one, and has live all that follow it.
        let (mut greeted, mut live, mut acknowledged) = (None, Vec::new(), false);
        while !acknowledged || live.last().or(greeted.as_ref()) != Some(&299) {
            let publish = match subscriber.next() {
                Packet::Publish(publish) => publish,
                Packet::SubAck(_) => {
                    acknowledged = true;
                    continue;
                }
                other => panic!("{other:?}"),
            };
            subscriber.acknowledge(&publish);
            let text = std::str::from_utf8(&publish.payload).expect("text");
            let number: u32 = text.parse().expect("a number");
            if publish.retain {
                assert_eq!(greeted.replace(number), None, "greeted twice");
            } else {
                live.push(number);
            }
        }
        let first = live.first().copied().unwrap_or(300);
        assert_eq!(live, (first..300).collect::<Vec<_>>());
        let told = greeted.is_none_or(|greeted| greeted + 1 >= first);
        assert!(told, "greeted with {greeted:?}, then {live:?}");
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn two_nodes_with_messages_of_their_own_merge_when_they_join_and_the_later_write_holds() {
    let host = Host::new();
    let (one, two) = (host.start(N1), host.start(N2));
    retain(&one, "m/only-1", "1");
    retain(&one, "m/both", "earlier");
    retain(&one, "m/back", "earlier");
    retain(&two, "m/only-2", "2");
    retain(&two, "m/both", "later");
    retain(&two, "m/back", "before");
    retain(&one, "m/back", "later");
    host.ok(&["cluster", "join", N2, "--node", N1]);
    await_shared(&host, &[N1, N2], 4);
    await_no_drift(&host, &[N1, N2]);
    let expected = [
        ("m/back", "later"),
        ("m/both", "later"),
        ("m/only-1", "1"),
        ("m/only-2", "2"),
    ];
    for node in [&one, &two] {
        assert_eq!(greeting(node, "m/#", 4), pairs(&expected));
    }
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn what_a_stopped_node_missed_it_has_two_seconds_after_it_goes_on() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    retain(&nodes[2], "s/cleared", "x");
    nodes[2].signal("STOP");
    for node in &nodes[..2] {
        let down = |line: &str| line.contains("nodedown") && line.contains("n3@");
        node.await_log("nodedown of n3", down);
    }
    retain(&nodes[0], "s/new", "1");
    retain(&nodes[1], "s/cleared", "");
    nodes[2].signal("CONT");
    let back = Instant::now();
    eventually("n3 is back", || (running(&host, N1).len() == 3).then_some(()));
    let linked = Instant::now();
    await_shared(&host, &[N1, N2, "n3@127.0.0.1"], 1);
    let took = (back.elapsed(), linked.elapsed());
    println!(
        "equal {:?} after SIGCONT, {:?} after the link was seen",
        took.0, took.1
    );
    assert!(took.1 < Duration::from_secs(2), "{took:?}");
    assert_eq!(greeting(&nodes[2], "s/#", 1), pairs(&[("s/new", "1")]));
    await_no_drift(&host, &[N1, N2, "n3@127.0.0.1"]);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_killed_node_that_starts_again_gets_all_back_from_the_others() {
    let host = Host::new();
    let mut nodes = cluster(&host, 2);
    retain(&nodes[1], "k/1", "written on n2");
    retain(&nodes[0], "k/2", "written on n1");
    nodes.pop().expect("two nodes").kill();
    retain(&nodes[0], "k/3", "while it was away");
    let back = host.start(N2);
    await_shared(&host, &[N2], 3);
    let topics = greeting(&back, "k/#", 3);
    assert_eq!(topics[0], ("k/1".into(), "written on n2".into()));
    await_no_drift(&host, &[N1, N2]);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_full_node_counts_what_it_cannot_retain_and_the_others_have_it() {
    let host = Host::new();
    let limits = host.home().join("limits.toml");
    std::fs::write(&limits, "[limits]\nretained_len_max = 200\n").expect("written");
    let one = host.start(N1);
    let limits = limits.to_str().expect("text");
    let _two = host.start_with(N2, &["--config", limits]);
    let mut client = Options::new("p").connect(one.mqtt);
    for number in 0..400 {
        client.publish_with(&format!("f/{number}"), "x", QoS::AtMostOnce, true);
    }
    host.ok(&["cluster", "join", N2, "--node", N1]);
    eventually("n2 is full", || {
        (figure(&host, N2, "ermine_messages_retained") == 200).then_some(())
    });
    eventually("n2 tells that it differs", || {
        (figure(&host, N2, "ermine_retained_drift") > 0).then_some(())
    });
    client.publish_with("f/more", "x", QoS::AtLeastOnce, true);
    eventually("n2 has refused", || {
        (figure(&host, N2, "ermine_retained_refused_total") > 0).then_some(())
    });
    assert_eq!(figure(&host, N1, "ermine_messages_retained_shared"), 401);
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn twenty_thousand_retained_messages_reach_a_joining_node() {
    let host = Host::new();
    let (one, _two) = (host.start(N1), host.start(N2));
    let mut client = Options::new("p").connect(one.mqtt);
    let payload = "x".repeat(64);
    for number in 0..19_999 {
        client.send_publish(
            &format!("many/{}/{number}", number % 100),
            payload.as_bytes(),
            QoS::AtMostOnce,
            true,
        );
    }
    client.publish_with("many/last", "x", QoS::AtLeastOnce, true);
    await_shared(&host, &[N1], 20_000);
    host.ok(&["cluster", "join", N2, "--node", N1]);
    let joined = Instant::now();
    await_shared(&host, &[N2], 20_000);
    println!(
        "20,000 retained messages held {:?} after the join",
        joined.elapsed()
    );
    await_no_drift(&host, &[N1, N2]);
    host.assert_balanced("n1@127.0.0.1");
}
