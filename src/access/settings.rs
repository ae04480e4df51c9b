//! What an operator says about who may come in: the sections `[auth]` and `[acl]`.

use std::path::PathBuf;
use std::time::Duration;

use super::hook::Url;
use super::identity::Method;
use crate::limits::AUTH_FAILURES_MAX;

/// The sections `[auth]` and `[acl]`, checked as far as that goes without opening a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Who decides about a CONNECT, in this order.
    pub chain: Vec<Method>,
    /// The password file, if there is one.
    pub password_file: Option<PathBuf>,
    /// How tokens are checked, if they are.
    pub jwt: Option<JwtSettings>,
    /// Which HTTP server is asked, if any.
    pub http: Option<HookSettings>,
    /// The ACL file; without one everybody may do everything.
    pub acl_file: Option<PathBuf>,
    /// Whether listeners that say nothing of their own let anonymous clients in. `None`: those on a loopback
    /// address do, unless there is something in the chain that checks credentials.
    pub allow_anonymous: Option<bool>,
    /// Failures of one address about one user that bar it for a minute; 0 is no limit.
    pub failures_max: u32,
}

/// `[auth.jwt]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JwtSettings {
    /// HS256, RS256 or ES256.
    pub algorithm: String,
    /// The secret, or the public key in PEM.
    pub key_file: PathBuf,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
}

/// `[auth.http]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HookSettings {
    /// Who is asked.
    pub url: Url,
    /// Longest wait for the answer.
    pub within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chain: vec![Method::Certificate, Method::Anonymous],
            password_file: None,
            jwt: None,
            http: None,
            acl_file: None,
            allow_anonymous: None,
            failures_max: AUTH_FAILURES_MAX,
        }
    }
}

impl Settings {
    /// Whether something in the chain checks what a client brings.
    #[must_use]
    pub fn checks_credentials(&self) -> bool {
        let checks = [Method::PasswordFile, Method::Jwt, Method::Http];
        self.chain.iter().any(|method| checks.contains(method))
    }

    /// Whether a listener lets anonymous clients in. `own` is what it says itself; `local` whether only
    /// this host can reach it. mosquitto 2 decides alike: not from the network unless the operator says so.
    #[must_use]
    pub fn anonymous_allowed(&self, own: Option<bool>, local: bool) -> bool {
        own.or(self.allow_anonymous)
            .unwrap_or(local && !self.checks_credentials())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_clients_come_from_this_host_only_unless_the_operator_says_otherwise() {
        let open = Settings::default();
        assert!(open.anonymous_allowed(None, true) && !open.anonymous_allowed(None, false));
        assert!(open.anonymous_allowed(Some(true), false) && !open.anonymous_allowed(Some(false), true));
        let checking = Settings {
            chain: vec![Method::PasswordFile, Method::Anonymous],
            ..Settings::default()
        };
        assert!(
            !checking.anonymous_allowed(None, true),
            "who has a password file wants it asked"
        );
        let said = Settings {
            allow_anonymous: Some(true),
            ..checking
        };
        assert!(said.anonymous_allowed(None, false) && !said.anonymous_allowed(Some(false), true));
    }
}
