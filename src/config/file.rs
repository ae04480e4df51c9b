//! The TOML file: which keys there are, and the sentence for each way to get one wrong.
//!
//! The document is walked by hand, not through a derived `Deserialize`: only so can every complaint
//! name the line, and only so can an unknown key be answered with the one that was probably meant.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::limits::{self, Limits};
use super::listener::{self, ListenerConfig};
use super::supervision::{self, Supervision};
use super::{HostPort, LogFormat, LogLevel, WORKER_THREADS_MAX};
use super::{auth, cluster, store};
use crate::access::settings::Settings;
use crate::broker::confirm::Suback;
use crate::broker::desk::Sharing;
use crate::cluster::discovery::Places;
use crate::cluster::stream::LinkTlsFiles;
use crate::node_name::NodeName;
use crate::store::Pace;

/// Largest configuration file that is read, in bytes. A path like `/dev/zero` must end.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a configuration: one sentence with the place and the remedy. Nothing was
/// opened or created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

/// What a file says; `None` where it is silent.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) name: Option<NodeName>,
    pub(super) cookie_file: Option<PathBuf>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) listeners: Vec<ListenerConfig>,
    pub(super) registry_port: Option<u16>,
    pub(super) dist_port: Option<u16>,
    pub(super) link_tls: Option<LinkTlsFiles>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) allow_crash: Option<bool>,
    pub(super) worker_threads: Option<usize>,
    pub(super) auth: Settings,
    pub(super) limits: Limits,
    pub(super) sharing: Sharing,
    pub(super) suback: Option<Suback>,
    pub(super) supervision: Supervision,
    pub(super) places: Places,
    pub(super) admin: AdminDraft,
    pub(super) store: Pace,
}

/// `[admin]`.
#[derive(Debug, Default)]
pub(super) struct AdminDraft {
    pub(super) listen: Option<HostPort>,
    pub(super) allow_remote: Option<bool>,
    pub(super) open_metrics: Option<bool>,
}

/// Keys by section; the top level has no name. `[limits]` has its own table ([`limits::KEYS`]).
const TOP: &[&str] = &[
    "name",
    "cookie_file",
    "data_dir",
    "listener",
    "registry_port",
    "dist_port",
    "allow_crash",
    "worker_threads",
    "suback",
    "log",
    "limits",
    "shared_subscriptions",
    "admin",
    "auth",
    "acl",
    "supervision",
    "cluster",
    "store",
];
const SHARED: &[&str] = &["strategy", "groups"];
const LOG: &[&str] = &["format", "level"];
const ADMIN: &[&str] = &["listen", "allow_remote", "open_metrics"];

/// A key is taken for a misspelling of another one from this likeness on (0 to 1, Jaro-Winkler).
const LIKENESS_MIN: f64 = 0.8;

/// Reads the file into the draft.
pub(super) fn read(path: &Path, draft: &mut Draft) -> Result<(), ConfigError> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| {
        ConfigError(format!(
            "cannot read the configuration file {}: {error}",
            path.display()
        ))
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let file = path.display();
        return Err(ConfigError(format!(
            "{file} is larger than 1 MiB and therefore no configuration file"
        )));
    }
    parse(&Document { path, text: &text }, draft)
}

/// A file's text under its path: what turns a range of bytes into `path:line`.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    pub(super) fn error(&self, at: Range<usize>, what: impl std::fmt::Display) -> ConfigError {
        let start = at.start.min(self.text.len());
        let line = 1 + self.text.as_bytes()[..start]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        ConfigError(format!("{}:{line}: {what}", self.path.display()))
    }
}

