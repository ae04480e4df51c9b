//! What the other end is told when the codec refuses.

use bytes::BytesMut;
use ermine::mqtt::codec::Decoder;
use ermine::mqtt::codec::frame::PACKET_SIZE_MAX;
use ermine::mqtt::error::{Answer, DecodeError};
use ermine::mqtt::packet::ProtocolVersion;
use ermine::mqtt::reason::ReasonCode;

use crate::encoded;
use crate::vectors::{all, expecting};

/// The bytes that are sent before closing; none is a plain close.
fn answer(error: &DecodeError) -> Vec<u8> {
    error
        .answer_packet()
        .map_or_else(Vec::new, |(version, packet)| encoded(&packet, version))
}

fn refused(mut decoder: Decoder, bytes: &[u8]) -> DecodeError {
    decoder
        .decode(&mut BytesMut::from(bytes))
        .expect_err("this is no packet")
}

fn answer_to(id: &str) -> Vec<u8> {
    let vector = all()
        .into_iter()
        .find(|vector| vector.id == id)
        .expect("a known vector");
    answer(&refused(Decoder::server(PACKET_SIZE_MAX), &vector.bytes))
}

#[test]
fn a_version_that_is_not_spoken_is_told_so_in_the_form_of_3_1_1() {
    // [MQTT3-3.1.2-1..2] [MQTT-3.1.2-1..2]
    assert_eq!(answer_to("3C02"), [0x20, 2, 0, 1]); // MQIsdp with level 4
    assert_eq!(answer_to("3C03"), [0x20, 2, 0, 1]); // MQTT with level 3
    assert_eq!(answer_to("5C27"), [0x20, 2, 0, 1]); // MQIsdp with level 5
    assert_eq!(answer_to("5C28"), [0x20, 2, 0, 1]); // MQTT with level 6
    assert_eq!(answer_to("C12"), b""); // another protocol
    let bridge = b"\x10\x0d\x00\x04MQTT\x84\x02\x00\x3c\x00\x01a"; // mosquitto asks for a bridge
    assert_eq!(
        answer(&refused(Decoder::server(PACKET_SIZE_MAX), bridge)),
        [0x20, 2, 0, 1]
    );
}

#[test]
fn a_bad_connect_is_answered_in_5_and_closed_before() {
    // [MQTT3-3.1.4-1] [MQTT-3.1.4-1] [MQTT-3.14.0-1]
    let unspoken = ReasonCode::UnsupportedProtocolVersion;
    for vector in expecting("R")
        .into_iter()
        .filter(|vector| vector.bytes[0] >> 4 == 1)
    {
        let error = refused(Decoder::server(PACKET_SIZE_MAX), &vector.bytes);
        let known = vector.bytes.len() > 9; // long enough to tell its version
        if vector.version.is_v5() && known && error.reason != unspoken {
            let expected = [0x20, 3, 0, error.reason as u8, 0];
            assert_eq!(answer(&error), expected, "{}", vector.id);
        } else if error.reason != unspoken {
            assert_eq!(answer(&error), b"", "{}", vector.id);
        }
    }
}

#[test]
fn later_a_5_client_hears_disconnect_and_an_older_one_nothing() {
    // [MQTT3-4.8.0-1] [MQTT-4.13.1-1]
    for vector in expecting("R")
        .into_iter()
        .filter(|vector| vector.bytes[0] >> 4 != 1)
    {
        let error = refused(
            Decoder::connected(vector.version, PACKET_SIZE_MAX.min(64)),
            &vector.bytes,
        );
        if vector.version.is_v5() {
            assert_eq!(answer(&error), [0xE0, 1, error.reason as u8], "{}", vector.id);
        } else {
            assert_eq!(error.answer, Answer::Close, "{}", vector.id);
        }
    }
}

#[test]
fn connect_comes_first_and_only_once() {
    // [MQTT3-3.1.0-1..2] [MQTT-3.1.0-1..2]
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a";
    for first in (0_u8..16).filter(|kind| *kind != 1) {
        // Told from the fixed header: the announced body never comes.
        let error = refused(Decoder::server(PACKET_SIZE_MAX), &[first << 4, 0x7F]);
        assert_eq!(
            (error.reason, error.answer),
            (ReasonCode::ProtocolError, Answer::Close)
        );
    }
    let mut decoder = Decoder::server(PACKET_SIZE_MAX);
    let mut buf = BytesMut::from(&connect[..]);
    buf.extend_from_slice(&connect[..2]);
    assert!(decoder.decode(&mut buf).expect("a good CONNECT").is_some());
    assert_eq!(decoder.version(), Some(ProtocolVersion::V5));
    let error = decoder.decode(&mut buf).expect_err("a second CONNECT");
    assert_eq!(
        (error.reason, error.answer),
        (ReasonCode::ProtocolError, Answer::Disconnect)
    );
}

#[test]
fn each_end_refuses_what_only_it_may_send() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            let error = refused(Decoder::connected(version, PACKET_SIZE_MAX), &[first, 0x7F]);
            assert_eq!(error.reason, ReasonCode::ProtocolError);
        }
        for first in [0x10, 0x82, 0xA2, 0xC0] {
            let error = refused(Decoder::client(version, PACKET_SIZE_MAX), &[first, 0x7F]);
            assert_eq!(error.reason, ReasonCode::ProtocolError);
        }
    }
    let error = refused(
        Decoder::client(ProtocolVersion::V3_1_1, PACKET_SIZE_MAX),
        &[0xE0, 0],
    );
    assert_eq!(error.reason, ReasonCode::ProtocolError);
}

#[test]
fn a_list_that_would_cost_far_more_memory_than_bytes_is_refused() {
    let user_property = [0x26, 0, 0, 0, 0];
    let publish_of = |count: usize| {
        let properties = user_property.repeat(count);
        let mut body = vec![0, 1, b'a'];
        push_varint(&mut body, properties.len());
        body.extend(properties);
        frame(0x30, &body)
    };
    let ack_of = |count: usize| {
        let properties = user_property.repeat(count);
        let mut body = vec![0, 1, 0];
        push_varint(&mut body, properties.len());
        body.extend(properties);
        frame(0x40, &body)
    };
    let decode = |bytes: Vec<u8>| {
        Decoder::connected(ProtocolVersion::V5, PACKET_SIZE_MAX).decode(&mut BytesMut::from(&bytes[..]))
    };
    assert!(decode(ack_of(256)).is_ok());
    assert_eq!(
        decode(ack_of(257)).map_err(|error| error.reason),
        Err(ReasonCode::QuotaExceeded)
    );
    assert!(
        decode(publish_of(10_000)).is_ok(),
        "those of a PUBLISH stay encoded"
    );
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    push_varint(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes
}

fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value > 0x7F {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
