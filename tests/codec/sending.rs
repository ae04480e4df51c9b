//! The encoder's promises: bounds, an unchanged buffer on errors, and the copy for each receiver.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use ermine::mqtt::codec::{EncodeError, Encoder, Envelope, Role, encode, encode_publish, transmit_size};
use ermine::mqtt::message::Message;
use ermine::mqtt::packet::{
    Ack, Auth, ConnAck, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, SubAck, Unsubscribe,
};
use ermine::mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, DisconnectProperties, PublishProperties,
    UnsubscribeProperties,
};
use ermine::mqtt::reason::ReasonCode;
use proptest::prelude::*;
use proptest::sample::select;

use crate::generate::{name, pass_through};
use crate::{decoded, encoded};

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

fn message(topic: &str, payload: &[u8], pass_through: Bytes) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::ExactlyOnce,
        retain: true,
        pass_through,
        expires_at: None,
        publisher: ByteString::from_static("p"),
    }
}

fn envelope() -> impl Strategy<Value = Envelope<'static>> {
    let flags = (any::<bool>(), 0..3_u8, any::<bool>(), 1..=u16::MAX);
    let expiry = prop::option::of(any::<u32>());
    let identifiers = prop::sample::select(vec![
        &[][..],
        &[1],
        &[127, 128],
        &[16_383, 16_384, 2_097_151, 2_097_152],
        &[268_435_455],
    ]);
    (flags, expiry, identifiers).prop_map(|((dup, qos, retain, packet_id), expiry_s, identifiers)| {
        let qos = QoS::from_bits(qos).expect("below 3");
        let acknowledged = qos != QoS::AtMostOnce;
        Envelope {
            dup: dup && acknowledged,
            qos,
            retain,
            packet_id: acknowledged.then(|| id(packet_id)),
            expiry_s,
            subscription_ids: identifiers,
            alias: None,
        }
    })
}

/// The same PUBLISH, written by the general encoder.
fn in_full(message: &Message, envelope: &Envelope<'_>) -> Packet {
    Packet::Publish(Publish {
        dup: envelope.dup,
        qos: envelope.qos,
        retain: envelope.retain,
        topic: message.topic.clone(),
        packet_id: envelope.packet_id,
        properties: PublishProperties {
            topic_alias: None,
            message_expiry_interval_s: envelope.expiry_s,
            subscription_identifiers: envelope.subscription_ids.to_vec(),
            pass_through: message.pass_through.clone(),
        },
        payload: message.payload.clone(),
    })
}

proptest! {
    #![proptest_config(crate::cases(2000))]

    #[test]
    fn a_delivery_is_the_full_encoding_of_its_packet(
        topic in name(),
        payload_len in prop_oneof![0..300_usize, 16_300..16_400_usize],
        passed in pass_through(),
        envelope in envelope(),
        version in select(vec![ProtocolVersion::V3_1, ProtocolVersion::V3_1_1, ProtocolVersion::V5]),
    ) {
        let message = message(&topic, &vec![0xA5; payload_len], passed);
        let before = message.clone();
        let mut out = b"before".to_vec();
        let size = encode_publish(&mut out, version, &message, &envelope).expect("a valid delivery");
        prop_assert_eq!(&out[6..], &encoded(&in_full(&message, &envelope), version)[..]);
        prop_assert_eq!(size, out.len() - 6);
        prop_assert_eq!(size, transmit_size(version, &message, &envelope));
        prop_assert_eq!(&message, &before);
    }
}

#[test]
fn a_published_message_passes_through_unaltered() {
    let passed = Bytes::from_static(b"\x26\x00\x01k\x00\x011\x01\x00\x26\x00\x01k\x00\x012");
    let sent = message("a", b"x", passed.clone());
    let mut wire = BytesMut::new();
    let envelope = Envelope {
        expiry_s: Some(7),
        ..Envelope::default()
    };
    encode_publish(&mut wire, ProtocolVersion::V5, &sent, &envelope).expect("a valid delivery");
    let Packet::Publish(publish) = decoded(&wire, ProtocolVersion::V5, Role::Client) else {
        panic!("not a PUBLISH");
    };
    let received = Message::from_publish(publish, &ByteString::from_static("q"), Instant::now());
    assert_eq!(received.pass_through, passed);
    assert_eq!(received.detached(), *received);
}

