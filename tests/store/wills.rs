//! Wills of clients that a node has lost with its process: each comes once, after its delay, to who was away
//! meanwhile too; what its client was not allowed to say does not come.

use std::collections::BTreeMap;

use ermine::mqtt::packet::QoS;

use crate::harness::client::{Client, Options};
use crate::house::{Ending, House};

/// Everybody may read all wills and has one topic for its own.
const RULES: &str = "pattern read wills/#\npattern write wills/%c\n";

fn house() -> House {
    let house = House::empty("");
    let rules = house.host.home().join("rules.acl");
    std::fs::write(&rules, RULES).expect("written");
    let config = format!("[acl]\nfile = {rules:?}\n");
    std::fs::write(house.host.home().join("house.toml"), config).expect("written");
    house
}

/// A client with a will whose payload is its client id.
fn with_will_on(topic: &str, id: &str, delay_s: u32) -> Options {
    let mut options = Options::v5(id).persistent().will(topic, id);
    let will = options.connect.will.as_mut().expect("it has one");
    will.properties.will_delay_interval_s = Some(delay_s);
    options
}

fn with_will(id: &str, delay_s: u32) -> Options {
    with_will_on(&format!("wills/{id}"), id, delay_s)
}

fn heir(id: &str, house: &House) -> Client {
    let mut heir = Options::v5(id).persistent().connect(house.address);
    if !heir.connack.session_present {
        heir.subscribe("wills/#", QoS::AtLeastOnce);
    }
    heir
}

/// Connects; the session and its will are safe: the acknowledgement of a SUBSCRIBE is behind them.
fn stay(options: Options, house: &House) -> Client {
    let mut client = options.connect(house.address);
    client.subscribe("wills/of-nobody", QoS::AtLeastOnce);
    client
}

/// The wills that come up to this one, and how often each.
fn until(heir: &mut Client, last: &str) -> BTreeMap<String, usize> {
    let mut came = BTreeMap::new();
    loop {
        let text = heir.text();
        let is_last = text == last;
        *came.entry(text).or_default() += 1;
        if is_last {
            return came;
        }
    }
}

fn once(ids: &[&str]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

#[test]
fn the_wills_of_clients_that_fell_with_their_node_come_once_after_their_delay() {
    std::thread::scope(|scope| {
        for ending in Ending::BOTH {
            scope.spawn(move || wills_come_once(ending));
        }
    });
}

fn wills_come_once(ending: Ending) {
    let mut house = house();
    house.start_again();
    let mut ear = heir("ear", &house);
    heir("sleeper", &house).disconnect();
    // Published before the node falls: not again.
    drop(with_will("before", 1).connect(house.address));
    assert_eq!(ear.text(), "before");
    let away = stay(with_will("away", 7), &house);
    let clients = [
        stay(with_will("at-once", 0), &house),
        stay(with_will("delayed", 6), &house),
        stay(with_will("back", 3600), &house),
        stay(with_will_on("wills/of-another", "forbidden", 0), &house),
        stay(with_will_on("wills/of-another", "forbidden-too", 6), &house),
    ];
    drop(away);
    house.end(ending);
    drop((clients, ear));
    house.start_again();
    let mut ear = heir("ear", &house);
    drop(with_will("back", 3600).connect(house.address));
    let mut came = until(&mut ear, "away");
    if ending == Ending::Stopped {
        // It came when its client was disconnected: to who was still there.
        came.insert("at-once".into(), 1);
    }
    assert_eq!(came, once(&["at-once", "delayed", "away"]), "{ending:?}");
    let last = stay(with_will("last", 0), &house);
    house.end(Ending::Killed);
    drop((last, ear));
    house.start_again();
    // They would come together with the last one.
    assert_eq!(
        until(&mut heir("ear", &house), "last"),
        once(&["last"]),
        "{ending:?}"
    );
    let all = once(&["before", "at-once", "delayed", "away", "last"]);
    let mut sleeper = heir("sleeper", &house);
    let mut came = until(&mut sleeper, "last");
    if ending == Ending::Stopped {
        came.insert("at-once".into(), 1);
    }
    assert_eq!(came, all, "{ending:?}");
    sleeper.assert_quiet();
}
