//! Whoever dies, what stands around it goes on, and QoS 1 is not lost.

use super::rig::{Rig, connect, will, with_rig, with_rig_whose_core_bears};
use crate::mqtt::packet::{Connect, Packet, ProtocolVersion, QoS};
use crate::mqtt::reason::ReasonCode;
use supervisors::WhichChildren;

async fn restarted(rig: &Rig, path: &str) {
    let history = |rig: &Rig| {
        rig.root
            .tree()
            .history()
            .iter()
            .filter(|one| &*one.path == path)
            .count()
    };
    let before = history(rig);
    rig.crash(path);
    rig.until("it is restarted", |rig| history(rig) > before).await;
}

#[test]
fn a_topic_and_a_delegate_that_crash_keep_their_rows_and_their_inbox() {
    with_rig(|rig| async move {
        let (mut here, mut there) = (rig.client("here", 0).await, rig.client("there", 1).await);
        here.subscribe("a", QoS::AtLeastOnce).await;
        there.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        for n in 0..20 {
            rig.crash(if n % 2 == 0 {
                "root/topics/a"
            } else {
                "root/topics/a#1"
            });
            publisher.publish_acknowledged("a", &n.to_string()).await;
            assert_eq!(here.message().await.1, n.to_string());
            assert_eq!(there.message().await.1, n.to_string());
            rig.until("both sit again", |rig| rig.topics().len() == 2).await;
        }
        drop((here, there));
        rig.until("the Topic ends", |rig| rig.topics().is_empty()).await;
    });
}

/// Waits until the shard knows that a client's session has ended.
async fn gone(rig: &Rig, id: &str) {
    let shard = rig.tables.names.shard(id);
    while shard
        .call(WhichChildren)
        .await
        .unwrap()
        .iter()
        .any(|child| &*child.id == id)
    {}
}

#[test]
fn a_packet_over_which_two_sessions_fell_disconnects_its_client_and_crashes_nobody() {
    with_rig(|rig| async move {
        let mut neighbour = rig.client("neighbour", 0).await;
        neighbour.subscribe("a", QoS::AtLeastOnce).await;
        let v5 = || Connect {
            version: ProtocolVersion::V5,
            ..connect("client")
        };
        for _ in 0..2 {
            let mut client = rig.connect(v5(), 0).await;
            client.publish("a", "fall over this", QoS::AtLeastOnce).await;
            assert!(client.is_closed().await);
            gone(&rig, "client").await;
        }
        for refused in 1..=3 {
            let mut client = rig.connect(v5(), 0).await;
            client.publish_acknowledged("a", "something else").await;
            assert_eq!(neighbour.message().await.1, "something else");
            client.publish("a", "fall over this", QoS::AtLeastOnce).await;
            let Packet::Disconnect(told) = client.next().await else {
                panic!("not disconnected")
            };
            assert_eq!(told.reason, ReasonCode::ImplementationSpecificError);
            assert_eq!(rig.tables.counted().packets_poisonous, refused);
            gone(&rig, "client").await;
        }
        let crashes = |info: &supervisors::ProcessInfo| info.supervision.map_or(0, |s| s.child_crashes);
        let crashed: u64 = rig.root.tree().summary().iter().map(crashes).sum();
        assert_eq!(crashed, 2);
        neighbour.publish_acknowledged("a", "still here").await;
        assert_eq!(neighbour.message().await.1, "still here");
    });
}

#[test]
fn a_mailman_that_crashes_loses_no_mail() {
    with_rig(|rig| async move {
        let mut there = rig.client("there", 1).await;
        there.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        for n in 0..10 {
            let path = format!("root/core/mail-{}", n % 2);
            publisher.publish("a", &n.to_string(), QoS::AtLeastOnce).await;
            rig.crash(&path);
            assert_eq!(there.message().await.1, n.to_string());
            publisher.next().await;
            rig.until("it carries again", |rig| rig.root.tree().find(&path).is_some())
                .await;
        }
    });
}

#[test]
fn a_router_that_crashes_finds_its_table_and_goes_on() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 0).await;
        client.subscribe("before", QoS::AtMostOnce).await;
        restarted(&rig, "root/core/router").await;
        client.subscribe("after", QoS::AtMostOnce).await;
        let mut publisher = rig.client("publisher", 1).await;
        for topic in ["before", "after"] {
            publisher.publish_acknowledged(topic, "x").await;
            assert_eq!(client.message().await.0, topic);
        }
        drop(client);
        rig.until("all Topics end", |rig| rig.topics().is_empty()).await;
    });
}

#[test]
fn a_subscribe_that_meets_a_dying_router_is_asked_again() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 1).await;
        for n in 0..5 {
            rig.crash("root/core/router");
            client.subscribe(&format!("f/{n}"), QoS::AtLeastOnce).await;
        }
        let mut publisher = rig.client("publisher", 0).await;
        for n in 0..5 {
            publisher.publish_acknowledged(&format!("f/{n}"), "x").await;
            client.message().await;
        }
    });
}

#[test]
fn a_torn_table_is_escalated_and_core_comes_back_with_new_tables_and_a_new_incarnation() {
    with_rig_whose_core_bears(1, |rig| async move {
        let tables = rig.tables.clone();
        let torn = std::thread::spawn(move || {
            let _guard = tables.ledger.lock();
            panic!("torn on purpose");
        });
        assert!(torn.join().is_err());
        let mut client = rig.client("client", 0).await;
        let before = rig.shelf.tables().node.incarnation;
        rig.crash("root/core/router");
        assert!(client.is_closed().await);
        rig.until("core has new tables", |rig| {
            rig.shelf.tables().node.incarnation > before
        })
        .await;
        let sessions = rig.tables.names.sessions.clone();
        rig.until("the sessions are back", |_| {
            sessions.iter().all(|shard| shard.whereis().is_some())
        })
        .await;
        let rig = rig.anew();
        let mut client = rig.client("client", 0).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        client.publish("a", "x", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.1, "x");
    });
}

#[test]
fn a_session_that_crashes_closes_its_socket_publishes_its_will_and_harms_nobody() {
    with_rig(|rig| async move {
        let mut watcher = rig.client("watcher", 1).await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        let mut connect = connect("mortal");
        connect.will = Some(will("wills/mortal"));
        let mut mortal = rig.connect(connect, 0).await;
        mortal.subscribe("a", QoS::AtMostOnce).await;
        let path = rig
            .root
            .tree()
            .list()
            .iter()
            .find(|one| &*one.id == "mortal")
            .unwrap()
            .path
            .clone();
        rig.crash(&path);
        assert!(mortal.is_closed().await);
        assert_eq!(watcher.message().await.0, "wills/mortal");
        rig.until("its Topic ends", |rig| rig.topics() == ["#"]).await;
        let mut again = rig.client("mortal", 0).await;
        again.subscribe("a", QoS::AtMostOnce).await;
        again.publish("a", "back", QoS::AtMostOnce).await;
        assert_eq!(again.message().await.1, "back");
    });
}

#[test]
fn topics_that_fall_altogether_are_seated_again() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 0).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        rig.crash("root/topics");
        assert!(client.is_closed().await);
        rig.until("the sessions are back", |rig| {
            rig.tables.names.sessions[63].whereis().is_some()
        })
        .await;
        let mut client = rig.client("client", 1).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        client.publish("a", "x", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.1, "x");
    });
}
