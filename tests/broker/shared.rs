//! Shared subscriptions: how a group chooses, and what becomes of what a member leaves behind.

use ermine::mqtt::packet::{Packet, Publish, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node};

/// What a member has got up to now, acknowledged if it is to be.
fn got(member: &mut Client, acknowledge: bool) -> Vec<Publish> {
    member.send(&Packet::PingReq);
    let mut all = Vec::new();
    loop {
        match member.next() {
            Packet::PingResp => return all,
            Packet::Publish(publish) => {
                if acknowledge {
                    member.acknowledge(&publish);
                }
                all.push(publish);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn members(node: &Node, group: &str, versions: [fn(&str) -> Options; 3]) -> Vec<Client> {
    let join = |(index, options): (usize, fn(&str) -> Options)| {
        let mut member = options(&format!("{group}-{index}")).connect(node.mqtt);
        member.subscribe(&format!("$share/{group}/jobs/#"), QoS::AtLeastOnce);
        member
    };
    versions.into_iter().enumerate().map(join).collect()
}

const MIXED: [fn(&str) -> Options; 3] = [Options::new, Options::v5, Options::new];

/// MQTT 5.0 §4.8.2, and the same for 3.1.1: [MQTT-4.8.2-1] [MQTT-4.8.2-3]
#[test]
fn each_group_chooses_by_the_strategy_that_is_configured_for_it() {
    let host = Host::new();
    let path = host.home().join("ermine.toml");
    let text = r#"
        [shared_subscriptions]
        strategy = "round_robin"
        [shared_subscriptions.groups]
        topics = "hash_topic"
        clients = "hash_clientid"
        sticky = "sticky"
        any = "random"
    "#;
    std::fs::write(&path, text).expect("a file");
    let config = path.to_str().expect("a path");
    let node = host.start_with("ermine@127.0.0.1", &["--config", config]);
    let groups = ["turns", "topics", "clients", "sticky", "any"];
    let mut groups = groups.map(|group| (group, members(&node, group, MIXED)));
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    for n in 0..30 {
        publisher.publish(&format!("jobs/{}", n % 10), &n.to_string(), QoS::AtLeastOnce);
    }
    for (group, members) in &mut groups {
        let all: Vec<Vec<Publish>> = members.iter_mut().map(|member| got(member, true)).collect();
        let counts: Vec<usize> = all.iter().map(Vec::len).collect();
        assert_eq!(counts.iter().sum::<usize>(), 30, "{group}: each message once");
        match *group {
            "turns" => assert_eq!(counts, [10, 10, 10]),
            "clients" | "sticky" => assert!(counts.contains(&30), "{group}: {counts:?}"),
            "any" => assert!(counts.iter().all(|count| *count > 0), "{counts:?}"),
            _ => {
                for n in 0..10 {
                    let topic = format!("jobs/{n}");
                    let here = |all: &&Vec<Publish>| all.iter().any(|publish| publish.topic == topic);
                    assert_eq!(all.iter().filter(here).count(), 1, "{topic} has one member");
                }
            }
        }
    }
    host.assert_balanced(&node.name);
}

/// A re-delivery is marked [MQTT-3.3.1-1].
#[test]
fn what_a_member_did_not_acknowledge_goes_to_another_with_dup() {
    for persistent in [false, true] {
        let host = Host::new();
        let node = host.start("ermine@127.0.0.1");
        let options = Options::v5("goes");
        let options = if persistent { options.persistent() } else { options };
        let mut goes = options.connect(node.mqtt);
        goes.subscribe("$share/group/jobs/#", QoS::AtLeastOnce);
        let mut publisher = Options::new("publisher").connect(node.mqtt);
        publisher.publish("jobs/1", "1", QoS::AtLeastOnce);
        publisher.publish("jobs/1", "2", QoS::AtLeastOnce);
        assert_eq!(got(&mut goes, false).len(), 2);
        let mut stays = Options::new("stays").connect(node.mqtt);
        stays.subscribe("$share/group/jobs/#", QoS::AtLeastOnce);
        drop(goes);
        for payload in ["1", "2"] {
            let publish = stays.message();
            assert_eq!((&*publish.payload, publish.dup), (payload.as_bytes(), true));
        }
        stays.assert_quiet();
        host.assert_balanced(&node.name);
    }
}

/// [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn a_qos_2_message_that_was_sent_stays_with_its_member() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut first = Options::v5("first").persistent().connect(node.mqtt);
    first.subscribe("$share/group/jobs/#", QoS::ExactlyOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("jobs/1", "1", QoS::ExactlyOnce);
    assert_eq!(got(&mut first, false).len(), 1);
    let mut other = Options::new("other").connect(node.mqtt);
    other.subscribe("$share/group/jobs/#", QoS::ExactlyOnce);
    drop(first);
    other.assert_quiet();
    let mut first = Options::v5("first").persistent();
    first.connect.clean_start = false;
    let mut first = first.connect(node.mqtt);
    let again = first.message();
    assert_eq!((&*again.payload, again.dup), (&b"1"[..], true));
    other.assert_quiet();
    host.assert_balanced(&node.name);
}

/// [MQTT-4.8.2-6]
#[test]
fn a_message_that_a_member_refuses_is_offered_to_nobody_else() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut first = Options::v5("first").connect(node.mqtt);
    first.subscribe("$share/group/jobs/#", QoS::AtLeastOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("jobs/1", "1", QoS::AtLeastOnce);
    let Packet::Publish(publish) = first.next() else {
        panic!("a message")
    };
    let mut other = Options::new("other").connect(node.mqtt);
    other.subscribe("$share/group/jobs/#", QoS::AtLeastOnce);
    let id = publish.packet_id.expect("QoS 1");
    let refused = ermine::mqtt::packet::Ack::with_reason(id, ReasonCode::QuotaExceeded);
    first.send(&Packet::PubAck(refused));
    first.assert_quiet();
    drop(first);
    other.assert_quiet();
    host.assert_balanced(&node.name);
}