fn parse(document: &Document<'_>, draft: &mut Draft) -> Result<(), ConfigError> {
    let table = DeTable::parse(document.text).map_err(|error| {
        let at = error.span().unwrap_or(0..0);
        document.error(at, format!("not TOML: {}", error.message().replace('\n', ", ")))
    })?;
    let top = Section::new(document, "", TOP, table.get_ref())?;
    draft.name = top.parsed_by("name", |text| {
        text.parse::<NodeName>().map_err(|error| error.to_string())
    })?;
    draft.cookie_file = top.string("cookie_file")?.map(PathBuf::from);
    draft.data_dir = top.string("data_dir")?.map(PathBuf::from);
    draft.registry_port = top.number("registry_port", 1, 65_535)?.map(|port| port as u16);
    draft.dist_port = top.number("dist_port", 0, 65_535)?.map(|port| port as u16);
    draft.allow_crash = top.boolean("allow_crash")?;
    draft.suback = top.parsed("suback")?;
    draft.worker_threads = top
        .number("worker_threads", 1, WORKER_THREADS_MAX as u64)?
        .map(|threads| threads as usize);
    // Before the listeners, which begin with what holds for all of them.
    if let Some(table) = top.table("limits")? {
        let section = Section::new(document, "[limits]", &limits::names(), table)?;
        read_limits(&section, &mut draft.limits)?;
        read_numbers(&section, &limits::NODE_KEYS, &mut draft.limits)?;
    }
    for table in top.tables("listener")? {
        let limits = draft.limits.of_listener();
        draft.listeners.push(listener::read(document, &table, limits)?);
    }
    if let Some(table) = top.table("log")? {
        let log = Section::new(document, "[log]", LOG, table)?;
        draft.log_format = log.parsed("format")?;
        draft.log_level = log.parsed("level")?;
    }
    if let Some(table) = top.table("shared_subscriptions")? {
        draft.sharing = sharing(document, table)?;
    }
    if let Some(table) = top.table("admin")? {
        let admin = Section::new(document, "[admin]", ADMIN, table)?;
        draft.admin = AdminDraft {
            listen: admin.parsed("listen")?,
            allow_remote: admin.boolean("allow_remote")?,
            open_metrics: admin.boolean("open_metrics")?,
        };
    }
    draft.auth = auth::read(document, top.table("auth")?, top.table("acl")?)?;
    if let Some(table) = top.table("supervision")? {
        let section = Section::new(document, "[supervision]", &supervision::SUPERVISORS, table)?;
        supervision::read(&section, &mut draft.supervision)?;
    }
    if let Some(table) = top.table("cluster")? {
        let section = Section::new(document, "[cluster]", cluster::KEYS, table)?;
        draft.places = cluster::read(&section)?;
        draft.link_tls = cluster::tls(document, &section)?;
    }
    if let Some(table) = top.table("store")? {
        draft.store = store::read(&Section::new(document, "[store]", store::KEYS, table)?)?;
    }
    Ok(())
}

/// The limits that stand in `[limits]` and in a `[[listener]]` alike.
pub(super) fn read_limits(section: &Section<'_>, into: &mut Limits) -> Result<(), ConfigError> {
    read_numbers(section, &limits::KEYS, into)?;
    if let Some(policy) = section.parsed_by(limits::QUEUE_POLICY, limits::queue_policy)? {
        into.client.queue_policy = policy;
    }
    if let Some(qos0) = section.boolean(limits::QUEUE_QOS0)? {
        into.client.queue_qos0 = qos0;
    }
    Ok(())
}

fn read_numbers(section: &Section<'_>, keys: &[limits::Key], into: &mut Limits) -> Result<(), ConfigError> {
    for key in keys {
        if let Some(number) = section.number(key.name, key.min, key.max)? {
            (key.set)(into, number);
        }
    }
    Ok(())
}

/// `[shared_subscriptions]`; below `groups` every key is the name of a group.
fn sharing(document: &Document<'_>, table: &DeTable<'_>) -> Result<Sharing, ConfigError> {
    let section = Section::new(document, "[shared_subscriptions]", SHARED, table)?;
    let mut sharing = Sharing {
        strategy: section.parsed("strategy")?.unwrap_or_default(),
        ..Sharing::default()
    };
    if let Some(table) = section.table("groups")? {
        let groups = Section { document, table };
        for name in table.keys() {
            let name = name.get_ref();
            if let Some(strategy) = groups.parsed(name)? {
                sharing.groups.insert(name.to_string(), strategy);
            }
        }
    }
    Ok(sharing)
}

