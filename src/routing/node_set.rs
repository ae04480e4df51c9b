//! Nodes as small numbers, and sets of them that are united in a few instructions.

/// A remote node of the [`RouteTable`](super::RouteTable). Used again once its routes are gone, so it
/// is to be kept no longer than the table's version stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub u16);

/// A set of nodes: one bit each, the first 64 without an allocation.
#[derive(Clone, Default, Debug)]
pub struct NodeSet {
    first: u64,
    more: Option<Box<[u64]>>,
}

impl NodeSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node; whether it was not in the set before.
    pub fn insert(&mut self, node: NodeIndex) -> bool {
        let (word, bit) = (usize::from(node.0 / 64), 1 << (node.0 % 64));
        let words = self.word_mut(word);
        let new = *words & bit == 0;
        *words |= bit;
        new
    }

    /// Removes a node; whether it was in the set.
    pub fn remove(&mut self, node: NodeIndex) -> bool {
        if !self.contains(node) {
            return false;
        }
        *self.word_mut(usize::from(node.0 / 64)) &= !(1 << (node.0 % 64));
        true
    }

    /// Whether the node is in the set.
    #[must_use]
    pub fn contains(&self, node: NodeIndex) -> bool {
        self.words()
            .nth(usize::from(node.0 / 64))
            .is_some_and(|word| word >> (node.0 % 64) & 1 == 1)
    }

    /// Adds all nodes of `other`.
    pub fn unite(&mut self, other: &Self) {
        self.first |= other.first;
        for (position, word) in other.more.iter().flatten().enumerate() {
            if *word != 0 {
                *self.word_mut(position + 1) |= word;
            }
        }
    }

    /// Removes all nodes that are not in `other`.
    pub fn keep(&mut self, other: &Self) {
        self.first &= other.first;
        let mut others = other.more.iter().flatten();
        for word in self.more.iter_mut().flatten() {
            *word &= others.next().copied().unwrap_or(0);
        }
    }

    /// Removes all nodes.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Whether no node is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words().all(|word| word == 0)
    }

    /// How many nodes are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words().map(|word| word.count_ones() as usize).sum()
    }

    /// The nodes in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.words()
            .zip((0_u16..).step_by(64))
            .flat_map(|(word, base)| Bits(word).map(move |bit| NodeIndex(base + bit)))
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.first).chain(self.more.iter().flatten().copied())
    }

    fn word_mut(&mut self, position: usize) -> &mut u64 {
        let Some(beyond) = position.checked_sub(1) else {
            return &mut self.first;
        };
        if self.more.as_ref().is_none_or(|more| more.len() <= beyond) {
            let mut longer = self.more.take().unwrap_or_default().into_vec();
            longer.resize(beyond + 1, 0);
            self.more = Some(longer.into());
        }
        &mut self.more.as_mut().expect("it was just made")[beyond]
    }
}

impl PartialEq for NodeSet {
    /// Equal members; spare room does not count.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for NodeSet {}

impl FromIterator<NodeIndex> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeIndex>>(nodes: I) -> Self {
        let mut set = Self::new();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

/// Positions of the ones of a word, lowest first.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as u16;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_node_set_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u16..200), 0..80)) {
            let (mut set, mut model) = (NodeSet::new(), BTreeSet::new());
            for (add, node) in steps {
                let changed = if add { set.insert(NodeIndex(node)) } else { set.remove(NodeIndex(node)) };
                prop_assert_eq!(changed, if add { model.insert(node) } else { model.remove(&node) });
            }
            prop_assert_eq!(set.iter().map(|node| node.0).collect::<Vec<_>>(), Vec::from_iter(model.clone()));
            prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
            let mut united = NodeSet::from_iter([NodeIndex(3), NodeIndex(150)]);
            united.unite(&set);
            let mut all = model.clone();
            all.extend([3, 150]);
            prop_assert_eq!(&united, &all.into_iter().map(NodeIndex).collect::<NodeSet>());
            united.keep(&set);
            prop_assert_eq!(&united, &set);
            set.keep(&NodeSet::from_iter([NodeIndex(3)]));
            model.retain(|node| *node == 3);
            prop_assert_eq!(set, model.into_iter().map(NodeIndex).collect::<NodeSet>());
        }
    }
}
