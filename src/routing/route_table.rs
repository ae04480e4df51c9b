//! The global route table: topic filter → what is here, and which other nodes have subscribers.
//!
//! Everything about routes that must outlive the router is in this one value, so that one lock guards it
//! and a crash of its writer loses nothing: the table, the own slice with the changes that no peer was
//! told of, and the replicas of all other nodes with their versions.
//!
//! | what | costs |
//! |---|---|
//! | [`match_topic`](RouteTable::match_topic) | a hash per topic and per level, a probe per trie node |
//! | a route | 170 bytes exact, 320 to 360 with wildcards (measured with a million), 50 per node |
//! | [`node_down`](RouteTable::node_down) | its routes are hidden at once and swept by later changes |

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::delta::{Applied, Checked, RefusedSlice, RouteDelta, RouteVersion, SnapshotChunk};
use super::node_set::{NodeIndex, NodeSet};
use super::own_slice::OwnSlice;
use super::replica::{Replica, SliceChange};
use super::shared::SharedGroups;
use super::trie::{Slot, Trie};
use crate::limits::NODES_MAX;
use crate::mqtt::topic::SharedFilter;
use crate::node_name::{NodeId, NodeName};

mod own;
#[cfg(test)]
mod tests;

/// Routes of nodes that went down which every change sweeps along.
const SWEPT_PER_CHANGE: usize = 64;

/// … and which the fall of a node itself sweeps: 2 ms at the most.
const SWEPT_AT_ONCE: usize = 1024;

/// Where a message goes. Kept and filled again by its owner, so that matching does not allocate.
#[derive(Debug, Clone)]
pub struct Match<L> {
    /// The local end of every matching filter.
    pub locals: SmallVec<[L; 4]>,
    /// Every node with at least one matching filter, shared groups not counted.
    pub nodes: NodeSet,
    /// Every matching shared group (its whole filter) that has members on other nodes, and on which.
    pub groups: Vec<(Arc<str>, NodeSet)>,
}

impl<L> Default for Match<L> {
    fn default() -> Self {
        Self {
            locals: SmallVec::new(),
            nodes: NodeSet::new(),
            groups: Vec::new(),
        }
    }
}

impl<L> Match<L> {
    /// Forgets what was found, keeps the room.
    pub fn clear(&mut self) {
        self.locals.clear();
        self.nodes.clear();
        self.groups.clear();
    }

