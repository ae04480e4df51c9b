//! Two more independent implementations as judges, of both versions: `flowsdk` says what is a packet,
//! `rmqtt-codec` also what it says. Where they see it differently from us, the vector is listed with the
//! clause that decides.

use bytes::{Bytes, BytesMut};
use ermine::mqtt::packet::{Packet, ProtocolVersion};
use flowsdk::mqtt_serde::control_packet::MqttPacket;
use flowsdk::mqtt_serde::parser::ParseOk;
use proptest::prelude::*;
use tokio_util::codec::{Decoder as _, Encoder as _};

use crate::generate::packet;
use crate::vectors::{Vector, all};
use crate::{decoded, encoded, reader_of};

fn level(version: ProtocolVersion) -> u8 {
    match version {
        ProtocolVersion::V3_1 => 3,
        ProtocolVersion::V3_1_1 => 4,
        ProtocolVersion::V5 => 5,
    }
}

/// Whether `flowsdk` takes these bytes as exactly one packet.
fn flowsdk_takes(bytes: &[u8], version: ProtocolVersion) -> bool {
    match MqttPacket::from_bytes_with_version(bytes, level(version)) {
        Ok(ParseOk::Packet(_, used)) => used == bytes.len(),
        _ => false,
    }
}

/// These bytes read by `rmqtt-codec` and written by it again.
fn rmqtt_rewrites(bytes: &[u8], version: ProtocolVersion) -> Option<Vec<u8>> {
    let (mut buf, mut out) = (BytesMut::from(bytes), BytesMut::new());
    if version.is_v5() {
        let mut codec = rmqtt_codec::v5::Codec::new(1 << 28, 1 << 28);
        let (packet, _) = codec.decode(&mut buf).ok()??;
        codec.encode(packet, &mut out).ok()?;
    } else {
        let mut codec = rmqtt_codec::v3::Codec::new(1 << 28);
        let (packet, _) = codec.decode(&mut buf).ok()??;
        codec.encode(packet, &mut out).ok()?;
    }
    buf.is_empty().then(|| out.to_vec())
}

/// Vectors of 3.1.1 and 5.0 that the codec decides and that are no matter of our limits.
fn judged() -> impl Iterator<Item = Vector> {
    all()
        .into_iter()
        .filter(|vector| vector.layer != "S" && vector.expect != "I" && !vector.id.starts_with('3'))
}

/// The vectors that a judge takes though we refuse them, and those that it refuses though we take them.
fn disagreements(takes: impl Fn(&Vector) -> bool) -> [String; 2] {
    let mut lists = [Vec::new(), Vec::new()];
    for vector in judged() {
        match (vector.expect, takes(&vector)) {
            ("R", true) => lists[0].push(vector.id),
            ("A", false) => lists[1].push(vector.id),
            _ => {}
        }
    }
    lists.map(|list| list.join(" "))
}

/// Ours is the stricter reading in each, by the clause in the vector's row. `5C28` asks for level 6, which
/// `flowsdk` leaves to its caller.
const FLOWSDK: [&str; 2] = ["5C28", ""];

/// First what `rmqtt-codec` takes and we refuse, by the clause in the vector's row: bytes behind the end of a
/// packet, longer lengths than needed, flags of a will that is not there, U+0000, wildcards and empty strings
/// where a topic name has to be, DUP with QoS 0, filters with a `#` in the middle. Then what it refuses and
/// we take: `5C02` an empty client id without Clean Start `[MQTT-3.1.3-6]`, `5P12` a Message Expiry Interval
/// of 0 (section 3.3.2.3.3 allows every number).
const RMQTT: [&str; 2] = [
    "F11 F115 F13 F14 C05 C06 C08 C10 C11 C16 C19 C20 C29 P04 P06 P07 P08 P09 S03 S05 S06 \
     S08 S09 S10 S11 S12 \
     U03 U05 D03 5C04 5C05 5C08 5C14 5C20 5C25 5C30 5C32 5P04 5P08 5P15 5P24 5P25 5S03 \
     5S05 5S07 5S13 5S17 5U02",
    "5C02 5P12",
];

#[test]
fn the_judges_see_every_vector_as_we_do_but_for_the_listed() {
    let seen = disagreements(|vector| flowsdk_takes(&vector.bytes, vector.version));
    assert_eq!(seen, FLOWSDK, "flowsdk");
    let seen = disagreements(|vector| rmqtt_rewrites(&vector.bytes, vector.version).is_some());
    assert_eq!(seen, RMQTT, "rmqtt-codec");
}

