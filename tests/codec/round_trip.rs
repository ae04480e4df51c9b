//! What is encoded is decoded to the same value, however it is cut.

use bytes::BytesMut;
use ermine::mqtt::codec::encode;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::versioned;
use crate::{decoded, decoder, encoded, reader_of};

proptest! {
    #![proptest_config(crate::cases(1500))]

    #[test]
    fn every_packet_comes_back((version, packet) in versioned()) {
        let bytes = encoded(&packet, version);
        prop_assert_eq!(decoded(&bytes, version, reader_of(&packet)), packet);
    }

    #[test]
    fn every_packet_comes_back_in_pieces(
        (version, packet) in versioned(),
        sizes in vec(1_usize..9, 1..9),
    ) {
        let bytes = encoded(&packet, version);
        let mut decoder = decoder(bytes[0], version, reader_of(&packet));
        let mut buf = BytesMut::new();
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            buf.extend_from_slice(piece);
            rest = behind;
            let got = decoder.decode(&mut buf).expect("good bytes");
            if rest.is_empty() {
                prop_assert_eq!(got, Some(packet));
                break;
            }
            prop_assert_eq!(got, None);
        }
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn both_kinds_of_buffer_get_the_same_bytes((version, packet) in versioned()) {
        let (mut vector, mut bytes) = (b"before".to_vec(), BytesMut::from(&b"before"[..]));
        encode(&packet, version, &mut vector).expect("a valid packet");
        encode(&packet, version, &mut bytes).expect("a valid packet");
        prop_assert_eq!(&vector[..], &bytes[..]);
        prop_assert_eq!(&vector[..6], b"before");
        prop_assert_eq!(&vector[6..], &encoded(&packet, version)[..]);
    }
}
