//! Shared subscriptions: who gets a message, and who gets what another member left behind.

use super::rig::{Client, Rig, connect, with_rig};
use crate::mqtt::packet::{Connect, QoS};

const FILTER: &str = "$share/group/jobs/+";

fn persistent(id: &str) -> Connect {
    Connect {
        clean_start: false,
        ..connect(id)
    }
}

async fn publish(publisher: &mut Client, payloads: &[&str]) {
    for payload in payloads {
        publisher.publish_acknowledged("jobs/1", payload).await;
    }
}

/// The next messages of a client: payload and DUP.
async fn next(client: &mut Client, count: usize) -> Vec<(String, bool)> {
    let mut all = Vec::new();
    for _ in 0..count {
        let publish = client.publish_packet().await;
        let payload = String::from_utf8(publish.payload.to_vec()).expect("text");
        all.push((payload, publish.dup));
    }
    all.sort();
    all
}

fn without_dup(payloads: &[&str]) -> Vec<(String, bool)> {
    payloads
        .iter()
        .map(|payload| ((*payload).to_owned(), false))
        .collect()
}

async fn gone(rig: &Rig, id: &str) {
    rig.until("the session ends", |rig| rig.session(id).is_none())
        .await;
}

/// MQTT 5.0 §4.8.2: what a member had not acknowledged when its session ended goes to another, as a
/// re-delivery [MQTT-3.3.1-1].
#[test]
fn what_a_member_has_not_acknowledged_goes_to_another_when_its_session_ends() {
    for arbiter in [0, 1] {
        with_rig(|rig| async move {
            // It never reads, so it acknowledges nothing.
            let mut silent = rig.client("silent", arbiter).await;
            silent.subscribe(FILTER, QoS::AtLeastOnce).await;
            let mut publisher = rig.client("publisher", 0).await;
            publish(&mut publisher, &["1", "2"]).await;
            let mut reader = rig.client("reader", 0).await;
            reader.subscribe(FILTER, QoS::AtLeastOnce).await;
            drop(silent);
            gone(&rig, "silent").await;
            let passed_on = next(&mut reader, 2).await;
            assert_eq!(passed_on, [("1".to_owned(), true), ("2".to_owned(), true)]);
            publish(&mut publisher, &["3"]).await;
            assert_eq!(next(&mut reader, 1).await, without_dup(&["3"]));
            assert_eq!(rig.tables.counted().dropped(), 0);
        });
    }
}

#[test]
fn members_without_a_connection_get_messages_only_while_nobody_has_one() {
    with_rig(|rig| async move {
        let mut away = rig.connect(persistent("away"), 1).await;
        away.subscribe(FILTER, QoS::AtLeastOnce).await;
        let mut here = rig.client("here", 0).await;
        here.subscribe(FILTER, QoS::AtLeastOnce).await;
        drop(away);
        let group = rig.tables.share_group(&FILTER.into()).expect("a group");
        rig.until("one of two is connected", |_| group.online_len() == 1)
            .await;
        let mut publisher = rig.client("publisher", 0).await;
        publish(&mut publisher, &["1", "2", "3"]).await;
        assert_eq!(next(&mut here, 3).await, without_dup(&["1", "2", "3"]));
        drop(here);
        gone(&rig, "here").await;
        publish(&mut publisher, &["4", "5"]).await;
        let mut back = rig.connect(persistent("away"), 1).await;
        assert!(back.present);
        assert_eq!(next(&mut back, 2).await, without_dup(&["4", "5"]));
        assert_eq!(rig.tables.counted().dropped(), 0);
    });
}

