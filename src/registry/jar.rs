//! The cookies of a node while they change: the one that it proves, those that it still takes, and the
//! one that it is about to change to. docs/PROTOCOL.md, "Rotation".
//!
//! A value behind a lock, so that every door of the node sees a change at once; clones share it. No clock
//! inside: whoever asks says when.
//!
//! | | current | prepared | previous | retired |
//! |---|---|---|---|---|
//! | proved to others | first | last | while its grace lasts | |
//! | taken from others | yes | yes | while its grace lasts | no, and told apart from a stranger's |

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::{COOKIE_PREPARED_FOR, COOKIES_PREVIOUS_MAX};
use crate::registry::cookie::{Cookie, Fingerprint};

/// Numbers the cookies of a cluster: of two that were made apart from each other the greater one holds.
/// About the time of day, in 1/256 µs. A node that has not changed its cookie since it started is at 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Edition(pub u64);

/// The cookies. Cloning shares them.
#[derive(Clone)]
pub struct CookieJar(Arc<RwLock<Inner>>);

struct Inner {
    current: Cookie,
    edition: Edition,
    /// Whether members that hold an older one are to be given the current one.
    shared: bool,
    /// Latest first.
    previous: Vec<Previous>,
    prepared: Option<Prepared>,
}

struct Previous {
    cookie: Cookie,
    until: Instant,
}

struct Prepared {
    edition: Edition,
    cookie: Cookie,
    shared: bool,
    grace: Duration,
    /// Another one may be prepared from then on.
    firm_until: Instant,
    until: Instant,
}

/// What one side of a handshake may take.
#[derive(Clone)]
pub struct Accepted {
    /// Good, the current one first.
    pub valid: Vec<Cookie>,
    /// Good no more.
    pub retired: Vec<Cookie>,
}

/// How a cookie stands with this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is the one.
    Current,
    /// It is to be the one, and was not yet when this node heard last.
    Prepared,
    /// It was the one, valid or not.
    Previous,
    /// Never heard of.
    Unknown,
}

/// A cookie that a node is told to change to.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its number.
    pub edition: Edition,
    /// The new one.
    pub cookie: Cookie,
    /// How long the old one is taken then.
    pub grace: Duration,
    /// Whether members that were away are to be given it.
    pub shared: bool,
}

/// Why a cookie is not prepared. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPrepared {
    /// A later one is the current one here.
    #[error("it knows of a later rotation: set the clocks of all hosts by NTP, and try again")]
    Outdated,
    /// Another one is prepared and may be made the current one at any moment.
    #[error("another rotation is under way: try again in a minute")]
    Busy,
    /// It is the current one already.
    #[error("it holds that very cookie already")]
    Same,
}

/// A change that was made.
#[derive(Clone, Debug)]
pub struct Switched {
    /// Fingerprint of the old cookie.
    pub before: Fingerprint,
    /// The new one.
    pub cookie: Cookie,
}

impl From<Cookie> for CookieJar {
    fn from(current: Cookie) -> Self {
        Self(Arc::new(RwLock::new(Inner {
            current,
            edition: Edition::default(),
            shared: false,
            previous: Vec::new(),
            prepared: None,
        })))
    }
}

impl CookieJar {
    /// The cookie of this node.
    #[must_use]
    pub fn current(&self) -> Cookie {
        self.read().current.clone()
    }

    /// Its number.
    #[must_use]
    pub fn edition(&self) -> Edition {
        self.read().edition
    }

    /// What is taken from others, and offered to them in this order.
    #[must_use]
    pub fn accepted(&self, now: Instant) -> Accepted {
        let inner = self.read();
        let mut accepted = Accepted {
            valid: vec![inner.current.clone()],
            retired: Vec::new(),
        };
        for previous in &inner.previous {
            let place = if now < previous.until {
                &mut accepted.valid
            } else {
                &mut accepted.retired
            };
            place.push(previous.cookie.clone());
        }
        let prepared = inner.prepared.as_ref().filter(|prepared| now < prepared.until);
        accepted
            .valid
            .extend(prepared.map(|prepared| prepared.cookie.clone()));
        accepted
    }

