//! Access rules, in the syntax of mosquitto's `acl_file`, so that people can bring theirs.
//!
//! ```text
//! # before the first `user`: what anonymous clients may do, and nobody else
//! topic read public/#
//!
//! user alice
//! topic readwrite home/#
//! topic deny home/safe
//!
//! # for everybody: %u is the user name, %c the client id
//! pattern write devices/%c/state
//! ```
//!
//! `topic` and `pattern` take `read`, `write`, `readwrite` (the default) or `deny`, and the rest of the
//! line as a topic filter.
//!
//! # Which rule decides
//!
//! 1. The rules of the client's user, or of anonymous clients: a `deny` that matches refuses, else a rule
//!    that matches and allows what is asked grants.
//! 2. The patterns, in the same way.
//! 3. Nothing matched: refused.
//!
//! So the order of lines within a section does not matter and `deny` wins there, but a `topic` line of
//! a user wins over a `pattern deny`. This is how mosquitto decides.
//!
//! A name that contains `+` or `#` would turn a pattern into a wildcard: all that a pattern with its
//! placeholder would decide for such a client is refused. A pattern with `%u` is none for a client without
//! a user name.
//!
//! # Subscriptions
//!
//! A filter is refused if nothing could ever come of it: a `deny` covers all of it, or no rule that allows
//! reading has a topic in common with it. Otherwise it is granted, and each message is checked when it is
//! delivered. So `#` brings a client exactly what it may read, as with mosquitto, and a filter of
//! which it may read nothing is answered with 0x87 (0x80 in 3.1.1), as with EMQX.

use std::borrow::Cow;

use ahash::AHashMap;

use crate::limits::{ACL_LINE_BYTES_MAX, ACL_RULES_MAX};
use crate::mqtt::topic::{SharedFilter, check_syntax, matches};

/// What a client wants to do with a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Publish to it.
    Write,
    /// Get a message that was published to it.
    Read,
}

/// Who wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// The user name that was authenticated; `None` is an anonymous client.
    pub username: Option<&'a str>,
    /// The client id.
    pub client_id: &'a str,
}

/// What a line grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Grant {
    Read,
    Write,
    Both,
}

impl Grant {
    fn allows(self, action: Action) -> bool {
        matches!(
            (self, action),
            (Self::Both, _) | (Self::Read, Action::Read) | (Self::Write, Action::Write)
        )
    }
}

/// The lines of one section. Refusals are asked first, so their place in the file does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Section {
    denied: Vec<String>,
    granted: Vec<(Grant, String)>,
}

/// What a rule's filter is for one client.
enum Meant<'a> {
    Filter(Cow<'a, str>),
    /// The client has no such name: the rule is not for it.
    Nothing,
    /// The client's name has a wildcard in it.
    Wildcard,
}

/// The rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Acl {
    anonymous: Section,
    users: AHashMap<String, Section>,
    patterns: Section,
}

/// What is wrong with a line of an ACL file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct AclError {
    /// Counted from 1.
    pub line: usize,
    /// In half a sentence.
    pub what: String,
}

impl Acl {
    /// Reads the text of an ACL file.
    ///
    /// # Errors
    /// The first line that is no rule.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        let mut acl = Self::default();
        let mut user: Option<String> = None;
        let mut rules = 0;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: String| AclError {
                line: index + 1,
                what,
            };
            if line.len() > ACL_LINE_BYTES_MAX {
                return Err(wrong(format!("longer than {ACL_LINE_BYTES_MAX} bytes")));
            }
            rules += 1;
            if rules > ACL_RULES_MAX {
                return Err(wrong(format!("more than {ACL_RULES_MAX} rules")));
            }
            let (word, rest) = split_word(line);
            match word {
                "user" if rest.is_empty() => return Err(wrong("`user` needs a name".into())),
                "user" => {
                    acl.users.entry(rest.to_owned()).or_default();
                    user = Some(rest.to_owned());
                }
                "topic" => {
                    let section = match &user {
                        Some(user) => acl.users.entry(user.clone()).or_default(),
                        None => &mut acl.anonymous,
                    };
                    section.add(word, rest).map_err(wrong)?;
                }
                "pattern" => acl.patterns.add(word, rest).map_err(wrong)?,
                other => {
                    let other = other.escape_debug();
                    return Err(wrong(format!("'{other}' is none of user, topic and pattern")));
                }
            }
        }
        Ok(acl)
    }

    /// Adds rules for everybody, as `pattern` lines do: what a token says of its bearer.
    ///
    /// # Errors
    /// Half a sentence, if `filter` is no topic filter.
    pub fn grant(&mut self, actions: &[Action], filter: &str) -> Result<(), String> {
        let (read, write) = (actions.contains(&Action::Read), actions.contains(&Action::Write));
        let word = match (read, write) {
            (true, true) => "readwrite",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => return Ok(()),
        };
        self.patterns.add("pattern", &format!("{word} {filter}"))
    }

    /// Whether `subject` may do `action` with the topic name `topic`.
    #[must_use]
    pub fn allows(&self, subject: &Subject<'_>, action: Action, topic: &str) -> bool {
        let own = self.section_of(subject).and_then(|own| {
            let denied = own.denied.iter().any(|filter| matches(filter, topic));
            let granted = || {
                own.granted
                    .iter()
                    .any(|(grant, filter)| grant.allows(action) && matches(filter, topic))
            };
            decided(denied, granted)
        });
        own.or_else(|| {
            self.patterns.decide(
                subject,
                action,
                |filter| matches(filter, topic),
                |filter| matches(filter, topic),
            )
        })
        .unwrap_or(false)
    }

    /// Whether `subject` may subscribe to `filter`, `$share/…` included: whether anything that it may read
    /// could come of it.
    #[must_use]
    pub fn allows_subscription(&self, subject: &Subject<'_>, filter: &str) -> bool {
        let Ok(shared) = SharedFilter::parse(filter) else {
            return false;
        };
        let filter = shared.map_or(filter, |shared| shared.filter);
        let own = self.section_of(subject).and_then(|own| {
            let denied = own.denied.iter().any(|rule| covers(rule, filter));
            let granted = || {
                own.granted
                    .iter()
                    .any(|(grant, rule)| grant.allows(Action::Read) && overlap(rule, filter))
            };
            decided(denied, granted)
        });
        own.or_else(|| {
            self.patterns.decide(
                subject,
                Action::Read,
                |rule| covers(rule, filter),
                |rule| overlap(rule, filter),
            )
        })
        .unwrap_or(false)
    }

    fn section_of(&self, subject: &Subject<'_>) -> Option<&Section> {
        match subject.username {
            Some(username) => self.users.get(username),
            None => Some(&self.anonymous),
        }
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let sections = self.users.values().chain([&self.anonymous, &self.patterns]);
        sections
            .map(|section| section.denied.len() + section.granted.len())
            .sum()
    }

    /// Whether it has no rule: then everything is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn decided(denied: bool, granted: impl FnOnce() -> bool) -> Option<bool> {
    if denied {
        return Some(false);
    }
    granted().then_some(true)
}

