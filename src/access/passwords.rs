//! The password file: one line per user, `user:1:<argon2id>:<SCRAM>`.
//!
//! ```text
//! # made by `ermine passwd`
//! alice:1:$argon2id$v=19$m=19456,t=2,p=1$…$…:SCRAM-SHA-256$15000:…$…:…
//! ```
//!
//! `1` is the version of the line. The first verifier is a PHC string that a CONNECT with a password is
//! checked against, the second one (it may be missing, with its colon) serves MQTT 5.0's enhanced
//! authentication. A line `user:$argon2id$…`, as mosquitto 2.1 writes it, is read too. Everything weaker
//! is refused when the file is read, plain passwords first of all. Lines that are empty or begin with `#`
//! are kept as they are.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, AHashSet};
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::scram::{self, Verifier};
use crate::limits::PASSWORDS_REMEMBERED_MAX;

/// Longest user name in bytes.
pub const USERNAME_BYTES_MAX: usize = 256;

/// Longest password in bytes; MQTT itself allows 65,535.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Memory in KiB that a hash of the file must take at least, and may take at most. The minimum is
/// OWASP's smallest configuration; the maximum keeps a file from using up the node.
const MEMORY_KIB: std::ops::RangeInclusive<u32> = 7 * 1024..=256 * 1024;

/// Passes over that memory.
const PASSES: std::ops::RangeInclusive<u32> = 1..=16;

/// Random bytes for one line.
#[derive(Clone, Copy)]
pub struct Salts {
    /// Of argon2id.
    pub argon2: [u8; 16],
    /// Of SCRAM.
    pub scram: [u8; 16],
}

/// The users and what their passwords are checked against.
#[derive(Clone)]
pub struct Passwords {
    users: AHashMap<String, Entry>,
    /// What an unknown user's password is checked against, so that it takes as long.
    decoy: String,
    /// Makes the decoys of unknown users; as secret as the file.
    seed: [u8; 32],
    /// Passwords that were right, if they are to be remembered.
    memory: Option<Memory>,
}

/// Which passwords were right: argon2 is computed once for each, not at each CONNECT. What is kept is an HMAC
/// under a key of this process, which is as long in memory as the file's content is; a file that is read anew
/// begins with an empty memory.
///
/// Bounded without looking for the oldest: when one half is full it becomes the other, which is forgotten.
#[derive(Clone)]
struct Memory {
    key: [u8; 32],
    halves: Arc<Mutex<[AHashSet<[u8; 16]>; 2]>>,
}

impl Memory {
    fn mac(&self, username: &str, password: &[u8]) -> [u8; 16] {
        // A key of any length is one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes every key");
        mac.update(&(username.len() as u64).to_be_bytes());
        mac.update(username.as_bytes());
        mac.update(password);
        let mut short = [0; 16];
        short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        short
    }

    fn halves(&self) -> MutexGuard<'_, [AHashSet<[u8; 16]>; 2]> {
        // Whole after every statement.
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, username: &str, password: &[u8]) -> bool {
        let mac = self.mac(username, password);
        self.halves().iter().any(|half| half.contains(&mac))
    }

    fn put(&self, username: &str, password: &[u8]) {
        let mac = self.mac(username, password);
        let mut halves = self.halves();
        if halves[0].len() >= PASSWORDS_REMEMBERED_MAX / 2 {
            halves.swap(0, 1);
            halves[0] = AHashSet::new();
        }
        halves[0].insert(mac);
    }
}

#[derive(Clone)]
struct Entry {
    phc: String,
    scram: Option<Verifier>,
}

/// What came of a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// The user's password.
    Right,
    /// Another one.
    Wrong,
    /// There is no such user. It took as long to find out.
    Unknown,
}

/// What is wrong with a line of a password file. Says nothing of what stands in it but the user.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PasswordsError {
    /// Counted from 1.
    pub line: usize,
    /// In half a sentence.
    pub what: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passwords({} users)", self.users.len())
    }
}