    /// Whether nobody has a matching filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locals.is_empty() && self.nodes.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug)]
struct Route<L> {
    local: Option<L>,
    /// Whether `local` is more than members of shared groups.
    plain: bool,
    nodes: NodeSet,
    groups: SharedGroups,
}

impl<L> Route<L> {
    fn is_vacant(&self) -> bool {
        self.local.is_none() && self.nodes.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug)]
struct Remote {
    id: NodeId,
    replica: Replica,
    /// Where its routes lie in the trie, so that they are found without their text.
    slots: HashSet<Slot, RandomState>,
    /// Its entries in the table; a slot holds a filter and its shared groups.
    linked: usize,
}

/// What lies under a [`NodeIndex`].
#[derive(Debug)]
enum Place {
    Free,
    Up(Box<Remote>),
    /// The node is down: its routes are hidden, and these are still to be swept. They keep the node in
    /// their set until then, so that their slots cannot be used again.
    Dying(Vec<Slot>),
}

impl Place {
    fn remote(&self) -> Option<&Remote> {
        match self {
            Self::Up(remote) => Some(remote),
            Self::Free | Self::Dying(_) => None,
        }
    }
}

/// Topic filter → local end `L` and remote nodes. `L` is what the broker finds its subscribers by.
#[derive(Debug)]
pub struct RouteTable<L> {
    trie: Trie<Route<L>>,
    places: Vec<Place>,
    /// Nodes that are up; the bits of all others in a route do not count.
    up: NodeSet,
    dying: usize,
    own: OwnSlice,
    version: u64,
}

impl<L> Default for RouteTable<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L> RouteTable<L> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self {
            trie: Trie::new(),
            places: Vec::new(),
            up: NodeSet::new(),
            dying: 0,
            own: OwnSlice::default(),
            version: 0,
        }
    }

    /// Grows with every change that a [`match_topic`](Self::match_topic) could see: a match is good, and
    /// a [`NodeIndex`] names the same node, as long as this stands.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many filters have a route, those included that wait to be swept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.trie.len()
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trie.is_empty()
    }

    /// Finds all that match `topic` (a topic name, no filter) and puts it into `found`, cleared before.
    pub fn match_topic(&self, topic: &str, found: &mut Match<L>)
    where
        L: Clone,
    {
        found.clear();
        self.trie.matches(topic, &mut |route| {
            found.locals.extend(route.local.clone());
            found.nodes.unite(&route.nodes);
            for (text, _, nodes) in route.groups.iter().filter(|(_, _, nodes)| !nodes.is_empty()) {
                found.groups.push((text.clone(), nodes.clone()));
            }
        });
        if self.dying > 0 {
            found.nodes.keep(&self.up);
            found.groups.retain_mut(|(_, nodes)| {
                nodes.keep(&self.up);
                !nodes.is_empty()
            });
        }
    }

    /// Calls `found` with the local end of every matching filter: for messages of other nodes.
    pub fn match_local(&self, topic: &str, found: &mut impl FnMut(&L)) {
        self.trie.matches(topic, &mut |route| {
            if let Some(local) = &route.local {
                found(local);
            }
        });
    }

    /// All routes in no promised order, each shared group for itself: filter, local end, nodes.
    pub fn routes(&self) -> impl Iterator<Item = (&str, Option<&L>, NodeSet)> {
        let entries = self.trie.iter().flat_map(|(filter, route)| {
            let groups = route.groups.iter();
            let groups = groups.map(move |(text, own, nodes)| (&**text, own, nodes, route));
            std::iter::once((filter, route.plain, &route.nodes, route)).chain(groups)
        });
        entries.filter_map(|(filter, own, nodes, route)| {
            let mut nodes = nodes.clone();
            nodes.keep(&self.up);
            let held = own || !nodes.is_empty();
            held.then_some((filter, route.local.as_ref().filter(|_| own), nodes))
        })
    }

    /// All routes as an operator reads them: sorted by filter, each with its sorted nodes; `own` stands
    /// for this node.
    #[must_use]
    pub fn listing(&self, own: &NodeName) -> Vec<(ByteString, Vec<NodeName>)> {
        let names = |(filter, local, nodes): (&str, Option<&L>, NodeSet)| {
            let mut names: Vec<_> = local.map(|_| own.clone()).into_iter().collect();
            names.extend(
                nodes
                    .iter()
                    .filter_map(|node| Some(self.node(node)?.name.clone())),
            );
            names.sort();
            (ByteString::from(filter), names)
        };
        let mut listing: Vec<_> = self.routes().map(names).collect();
        listing.sort_by(|one, other| one.0.cmp(&other.0));
        listing
    }
}

/// The slices of the other nodes.
impl<L> RouteTable<L> {
    /// A link to this node is up: from now on its deltas and chunks are taken. The slice of an earlier
    /// incarnation vanishes; the same incarnation goes on where it was.
    ///
    /// # Errors
    /// [`RefusedSlice::OldIncarnation`], [`RefusedSlice::TooManyNodes`]. The table is unchanged.
    pub fn node_up(&mut self, node: &NodeId) -> Result<NodeIndex, RefusedSlice> {
        if let Some(index) = self.index_of(&node.name) {
            let known = self.node(index).map(|known| known.incarnation);
            match known.cmp(&Some(node.incarnation)) {
                Ordering::Greater => return Err(RefusedSlice::OldIncarnation),
                Ordering::Equal => return Ok(index),
                Ordering::Less => self.retire(index),
            };
        }
        let index = self.free_place().ok_or(RefusedSlice::TooManyNodes)?;
        let replica = Replica::new(node.incarnation);
        let remote = Remote {
            id: node.clone(),
            replica,
            slots: HashSet::default(),
            linked: 0,
        };
        self.places[usize::from(index.0)] = Place::Up(Box::new(remote));
        self.version += 1;
        self.up.insert(index);
        Ok(index)
    }

