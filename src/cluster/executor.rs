//! Who publishes the wills of the clients of a node that is lost.
//!
//! A value: events in, effects out, the clock is handed in. Each node tells of every will of its clients
//! one other node, its *executor*: of the nodes that are up the one that would be home of the client id
//! without this one ([`super::ownership`]). So a will is in memory twice in the cluster, however many nodes
//! there are, and no node alone keeps those of another. When the set of nodes changes, the wills whose
//! executor is another one now are told to that.
//!
//! When a node is lost (killed, or out of reach), each executor *adopts* the wills that it holds of it. They
//! rest for [`WILLS_REST`] and for their delay, then they are published; as wills of its own they are told to
//! an executor in turn, so that one node after the other may be lost. Until then the executor owns the client
//! id in the place of the lost node: a client that connects anywhere is asked for here first, and its will is
//! published before it is served if it was to come at once, or not at all if the client is back within its
//! delay `[MQTT-3.1.3-9]`.
//!
//! | a node … | its living wills | those that wait for their delay |
//! |---|---|---|
//! | is lost | adopted | adopted |
//! | stops in order | it has published them itself | adopted |
//! | leaves the cluster and goes on | its own business | its own business |
//! | is back, in the same life | it tells anew | it tells anew |
//! | is back, the same process in a new life | forgotten: it publishes them itself | likewise |
//!
//! What is told is numbered and acknowledged, one part at a time for each node: a burst of CONNECTs, or a
//! million wills for a node that came, is no more than `PART_BYTES` on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::ownership::home_among;
use crate::broker::links::WillNews;
use crate::limits::{WILLS_HELD_BYTES_MAX, WILLS_REST};
use crate::mqtt::packet::Will;
use crate::node_name::{Incarnation, NodeId};

mod words;

#[cfg(test)]
mod tests;

use words::weight;
pub use words::{Effect, Event, Parted, WillChange, WillRecord, WillSlip};

/// Bytes of wills in one part.
const PART_BYTES: usize = 256 << 10;

/// Wills that are published before others of this arbiter have their turn, and the pause until the next.
const PER_WAKE: usize = 256;
const WAKE_PAUSE: Duration = Duration::from_millis(5);

/// A will that this node publishes, or its broker does.
#[derive(Debug)]
struct Mine {
    will: Arc<Will>,
    delay_s: u32,
    /// When it is due, if its delay has begun.
    due: Option<Instant>,
    /// Adopted: the lost node.
    of: Option<NodeId>,
    /// Adopted: its client is served on another node.
    elsewhere: bool,
    /// To whom it is told.
    executor: Option<NodeId>,
}

/// A will of another node's client.
#[derive(Debug)]
struct Held {
    will: Arc<Will>,
    delay_s: u32,
    due: Option<Instant>,
}

/// What is to be told to one node.
#[derive(Debug, Default)]
struct Desk {
    /// It has asked: what was told to an earlier life of its keeper is told again.
    asked: bool,
    /// The next part is the first.
    first: bool,
    /// Clients whose will is to be told, or that they have none.
    dirty: BTreeSet<ByteString>,
    /// The part that is not acknowledged.
    awaits: Option<u64>,
}

/// What one node knows of wills.
#[derive(Debug)]
pub struct Executor {
    /// The first life of this process.
    since: Incarnation,
    up: BTreeSet<NodeId>,
    mine: BTreeMap<ByteString, Mine>,
    /// Adopted wills in the order in which they are due.
    due: BTreeSet<(Instant, ByteString)>,
    desks: BTreeMap<NodeId, Desk>,
    held: BTreeMap<NodeId, BTreeMap<ByteString, Held>>,
    /// Weight of all that is held and adopted.
    bytes: usize,
    /// Number of the last part.
    told: u64,
    /// This node stops: who was told of a will keeps it.
    stops: bool,
}

impl Executor {
    /// Of a node that is alone; `since` is the first life of its process.
    #[must_use]
    pub fn new(since: Incarnation) -> Self {
        Self {
            since,
            up: BTreeSet::new(),
            mine: BTreeMap::new(),
            due: BTreeSet::new(),
            desks: BTreeMap::new(),
            held: BTreeMap::new(),
            bytes: 0,
            told: 0,
            stops: false,
        }
    }

    /// This node is about to close its links. From now on no other executor is told of a will because one is
    /// gone: both would adopt it.
    pub fn stop(&mut self) {
        self.stops = true;
    }

