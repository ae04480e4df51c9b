//! The workers of `core`, and what stands below it: whichever falls, no connection is closed and no QoS 1
//! or 2 message is lost.

use std::time::Duration;

use ermine::admin::protocol::Request;
use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::eventually;
use crate::load::Load;
use crate::rig::{CLIENTS, ROUNDS, Rig};

const TOPICS: &str = "root/core/topics";

#[test]
fn a_mailman_loses_no_mail() {
    // Both workers', the cluster's and the control arbiter's, in turn.
    Rig::nothing_is_lost_by("mailman", |_, round| format!("root/core/mail-{}", round % 4));
}

#[test]
fn the_router_finds_its_tables() {
    Rig::nothing_is_lost_by("router", |_, _| "root/core/router".into());
}

#[test]
fn the_supervisor_of_topics_takes_no_session_along_and_all_topics_are_opened_again() {
    Rig::nothing_is_lost_by("topics", |_, _| TOPICS.into());
}

#[test]
fn topics_fall_after_the_router_has_fallen() {
    Rig::nothing_is_lost_by("both", |_, round| match round % 2 {
        0 => "root/core/router".into(),
        _ => TOPICS.into(),
    });
}

#[test]
fn a_topic_keeps_its_rows_and_its_inbox() {
    Rig::nothing_is_lost_by("topic", |rig, round| seat(rig, round, false));
}

#[test]
fn a_delegate_keeps_its_rows_and_its_inbox() {
    Rig::nothing_is_lost_by("delegate", |rig, round| seat(rig, round, true));
}

/// A Topic of the load, or a delegate of one: its id ends with `#` and its arbiter.
pub(crate) fn seat(rig: &Rig, round: usize, delegate: bool) -> String {
    let seats: Vec<String> = rig
        .below(TOPICS)
        .into_iter()
        .filter(|path| path.contains("load%2F"))
        .collect();
    let wanted: Vec<_> = seats
        .iter()
        .filter(|path| path.contains('#') == delegate)
        .collect();
    assert!(!wanted.is_empty(), "{seats:?}");
    wanted[round % wanted.len()].clone()
}

#[test]
fn all_topics_at_once_exceed_the_budget_of_their_supervisor_and_nothing_is_lost() {
    let rig = Rig::start();
    let mut client = Options::new("subscriber").connect(rig.node.mqtt);
    for n in 0..150 {
        client.subscribe(&format!("many/{n}"), QoS::ExactlyOnce);
    }
    let load = Load::start(rig.node.mqtt, CLIENTS / 2);
    let before = load.received();
    for path in rig.below(TOPICS) {
        // One whose supervisor has just given up is not there for a moment.
        let _ = rig.try_ask(&Request::Crash { path });
    }
    rig.await_restart(TOPICS, 1);
    load.await_more(&before);
    load.finish();
    let mut publisher = Options::new("publisher").connect(rig.node.mqtt);
    for n in 0..150 {
        publisher.publish(&format!("many/{n}"), &n.to_string(), QoS::ExactlyOnce);
        assert_eq!(client.text(), n.to_string());
    }
}

#[test]
fn clients_finds_every_session_again() {
    Rig::nothing_is_lost_by("clients", |_, _| "root/core/clients".into());
}

#[test]
fn what_the_keeper_of_clients_lists_stays_true_over_its_crashes() {
    let rig = Rig::start();
    let mut stay = Options::new("stay").connect(rig.node.mqtt);
    for round in 1..=3 {
        let go = Options::new("go").persistent().connect(rig.node.mqtt);
        rig.crash("root/core/clients");
        drop(go);
        let come = Options::new("come").connect(rig.node.mqtt);
        rig.await_restart("root/core/clients", round);
        eventually("what is listed is so", || {
            let listed = rig.host.json(&["clients"]);
            let mut listed: Vec<_> = listed.as_array()?.iter().map(state).collect();
            listed.sort();
            let wanted = [("come", true), ("go", false), ("stay", true)];
            (listed == wanted.map(|(id, connected)| (id.to_owned(), connected))).then_some(())
        });
        come.disconnect();
        eventually("the one that went is forgotten", || {
            let listed = rig.host.json(&["clients"]);
            (listed.as_array()?.len() == 2).then_some(())
        });
    }
    stay.assert_quiet();
}

fn state(one: &serde_json::Value) -> (String, bool) {
    (
        one["client_id"].as_str().expect("an id").to_owned(),
        one["connected"].as_bool().expect("a flag"),
    )
}

#[test]
fn the_retainer_loses_nothing_that_was_to_be_retained() {
    Rig::nothing_is_lost_by("retainer", |_, _| "root/core/retainer".into());
}

#[test]
fn retained_messages_outlive_the_retainer() {
    let rig = Rig::start();
    let mut client = Options::new("client").connect(rig.node.mqtt);
    for round in 1..=ROUNDS {
        for n in 0..20 {
            client.publish_with(&format!("old/{round}/{n}"), "kept", QoS::AtLeastOnce, true);
        }
        rig.crash("root/core/retainer");
        for n in 20..40 {
            client.publish_with(&format!("old/{round}/{n}"), "kept", QoS::AtLeastOnce, true);
        }
        let filter = format!("old/{round}/+");
        client.subscribe(&filter, QoS::AtLeastOnce);
        let mut topics: Vec<_> = (0..40).map(|_| client.message().topic.to_string()).collect();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 40);
        client.unsubscribe(&filter);
        rig.await_restart("root/core/retainer", round);
    }
    client.assert_quiet();
}

#[test]
fn the_publisher_of_wills_loses_none() {
    Rig::nothing_is_lost_by("wills", |_, _| "root/core/wills".into());
}

#[test]
fn delayed_wills_outlive_the_crash_before_and_after_they_were_told() {
    let rig = Rig::start();
    let mut heir = Options::new("heir").connect(rig.node.mqtt);
    heir.subscribe("wills/#", QoS::AtLeastOnce);
    for round in 1..=ROUNDS {
        for n in 0..10 {
            let topic = format!("wills/{round}/{n}");
            let mut dying = Options::v5(&format!("dying-{n}"))
                .will(&topic, "gone")
                .persistent();
            let will = dying.connect.will.as_mut().expect("just set");
            will.properties.will_delay_interval_s = Some(1);
            let dying = dying.connect(rig.node.mqtt);
            if n == 5 {
                rig.crash("root/core/wills");
            }
            drop(dying);
        }
        let mut topics: Vec<_> = (0..10).map(|_| heir.message().topic.to_string()).collect();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 10);
        rig.await_restart("root/core/wills", round);
    }
    heir.assert_quiet();
}

#[test]
fn sys_is_missed_by_nobody() {
    Rig::nothing_is_lost_by("sys", |_, _| "root/core/sys".into());
}

#[test]
fn a_restart_in_core_takes_less_than_a_moment() {
    let rig = Rig::start();
    for (nth, child) in ["router", "clients", "retainer", "wills", "sys"]
        .iter()
        .enumerate()
    {
        let path = format!("root/core/{child}");
        rig.crash(&path);
        let down = rig.await_restart(&path, 1);
        assert!(down < Duration::from_secs(1), "{path} was down for {down:?}");
        assert_eq!(rig.restarts().len(), nth + 1, "nobody else was restarted");
    }
}
