//! Clauses that are about bytes and that the vectors do not name: strings everywhere, reason codes, what is
//! left out of an answer that would be too large.

use bytes::{Bytes, BytesMut};
use ermine::mqtt::codec::{Decoder, Encoder, Role};
use ermine::mqtt::packet::{
    Ack, Auth, ConnAck, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, SubAck, UnsubAck,
};
use ermine::mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, DisconnectProperties, PublishProperties, UserProperty,
};
use ermine::mqtt::reason::ReasonCode;

use crate::{decoder, encoded};

const OLD: ProtocolVersion = ProtocolVersion::V3_1_1;
const NEW: ProtocolVersion = ProtocolVersion::V5;

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not 0")
}

/// A packet of these fields behind a fixed header.
fn packet(first: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let mut bytes = vec![first, u8::try_from(body.len()).expect("a short packet")];
    bytes.extend(body);
    bytes
}

/// A length and what it is the length of.
fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn verdict(bytes: &[u8], version: ProtocolVersion, role: Role) -> Result<Packet, u8> {
    let decoded = decoder(bytes[0], version, role).decode(&mut BytesMut::from(bytes));
    decoded
        .map(|packet| packet.unwrap_or_else(|| panic!("waits: {bytes:02x?}")))
        .map_err(|error| error.reason as u8)
}

/// Packets of both versions with `s` in the place of one string each, under the name of that place.
fn with_string(s: &[u8]) -> Vec<(&'static str, ProtocolVersion, Vec<u8>)> {
    let (s, a) = (&string(s)[..], &string(b"a")[..]);
    let old = |flags: u8| [&b"\x00\x04MQTT\x04"[..], &[flags, 0, 60]].concat();
    let new = |flags: u8| [&b"\x00\x04MQTT\x05"[..], &[flags, 0, 60, 0]].concat();
    let in_section = |property: u8| [&[u8::try_from(s.len() + 1).expect("short"), property][..], s].concat();
    vec![
        ("client id", OLD, packet(0x10, &[&old(2), s])),
        ("will topic", OLD, packet(0x10, &[&old(6), a, s, a])),
        ("user name", OLD, packet(0x10, &[&old(0x82), a, s])),
        ("topic name", OLD, packet(0x30, &[s, b"x"])),
        ("filter", OLD, packet(0x82, &[&[0, 1], s, &[0]])),
        ("filter to remove", OLD, packet(0xA2, &[&[0, 1], s])),
        ("client id", NEW, packet(0x10, &[&new(2), s])),
        ("will topic", NEW, packet(0x10, &[&new(6), a, &[0], s, a])),
        ("user name", NEW, packet(0x10, &[&new(0x82), a, s])),
        ("topic name", NEW, packet(0x30, &[s, &[0], b"x"])),
        ("response topic", NEW, packet(0x30, &[a, &in_section(0x08), b"x"])),
        ("content type", NEW, packet(0x30, &[a, &in_section(0x03), b"x"])),
        ("filter", NEW, packet(0x82, &[&[0, 1, 0], s, &[0]])),
        ("filter to remove", NEW, packet(0xA2, &[&[0, 1, 0], s])),
        ("reason", NEW, packet(0x40, &[&[0, 1, 0], &in_section(0x1F)])),
        ("method", NEW, packet(0xF0, &[&[0x18], &in_section(0x15)])),
    ]
}

#[test]
fn every_string_is_utf_8_without_nul_wherever_it_stands() {
    // [MQTT3-1.5.3-1..2] [MQTT3-3.1.3-4] [MQTT3-3.1.3-10..11] [MQTT3-3.3.2-1] [MQTT3-3.8.3-1]
    // [MQTT3-3.10.3-1] [MQTT-1.5.4-1..2] [MQTT-3.1.3-4] [MQTT-3.1.3-11..12] [MQTT-3.3.2-1]
    // [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-3.8.3-1] [MQTT-3.10.3-1]
    let bad: [&[u8]; 6] = [
        b"\xFF",
        b"a\xC3(",
        b"\xED\xA0\x80",
        b"\xC0\x80",
        b"\xF5\x80\x80\x80",
        b"a\0b",
    ];
    for bad in bad {
        for (place, version, bytes) in with_string(bad) {
            assert_eq!(
                verdict(&bytes, version, Role::Server),
                Err(0x81),
                "{place} {version:?} {bad:02x?}"
            );
        }
    }
    for good in ["a", "é", "\u{FEFF}x", "\u{10FFFF}", "\u{1}", "\u{FFFF}"] {
        for (place, version, bytes) in with_string(good.as_bytes()) {
            let packet = verdict(&bytes, version, Role::Server);
            let packet = packet.unwrap_or_else(|reason| panic!("{place} {version:?} {good:?}: {reason:02x}"));
            // [MQTT3-1.5.3-3] [MQTT-1.5.4-3]
            assert!(
                format!("{packet:?}").contains(&format!("{good:?}")[1..])
                    || place == "response topic"
                    || place == "content type",
                "{place}: {packet:?}"
            );
        }
    }
}

