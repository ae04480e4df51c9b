//! Shared groups with members on several nodes: who of them serves a message.
//!
//! The publisher's node chooses one node for each group, by the strategy of the group, and lends it the group
//! for this message: what is forwarded names the groups that the receiver is to serve. Whoever cannot serve
//! one gives it to another node that can; so does the publisher's node when the other is down before it has
//! acknowledged. How often is bounded ([`NODES_TRIED_MAX`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

use super::desk::{ShareStrategy, mixed};
use super::tables::Seats;
use crate::mqtt::message::Message;
use crate::node_name::NodeName;
use crate::routing::delta::filter_hash;

/// Nodes at which a message of a group finds nobody before it is given up: more than may lose their members
/// while it travels.
pub const NODES_TRIED_MAX: u8 = 8;

/// Groups that one forwarded message names; of more it is forwarded several times.
pub const LOANS_MAX: usize = 256;

/// A shared group that a node is to serve for one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loan {
    /// The whole filter, `$share/…` included.
    pub group: Arc<str>,
    /// Nodes at which it found nobody; at most [`NODES_TRIED_MAX`].
    pub tried: u8,
    /// A member may have had it `[MQTT-3.3.1-1]`.
    pub dup: bool,
}

/// What goes with a forwarded message whose topic shared groups match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loans {
    /// Exactly these groups are to be served.
    pub groups: SmallVec<[Loan; 1]>,
    /// The message is for the groups only: subscribers of plain filters have it already, or there are none.
    pub only: bool,
    /// Bytes that it counts for: those of all groups that were ever added.
    bytes: usize,
}

impl Loans {
    /// One group, and nobody else.
    #[must_use]
    pub fn only(loan: Loan) -> Self {
        let mut loans = Self {
            only: true,
            ..Self::default()
        };
        loans.add(loan);
        loans
    }

    /// One more group.
    pub fn add(&mut self, loan: Loan) {
        self.bytes += loan.group.len() + size_of::<Loan>();
        self.groups.push(loan);
    }

    /// Bytes that it counts for, also when groups were taken out.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.bytes
    }
}

/// How this node chooses among the nodes that have members of one group. Kept as long as somebody remembers a
/// match with it.
#[derive(Debug)]
pub struct Crossing {
    /// The group's whole filter.
    pub(super) group: Arc<str>,
    strategy: ShareStrategy,
    /// Whose turn it is; also where random numbers come from.
    turn: AtomicU64,
    /// The node that a sticky group stays with ([`key`]); 0 none.
    stays: AtomicU64,
}

/// A node that may serve a group.
#[derive(Debug)]
pub(super) struct Candidate {
    key: u64,
    /// Its position among the links of a match; this node itself has none.
    pub(super) link: Option<usize>,
}

impl Candidate {
    pub(super) fn new(node: &NodeName, link: Option<usize>) -> Self {
        Self { key: key(node), link }
    }
}

/// The same on all nodes.
fn key(node: &NodeName) -> u64 {
    filter_hash(node.as_str()).max(1)
}

impl Crossing {
    pub(super) fn new(group: Arc<str>, strategy: ShareStrategy) -> Arc<Self> {
        Arc::new(Self {
            group,
            strategy,
            turn: AtomicU64::new(0),
            stays: AtomicU64::new(0),
        })
    }

    /// The node that gets this message, of those that `may`. All nodes count alike, however many members they
    /// have.
    pub(super) fn choose<'a>(
        &self,
        message: &Message,
        candidates: &'a [Candidate],
        may: impl Fn(&Candidate) -> bool,
    ) -> Option<&'a Candidate> {
        let able = || candidates.iter().filter(|candidate| may(candidate));
        let nth = |number: u64| {
            let count = able().count() as u64;
            able().nth(number.checked_rem(count)? as usize)
        };
        let hashed = |text: &str| {
            // Rendezvous: every node comes to the same one, and it stays while others come and go.
            let hash = filter_hash(text);
            able().max_by_key(|candidate| (mixed(hash ^ candidate.key), candidate.key))
        };
        match self.strategy {
            ShareStrategy::RoundRobin => nth(self.turn.fetch_add(1, Relaxed)),
            ShareStrategy::Random => nth(mixed(self.turn.fetch_add(1, Relaxed))),
            ShareStrategy::Sticky => {
                let stays = self.stays.load(Relaxed);
                let same = able().find(|candidate| candidate.key == stays);
                same.or_else(|| nth(mixed(self.turn.fetch_add(1, Relaxed))))
                    .inspect(|chosen| self.stays.store(chosen.key, Relaxed))
            }
            ShareStrategy::HashClientId => hashed(&message.publisher),
            ShareStrategy::HashTopic => hashed(&message.topic),
        }
    }
}

/// A matching group that has members on other nodes.
#[derive(Debug)]
pub(super) struct Across {
    pub(super) crossing: Arc<Crossing>,
    /// Its members on this node.
    pub(super) own: Option<Seats>,
    candidates: Vec<Candidate>,
}

impl Across {
    /// `links` are those of the match that lead to members.
    pub(super) fn new(
        crossing: Arc<Crossing>,
        own: Option<Seats>,
        me: &NodeName,
        links: impl Iterator<Item = (usize, NodeName)>,
    ) -> Self {
        let mut nodes: Vec<_> = links.map(|(link, node)| (node, Some(link))).collect();
        if own.is_some() {
            nodes.push((me.clone(), None));
        }
        nodes.sort();
        let candidates = nodes.iter().map(|(node, link)| Candidate::new(node, *link));
        Self {
            candidates: candidates.collect(),
            crossing,
            own,
        }
    }

    /// The node that gets this message, of those that `may`; this one only if it has members.
    pub(super) fn choose(
        &self,
        message: &Message,
        may: impl Fn(Option<usize>) -> bool,
    ) -> Option<&Candidate> {
        let own = self.own.as_ref().and_then(|seats| seats.share.as_ref());
        let here = own.is_some_and(|group| group.has_members());
        let able = |candidate: &Candidate| (candidate.link.is_some() || here) && may(candidate.link);
        self.crossing.choose(message, &self.candidates, able)
    }
}

#[cfg(test)]
mod tests;
