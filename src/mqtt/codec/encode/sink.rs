//! Where encoded bytes go: an outbox, or a counter that only measures.

use bytes::BytesMut;

use crate::mqtt::codec::frame::{REMAINING_LENGTH_MAX, varint_len};
use crate::mqtt::error::EncodeError;

/// A growing buffer of bytes that can be cut back to where it was.
pub trait Sink {
    /// Bytes that are in it.
    fn len(&self) -> usize;
    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
    /// Makes room for `additional` more bytes at once.
    fn reserve(&mut self, additional: usize);
    /// Forgets everything behind the first `len` bytes.
    fn truncate(&mut self, len: usize);
}

impl Sink for Vec<u8> {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }
}

impl Sink for BytesMut {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn reserve(&mut self, additional: usize) {
        self.reserve(additional);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }
}

/// Counts what it is given: lengths that stand in front of what they measure are found by writing
/// twice, so that no packet is built anywhere but in the outbox.
#[derive(Default)]
pub(super) struct Counter(pub(super) usize);

impl Sink for Counter {
    fn len(&self) -> usize {
        self.0
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn reserve(&mut self, _additional: usize) {}

    fn truncate(&mut self, len: usize) {
        self.0 = len;
    }
}

/// Binary Data or a UTF-8 string: two bytes of length before it.
pub(super) fn put_field(out: &mut impl Sink, field: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(field.len()).map_err(|_| EncodeError::FieldTooLong)?;
    out.put(&len.to_be_bytes());
    out.put(field);
    Ok(())
}

/// A Variable Byte Integer.
pub(super) fn put_varint(out: &mut impl Sink, value: usize) -> Result<(), EncodeError> {
    if value > REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLarge {
            size: value,
            size_max: REMAINING_LENGTH_MAX,
        });
    }
    let (bytes, len) = varint(value);
    out.put(&bytes[..len]);
    Ok(())
}

/// The bytes of a Variable Byte Integer of at most [`REMAINING_LENGTH_MAX`], and how many they are.
#[inline]
pub(super) fn varint(value: usize) -> ([u8; 4], usize) {
    let len = varint_len(value);
    let mut bytes = [0; 4];
    for (at, byte) in bytes.iter_mut().enumerate().take(len) {
        let more = if at + 1 < len { 0x80 } else { 0 };
        *byte = (value >> (7 * at)) as u8 & 0x7F | more;
    }
    (bytes, len)
}
