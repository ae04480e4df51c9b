//! Any strings as topic names and filters: which are valid, what matches, and the two indexes (filters in
//! a trie, retained messages by topic) against lists that are searched from end to end.
//!
//! An input is lines, each with a letter in front that says what to do with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use crate::limits::TOPIC_LEVELS_MAX;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;
use crate::mqtt::topic;
use crate::routing::retained::{RetainedLimits, RetainedStore};
use crate::routing::trie::Trie;

/// Whether `filter` matches `name`, told level by level from the definition in section 4.7.
fn matches(filter: &[&str], name: &[&str]) -> bool {
    match (filter, name) {
        ([], []) | (["#"], _) => true,
        (["+", filter @ ..], [_, name @ ..]) => matches(filter, name),
        ([wanted, filter @ ..], [level, name @ ..]) => wanted == level && matches(filter, name),
        _ => false,
    }
}

fn model_matches(filter: &str, name: &str) -> bool {
    let (filter_levels, levels): (Vec<_>, Vec<_>) = (filter.split('/').collect(), name.split('/').collect());
    let hidden = name.starts_with('$') && matches!(filter_levels[0], "+" | "#");
    !hidden && matches(&filter_levels, &levels)
}

fn model_is_name(name: &str) -> bool {
    (1..=65_535).contains(&name.len())
        && !name.contains(['+', '#', '\0'])
        && name.split('/').count() <= TOPIC_LEVELS_MAX
}

fn model_is_filter(filter: &str) -> bool {
    let inner = match filter.strip_prefix("$share/").map(|rest| rest.split_once('/')) {
        None => filter,
        Some(Some((group, inner))) if !group.is_empty() && !group.contains(['+', '#']) => inner,
        Some(_) => return false,
    };
    let levels: Vec<_> = inner.split('/').collect();
    let (last, front) = levels.split_last().expect("at least one level");
    let plain = |level: &str| level == "+" || !level.contains(['+', '#']);
    (1..=65_535).contains(&filter.len())
        && !inner.is_empty()
        && !filter.contains('\0')
        && levels.len() <= TOPIC_LEVELS_MAX
        && front.iter().all(|level| plain(level))
        && (*last == "#" || plain(last))
}

fn message(name: &str, payload: &str) -> Message {
    Message {
        topic: name.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtMostOnce,
        retain: true,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: ByteString::new(),
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let now = Instant::now();
    let mut trie = Trie::new();
    let mut filters = BTreeMap::new();
    let mut store = RetainedStore::new(RetainedLimits::default());
    let mut retained = BTreeSet::new();
    for (number, line) in text.split('\n').enumerate() {
        let mut letters = line.chars();
        let (what, topic) = (letters.next().unwrap_or(' '), letters.as_str());
        let (is_name, is_filter) = (
            topic::check_name(topic).is_ok(),
            topic::check_filter(topic).is_ok(),
        );
        assert_eq!(is_name, model_is_name(topic), "name {topic:?}");
        assert_eq!(is_filter, model_is_filter(topic), "filter {topic:?}");
        let is_plain_filter = is_filter && !topic.starts_with("$share/");
        match what {
            'i' if is_plain_filter => assert_eq!(trie.insert(topic, number), filters.insert(topic, number)),
            'd' if is_plain_filter => assert_eq!(trie.remove(topic), filters.remove(topic)),
            'q' if is_name => same_matches(&trie, &filters, topic),
            'r' if is_name => {
                store.set(&message(topic, "x"));
                retained.insert(topic);
            }
            'c' if is_name => {
                store.set(&message(topic, ""));
                retained.remove(topic);
            }
            'm' if is_plain_filter => same_retained(&store, &retained, topic, now),
            _ => {}
        }
        assert_eq!((trie.len(), store.len()), (filters.len(), retained.len()));
    }
}

fn same_matches(trie: &Trie<usize>, filters: &BTreeMap<&str, usize>, name: &str) {
    let mut found = Vec::new();
    trie.matches(name, &mut |value| found.push(*value));
    found.sort_unstable();
    let mut wanted = Vec::new();
    for (filter, value) in filters {
        let is_match = model_matches(filter, name);
        assert_eq!(topic::matches(filter, name), is_match, "{filter:?} and {name:?}");
        wanted.extend(is_match.then_some(*value));
    }
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{name:?} in {filters:?}");
}

fn same_retained(store: &RetainedStore, names: &BTreeSet<&str>, filter: &str, now: Instant) {
    let mut found = BTreeSet::new();
    store.matching(filter, now, &mut |message| {
        assert!(found.insert(message.topic.to_string()), "twice");
    });
    let wanted = names.iter().filter(|name| model_matches(filter, name));
    assert_eq!(
        found,
        wanted.map(|name| (*name).to_owned()).collect(),
        "{filter:?} in {names:?}"
    );
}
