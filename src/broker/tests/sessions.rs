//! What outlives a socket, and what does not.

use super::rig::{connect, with_rig};
use crate::broker::session::{Describe, Discard, Kick};
use crate::mqtt::packet::{Connect, Disconnect, Packet, QoS};
use crate::mqtt::properties::DisconnectProperties;
use crate::mqtt::reason::ReasonCode;

fn persistent(id: &str) -> Connect {
    Connect {
        clean_start: false,
        ..connect(id)
    }
}

#[test]
fn a_persistent_session_keeps_its_subscriptions_and_queues_while_its_client_is_away() {
    with_rig(|rig| async move {
        let mut client = rig.connect(persistent("client"), 0).await;
        assert!(!client.present);
        client.subscribe("a/#", QoS::AtLeastOnce).await;
        drop(client);
        let session = rig.session("client").unwrap();
        while session.call(Describe).await.unwrap().attached {}
        let mut publisher = rig.client("publisher", 1).await;
        publisher.publish("a/b", "lost", QoS::AtMostOnce).await;
        for n in 0..100 {
            publisher.publish_acknowledged("a/b", &n.to_string()).await;
        }
        let mut client = rig.connect(persistent("client"), 1).await;
        assert!(client.present);
        for n in 0..100 {
            assert_eq!(client.message().await.1, n.to_string());
        }
        publisher.publish_acknowledged("a/b", "live").await;
        assert_eq!(client.message().await.1, "live");
        assert_eq!(rig.tables.counted().dropped_qos0_offline, 1);
    });
}

#[test]
fn a_clean_start_in_place_takes_over_and_forgets_everything() {
    with_rig(|rig| async move {
        let mut old = rig.connect(persistent("client"), 0).await;
        old.subscribe("a", QoS::AtLeastOnce).await;
        let mut new = rig.connect(connect("client"), 1).await;
        assert!(!new.present);
        assert!(old.is_closed().await);
        rig.until("the old rows are gone", |rig| rig.topics().is_empty())
            .await;
        new.subscribe("b", QoS::AtMostOnce).await;
        new.publish("a", "1", QoS::AtMostOnce).await;
        new.publish("b", "2", QoS::AtMostOnce).await;
        assert_eq!(new.message().await.1, "2");
    });
}

#[test]
fn a_session_ends_with_its_connection_when_it_is_clean_and_on_command_when_it_is_not() {
    with_rig(|rig| async move {
        let mut clean = rig.client("clean", 0).await;
        let properties = DisconnectProperties::default();
        clean
            .send(&Packet::Disconnect(Disconnect {
                reason: ReasonCode::Success,
                properties,
            }))
            .await;
        assert!(clean.is_closed().await);
        rig.until("it ends", |rig| rig.session("clean").is_none()).await;

        let mut kept = rig.connect(persistent("kept"), 1).await;
        rig.session("kept")
            .unwrap()
            .cast(Kick(ReasonCode::AdministrativeAction))
            .unwrap();
        assert!(kept.is_closed().await);
        let session = rig.session("kept").unwrap();
        assert!(!session.call(Describe).await.unwrap().attached);
        session.cast(Discard).unwrap();
        rig.until("it ends", |rig| rig.session("kept").is_none()).await;
        assert_eq!(rig.tables.counted().sessions_closed, 2);
    });
}

#[test]
fn a_node_that_stops_ends_its_sessions_in_order() {
    with_rig(|rig| async move {
        let mut client = rig.client("client", 0).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        rig.root.stop().await;
        assert!(client.is_closed().await);
    });
}

#[test]
fn the_keep_alive_closes_a_silent_client() {
    with_rig(|rig| async move {
        let mut silent = rig
            .connect(
                Connect {
                    keep_alive_s: 1,
                    ..connect("silent")
                },
                0,
            )
            .await;
        let began = std::time::Instant::now();
        assert!(silent.is_closed().await);
        assert!(
            began.elapsed() >= std::time::Duration::from_millis(1400),
            "after 1.5 times the keep-alive"
        );
    });
}
