//! What a client says of itself, and what was found to be true of it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytestring::ByteString;
use zeroize::Zeroizing;

use super::acl::Acl;
use crate::mqtt::reason::ReasonCode;

/// What a client brings to be let in.
#[derive(Clone)]
pub struct Credentials {
    /// The client id, assigned if it gave none.
    pub client_id: ByteString,
    /// The user name that it claims.
    pub username: Option<ByteString>,
    /// Its password; wiped when dropped, never shown.
    pub password: Option<Secret>,
    /// Where it comes from; `None` for a unix socket.
    pub address: Option<IpAddr>,
    /// The common name of the certificate that its listener has verified.
    pub certificate_name: Option<String>,
    /// The listener that it came through, as its operator named it.
    pub listener: String,
    /// Whether that listener lets anonymous clients in.
    pub allow_anonymous: bool,
}

/// A password. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes a copy.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes, for whoever checks them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Who a client is, as far as it was proved. A user name that nobody checked is none.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Identity {
    /// The user; `None` is an anonymous client.
    pub username: Option<ByteString>,
    /// Whether no rule binds it.
    pub superuser: bool,
    /// Rules that it brought along (a token's); they stand in place of the ACL file.
    pub acl: Option<Arc<Acl>>,
    /// When what it proved is no longer true, in seconds since 1970.
    pub expires_at_s: Option<u64>,
}

impl Identity {
    /// A user with the rights of the ACL file.
    #[must_use]
    pub fn user(username: ByteString) -> Self {
        Self {
            username: Some(username),
            ..Self::default()
        }
    }
}

/// Why a client is not let in. It is told a code only; the operator's log says more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Denial {
    /// What it brought is wrong, whatever part of it.
    #[error("user name or password is wrong")]
    WrongCredentials,
    /// It brought nothing, and that is not enough here.
    #[error("anonymous clients are not allowed on this listener")]
    NotAuthorized,
    /// It named a method of enhanced authentication that is not offered.
    #[error("the authentication method is not offered")]
    BadMethod,
    /// Too many clients are being authenticated.
    #[error("too many clients are being authenticated")]
    Busy,
    /// Who should have been asked could not be.
    #[error("who decides about it could not be asked")]
    Unavailable,
    /// Its address was wrong too often.
    #[error("its address failed to authenticate too often")]
    Barred,
    /// What it sent breaks the protocol of its method.
    #[error("it broke the protocol of its authentication method")]
    Malformed,
}

impl Denial {
    /// What the client is told: 3.x reads 4 for the first, 5 or 3 for the others.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::WrongCredentials => ReasonCode::BadUserNameOrPassword,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::BadMethod => ReasonCode::BadAuthenticationMethod,
            Self::Busy => ReasonCode::ServerBusy,
            Self::Unavailable => ReasonCode::ServerUnavailable,
            Self::Barred => ReasonCode::Banned,
            Self::Malformed => ReasonCode::ProtocolError,
        }
    }
}

/// One link of the chain that decides about a CONNECT, in the operator's order. Each lets in, refuses, or
/// leaves it to the next; nobody decided: refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method {
    /// Lets in who brings nothing, where the listener allows it.
    Anonymous,
    /// The certificate that the listener has verified: its common name is the user.
    Certificate,
    /// The password file.
    PasswordFile,
    /// A token as password.
    Jwt,
    /// An HTTP server is asked.
    Http,
}

impl Method {
    /// The order unless the operator gives one: what costs least first.
    pub const ORDER: [Self; 5] = [
        Self::Certificate,
        Self::PasswordFile,
        Self::Jwt,
        Self::Http,
        Self::Anonymous,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Certificate => "certificate",
            Self::PasswordFile => "password_file",
            Self::Jwt => "jwt",
            Self::Http => "http",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ORDER.into_iter().find(|method| method.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let credentials = Credentials {
            client_id: "c".into(),
            username: Some("u".into()),
            password: Some(Secret::new(b"hunter2")),
            address: None,
            certificate_name: None,
            listener: "l".into(),
            allow_anonymous: false,
        };
        let shown = format!("{credentials:?} {:?}", credentials.password);
        assert!(!shown.contains("hunter2") && shown.contains("\"u\""), "{shown}");
        assert!(!shown.contains("104"), "nor as numbers: {shown}");
    }

    #[test]
    fn every_method_has_its_word() {
        for method in Method::ORDER {
            assert_eq!(Method::of_word(method.word()), Some(method));
        }
        assert_eq!(Method::of_word("password"), None);
    }
}
