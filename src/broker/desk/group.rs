//! A shared group as all arbiters see it: how many members sit where, and who of them is next.
//!
//! Members with a connection come first; those without get messages only while nobody else is there. A
//! publisher chooses the arbiter and which of the members there; the desk on that arbiter knows them. What
//! the desk cannot place there (its members are gone) it sends on to where others are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use bytestring::ByteString;

use crate::broker::mail::{FilterId, PortId};
use crate::mqtt::message::Message;

/// How a shared group chooses the member that gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShareStrategy {
    /// In turn.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// The same one as long as it is connected.
    Sticky,
    /// By the publisher's client id: the same one as long as the members stay the same.
    HashClientId,
    /// By the topic name: the same one as long as the members stay the same.
    HashTopic,
}

impl ShareStrategy {
    const ALL: [(Self, &'static str); 5] = [
        (Self::RoundRobin, "round_robin"),
        (Self::Random, "random"),
        (Self::Sticky, "sticky"),
        (Self::HashClientId, "hash_clientid"),
        (Self::HashTopic, "hash_topic"),
    ];
}

impl FromStr for ShareStrategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(strategy, _)| *strategy).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("must be one of {names}, not '{text}'")
        })
    }
}

impl fmt::Display for ShareStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(strategy, _)| strategy == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// What the operator wants of shared subscriptions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sharing {
    /// Of every group that is not named.
    pub strategy: ShareStrategy,
    /// Of single groups, by their share name.
    pub groups: BTreeMap<String, ShareStrategy>,
}

impl Sharing {
    /// The strategy of a group.
    #[must_use]
    pub fn of(&self, group: &str) -> ShareStrategy {
        self.groups.get(group).copied().unwrap_or(self.strategy)
    }
}

/// One member of a group: the arbiter, and which of the members there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Where.
    pub arbiter: usize,
    /// Counts the members there that come into question; may be behind the times.
    pub nth: u32,
}

/// The members of a shared group on all arbiters of this node.
#[derive(Debug)]
pub struct ShareGroup {
    /// The whole filter, `$share/…` included.
    text: ByteString,
    strategy: ShareStrategy,
    /// Its filter; 0 until its first desk.
    filter: AtomicU64,
    online: Box<[AtomicU32]>,
    away: Box<[AtomicU32]>,
    /// Whose turn it is; also where random numbers come from.
    turn: AtomicU64,
    /// The port that a sticky group stays with; 0 none.
    port: AtomicU64,
}

