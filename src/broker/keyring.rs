//! The keyring: the operator's files and keys about who may come in, and what may be decided with them at
//! once. It belongs to the node and outlives `core`; every arbiter reads it without a lock.
//!
//! A reload replaces a file's content as a whole, for everybody at the same moment. A file that cannot be
//! read leaves what was there before, and says so.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;

use crate::access::acl::Acl;
use crate::access::attempts::Attempts;
use crate::access::hook::Url;
use crate::access::identity::{Credentials, Denial, Identity, Method};
use crate::access::jwt::{Jwt, JwtError};
use crate::access::passwords::Passwords;
use crate::access::rights::Rights;
use crate::access::scram::{ClientFirst, Exchange, ScramError};
use crate::access::settings::{JwtSettings, Settings};
use crate::limits::ACCESS_FILE_BYTES_MAX;

/// Key of failures that are about no user.
const NOBODY: &str = "";

/// See the head of this file.
#[derive(Debug)]
pub struct Keyring {
    chain: Vec<Method>,
    password_file: Option<PathBuf>,
    passwords: ArcSwapOption<Passwords>,
    acl_file: Option<PathBuf>,
    acl: ArcSwapOption<Acl>,
    jwt: Option<Jwt>,
    hook: Option<Hook>,
    attempts: Mutex<Attempts>,
}

/// An HTTP server that decides.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) url: Url,
    pub(super) within: Duration,
}

/// How far the chain decides without slow work.
#[derive(Debug)]
pub(super) enum Step {
    Decided(Result<Identity, Denial>),
    /// The password file is to be asked; the chain goes on at this link.
    Passwords(usize),
    /// A token is to be checked.
    Token(usize),
    /// The HTTP server is to be asked.
    Hook(usize),
}

impl Default for Keyring {
    /// Everybody may do everything: no file, no key. Listeners decide about anonymous clients.
    fn default() -> Self {
        Self {
            chain: Settings::default().chain,
            password_file: None,
            passwords: ArcSwapOption::empty(),
            acl_file: None,
            acl: ArcSwapOption::empty(),
            jwt: None,
            hook: None,
            attempts: Mutex::new(Attempts::new(0)),
        }
    }
}

impl Keyring {
    /// Reads every file that the settings name.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let passwords = settings
            .password_file
            .as_deref()
            .map(read_passwords)
            .transpose()?;
        let acl = settings.acl_file.as_deref().map(read_acl).transpose()?;
        let jwt = settings.jwt.as_ref().map(read_jwt).transpose()?;
        let hook = settings.http.as_ref().map(|http| Hook {
            url: http.url.clone(),
            within: http.within,
        });
        Ok(Self {
            chain: settings.chain.clone(),
            password_file: settings.password_file.clone(),
            passwords: ArcSwapOption::new(passwords.map(Arc::new)),
            acl_file: settings.acl_file.clone(),
            acl: ArcSwapOption::new(acl.map(Arc::new)),
            jwt,
            hook,
            attempts: Mutex::new(Attempts::new(settings.failures_max)),
        })
    }

    /// Reads the password file and the ACL file again; clients stay connected, sessions see new rules with
    /// their next packet. Blocks while it reads. One sentence for each file, `Err` where the content of
    /// before stays.
    pub fn reload(&self) -> Vec<Result<String, String>> {
        let mut said = Vec::new();
        if let Some(path) = &self.password_file {
            said.push(match read_passwords(path) {
                Ok(passwords) => {
                    let sentence = format!("{}: {} users", path.display(), passwords.len());
                    self.passwords.store(Some(Arc::new(passwords)));
                    Ok(sentence)
                }
                Err(what) => Err(format!("{what}; the passwords of before stay")),
            });
        }
        if let Some(path) = &self.acl_file {
            said.push(match read_acl(path) {
                Ok(acl) => {
                    let sentence = format!("{}: {} rules", path.display(), acl.len());
                    self.acl.store(Some(Arc::new(acl)));
                    Ok(sentence)
                }
                Err(what) => Err(format!("{what}; the rules of before stay")),
            });
        }
        said
    }

    /// The rights of a client; `None` if no rule binds it.
    #[must_use]
    pub fn rights(&self, identity: &Identity, client_id: &str) -> Option<Box<Rights>> {
        Rights::of(identity, client_id, self.acl.load_full())
    }

    /// Gives a session the rules of the last reload, if it has others.
    pub fn renew(&self, rights: &mut Rights) {
        if let Some(acl) = &*self.acl.load() {
            rights.renew(acl);
        }
    }

    /// Follows the chain from one link on, up to the next that takes time.
    pub(super) fn follow(&self, from: usize, credentials: &Credentials) -> Step {
        let brought = credentials.username.is_some() || credentials.password.is_some();
        for (index, method) in self.chain.iter().enumerate().skip(from) {
            match method {
                Method::Certificate => {
                    if let Some(name) = &credentials.certificate_name {
                        return Step::Decided(Ok(Identity::user(name.as_str().into())));
                    }
                }
                // A name that nobody here could check is as good as none.
                Method::Anonymous if credentials.allow_anonymous && !(brought && self.checks()) => {
                    return Step::Decided(Ok(Identity::default()));
                }
                Method::PasswordFile if credentials.username.is_some() => {
                    return Step::Passwords(index + 1);
                }
                Method::Jwt if credentials.password.is_some() => return Step::Token(index + 1),
                Method::Http => return Step::Hook(index + 1),
                Method::Anonymous | Method::PasswordFile | Method::Jwt => {}
            }
        }
        Step::Decided(Err(if brought {
            Denial::WrongCredentials
        } else {
            Denial::NotAuthorized
        }))
    }

    fn checks(&self) -> bool {
        let checks = [Method::PasswordFile, Method::Jwt, Method::Http];
        self.chain.iter().any(|method| checks.contains(method))
    }

    pub(super) fn passwords(&self) -> Option<Arc<Passwords>> {
        self.passwords.load_full()
    }

    pub(super) fn hook(&self) -> Option<Hook> {
        self.hook.clone()
    }

    /// Checks a token; `None` if it is none, so that the next of the chain may look at it.
    pub(super) fn token(&self, credentials: &Credentials) -> Option<Result<Identity, Denial>> {
        let (jwt, password) = (self.jwt.as_ref()?, credentials.password.as_ref()?);
        let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs());
        let username = credentials.username.as_deref();
        match jwt.check(password.bytes(), username, &credentials.client_id, now_s) {
            Ok(token) => Some(Ok(Identity {
                username: token.username.map(Into::into),
                superuser: false,
                acl: token.acl.map(Arc::new),
                expires_at_s: token.expires_at_s,
            })),
            Err(JwtError::NoToken) => None,
            Err(why) => {
                tracing::info!(client = %credentials.client_id, %why, "a token was refused");
                Some(Err(Denial::WrongCredentials))
            }
        }
    }

    /// Whether an address may not even try, about this user.
    pub(super) fn is_barred(&self, address: Option<IpAddr>, username: Option<&str>) -> bool {
        address.is_some_and(|address| {
            self.attempts()
                .is_barred(address, username.unwrap_or(NOBODY), Instant::now())
        })
    }

    /// Notes how an attempt ended.
    pub(super) fn note(&self, address: Option<IpAddr>, username: Option<&str>, right: bool) {
        let Some(address) = address else { return };
        let name = username.unwrap_or(NOBODY);
        if right {
            self.attempts().succeed(address, name);
        } else if self.attempts().fail(address, name, Instant::now()) {
            tracing::warn!(%address, user = name, "failed to authenticate too often; refused for a minute");
        }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Counts are all that is in it: whatever a panic left is good enough.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins SCRAM-SHA-256: what the server answers to the client's first message.
    pub(super) fn challenge(
        &self,
        address: Option<IpAddr>,
        first: &[u8],
    ) -> Result<(Exchange, Vec<u8>), Denial> {
        let offered = self.chain.contains(&Method::PasswordFile);
        let passwords = self.passwords().filter(|_| offered).ok_or(Denial::BadMethod)?;
        let first = ClientFirst::parse(first).map_err(refusal)?;
        if self.is_barred(address, Some(&first.username)) {
            return Err(Denial::Barred);
        }
        let (verifier, known) = passwords.scram(&first.username);
        let mut random = [0; 18];
        getrandom::fill(&mut random).map_err(|_| Denial::Unavailable)?;
        let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, random);
        Ok(first.challenge(verifier, known, &nonce))
    }

    /// Ends SCRAM-SHA-256: who it is, and the server's own proof.
    pub(super) fn conclude(
        &self,
        address: Option<IpAddr>,
        exchange: Exchange,
        last: &[u8],
    ) -> Result<(Identity, Vec<u8>), Denial> {
        let username = exchange.username().to_owned();
        let concluded = exchange.finish(last);
        self.note(address, Some(&username), concluded.is_ok());
        let signature = concluded.map_err(refusal)?;
        Ok((Identity::user(username.into()), signature))
    }
}

