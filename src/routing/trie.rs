//! Topic filter → value, matched against topics on the hot path.
//!
//! All filters lie in one hash table by their text: a topic finds its exact filter there in one
//! look-up. Filters with wildcards are in the trie of levels beside it as well. Matching allocates nothing; a
//! filter costs about 100 bytes and its text, a level that it alone has about 50 more.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use super::wildcards::{Wildcards, is_wildcard};

#[cfg(test)]
pub(super) mod tests;

/// Where a filter lies as long as it is in its [`Trie`]; used again after its removal.
pub(super) type Slot = u32;

#[derive(Debug)]
struct Entry<V> {
    filter: Arc<str>,
    value: V,
}

/// Topic filters and a value for each.
///
/// Filters are taken as valid (`[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`); a `+` or `#` in the wrong place is
/// a letter like any other. A wildcard filter of more than
/// [`TOPIC_LEVELS_MAX`](crate::limits::TOPIC_LEVELS_MAX) levels before a `#` is kept and matches nothing.
#[derive(Debug)]
pub struct Trie<V> {
    index: HashMap<Arc<str>, Slot, RandomState>,
    entries: Vec<Option<Entry<V>>>,
    entries_free: Vec<Slot>,
    wildcards: Wildcards,
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Trie<V> {
    /// A trie without filters.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: HashMap::default(),
            entries: Vec::new(),
            entries_free: Vec::new(),
            wildcards: Wildcards::new(),
        }
    }

    /// How many filters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Sets the value of `filter`; the old one is returned.
    pub fn insert(&mut self, filter: &str, value: V) -> Option<V> {
        match self.get_mut(filter) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                self.put(filter.into(), value);
                None
            }
        }
    }

    /// The value of exactly this filter.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&V> {
        self.slot(filter).map(|slot| self.at(slot))
    }

    /// The value of exactly this filter, to be changed.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        self.slot(filter).map(|slot| self.at_mut(slot))
    }

    /// Removes exactly this filter and returns its value.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        self.slot(filter).map(|slot| self.remove_at(slot))
    }

    /// Calls `found` with the value of every filter that matches `topic`, in no promised order.
    ///
    /// A topic that starts with `$` is not matched by a filter that starts with a wildcard
    /// `[MQTT-4.7.2-1]`.
    pub fn matches(&self, topic: &str, found: &mut impl FnMut(&V)) {
        if let Some(value) = self.get(topic) {
            found(value);
        }
        self.wildcards.matches(topic, &mut |slot| found(self.at(slot)));
    }

    /// All filters with their values, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries
            .iter()
            .flatten()
            .map(|entry| (&*entry.filter, &entry.value))
    }

    /// Where `filter` lies.
    pub(super) fn slot(&self, filter: &str) -> Option<Slot> {
        self.index.get(filter).copied()
    }

    /// Puts in a filter that is not there yet; its text is shared, not copied.
    pub(super) fn put(&mut self, filter: Arc<str>, value: V) -> Slot {
        let entry = Some(Entry {
            filter: filter.clone(),
            value,
        });
        let slot = match self.entries_free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("four billion filters do not fit in memory")
            }
        };
        if is_wildcard(&filter) {
            self.wildcards.insert(&filter, slot);
        }
        let before = self.index.insert(filter, slot);
        debug_assert!(before.is_none(), "the filter was in the trie already");
        slot
    }

    /// The value in a slot that is in use.
    pub(super) fn at(&self, slot: Slot) -> &V {
        &self.entries[slot as usize]
            .as_ref()
            .expect("slots are given out only while in use")
            .value
    }

    /// The value in a slot that is in use, to be changed.
    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.entries[slot as usize]
            .as_mut()
            .expect("slots are given out only while in use")
            .value
    }

    /// Empties a slot that is in use.
    pub(super) fn remove_at(&mut self, slot: Slot) -> V {
        let entry = self.entries[slot as usize]
            .take()
            .expect("slots are given out only while in use");
        self.index.remove(&*entry.filter);
        if is_wildcard(&entry.filter) {
            self.wildcards.remove(&entry.filter);
        }
        self.entries_free.push(slot);
        if self.index.is_empty() {
            // A table that was once large must not stay so for ever.
            *self = Self::new();
        }
        entry.value
    }
}
