//! The home's part of ownership: who holds which of its ids, and claims one at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytestring::ByteString;

use super::{CLAIM_WITHIN, Epoch, HOME_WAITS, Letter, Now, OWNER_ANSWERS_WITHIN};
use crate::node_name::NodeId;

/// Claims that wait until a home knows what the others hold. One more than this is not answered: its
/// claimant passes the home over.
const WAITING_MAX: usize = 65_536;

/// Who was granted an id holds it within this, and has told so: or it never will.
const TOLD_WITHIN: Duration = CLAIM_WITHIN.saturating_add(OWNER_ANSWERS_WITHIN);

/// What the home of ids knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Home {
    register: BTreeMap<ByteString, Entry>,
    /// Hash of the nodes that are up, and since when.
    view: u64,
    since: Option<Instant>,
    /// The latest view under which a node told all that it holds.
    told: BTreeMap<NodeId, u64>,
    waiting: VecDeque<(NodeId, ByteString, u64)>,
    /// The greatest number under which each node has claimed anything: claimants number in order, so one that
    /// is no greater was heard before.
    heard: BTreeMap<NodeId, u64>,
    /// What was granted when, in order, until it is told or [`TOLD_WITHIN`] is over.
    granted: VecDeque<(Instant, ByteString)>,
    /// Counter of the latest epoch that this node numbered: none is given twice, whatever the clock does.
    numbered: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Entry {
    epoch: Epoch,
    owner: NodeId,
    /// The latest claim of the owner and whom it was told as the owner before; 0 when it never claimed here.
    claim: u64,
    previous: Option<NodeId>,
    /// Who held it or was granted it before the owner, which has not told yet that it holds it: the session
    /// may still be on its way through them, so nobody of them is fenced.
    chain: Vec<Passed>,
    /// The owner has told that it holds it.
    told: bool,
    /// When it was granted, or told first.
    since: Instant,
    /// The owner is telling all that it holds, and has not named it yet.
    unsaid: bool,
}

/// An owner before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Passed {
    node: NodeId,
    /// What it was granted, if it has not told that it holds it: should it ask again, the session that it was
    /// to have is still to be fetched.
    granted: Option<(u64, Epoch, Option<NodeId>)>,
}

/// What a home says.
#[derive(Default)]
pub(super) struct Told {
    pub(super) letters: Vec<(NodeId, Letter)>,
    pub(super) wake_at: Option<Instant>,
}

/// The nodes that are up, and this one.
type View<'a> = (&'a BTreeSet<NodeId>, &'a NodeId);

impl Entry {
    /// What a node was granted with this claim, unless it has had what it asked for.
    fn granted_to(&self, node: &NodeId, claim: u64) -> Option<(u64, Epoch, Option<NodeId>)> {
        if self.owner == *node {
            return (self.claim == claim).then(|| (claim, self.epoch, self.previous.clone()));
        }
        let passed = self.chain.iter().find(|passed| passed.node == *node)?;
        passed.granted.clone().filter(|(granted, ..)| *granted == claim)
    }

    /// As an owner before.
    fn passed(&self) -> Passed {
        let granted = (self.claim, self.epoch, self.previous.clone());
        Passed {
            node: self.owner.clone(),
            granted: Some(granted).filter(|_| !self.told),
        }
    }
}

impl Home {
    pub(super) fn len(&self) -> usize {
        self.register.len()
    }

    pub(super) fn view(&self) -> u64 {
        self.view
    }

    /// An epoch after `known` and after every other that this node numbered.
    pub(super) fn number(&mut self, known: Option<Epoch>, me: &NodeId, now: Now) -> Epoch {
        let wall = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let after = known.map_or(0, |known| known.counter).max(self.numbered);
        self.numbered = wall.max(after.saturating_add(1));
        Epoch {
            counter: self.numbered,
            by: me.incarnation.0,
        }
    }

    /// A claim; it waits while others may hold ids that this home does not know of.
    pub(super) fn claim(
        &mut self,
        from: &NodeId,
        id: ByteString,
        claim: u64,
        view: View<'_>,
        now: Now,
    ) -> Told {
        if self.knows(view.0, now) {
            return Told {
                letters: self.grant(from, id, claim, view, now).into_iter().collect(),
                wake_at: self.granted_first(now),
            };
        }
        if self.waiting.len() < WAITING_MAX
            && !self.waiting.iter().any(|(who, _, n)| who == from && *n == claim)
        {
            self.waiting.push_back((from.clone(), id, claim));
        }
        Told {
            letters: Vec::new(),
            wake_at: self.since.map(|since| since + HOME_WAITS),
        }
    }

