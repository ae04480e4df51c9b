//! `[[listener]]`: where clients connect, what is spoken there, and how they prove who they are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeTable;

use super::HostPort;
use super::file::{ConfigError, Document, Section, read_limits};
use super::limits::{self, Limits};
use crate::broker::door::{Protocol, WEBSOCKET_PATH_DEFAULT};
use crate::broker::tls::{ClientCertificate, TlsFiles};

/// Who may use a socket file unless configured otherwise: its owner and its group.
const UNIX_MODE_DEFAULT: u32 = 0o660;

/// Longest path of a socket file: `sun_path` of Linux without its end.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Keys of `[[listener]]` that are no limits.
const KEYS: &[&str] = &[
    "listen",
    "protocol",
    "certificate",
    "key",
    "client_ca",
    "client_certificate",
    "use_certificate_cn_as_username",
    "proxy_protocol",
    "websocket_path",
    "unix_mode",
    "allow_anonymous",
];

/// All keys of `[[listener]]`: its own, and the limits of its clients.
pub(super) fn keys() -> Vec<&'static str> {
    let own = KEYS.iter().copied();
    own.chain(limits::listener_names()).collect()
}

/// Where a listener is: `HOST:PORT`, or `unix:` and the path of a socket file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// A TCP port.
    Tcp(HostPort),
    /// A socket file.
    Unix(PathBuf),
}

impl Listen {
    /// Whether two listeners that say this cannot both be opened.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        !matches!(self, Self::Tcp(address) if address.port == 0)
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp);
        };
        // `unix:///run/x` is how a URL says it.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') && !path.starts_with("~/") {
            return Err(format!(
                "must be unix: and an absolute path, for example unix:/run/ermine.sock, not '{text}'"
            ));
        }
        if path.len() > UNIX_PATH_BYTES_MAX {
            return Err(format!(
                "must name a socket file of at most {UNIX_PATH_BYTES_MAX} bytes, not '{text}'"
            ));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Address to bind. Port 0 lets the system choose.
    pub listen: Listen,
    /// What is spoken.
    pub protocol: Protocol,
    /// The certificate; there if the protocol needs one.
    pub tls: Option<TlsFiles>,
    /// Whether the common name of a client's certificate is its user name.
    pub certificate_cn_is_username: bool,
    /// Whether each connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Path of the WebSocket upgrade.
    pub websocket_path: String,
    /// Mode of the socket file.
    pub unix_mode: u32,
    /// Whether clients that bring nothing may come in; `None` leaves it to `[auth]`.
    pub allow_anonymous: Option<bool>,
    /// What its clients may have; [`Limits::of_listener`] where it says nothing.
    pub limits: Limits,
}

impl ListenerConfig {
    /// MQTT on plain sockets.
    #[must_use]
    pub fn plain(listen: Listen, limits: Limits) -> Self {
        Self {
            listen,
            protocol: Protocol::Mqtt,
            tls: None,
            certificate_cn_is_username: false,
            proxy_protocol: false,
            websocket_path: WEBSOCKET_PATH_DEFAULT.into(),
            unix_mode: UNIX_MODE_DEFAULT,
            allow_anonymous: None,
            limits,
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "mqtt" => Self::Mqtt,
            "mqtts" => Self::Mqtts,
            "ws" => Self::Ws,
            "wss" => Self::Wss,
            _ => {
                let meant = match text {
                    "tcp" => "mqtt",
                    "tls" | "ssl" => "mqtts",
                    "websocket" | "websockets" => "ws",
                    _ => "",
                };
                let hint = match meant {
                    "" => String::new(),
                    meant => format!("; {meant} is what that is called here"),
                };
                return Err(format!("must be one of mqtt, mqtts, ws, wss, not '{text}'{hint}"));
            }
        })
    }
}

impl FromStr for ClientCertificate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            _ => Err(format!("must be one of none, optional, required, not '{text}'")),
        }
    }
}

/// Reads one section.
pub(super) fn read(
    document: &Document<'_>,
    table: &Spanned<&DeTable<'_>>,
    limits: Limits,
) -> Result<ListenerConfig, ConfigError> {
    let section = Section::new(document, "[[listener]]", &keys(), table.get_ref())?;
    let wrong = |what: &str| document.error(table.span(), what);
    let listen = section
        .parsed("listen")?
        .ok_or_else(|| wrong("[[listener]] needs an address, for example listen = \"127.0.0.1:1883\""))?;
    let mut listener = ListenerConfig::plain(listen, limits);
    listener.protocol = section.parsed("protocol")?.unwrap_or_default();
    listener.tls = tls(&section, listener.protocol, &wrong)?;
    let shows = listener.tls.as_ref().map(|tls| tls.client_certificate);
    listener.certificate_cn_is_username = section
        .boolean("use_certificate_cn_as_username")?
        .unwrap_or(false);
    if listener.certificate_cn_is_username && matches!(shows, None | Some(ClientCertificate::None)) {
        return Err(wrong(
            "use_certificate_cn_as_username needs certificates of clients: add client_certificate = \
             \"required\" (or \"optional\")",
        ));
    }
    listener.proxy_protocol = section.boolean("proxy_protocol")?.unwrap_or(false);
    listener.allow_anonymous = section.boolean("allow_anonymous")?;
    read_limits(&section, &mut listener.limits)?;
    if let Some(mode) = section.number("unix_mode", 0, 0o777)? {
        if !matches!(listener.listen, Listen::Unix(_)) {
            return Err(wrong(
                "unix_mode is the mode of a socket file: it needs listen = \"unix:…\"",
            ));
        }
        listener.unix_mode = mode as u32;
    }
    if let Some(path) = section.string("websocket_path")? {
        if !listener.protocol.is_web() {
            return Err(wrong("websocket_path needs protocol = \"ws\" or \"wss\""));
        }
        if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c == '?' || c == '#') {
            return Err(wrong(
                "websocket_path must be a path that begins with /, for example \"/mqtt\"",
            ));
        }
        listener.websocket_path = path.to_owned();
    }
    Ok(listener)
}

fn tls(
    section: &Section<'_>,
    protocol: Protocol,
    wrong: &impl Fn(&str) -> ConfigError,
) -> Result<Option<TlsFiles>, ConfigError> {
    let path = |key| Ok::<_, ConfigError>(section.string(key)?.map(PathBuf::from));
    let (certificate, key, client_ca) = (path("certificate")?, path("key")?, path("client_ca")?);
    let client_certificate: Option<ClientCertificate> = section.parsed("client_certificate")?;
    if !protocol.is_secure() {
        if certificate.is_some() || key.is_some() || client_ca.is_some() || client_certificate.is_some() {
            return Err(wrong(
                "certificate, key, client_ca and client_certificate need protocol = \"mqtts\" or \"wss\"",
            ));
        }
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Err(wrong(
            "a listener with TLS needs certificate = \"FILE.pem\" and key = \"FILE.pem\"",
        ));
    };
    // Who names the authority means it; whom it does not suit says so.
    let asked = match &client_ca {
        Some(_) => ClientCertificate::Required,
        None => ClientCertificate::None,
    };
    let client_certificate = client_certificate.unwrap_or(asked);
    if client_certificate != ClientCertificate::None && client_ca.is_none() {
        return Err(wrong(
            "client_certificate needs client_ca = \"FILE.pem\", the authority that signed them",
        ));
    }
    Ok(Some(TlsFiles {
        certificate,
        key,
        client_ca,
        client_certificate,
    }))
}
