//! A new cookie on its way, under a cookie that both sides hold: docs/PROTOCOL.md, "Rotation".
//!
//! ChaCha20-Poly1305 (RFC 8439) of `ring`, which TLS brings along. Its key is HKDF-SHA256 of the shared
//! cookie and a fresh salt of 256 bits, so it is used for one message only and its nonce may be fixed: no
//! nonce can be used twice, which is where such ciphers break.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::registry::cookie::{COOKIE_BYTES_MAX, Cookie, CookieError};

/// Bytes of salt: as many as of key.
const SALT_BYTES: usize = 32;

/// A cookie that only who holds another one can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    salt: [u8; SALT_BYTES],
    /// Ciphertext and tag.
    bytes: Vec<u8>,
}

/// What a sealed cookie is for: opened for anything else it is refused.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// `control` or `link`.
    pub purpose: &'a str,
    /// Who sealed it; empty for a command.
    pub from: &'a str,
    /// For whom.
    pub to: &'a str,
    /// What else must not be changed on the way.
    pub numbers: [u64; 2],
}

impl About<'_> {
    /// The associated data: each text preceded by its length.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in [self.purpose, self.from, self.to] {
            bytes.extend((text.len() as u64).to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.numbers.iter().flat_map(|number| number.to_be_bytes()));
        bytes
    }
}

impl Sealed {
    /// Seals `secret` under `shared`.
    ///
    /// # Errors
    /// [`CookieError::NoRandom`].
    pub fn new(shared: &Cookie, secret: &Cookie, about: About<'_>) -> Result<Self, CookieError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| CookieError::NoRandom(error.to_string()))?;
        // Reserved at once: a growing buffer would leave the secret behind.
        let text = secret.expose();
        let mut bytes = Vec::with_capacity(text.len() + CHACHA20_POLY1305.tag_len());
        bytes.extend_from_slice(text);
        key(shared, &salt)
            .seal_in_place_append_tag(nonce(), Aad::from(about.bytes()), &mut bytes)
            .expect("a cookie is far shorter than what the cipher takes at most");
        Ok(Self { salt, bytes })
    }

    /// Opens it with the first of these that fits. `None`: none does, it was changed on its way, or it was
    /// meant for something else.
    #[must_use]
    pub fn open<'a>(&self, shared: impl IntoIterator<Item = &'a Cookie>, about: About<'_>) -> Option<Cookie> {
        if self.bytes.len() > COOKIE_BYTES_MAX + CHACHA20_POLY1305.tag_len() {
            return None;
        }
        let about = about.bytes();
        shared.into_iter().find_map(|shared| {
            let mut bytes = Zeroizing::new(self.bytes.clone());
            let opened = key(shared, &self.salt).open_in_place(nonce(), Aad::from(&about), &mut bytes);
            let len = opened.ok()?.len();
            bytes.truncate(len);
            Cookie::new(bytes, String::new).ok()
        })
    }
}

fn key(shared: &Cookie, salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let mut key = Zeroizing::new([0; 32]);
    shared.derive(&[b"ermine cookie rotation", salt], &mut *key);
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("the key has the cipher's 32 bytes"))
}

/// The key is used once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About {
        purpose: "link",
        from: "n1@h",
        to: "n2@h",
        numbers: [7, 3600],
    };

    fn cookie(text: &str) -> Cookie {
        Cookie::from_text(text).unwrap()
    }

    #[test]
    fn who_holds_the_shared_cookie_opens_it_and_nobody_else() {
        let (old, new) = (cookie("the-old-cookie-of-all"), cookie("the-new-cookie-of-all"));
        let sealed = Sealed::new(&old, &new, ABOUT).unwrap();
        let stranger = cookie("the-cookie-of-another");
        assert!(sealed.open([&stranger, &old], ABOUT).unwrap().is_same_as(&new));
        assert!(sealed.open([&stranger, &new], ABOUT).is_none());
        let shown = format!("{sealed:?}{}", String::from_utf8_lossy(&sealed.bytes));
        assert!(!shown.contains("the-new"), "{shown}");
        let again = Sealed::new(&old, &new, ABOUT).unwrap();
        assert_ne!(sealed.bytes, again.bytes, "the same cookie never looks the same");
    }

    #[test]
    fn what_was_changed_or_meant_for_something_else_is_not_opened() {
        let (old, new) = (cookie("the-old-cookie-of-all"), cookie("the-new-cookie-of-all"));
        let sealed = Sealed::new(&old, &new, ABOUT).unwrap();
        let others = [
            About {
                purpose: "control",
                ..ABOUT
            },
            About {
                from: "n3@h",
                ..ABOUT
            },
            About { to: "n3@h", ..ABOUT },
            About {
                from: "n1@hn",
                to: "2@h",
                ..ABOUT
            },
            About {
                numbers: [8, 3600],
                ..ABOUT
            },
            About {
                numbers: [7, 3601],
                ..ABOUT
            },
        ];
        for about in others {
            assert!(sealed.open([&old], about).is_none(), "{about:?}");
        }
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(changed.open([&old], ABOUT).is_none(), "byte {at}");
        }
        for at in 0..SALT_BYTES {
            let mut changed = sealed.clone();
            changed.salt[at] ^= 1;
            assert!(changed.open([&old], ABOUT).is_none(), "salt {at}");
        }
        let mut cut = sealed.clone();
        cut.bytes.truncate(3);
        assert!(cut.open([&old], ABOUT).is_none());
    }

    #[test]
    fn what_is_inside_must_be_a_cookie() {
        let old = cookie("the-old-cookie-of-all");
        let mut sealed = Sealed::new(&old, &old, ABOUT).unwrap();
        sealed.bytes = b"short".to_vec();
        key(&old, &sealed.salt)
            .seal_in_place_append_tag(nonce(), Aad::from(ABOUT.bytes()), &mut sealed.bytes)
            .unwrap();
        assert!(sealed.open([&old], ABOUT).is_none());
    }
}
