//! All 256 vectors of `tests/mqtt/vectors.tsv`: each has an id, a version, who has to decide (C codec,
//! P our policy, K codec of a client, S the session above the codec), accept / refuse / incomplete,
//! the 5.0 reason, the clause and a size limit.

use bytes::{BufMut, BytesMut};
use ermine::mqtt::codec::frame::PACKET_SIZE_MAX;
use ermine::mqtt::codec::{Decoder, Role};
use ermine::mqtt::error::DecodeError;
use ermine::mqtt::packet::{Packet, ProtocolVersion};

use crate::{decoded, encoded};

/// One line of the table.
pub(crate) struct Vector {
    pub(crate) id: &'static str,
    pub(crate) version: ProtocolVersion,
    pub(crate) role: Role,
    pub(crate) layer: &'static str,
    pub(crate) expect: &'static str,
    reason: Option<u8>,
    packet_size_max: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Vector {
    fn parse(line: &'static str) -> Self {
        let columns: Vec<_> = line.split('\t').collect();
        let [id, version, layer, expect, reason, _clause, max, hex, ..] = columns[..] else {
            panic!("not a vector: {line}");
        };
        let version = match version {
            "31" => ProtocolVersion::V3_1,
            "311" => ProtocolVersion::V3_1_1,
            "5" => ProtocolVersion::V5,
            other => panic!("{id}: version {other}"),
        };
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits");
        Self {
            id,
            version,
            role: if layer == "K" { Role::Client } else { Role::Server },
            layer,
            expect,
            reason: u8::from_str_radix(reason, 16).ok(),
            packet_size_max: match max.parse().expect("a number") {
                0 => PACKET_SIZE_MAX,
                limit => limit,
            },
            bytes: (0..hex.len()).step_by(2).map(byte).collect(),
        }
    }

    fn is_connect(&self) -> bool {
        self.bytes[0] >> 4 == 1
    }

    fn decoder(&self) -> Decoder {
        match self.role {
            Role::Client => Decoder::client(self.version, self.packet_size_max),
            Role::Server if self.is_connect() => Decoder::server(self.packet_size_max),
            Role::Server => Decoder::connected(self.version, self.packet_size_max),
        }
    }
}

pub(crate) fn all() -> Vec<Vector> {
    let table = include_str!("../mqtt/vectors.tsv");
    let vectors: Vec<_> = table.lines().skip(1).map(Vector::parse).collect();
    assert_eq!(vectors.len(), 256);
    vectors
}

/// Those that the codec decides, with this expectation.
pub(crate) fn expecting(expect: &str) -> Vec<Vector> {
    let mut vectors = all();
    vectors.retain(|vector| vector.expect == expect && vector.layer != "S");
    vectors
}

#[test]
fn incomplete_packets_are_waited_for_and_nothing_is_consumed() {
    for vector in expecting("I") {
        let mut buf = BytesMut::from(&vector.bytes[..]);
        assert_eq!(vector.decoder().decode(&mut buf), Ok(None), "{}", vector.id);
        assert_eq!(buf, vector.bytes, "{}", vector.id);
    }
}

#[test]
fn good_packets_are_accepted_whole() {
    for vector in expecting("A") {
        let packet = decoded(&vector.bytes, vector.version, vector.role);
        let mut two = BytesMut::from(&vector.bytes[..]);
        two.put_slice(&vector.bytes);
        let mut decoder = vector.decoder();
        assert_eq!(
            decoder.decode(&mut two),
            Ok(Some(packet.clone())),
            "{}",
            vector.id
        );
        assert_eq!(two, vector.bytes, "{}: takes exactly its own bytes", vector.id);
        if !vector.is_connect() {
            assert_eq!(decoder.decode(&mut two), Ok(Some(packet)), "{}", vector.id);
        }
    }
}

#[test]
fn good_packets_are_the_same_however_they_are_cut() {
    for vector in expecting("A") {
        let whole = decoded(&vector.bytes, vector.version, vector.role);
        let mut decoder = vector.decoder();
        for cut in 1..vector.bytes.len() {
            let (front, back) = vector.bytes.split_at(cut);
            if vector.is_connect() {
                decoder = vector.decoder();
            }
            let mut buf = BytesMut::from(front);
            assert_eq!(decoder.decode(&mut buf), Ok(None), "{} cut at {cut}", vector.id);
            assert_eq!(buf, front, "{} cut at {cut}: waiting consumes nothing", vector.id);
            buf.put_slice(back);
            assert_eq!(
                decoder.decode(&mut buf),
                Ok(Some(whole.clone())),
                "{} cut at {cut}",
                vector.id
            );
            assert!(buf.is_empty());
        }
    }
}

#[test]
fn bad_packets_are_refused_with_their_reason_and_nothing_behind_them_is_read() {
    for vector in expecting("R") {
        let alone = refusal(&vector, 0);
        let followed = refusal(&vector, 600);
        assert_eq!(alone, followed, "{}: what follows changes the error", vector.id);
        if let Some(reason) = vector.reason {
            assert_eq!(alone.reason as u8, reason, "{}: {alone}", vector.id);
        }
    }
}

/// The error for the vector with `pings` PINGREQs behind it; a later call must say the same.
fn refusal(vector: &Vector, pings: usize) -> DecodeError {
    let mut buf = BytesMut::from(&vector.bytes[..]);
    (0..pings).for_each(|_| buf.put_slice(&[0xC0, 0x00]));
    let mut decoder = vector.decoder();
    let error = match decoder.decode(&mut buf) {
        Err(error) => error,
        other => panic!("{} is not refused: {other:?}", vector.id),
    };
    assert_eq!(decoder.decode(&mut buf), Err(error), "{}", vector.id);
    error
}

#[test]
fn bad_packets_are_refused_byte_by_byte_too() {
    for vector in expecting("R") {
        let mut decoder = vector.decoder();
        let mut buf = BytesMut::new();
        let refused = vector.bytes.iter().any(|byte| {
            buf.put_u8(*byte);
            match decoder.decode(&mut buf) {
                Ok(None) => false,
                Ok(Some(packet)) => panic!("{}: {packet:?}", vector.id),
                Err(_) => true,
            }
        });
        assert!(refused, "{} waits for more", vector.id);
    }
}

#[test]
fn good_packets_keep_their_value_and_mostly_their_bytes_when_encoded_again() {
    // Same value, other bytes: our order of properties, the shortest form of an acknowledgement,
    // no DUP where 3.1 lets it pass, no flags for what 3.1 lets be missing.
    let rewritten = [
        "5C23", "5P19", "5P31", "5A03", "3S01", "3S02", "3S03", "3C04", "3C05",
    ];
    for vector in expecting("A") {
        let packet = decoded(&vector.bytes, vector.version, vector.role);
        let again = encoded(&packet, vector.version);
        assert_eq!(
            decoded(&again, vector.version, vector.role),
            packet,
            "{}",
            vector.id
        );
        assert_eq!(
            again != vector.bytes,
            rewritten.contains(&vector.id),
            "{}: {again:02x?}",
            vector.id
        );
    }
}

#[test]
fn what_the_session_decides_is_left_to_it() {
    // [MQTT-3.3.4-6]
    let mut left: Vec<_> = all().into_iter().filter(|vector| vector.layer == "S").collect();
    // The role of the decoder already tells a client's PUBLISH from a server's.
    left.retain(|vector| vector.id != "5P10" || refusal(vector, 0).reason as u8 != 0x82);
    let ids: Vec<_> = left.iter().map(|vector| vector.id).collect();
    assert_eq!(ids, ["C03", "5S12", "5S18"]);
    for vector in left {
        decoded(&vector.bytes, vector.version, vector.role);
    }
}

#[test]
fn explicit_values_and_the_order_of_user_properties_survive() {
    let pass_through = |id: &str| {
        let vector = all()
            .into_iter()
            .find(|vector| vector.id == id)
            .expect("a known vector");
        match decoded(&vector.bytes, vector.version, vector.role) {
            Packet::Publish(publish) => publish.properties.pass_through,
            Packet::Connect(connect) => connect.will.expect("a will").properties.publish.pass_through,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pass_through("5P26"), &b"\x01\x00"[..]);
    let passed = b"\x01\x01\x08\x00\x03r/t\x09\x00\x02\x00\xff\x26\x00\x01k\x00\x011\
        \x26\x00\x01k\x00\x012\x03\x00\x03t/p";
    assert_eq!(pass_through("5P19"), &passed[..]);
    assert!(pass_through("5C23").starts_with(b"\x01\x01\x03\x00\x01t\x08\x00\x01r"));
}

#[test]
fn strings_are_kept_as_they_came() {
    // [MQTT3-1.5.3-3] [MQTT-1.5.4-3]
    let vector = all()
        .into_iter()
        .find(|vector| vector.id == "C18")
        .expect("a known vector");
    let Packet::Connect(connect) = decoded(&vector.bytes, vector.version, vector.role) else {
        panic!("not a CONNECT");
    };
    assert_eq!(&*connect.client_id, "\u{FEFF}a");
}
