//! Shared groups with members on several nodes: who of them serves a message.
//!
//! The publisher's node chooses one node for each group, by the strategy of the group and by how many
//! members each node has ([`Weights`]; those with a connection first), and lends it the group for this
//! message: what is forwarded names the groups that the receiver is to serve. Whoever cannot serve one gives
//! it to another node that can; so does the publisher's node when the other is down before it has
//! acknowledged. How often is bounded ([`NODES_TRIED_MAX`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

use super::desk::{ShareGroup, ShareStrategy, mixed};
use super::tables::Seats;
use crate::mqtt::message::Message;
use crate::node_name::NodeName;
use crate::routing::delta::filter_hash;

mod weights;

pub(super) use weights::Weight;
pub use weights::Weights;

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
    members: Members,
}

/// Where it is found how many members a node has.
#[derive(Debug)]
pub(super) enum Members {
    Here(Arc<ShareGroup>),
    There(Arc<Weight>),
}

impl Candidate {
    pub(super) fn new(node: &NodeName, link: Option<usize>, members: Members) -> Self {
        Self {
            key: key(node),
            link,
            members,
        }
    }

    /// Members with a connection, and without.
    fn counts(&self) -> (u32, u32) {
        match &self.members {
            Members::Here(group) => (group.online_len(), group.away_len()),
            Members::There(weight) => weight.counts(),
        }
    }
}

/// Those that may serve a group now, and how many members count of each: those with a connection, if any node
/// has one; else all.
fn able(candidates: &[Candidate], may: impl Fn(&Candidate) -> bool) -> SmallVec<[(&Candidate, u32); 8]> {
    let counted = candidates.iter().filter(|candidate| may(candidate));
    let counted: SmallVec<[_; 8]> = counted.map(|candidate| (candidate, candidate.counts())).collect();
    let connected = counted.iter().any(|(_, (online, _))| *online > 0);
    let weights = counted.into_iter().map(|(candidate, (online, away))| {
        // One without members may just get some: it is known to have the filter.
        let weight = if connected { online } else { away.max(1) };
        (candidate, weight)
    });
    weights.filter(|(_, weight)| *weight > 0).collect()
}

/// The greater, the likelier: the highest of all candidates is each of them in the proportion of the weights.
fn score(hash: u64, weight: u32) -> f64 {
    // From 0 to 1, neither of them included.
    let drawn = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    drawn.ln() / f64::from(weight)
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

    /// The node that gets this message, of those that `may`: each as often as it has members, those that have
    /// none with a connection only while no node has any.
    pub(super) fn choose<'a>(
        &self,
        message: &Message,
        candidates: &'a [Candidate],
        may: impl Fn(&Candidate) -> bool,
    ) -> Option<&'a Candidate> {
        let able = able(candidates, may);
        let nth = |number: u64| {
            let total: u64 = able.iter().map(|(_, weight)| u64::from(*weight)).sum();
            let mut left = number.checked_rem(total)?;
            let found = able.iter().find(|(_, weight)| {
                let found = left < u64::from(*weight);
                left = left.saturating_sub(u64::from(*weight));
                found
            });
            found.map(|(candidate, _)| *candidate)
        };
        let hashed = |text: &str| {
            // Rendezvous: every node comes to the same one, and it stays while others come and go.
            let hash = filter_hash(text);
            let scored = able.iter().map(|(candidate, weight)| {
                let score = score(mixed(hash ^ candidate.key), *weight);
                (score, *candidate)
            });
            let highest = scored.max_by(|(one, a), (other, b)| one.total_cmp(other).then(a.key.cmp(&b.key)));
            highest.map(|(_, candidate)| candidate)
        };
        match self.strategy {
            ShareStrategy::RoundRobin => nth(self.turn.fetch_add(1, Relaxed)),
            ShareStrategy::Random => nth(mixed(self.turn.fetch_add(1, Relaxed))),
            ShareStrategy::Sticky => {
                let stays = self.stays.load(Relaxed);
                let same = able.iter().find(|(candidate, _)| candidate.key == stays);
                let same = same.map(|(candidate, _)| *candidate);
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
        weights: &Weights,
    ) -> Self {
        let mut nodes: Vec<_> = links
            .map(|(link, node)| {
                let members = Members::There(weights.of(&node, &crossing.group));
                (node, Some(link), members)
            })
            .collect();
        if let Some(group) = own.as_ref().and_then(|own| own.share.clone()) {
            nodes.push((me.clone(), None, Members::Here(group)));
        }
        nodes.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let candidates = nodes
            .into_iter()
            .map(|(node, link, members)| Candidate::new(&node, link, members));
        Self {
            candidates: candidates.collect(),
            crossing,
            own,
        }
    }

    /// Whether another node has members with a connection while this one has none.
    pub(super) fn is_better_elsewhere(&self) -> bool {
        let own = self.own.as_ref().and_then(|seats| seats.share.as_ref());
        let others = self
            .candidates
            .iter()
            .filter(|candidate| candidate.link.is_some());
        own.is_some_and(|group| group.online_len() == 0)
            && others.map(Candidate::counts).any(|(online, _)| online > 0)
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
