//! SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), for MQTT 5.0's enhanced authentication.
//!
//! ```text
//! client                                             server
//! CONNECT  n,,n=user,r=nonce                →
//!                    ← AUTH 0x18  r=nonce+ours,s=salt,i=iterations
//! AUTH 0x18  c=biws,r=nonce+ours,p=proof    →
//!                    ← CONNACK 0x00  v=signature
//! ```
//!
//! The password never crosses the wire and is not stored: a [`Verifier`] can only check. Channel binding is
//! not offered. Names and passwords are taken as they come; for ASCII, SASLprep changes nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The Authentication Method of MQTT 5.0.
pub const METHOD: &str = "SCRAM-SHA-256";

/// Rounds of PBKDF2 for new verifiers (RFC 7677 asks for 4096 at least; MongoDB has 15,000).
pub const ITERATIONS: u32 = 15_000;

/// Rounds that are accepted from a file.
const ITERATIONS_RANGE: std::ops::RangeInclusive<u32> = 4096..=10_000_000;

/// Longest message of a client, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

type Key = [u8; 32];

/// What the server keeps of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Key,
    server_key: Key,
}

/// Why an exchange ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScramError {
    /// Not a message of the protocol.
    #[error("not a SCRAM message")]
    Malformed,
    /// Channel binding, or an extension that must be understood.
    #[error("channel binding and extensions are not offered")]
    Unsupported,
    /// The proof is wrong, the user unknown, or it wants to act for another.
    #[error("the proof is wrong")]
    Refused,
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl Verifier {
    /// Derives a verifier from a password. Slow on purpose.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = zeroize::Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut *salted);
        let client_key = zeroize::Zeroizing::new(hmac(&*salted, &[b"Client Key"]));
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: Sha256::digest(*client_key).into(),
            server_key: hmac(&*salted, &[b"Server Key"]),
        }
    }

    /// A verifier for a user who does not exist: the same one each time, as long as `seed` stays the same,
    /// so that nobody can tell by asking. No password fits.
    #[must_use]
    pub fn decoy(seed: &[u8], username: &str) -> Self {
        let salt = hmac(seed, &[b"decoy salt", username.as_bytes()]);
        Self {
            salt: salt[..16].to_vec(),
            iterations: ITERATIONS,
            stored_key: hmac(seed, &[b"decoy key", username.as_bytes()]),
            server_key: hmac(seed, &[b"decoy server key", username.as_bytes()]),
        }
    }

    /// Reads what [`fmt::Display`] writes: `SCRAM-SHA-256$rounds:salt$stored key:server key`, as PostgreSQL
    /// has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (method, rounds, keys) = (parts.next()?, parts.next()?, parts.next()?);
        let (iterations, salt) = rounds.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| Key::try_from(BASE64.decode(text).ok()?).ok();
        let verifier = Self {
            salt: BASE64.decode(salt).ok().filter(|salt| salt.len() >= 12)?,
            iterations: iterations.parse().ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        };
        let good = method == METHOD && parts.next().is_none();
        (good && ITERATIONS_RANGE.contains(&verifier.iterations)).then_some(verifier)
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        write!(
            f,
            "{METHOD}${}:{}${}:{}",
            self.iterations,
            text(&self.salt),
            text(&self.stored_key),
            text(&self.server_key)
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// The client's first message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientFirst {
    /// Who it says it is.
    pub username: String,
    gs2_header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads it.
    ///
    /// # Errors
    /// [`ScramError::Malformed`], [`ScramError::Unsupported`], or [`ScramError::Refused`] if it wants to
    /// act for another user.
    pub fn parse(data: &[u8]) -> Result<Self, ScramError> {
        let text = utf8(data)?;
        let mut parts = text.splitn(3, ',');
        let mut next = || parts.next().ok_or(ScramError::Malformed);
        let (binding, acts_for, bare) = (next()?, next()?, next()?);
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(ScramError::Unsupported),
            _ => return Err(ScramError::Malformed),
        }
        if bare.starts_with("m=") {
            return Err(ScramError::Unsupported);
        }
        let mut attributes = bare.split(',');
        let username = attribute(attributes.next(), 'n').and_then(unescaped)?;
        let nonce = attribute(attributes.next(), 'r')?;
        if username.is_empty() || nonce.is_empty() || !printable(nonce) {
            return Err(ScramError::Malformed);
        }
        if !acts_for.is_empty() && unescaped(attribute(Some(acts_for), 'a')?)? != username {
            return Err(ScramError::Refused);
        }
        Ok(Self {
            username,
            gs2_header: format!("{binding},{acts_for},"),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }

    /// The server's first message. `known` tells whether `verifier` is a user's or a decoy; `random` is
    /// the server's part of the nonce, printable and without a comma.
    #[must_use]
    pub fn challenge(self, verifier: Verifier, known: bool, random: &str) -> (Exchange, Vec<u8>) {
        let nonce = format!("{}{random}", self.nonce);
        let salt = BASE64.encode(&verifier.salt);
        let challenge = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let exchange = Exchange {
            username: self.username,
            expected_binding: BASE64.encode(self.gs2_header),
            so_far: format!("{},{challenge}", self.bare),
            nonce,
            verifier,
            known,
        };
        (exchange, challenge.into_bytes())
    }
}

/// An exchange whose challenge has been sent.
#[derive(Clone, Debug)]
pub struct Exchange {
    username: String,
    expected_binding: String,
    so_far: String,
    nonce: String,
    verifier: Verifier,
    known: bool,
}

impl Exchange {
    /// Who wants to prove it.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Checks the client's last message; the answer proves to the client that this server knows it.
    ///
    /// # Errors
    /// [`ScramError`].
    pub fn finish(self, data: &[u8]) -> Result<Vec<u8>, ScramError> {
        let text = utf8(data)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), 'c')?;
        let nonce = attribute(attributes.next(), 'r')?;
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof = Key::try_from(proof).map_err(|_| ScramError::Malformed)?;
        if binding != self.expected_binding || nonce != self.nonce {
            return Err(ScramError::Refused);
        }
        let message = [self.so_far.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac(&self.verifier.stored_key, &message);
        let client_key: Key = std::array::from_fn(|n| proof[n] ^ signature[n]);
        let fits = Sha256::digest(client_key).ct_eq(&self.verifier.stored_key);
        if !(bool::from(fits) && self.known) {
            return Err(ScramError::Refused);
        }
        let signature = hmac(&self.verifier.server_key, &message);
        Ok(format!("v={}", BASE64.encode(signature)).into_bytes())
    }
}

fn utf8(data: &[u8]) -> Result<&str, ScramError> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(data).map_err(|_| ScramError::Malformed)
}

fn attribute(part: Option<&str>, name: char) -> Result<&str, ScramError> {
    part.and_then(|part| part.strip_prefix(name)?.strip_prefix('='))
        .ok_or(ScramError::Malformed)
}

fn printable(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// `=2C` is a comma and `=3D` an equals sign; no other `=` may stand in a name.
fn unescaped(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(rest) = part.strip_prefix("2C") {
            plain.push(',');
            plain.push_str(rest);
        } else if let Some(rest) = part.strip_prefix("3D") {
            plain.push('=');
            plain.push_str(rest);
        } else {
            return Err(ScramError::Malformed);
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
