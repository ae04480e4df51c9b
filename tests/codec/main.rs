//! The codec against the standards: vectors, generated packets, garbage, and an independent oracle.

mod answers;
mod clauses;
mod garbage;
mod generate;
mod judges;
mod oracle;
mod round_trip;
mod sending;
mod vectors;

use bytes::BytesMut;
use ermine::mqtt::codec::frame::PACKET_SIZE_MAX;
use ermine::mqtt::codec::{Decoder, Role, encode};
use ermine::mqtt::packet::{Packet, ProtocolVersion};
use proptest::prelude::ProptestConfig;

/// The bytes of a packet that can be encoded.
fn encoded(packet: &Packet, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    let size = encode(packet, version, &mut out).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
    assert_eq!(size, out.len());
    out
}

/// A decoder that is ready for a packet with this first byte.
fn decoder(first: u8, version: ProtocolVersion, role: Role) -> Decoder {
    match role {
        Role::Client => Decoder::client(version, PACKET_SIZE_MAX),
        Role::Server if first >> 4 == 1 => Decoder::server(PACKET_SIZE_MAX),
        Role::Server => Decoder::connected(version, PACKET_SIZE_MAX),
    }
}

/// Which end reads this packet.
fn reader_of(packet: &Packet) -> Role {
    match packet {
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => Role::Client,
        Packet::Publish(publish) if !publish.properties.subscription_identifiers.is_empty() => Role::Client,
        _ => Role::Server,
    }
}

/// Decodes bytes that are exactly one packet.
fn decoded(bytes: &[u8], version: ProtocolVersion, role: Role) -> Packet {
    let mut buf = BytesMut::from(bytes);
    let packet = decoder(bytes[0], version, role).decode(&mut buf);
    let packet = packet.unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"));
    assert!(buf.is_empty(), "{} bytes left of {bytes:02x?}", buf.len());
    packet.unwrap_or_else(|| panic!("waits for more: {bytes:02x?}"))
}

/// How many cases a property is tried with; PROPTEST_CASES says otherwise (a soak takes millions).
fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|count| count.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(count))
}