impl ShareGroup {
    /// A group without members, on a node with so many arbiters.
    #[must_use]
    pub fn new(text: ByteString, arbiters: usize, strategy: ShareStrategy) -> Arc<Self> {
        let none = || (0..arbiters).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            text,
            strategy,
            filter: AtomicU64::new(0),
            online: none(),
            away: none(),
            turn: AtomicU64::new(0),
            port: AtomicU64::new(0),
        })
    }

    /// Its whole filter, `$share/…` included.
    #[must_use]
    pub fn text(&self) -> &ByteString {
        &self.text
    }

    /// Whether it has members on this node.
    #[must_use]
    pub fn has_members(&self) -> bool {
        let mut counts = self.online.iter().chain(&self.away);
        counts.any(|count| count.load(Relaxed) > 0)
    }

    /// Which filter it is.
    #[must_use]
    pub fn filter(&self) -> FilterId {
        FilterId(self.filter.load(Relaxed))
    }

    pub(in crate::broker) fn set_filter(&self, id: FilterId) {
        self.filter.store(id.0, Relaxed);
    }

    /// Members with a connection, anywhere on this node.
    #[must_use]
    pub fn online_len(&self) -> u32 {
        self.online.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Members without one.
    #[must_use]
    pub fn away_len(&self) -> u32 {
        self.away.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Who gets this message; `None` when the group has no members.
    #[must_use]
    pub fn choose(&self, message: &Message) -> Option<Member> {
        let counts = match self.online_len() {
            0 => &self.away,
            _ => &self.online,
        };
        let total: u32 = counts.iter().map(|count| count.load(Relaxed)).sum();
        if total == 0 {
            return None;
        }
        if self.strategy == ShareStrategy::Sticky
            && let Some(port) = self.stays_with()
            && let arbiter = usize::from(port.arbiter)
            && counts[arbiter].load(Relaxed) > 0
        {
            return Some(Member { arbiter, nth: 0 });
        }
        let mut nth = (self.number(message) % u64::from(total)) as u32;
        let arbiter = counts.iter().position(|count| {
            let here = count.load(Relaxed);
            let found = nth < here;
            if !found {
                nth -= here;
            }
            found
        });
        arbiter.map(|arbiter| Member { arbiter, nth })
    }

    /// Another arbiter with members, connected ones first; for a desk that found none at its own.
    pub(super) fn elsewhere(&self, me: usize) -> Option<usize> {
        let has = |counts: &[AtomicU32]| {
            let start = self.turn.load(Relaxed) as usize;
            let all = (0..counts.len()).map(|k| (start + k) % counts.len());
            all.filter(|arbiter| *arbiter != me)
                .find(|arbiter| counts[*arbiter].load(Relaxed) > 0)
        };
        has(&self.online).or_else(|| has(&self.away))
    }

    /// Whether a member with a connection sits on another arbiter.
    pub(super) fn is_online_elsewhere(&self, me: usize) -> bool {
        let others = self
            .online
            .iter()
            .enumerate()
            .filter(|(arbiter, _)| *arbiter != me);
        others
            .map(|(_, count)| count.load(Relaxed))
            .any(|count| count > 0)
    }

    /// The port that a sticky group stays with.
    pub(super) fn stays_with(&self) -> Option<PortId> {
        let packed = self.port.load(Relaxed);
        (packed > 0).then_some(PortId {
            arbiter: (packed >> 48) as u16,
            serial: packed & 0xFFFF_FFFF_FFFF,
        })
    }

    /// A member got a message: a sticky group stays with it.
    pub(super) fn took(&self, port: PortId) {
        if self.strategy == ShareStrategy::Sticky {
            self.port
                .store(u64::from(port.arbiter) << 48 | port.serial, Relaxed);
        }
    }

    pub(super) fn set(&self, arbiter: usize, online: usize, away: usize) {
        self.online[arbiter].store(online as u32, Relaxed);
        self.away[arbiter].store(away as u32, Relaxed);
    }

    fn number(&self, message: &Message) -> u64 {
        // Fixed seeds: every arbiter must come to the same member.
        let hash = |text: &str| ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(text);
        match self.strategy {
            ShareStrategy::RoundRobin => self.turn.fetch_add(1, Relaxed),
            ShareStrategy::Random | ShareStrategy::Sticky => mixed(self.turn.fetch_add(1, Relaxed)),
            ShareStrategy::HashClientId => hash(&message.publisher),
            ShareStrategy::HashTopic => hash(&message.topic),
        }
    }
}

/// SplitMix64: the numbers from 0 on come out as if drawn at random.
pub(in crate::broker) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &'static str, publisher: &'static str) -> Message {
        Message {
            topic: topic.into(),
            payload: bytes::Bytes::new(),
            qos: crate::mqtt::packet::QoS::AtMostOnce,
            retain: false,
            pass_through: bytes::Bytes::new(),
            expires_at: None,
            publisher: publisher.into(),
        }
    }

    fn group(strategy: ShareStrategy) -> Arc<ShareGroup> {
        let group = ShareGroup::new("$share/g/t".into(), 3, strategy);
        assert_eq!(group.choose(&message("t", "p")), None);
        group.set(0, 2, 0);
        group.set(1, 0, 5);
        group.set(2, 1, 1);
        group
    }

    fn chosen(group: &ShareGroup, times: usize) -> Vec<(usize, u32)> {
        let member = |_| group.choose(&message("t", "p")).expect("it has members");
        (0..times)
            .map(member)
            .map(|member| (member.arbiter, member.nth))
            .collect()
    }

    #[test]
    fn the_turn_goes_round_the_connected_members_of_all_arbiters() {
        let group = group(ShareStrategy::RoundRobin);
        assert_eq!(
            chosen(&group, 6),
            [(0, 0), (0, 1), (2, 0), (0, 0), (0, 1), (2, 0)]
        );
    }

    #[test]
    fn members_without_a_connection_have_their_turn_only_while_nobody_has_one() {
        let group = group(ShareStrategy::RoundRobin);
        group.set(0, 0, 0);
        group.set(1, 0, 1);
        group.set(2, 0, 1);
        assert_eq!(chosen(&group, 4), [(1, 0), (2, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn a_hash_stays_with_one_member_and_different_keys_reach_different_ones() {
        let group = group(ShareStrategy::HashTopic);
        assert_eq!(chosen(&group, 9)[1..], chosen(&group, 9)[..8]);
        let topics = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let reached = topics.map(|topic| group.choose(&message(topic, "p")).map(|m| (m.arbiter, m.nth)));
        assert!(reached.iter().any(|member| *member != reached[0]));
        let by_publisher = |publisher| {
            let group = self::group(ShareStrategy::HashClientId);
            group.choose(&message("t", publisher))
        };
        assert_eq!(by_publisher("p"), by_publisher("p"));
        assert!(topics.iter().any(|id| by_publisher(id) != by_publisher("p")));
    }

    #[test]
    fn a_sticky_group_stays_on_the_arbiter_of_its_member() {
        let group = group(ShareStrategy::Sticky);
        group.took(PortId {
            arbiter: 2,
            serial: 9,
        });
        assert!(chosen(&group, 5).iter().all(|(arbiter, _)| *arbiter == 2));
        group.set(2, 0, 1);
        assert!(chosen(&group, 5).iter().all(|(arbiter, _)| *arbiter == 0));
    }

    #[test]
    fn random_reaches_everybody() {
        let group = group(ShareStrategy::Random);
        let drawn = chosen(&group, 60);
        for member in [(0, 0), (0, 1), (2, 0)] {
            let times = drawn.iter().filter(|drawn| **drawn == member).count();
            assert!((8..=34).contains(&times), "{member:?}: {times} of 60");
        }
    }

    #[test]
    fn strategies_are_read_by_their_names() {
        for (strategy, name) in ShareStrategy::ALL {
            assert_eq!(
                (name.parse(), strategy.to_string()),
                (Ok(strategy), name.to_owned())
            );
        }
        assert!(
            "robin"
                .parse::<ShareStrategy>()
                .unwrap_err()
                .contains("hash_topic")
        );
    }
}