impl Passwords {
    /// Reads the text of a password file.
    ///
    /// # Errors
    /// The first line that is not understood or not safe.
    pub fn parse(text: &str) -> Result<Self, PasswordsError> {
        let mut users = AHashMap::new();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: String| PasswordsError {
                line: index + 1,
                what,
            };
            if !is_entry(line) {
                continue;
            }
            let (user, entry) = entry(line).map_err(wrong)?;
            if users.insert(user.to_owned(), entry).is_some() {
                return Err(wrong(format!("user {user} has a line already")));
            }
        }
        // Whatever the users' hashes cost is what an unknown user costs.
        let salt = b"nobody's password";
        let params = users.values().next().and_then(|entry: &Entry| {
            let hash = PasswordHash::new(&entry.phc).ok()?;
            Params::try_from(&hash).ok()
        });
        let decoy = argon2id(
            params.unwrap_or_default(),
            b"nobody has this password",
            &salt[..16],
        );
        Ok(Self {
            users,
            decoy: decoy.map_err(|what| PasswordsError { line: 0, what })?,
            seed: Sha256::digest(text).into(),
            memory: None,
        })
    }

    /// The same users; passwords that were right are remembered from now on, under a key that nobody else
    /// has.
    #[must_use]
    pub fn remembering(mut self, key: [u8; 32]) -> Self {
        let halves = Arc::default();
        self.memory = Some(Memory { key, halves });
        self
    }

    /// Whether this password of this user was right before. Takes a microsecond.
    #[must_use]
    pub fn recalls(&self, username: &str, password: &[u8]) -> bool {
        let memory = self.memory.as_ref();
        password.len() <= PASSWORD_BYTES_MAX && memory.is_some_and(|memory| memory.has(username, password))
    }

    /// Checks a password. Slow on purpose: about 20 ms and 19 MiB with the parameters of [`line()`].
    #[must_use]
    pub fn check(&self, username: &str, password: &[u8]) -> Check {
        let entry = self.users.get(username);
        let phc = entry.map_or(&self.decoy, |entry| &entry.phc);
        let fits = password.len() <= PASSWORD_BYTES_MAX
            && PasswordHash::new(phc)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
        match (entry, fits) {
            (None, _) => Check::Unknown,
            (Some(_), true) => {
                if let Some(memory) = &self.memory {
                    memory.put(username, password);
                }
                Check::Right
            }
            (Some(_), false) => Check::Wrong,
        }
    }

    /// The SCRAM verifier of a user, and whether there is one; else a decoy.
    #[must_use]
    pub fn scram(&self, username: &str) -> (Verifier, bool) {
        match self.users.get(username).and_then(|entry| entry.scram.clone()) {
            Some(verifier) => (verifier, true),
            None => (Verifier::decoy(&self.seed, username), false),
        }
    }

    /// How many users there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// The line for a user; without a SCRAM verifier if `scram` is false. Slow on purpose.
///
/// # Errors
/// Half a sentence: the name or the password cannot be used.
pub fn line(username: &str, password: &[u8], salts: &Salts, scram: bool) -> Result<String, String> {
    check_username(username)?;
    match password.len() {
        0 => return Err("the password is empty".into()),
        len if len > PASSWORD_BYTES_MAX => {
            return Err(format!("the password is longer than {PASSWORD_BYTES_MAX} bytes"));
        }
        _ => {}
    }
    let phc = argon2id(Params::default(), password, &salts.argon2)?;
    let scram = if scram {
        Verifier::derive(password, &salts.scram, scram::ITERATIONS).to_string()
    } else {
        String::new()
    };
    Ok(format!("{username}:1:{phc}:{scram}"))
}

