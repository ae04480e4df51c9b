//! The bearer token of the HTTP API: 256 random bits in a file that only its owner may read.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Name of the file in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// Shortest token that is taken, in characters: who writes the file by hand must not weaken it.
const TOKEN_LEN_MIN: usize = 32;

/// Longest token that is read.
const TOKEN_LEN_MAX: usize = 1024;

/// The secret that whoever calls the API must show. Never printed but by [`Token::expose`].
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads the token's file, or makes it with mode 0600.
    ///
    /// # Errors
    /// One sentence if the file cannot be read or made, may be read by others, or holds no token.
    pub fn load_or_create(path: &Path) -> Result<Self, String> {
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        match made {
            Ok(mut file) => {
                let token = Self::random()?;
                let line = Zeroizing::new(format!("{}\n", *token.0));
                let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
                written.map_err(|error| format!("cannot write the token {}: {error}", path.display()))?;
                Ok(token)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(format!("cannot make the token {}: {error}", path.display())),
        }
    }

    fn load(path: &Path) -> Result<Self, String> {
        let place = path.display();
        let unreadable = |error: std::io::Error| format!("cannot read the token {place}: {error}");
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "others may read the token {place} (mode {:03o}): chmod 600 {place}",
                mode & 0o777
            ));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(TOKEN_LEN_MAX as u64 + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        Self::from_text(&text)
            .ok_or_else(|| format!("{place} holds no token: remove it, and the node makes a new one"))
    }

    /// The token of a line; `None` unless it is a word of fitting length.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let word = text.trim();
        let fits = (TOKEN_LEN_MIN..=TOKEN_LEN_MAX).contains(&word.len());
        let plain = word.bytes().all(|byte| byte.is_ascii_graphic());
        (fits && plain).then(|| Self(Zeroizing::new(word.to_owned())))
    }

    fn random() -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *bytes).map_err(|error| format!("the system gave no random bytes: {error}"))?;
        Ok(Self(Zeroizing::new(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        )))
    }

    /// Whether `shown` is the token. Takes the same time whatever is wrong with it.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        // Of hashes, which are of one length whatever was shown.
        let (ours, theirs) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(shown));
        ours.ct_eq(&theirs).into()
    }

    /// The secret itself, for the operator who asks for it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TOKEN_FILE);
        let made = Token::load_or_create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(made.expose().len(), 64);
        let again = Token::load_or_create(&path).unwrap();
        assert!(again.is(made.expose().as_bytes()));
        assert!(!again.is(b"") && !again.is(&made.expose().as_bytes()[1..]));
        assert!(!format!("{made:?}").contains(made.expose()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(Token::load_or_create(&path).unwrap_err().contains("chmod 600"));
    }

    #[test]
    fn a_short_or_strange_word_is_no_token() {
        for text in [
            "",
            "\n",
            "short",
            &"x ".repeat(40),
            &"ü".repeat(40),
            &"x".repeat(2000),
        ] {
            assert!(Token::from_text(text).is_none(), "{text:?}");
        }
        assert!(Token::from_text(&format!("{}\n", "x".repeat(32))).is_some());
    }
}
