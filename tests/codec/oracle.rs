//! `mqtt-codec` 0.3 as an independent reader and writer of 3.1.1.
//!
//! It is fed whole packets that our codec accepted and nothing else: it accepts much that is not
//! MQTT, loses step when a read ends inside the Remaining Length, and a QoS of 3 is undefined
//! behaviour in it (docs/decisions/0002). Within that fence both must see the same values, and
//! both must write the same bytes.

use actix_codec::{Decoder as _, Encoder as _};
use bytes_05::BytesMut as OldBytesMut;
use ermine::mqtt::codec::Role;
use ermine::mqtt::packet::{Connect, Packet, ProtocolVersion, Publish};
use ermine::mqtt::reason::ReasonCode;
use mqtt_codec as oracle;
use oracle::Packet as Seen;
use proptest::prelude::*;

use crate::generate::packet;
use crate::vectors::expecting;
use crate::{decoded, encoded, reader_of};

const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;

/// Our bytes read by the oracle and written by it again.
fn agrees(bytes: &[u8], ours: &Packet) {
    let mut buf = OldBytesMut::from(bytes);
    let mut codec = oracle::Codec::new();
    let seen = codec
        .decode(&mut buf)
        .expect("the oracle accepts")
        .expect("the packet is whole");
    assert!(buf.is_empty(), "{} bytes left of {bytes:02x?}", buf.len());
    same(ours, &seen);
    let mut written = OldBytesMut::new();
    codec
        .encode(seen, &mut written)
        .expect("the oracle writes what it read");
    assert_eq!(&written[..], &encoded(ours, VERSION)[..], "{ours:?}");
}

/// The rows are told apart by variant, so that no packet passes as another.
fn same(ours: &Packet, seen: &Seen) {
    match (ours, seen) {
        (Packet::Connect(ours), Seen::Connect(seen)) => same_connect(ours, seen),
        (
            Packet::ConnAck(ours),
            Seen::ConnectAck {
                session_present,
                return_code,
            },
        ) => {
            assert_eq!(ours.session_present, *session_present);
            assert_eq!(ours.return_code() as u8, *return_code as u8);
        }
        (Packet::Publish(ours), Seen::Publish(seen)) => same_publish(ours, seen),
        (Packet::PubAck(ours), Seen::PublishAck { packet_id })
        | (Packet::PubRec(ours), Seen::PublishReceived { packet_id })
        | (Packet::PubRel(ours), Seen::PublishRelease { packet_id })
        | (Packet::PubComp(ours), Seen::PublishComplete { packet_id }) => {
            assert_eq!(ours.packet_id.get(), *packet_id);
        }
        (
            Packet::Subscribe(ours),
            Seen::Subscribe {
                packet_id,
                topic_filters,
            },
        ) => {
            assert_eq!(ours.packet_id.get(), *packet_id);
            let ours: Vec<_> = ours
                .filters
                .iter()
                .map(|(filter, o)| (&**filter, o.qos as u8))
                .collect();
            let seen: Vec<_> = topic_filters
                .iter()
                .map(|(filter, qos)| (&**filter, *qos as u8))
                .collect();
            assert_eq!(ours, seen);
        }
        (Packet::SubAck(ours), Seen::SubscribeAck { packet_id, status }) => {
            assert_eq!(ours.packet_id.get(), *packet_id);
            let granted = |reason: &ReasonCode| (*reason as u8 != 0x80).then_some(*reason as u8);
            let seen: Vec<_> = status.iter().map(seen_status).collect();
            assert_eq!(ours.reasons.iter().map(granted).collect::<Vec<_>>(), seen);
        }
        (
            Packet::Unsubscribe(ours),
            Seen::Unsubscribe {
                packet_id,
                topic_filters,
            },
        ) => {
            assert_eq!(ours.packet_id.get(), *packet_id);
            let seen: Vec<_> = topic_filters.iter().map(|filter| &**filter).collect();
            assert_eq!(
                ours.filters.iter().map(|filter| &**filter).collect::<Vec<_>>(),
                seen
            );
        }
        (Packet::UnsubAck(ours), Seen::UnsubscribeAck { packet_id }) => {
            assert_eq!(ours.packet_id.get(), *packet_id);
        }
        (Packet::PingReq, Seen::PingRequest)
        | (Packet::PingResp, Seen::PingResponse)
        | (Packet::Disconnect(_), Seen::Disconnect) => {}
        (ours, seen) => panic!("{ours:?} is read as {seen:?}"),
    }
}

fn seen_status(status: &oracle::SubscribeReturnCode) -> Option<u8> {
    match status {
        oracle::SubscribeReturnCode::Success(qos) => Some(*qos as u8),
        oracle::SubscribeReturnCode::Failure => None,
    }
}

fn same_connect(ours: &Connect, seen: &oracle::Connect) {
    assert_eq!(seen.protocol.level(), 4);
    assert_eq!(ours.clean_start, seen.clean_session);
    assert_eq!(ours.keep_alive_s, seen.keep_alive);
    assert_eq!(&*ours.client_id, &*seen.client_id);
    assert_eq!(ours.username.as_deref(), seen.username.as_deref());
    assert_eq!(ours.password.as_deref(), seen.password.as_deref());
    let will = ours
        .will
        .as_ref()
        .map(|will| (&*will.topic, &will.payload[..], will.qos as u8, will.retain));
    let last = seen.last_will.as_ref();
    assert_eq!(
        will,
        last.map(|will| (&*will.topic, &will.message[..], will.qos as u8, will.retain))
    );
}

fn same_publish(ours: &Publish, seen: &oracle::Publish) {
    assert_eq!(
        (ours.dup, ours.retain, ours.qos as u8),
        (seen.dup, seen.retain, seen.qos as u8)
    );
    assert_eq!(&*ours.topic, &*seen.topic);
    assert_eq!(ours.packet_id.map(|id| id.get()), seen.packet_id);
    assert_eq!(&ours.payload[..], &seen.payload[..]);
}

#[test]
fn the_oracle_agrees_about_every_good_vector() {
    for vector in expecting("A")
        .into_iter()
        .filter(|vector| vector.version == VERSION)
    {
        agrees(&vector.bytes, &decoded(&vector.bytes, VERSION, Role::Server));
    }
}

proptest! {
    #![proptest_config(crate::cases(3000))]

    #[test]
    fn the_oracle_agrees_about_every_generated_packet(packet in packet(VERSION)) {
        let bytes = encoded(&packet, VERSION);
        prop_assert_eq!(&decoded(&bytes, VERSION, reader_of(&packet)), &packet);
        agrees(&bytes, &packet);
    }
}
