//! Floor 5: what an operator may set, and what is wrong with what they set.
//!
//! Three sources, later ones win: the defaults below, the TOML file of `--config`, the flags. The
//! environment names the registry's port and the cookie, which never stands on a command line.
//! [`Config::load`] checks everything before a port is opened; each [`ConfigError`] is one sentence
//! that names the place and the remedy.

mod auth;
mod cluster;
mod file;
mod flags;
mod limits;
mod listener;
mod store;
mod supervision;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::access::settings::Settings;
use crate::broker::confirm::Suback;
use crate::broker::desk::Sharing;
use crate::cluster::discovery::Places;
use crate::cluster::stream::LinkTlsFiles;
use crate::node_name::NodeName;
use crate::registry::CookieSource;
use crate::store::Pace;
pub use file::ConfigError;
pub use flags::{Environment, Flags};
pub use limits::Limits;
pub use listener::{Listen, ListenerConfig};
pub use supervision::Supervision;

/// Name of a node unless configured otherwise.
pub const NAME_DEFAULT: &str = "ermine@127.0.0.1";

/// Address of the MQTT listener unless configured otherwise: loopback, so that a first start opens
/// nothing to the network.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:1883";

/// Port of the registry (Erlang's epmd has 4369).
pub const REGISTRY_PORT_DEFAULT: u16 = 4366;

/// Most listeners of one node; each is a child of `doors`.
pub const LISTENERS_MAX: usize = 64;

/// Most worker arbiters: the routes hold a set of arbiters as a mask of 64 bits, which must also hold
/// the cluster's arbiter and the control arbiter.
pub const WORKER_THREADS_MAX: usize = 48;

/// Everything that a node is told before it starts, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name, `name@host`. Other nodes reach this one at its host part.
    pub name: NodeName,
    /// Where the cookie comes from; not read yet.
    pub cookie: CookieSource,
    /// Folder for what outlives a run; made on start.
    pub data_dir: PathBuf,
    /// Where MQTT clients connect; at least one, at most [`LISTENERS_MAX`], none twice.
    pub listeners: Vec<ListenerConfig>,
    /// Port of the registry of this host.
    pub registry_port: u16,
    /// Port for other nodes and for operators; 0 lets the system choose, the registry tells it.
    pub dist_port: u16,
    /// The certificates of links, if they are encrypted.
    pub link_tls: Option<LinkTlsFiles>,
    /// What is logged and how.
    pub log: LogConfig,
    /// Whether `ermine crash` may panic an actor of this node.
    pub allow_crash: bool,
    /// Arbiters that serve sessions, 1 to [`WORKER_THREADS_MAX`]; by default one per core.
    pub worker_threads: usize,
    /// What one client may do.
    pub limits: Limits,
    /// What a SUBACK waits for.
    pub suback: Suback,
    /// How shared subscriptions choose their members.
    pub sharing: Sharing,
    /// The HTTP API, if it is switched on.
    pub admin: Option<AdminConfig>,
    /// Who may come in, and what they may do.
    pub auth: Settings,
    /// How many restarts each supervisor of the tree tolerates.
    pub supervision: Supervision,
    /// Whom the node looks for by itself.
    pub places: Places,
    /// When what must outlast the process is safe.
    pub store: Pace,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Reads the file that the flags name, if any, lays the flags over it, and checks the whole.
    ///
    /// # Errors
    /// The first thing that is wrong, as one sentence. Nothing was opened or created.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut draft = file::Draft::default();
        if let Some(path) = &flags.config {
            file::read(path, &mut draft)?;
        }
        flags::lay_over(flags, environment, draft)
    }

    /// Makes the data folder, with mode 0700 for what is new.
    ///
    /// # Errors
    /// One sentence if it cannot be made or is not a folder.
    pub fn prepare_data_dir(&self) -> Result<(), ConfigError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.data_dir);
        made.map_err(|error| {
            ConfigError::new(format!(
                "cannot make the data directory {}: {error}; give another one with --data-dir",
                self.data_dir.display()
            ))
        })
    }
}

/// `[admin]`: metrics, health, the JSON API and the observer page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address to bind; a loopback address unless `allow_remote` is set.
    pub listen: HostPort,
    /// Whether other hosts may be let in, without TLS.
    pub allow_remote: bool,
    /// Whether `/metrics` is told to whoever asks, without a token.
    pub open_metrics: bool,
}

/// What is logged and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines for people or objects for machines.
    pub format: LogFormat,
    /// Least important level that is logged.
    pub level: LogLevel,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line an event; supervisor reports on several lines as OTP prints them.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Importance of a line of the log, from the most important down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something was refused, dropped or lost.
    Warn,
    /// What an operator wants to know of a healthy node.
    #[default]
    Info,
    /// Every connection and every command.
    Debug,
    /// Everything, also of foreign crates.
    Trace,
}

/// A value of one of a few words: the words are also the sentence of the error.
macro_rules! words {
    ($name:ident: $($word:literal => $variant:ident),+) => {
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}, not '{text}'", [$($word),+].join(", "))),
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

words!(LogFormat: "text" => Text, "json" => Json);
words!(LogLevel: "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace);

/// `HOST:PORT`: a host name, an IPv4 address or an IPv6 address in brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host without brackets.
    pub host: String,
    /// Port; 0 lets the system choose one when it is bound.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || {
            let example = match text.parse::<u16>() {
                Ok(port) => format!("127.0.0.1:{port}"),
                Err(_) => LISTEN_DEFAULT.to_owned(),
            };
            format!("must be HOST:PORT, for example {example}, not '{text}'")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let port = port
            .parse::<u16>()
            .map_err(|_| format!("must end with a port from 0 to 65535, not '{port}' as in '{text}'"))?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let good = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let hostlike = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                !host.is_empty() && host.chars().all(hostlike)
            }
        };
        if !good && bracketed.is_none() && host.contains(':') {
            return Err(format!(
                "must have an IPv6 address in brackets, for example [::1]:{port}, not '{text}'"
            ));
        }
        let host = bracketed.unwrap_or(host).to_owned();
        if good {
            Ok(Self { host, port })
        } else {
            Err(form())
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests;
