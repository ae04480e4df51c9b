//! The registered names of one host, as a value. A registration lives as long as its lease.
//!
//! | event | name is free | held by the same incarnation | held by another incarnation |
//! |---|---|---|---|
//! | register | taken | moves to the new lease | refused while that lease lives, as `epmd` does |
//! | release of its lease | – | freed | – |
//! | release of an older lease | – | kept | – |
//!
//! A newer incarnation does not push out an older one: on one host the kernel closes the connection of
//! a process that died, so a living lease means a living node, and two of one name are a mistake.

use std::collections::BTreeMap;

use crate::limits::REGISTRY_NAMES_MAX;
use crate::node_name::{NodeId, NodeName};
use crate::registry::wire::{Announcement, Refusal, Registration};

/// A connection that may hold registrations; never used twice in one server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(pub u64);

/// The names; at most [`REGISTRY_NAMES_MAX`].
#[derive(Debug, Default)]
pub struct Names {
    by_name: BTreeMap<NodeName, Entry>,
}

#[derive(Debug)]
struct Entry {
    lease: LeaseId,
    registration: Registration,
}

impl Names {
    /// Registers `node` under `lease`, or replaces what the same incarnation announced before.
    ///
    /// # Errors
    /// [`Refusal::Duplicate`], [`Refusal::Full`], [`Refusal::TooMuch`]; nothing is changed.
    pub fn register(
        &mut self,
        lease: LeaseId,
        node: &NodeId,
        announcement: Announcement,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if !announcement.is_within_bounds() {
            return Err(Refusal::TooMuch);
        }
        let since_ms = match self.by_name.get(&node.name) {
            Some(held) if held.registration.node != *node => {
                return Err(Refusal::Duplicate(Box::new(held.registration.clone())));
            }
            Some(held) => held.registration.since_ms,
            None if self.by_name.len() >= REGISTRY_NAMES_MAX => return Err(Refusal::Full),
            None => now_ms,
        };
        let Announcement { port, listeners } = announcement;
        let registration = Registration {
            node: node.clone(),
            port,
            listeners,
            since_ms,
        };
        self.by_name
            .insert(node.name.clone(), Entry { lease, registration });
        Ok(())
    }

    /// Frees what is registered under `lease`, if anything.
    pub fn release(&mut self, lease: LeaseId) -> Option<Registration> {
        let name = self
            .by_name
            .values()
            .find(|entry| entry.lease == lease)?
            .registration
            .node
            .name
            .clone();
        self.by_name.remove(&name).map(|entry| entry.registration)
    }

    /// Whether `lease` holds a name.
    #[must_use]
    pub fn holds(&self, lease: LeaseId) -> bool {
        self.by_name.values().any(|entry| entry.lease == lease)
    }

    /// All registrations in the order of names.
    #[must_use]
    pub fn list(&self) -> Vec<Registration> {
        self.by_name
            .values()
            .map(|entry| entry.registration.clone())
            .collect()
    }

    /// The registration of `name`.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] with the names there are.
    pub fn resolve(&self, name: &NodeName) -> Result<Registration, Refusal> {
        match self.by_name.get(name) {
            Some(entry) => Ok(entry.registration.clone()),
            None => Err(Refusal::Unknown(self.by_name.keys().cloned().collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_name::Incarnation;

    fn node(name: &str, incarnation: u64) -> NodeId {
        NodeId {
            name: name.parse().unwrap(),
            incarnation: Incarnation(incarnation),
        }
    }

    fn at(port: u16) -> Announcement {
        Announcement {
            port,
            listeners: vec!["127.0.0.1:1883".into()],
        }
    }

    #[test]
    fn a_name_lives_as_long_as_its_lease() {
        let mut names = Names::default();
        names.register(LeaseId(1), &node("n1@h", 1), at(4000), 5).unwrap();
        assert!(names.holds(LeaseId(1)));
        assert_eq!(names.resolve(&"n1@h".parse().unwrap()).unwrap().port, 4000);
        assert_eq!(names.release(LeaseId(1)).unwrap().node, node("n1@h", 1));
        assert_eq!(
            names.resolve(&"n1@h".parse().unwrap()),
            Err(Refusal::Unknown(vec![]))
        );
        assert_eq!(names.release(LeaseId(1)), None);
    }

    #[test]
    fn a_duplicate_is_refused_while_the_lease_lives_whatever_its_incarnation() {
        let mut names = Names::default();
        names.register(LeaseId(1), &node("n1@h", 5), at(4000), 5).unwrap();
        for incarnation in [4, 6] {
            let refused = names
                .register(LeaseId(2), &node("n1@h", incarnation), at(4001), 6)
                .unwrap_err();
            assert_eq!(
                refused.to_string(),
                "the name n1@h is in use: a living node of that name takes links at port 4000; \
                 stop it or choose another name with --name"
            );
        }
        names.release(LeaseId(1));
        names.register(LeaseId(2), &node("n1@h", 6), at(4001), 7).unwrap();
    }

    #[test]
    fn the_same_incarnation_moves_to_its_new_lease_and_the_old_one_no_longer_frees_it() {
        let mut names = Names::default();
        names.register(LeaseId(1), &node("n1@h", 5), at(4000), 5).unwrap();
        names.register(LeaseId(2), &node("n1@h", 5), at(4001), 9).unwrap();
        assert_eq!(names.release(LeaseId(1)), None);
        let registration = names.resolve(&"n1@h".parse().unwrap()).unwrap();
        assert_eq!((registration.port, registration.since_ms), (4001, 5));
    }

    #[test]
    fn names_and_announcements_are_bounded() {
        let mut names = Names::default();
        for n in 0..REGISTRY_NAMES_MAX as u64 {
            names
                .register(LeaseId(n), &node(&format!("n{n}@h"), 1), at(1), 0)
                .unwrap();
        }
        assert_eq!(
            names.register(LeaseId(999), &node("one-more@h", 1), at(1), 0),
            Err(Refusal::Full)
        );
        names.register(LeaseId(3), &node("n3@h", 1), at(2), 0).unwrap();
        let many = Announcement {
            port: 1,
            listeners: vec![String::new(); 17],
        };
        let long = Announcement {
            port: 1,
            listeners: vec!["x".repeat(81)],
        };
        assert_eq!(
            names.register(LeaseId(3), &node("n3@h", 1), many, 0),
            Err(Refusal::TooMuch)
        );
        assert_eq!(
            names.register(LeaseId(3), &node("n3@h", 1), long, 0),
            Err(Refusal::TooMuch)
        );
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let mut names = Names::default();
        let sentence = |names: &Names| names.resolve(&"n9@h".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(sentence(&names), "no name is registered there");
        names.register(LeaseId(2), &node("n2@h", 1), at(2), 0).unwrap();
        assert_eq!(sentence(&names), "the only name there is n2@h");
        names.register(LeaseId(1), &node("n1@h", 1), at(1), 0).unwrap();
        assert_eq!(sentence(&names), "the names there are n1@h, n2@h");
    }
}
