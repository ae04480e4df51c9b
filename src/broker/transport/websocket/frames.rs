//! Incoming WebSocket frames as a value: bytes in, payload out, in the same place.

/// Longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// How a client broke the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Violation {
    /// `[MQTT-6.0.0-1]`
    #[error("a text frame: MQTT travels in binary frames only")]
    Text,
    #[error("a frame whose payload is not masked")]
    Unmasked,
    #[error("a frame with an opcode or reserved bits that were not agreed on")]
    Unknown,
    #[error("a fragment out of turn")]
    Fragment,
    #[error("a control frame that is fragmented or longer than 125 bytes")]
    Control,
    #[error("a frame of a length beyond 2^63")]
    Length,
}

impl Violation {
    /// The status of the close frame (RFC 6455, 7.4.1).
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Text => 1003,
            _ => 1002,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kind {
    #[default]
    Data,
    Ping,
    Pong,
    Close,
}

/// What is known of the frame that is being read. At most one ping and one close wait to be answered.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 14],
    head_len: u8,
    /// The head is whole: `left` bytes of payload are to come.
    inside: bool,
    kind: Kind,
    left: u64,
    mask: [u8; 4],
    /// A data message has begun and its last fragment has not come.
    fragmented: bool,
    /// Payload of the control frame that is being read.
    control: Vec<u8>,
    ping: Option<Vec<u8>>,
    close: Option<Vec<u8>>,
}

impl Frames {
    /// The payload of a ping that is to be answered: of several, the last (RFC 6455, 5.5.3).
    pub(super) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// The status with which the client has closed, to be echoed; empty if it gave none.
    pub(super) fn take_close(&mut self) -> Option<Vec<u8>> {
        self.close.take()
    }

    /// Takes the frames apart: the payload of data frames is moved to the front of `bytes`, its length is
    /// returned. What comes behind a close frame is ignored.
    pub(super) fn unframe(&mut self, bytes: &mut [u8]) -> Result<usize, Violation> {
        let (mut read, mut kept) = (0, 0);
        while read < bytes.len() && self.close.is_none() {
            if !self.inside {
                self.head[usize::from(self.head_len)] = bytes[read];
                self.head_len += 1;
                read += 1;
                if self.head_len == 2 && self.head[1] & 0x80 == 0 {
                    return Err(Violation::Unmasked);
                }
                if usize::from(self.head_len) == self.head_size() {
                    self.begin()?;
                }
            } else {
                let len = self.left.min((bytes.len() - read) as u64) as usize;
                let payload = &mut bytes[read..read + len];
                self.unmask(payload);
                if self.kind == Kind::Data {
                    bytes.copy_within(read..read + len, kept);
                    kept += len;
                } else {
                    self.control.extend_from_slice(payload);
                }
                read += len;
                self.left -= len as u64;
            }
            if self.inside && self.left == 0 {
                self.finish();
            }
        }
        Ok(kept)
    }

    /// Bytes of the head, as far as the first two say; a client masks, so four of them are the mask.
    fn head_size(&self) -> usize {
        match (self.head_len, self.head[1] & 0x7F) {
            (..2, _) => 2,
            (_, 126) => 8,
            (_, 127) => 14,
            _ => 6,
        }
    }

    fn begin(&mut self) -> Result<(), Violation> {
        let [first, second, ..] = self.head;
        let (last, length) = (first & 0x80 != 0, second & 0x7F);
        if first & 0x70 != 0 {
            return Err(Violation::Unknown);
        }
        let size = usize::from(self.head_len);
        let extended = &self.head[2..size - 4];
        self.left = match length {
            126 | 127 => extended.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            _ => u64::from(length),
        };
        if self.left >> 63 != 0 {
            return Err(Violation::Length);
        }
        self.mask.copy_from_slice(&self.head[size - 4..size]);
        self.kind = match (first & 0x0F, self.fragmented) {
            (0, true) | (2, false) => Kind::Data,
            (0 | 2, _) => return Err(Violation::Fragment),
            (1, _) => return Err(Violation::Text),
            (8, _) => Kind::Close,
            (9, _) => Kind::Ping,
            (10, _) => Kind::Pong,
            _ => return Err(Violation::Unknown),
        };
        if self.kind == Kind::Data {
            self.fragmented = !last;
        } else if !last || self.left > CONTROL_BYTES_MAX {
            return Err(Violation::Control);
        }
        self.head_len = 0;
        self.inside = true;
        Ok(())
    }

    fn unmask(&mut self, payload: &mut [u8]) {
        let mut words = payload.chunks_exact_mut(8);
        let [a, b, c, d] = self.mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        for word in &mut words {
            // A chunk of exactly eight bytes is an array of eight.
            let bytes: [u8; 8] = (&*word).try_into().expect("chunks of eight bytes");
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
        let rest = words.into_remainder();
        for (byte, mask) in rest.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
        // The next part of the payload goes on where this one ended.
        let turn = payload.len() % 4;
        self.mask.rotate_left(turn);
    }

    fn finish(&mut self) {
        self.inside = false;
        let payload = std::mem::take(&mut self.control);
        match self.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.ping = Some(payload),
            Kind::Close => self.close = Some(payload.get(..2).unwrap_or_default().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests;
