//! Headers as proxies write them, in pieces, and what is none.

use super::*;

/// Reads the header from a stream of pieces; also what is left behind it.
async fn read(pieces: &[&[u8]]) -> (Result<Option<SocketAddr>, String>, Vec<u8>) {
    let mut chained: Box<dyn AsyncRead + Unpin + Send> = Box::new(tokio::io::empty());
    for piece in pieces.iter().rev() {
        let first = io::Cursor::new(piece.to_vec());
        chained = Box::new(AsyncReadExt::chain(first, chained));
    }
    let client = read_header(&mut chained).await.map_err(|error| error.to_string());
    let mut rest = Vec::new();
    chained.read_to_end(&mut rest).await.expect("a stream in memory");
    (client, rest)
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE_2.to_vec();
    header.extend([command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

#[tokio::test]
async fn the_client_is_told_and_not_a_byte_of_it_is_lost_however_the_stream_is_cut() {
    let v4_rest = [
        192, 0, 2, 1, 198, 51, 100, 1, 0xDB, 0x1C, 0x07, 0x5B, 0x04, 0, 1, 0,
    ];
    let mut v6_rest = [0_u8; 36];
    v6_rest[15] = 1;
    v6_rest[32..34].copy_from_slice(&4242_u16.to_be_bytes());
    let headers: [(Vec<u8>, Option<&str>); 7] = [
        (
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56092 1883\r\n".to_vec(),
            Some("192.0.2.1:56092"),
        ),
        (
            b"PROXY TCP6 2001:db8::1 ::1 56092 1883\r\n".to_vec(),
            Some("[2001:db8::1]:56092"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (v2(0x21, 0x11, &v4_rest), Some("192.0.2.1:56092")),
        (v2(0x21, 0x21, &v6_rest), Some("[::1]:4242")),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x21, 0x31, &[0; 216]), None),
    ];
    for (header, client) in headers {
        let client = client.map(|client| client.parse().expect("an address"));
        for cut in 0..=header.len() {
            let (one, two) = header.split_at(cut);
            let (told, rest) = read(&[one, two, b"\x10CONNECT"]).await;
            assert_eq!(told, Ok(client), "{header:?} cut at {cut}");
            assert_eq!(rest, b"\x10CONNECT");
        }
    }
}

#[tokio::test]
async fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    let (told, rest) = read(&[b"\x10", b"\x0c\0\x04MQTT"]).await;
    assert!(told.expect_err("no header").contains("no PROXY header"));
    assert!(!rest.is_empty(), "the rest was not waited for");
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    for bad in [
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56092 70000\r\n".as_slice(),
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
        b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 2\r\n",
        &v2(0x31, 0x11, &[0; 12]),
        &v2(0x21, 0x11, &[0; 11]),
        &v2(0x21, 0x44, &[0; 12]),
        &v2(0x21, 0x11, &[0; 4000]),
        &long,
    ] {
        let (told, _) = read(&[bad]).await;
        assert!(told.expect_err("a bad header").contains("malformed"), "{bad:?}");
    }
    let (told, _) = read(&[b"PROXY TCP4 1.1"]).await;
    assert!(told.expect_err("half a header").contains("ended"));
}