/// One property at a time, without a Payload Format Indicator of 0, which says what its absence says; by
/// identifier, for `rmqtt-codec` has an order of its own. User properties keep theirs.
fn sorted(pass_through: &Bytes) -> Bytes {
    let (mut rest, mut list) = (&pass_through[..], Vec::new());
    while let [id, ..] = rest {
        let string = |at: usize| 2 + usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
        let len = match id {
            0x01 => 2,
            0x26 => 1 + string(1) + string(1 + string(1)),
            _ => 1 + string(1),
        };
        let (property, behind) = rest.split_at(len);
        list.push(property);
        rest = behind;
    }
    list.retain(|property| *property != [0x01, 0x00]);
    list.sort_by_key(|property| property[0]);
    list.concat().into()
}

/// `packet` without the properties that say what their absence says: `rmqtt-codec` does not keep those.
fn plain(mut packet: Packet) -> Packet {
    match &mut packet {
        Packet::Connect(connect) => {
            let p = &mut connect.properties;
            p.session_expiry_interval_s = p.session_expiry_interval_s.filter(|seconds| *seconds > 0);
            p.topic_alias_maximum = p.topic_alias_maximum.filter(|max| *max > 0);
            p.request_response_information = p.request_response_information.filter(|asked| *asked);
            p.request_problem_information = p.request_problem_information.filter(|asked| !asked);
            if let Some(will) = &mut connect.will {
                let publish = &mut will.properties.publish;
                publish.pass_through = sorted(&publish.pass_through);
            }
        }
        Packet::ConnAck(connack) => {
            let p = &mut connack.properties;
            p.receive_maximum = p.receive_maximum.filter(|max| *max < u16::MAX);
            p.topic_alias_maximum = p.topic_alias_maximum.filter(|max| *max > 0);
            for available in [
                &mut p.retain_available,
                &mut p.wildcard_subscription_available,
                &mut p.subscription_identifiers_available,
                &mut p.shared_subscription_available,
            ] {
                *available = available.filter(|available| !*available);
            }
        }
        Packet::Publish(publish) => {
            publish.properties.pass_through = sorted(&publish.properties.pass_through);
        }
        _ => {}
    }
    packet
}

/// Without what `rmqtt-codec` does not take (see [`RMQTT`]) or writes otherwise: an AUTH without a method,
/// which section 3.15.2.1 has only as two bytes, it writes as four.
fn acceptable(mut packet: Packet) -> Packet {
    match &mut packet {
        Packet::Connect(connect) => {
            if let Some(will) = &mut connect.will {
                let expiry = &mut will.properties.publish.message_expiry_interval_s;
                *expiry = expiry.map(|seconds| seconds.max(1));
            }
        }
        Packet::Publish(publish) => {
            let expiry = &mut publish.properties.message_expiry_interval_s;
            *expiry = expiry.map(|seconds| seconds.max(1));
        }
        Packet::Auth(auth) if auth.properties.authentication_method.is_none() => return Packet::PingReq,
        _ => {}
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..crate::cases(2000) })]

    #[test]
    fn flowsdk_takes_every_generated_packet(
        old in packet(ProtocolVersion::V3_1_1),
        new in packet(ProtocolVersion::V5),
    ) {
        for (packet, version) in [(old, ProtocolVersion::V3_1_1), (new, ProtocolVersion::V5)] {
            let bytes = encoded(&packet, version);
            let seen = MqttPacket::from_bytes_with_version(&bytes, level(version));
            // Empty strings and binary data are legal wherever they are here (sections 1.5.4 and 1.5.6).
            let is_emptiness = format!("{seen:?}").contains("cannot be empty");
            prop_assert!(flowsdk_takes(&bytes, version) || is_emptiness, "{seen:?}: {packet:?}");
        }
    }

    #[test]
    fn rmqtt_codec_writes_what_it_read_with_the_same_bytes_in_3_1_1(
        packet in packet(ProtocolVersion::V3_1_1),
    ) {
        let bytes = encoded(&packet, ProtocolVersion::V3_1_1);
        prop_assert_eq!(rmqtt_rewrites(&bytes, ProtocolVersion::V3_1_1), Some(bytes));
    }

    #[test]
    fn rmqtt_codec_writes_what_it_read_with_the_same_values_in_5(
        packet in packet(ProtocolVersion::V5).prop_map(acceptable),
    ) {
        let version = ProtocolVersion::V5;
        let again = rmqtt_rewrites(&encoded(&packet, version), version);
        prop_assert!(again.is_some(), "refused: {packet:?}");
        let again = decoded(&again.unwrap_or_default(), version, reader_of(&packet));
        prop_assert_eq!(plain(again), plain(packet));
    }
}