    /// This life of a node is over: all its routes vanish in one step. How many there were; none if the
    /// node is unknown or lives in another incarnation.
    pub fn node_down(&mut self, node: &NodeId) -> usize {
        self.node_index(node).map_or(0, |index| self.retire(index))
    }

    /// Frees up to `slots_max` routes of nodes that went down; whether there are more. Every change does a
    /// little of it; the router may do the rest when it has nothing else to do.
    pub fn sweep(&mut self, slots_max: usize) -> bool {
        if self.dying == 0 {
            return false;
        }
        let mut left = slots_max;
        for number in 0..self.places.len() {
            let Place::Dying(slots) = &mut self.places[number] else {
                continue;
            };
            let now = slots.split_off(slots.len() - left.min(slots.len()));
            left -= now.len();
            if slots.is_empty() {
                self.places[number] = Place::Free;
                self.dying -= 1;
            }
            for slot in now {
                self.unlink(slot, NodeIndex(number as u16));
            }
        }
        self.dying > 0
    }

    /// Takes a delta of a node in. [`Applied::Stale`] if this life of the node is not up.
    pub fn apply_delta(&mut self, node: &NodeId, delta: &RouteDelta) -> Applied {
        self.update(node, |replica, changes| replica.apply_delta(delta, changes))
    }

    /// Takes a chunk of a node's snapshot in. [`Applied::Stale`] if this life of the node is not up.
    pub fn apply_snapshot(&mut self, node: &NodeId, chunk: &SnapshotChunk) -> Applied {
        self.update(node, |replica, changes| replica.apply_snapshot(chunk, changes))
    }

    /// Compares the slice of a node with the hash that it has itself at `version`; see
    /// [`Replica::check`].
    pub fn check(&mut self, node: &NodeId, version: RouteVersion, hash: u64) -> Checked {
        match self.node_index(node).and_then(|index| self.remote_mut(index)) {
            Some(remote) => remote.replica.check(version, hash, remote.linked),
            None => Checked::Apart,
        }
    }

    /// Loses a route of this node without a word: for tests of the repair. Whether there was one.
    pub fn lose_one(&mut self, name: &NodeName) -> bool {
        let (named, mut lost) = (self.index_of(name).and_then(|index| self.node(index)), false);
        if let Some(node) = named.cloned() {
            self.update(&node, |replica, changes| {
                lost = replica.lose_one(changes);
                Applied::Applied
            });
        }
        lost
    }

    /// The node of an index, while the table's version stands.
    #[must_use]
    pub fn node(&self, index: NodeIndex) -> Option<&NodeId> {
        self.places
            .get(usize::from(index.0))?
            .remote()
            .map(|remote| &remote.id)
    }

    /// The index of a node that is up in this incarnation.
    #[must_use]
    pub fn node_index(&self, node: &NodeId) -> Option<NodeIndex> {
        self.index_of(&node.name)
            .filter(|index| self.node(*index) == Some(node))
    }

    /// Every node that is up, with its slice.
    pub fn replicas(&self) -> impl Iterator<Item = (&NodeId, &Replica)> {
        self.places
            .iter()
            .filter_map(Place::remote)
            .map(|remote| (&remote.id, &remote.replica))
    }

    fn index_of(&self, name: &NodeName) -> Option<NodeIndex> {
        let named = |place: &Place| place.remote().is_some_and(|remote| remote.id.name == *name);
        self.places
            .iter()
            .position(named)
            .map(|index| NodeIndex(index as u16))
    }

    fn remote_mut(&mut self, index: NodeIndex) -> Option<&mut Remote> {
        match self.places.get_mut(usize::from(index.0))? {
            Place::Up(remote) => Some(remote),
            Place::Free | Place::Dying(_) => None,
        }
    }

