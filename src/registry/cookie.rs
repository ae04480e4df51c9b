//! The cookie: the secret that makes nodes a cluster. Rules of Erlang's `auth.erl`, sharpened.
//!
//! A cookie is found in this order: `--cookie-file`, the *text* in `ERMINE_COOKIE`, `~/.ermine.cookie`.
//! A file must be readable by its owner only. A symbolic link is followed and its target held to the
//! same rules, because mounted secrets are links; whoever can plant a link in that directory could
//! plant a cookie too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

mod file;

/// The environment variable that holds a cookie's text.
pub const COOKIE_VARIABLE: &str = "ERMINE_COOKIE";

/// The cookie file in the home directory.
pub const COOKIE_FILE_NAME: &str = ".ermine.cookie";

/// Shortest cookie in bytes. A proof of a shorter one could be turned into the cookie by guessing.
pub const COOKIE_BYTES_MIN: usize = 16;

/// Longest cookie in bytes; beyond it the file is surely something else.
pub const COOKIE_BYTES_MAX: usize = 4096;

/// Random bytes in a cookie that we make: 256 bits, written as hex.
const COOKIE_RANDOM_BYTES: usize = 32;

/// A cookie. Its bytes are wiped when the last clone is dropped; no formatting shows them.
#[derive(Clone)]
pub struct Cookie(Arc<Zeroizing<Vec<u8>>>);

/// What may be shown of a cookie to the operator of this host: 32 bits of a domain-separated hash.
/// Never sent (docs/PROTOCOL.md, "A mismatch on both sides").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 4]);

/// Why there is no cookie. Each is one sentence with its remedy; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// The file does not exist.
    #[error(
        "there is no cookie file {0}: `ermine start` makes one, or copy it from another host of the cluster"
    )]
    Missing(PathBuf),
    /// It could not be read.
    #[error("cookie file {path} cannot be read ({cause}): run this as the user who owns the file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// It could not be made.
    #[error("cookie file {path} cannot be created ({cause}): choose another place with --cookie-file")]
    Uncreatable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// A directory, fifo, socket or device.
    #[error(
        "cookie file {path} is {kind}, not a regular file: remove it or choose another with --cookie-file"
    )]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// Group or others may read, write or execute it.
    #[error(
        "cookie file {path} is accessible by others than its owner (mode {mode:04o}): run `chmod 400 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing in it.
    #[error("cookie {0} is empty: remove it and a new one is made at the next start, or copy the cluster's")]
    Empty(String),
    /// Fewer than [`COOKIE_BYTES_MIN`] bytes.
    #[error(
        "cookie {place} has {len} bytes and is too short to be a secret: use at least {COOKIE_BYTES_MIN}"
    )]
    Short {
        /// File or variable.
        place: String,
        /// Its length in bytes.
        len: usize,
    },
    /// More than [`COOKIE_BYTES_MAX`] bytes.
    #[error("cookie {0} is longer than {COOKIE_BYTES_MAX} bytes and hardly a cookie: check what it holds")]
    Long(String),
    /// A character that is not printable ASCII.
    #[error("cookie {0} holds a character that is not printable ASCII: write it anew as one line of text")]
    Unprintable(String),
    /// Neither flag, variable nor home directory.
    #[error("there is no place for a cookie: set --cookie-file, {COOKIE_VARIABLE} or HOME")]
    Nowhere,
    /// It could not be replaced by a new cookie; the old file stands.
    #[error("cookie file {path} cannot be rewritten ({cause}): write the new cookie there yourself")]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The system gave no random bytes.
    #[error("no cookie could be made because the system's random source failed ({0}): try again")]
    NoRandom(String),
}

