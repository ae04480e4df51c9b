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
