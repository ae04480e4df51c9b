//! Topic names and topic filters `[MQTT-4.7]`, shared subscriptions `[MQTT-4.8.2]`.
//!
//! Names and filters travel as plain strings; what is checked here is checked once, where they
//! enter. Comparing is byte by byte, without normalisation `[MQTT-4.7.3-4]`.

use crate::limits::TOPIC_LEVELS_MAX;

/// What marks the filter of a shared subscription.
pub const SHARE_PREFIX: &str = "$share/";

/// Longest topic name or filter in bytes: the length goes out in two bytes `[MQTT-4.7.3-3]`.
pub const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// Why a string is no topic name or no topic filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicError {
    /// Names and filters have at least one character `[MQTT-4.7.3-1]`.
    #[error("a topic must have at least one character")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes `[MQTT-4.7.3-3]`.
    #[error("a topic must not have more than 65,535 bytes")]
    TooLong,
    /// Contains U+0000 `[MQTT-4.7.3-2]`.
    #[error("a topic must not contain the character U+0000")]
    Nul,
    /// A name contains `+` or `#` `[MQTT-3.3.2-2]`.
    #[error("a topic name must not contain + or #")]
    Wildcard,
    /// A `+` does not stand alone in its level, or a `#` not alone in the last one
    /// `[MQTT-4.7.1-1]` `[MQTT-4.7.1-2]`.
    #[error("+ must stand alone in its level and # alone in the last level")]
    WildcardPlacement,
    /// More than [`TOPIC_LEVELS_MAX`] levels: our bound, matching costs time per level.
    #[error("a topic must not have more than {TOPIC_LEVELS_MAX} levels")]
    TooManyLevels,
    /// The share name is empty or contains `+` or `#` `[MQTT-4.8.2-1]` `[MQTT-4.8.2-2]`.
    #[error("the name of a shared subscription must not be empty nor contain + or #")]
    ShareName,
    /// No filter follows the share name `[MQTT-4.8.2-2]`.
    #[error("a shared subscription needs a topic filter behind its name: $share/name/filter")]
    ShareFilter,
}

/// Whether `name` is a topic name that can be published to.
///
/// # Errors
/// The first rule that it breaks. Names that begin with `$` are valid here: who may publish to them
/// is decided elsewhere.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_size(name)?;
    if let Some(special) = name.bytes().find(|byte| matches!(byte, 0 | b'+' | b'#')) {
        return Err(if special == 0 {
            TopicError::Nul
        } else {
            TopicError::Wildcard
        });
    }
    // A shorter name cannot have so many slashes.
    if name.len() >= TOPIC_LEVELS_MAX && name.split('/').count() > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

/// Whether `filter` is a topic filter, `$share/…` included (see [`SharedFilter::parse`]).
///
/// # Errors
/// The first rule that it breaks.
pub fn check_filter(filter: &str) -> Result<(), TopicError> {
    check_syntax(filter)?;
    let inner = SharedFilter::parse(filter)?.map_or(filter, |shared| shared.filter);
    if inner.split('/').count() > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

/// Whether `filter` is well-formed as every filter must be `[MQTT-4.7.1]` `[MQTT-4.7.3]`; what is
/// wrong beyond that (shares, number of levels) is answered in SUBACK and not by closing.
///
/// # Errors
/// Empty, too long, U+0000 or a wildcard in the wrong place.
pub fn check_syntax(filter: &str) -> Result<(), TopicError> {
    check_size(filter)?;
    if filter.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let last = levels.peek().is_none();
        if level.contains('+') && level != "+" || level.contains('#') && (level != "#" || !last) {
            return Err(TopicError::WildcardPlacement);
        }
    }
    Ok(())
}

/// Whether a topic name or filter is within bounds that are narrower than MQTT's; of a shared subscription
/// the filter behind the group counts.
#[must_use]
pub fn is_within(topic: &str, levels_max: usize, bytes_max: usize) -> bool {
    let inner = match SharedFilter::parse(topic) {
        Ok(Some(shared)) => shared.filter,
        _ => topic,
    };
    let levels = || inner.bytes().filter(|byte| *byte == b'/').count() + 1;
    // A shorter one cannot have so many slashes.
    inner.len() <= bytes_max && (inner.len() < levels_max || levels() <= levels_max)
}

fn check_size(topic: &str) -> Result<(), TopicError> {
    match topic.len() {
        0 => Err(TopicError::Empty),
        1..=TOPIC_BYTES_MAX => Ok(()),
        _ => Err(TopicError::TooLong),
    }
}

/// Whether a filter has a wildcard; both must be valid.
#[must_use]
pub fn has_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// Whether a topic name is hidden from filters that begin with a wildcard `[MQTT-4.7.2-1]`.
#[must_use]
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('$')
}

/// Whether a topic name is the broker's own: `$SYS` and what is below it. Clients read it and do not write
/// it, as with mosquitto; other names that begin with `$` are theirs to use.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.strip_prefix("$SYS")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a valid topic filter matches a valid topic name `[MQTT-4.7.1]` `[MQTT-4.7.2-1]`.
///
/// `filter` is the plain one: of a shared subscription pass [`SharedFilter::filter`].
#[must_use]
pub fn matches(filter: &str, name: &str) -> bool {
    if is_hidden(name) && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut pattern = filter.split('/');
    let mut levels = name.split('/');
    loop {
        match (pattern.next(), levels.next()) {
            // `a/#` matches `a` too: the number sign includes the parent level.
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

/// The two parts of a shared subscription's filter `$share/{group}/{filter}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SharedFilter<'a> {
    /// The share name; not empty, without `/`, `+` and `#`.
    pub group: &'a str,
    /// The topic filter whose messages the group shares; not empty.
    pub filter: &'a str,
}

impl<'a> SharedFilter<'a> {
    /// The parts of `filter` if it begins with `$share/`, `None` if it is not shared.
    ///
    /// # Errors
    /// [`TopicError::ShareName`] or [`TopicError::ShareFilter`]: SUBACK says 0x8F. Wildcards of the
    /// inner filter are not looked at: [`check_filter`] does that.
    pub fn parse(filter: &'a str) -> Result<Option<Self>, TopicError> {
        let Some(rest) = filter.strip_prefix(SHARE_PREFIX) else {
            return Ok(None);
        };
        let (group, inner) = rest.split_once('/').unwrap_or((rest, ""));
        if group.is_empty() || has_wildcard(group) {
            return Err(TopicError::ShareName);
        }
        if inner.is_empty() {
            return Err(TopicError::ShareFilter);
        }
        Ok(Some(Self { group, filter: inner }))
    }
}

#[cfg(test)]
mod tests;