impl Cookie {
    /// Reads the cookie file; refuses what a secret must not be.
    ///
    /// # Errors
    /// Every variant of [`CookieError`] that speaks of a file, [`CookieError::Missing`] included.
    pub fn load(path: &Path) -> Result<Self, CookieError> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => CookieError::Missing(path.into()),
            _ => CookieError::Unreadable {
                path: path.into(),
                cause: error.to_string(),
            },
        };
        // Looked at before it is opened, because opening a fifo would wait for its writer.
        file::check_kind(path, &fs::metadata(path).map_err(unreadable)?)?;
        let open = File::open(path).map_err(unreadable)?;
        let metadata = open.metadata().map_err(unreadable)?;
        file::check_kind(path, &metadata)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CookieError::Exposed {
                path: path.into(),
                mode,
            });
        }
        // Reserved at once: a growing buffer would leave pieces of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(COOKIE_BYTES_MAX + 3));
        open.take(COOKIE_BYTES_MAX as u64 + 3)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        Self::new(bytes, || path.display().to_string())
    }

    /// [`Cookie::load`]; if there is no such file yet, makes one with 256 random bits and mode 0400.
    ///
    /// Two nodes that start at once end with the same cookie: the file appears whole or not at all.
    ///
    /// # Errors
    /// As [`Cookie::load`], and [`CookieError::Uncreatable`], [`CookieError::NoRandom`].
    pub fn load_or_create(path: &Path) -> Result<Self, CookieError> {
        match Self::load(path) {
            Err(CookieError::Missing(_)) => {
                file::create(path)?;
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    /// A new cookie of 256 random bits, as hex.
    ///
    /// # Errors
    /// [`CookieError::NoRandom`].
    pub fn random() -> Result<Self, CookieError> {
        let mut random = Zeroizing::new([0; COOKIE_RANDOM_BYTES]);
        getrandom::fill(&mut *random).map_err(|error| CookieError::NoRandom(error.to_string()))?;
        // Reserved at once, as in `load`.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * COOKIE_RANDOM_BYTES));
        for byte in random.iter() {
            text.extend([byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)]));
        }
        Ok(Self(Arc::new(text)))
    }

    /// A cookie from the text of `ERMINE_COOKIE`.
    ///
    /// # Errors
    /// [`CookieError::Empty`], [`CookieError::Short`], [`CookieError::Long`], [`CookieError::Unprintable`].
    pub fn from_text(text: &str) -> Result<Self, CookieError> {
        Self::new(Zeroizing::new(text.as_bytes().to_vec()), || {
            format!("in {COOKIE_VARIABLE}")
        })
    }

    pub(super) fn new(
        mut bytes: Zeroizing<Vec<u8>>,
        place: impl Fn() -> String,
    ) -> Result<Self, CookieError> {
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        match bytes.len() {
            0 => return Err(CookieError::Empty(place())),
            len if len > COOKIE_BYTES_MAX => return Err(CookieError::Long(place())),
            _ => (),
        }
        if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err(CookieError::Unprintable(place()));
        }
        if bytes.len() < COOKIE_BYTES_MIN {
            return Err(CookieError::Short {
                place: place(),
                len: bytes.len(),
            });
        }
        Ok(Self(Arc::new(bytes)))
    }

    /// Whether [`Cookie::replace`] would find a folder that it may write to; if the file holds this cookie
    /// already, it need not.
    ///
    /// # Errors
    /// [`CookieError::Unwritable`].
    pub fn replaceable(&self, path: &Path) -> Result<(), CookieError> {
        file::replaceable(self, path)
    }

    /// Writes this cookie into the file in place of the one that is there: whole or not at all, mode 0600.
    /// A file that holds it already is left alone: nodes of one host may share it.
    ///
    /// # Errors
    /// [`CookieError::Unwritable`], [`CookieError::NoRandom`]; the old file stands.
    pub fn replace(&self, path: &Path) -> Result<(), CookieError> {
        file::replace(self, path)
    }

    /// What the operator may compare with the fingerprint on another host.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut short = [0; 4];
        self.derive(&[b"ermine cookie fingerprint"], &mut short);
        Fingerprint(short)
    }

    /// Whether two cookies are one; in constant time, unless their lengths differ.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }

    /// The text for those few that write or seal it.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A key for one purpose and role: HKDF-SHA256 of the cookie under `info`.
    pub(super) fn derive(&self, info: &[&[u8]], key: &mut [u8]) {
        Hkdf::<Sha256>::new(Some(b"ermine cookie v1"), &self.0)
            .expand_multi_info(info, key)
            .expect("HKDF-SHA256 gives up to 8160 bytes and we ask for 32 at most");
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cookie({})", self.fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where this node's cookie comes from. `Display` names the place, never the content.
#[derive(Clone)]
pub enum CookieSource {
    /// A file.
    File(PathBuf),
    /// The text of `ERMINE_COOKIE`.
    Environment(Zeroizing<String>),
}

impl CookieSource {
    /// The first of: the file of `--cookie-file`, the text of `ERMINE_COOKIE`, `~/.ermine.cookie`.
    ///
    /// # Errors
    /// [`CookieError::Nowhere`] when none of the three is given.
    pub fn find(
        flag: Option<PathBuf>,
        variable: Option<String>,
        home: Option<PathBuf>,
    ) -> Result<Self, CookieError> {
        let mut variable = variable;
        if let Some(path) = flag {
            variable.zeroize();
            return Ok(Self::File(path));
        }
        if let Some(text) = variable {
            return Ok(Self::Environment(Zeroizing::new(text)));
        }
        home.map(|home| Self::File(home.join(COOKIE_FILE_NAME)))
            .ok_or(CookieError::Nowhere)
    }

    /// For a node: makes the file where there is none.
    ///
    /// # Errors
    /// As [`Cookie::load_or_create`] and [`Cookie::from_text`].
    pub fn load_or_create(&self) -> Result<Cookie, CookieError> {
        match self {
            Self::File(path) => Cookie::load_or_create(path),
            Self::Environment(text) => Cookie::from_text(text),
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Environment(_) => None,
        }
    }

    /// For a command, which never makes a cookie: a new one would only be the wrong one.
    ///
    /// # Errors
    /// As [`Cookie::load`] and [`Cookie::from_text`].
    pub fn load(&self) -> Result<Cookie, CookieError> {
        match self {
            Self::File(path) => Cookie::load(path),
            Self::Environment(text) => Cookie::from_text(text),
        }
    }
}

impl fmt::Display for CookieSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Environment(_) => f.write_str(COOKIE_VARIABLE),
        }
    }
}

impl fmt::Debug for CookieSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CookieSource({self})")
    }
}

#[cfg(test)]
mod tests;