#[test]
fn the_fields_of_connect_come_in_their_order_and_as_its_flags_say() {
    // [MQTT3-3.1.3-1] [MQTT3-3.1.3-3] [MQTT3-3.1.2-9] [MQTT3-3.1.2-18..21]
    // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.2-9] [MQTT-3.1.2-16..19]
    let fields: Vec<_> = [&b"id"[..], b"topic", b"will", b"user", b"pass"]
        .map(string)
        .to_vec();
    for (version, level, section) in [(OLD, 4, &b""[..]), (NEW, 5, b"\0")] {
        let head = |flags: u8| [&b"\x00\x04MQTT"[..], &[level, flags, 0, 60], section].concat();
        let all = [
            &fields[0][..],
            section,
            &fields[1],
            &fields[2],
            &fields[3],
            &fields[4],
        ]
        .concat();
        let Ok(Packet::Connect(connect)) =
            verdict(&packet(0x10, &[&head(0xC6), &all]), version, Role::Server)
        else {
            panic!("a good CONNECT");
        };
        let will = connect.will.expect("flagged");
        assert_eq!(
            (&*connect.client_id, &*will.topic, &will.payload[..]),
            ("id", "topic", &b"will"[..])
        );
        assert_eq!(
            (connect.username.as_deref(), connect.password.as_deref()),
            (Some("user"), Some(&b"pass"[..]))
        );
        // Without any one of its flags there are bytes left; with one more there are too few.
        for flags in [0x02, 0x82, 0x86] {
            assert_eq!(
                verdict(&packet(0x10, &[&head(flags), &all]), version, Role::Server),
                Err(0x81),
                "{flags:02x}"
            );
        }
        for (flags, there) in [(0x02, 0), (0x06, 1), (0x06, 2), (0x82, 1), (0xC2, 2)] {
            let fields = fields[..there].concat();
            assert_eq!(
                verdict(&packet(0x10, &[&head(flags), &fields]), version, Role::Server),
                Err(0x81),
                "{flags:02x}"
            );
        }
    }
}

#[test]
fn reserved_bits_are_written_as_listed_and_qos_0_has_no_identifier() {
    // [MQTT3-2.2.2-1] [MQTT3-2.3.1-5] [MQTT-2.1.3-1] [MQTT-2.2.1-2] [MQTT-2.2.2-1]
    for version in [OLD, NEW] {
        let ack = Ack::success(id(1));
        let first = |packet: &Packet| encoded(packet, version)[0];
        assert_eq!(first(&Packet::PubAck(ack.clone())), 0x40);
        assert_eq!(first(&Packet::PubRec(ack.clone())), 0x50);
        assert_eq!(first(&Packet::PubRel(ack.clone())), 0x62);
        assert_eq!(first(&Packet::PubComp(ack)), 0x70);
        assert_eq!((first(&Packet::PingReq), first(&Packet::PingResp)), (0xC0, 0xD0));
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "a".into(),
            packet_id: None,
            properties: PublishProperties::default(),
            payload: Bytes::from_static(b"x"),
        };
        let bare: &[u8] = if version.is_v5() {
            b"\x30\x05\0\x01a\0x"
        } else {
            b"\x30\x04\0\x01ax"
        };
        assert_eq!(encoded(&Packet::Publish(publish), version), bare);
    }
}

/// Bytes that are accepted where `bytes` has its mark.
fn accepted(version: ProtocolVersion, role: Role, bytes: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
    (0..=0xFF)
        .filter(|code| verdict(&bytes(*code), version, role).is_ok())
        .collect()
}