#[test]
fn what_waits_for_a_member_that_goes_away_goes_to_one_that_is_there() {
    with_rig(|rig| async move {
        let mut away = rig.connect(persistent("away"), 1).await;
        away.subscribe(FILTER, QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        // More than may be in flight to one client: the rest is queued.
        let payloads: Vec<String> = (100..200).map(|n| n.to_string()).collect();
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        publish(&mut publisher, &payloads).await;
        let mut here = rig.client("here", 0).await;
        here.subscribe(FILTER, QoS::AtLeastOnce).await;
        drop(away);
        let got = next(&mut here, 100).await;
        let names: Vec<_> = got.iter().map(|(payload, _)| &**payload).collect();
        assert_eq!(names, payloads);
        let sent = usize::from(crate::limits::INFLIGHT_MAX);
        assert_eq!(got.iter().filter(|(_, dup)| *dup).count(), sent);
        let mut back = rig.connect(persistent("away"), 1).await;
        back.expect_silence().await;
    });
}

/// The path of a session.
fn session(rig: &Rig, id: &str) -> String {
    let all = rig.root.tree().list();
    let found = all.iter().find(|one| &*one.id == id);
    found.expect("its session").path.clone().to_string()
}

/// A session that is torn by a panic has no last word: what it held is found in what is left of it.
#[test]
fn what_a_member_held_that_crashes_goes_to_another_with_dup_where_it_was_sent() {
    for arbiter in [0, 1] {
        with_rig(|rig| async move {
            let mut mortal = rig.client("mortal", arbiter).await;
            mortal.subscribe(FILTER, QoS::AtLeastOnce).await;
            let mut publisher = rig.client("publisher", 0).await;
            // More than may be in flight to one client: the rest is queued.
            let payloads: Vec<String> = (100..200).map(|n| n.to_string()).collect();
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            publish(&mut publisher, &payloads).await;
            let mut heir = rig.client("heir", 0).await;
            heir.subscribe(FILTER, QoS::AtLeastOnce).await;
            rig.crash(&session(&rig, "mortal"));
            let got = next(&mut heir, 100).await;
            let names: Vec<_> = got.iter().map(|(payload, _)| &**payload).collect();
            assert_eq!(names, payloads);
            let sent = usize::from(crate::limits::INFLIGHT_MAX);
            assert_eq!(got.iter().filter(|(_, dup)| *dup).count(), sent);
            heir.expect_silence().await;
            assert_eq!(rig.tables.counted().dropped(), 0);
        });
    }
}

/// [MQTT-4.8.2-5]: what was sent at QoS 2 reaches no other member, also when the session is torn.
#[test]
fn what_a_member_that_crashes_was_sent_at_qos_2_reaches_nobody_else() {
    with_rig(|rig| async move {
        let mut mortal = rig.client("mortal", 0).await;
        mortal.subscribe(FILTER, QoS::ExactlyOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        publisher.publish("jobs/1", "two", QoS::ExactlyOnce).await;
        assert_eq!(next(&mut mortal, 1).await, without_dup(&["two"]));
        let mut heir = rig.client("heir", 0).await;
        heir.subscribe(FILTER, QoS::ExactlyOnce).await;
        rig.crash(&session(&rig, "mortal"));
        gone(&rig, "mortal").await;
        heir.expect_silence().await;
    });
}

#[test]
fn a_message_over_which_two_members_fell_fells_no_third() {
    with_rig(|rig| async move {
        let mut members = Vec::new();
        for id in ["one", "two", "three"] {
            let mut member = rig.client(id, 0).await;
            member.subscribe(FILTER, QoS::AtLeastOnce).await;
            members.push(member);
        }
        let mut publisher = rig.client("publisher", 0).await;
        publish(&mut publisher, &["fall over this delivery"]).await;
        rig.until("it is given up", |rig| rig.tables.counted().dropped_poison == 1)
            .await;
        let left = ["one", "two", "three"].map(|id| rig.session(id).is_some());
        assert_eq!(left.iter().filter(|left| **left).count(), 1, "{left:?}");
        publish(&mut publisher, &["harmless"]).await;
        let heir = left.iter().position(|left| *left).expect("one is left");
        assert_eq!(next(&mut members[heir], 1).await, without_dup(&["harmless"]));
    });
}