    /// How the cookie with this fingerprint stands.
    #[must_use]
    pub fn standing(&self, of: Fingerprint) -> Standing {
        let inner = self.read();
        let prepared = inner.prepared.as_ref();
        if inner.current.fingerprint() == of {
            Standing::Current
        } else if prepared.is_some_and(|prepared| prepared.cookie.fingerprint() == of) {
            Standing::Prepared
        } else if inner.previous(of).is_some() {
            Standing::Previous
        } else {
            Standing::Unknown
        }
    }

    /// The cookie with this fingerprint, valid or not, that both this node and another one are known to
    /// hold; the current one if there is none.
    #[must_use]
    pub fn in_common(&self, of: Fingerprint) -> Cookie {
        let inner = self.read();
        inner.previous(of).unwrap_or(&inner.current).clone()
    }

    /// What a member that holds an older cookie is to be given, if it is: the grace is what is left of it.
    #[must_use]
    pub fn to_be_shared(&self, now: Instant) -> Option<Change> {
        let inner = self.read();
        let left = inner.previous.first()?.until.saturating_duration_since(now);
        inner.shared.then(|| Change {
            edition: inner.edition,
            cookie: inner.current.clone(),
            grace: left,
            shared: true,
        })
    }

    /// Takes a new cookie from others from now on, and proves it to nobody before [`CookieJar::commit`].
    ///
    /// # Errors
    /// [`NotPrepared`].
    pub fn prepare(&self, change: Change, now: Instant) -> Result<(), NotPrepared> {
        let mut inner = self.write();
        if inner.current.is_same_as(&change.cookie) {
            return Err(NotPrepared::Same);
        }
        if change.edition <= inner.edition {
            return Err(NotPrepared::Outdated);
        }
        let busy = |prepared: &Prepared| prepared.edition != change.edition && now < prepared.firm_until;
        if inner.prepared.as_ref().is_some_and(busy) {
            return Err(NotPrepared::Busy);
        }
        inner.prepared = Some(Prepared {
            edition: change.edition,
            cookie: change.cookie,
            shared: change.shared,
            grace: change.grace,
            firm_until: now + COOKIE_PREPARED_FOR.0,
            until: now + COOKIE_PREPARED_FOR.1,
        });
        Ok(())
    }

    /// Forgets what was prepared under this number.
    pub fn abort(&self, edition: Edition) {
        let mut inner = self.write();
        if inner.is_prepared(edition) {
            inner.prepared = None;
        }
    }

    /// The number of what is prepared.
    #[must_use]
    pub fn prepared(&self) -> Option<Edition> {
        self.read().prepared.as_ref().map(|prepared| prepared.edition)
    }

    /// Changes to what was prepared under this number; nothing if it was not.
    pub fn commit(&self, edition: Edition, now: Instant) -> Option<Switched> {
        let mut inner = self.write();
        if !inner.is_prepared(edition) {
            return None;
        }
        let prepared = inner.prepared.take()?;
        let before = std::mem::replace(&mut inner.current, prepared.cookie.clone());
        let fingerprint = before.fingerprint();
        // Who goes back to a cookie of before holds it once.
        inner
            .previous
            .retain(|previous| !previous.cookie.is_same_as(&prepared.cookie));
        let until = now + prepared.grace;
        // Who allows the last one less time allows those before it no more.
        for previous in &mut inner.previous {
            previous.until = until.min(previous.until);
        }
        let cookie = before;
        inner.previous.insert(0, Previous { cookie, until });
        inner.previous.truncate(COOKIES_PREVIOUS_MAX);
        (inner.edition, inner.shared) = (edition, prepared.shared);
        Some(Switched {
            before: fingerprint,
            cookie: prepared.cookie,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Nothing panics between the first and the last statement of a change.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_prepared(&self, edition: Edition) -> bool {
        self.prepared
            .as_ref()
            .is_some_and(|prepared| prepared.edition == edition)
    }

    fn previous(&self, of: Fingerprint) -> Option<&Cookie> {
        let mut previous = self.previous.iter().map(|previous| &previous.cookie);
        previous.find(|cookie| cookie.fingerprint() == of)
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CookieJar({})", self.current().fingerprint())
    }
}

#[cfg(test)]
mod tests;