/// That `packet` is refused and what was in the buffer is still all that is in it.
fn refused(packet: &Packet, version: ProtocolVersion) -> EncodeError {
    let mut out = b"before".to_vec();
    let error = encode(packet, version, &mut out).expect_err("not a packet");
    assert_eq!(out, b"before", "{error}");
    error
}

#[test]
fn what_cannot_be_said_is_refused_and_leaves_the_buffer_unchanged() {
    let v5 = ProtocolVersion::V5;
    let long = ByteString::from("x".repeat(65_536));
    let filters = vec!["fine".into(), long.clone()];
    let properties = UnsubscribeProperties::default();
    let unsubscribe = |filters| {
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(1),
            properties: properties.clone(),
            filters,
        })
    };
    assert_eq!(refused(&unsubscribe(filters), v5), EncodeError::FieldTooLong);
    assert_eq!(refused(&unsubscribe(Vec::new()), v5), EncodeError::EmptyList);
    let auth = Auth {
        reason: ReasonCode::Success,
        properties: AuthProperties::default(),
    };
    assert_eq!(
        refused(&Packet::Auth(auth), ProtocolVersion::V3_1_1),
        EncodeError::NotInThisVersion
    );
    let mut publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a".into(),
        packet_id: None,
        properties: PublishProperties::default(),
        payload: Bytes::new(),
    };
    assert_eq!(
        refused(&Packet::Publish(publish.clone()), v5),
        EncodeError::PacketIdMismatch
    );
    (publish.qos, publish.packet_id) = (QoS::AtMostOnce, Some(id(1)));
    assert_eq!(
        refused(&Packet::Publish(publish.clone()), v5),
        EncodeError::PacketIdMismatch
    );
    publish.packet_id = None;
    publish.properties.subscription_identifiers = vec![0];
    assert_eq!(
        refused(&Packet::Publish(publish.clone()), v5),
        EncodeError::ValueOutOfRange
    );
    publish.properties.subscription_identifiers.clear();
    publish.payload = vec![0; 268_435_455].into();
    assert!(matches!(
        refused(&Packet::Publish(publish), v5),
        EncodeError::PacketTooLarge { .. }
    ));
}

#[test]
fn a_delivery_that_cannot_be_said_leaves_the_buffer_unchanged() {
    let v5 = ProtocolVersion::V5;
    let refused = |message: &Message, envelope: Envelope<'_>| {
        let mut out = b"before".to_vec();
        let error = encode_publish(&mut out, v5, message, &envelope).expect_err("not a delivery");
        assert_eq!(out, b"before");
        error
    };
    let small = message("a", b"", Bytes::new());
    let with_id = Envelope {
        packet_id: Some(id(1)),
        ..Envelope::default()
    };
    assert_eq!(refused(&small, with_id), EncodeError::PacketIdMismatch);
    let without = Envelope {
        qos: QoS::AtLeastOnce,
        ..Envelope::default()
    };
    assert_eq!(refused(&small, without), EncodeError::PacketIdMismatch);
    let identifier = Envelope {
        subscription_ids: &[1, 268_435_456],
        ..Envelope::default()
    };
    assert_eq!(refused(&small, identifier), EncodeError::ValueOutOfRange);
    let long = message(&"x".repeat(65_536), b"", Bytes::new());
    assert_eq!(refused(&long, Envelope::default()), EncodeError::FieldTooLong);
}

/// An encoder to a client with limits.
fn limited(packet_size_max: u32, problem_information: bool) -> Encoder {
    Encoder {
        packet_size_max,
        problem_information,
        ..Encoder::new(ProtocolVersion::V5)
    }
}

