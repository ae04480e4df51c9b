//! A session that crashes loses its connection, and nothing that is stored of it.

use std::time::Duration;

use ermine::mqtt::packet::{Ack, Packet, QoS};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, eventually};
use crate::house::{House, next_publish};
use crate::trial::{End, Trial};

/// The path of a session in the tree.
fn path(house: &House, client_id: &str) -> String {
    path_of(&house.host, client_id).unwrap_or_else(|| panic!("no session {client_id}"))
}

/// The same, if there is one just now.
pub(crate) fn path_of(host: &Host, client_id: &str) -> Option<String> {
    let tree = host.ok(&["tree", "--all", "--json"]);
    let entries: serde_json::Value = serde_json::from_str(&tree).expect("JSON");
    let mine = format!("/{client_id}");
    let mut found = Vec::new();
    paths(&entries, &mut found);
    found
        .into_iter()
        .find(|path| path.contains("/sessions") && path.ends_with(&mine))
}

fn paths(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            found.extend(
                fields
                    .get("path")
                    .and_then(|path| path.as_str())
                    .map(str::to_owned),
            );
            fields.values().for_each(|value| paths(value, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| paths(value, found)),
        _ => {}
    }
}

fn stay(house: &House) -> Client {
    Options::v5("victim").persistent().connect(house.address)
}

#[test]
fn a_session_that_crashes_comes_back_with_everything() {
    let house = House::start("[limits]\ninflight_max = 2\n");
    let mut client = stay(&house);
    client.subscribe("mail/#", QoS::ExactlyOnce);
    let mut sender = Options::new("sender").connect(house.address);
    for number in 0..100 {
        sender.publish("mail/x", &number.to_string(), QoS::ExactlyOnce);
    }
    let released = next_publish(&mut client);
    client.acknowledge(&released);
    let id = released.packet_id.expect("QoS 2 has one");
    let sent = next_publish(&mut client);
    assert_eq!(client.next(), Packet::PubRel(Ack::success(id)));
    house.host.ok(&["crash", &path(&house, "victim")]);
    client.assert_closed();
    let mut client = stay(&house);
    assert!(client.connack.session_present);
    sender.publish("mail/x", "100", QoS::ExactlyOnce);
    assert_eq!(client.next(), Packet::PubRel(Ack::success(id)));
    client.send(&Packet::PubComp(Ack::success(id)));
    let again = next_publish(&mut client);
    assert!(again.dup, "{again:?}");
    assert_eq!((&again.payload, again.packet_id), (&sent.payload, sent.packet_id));
    client.acknowledge(&again);
    for number in 2..=100 {
        assert_eq!(client.text(), number.to_string());
    }
    client.assert_quiet();
}

#[test]
fn a_session_that_crashes_while_its_client_is_away_comes_back_with_its_queue() {
    let house = House::start("");
    let mut client = stay(&house);
    client.subscribe("mail/#", QoS::AtLeastOnce);
    client.disconnect();
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish("mail/x", "before", QoS::AtLeastOnce);
    house.host.ok(&["crash", &path(&house, "victim")]);
    let mut client = stay(&house);
    assert!(client.connack.session_present);
    sender.publish("mail/x", "after", QoS::AtLeastOnce);
    assert_eq!(client.text(), "before");
    assert_eq!(client.text(), "after");
    client.assert_quiet();
}

#[test]
fn when_core_falls_its_next_life_finds_sessions_and_retained_messages_in_the_store() {
    let house = House::start("");
    let mut client = stay(&house);
    client.subscribe("mail/#", QoS::AtLeastOnce);
    client.disconnect();
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish("mail/x", "before", QoS::AtLeastOnce);
    sender.publish_with("kept", "retained", QoS::AtLeastOnce, true);
    let mark = house.node().log.len();
    house.host.ok(&["crash", "root/core"]);
    sender.assert_closed();
    house
        .node()
        .log
        .wait_after(mark, "the door opens again", |line| line.contains("listening"));
    let mut sender = eventually("the node serves again", || {
        Options::new("sender").try_connect(house.address).ok()
    });
    sender.publish("mail/x", "after", QoS::AtLeastOnce);
    let mut client = stay(&house);
    assert!(client.connack.session_present);
    assert_eq!(client.text(), "before");
    assert_eq!(client.text(), "after");
    client.assert_quiet();
    client.subscribe("kept", QoS::AtLeastOnce);
    assert_eq!(client.text(), "retained");
}

#[test]
fn sessions_that_crash_under_load_miss_nothing_and_get_nothing_twice() {
    let mut trial = Trial::begin(11);
    // A session that falls more often in a minute is left in the store until its client comes.
    let crashes =
        [(0, 40), (1, 90), (2, 20)].map(|(round, ms)| (round, End::Crashes(Duration::from_millis(ms))));
    trial.rounds(&crashes, |_| ());
    let violations = trial.world.violations();
    assert!(
        violations.is_empty(),
        "{}\n{}",
        violations.join("\n"),
        trial.log()
    );
}