    /// Grants what waited, once everything is known or was waited for long enough.
    pub(super) fn grant_waiting(&mut self, view: View<'_>, now: Now) -> Told {
        let mut told = Told::default();
        if self.knows(view.0, now) {
            for (from, id, claim) in std::mem::take(&mut self.waiting) {
                // A claimant that is gone waits for nothing.
                if from == *view.1 || view.0.contains(&from) {
                    told.letters.extend(self.grant(&from, id, claim, view, now));
                }
            }
            told.wake_at = self.granted_first(now);
        }
        told
    }

    fn knows(&self, up: &BTreeSet<NodeId>, now: Now) -> bool {
        let long_ago = |since: Instant| now.instant >= since + HOME_WAITS;
        self.since.is_none_or(long_ago) || up.iter().all(|node| self.told.get(node) == Some(&self.view))
    }

    /// The answer; none to a claim that was heard before and has had its turn.
    fn grant(
        &mut self,
        from: &NodeId,
        id: ByteString,
        claim: u64,
        (up, me): View<'_>,
        now: Now,
    ) -> Option<(NodeId, Letter)> {
        let known = self.register.get(&id);
        let heard = self.heard.entry(from.clone()).or_default();
        if claim <= std::mem::replace(heard, claim.max(*heard))
            && let Some(known) = known
        {
            // Asked again after the link broke: the same answer.
            let (claim, epoch, previous) = known.granted_to(from, claim)?;
            let letter = Letter::Granted {
                id,
                claim,
                epoch,
                previous,
            };
            return Some((from.clone(), letter));
        }
        let before = known.map(|known| known.epoch);
        let epoch = self.number(before, me, now);
        let known = self.register.get(&id);
        let previous = known
            .map(|known| known.owner.clone())
            .filter(|owner| owner != from && (owner == me || up.contains(owner)));
        let mut chain = known.map_or_else(Vec::new, |known| known.chain.clone());
        chain.extend(known.filter(|_| previous.is_some()).map(Entry::passed));
        chain.retain(|passed| passed.node != *from);
        let entry = Entry {
            epoch,
            owner: from.clone(),
            claim,
            previous: previous.clone(),
            chain,
            told: false,
            since: now.instant,
            unsaid: false,
        };
        self.register.insert(id.clone(), entry);
        self.granted.push_back((now.instant, id.clone()));
        let letter = Letter::Granted {
            id,
            claim,
            epoch,
            previous,
        };
        Some((from.clone(), letter))
    }

    /// The same, if that was granted just now: later ones are looked at when this is.
    fn granted_first(&self, now: Now) -> Option<Instant> {
        self.granted_until()
            .filter(|until| *until == now.instant + TOLD_WITHIN)
    }

    /// When it is looked what became of the first grant.
    pub(super) fn granted_until(&self) -> Option<Instant> {
        self.granted.front().map(|(since, _)| *since + TOLD_WITHIN)
    }

    /// Forgets what was granted and never told: the grant got lost, and its claimant has gone on without it
    /// or is gone. Returns who may hold such ids, as nobody before it was fenced.
    pub(super) fn forget_untold(&mut self, now: Now) -> BTreeSet<NodeId> {
        let mut holders = BTreeSet::new();
        while let Some((since, id)) = self.granted.front().cloned()
            && now.instant >= since + TOLD_WITHIN
        {
            self.granted.pop_front();
            let untold = |entry: &&Entry| !entry.told && entry.since == since;
            if self.register.get(&id).filter(untold).is_some()
                && let Some(entry) = self.register.remove(&id)
            {
                holders.extend(entry.chain.into_iter().map(|passed| passed.node));
                holders.insert(entry.owner);
            }
        }
        holders
    }

