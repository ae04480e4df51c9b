//! Flags and environment, and how they are laid over the file.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::cluster;
use super::file::{AdminDraft, ConfigError, Draft};
use super::{
    AdminConfig, Config, LISTEN_DEFAULT, LISTENERS_MAX, Listen, ListenerConfig, LogConfig, LogFormat,
    LogLevel, NAME_DEFAULT, REGISTRY_PORT_DEFAULT, WORKER_THREADS_MAX,
};
use crate::access::identity::Method;
use crate::access::settings::Settings;
use crate::cluster::stream::LinkTlsFiles;
use crate::node_name::NodeName;
use crate::registry::CookieSource;
use crate::registry::cookie::COOKIE_VARIABLE;
use crate::registry::endpoint::is_loopback_host;

/// What flags say; `None` or empty where they are silent. Unchecked text where it has a form, so that
/// a bad flag and a bad line of the file get the same sentence.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--name`.
    pub name: Option<String>,
    /// `--listen`, each time it was given; replaces the listeners of the file.
    pub listen: Vec<String>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--cookie-file`.
    pub cookie_file: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--allow-crash`.
    pub allow_crash: bool,
    /// `--log-format`.
    pub log_format: Option<String>,
    /// `--log-level`.
    pub log_level: Option<String>,
    /// `--dist-port`.
    pub dist_port: Option<u16>,
    /// `--worker-threads`.
    pub worker_threads: Option<usize>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--registry-port`.
    pub registry_port: Option<u16>,
    /// `--allow-anonymous`.
    pub allow_anonymous: bool,
}

/// What the process environment says. A value, so that tests need no environment of their own.
#[derive(Clone, Default)]
pub struct Environment {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The text of `ERMINE_COOKIE`: wiped when it is dropped, never shown.
    pub cookie: Option<Zeroizing<String>>,
    /// `ERMINE_REGISTRY_PORT`.
    pub registry_port: Option<OsString>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            home: std::env::var_os("HOME")
                .filter(|home| !home.is_empty())
                .map(PathBuf::from),
            cookie: std::env::var_os(COOKIE_VARIABLE).map(|text| text.to_string_lossy().into_owned().into()),
            registry_port: std::env::var_os("ERMINE_REGISTRY_PORT"),
        }
    }

    /// The registry's port that the environment names, if it names one.
    ///
    /// # Errors
    /// One sentence if it is not a port.
    pub fn registry_port(&self) -> Result<Option<u16>, ConfigError> {
        let Some(text) = &self.registry_port else {
            return Ok(None);
        };
        let port = text
            .to_str()
            .and_then(|text| text.parse::<u16>().ok())
            .filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| {
            let text = text.to_string_lossy();
            ConfigError::new(format!(
                "ERMINE_REGISTRY_PORT must be a port from 1 to 65535, not '{text}'"
            ))
        })
    }

    /// Where the cookie comes from: the flag, the variable, the file's key, `~/.ermine.cookie`.
    ///
    /// # Errors
    /// One sentence if none of them is there.
    pub fn cookie_source(
        &self,
        flag: Option<PathBuf>,
        configured: Option<PathBuf>,
    ) -> Result<CookieSource, ConfigError> {
        let variable = self.cookie.as_ref().map(|text| text.to_string());
        let configured = configured
            .filter(|_| variable.is_none())
            .map(|path| self.expanded(path));
        CookieSource::find(flag.or(configured), variable, self.home.clone())
            .map_err(|error| ConfigError::new(error.to_string()))
    }

    /// A path of the file with `~/` in front means the home directory: no shell has seen it.
    fn expanded(&self, path: PathBuf) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path,
        }
    }

    fn home(&self, what: &str, flag: &str) -> Result<&Path, ConfigError> {
        self.home.as_deref().ok_or_else(|| {
            ConfigError::new(format!(
                "HOME is not set, so {what} has no default place; name it with {flag}"
            ))
        })
    }
}

/// The whole configuration: the file's draft, under the flags, over the defaults.
pub(super) fn lay_over(
    flags: &Flags,
    environment: &Environment,
    draft: Draft,
) -> Result<Config, ConfigError> {
    let name = match (&flags.name, draft.name) {
        (Some(text), _) => text
            .parse()
            .map_err(|error| ConfigError::new(format!("--name: {error}")))?,
        (None, Some(name)) => name,
        (None, None) => NAME_DEFAULT
            .parse::<NodeName>()
            .expect("the default name is well formed"),
    };
    let (mut listeners, limits) = (draft.listeners, draft.limits.of_listener());
    if !flags.listen.is_empty() {
        listeners = flags
            .listen
            .iter()
            .map(|text| word("--listen", text).map(|listen| ListenerConfig::plain(listen, limits)))
            .collect::<Result<_, _>>()?;
    }
    if listeners.is_empty() {
        let listen = LISTEN_DEFAULT.parse();
        listeners.push(ListenerConfig::plain(
            listen.expect("the default address is well formed"),
            limits,
        ));
    }
    let log = LogConfig {
        format: flag_or("--log-format", flags.log_format.as_deref(), draft.log_format)?
            .unwrap_or(LogFormat::Text),
        level: flag_or("--log-level", flags.log_level.as_deref(), draft.log_level)?.unwrap_or(LogLevel::Info),
    };
    let data_dir = match (&flags.data_dir, draft.data_dir) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => environment.expanded(path),
        (None, None) => environment
            .home("the data directory", "--data-dir")?
            .join(".ermine")
            .join(name.as_str()),
    };
    let registry_port = match flags.registry_port {
        Some(port) => Some(port),
        None => environment.registry_port()?.or(draft.registry_port),
    };
    let places = cluster::checked(draft.places, &name)?;
    Ok(Config {
        name,
        cookie: environment.cookie_source(flags.cookie_file.clone(), draft.cookie_file)?,
        data_dir,
        listeners: checked_listeners(listeners, environment)?,
        registry_port: registry_port.unwrap_or(REGISTRY_PORT_DEFAULT),
        dist_port: flags.dist_port.or(draft.dist_port).unwrap_or(0),
        link_tls: link_tls(environment, draft.link_tls),
        log,
        allow_crash: flags.allow_crash || draft.allow_crash.unwrap_or(false),
        worker_threads: worker_threads(flags.worker_threads, draft.worker_threads)?,
        limits: draft.limits,
        sharing: draft.sharing,
        suback: draft.suback.unwrap_or_default(),
        admin: admin(flags.admin.as_deref(), draft.admin)?,
        auth: auth(flags, environment, draft.auth)?,
        supervision: draft.supervision,
        places,
        store: draft.store,
        file: flags.config.clone(),
    })
}

/// What the file says of TLS between nodes, with whole paths.
fn link_tls(environment: &Environment, files: Option<LinkTlsFiles>) -> Option<LinkTlsFiles> {
    files.map(|files| LinkTlsFiles {
        certificate: environment.expanded(files.certificate),
        key: environment.expanded(files.key),
        ca: environment.expanded(files.ca),
    })
}

/// What the file says of access, with whole paths.
fn auth(flags: &Flags, environment: &Environment, mut auth: Settings) -> Result<Settings, ConfigError> {
    for path in [&mut auth.password_file, &mut auth.acl_file] {
        *path = path.take().map(|path| environment.expanded(path));
    }
    if let Some(jwt) = &mut auth.jwt {
        jwt.key_file = environment.expanded(std::mem::take(&mut jwt.key_file));
    }
    if flags.allow_anonymous {
        if !auth.chain.contains(&Method::Anonymous) {
            let what = "--allow-anonymous has no effect: the chain of [auth] does not name anonymous";
            return Err(ConfigError::new(what.into()));
        }
        auth.allow_anonymous = Some(true);
    }
    Ok(auth)
}

/// The value of a flag that is one word or address.
fn word<T: std::str::FromStr<Err = String>>(flag: &str, text: &str) -> Result<T, ConfigError> {
    text.parse()
        .map_err(|error| ConfigError::new(format!("{flag} {error}")))
}

fn flag_or<T: std::str::FromStr<Err = String>>(
    flag: &str,
    text: Option<&str>,
    draft: Option<T>,
) -> Result<Option<T>, ConfigError> {
    Ok(match text {
        Some(text) => Some(word(flag, text)?),
        None => draft,
    })
}

/// Off unless it has an address. Who reads the API's token on its way can do what an operator can.
fn admin(flag: Option<&str>, draft: AdminDraft) -> Result<Option<AdminConfig>, ConfigError> {
    let Some(listen) = flag_or("--admin", flag, draft.listen)? else {
        return Ok(None);
    };
    let allow_remote = draft.allow_remote.unwrap_or(false);
    if !allow_remote && !is_loopback_host(&listen.host) {
        return Err(ConfigError::new(format!(
            "the admin API at {listen} could be reached, without TLS, from other hosts; give it an address \
             of this host only, for example 127.0.0.1:{}, or set allow_remote = true in [admin]",
            listen.port
        )));
    }
    Ok(Some(AdminConfig {
        listen,
        allow_remote,
        open_metrics: draft.open_metrics.unwrap_or(true),
    }))
}

/// No address twice: the second bind would fail, and only after the first had opened.
fn checked_listeners(
    mut listeners: Vec<ListenerConfig>,
    environment: &Environment,
) -> Result<Vec<ListenerConfig>, ConfigError> {
    if listeners.len() > LISTENERS_MAX {
        let count = listeners.len();
        return Err(ConfigError::new(format!(
            "{count} listeners are too many; at most {LISTENERS_MAX} may be set"
        )));
    }
    let mut seen = HashSet::new();
    for listener in &mut listeners {
        expand(listener, environment);
        let listen = &listener.listen;
        if listen.is_fixed() && !seen.insert(listen.clone()) {
            return Err(ConfigError::new(format!(
                "{listen} is listed twice; leave out one of the listeners"
            )));
        }
    }
    Ok(listeners)
}

fn expand(listener: &mut ListenerConfig, environment: &Environment) {
    let mut paths: Vec<&mut PathBuf> = Vec::new();
    if let Listen::Unix(path) = &mut listener.listen {
        paths.push(path);
    }
    if let Some(tls) = &mut listener.tls {
        paths.extend([&mut tls.certificate, &mut tls.key]);
        paths.extend(&mut tls.client_ca);
    }
    for path in paths {
        *path = environment.expanded(std::mem::take(path));
    }
}

fn worker_threads(flag: Option<usize>, configured: Option<usize>) -> Result<usize, ConfigError> {
    let Some(threads) = flag.or(configured) else {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        return Ok(cores.min(WORKER_THREADS_MAX));
    };
    if (1..=WORKER_THREADS_MAX).contains(&threads) {
        return Ok(threads);
    }
    Err(ConfigError::new(format!(
        "--worker-threads must be from 1 to {WORKER_THREADS_MAX}, not {threads}"
    )))
}