    /// Takes one event and appends what it causes to `out`, in order.
    pub fn handle(&mut self, event: Event, now: Instant, out: &mut Vec<Effect>) {
        match event {
            Event::News(id, news) => self.news(id, news, now, out),
            Event::Back(id) => self.back(&id, now, out),
            Event::Elsewhere(id) => self.elsewhere(&id, now, out),
            Event::Up(node) => self.up(node, now, out),
            Event::Down(node, parted) => self.down(&node, parted, now, out),
            Event::Slip(from, slip) => self.read(&from, slip, now, out),
            Event::Wake => self.wake(now, out),
        }
    }

    /// Whether the will of this client is adopted and waits.
    #[must_use]
    pub fn has_adopted(&self, id: &ByteString) -> bool {
        self.mine.get(id).is_some_and(|mine| mine.of.is_some())
    }

    /// Whether a node has acknowledged all that it is to be told.
    #[must_use]
    pub fn has_told(&self, node: &NodeId) -> bool {
        let desk = self.desks.get(node);
        desk.is_none_or(|desk| desk.awaits.is_none() && desk.dirty.is_empty())
    }

    /// How many wills are held of others, and are adopted.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.held.values().map(BTreeMap::len).sum(), self.due.len())
    }

    /// Bytes that wills of other nodes' clients count for.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn news(&mut self, id: ByteString, news: WillNews, now: Instant, out: &mut Vec<Effect>) {
        if self.has_adopted(&id) {
            // It has a client here that nobody told of: opened without leave.
            self.back(&id, now, out);
        }
        let (will, delay_s, due) = match news {
            WillNews::Lives(will, delay_s) => (will, delay_s, None),
            WillNews::Runs(will, due) => {
                let left = due.saturating_duration_since(now).as_secs();
                (will, u32::try_from(left).unwrap_or(u32::MAX).max(1), Some(due))
            }
            WillNews::Published(will) => {
                if self
                    .mine
                    .get(&id)
                    .is_some_and(|mine| Arc::ptr_eq(&mine.will, &will))
                {
                    self.forget(&id, now, out);
                }
                return;
            }
            WillNews::Over => return self.forget(&id, now, out),
        };
        let same = |mine: &Mine| Arc::ptr_eq(&mine.will, &will) && mine.due == due && mine.delay_s == delay_s;
        if self.mine.get(&id).is_some_and(same) {
            return;
        }
        let mine = Mine {
            will,
            delay_s,
            due,
            of: None,
            elsewhere: false,
            executor: None,
        };
        self.put(id, mine, now, out);
    }

    fn put(&mut self, id: ByteString, mut mine: Mine, now: Instant, out: &mut Vec<Effect>) {
        mine.executor = home_among(self.up.iter(), &id).cloned();
        let executor = mine.executor.clone();
        self.mine.insert(id.clone(), mine);
        if let Some(node) = executor {
            self.mark(&node, id);
            self.tell(&node, now, out);
        }
    }

    /// This will is no longer ours to publish.
    fn forget(&mut self, id: &ByteString, now: Instant, out: &mut Vec<Effect>) {
        if let Some(mine) = self.take(id)
            && let Some(node) = mine.executor
        {
            self.mark(&node, id.clone());
            self.tell(&node, now, out);
        }
    }

    fn take(&mut self, id: &ByteString) -> Option<Mine> {
        let mine = self.mine.remove(id)?;
        if let (Some(_), Some(due)) = (&mine.of, mine.due) {
            self.due.remove(&(due, id.clone()));
            self.bytes -= weight(id, &mine.will);
        }
        Some(mine)
    }

    /// The client is about to be served, here or elsewhere.
    fn back(&mut self, id: &ByteString, now: Instant, out: &mut Vec<Effect>) {
        if !self.has_adopted(id) {
            return;
        }
        if let Some(mine) = self.mine.get(id)
            && mine.delay_s == 0
        {
            out.push(Effect::Publish(id.clone(), mine.will.clone()));
        }
        self.forget(id, now, out);
    }

    /// The client is served on another node. If that may be the lost one, whose process perhaps goes on and
    /// publishes the will itself, it is decided when that node has said so ([`WillSlip::Ask`]).
    fn elsewhere(&mut self, id: &ByteString, now: Instant, out: &mut Vec<Effect>) {
        let Some(mine) = self.mine.get_mut(id) else { return };
        let Some(of) = &mine.of else { return };
        mine.elsewhere = true;
        let of = of.name.clone();
        if self
            .desks
            .iter()
            .any(|(node, desk)| node.name == of && desk.asked)
        {
            self.back(id, now, out);
        }
    }

    fn up(&mut self, node: NodeId, now: Instant, out: &mut Vec<Effect>) {
        let earlier = |up: &&NodeId| up.name == node.name && **up != node;
        for gone in self.up.iter().filter(earlier).cloned().collect::<Vec<_>>() {
            self.down(&gone, Parted::Lost, now, out);
        }
        self.disown(|of| *of == node, now, out);
        if self.up.insert(node.clone()) {
            self.desks.insert(node.clone(), Desk::default());
            self.reassign(now, out);
        } else if self.desks.get(&node).is_some_and(|desk| desk.asked) {
            // It heard of the new connection before we did, and has asked.
            self.tell_anew(&node, now, out);
        }
    }

    /// What is to be said to a node before anything else when a link to it stands, or stands again.
    #[must_use]
    pub fn ask(&self) -> WillSlip {
        WillSlip::Ask { since: self.since.0 }
    }

    fn down(&mut self, node: &NodeId, parted: Parted, now: Instant, out: &mut Vec<Effect>) {
        if !self.up.remove(node) {
            return;
        }
        self.desks.remove(node);
        for (id, held) in self.held.remove(node).into_iter().flatten() {
            self.bytes -= weight(&id, &held.will);
            match parted {
                Parted::Lost => self.adopt(id, held, node, now, out),
                Parted::Stopped if held.due.is_some() => self.adopt(id, held, node, now, out),
                Parted::Stopped | Parted::Left => {}
            }
        }
        self.reassign(now, out);
        self.wake_when_due(out);
    }

    fn adopt(&mut self, id: ByteString, held: Held, of: &NodeId, now: Instant, out: &mut Vec<Effect>) {
        if self.mine.get(&id).is_some_and(|mine| mine.of.is_none()) {
            // Its client is here by now.
            if held.delay_s == 0 {
                out.push(Effect::Publish(id, held.will));
            }
            return;
        }
        self.forget(&id, now, out);
        let delayed = now.checked_add(Duration::from_secs(held.delay_s.into()));
        let due = held.due.or(delayed).unwrap_or(now).max(now + WILLS_REST);
        self.bytes += weight(&id, &held.will);
        self.due.insert((due, id.clone()));
        let mine = Mine {
            will: held.will,
            delay_s: held.delay_s,
            due: Some(due),
            of: Some(of.clone()),
            elsewhere: false,
            executor: None,
        };
        self.put(id.clone(), mine, now, out);
        out.push(Effect::Adopt(id));
    }

    /// Wills of these lives of nodes were adopted in vain.
    fn disown(&mut self, is_of: impl Fn(&NodeId) -> bool, now: Instant, out: &mut Vec<Effect>) {
        let adopted = self.due.iter().map(|(_, id)| id);
        let of = |id: &&ByteString| {
            let mine = self.mine.get(*id);
            mine.is_some_and(|mine| mine.of.as_ref().is_some_and(&is_of))
        };
        for id in adopted.filter(of).cloned().collect::<Vec<_>>() {
            self.forget(&id, now, out);
            out.push(Effect::Renounce(id));
        }
    }

    /// The set of nodes changed: wills whose executor is another one now are told to that.
    fn reassign(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.stops {
            return;
        }
        for (id, mine) in &mut self.mine {
            let executor = home_among(self.up.iter(), id);
            if mine.executor.as_ref() != executor {
                let before = std::mem::replace(&mut mine.executor, executor.cloned());
                for node in before.iter().chain(executor) {
                    if let Some(desk) = self.desks.get_mut(node) {
                        desk.dirty.insert(id.clone());
                    }
                }
            }
        }
        for node in self.up.clone() {
            self.tell(&node, now, out);
        }
    }

    /// All that is a node's to execute.
    fn tell_anew(&mut self, node: &NodeId, now: Instant, out: &mut Vec<Effect>) {
        let told = self.mine.iter();
        let theirs = told.filter(|(_, mine)| mine.executor.as_ref() == Some(node));
        let desk = Desk {
            asked: true,
            first: true,
            dirty: theirs.map(|(id, _)| id.clone()).collect(),
            awaits: None,
        };
        self.desks.insert(node.clone(), desk);
        self.tell(node, now, out);
    }

    fn mark(&mut self, node: &NodeId, id: ByteString) {
        if let Some(desk) = self.desks.get_mut(node) {
            desk.dirty.insert(id);
        }
    }

    /// The next part for a node, if it has asked and has taken the one before.
    fn tell(&mut self, node: &NodeId, now: Instant, out: &mut Vec<Effect>) {
        let Some(desk) = self.desks.get_mut(node) else {
            return;
        };
        if !desk.asked || desk.awaits.is_some() || (desk.dirty.is_empty() && !desk.first) {
            return;
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(id) = desk.dirty.pop_first()
        {
            let mine = self.mine.get(&id);
            let mine = mine.filter(|mine| mine.executor.as_ref() == Some(node));
            bytes += mine.map_or(id.len() + 16, |mine| weight(&id, &mine.will));
            let will = mine.map(|mine| WillRecord::of(&mine.will, mine.delay_s, mine.due, now));
            changes.push(WillChange { id, will });
        }
        self.told += 1;
        desk.awaits = Some(self.told);
        let first = std::mem::take(&mut desk.first);
        let (number, node) = (self.told, node.clone());
        let part = WillSlip::Part {
            number,
            first,
            changes,
        };
        out.push(Effect::Say(node, part));
    }

    fn read(&mut self, from: &NodeId, slip: WillSlip, now: Instant, out: &mut Vec<Effect>) {
        if !self.up.contains(from) {
            return;
        }
        match slip {
            WillSlip::Ask { since } => {
                self.introduced(from, since, now, out);
                self.tell_anew(from, now, out);
            }
            WillSlip::Part {
                number,
                first,
                changes,
            } => {
                if first {
                    self.begin(from);
                }
                changes
                    .into_iter()
                    .for_each(|change| self.change(from, change, now, out));
                out.push(Effect::Say(from.clone(), WillSlip::Taken { number }));
            }
            WillSlip::Taken { number } => {
                let desk = self.desks.get_mut(from);
                if let Some(desk) = desk.filter(|desk| desk.awaits == Some(number)) {
                    desk.awaits = None;
                    self.tell(from, now, out);
                }
            }
        }
    }

    /// What the process of this node had in an earlier life it publishes itself. What an earlier process had
    /// is published now where its client is served already.
    fn introduced(&mut self, from: &NodeId, since: u64, now: Instant, out: &mut Vec<Effect>) {
        let same_process = |of: &NodeId| of.name == from.name && of.incarnation.0 >= since;
        self.disown(same_process, now, out);
        let earlier = |mine: &Mine| mine.elsewhere && mine.of.as_ref().is_some_and(|of| of.name == from.name);
        let waits = |id: &&ByteString| self.mine.get(*id).is_some_and(earlier);
        let adopted = self.due.iter().map(|(_, id)| id);
        for id in adopted.filter(waits).cloned().collect::<Vec<_>>() {
            self.back(&id, now, out);
        }
    }

    /// A node tells all anew.
    fn begin(&mut self, from: &NodeId) {
        for (id, held) in self.held.remove(from).into_iter().flatten() {
            self.bytes -= weight(&id, &held.will);
        }
    }

    fn change(&mut self, from: &NodeId, change: WillChange, now: Instant, out: &mut Vec<Effect>) {
        let WillChange { id, will } = change;
        let held = self.held.entry(from.clone()).or_default();
        if let Some(before) = held.remove(&id) {
            self.bytes -= weight(&id, &before.will);
        }
        let Some(record) = will else { return };
        let (will, delay_s, due) = record.into_will(now);
        let weight = weight(&id, &will);
        if self.bytes + weight > WILLS_HELD_BYTES_MAX {
            return out.push(Effect::Refused);
        }
        self.bytes += weight;
        let will = Arc::new(will);
        held.insert(id, Held { will, delay_s, due });
    }

    fn wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for _ in 0..PER_WAKE {
            let Some((_, id)) = self.due.first().filter(|(due, _)| *due <= now).cloned() else {
                return self.wake_when_due(out);
            };
            if let Some(mine) = self.mine.get(&id) {
                out.push(Effect::Publish(id.clone(), mine.will.clone()));
            }
            self.forget(&id, now, out);
            out.push(Effect::Renounce(id));
        }
        out.push(Effect::WakeAt(now + WAKE_PAUSE));
    }

    fn wake_when_due(&self, out: &mut Vec<Effect>) {
        let first = self.due.first().map(|(due, _)| *due);
        out.extend(first.map(Effect::WakeAt));
    }
}