    /// A node tells what it holds. Returns what is to be said to those who hold it under a lower epoch.
    pub(super) fn holds(
        &mut self,
        from: &NodeId,
        held: Vec<(ByteString, Epoch)>,
        now: Now,
    ) -> Vec<(NodeId, Letter)> {
        let mut fenced = Vec::new();
        for (id, epoch) in held {
            let known = self.register.get(&id);
            if let Some(known) = known.filter(|known| known.epoch > epoch && known.owner != *from) {
                if !known.chain.iter().any(|passed| passed.node == *from) {
                    let epoch = known.epoch;
                    fenced.push((from.clone(), Letter::Fenced { id, epoch }));
                }
                continue;
            }
            let before = self.register.entry(id.clone()).or_insert_with(|| Entry {
                epoch,
                owner: from.clone(),
                claim: 0,
                previous: None,
                chain: Vec::new(),
                told: true,
                since: now.instant,
                unsaid: false,
            });
            (before.told, before.unsaid) = (true, false);
            // It holds it now: who still does from before has not heard, or did not answer in time.
            let chain = std::mem::take(&mut before.chain).into_iter();
            let mut earlier: Vec<_> = chain.map(|passed| passed.node).collect();
            if before.owner != *from {
                earlier.push(std::mem::replace(&mut before.owner, from.clone()));
                (before.claim, before.previous) = (0, None);
            }
            // An owner that passed us over may hold it under less than we had numbered.
            before.epoch = before.epoch.max(epoch);
            let epoch = before.epoch;
            let letter = Letter::Fenced { id, epoch };
            fenced.extend(earlier.into_iter().map(|node| (node, letter.clone())));
        }
        fenced
    }

    /// A node begins to tell all that it holds.
    pub(super) fn recount(&mut self, from: &NodeId) {
        let its = self.register.values_mut().filter(|entry| entry.owner == *from);
        its.for_each(|entry| entry.unsaid = true);
    }

    /// It has told all. What it held before and has not named is over, or has another home; its word for that
    /// got lost with the link. What was granted and not yet told may be on its way, if we are home of it.
    pub(super) fn all_held(&mut self, from: &NodeId, view: u64, (up, me): View<'_>, now: Now) {
        self.told.insert(from.clone(), view);
        self.register.retain(|id, entry| {
            let named = entry.owner != *from || !entry.unsaid;
            let fresh = !entry.told && now.instant < entry.since + TOLD_WITHIN;
            named || (fresh && home_among(up.iter().chain([me]), id) == Some(me))
        });
    }

    /// Its owner says that the session is over.
    pub(super) fn dropped(&mut self, from: &NodeId, id: &ByteString) {
        if self.register.get(id).is_some_and(|known| known.owner == *from) {
            self.register.remove(id);
        }
    }

    /// A life of a node is over, or out of reach: what it held will be told by it if it comes back.
    pub(super) fn forget_owner(&mut self, node: &NodeId) {
        self.register.retain(|_, entry| entry.owner != *node);
        self.told.remove(node);
        self.heard.remove(node);
        self.waiting.retain(|(from, _, _)| from != node);
    }

    /// The set of nodes changed: ids that have another home now are forgotten.
    pub(super) fn view_changed(&mut self, (up, me): View<'_>, now: Now) -> Told {
        self.view = up.iter().chain([me]).fold(0, |hash, node| {
            hash ^ mix(fnv(node.name.as_str().as_bytes()) ^ node.incarnation.0)
        });
        self.since = Some(now.instant);
        let everybody = || up.iter().chain([me]);
        self.register
            .retain(|id, _| home_among(everybody(), id) == Some(me));
        self.told.clear();
        let mut told = self.grant_waiting((up, me), now);
        if !self.waiting.is_empty() {
            told.wake_at = Some(now.instant + HOME_WAITS);
        }
        told
    }
}

/// The node of the highest rank for this id (rendezvous hashing): a node that comes or goes moves only the
/// ids that it is home of. By name, so that a restart moves none.
pub(in crate::cluster) fn home_among<'a>(
    nodes: impl Iterator<Item = &'a NodeId>,
    id: &str,
) -> Option<&'a NodeId> {
    let id = fnv(id.as_bytes());
    nodes.max_by_key(|node| (mix(id ^ mix(fnv(node.name.as_str().as_bytes()))), &node.name))
}

/// FNV-1a: the same on every node and in every version, unlike the standard library's hasher.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of splitmix64: every bit of the input moves half of the output's.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
