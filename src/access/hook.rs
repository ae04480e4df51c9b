//! What is asked of an HTTP server about a CONNECT, and what its answer means.
//!
//! Question: `POST` with JSON, the names as EMQX has them. Answer: status 200 with
//! `{"result": "allow" | "deny" | "ignore", "is_superuser": false}`, or 204, which allows. Everything else
//! (another status, no JSON, no answer in time) lets nobody in: the client is told that the server is
//! unavailable, and may try again.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::Credentials;

/// An `http://` URL that can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Url {
    /// Host, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, from the first `/` on.
    pub path: String,
    /// Host and port as they were written, for the `Host` header.
    pub authority: String,
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("must be http://HOST[:PORT]/PATH, not '{}'", text.escape_debug());
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(match text.strip_prefix("https://") {
                Some(_) => "must be http://…; for https put a proxy on this host between".into(),
                None => form(),
            });
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'/' => rest.split_at(at),
            Some(_) => return Err(form()),
            None => (rest, "/"),
        };
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(form)?)),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(80), |port| port.parse::<u16>().map_err(|_| form()))?;
        let plain = |c: char| c.is_ascii_graphic() && c != '@';
        if host.is_empty() || port == 0 || !text.chars().all(plain) {
            return Err(form());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[derive(Serialize)]
struct Question<'a> {
    clientid: &'a str,
    username: Option<&'a str>,
    password: Option<&'a str>,
    peerhost: Option<String>,
    listener: &'a str,
    cert_common_name: Option<&'a str>,
}

#[derive(Deserialize)]
struct Reply {
    result: Word,
    #[serde(default)]
    is_superuser: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Deny,
    Ignore,
}

/// What the server decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Let it in.
    Allow {
        /// No rule binds it.
        superuser: bool,
    },
    /// Do not.
    Deny,
    /// The next of the chain decides.
    Ignore,
    /// Nothing that could be understood.
    Broken,
}

/// The body of the question. It holds the password: wiped when dropped.
#[must_use]
pub fn question(credentials: &Credentials) -> Zeroizing<Vec<u8>> {
    let password = credentials.password.as_ref().map(|secret| secret.bytes());
    // JSON has text only; a password that is none fits no user of a server that reads text.
    let password = password.map(|bytes| Zeroizing::new(String::from_utf8_lossy(bytes).into_owned()));
    let question = Question {
        clientid: &credentials.client_id,
        username: credentials.username.as_deref(),
        password: password.as_ref().map(|text| text.as_str()),
        peerhost: credentials
            .address
            .map(|address| address.to_canonical().to_string()),
        listener: &credentials.listener,
        cert_common_name: credentials.certificate_name.as_deref(),
    };
    Zeroizing::new(serde_json::to_vec(&question).expect("strings are JSON"))
}

/// What an answer means.
#[must_use]
pub fn answer(status: u16, body: &[u8]) -> Answer {
    match status {
        204 => Answer::Allow { superuser: false },
        200 => match serde_json::from_slice::<Reply>(body) {
            Ok(Reply {
                result: Word::Allow,
                is_superuser,
            }) => Answer::Allow {
                superuser: is_superuser,
            },
            Ok(Reply {
                result: Word::Deny, ..
            }) => Answer::Deny,
            Ok(Reply {
                result: Word::Ignore, ..
            }) => Answer::Ignore,
            Err(_) => Answer::Broken,
        },
        _ => Answer::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity::Secret;

    #[test]
    fn the_question_tells_what_is_known() {
        let credentials = Credentials {
            client_id: "c".into(),
            username: Some("u".into()),
            password: Some(Secret::new(b"p\"w")),
            address: Some("::ffff:10.0.0.1".parse().unwrap()),
            certificate_name: None,
            listener: "tcp:1883".into(),
            allow_anonymous: false,
        };
        let value: serde_json::Value = serde_json::from_slice(&question(&credentials)).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"clientid": "c", "username": "u", "password": "p\"w", "peerhost": "10.0.0.1",
                "listener": "tcp:1883", "cert_common_name": null})
        );
    }

    #[test]
    fn what_is_not_understood_lets_nobody_in() {
        let allow = |superuser| Answer::Allow { superuser };
        assert_eq!(
            answer(200, br#"{"result":"allow","is_superuser":true,"x":1}"#),
            allow(true)
        );
        assert_eq!(answer(200, br#"{"result":"allow"}"#), allow(false));
        assert_eq!(answer(204, b""), allow(false));
        assert_eq!(answer(200, br#"{"result":"deny"}"#), Answer::Deny);
        assert_eq!(answer(200, br#"{"result":"ignore"}"#), Answer::Ignore);
        for (status, body) in [
            (200, &b""[..]),
            (200, b"allow"),
            (200, br#"{"result":"yes"}"#),
            (403, br#"{"result":"allow"}"#),
            (500, b""),
            (302, b""),
        ] {
            assert_eq!(answer(status, body), Answer::Broken, "{status}");
        }
    }

    #[test]
    fn urls() {
        let url = |text: &str| text.parse::<Url>();
        let parts = |text: &str| url(text).map(|url| (url.host, url.port, url.path)).unwrap();
        assert_eq!(
            parts("http://auth:8080/mqtt?x=1"),
            ("auth".into(), 8080, "/mqtt?x=1".into())
        );
        assert_eq!(parts("http://10.0.0.1"), ("10.0.0.1".into(), 80, "/".into()));
        assert_eq!(parts("http://[::1]:9/a"), ("::1".into(), 9, "/a".into()));
        assert_eq!(url("http://h:1/a").unwrap().to_string(), "http://h:1/a");
        assert!(url("https://h/").unwrap_err().contains("proxy"));
        for wrong in [
            "",
            "h/",
            "http://",
            "http:///a",
            "http://h:x/",
            "http://h:0/",
            "http://a b/",
            "http://u:p@h/",
            "http://h?x",
            "http://[::1]x/",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
