//! Frames that a client writes, cut everywhere.

use super::*;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A masked frame; the first byte is given, so that it may be wrong.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// All payload of a stream that comes in parts.
fn payload_of(frames: &mut Frames, parts: &[&[u8]]) -> Result<Vec<u8>, Violation> {
    let mut payload = Vec::new();
    for part in parts {
        let mut bytes = part.to_vec();
        let kept = frames.unframe(&mut bytes)?;
        payload.extend_from_slice(&bytes[..kept]);
    }
    Ok(payload)
}

#[test]
fn payload_is_the_same_wherever_the_stream_is_cut() {
    let long: Vec<u8> = (0..70_000_u32).map(|n| n as u8).collect();
    for size in [0, 1, 3, 7, 8, 9, 125, 126, 300] {
        let message = &long[..size];
        let stream = [
            frame(0x82, b"first"),
            frame(0x89, b"ping"),
            frame(0x02, message),
            frame(0x8A, b""),
            frame(0x80, b"last"),
        ]
        .concat();
        let wanted = [b"first", message, b"last"].concat();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            let (one, two) = stream.split_at(cut);
            assert_eq!(
                payload_of(&mut frames, &[one, two]).as_ref(),
                Ok(&wanted),
                "{size} {cut}"
            );
            assert_eq!(frames.take_ping().as_deref(), Some(&b"ping"[..]));
        }
    }
    let stream = frame(0x82, &long);
    let parts: Vec<&[u8]> = stream.chunks(997).collect();
    assert_eq!(payload_of(&mut Frames::default(), &parts), Ok(long));
}

#[test]
fn what_the_rules_forbid_is_refused() {
    let mut endless = frame(0x82, &[0; 70_000]);
    endless[2] = 0x80;
    let refused = [
        (frame(0x81, b"text"), Violation::Text),
        (vec![0x82, 0x01, b'x'], Violation::Unmasked),
        (frame(0xC2, b"x"), Violation::Unknown),
        (frame(0x83, b"x"), Violation::Unknown),
        (frame(0x80, b"x"), Violation::Fragment),
        (
            [frame(0x02, b"x"), frame(0x82, b"y")].concat(),
            Violation::Fragment,
        ),
        (frame(0x09, b"x"), Violation::Control),
        (frame(0x89, &[0; 126]), Violation::Control),
        (endless, Violation::Length),
    ];
    for (bytes, violation) in refused {
        let outcome = payload_of(&mut Frames::default(), &[&bytes]);
        assert_eq!(outcome, Err(violation), "{bytes:02x?}");
    }
}

#[test]
fn a_close_ends_the_stream_and_keeps_its_status() {
    let mut frames = Frames::default();
    let stream = [frame(0x82, b"a"), frame(0x88, &[3, 232, b'x']), frame(0x82, b"b")].concat();
    assert_eq!(payload_of(&mut frames, &[&stream]), Ok(b"a".to_vec()));
    assert_eq!(frames.take_close(), Some(vec![3, 232]));
}