impl Section {
    /// `rest` is what follows the word `topic` or `pattern`.
    fn add(&mut self, word: &str, rest: &str) -> Result<(), String> {
        let (first, filter) = split_word(rest);
        let (grant, filter) = match (first, filter) {
            // One word alone is a topic, even if it is called `read`.
            (_, "") => (Some(Grant::Both), rest),
            ("read", filter) => (Some(Grant::Read), filter),
            ("write", filter) => (Some(Grant::Write), filter),
            ("readwrite", filter) => (Some(Grant::Both), filter),
            ("deny", filter) => (None, filter),
            // Topics may contain spaces.
            _ => (Some(Grant::Both), rest),
        };
        if filter.is_empty() {
            return Err(format!("`{word}` needs a topic filter"));
        }
        check_syntax(filter).map_err(|error| {
            let filter = filter.escape_debug();
            format!("'{filter}' is no topic filter: {error}")
        })?;
        match grant {
            Some(grant) => self.granted.push((grant, filter.to_owned())),
            None => self.denied.push(filter.to_owned()),
        }
        Ok(())
    }

    /// What the patterns decide; `None` if none of them is about it.
    fn decide(
        &self,
        subject: &Subject<'_>,
        action: Action,
        denies: impl Fn(&str) -> bool,
        grants: impl Fn(&str) -> bool,
    ) -> Option<bool> {
        for rule in &self.denied {
            match meant(rule, subject) {
                Meant::Filter(filter) if denies(&filter) => return Some(false),
                Meant::Wildcard => return Some(false),
                _ => {}
            }
        }
        let mut granted = false;
        for (grant, rule) in &self.granted {
            match meant(rule, subject) {
                Meant::Filter(filter) => granted |= grant.allows(action) && grants(&filter),
                Meant::Wildcard | Meant::Nothing => {}
            }
        }
        granted.then_some(true)
    }
}

/// The filter that a pattern is for one client.
fn meant<'a>(rule: &'a str, subject: &Subject<'_>) -> Meant<'a> {
    if !rule.contains('%') {
        return Meant::Filter(Cow::Borrowed(rule));
    }
    let mut filter = String::with_capacity(rule.len() + 32);
    let mut rest = rule;
    while let Some(at) = rest.find('%') {
        filter.push_str(&rest[..at]);
        let name = match rest.as_bytes().get(at + 1) {
            Some(b'u') => match subject.username {
                Some(username) => username,
                None => return Meant::Nothing,
            },
            Some(b'c') => subject.client_id,
            _ => {
                filter.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        };
        if name.contains(['+', '#']) {
            return Meant::Wildcard;
        }
        filter.push_str(name);
        rest = &rest[at + 2..];
    }
    filter.push_str(rest);
    Meant::Filter(Cow::Owned(filter))
}

fn split_word(line: &str) -> (&str, &str) {
    match line.split_once([' ', '\t']) {
        Some((word, rest)) => (word, rest.trim()),
        None => (line, ""),
    }
}

/// Whether `rule` is hidden from `filter`, or the other way round, by a leading `$`.
fn apart(rule: &str, filter: &str) -> bool {
    let wild = |filter: &str| filter.starts_with(['+', '#']);
    rule.starts_with('$') && wild(filter) || filter.starts_with('$') && wild(rule)
}

/// Whether every topic that matches `filter` matches `rule`.
fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && apart(rule, filter) {
        return false;
    }
    // Every topic has a first level.
    let rule = if rule == "+/#" { "#" } else { rule };
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// Whether a topic could match both.
fn overlap(rule: &str, filter: &str) -> bool {
    if apart(rule, filter) {
        return false;
    }
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
