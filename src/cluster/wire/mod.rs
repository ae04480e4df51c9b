//! The language between nodes: versions, and the opening of a link before `ractor` carries it.
//!
//! The opening runs on the raw stream, after the cookie was proved both ways. Its steps are numbered
//! in `docs/PROTOCOL.md`, "Links between nodes", and cited here:
//!
//! 1. the dialler says the range of versions that it speaks, 8 bytes that never change;
//! 2. the acceptor says its own range; both know the highest common version, or both refuse;
//! 3. the dialler says `Hello` in that version;
//! 4. the acceptor says `Welcome` or `Refuse`.

pub mod v1;

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::limits::CONTROL_FRAME_BYTES_MAX;

/// The versions of this language that this build speaks.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

/// First bytes of the opening: a peer that speaks something else altogether is told apart.
const MAGIC: &[u8; 4] = b"ERML";

/// A range of versions, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl VersionRange {
    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{} to {}", self.min, self.max)
        }
    }
}

/// Why bytes from a peer are no frame, or a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream ended or failed. The link was not opened.
    #[error("the connection broke while the link was being opened: {0}")]
    Io(#[from] std::io::Error),
    /// The peer's first bytes are not ours. The link was not opened.
    #[error("the other side does not speak the language of links (it began with {0:02x?})")]
    Magic([u8; 4]),
    /// No common version. The link was not opened.
    #[error("no common version of the link protocol: we speak {ours}, the other node speaks {theirs}")]
    Version {
        /// What this build speaks.
        ours: VersionRange,
        /// What the other node speaks.
        theirs: VersionRange,
    },
    /// A frame says that it is longer than the bound. Nothing of it was read.
    #[error("a frame of {0} bytes is longer than the allowed {max}", max = CONTROL_FRAME_BYTES_MAX)]
    Long(usize),
    /// The bytes are no frame of this version. Nothing was changed.
    #[error("not a frame of the link protocol: {0}")]
    Malformed(String),
}

impl From<bincode::error::DecodeError> for WireError {
    fn from(error: bincode::error::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Steps 1 and 2 for either side: says our range, hears theirs, answers with the common version.
///
/// # Errors
/// [`WireError::Version`] names both ranges; the stream is of no further use after any error.
pub async fn agree<S>(stream: &mut S, ours: VersionRange) -> Result<u16, WireError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&range_bytes(ours)).await?;
    stream.flush().await?;
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    let theirs = range_of(bytes)?;
    ours.common(theirs).ok_or(WireError::Version { ours, theirs })
}

/// Steps 3 and 4: one frame with its length before it.
///
/// # Errors
/// When the stream fails.
pub async fn put<S>(stream: &mut S, frame: &[u8]) -> Result<(), WireError>
where
    S: AsyncWrite + Unpin,
{
    let len = u32::try_from(frame.len()).map_err(|_| WireError::Long(frame.len()))?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(frame).await?;
    // TLS may hold back what is written.
    stream.flush().await?;
    Ok(())
}

/// Steps 3 and 4: reads one frame, at most [`CONTROL_FRAME_BYTES_MAX`] long.
///
/// # Errors
/// When the stream fails or ends, or the length is out of bounds.
pub async fn get<S>(stream: &mut S) -> Result<Vec<u8>, WireError>
where
    S: AsyncRead + Unpin,
{
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > CONTROL_FRAME_BYTES_MAX {
        return Err(WireError::Long(len));
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn range_bytes(range: VersionRange) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..6].copy_from_slice(&range.min.to_be_bytes());
    bytes[6..].copy_from_slice(&range.max.to_be_bytes());
    bytes
}

fn range_of(bytes: [u8; 8]) -> Result<VersionRange, WireError> {
    let [a, b, c, d, min_high, min_low, max_high, max_low] = bytes;
    if [a, b, c, d] != *MAGIC {
        return Err(WireError::Magic([a, b, c, d]));
    }
    Ok(VersionRange {
        min: u16::from_be_bytes([min_high, min_low]),
        max: u16::from_be_bytes([max_high, max_low]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen_or_none() {
        let range = |min, max| VersionRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 1)), Some(1));
        assert_eq!(range(1, 1).common(range(2, 2)), None);
    }

    #[test]
    fn the_bytes_of_a_range_are_frozen() {
        assert_eq!(range_bytes(VersionRange { min: 1, max: 2 }), *b"ERML\0\x01\0\x02");
        assert!(matches!(range_of(*b"GET / HT"), Err(WireError::Magic(_))));
    }

    #[tokio::test]
    async fn two_sides_agree_and_a_mismatch_names_both_versions() {
        let (mut a, mut b) = tokio::io::duplex(64);
        let (one, two) = tokio::join!(agree(&mut a, VERSIONS), agree(&mut b, VERSIONS));
        assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
        let (mut a, mut b) = tokio::io::duplex(64);
        let newer = VersionRange { min: 7, max: 9 };
        let (one, two) = tokio::join!(agree(&mut a, VERSIONS), agree(&mut b, newer));
        let (one, two) = (one.unwrap_err().to_string(), two.unwrap_err().to_string());
        assert!(
            one.contains("we speak 1,") && one.contains("speaks 7 to 9"),
            "{one}"
        );
        assert!(
            two.contains("we speak 7 to 9") && two.contains("speaks 1"),
            "{two}"
        );
    }

    #[tokio::test]
    async fn a_frame_longer_than_the_bound_is_refused_before_anything_is_reserved() {
        let (mut a, mut b) = tokio::io::duplex(64);
        a.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(matches!(get(&mut b).await, Err(WireError::Long(_))));
    }
}