#[test]
fn each_packet_has_the_reason_codes_of_its_table_and_no_others() {
    // [MQTT3-3.9.3-2] [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    // [MQTT-3.8.4-7] [MQTT-3.9.3-2] [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
    let connack = accepted(NEW, Role::Client, |code| vec![0x20, 3, 0, code, 0]);
    assert_eq!(
        connack,
        b"\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f"
    );
    let taken = b"\x00\x10\x80\x83\x87\x90\x91\x97\x99";
    for first in [0x40, 0x50] {
        assert_eq!(
            accepted(NEW, Role::Server, |code| vec![first, 3, 0, 1, code]),
            taken
        );
    }
    for first in [0x62, 0x70] {
        assert_eq!(
            accepted(NEW, Role::Server, |code| vec![first, 3, 0, 1, code]),
            b"\x00\x92"
        );
    }
    let suback = accepted(NEW, Role::Client, |code| vec![0x90, 4, 0, 1, 0, code]);
    assert_eq!(suback, b"\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2");
    assert_eq!(
        accepted(OLD, Role::Client, |code| vec![0x90, 3, 0, 1, code]),
        b"\x00\x01\x02\x80"
    );
    let unsuback = accepted(NEW, Role::Client, |code| vec![0xB0, 4, 0, 1, 0, code]);
    assert_eq!(unsuback, b"\x00\x11\x80\x83\x87\x8f\x91");
    let from_server = accepted(NEW, Role::Client, |code| vec![0xE0, 1, code]);
    // 0x8C is in section 2.4 for DISCONNECT and forgotten in its table.
    let both: &[u8] = b"\x00\x80\x81\x82\x83\x87\x89\x8b\x8c\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\
        \x9b\x9c\x9d\x9e\x9f\xa0\xa1\xa2";
    assert!(
        from_server
            .iter()
            .all(|code| both.contains(code) || *code == 0x04),
        "{from_server:02x?}"
    );
    let from_client = accepted(NEW, Role::Server, |code| vec![0xE0, 1, code]);
    assert!(from_client.starts_with(&[0x00, 0x04, 0x80]), "{from_client:02x?}");
    let auth = accepted(NEW, Role::Server, |code| vec![0xF0, 6, code, 4, 0x15, 0, 1, b'm']);
    assert_eq!(auth, b"\x00\x18\x19");
}

/// Every answer that has room for a reason string and user properties.
fn answers(reason_string: Option<&str>, user_properties: &[UserProperty]) -> Vec<Packet> {
    let reason_string = reason_string.map(Into::into);
    let user_properties = user_properties.to_vec();
    let properties = AckProperties {
        reason_string: reason_string.clone(),
        user_properties: user_properties.clone(),
    };
    let ack = Ack {
        packet_id: id(1),
        reason: ReasonCode::NotAuthorized,
        properties: properties.clone(),
    };
    let released = Ack {
        reason: ReasonCode::PacketIdentifierNotFound,
        ..ack.clone()
    };
    let (packet_id, reason) = (id(1), ReasonCode::NotAuthorized);
    vec![
        Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason,
            properties: ConnAckProperties {
                reason_string: reason_string.clone(),
                user_properties: user_properties.clone(),
                ..ConnAckProperties::default()
            },
        })),
        Packet::PubAck(ack.clone()),
        Packet::PubRec(ack),
        Packet::PubRel(released.clone()),
        Packet::PubComp(released),
        Packet::SubAck(SubAck {
            packet_id,
            properties: properties.clone(),
            reasons: vec![reason],
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id,
            properties,
            reasons: vec![reason],
        }),
        Packet::Disconnect(Disconnect {
            reason,
            properties: DisconnectProperties {
                reason_string: reason_string.clone(),
                user_properties: user_properties.clone(),
                ..DisconnectProperties::default()
            },
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::ContinueAuthentication,
            properties: AuthProperties {
                authentication_method: Some("m".into()),
                authentication_data: None,
                reason_string,
                user_properties,
            },
        }),
    ]
}

#[test]
fn no_answer_outgrows_the_receiver_for_the_sake_of_its_details() {
    // [MQTT-3.2.2-19..20] [MQTT-3.4.2-2..3] [MQTT-3.5.2-2..3] [MQTT-3.6.2-2..3] [MQTT-3.7.2-2..3]
    // [MQTT-3.9.2-1..2] [MQTT-3.11.2-1..2] [MQTT-3.14.2-3..4] [MQTT-3.15.2-2..3]
    let user = [("k".into(), "v".into())];
    let (full, plain) = (answers(Some("because"), &user), answers(None, &[]));
    for ((full, with_user), plain) in full.iter().zip(answers(None, &user)).zip(&plain) {
        let sizes = [full, &with_user, plain].map(|packet| encoded(packet, NEW).len());
        assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2]);
        for limit in sizes[2]..=sizes[0] {
            let encoder = Encoder {
                packet_size_max: limit as u32,
                ..Encoder::new(NEW)
            };
            let mut out = BytesMut::new();
            encoder.encode(full, &mut out).expect("details are left out");
            assert!(out.len() <= limit);
            let read = Decoder::client(NEW, limit as u32)
                .decode(&mut out)
                .expect("a good packet");
            let expected = match limit {
                _ if limit >= sizes[0] => full,
                _ if limit >= sizes[1] => &with_user,
                _ => plain,
            };
            assert_eq!(read.as_ref(), Some(expected), "limit {limit}");
        }
    }
}