    fn free_place(&mut self) -> Option<NodeIndex> {
        let mut free = self.places.iter().position(|place| matches!(place, Place::Free));
        if free.is_none() && self.places.len() < NODES_MAX {
            self.places.push(Place::Free);
            free = Some(self.places.len() - 1);
        }
        if free.is_none() && self.dying > 0 {
            self.sweep(usize::MAX);
            free = self.places.iter().position(|place| matches!(place, Place::Free));
        }
        Some(NodeIndex(u16::try_from(free?).ok()?))
    }

    fn retire(&mut self, index: NodeIndex) -> usize {
        let Some(remote) = self.remote_mut(index) else {
            return 0;
        };
        let slots: Vec<_> = std::mem::take(&mut remote.slots).into_iter().collect();
        let count = remote.linked;
        self.places[usize::from(index.0)] = Place::Dying(slots);
        self.up.remove(index);
        self.dying += 1;
        self.version += 1;
        self.sweep(SWEPT_AT_ONCE);
        count
    }

    fn update(
        &mut self,
        node: &NodeId,
        apply: impl FnOnce(&mut Replica, &mut Vec<SliceChange>) -> Applied,
    ) -> Applied {
        self.sweep(SWEPT_PER_CHANGE);
        let Some(index) = self.node_index(node) else {
            return Applied::Stale;
        };
        let Some(remote) = self.remote_mut(index) else {
            return Applied::Stale;
        };
        let mut changes = Vec::new();
        let applied = apply(&mut remote.replica, &mut changes);
        if !changes.is_empty() {
            self.version += 1;
        }
        for change in changes {
            match change {
                SliceChange::Added(filter) => self.link(&filter, index),
                SliceChange::Removed(filter) => self.withdraw(&filter, index),
            }
        }
        applied
    }

    fn link(&mut self, filter: &Arc<str>, index: NodeIndex) {
        let (slot, new) = match plain_of(filter) {
            Some(plain) => {
                let slot = self.slot(plain, || plain.into());
                (slot, self.trie.at_mut(slot).groups.add(filter, index))
            }
            None => {
                let slot = self.slot(filter, || filter.clone());
                (slot, self.trie.at_mut(slot).nodes.insert(index))
            }
        };
        if let Some(remote) = self.remote_mut(index) {
            remote.slots.insert(slot);
            remote.linked += usize::from(new);
        }
    }

    fn withdraw(&mut self, filter: &str, index: NodeIndex) {
        let shared = plain_of(filter);
        let Some(slot) = self.trie.slot(shared.unwrap_or(filter)) else {
            return;
        };
        let route = self.trie.at_mut(slot);
        let had = match shared {
            Some(_) => route.groups.remove(filter, index),
            None => route.nodes.remove(index),
        };
        let more = route.nodes.contains(index) || route.groups.has(index);
        if let Some(remote) = self.remote_mut(index) {
            remote.linked -= usize::from(had);
            if !more {
                remote.slots.remove(&slot);
            }
        }
        if !more {
            self.unlink(slot, index);
        }
    }

    fn unlink(&mut self, slot: Slot, index: NodeIndex) {
        let route = self.trie.at_mut(slot);
        route.nodes.remove(index);
        route.groups.remove_node(index);
        if route.is_vacant() {
            self.trie.remove_at(slot);
        }
    }

    fn slot(&mut self, filter: &str, text: impl FnOnce() -> Arc<str>) -> Slot {
        match self.trie.slot(filter) {
            Some(slot) => slot,
            None => self.trie.put(
                text(),
                Route {
                    local: None,
                    plain: false,
                    nodes: NodeSet::new(),
                    groups: SharedGroups::default(),
                },
            ),
        }
    }
}

/// The filter that the group of this one shares, if it is a `$share/…` filter.
fn plain_of(filter: &str) -> Option<&str> {
    let shared = SharedFilter::parse(filter).ok().flatten()?;
    Some(shared.filter)
}
