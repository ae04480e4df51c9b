//! Tokens in the place of passwords: a JWT that somebody else has signed.
//!
//! | claim | meaning |
//! |---|---|
//! | `exp` | seconds since 1970; must be there unless the operator says otherwise |
//! | `nbf` | not before, if it is there |
//! | `username` | the user; if the CONNECT names one it must be the same. Missing: `sub` is the user |
//! | `clientid` | if it is there, the client id must be the same |
//! | `acl` | `{"pub": […], "sub": […], "all": […]}`, filters with `%u` and `%c`; in place of the ACL file |
//!
//! The algorithm is the operator's choice, never the token's.

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;

use super::acl::{Acl, Action};

/// Clocks may differ by so many seconds.
const LEEWAY_S: u64 = 5;

/// Longest token in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Filters in the `acl` of one token.
const TOKEN_RULES_MAX: usize = 256;

/// Shortest secret of HS256 in bytes (RFC 7518: at least as long as the hash).
const SECRET_BYTES_MIN: usize = 32;

/// Checks tokens with one key and one algorithm.
#[derive(Clone)]
pub struct Jwt {
    key: DecodingKey,
    validation: Validation,
    algorithm: Algorithm,
    require_exp: bool,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt({:?})", self.algorithm)
    }
}

/// What a token says that was found good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// The user, if it names one.
    pub username: Option<String>,
    /// Its own rules.
    pub acl: Option<Acl>,
    /// When it ends, in seconds since 1970.
    pub expires_at_s: Option<u64>,
}

/// Why a token is not good. Nothing of the token is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JwtError {
    /// Not three parts of base64 with JSON in them: perhaps a password for somebody else to check.
    #[error("it is no token")]
    NoToken,
    /// Another algorithm than the operator's.
    #[error("it has another algorithm")]
    Algorithm,
    /// Not signed by who has the key.
    #[error("its signature is wrong")]
    Signature,
    /// Over, or not begun.
    #[error("it is not valid now")]
    Time,
    /// It says nothing of its end.
    #[error("it has no exp")]
    NoEnd,
    /// It is another client's.
    #[error("it is for another user or client id")]
    Bearer,
    /// Its claims cannot be understood.
    #[error("its claims are broken")]
    Claims,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    clientid: Option<String>,
    #[serde(default)]
    acl: Option<Rules>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
}

impl Jwt {
    /// Tokens signed with `algorithm` (HS256, RS256 or ES256). `key` is the secret of HS256 as it is in its
    /// file, without a newline at its end, or the public key in PEM.
    ///
    /// # Errors
    /// Half a sentence.
    pub fn new(algorithm: &str, key: &[u8], require_exp: bool) -> Result<Self, String> {
        let (algorithm, key) = match algorithm {
            "HS256" => {
                let end = key.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
                let secret = &key[..end.map_or(0, |last| last + 1)];
                if secret.len() < SECRET_BYTES_MIN {
                    let len = secret.len();
                    return Err(format!(
                        "has {len} bytes, a secret needs at least {SECRET_BYTES_MIN}"
                    ));
                }
                (Algorithm::HS256, DecodingKey::from_secret(secret))
            }
            "RS256" => {
                let key = DecodingKey::from_rsa_pem(key);
                (
                    Algorithm::RS256,
                    key.map_err(|_| "holds no RSA public key in PEM")?,
                )
            }
            "ES256" => {
                let key = DecodingKey::from_ec_pem(key);
                (
                    Algorithm::ES256,
                    key.map_err(|_| "holds no P-256 public key in PEM")?,
                )
            }
            other => return Err(format!("must be HS256, RS256 or ES256, not '{other}'")),
        };
        let mut validation = Validation::new(algorithm);
        // This value has no clock: times are compared below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            key,
            validation,
            algorithm,
            require_exp,
        })
    }

    /// Checks a token that a client brought as its password. `now_s` is seconds since 1970.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn check(
        &self,
        token: &[u8],
        username: Option<&str>,
        client_id: &str,
        now_s: u64,
    ) -> Result<Token, JwtError> {
        let token = std::str::from_utf8(token).map_err(|_| JwtError::NoToken)?;
        if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
            return Err(JwtError::NoToken);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::NoToken)?;
        if header.alg != self.algorithm {
            return Err(JwtError::Algorithm);
        }
        let decoded = decode::<Claims>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => JwtError::Signature,
            ErrorKind::InvalidAlgorithm => JwtError::Algorithm,
            _ => JwtError::Claims,
        })?;
        self.accept(claims.claims, username, client_id, now_s)
    }

    fn accept(
        &self,
        claims: Claims,
        username: Option<&str>,
        client_id: &str,
        now_s: u64,
    ) -> Result<Token, JwtError> {
        // Fractions are allowed in a NumericDate; a cast of what is beyond u64 saturates.
        let expires_at_s = claims.exp.map(|exp| exp as u64);
        if self.require_exp && expires_at_s.is_none() {
            return Err(JwtError::NoEnd);
        }
        if expires_at_s.is_some_and(|exp| exp.saturating_add(LEEWAY_S) <= now_s)
            || claims.nbf.is_some_and(|nbf| nbf as u64 > now_s + LEEWAY_S)
        {
            return Err(JwtError::Time);
        }
        if claims.clientid.is_some_and(|id| id != client_id) {
            return Err(JwtError::Bearer);
        }
        if let (Some(claimed), Some(given)) = (claims.username.as_deref(), username)
            && claimed != given
        {
            return Err(JwtError::Bearer);
        }
        Ok(Token {
            username: claims.username.or(claims.sub),
            acl: claims.acl.map(rules).transpose()?,
            expires_at_s,
        })
    }
}

fn rules(rules: Rules) -> Result<Acl, JwtError> {
    if rules.publish.len() + rules.subscribe.len() + rules.all.len() > TOKEN_RULES_MAX {
        return Err(JwtError::Claims);
    }
    let mut acl = Acl::default();
    let all = [
        (&rules.publish, &[Action::Write][..]),
        (&rules.subscribe, &[Action::Read][..]),
        (&rules.all, &[Action::Read, Action::Write][..]),
    ];
    for (filters, actions) in all {
        for filter in filters {
            acl.grant(actions, filter).map_err(|_| JwtError::Claims)?;
        }
    }
    Ok(acl)
}

#[cfg(test)]
mod tests;