fn detailed() -> AckProperties {
    let user_properties = vec![("k".into(), "v".into())];
    AckProperties {
        reason_string: Some("because".into()),
        user_properties,
    }
}

#[test]
fn an_answer_that_is_too_large_loses_its_reason_string_then_its_user_properties() {
    let ack = Ack {
        packet_id: id(9),
        reason: ReasonCode::QuotaExceeded,
        properties: detailed(),
    };
    let packet = Packet::PubAck(ack);
    let sizes = |packet_size_max| {
        let mut out = Vec::new();
        limited(packet_size_max, true)
            .encode(&packet, &mut out)
            .map(|_| out)
    };
    let full = sizes(u32::MAX).expect("no limit");
    let shorter = sizes(full.len() as u32 - 1).expect("without the reason string");
    let least = sizes(shorter.len() as u32 - 1).expect("without user properties");
    assert_eq!(
        sizes(full.len() as u32),
        Ok(full.clone()),
        "the limit itself is allowed"
    );
    assert_eq!(full.len() - shorter.len(), 3 + "because".len());
    assert_eq!(least, [0x40, 3, 0, 9, 0x97]);
    assert_eq!(
        sizes(4),
        Err(EncodeError::PacketTooLarge { size: 5, size_max: 4 })
    );
    let mut out = b"before".to_vec();
    let ping = limited(1, true).encode(&Packet::PingResp, &mut out);
    assert_eq!(
        (ping, &out[..]),
        (
            Err(EncodeError::PacketTooLarge { size: 2, size_max: 1 }),
            &b"before"[..]
        )
    );
}

#[test]
fn a_client_without_use_for_problems_hears_details_only_where_they_are_allowed() {
    // [MQTT-3.1.2-29]
    let told = |packet: &Packet| {
        let mut out = Vec::new();
        limited(u32::MAX, false)
            .encode(packet, &mut out)
            .expect("no limit");
        out.windows(7).any(|window| window == b"because")
    };
    let ack = Ack {
        packet_id: id(9),
        reason: ReasonCode::Success,
        properties: detailed(),
    };
    let reasons = vec![ReasonCode::Success];
    assert!(!told(&Packet::PubRec(ack)));
    assert!(!told(&Packet::SubAck(SubAck {
        packet_id: id(9),
        properties: detailed(),
        reasons
    })));
    let reason_string = Some("because".into());
    let reason = ReasonCode::ServerBusy;
    let properties = ConnAckProperties {
        reason_string: reason_string.clone(),
        ..ConnAckProperties::default()
    };
    assert!(told(&Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        reason,
        properties
    }))));
    let properties = DisconnectProperties {
        reason_string,
        ..DisconnectProperties::default()
    };
    assert!(told(&Packet::Disconnect(Disconnect { reason, properties })));
}

#[test]
fn session_present_is_never_said_with_a_refusal_nor_to_3_1() {
    // [MQTT3-3.2.2-4] [MQTT-3.2.2-1] [MQTT-3.2.2-6]
    let connack = |reason, version| {
        let properties = ConnAckProperties::default();
        encoded(
            &Packet::ConnAck(Box::new(ConnAck {
                session_present: true,
                reason,
                properties,
            })),
            version,
        )
    };
    assert_eq!(
        connack(ReasonCode::Success, ProtocolVersion::V3_1_1),
        [0x20, 2, 1, 0]
    );
    assert_eq!(
        connack(ReasonCode::Success, ProtocolVersion::V3_1),
        [0x20, 2, 0, 0]
    );
    assert_eq!(
        connack(ReasonCode::NotAuthorized, ProtocolVersion::V3_1_1),
        [0x20, 2, 0, 5]
    );
    assert_eq!(
        connack(ReasonCode::NotAuthorized, ProtocolVersion::V5),
        [0x20, 3, 0, 0x87, 0]
    );
}
