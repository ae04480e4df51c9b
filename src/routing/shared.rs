//! Shared subscriptions: of each group under a filter one member gets the message (MQTT 5.0 §4.8.2).

use std::hash::Hash;

use smallvec::SmallVec;

use super::subscribers::Subscriber;

/// The members of one `$share` group under one filter on one arbiter, chosen in turn.
///
/// Members are told apart by their key; a group is scanned, as it has few members.
#[derive(Debug, Clone)]
pub struct SharedGroup<S> {
    members: Vec<Subscriber<S>>,
    /// Who is next; at most `members.len()`.
    next: usize,
}

impl<S> Default for SharedGroup<S> {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            next: 0,
        }
    }
}

impl<S: Copy + Eq + Hash> SharedGroup<S> {
    /// A group without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber<S>> {
        self.members.iter()
    }

    /// Adds a member or replaces its options; whether it is new.
    pub fn add(&mut self, member: Subscriber<S>) -> bool {
        match self.members.iter_mut().find(|held| held.key == member.key) {
            Some(held) => {
                *held = member;
                false
            }
            None => {
                self.members.push(member);
                true
            }
        }
    }

    /// Removes a member; whose turn it is does not change for the others.
    pub fn remove(&mut self, key: S) -> Option<Subscriber<S>> {
        let place = self.members.iter().position(|held| held.key == key)?;
        if place < self.next {
            self.next -= 1;
        }
        Some(self.members.remove(place))
    }

    /// The next member in turn.
    pub fn pick(&mut self) -> Option<&Subscriber<S>> {
        self.pick_where(|_| true)
    }

    /// The next member in turn that can take a message; those that cannot lose their turn. `None` if
    /// nobody can, or nobody is there.
    pub fn pick_where(&mut self, mut takes: impl FnMut(&Subscriber<S>) -> bool) -> Option<&Subscriber<S>> {
        let len = self.members.len();
        let place = (0..len)
            .map(|step| (self.next + step) % len)
            .find(|place| takes(&self.members[*place]))?;
        self.next = (place + 1) % len;
        self.members.get(place)
    }
}

/// The groups under one filter, by their names.
#[derive(Debug, Clone)]
pub struct SharedGroups<S> {
    groups: SmallVec<[(Box<str>, SharedGroup<S>); 1]>,
}

impl<S> Default for SharedGroups<S> {
    fn default() -> Self {
        Self {
            groups: SmallVec::new(),
        }
    }
}

impl<S: Copy + Eq + Hash> SharedGroups<S> {
    /// No group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds a member to a group, which is made with its first; whether the member is new.
    pub fn add(&mut self, group: &str, member: Subscriber<S>) -> bool {
        if let Some((_, held)) = self.groups.iter_mut().find(|(name, _)| **name == *group) {
            return held.add(member);
        }
        let mut first = SharedGroup::new();
        first.add(member);
        self.groups.push((group.into(), first));
        true
    }

    /// Removes a member from a group, and the group with its last.
    pub fn remove(&mut self, group: &str, key: S) -> Option<Subscriber<S>> {
        let place = self.groups.iter().position(|(name, _)| **name == *group)?;
        let gone = self.groups[place].1.remove(key);
        if self.groups[place].1.is_empty() {
            self.groups.remove(place);
        }
        gone
    }

    /// One group.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&SharedGroup<S>> {
        self.groups
            .iter()
            .find(|(name, _)| **name == *group)
            .map(|(_, held)| held)
    }

    /// All groups with their names; one member of each is to be picked for a message.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut SharedGroup<S>)> {
        self.groups.iter_mut().map(|(name, held)| (&**name, held))
    }

    /// All groups with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SharedGroup<S>)> {
        self.groups.iter().map(|(name, held)| (&**name, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::packet::SubscriptionOptions;

    fn member(key: u32) -> Subscriber<u32> {
        Subscriber {
            key,
            options: SubscriptionOptions::default(),
            identifier: None,
        }
    }

    fn group_of(keys: &[u32]) -> SharedGroup<u32> {
        let mut group = SharedGroup::new();
        for key in keys {
            assert!(group.add(member(*key)));
        }
        group
    }

    fn picks(group: &mut SharedGroup<u32>, count: usize) -> Vec<u32> {
        (0..count).filter_map(|_| Some(group.pick()?.key)).collect()
    }

    #[test]
    fn members_take_turns() {
        assert_eq!(picks(&mut group_of(&[1, 2, 3]), 7), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(picks(&mut group_of(&[]), 2), Vec::<u32>::new());
    }

    #[test]
    fn a_member_that_leaves_does_not_cost_another_its_turn() {
        for gone in 1..=4 {
            let mut group = group_of(&[1, 2, 3, 4]);
            assert_eq!(picks(&mut group, 2), [1, 2]);
            assert_eq!(group.remove(gone), Some(member(gone)));
            assert_eq!(group.remove(gone), None);
            let mut expected = vec![3, 4, 1, 2];
            expected.retain(|key| *key != gone);
            assert_eq!(picks(&mut group, 3), expected);
        }
    }

    #[test]
    fn a_member_that_cannot_take_more_is_passed_over() {
        let mut group = group_of(&[1, 2, 3]);
        assert_eq!(
            group.pick_where(|held| held.key != 1).map(|held| held.key),
            Some(2)
        );
        assert_eq!(picks(&mut group, 2), [3, 1]);
        assert_eq!(group.pick_where(|_| false), None);
        assert_eq!(picks(&mut group, 1), [2]);
    }

    #[test]
    fn groups_are_apart_and_end_with_their_last_member() {
        let mut groups = SharedGroups::new();
        assert!(groups.add("g", member(1)));
        assert!(!groups.add("g", member(1)));
        assert!(groups.add("h", member(1)));
        assert_eq!(
            groups
                .iter_mut()
                .filter_map(|(_, group)| group.pick().copied())
                .count(),
            2
        );
        assert_eq!(groups.remove("g", 1), Some(member(1)));
        assert!(groups.get("g").is_none() && groups.get("h").is_some());
        assert_eq!(groups.remove("g", 1), None);
        groups.remove("h", 1);
        assert!(groups.is_empty());
    }
}