/// One table of the document whose keys are known to be valid.
pub(super) struct Section<'a> {
    pub(super) document: &'a Document<'a>,
    table: &'a DeTable<'a>,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    /// Refuses keys that the section does not have.
    pub(super) fn new(
        document: &'a Document<'a>,
        title: &str,
        keys: &[&str],
        table: &'a DeTable<'a>,
    ) -> Result<Self, ConfigError> {
        for key in table.keys() {
            if !keys.contains(&key.get_ref().as_ref()) {
                return Err(document.error(key.span(), unknown(key.get_ref(), title, keys)));
            }
        }
        Ok(Self { document, table })
    }

    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        self.table.get(key)
    }

    fn wrong(&self, key: &str, value: Value<'_>, wanted: &str) -> ConfigError {
        let found = kind(value.get_ref());
        self.document
            .error(value.span(), format!("{key} must be {wanted}, not {found}"))
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(text) if text.is_empty() => Err(self.document.error(
                value.span(),
                format!("{key} is empty; give a value or leave it out"),
            )),
            DeValue::String(text) => Ok(Some(text)),
            _ => Err(self.wrong(key, value, "a text in quotes")),
        }
    }

    pub(super) fn parsed<T: FromStr<Err = String>>(&self, key: &str) -> Result<Option<T>, ConfigError> {
        self.parsed_by(key, |text| text.parse().map_err(|error| format!("{key} {error}")))
    }

    pub(super) fn parsed_by<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        let at = self.value(key).map_or(0..0, Spanned::span);
        parse(text)
            .map(Some)
            .map_err(|error| self.document.error(at, error))
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            _ => Err(self.wrong(key, value, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(self.wrong(key, value, &format!("a number from {min} to {max}")));
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => {
                let what = format!("{key} must be a number from {min} to {max}, not {integer}");
                Err(self.document.error(value.span(), what))
            }
        }
    }

    /// A list of words.
    pub(super) fn words(&self, key: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let wanted = "a list of words in quotes";
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong(key, value, wanted));
        };
        let word = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(self.wrong(key, item, wanted)),
        };
        items.iter().map(word).collect::<Result<_, _>>().map(Some)
    }

    /// What is wrong with a key, or with the section for the lack of it; told at the key's place, or else
    /// at that of the first key of the section.
    pub(super) fn lacks(&self, key: &str, what: &str) -> ConfigError {
        let first = || self.table.keys().next().map(Spanned::span);
        let at = self.value(key).map(Spanned::span).or_else(first);
        self.document.error(at.unwrap_or(0..0), what)
    }

    pub(super) fn table(&self, key: &str) -> Result<Option<&'a DeTable<'a>>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(table)),
            _ => Err(self.wrong(key, value, &format!("a section, [{key}]"))),
        }
    }

    /// The tables of `[[key]]`, each with the place of its header.
    fn tables(&self, key: &str) -> Result<Vec<Spanned<&'a DeTable<'a>>>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(Vec::new());
        };
        let wanted = format!("a list of sections, [[{key}]] with two brackets");
        let DeValue::Array(items) = value.get_ref() else {
            return Err(self.wrong(key, value, &wanted));
        };
        let table = |item: &'a Spanned<DeValue<'a>>| match item.get_ref() {
            DeValue::Table(table) => Ok(Spanned::new(item.span(), table)),
            _ => Err(self.wrong(key, item, &wanted)),
        };
        items.iter().map(table).collect()
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// The sentence for a key that a section does not have.
fn unknown(key: &str, title: &str, keys: &[&str]) -> String {
    let (limit_keys, listener_keys) = (limits::names(), listener::keys());
    let all: [(&str, &[&str]); 14] = [
        ("the top level", TOP),
        ("[log]", LOG),
        ("[shared_subscriptions]", SHARED),
        ("[admin]", ADMIN),
        ("[limits]", &limit_keys),
        ("[auth]", auth::AUTH),
        ("[auth.jwt]", auth::JWT),
        ("[auth.http]", auth::HTTP),
        ("[acl]", auth::ACL),
        ("[supervision]", &supervision::SUPERVISORS),
        ("[cluster]", cluster::KEYS),
        ("[store]", store::KEYS),
        (supervision::TITLE, &supervision::KEYS),
        // Behind those whose keys it shares.
        ("[[listener]]", &listener_keys),
    ];
    let place = if title.is_empty() {
        String::new()
    } else {
        format!(" in {title}")
    };
    let home = all.iter().find(|(_, keys)| keys.contains(&key));
    if let Some((section, _)) = home {
        return format!("unknown key '{key}'{place}; it belongs to {section}");
    }
    let likeness = |name: &str| strsim::jaro_winkler(&key.replace('-', "_").to_ascii_lowercase(), name);
    let nearest = |keys: &[&'static str]| {
        let scored = keys.iter().map(|name| (likeness(name), *name));
        scored
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score >= LIKENESS_MIN)
    };
    let own = all
        .iter()
        .find(|(section, _)| *section == title)
        .map_or(TOP, |(_, keys)| keys);
    if let Some((_, name)) = nearest(own) {
        return format!("unknown key '{key}'{place}; did you mean '{name}'?");
    }
    // Of equals the first: what also stands in a listener is told of [limits].
    let elsewhere = all
        .iter()
        .rev()
        .filter_map(|(section, keys)| nearest(keys).map(|near| (near, *section)));
    if let Some(((_, name), section)) = elsewhere.max_by(|a, b| a.0.0.total_cmp(&b.0.0)) {
        return format!("unknown key '{key}'{place}; did you mean '{name}' of {section}?");
    }
    format!(
        "unknown key '{key}'{place}; the keys there are {}",
        keys.join(", ")
    )
}
