//! CRC-32 (the one of Ethernet, gzip and PNG), eight bytes at a time.
//!
//! Each record carries one over its key and itself: the engine's own checksums are looked at when a file is
//! opened, this one whenever a record is read.

const POLYNOMIAL: u32 = 0xEDB8_8320;

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A checksum in the making.
#[derive(Clone, Copy)]
pub(super) struct Crc(u32);

impl Crc {
    pub(super) fn new() -> Self {
        Self(!0)
    }

    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let mut crc = self.0;
        let (chunks, rest) = bytes.as_chunks::<8>();
        for chunk in chunks {
            let word = u64::from_le_bytes(*chunk) ^ u64::from(crc);
            crc = 0;
            for (at, byte) in word.to_le_bytes().into_iter().enumerate() {
                crc ^= TABLES[7 - at][usize::from(byte)];
            }
        }
        for byte in rest {
            crc = (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)];
        }
        Self(crc)
    }

    pub(super) fn sum(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Crc;

    #[test]
    fn it_is_the_crc_that_everybody_has() {
        assert_eq!(Crc::new().with(b"123456789").sum(), 0xCBF4_3926);
        assert_eq!(Crc::new().with(b"").sum(), 0);
        let text = b"The quick brown fox jumps over the lazy dog";
        assert_eq!(Crc::new().with(text).sum(), 0x414F_A339);
        assert_eq!(Crc::new().with(&text[..13]).with(&text[13..]).sum(), 0x414F_A339);
    }
}
