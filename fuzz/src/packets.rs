//! Any bytes, in both directions and all versions: whatever is decoded is encoded to bytes that decode to
//! the same value; where the bytes are cut does not matter; nothing is waited for in vain.
//!
//! The first byte chooses the decoder, the second into which pieces the rest is cut.

use bytes::BytesMut;

use crate::mqtt::codec::{Decoder, Role, encode};
use crate::mqtt::packet::{Packet, ProtocolVersion};
use crate::mqtt::reason::ReasonCode;

const SIZE_MAX: u32 = 1 << 20;

fn decoder(which: u8) -> (Decoder, Role) {
    let version = [
        ProtocolVersion::V3_1,
        ProtocolVersion::V3_1_1,
        ProtocolVersion::V5,
    ][usize::from(which % 3)];
    match which / 3 % 3 {
        0 => (Decoder::server(SIZE_MAX), Role::Server),
        1 => (Decoder::connected(version, SIZE_MAX), Role::Server),
        _ => (Decoder::client(version, SIZE_MAX), Role::Client),
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let [which, size, bytes @ ..] = data else { return };
    let whole = decoded(*which, bytes.len().max(1), bytes);
    let in_pieces = decoded(*which, usize::from(*size).max(1), bytes);
    assert_eq!(whole, in_pieces, "the cut matters");
}

/// What the decoder makes of `bytes` that come in pieces of `size`, and the reason for which it stops.
fn decoded(which: u8, size: usize, bytes: &[u8]) -> (Vec<Packet>, Option<ReasonCode>) {
    let (mut decoder, role) = decoder(which);
    let (mut packets, mut buf) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(size) {
        buf.extend_from_slice(piece);
        loop {
            let before = buf.clone();
            match decoder.decode(&mut buf) {
                Ok(Some(packet)) => {
                    let version = decoder.version().expect("known with the first packet");
                    comes_back(&packet, version, role);
                    packets.push(packet);
                }
                Ok(None) => {
                    assert_eq!(buf, before, "waiting consumes nothing");
                    break;
                }
                Err(error) => {
                    assert_eq!(decoder.decode(&mut buf), Err(error));
                    return (packets, Some(error.reason));
                }
            }
        }
    }
    let announced = decoder.announced(&buf).expect("else it is refused");
    assert!(
        announced.is_none_or(|len| len > buf.len()),
        "waits although the packet is whole"
    );
    (packets, None)
}

/// Encoding `packet` gives bytes that are read as the same packet, and as nothing else.
pub fn comes_back(packet: &Packet, version: ProtocolVersion, role: Role) {
    let mut bytes = BytesMut::new();
    let size = encode(packet, version, &mut bytes).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
    assert_eq!(size, bytes.len());
    let mut decoder = match (packet, role) {
        (Packet::Connect(_), _) => Decoder::server(u32::MAX),
        (_, Role::Server) => Decoder::connected(version, u32::MAX),
        (_, Role::Client) => Decoder::client(version, u32::MAX),
    };
    assert_eq!(decoder.decode(&mut bytes), Ok(Some(packet.clone())));
    assert!(bytes.is_empty(), "{} bytes left", bytes.len());
}
