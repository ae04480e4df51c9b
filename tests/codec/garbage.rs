//! Bytes from hostile or broken clients: no panic, no endless loop, no packet that is not one.

use bytes::BytesMut;
use ermine::mqtt::codec::frame::PACKET_SIZE_MAX;
use ermine::mqtt::codec::{Decoder, Role};
use ermine::mqtt::packet::{Packet, ProtocolVersion};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::generate::versioned;
use crate::{decoded, encoded, reader_of};

fn any_decoder() -> impl Strategy<Value = fn() -> Decoder> {
    select(vec![
        (|| Decoder::server(1 << 16)) as fn() -> Decoder,
        || Decoder::connected(ProtocolVersion::V3_1, PACKET_SIZE_MAX),
        || Decoder::connected(ProtocolVersion::V3_1_1, PACKET_SIZE_MAX),
        || Decoder::connected(ProtocolVersion::V5, PACKET_SIZE_MAX),
        || Decoder::client(ProtocolVersion::V3_1_1, PACKET_SIZE_MAX),
        || Decoder::client(ProtocolVersion::V5, PACKET_SIZE_MAX),
    ])
}

/// Decodes until there is nothing more, and looks at each packet: it took exactly its frame, and
/// encoding it gives a packet of the same value.
fn drain(mut decoder: Decoder, role: Role, bytes: &[u8]) {
    let mut buf = BytesMut::from(bytes);
    loop {
        let before = buf.clone();
        let announced = decoder.announced(&buf);
        match decoder.decode(&mut buf) {
            Ok(Some(packet)) => {
                let used = before.len() - buf.len();
                assert_eq!(announced, Ok(Some(used)));
                let version = decoder.version().expect("known with the first packet");
                assert_eq!(decoded(&encoded(&packet, version), version, role), packet);
            }
            Ok(None) => {
                assert_eq!(buf, before, "waiting consumes nothing");
                let whole = announced
                    .expect("else it would be refused")
                    .is_some_and(|len| len <= buf.len());
                return assert!(!whole, "waits although the packet is whole: {before:02x?}");
            }
            Err(error) => return assert_eq!(decoder.decode(&mut buf), Err(error)),
        }
    }
}

/// Changes some bytes of a good packet.
fn mutated(mut bytes: Vec<u8>, changes: &[(Index, u8, u8)]) -> Vec<u8> {
    for (at, how, value) in changes {
        let at = at.index(bytes.len());
        match how % 5 {
            0 => bytes[at] = *value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => bytes.insert(at, *value),
            3 if bytes.len() > 2 => drop(bytes.remove(at)),
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(crate::cases(4000))]

    #[test]
    fn random_bytes_never_panic_nor_hang(new in any_decoder(), bytes in vec(any::<u8>(), 0..200)) {
        let mut decoder = new();
        let mut buf = BytesMut::from(&bytes[..]);
        let mut packets = 0;
        while let Ok(Some(_)) = decoder.decode(&mut buf) {
            packets += 1;
            prop_assert!(packets <= bytes.len() / 2, "each packet takes at least two bytes");
        }
    }

    #[test]
    fn damaged_packets_are_refused_or_are_packets(
        (version, packet) in versioned(),
        changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        let role = reader_of(&packet);
        let bytes = mutated(encoded(&packet, version), &changes);
        let decoder = match packet {
            Packet::Connect(_) => Decoder::server(PACKET_SIZE_MAX),
            _ if role == Role::Client => Decoder::client(version, PACKET_SIZE_MAX),
            _ => Decoder::connected(version, PACKET_SIZE_MAX),
        };
        drain(decoder, role, &bytes);
    }

    #[test]
    fn a_corrected_length_does_not_help_a_damaged_packet_to_panic(
        (version, packet) in versioned(),
        changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..4),
    ) {
        // With its length made right again the damage reaches the fields behind the header.
        let role = reader_of(&packet);
        let mut bytes = mutated(encoded(&packet, version), &changes);
        let body = bytes.len().saturating_sub(2).min(127);
        bytes.truncate(body + 2);
        bytes[1] = body as u8;
        drain(crate::decoder(bytes[0], version, role), role, &bytes);
    }
}
