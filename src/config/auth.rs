//! `[auth]` and `[acl]`: who may come in, and what they may do.

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::file::{ConfigError, Document, Section};
use crate::access::hook::Url;
use crate::access::identity::Method;
use crate::access::settings::{HookSettings, JwtSettings, Settings};
use crate::limits::{AUTH_FAILURES_MAX, AUTH_HOOK_WITHIN};

/// Keys of `[auth]`.
pub(super) const AUTH: &[&str] = &[
    "chain",
    "allow_anonymous",
    "password_file",
    "failures_max",
    "jwt",
    "http",
];

/// Keys of `[auth.jwt]`.
pub(super) const JWT: &[&str] = &["algorithm", "secret_file", "public_key_file", "require_exp"];

/// Keys of `[auth.http]`.
pub(super) const HTTP: &[&str] = &["url", "timeout_ms"];

/// Keys of `[acl]`.
pub(super) const ACL: &[&str] = &["file"];

/// Reads both sections.
pub(super) fn read(
    document: &Document<'_>,
    auth: Option<&DeTable<'_>>,
    acl: Option<&DeTable<'_>>,
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    if let Some(table) = auth {
        let section = Section::new(document, "[auth]", AUTH, table)?;
        settings.password_file = section.string("password_file")?.map(PathBuf::from);
        settings.allow_anonymous = section.boolean("allow_anonymous")?;
        settings.failures_max = section
            .number("failures_max", 0, 1_000_000)?
            .map_or(AUTH_FAILURES_MAX, |max| max as u32);
        settings.jwt = section
            .table("jwt")?
            .map(|table| jwt(document, table))
            .transpose()?;
        settings.http = section
            .table("http")?
            .map(|table| http(document, table))
            .transpose()?;
        settings.chain = chain(&section, &settings)?;
    }
    if let Some(table) = acl {
        let section = Section::new(document, "[acl]", ACL, table)?;
        settings.acl_file = section.string("file")?.map(PathBuf::from);
        if settings.acl_file.is_none() {
            return Err(section.lacks("file", "[acl] needs file = \"…\"; without rules leave [acl] out"));
        }
    }
    Ok(settings)
}

/// Whether `[auth]` gives a method what it needs.
fn is_set(method: Method, settings: &Settings) -> bool {
    match method {
        Method::Anonymous | Method::Certificate => true,
        Method::PasswordFile => settings.password_file.is_some(),
        Method::Jwt => settings.jwt.is_some(),
        Method::Http => settings.http.is_some(),
    }
}

fn chain(section: &Section<'_>, settings: &Settings) -> Result<Vec<Method>, ConfigError> {
    let Some(words) = section.words("chain")? else {
        let set = |method: &Method| is_set(*method, settings);
        return Ok(Method::ORDER.into_iter().filter(set).collect());
    };
    let wrong = |what: String| section.lacks("chain", &what);
    let mut chain = Vec::new();
    for word in words {
        let all = Method::ORDER.map(Method::word).join(", ");
        let method = Method::of_word(word).ok_or_else(|| {
            wrong(format!(
                "chain must be made of {all}, not '{}'",
                word.escape_debug()
            ))
        })?;
        if chain.contains(&method) {
            return Err(wrong(format!("chain names {word} twice")));
        }
        if !is_set(method, settings) {
            return Err(wrong(match method {
                Method::PasswordFile => "chain names password_file, but none is set".into(),
                _ => format!("chain names {word}, but there is no [auth.{word}]"),
            }));
        }
        chain.push(method);
    }
    if let Some(method) = Method::ORDER
        .into_iter()
        .filter(|method| ![Method::Anonymous, Method::Certificate].contains(method))
        .find(|method| is_set(*method, settings) && !chain.contains(method))
    {
        let word = method.word();
        return Err(wrong(format!("{word} is set, but chain does not name it")));
    }
    if settings.allow_anonymous == Some(true) && !chain.contains(&Method::Anonymous) {
        return Err(wrong(
            "allow_anonymous is true, but chain does not name anonymous".into(),
        ));
    }
    Ok(chain)
}

fn jwt(document: &Document<'_>, table: &DeTable<'_>) -> Result<JwtSettings, ConfigError> {
    let section = Section::new(document, "[auth.jwt]", JWT, table)?;
    let (secret, public) = (section.string("secret_file")?, section.string("public_key_file")?);
    let algorithm = section.string("algorithm")?.unwrap_or("HS256").to_owned();
    let key_file = match (algorithm.as_str(), secret, public) {
        ("HS256", Some(secret), None) => secret,
        ("RS256" | "ES256", None, Some(public)) => public,
        ("HS256", ..) => {
            return Err(section.lacks(
                "secret_file",
                "[auth.jwt] with HS256 needs secret_file and no other key",
            ));
        }
        ("RS256" | "ES256", ..) => {
            let what = format!("[auth.jwt] with {algorithm} needs public_key_file and no other key");
            return Err(section.lacks("public_key_file", &what));
        }
        (other, ..) => {
            let other = other.escape_debug();
            let what = format!("algorithm must be HS256, RS256 or ES256, not '{other}'");
            return Err(section.lacks("algorithm", &what));
        }
    };
    Ok(JwtSettings {
        key_file: PathBuf::from(key_file),
        require_exp: section.boolean("require_exp")?.unwrap_or(true),
        algorithm,
    })
}

fn http(document: &Document<'_>, table: &DeTable<'_>) -> Result<HookSettings, ConfigError> {
    let section = Section::new(document, "[auth.http]", HTTP, table)?;
    let url = section.parsed::<Url>("url")?;
    let within = section.number("timeout_ms", 1, 60_000)?;
    Ok(HookSettings {
        url: url.ok_or_else(|| {
            section.lacks(
                "url",
                "[auth.http] needs url, for example \"http://127.0.0.1:8080/mqtt/auth\"",
            )
        })?,
        within: within.map_or(AUTH_HOOK_WITHIN, Duration::from_millis),
    })
}
