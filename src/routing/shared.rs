//! The shared groups of one plain filter: which of them have members here, and on which other nodes.
//!
//! A group is announced by an entry of its own, `$share/{group}/{filter}`, and matched with its filter.

use std::sync::Arc;

use bytestring::ByteString;

use super::node_set::{NodeIndex, NodeSet};

/// One group.
#[derive(Debug)]
struct Group {
    /// Its whole filter, `$share/…` included.
    text: Arc<str>,
    /// Whether this node announces it.
    own: bool,
    nodes: NodeSet,
}

/// The groups of one filter; most filters have none, and pay one word.
#[derive(Debug, Default)]
pub(super) struct SharedGroups(Option<Box<Groups>>);

#[derive(Debug, Default)]
struct Groups {
    list: Vec<Group>,
}

impl SharedGroups {
    /// Whether there is no group.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A node has members of this group; whether it had none.
    pub(super) fn add(&mut self, text: &Arc<str>, node: NodeIndex) -> bool {
        self.group(text, || text.clone()).nodes.insert(node)
    }

    /// A node has none of this group any more; whether it had.
    pub(super) fn remove(&mut self, text: &str, node: NodeIndex) -> bool {
        let mut had = false;
        self.change(|group| had |= &*group.text == text && group.nodes.remove(node));
        had
    }

    /// A node has none of any group any more.
    pub(super) fn remove_node(&mut self, node: NodeIndex) {
        self.change(|group| {
            group.nodes.remove(node);
        });
    }

    /// Whether a node has members of any group.
    pub(super) fn has(&self, node: NodeIndex) -> bool {
        self.list().iter().any(|group| group.nodes.contains(node))
    }

    /// These groups have members here, and no others. Calls `told` with each that came (`true`) or went.
    pub(super) fn set_own(&mut self, texts: &[ByteString], mut told: impl FnMut(&str, bool)) {
        self.change(|group| {
            let stays = texts.iter().any(|text| **text == *group.text);
            if group.own && !stays {
                told(&group.text, false);
                group.own = false;
            }
        });
        for text in texts {
            let group = self.group(text, || Arc::from(&**text));
            if !std::mem::replace(&mut group.own, true) {
                told(text, true);
            }
        }
    }

    /// The groups with members here.
    pub(super) fn own(&self) -> impl Iterator<Item = &str> {
        self.list()
            .iter()
            .filter(|group| group.own)
            .map(|group| &*group.text)
    }

    /// All groups: filter, whether it has members here, nodes with members.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, bool, &NodeSet)> {
        self.list()
            .iter()
            .map(|group| (&group.text, group.own, &group.nodes))
    }

    fn list(&self) -> &[Group] {
        self.0.as_deref().map_or(&[], |groups| &groups.list)
    }

    fn group(&mut self, text: &str, new: impl FnOnce() -> Arc<str>) -> &mut Group {
        let list = &mut self.0.get_or_insert_default().list;
        let position = list.iter().position(|group| &*group.text == text);
        let position = position.unwrap_or_else(|| {
            list.push(Group {
                text: new(),
                own: false,
                nodes: NodeSet::new(),
            });
            list.len() - 1
        });
        &mut list[position]
    }

    fn change(&mut self, mut change: impl FnMut(&mut Group)) {
        let Some(groups) = &mut self.0 else { return };
        groups.list.iter_mut().for_each(&mut change);
        groups.list.retain(|group| group.own || !group.nodes.is_empty());
        if groups.list.is_empty() {
            self.0 = None;
        }
    }
}
