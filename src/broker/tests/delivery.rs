//! What is published arrives: on one arbiter and across, in order, at every QoS, and bounded.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::rig::with_rig;
use crate::broker::counters::Snapshot;
use crate::broker::links::Inbound;
use crate::mqtt::codec::encode;
use crate::mqtt::packet::{Packet, ProtocolVersion, QoS};
use crate::mqtt::reason::ReasonCode;

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

#[test]
fn a_message_reaches_subscribers_on_both_arbiters_once() {
    with_rig(|rig| async move {
        let (mut here, mut there) = (rig.client("here", 0).await, rig.client("there", 1).await);
        here.subscribe("sensors/+/temp", QoS::AtMostOnce).await;
        there.subscribe("sensors/#", QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        publisher
            .publish("sensors/1/temp", "21.5", QoS::AtLeastOnce)
            .await;
        assert_eq!(here.message().await, ("sensors/1/temp".into(), "21.5".into()));
        assert_eq!(there.message().await, ("sensors/1/temp".into(), "21.5".into()));
        publisher
            .publish("sensors/1/humidity", "40", QoS::AtMostOnce)
            .await;
        assert_eq!(there.message().await.1, "40");
        here.expect_silence().await;
        there.expect_silence().await;
    });
}

#[test]
fn qos_1_is_acknowledged_when_every_desk_has_dispatched_and_at_once_when_there_is_none() {
    with_rig(|rig| async move {
        let mut publisher = rig.client("publisher", 0).await;
        publisher.publish_acknowledged("nobody/listens", "x").await;
        let mut there = rig.client("there", 1).await;
        there.subscribe("a", QoS::AtLeastOnce).await;
        publisher.publish_acknowledged("a", "1").await;
        assert_eq!(there.message().await.1, "1");
        assert_eq!(rig.tables.counted().unrouted, 1);
    });
}

#[test]
fn qos_2_arrives_exactly_once() {
    with_rig(|rig| async move {
        let (mut publisher, mut there) = (rig.client("publisher", 0).await, rig.client("there", 1).await);
        there.subscribe("a/b", QoS::ExactlyOnce).await;
        publisher.publish("a/b", "once", QoS::ExactlyOnce).await;
        let Packet::PubRec(ack) = publisher.next().await else {
            panic!("PUBREC")
        };
        publisher.send(&Packet::PubRel(ack)).await;
        assert!(matches!(publisher.next().await, Packet::PubComp(_)));
        assert_eq!(there.message().await.1, "once");
        assert!(matches!(there.next().await, Packet::PubRel(_)));
        there.expect_silence().await;
    });
}

#[test]
fn the_order_of_a_publisher_holds_across_arbiters_and_mixed_qos() {
    with_rig(|rig| async move {
        let (mut here, mut there) = (rig.client("here", 0).await, rig.client("there", 1).await);
        here.subscribe("order", QoS::AtMostOnce).await;
        there.subscribe("order", QoS::AtMostOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        let mut bytes = BytesMut::new();
        for n in 0..500_usize {
            let packet = publisher.publish_of("order", &n.to_string(), ALL_QOS[n % 3]);
            encode(&packet, ProtocolVersion::V3_1_1, &mut bytes).unwrap();
        }
        publisher.socket.write_all(&bytes).await.unwrap();
        for n in 0..500 {
            assert_eq!(here.message().await.1, n.to_string());
            assert_eq!(there.message().await.1, n.to_string());
        }
    });
}

#[test]
fn a_stream_of_qos_1_to_a_reading_client_loses_nothing() {
    with_rig(|rig| async move {
        let mut there = rig.client("there", 1).await;
        there.subscribe("stream", QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 0).await;
        let mut bytes = BytesMut::new();
        for n in 0..5000 {
            let packet = publisher.publish_of("stream", &n.to_string(), QoS::AtLeastOnce);
            encode(&packet, ProtocolVersion::V3_1_1, &mut bytes).unwrap();
        }
        let (mut read, mut write) = publisher.socket.into_split();
        let writing = actix_rt::spawn(async move { write.write_all(&bytes).await.map(|()| write) });
        let reading = actix_rt::spawn(async move {
            let mut sink = tokio::io::sink();
            let _ = tokio::io::copy(&mut read, &mut sink).await;
        });
        for n in 0..5000 {
            assert_eq!(there.message().await.1, n.to_string());
        }
        drop(writing);
        reading.abort();
        assert_eq!(rig.tables.counted().dropped(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_loses_qos_0_and_nobody_else_does() {
    with_rig(|rig| async move {
        let (mut reader, mut deaf) = (rig.client("reader", 0).await, rig.client("deaf", 1).await);
        reader.subscribe("flood", QoS::AtMostOnce).await;
        deaf.subscribe("flood", QoS::AtMostOnce).await;
        let mut publisher = rig.client("publisher", 1).await;
        let payload = "x".repeat(4096);
        let mut bytes = BytesMut::new();
        for _ in 0..5000 {
            let packet = publisher.publish_of("flood", &payload, QoS::AtMostOnce);
            encode(&packet, ProtocolVersion::V3_1_1, &mut bytes).unwrap();
        }
        let writing = actix_rt::spawn(async move {
            publisher.socket.write_all(&bytes).await.unwrap();
            publisher
        });
        for _ in 0..5000 {
            assert_eq!(reader.message().await.1.len(), 4096);
        }
        let mut publisher = writing.await.unwrap();
        publisher.expect_silence().await;
        let Snapshot {
            dropped_slow_consumer,
            ..
        } = rig.tables.counted();
        assert!(
            dropped_slow_consumer > 100,
            "{dropped_slow_consumer} were dropped"
        );
        deaf.message().await;
    });
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member_wherever_it_is() {
    with_rig(|rig| async move {
        let mut members = [
            rig.client("m0", 0).await,
            rig.client("m1", 0).await,
            rig.client("m2", 1).await,
        ];
        for member in &mut members {
            member.subscribe("$share/group/jobs/+", QoS::AtLeastOnce).await;
        }
        let mut publisher = rig.client("publisher", 1).await;
        for n in 0..30 {
            publisher.publish_acknowledged("jobs/x", &n.to_string()).await;
        }
        let mut all = Vec::new();
        for member in &mut members {
            for _ in 0..10 {
                all.push(member.message().await.1.parse::<u32>().unwrap());
            }
            member.expect_silence().await;
        }
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
    });
}

#[test]
fn what_comes_from_another_node_is_dispatched_here_and_goes_no_further() {
    with_rig(|rig| async move {
        let mut there = rig.client("there", 1).await;
        there.subscribe("a", QoS::AtMostOnce).await;
        let will = super::rig::will("a");
        let message = crate::broker::wills::message_of(&will, &"far".into(), std::time::Instant::now());
        let cluster = &rig.tables.arbiters.all[rig.tables.arbiters.cluster()];
        cluster.spawn(async move {
            crate::broker::publish::room().await;
            let (retained, loans) = (None, None);
            let inbound = Inbound {
                message,
                retained,
                loans,
            };
            crate::broker::publish::dispatch(vec![inbound]);
        });
        assert_eq!(there.message().await.1, "gone");
        let counted = rig.tables.counted();
        assert_eq!((counted.dispatched, counted.forwarded), (1, 0));
    });
}

#[test]
fn a_client_that_sends_garbage_is_closed_and_its_will_is_published() {
    with_rig(|rig| async move {
        let mut there = rig.client("there", 1).await;
        there.subscribe("wills/#", QoS::AtMostOnce).await;
        let mut connect = super::rig::connect("bad");
        connect.will = Some(super::rig::will("wills/bad"));
        let mut bad = rig.connect(connect, 0).await;
        bad.socket
            .write_all(&[0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])
            .await
            .unwrap();
        assert!(bad.is_closed().await);
        assert_eq!(there.message().await.0, "wills/bad");
        rig.until("the session ends", |rig| {
            rig.tables.counted().sessions_closed == 1
        })
        .await;
    });
}

#[test]
fn subscribers_of_one_topic_are_not_touched_by_another_that_is_kicked() {
    with_rig(|rig| async move {
        let (mut one, mut other) = (rig.client("one", 0).await, rig.client("other", 0).await);
        one.subscribe("a", QoS::AtMostOnce).await;
        other.subscribe("a", QoS::AtMostOnce).await;
        other.send(&Packet::PingResp).await;
        assert!(other.is_closed().await);
        let mut publisher = rig.client("publisher", 1).await;
        publisher.publish_acknowledged("a", "1").await;
        assert_eq!(one.message().await.1, "1");
        tokio::time::timeout(Duration::from_secs(1), one.expect_silence())
            .await
            .unwrap();
        assert_ne!(ReasonCode::Success, ReasonCode::ProtocolError);
    });
}