fn refusal(error: ScramError) -> Denial {
    match error {
        ScramError::Refused => Denial::WrongCredentials,
        ScramError::Malformed | ScramError::Unsupported => Denial::Malformed,
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, String> {
    let place = path.display();
    let unreadable = |error: std::io::Error| format!("cannot read {what}, {place}: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(ACCESS_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > ACCESS_FILE_BYTES_MAX {
        return Err(format!("{what}, {place}, is larger than 64 MiB"));
    }
    Ok(bytes)
}

/// Whether every user of the host can read a file.
fn is_public(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn read_text(path: &Path, what: &str) -> Result<String, String> {
    String::from_utf8(read(path, what)?).map_err(|_| format!("{what}, {}, is not UTF-8", path.display()))
}

fn read_passwords(path: &Path) -> Result<Passwords, String> {
    let text = zeroize::Zeroizing::new(read_text(path, "the password file")?);
    let passwords = Passwords::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut key = [0; 32];
    let remembering = getrandom::fill(&mut key).is_ok();
    if is_public(path) {
        // Hashes, not passwords: worth a word, as in mosquitto, but no reason not to start.
        let place = path.display();
        tracing::warn!("{place} can be read by every user of this host: chmod 600 {place}");
    }
    // Without random numbers every password is computed.
    Ok(if remembering {
        passwords.remembering(key)
    } else {
        passwords
    })
}

fn read_acl(path: &Path) -> Result<Acl, String> {
    Acl::parse(&read_text(path, "the ACL file")?).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_jwt(settings: &JwtSettings) -> Result<Jwt, String> {
    let (path, place) = (&settings.key_file, settings.key_file.display());
    let key = zeroize::Zeroizing::new(read(path, "the key of [auth.jwt]")?);
    let jwt = Jwt::new(&settings.algorithm, &key, settings.require_exp)
        .map_err(|what| format!("the key of [auth.jwt], {place}, {what}"))?;
    // Who can read a shared secret can sign for anybody.
    if settings.algorithm == "HS256" && is_public(path) {
        return Err(format!(
            "{place} can be read by every user of this host: chmod 600 {place}"
        ));
    }
    Ok(jwt)
}

#[cfg(test)]
mod tests;