/// Whether a name can stand in the file.
///
/// # Errors
/// Half a sentence.
pub fn check_username(username: &str) -> Result<(), String> {
    if username.is_empty() || username.len() > USERNAME_BYTES_MAX {
        return Err(format!("a user name has 1 to {USERNAME_BYTES_MAX} bytes"));
    }
    if username.contains(':') || username.chars().any(char::is_control) {
        return Err("a user name has no colon and no control characters".into());
    }
    if username.starts_with('#') || username.trim() != username {
        return Err("a user name does not begin with # nor begin or end with a space".into());
    }
    Ok(())
}

/// The text of a file with the line of a user put in its place, added at the end, or (`None`) removed.
/// `None` is returned if it had no line to remove.
#[must_use]
pub fn edited(text: &str, username: &str, line: Option<&str>) -> Option<String> {
    let is_theirs = |present: &str| {
        is_entry(present) && present.split_once(':').is_some_and(|(user, _)| user == username)
    };
    let mut lines: Vec<&str> = text.lines().collect();
    match (lines.iter().position(|present| is_theirs(present)), line) {
        (Some(at), Some(line)) => lines[at] = line,
        (Some(at), None) => drop(lines.remove(at)),
        (None, Some(line)) => lines.push(line),
        (None, None) => return None,
    }
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    Some(text)
}

fn is_entry(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

fn argon2id(params: Params, password: &[u8], salt: &[u8]) -> Result<String, String> {
    let salt = SaltString::encode_b64(salt).map_err(|error| error.to_string())?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = hash
        .hash_password(password, &salt)
        .map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

fn entry(line: &str) -> Result<(&str, Entry), String> {
    let again = |user: &str| format!("set it again with `ermine passwd FILE {user}`");
    let Some((user, rest)) = line.trim_end().split_once(':') else {
        return Err("not `user:1:…`; lines are made by `ermine passwd FILE USER`".into());
    };
    check_username(user)?;
    let (phc, scram) = match rest.split_once(':') {
        Some(("1", verifiers)) => {
            let (phc, scram) = verifiers.split_once(':').unwrap_or((verifiers, ""));
            (phc, scram)
        }
        _ if rest.starts_with("$argon2id$") => (rest, ""),
        _ if ["$5$", "$6$", "$7$"].iter().any(|old| rest.starts_with(old)) => {
            let again = again(user);
            return Err(format!("user {user} has a hash of an older mosquitto; {again}"));
        }
        Some((version, _)) if version.parse::<u32>().is_ok() => {
            let version = version.escape_debug();
            return Err(format!(
                "user {user} has a line of version {version}; this program knows 1"
            ));
        }
        _ => return Err(format!("user {user} has no argon2id hash; {}", again(user))),
    };
    check_hash(phc).map_err(|what| format!("user {user} {what}; {}", again(user)))?;
    let scram = match scram {
        "" => None,
        text => Some(
            Verifier::parse(text)
                .ok_or_else(|| format!("user {user} has a broken SCRAM verifier; {}", again(user)))?,
        ),
    };
    let phc = phc.to_owned();
    Ok((user, Entry { phc, scram }))
}

/// Whether a hash is one that can be checked, safe, and not too dear.
fn check_hash(phc: &str) -> Result<(), String> {
    let hash = PasswordHash::new(phc).map_err(|_| "has a broken hash".to_owned())?;
    if hash.algorithm != argon2::ARGON2ID_IDENT {
        return Err("has a hash that is not argon2id".into());
    }
    let params = Params::try_from(&hash).map_err(|_| "has a broken hash".to_owned())?;
    let whole = hash.salt.is_some() && hash.hash.is_some_and(|output| output.len() >= 16);
    if !whole {
        return Err("has a broken hash".into());
    }
    if !MEMORY_KIB.contains(&params.m_cost()) || !PASSES.contains(&params.t_cost()) || params.p_cost() > 16 {
        return Err(format!(
            "has a hash with m={},t={},p={}; m must be {} to {}, t {} to {}, p at most 16",
            params.m_cost(),
            params.t_cost(),
            params.p_cost(),
            MEMORY_KIB.start(),
            MEMORY_KIB.end(),
            PASSES.start(),
            PASSES.end(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
