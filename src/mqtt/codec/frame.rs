//! The fixed header: where a packet ends, known before the rest of it has come.

use crate::mqtt::error::DecodeError;
use crate::mqtt::reason::ReasonCode;

/// Largest Remaining Length: four bytes of seven bits `[MQTT-1.5.5]`.
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;

/// Largest packet, fixed header included.
pub const PACKET_SIZE_MAX: u32 = 268_435_460;

/// A fixed header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Packet type and flags.
    pub first: u8,
    /// Bytes of the fixed header: 2 to 5.
    pub len: usize,
    /// Bytes of the whole packet, fixed header included.
    pub total_len: usize,
}

impl Header {
    /// Packet type: the upper four bits.
    #[must_use]
    pub fn kind(self) -> u8 {
        self.first >> 4
    }

    /// Flags: the lower four bits.
    #[must_use]
    pub fn flags(self) -> u8 {
        self.first & 0x0F
    }

    /// Whether the Remaining Length took no more bytes than needed `[MQTT-1.5.5-1]`.
    #[must_use]
    pub fn is_minimal(self) -> bool {
        self.len == 1 + varint_len(self.total_len - self.len)
    }
}

/// The fixed header at the beginning of `buf`, or `None` if it is not yet whole. Consumes nothing.
///
/// # Errors
/// A fourth length byte with its continuation bit set (0x81), or an announced size above
/// `packet_size_max` bytes (0x95): told from the header alone, so that nothing need be reserved.
pub fn peek(buf: &[u8], packet_size_max: u32) -> Result<Option<Header>, DecodeError> {
    let Some((&first, length)) = buf.split_first() else {
        return Ok(None);
    };
    let mut remaining = 0_usize;
    for (at, &byte) in length.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let len = at + 2;
            let total_len = len + remaining;
            if total_len > packet_size_max as usize {
                return Err(DecodeError::new(ReasonCode::PacketTooLarge, "MQTT-3.2.2-15"));
            }
            return Ok(Some(Header {
                first,
                len,
                total_len,
            }));
        }
    }
    if length.len() >= 4 {
        return Err(DecodeError::malformed("MQTT-1.5.5"));
    }
    Ok(None)
}

/// Bytes that a Variable Byte Integer takes; `value` is at most [`REMAINING_LENGTH_MAX`].
#[must_use]
pub fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}
