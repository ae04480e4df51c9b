//! Messages: who publishes what, what lies in the lanes, and the book of what became of each.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ermine::broker::links::{Inbound, Outbound, Outbox};
use ermine::cluster::lane::Lane;
use ermine::limits::{FORWARD_BATCH_BYTES, LINK_QUEUE_BYTES_MAX, LINK_RESUME_WITHIN, LINK_WINDOW_BYTES};
use ermine::mqtt::message::Message;
use ermine::mqtt::packet::QoS;
use ermine::node_name::{NodeId, NodeName};
use ermine::routing::route_table::Match;
use ermine::routing::stamps::Stamp;

use crate::life::Mail;
use crate::net::Item;
use crate::peer::{Reason, ToPeer};
use crate::sabotage::Sabotage;
use crate::world::{Inbox, SECOND, World};

/// A lane and the numbers of the messages in it, oldest first. The outbox outlives whoever holds the lane,
/// and so do they.
pub(crate) struct Counted {
    pub(crate) lane: Lane,
    ids: Rc<RefCell<VecDeque<u64>>>,
}

/// Where publishers lay their messages, and their numbers.
#[derive(Clone)]
pub(crate) struct Waiting {
    pub(crate) outbox: Arc<Outbox>,
    ids: Rc<RefCell<VecDeque<u64>>>,
}

/// What is put aside of a lane: the board has the lane itself.
pub(crate) struct Aside {
    node: NodeId,
    ids: Option<Rc<RefCell<VecDeque<u64>>>>,
    until: u64,
}

impl Counted {
    pub(crate) fn waiting(&self) -> Waiting {
        Waiting {
            outbox: self.lane.outbox().clone(),
            ids: self.ids.clone(),
        }
    }
}

/// From one life to another.
pub(crate) type Way = (NodeId, NodeId);

/// What became of messages.
#[derive(Default)]
pub(crate) struct Ledger {
    ids_made: u64,
    /// Dispatched over there: the latest, and all.
    latest: BTreeMap<Way, u64>,
    pub(crate) dispatched: BTreeSet<(u64, NodeId)>,
    /// What persistent sessions over there were promised of it outlasts that life.
    pub(crate) safe: BTreeSet<(u64, NodeId)>,
    /// Messages that a lane gave up: counted as `link_down`.
    pub(crate) given_up: u64,
    /// Of what the board gave up, what it has not told yet.
    untold: BTreeMap<NodeId, u64>,
    pub(crate) forwarded: u64,
    /// Every write of a retained topic.
    pub(crate) writes: Vec<(NodeId, String, Stamp)>,
    /// Commands of operators: lanes are given up with them.
    pub(crate) commanded: BTreeMap<NodeName, u64>,
}

pub(crate) const TOPICS: [&str; 6] = ["a", "a/b", "a/c", "a/b/c", "d", "d/e"];
pub(crate) const FILTERS: [&str; 12] = [
    "a", "a/b", "a/c", "a/b/c", "d", "d/e", "#", "+", "a/+", "a/#", "+/b", "d/#",
];

fn message(id: u64, topic: &str, size: usize, expires_in: Option<(std::time::Instant, u64)>) -> Message {
    let mut payload = vec![0; size.max(8)];
    payload[..8].copy_from_slice(&id.to_be_bytes());
    Message {
        topic: topic.into(),
        payload: Bytes::from(payload),
        qos: QoS::AtLeastOnce,
        retain: false,
        pass_through: Bytes::new(),
        expires_at: expires_in.map(|(now, ms)| now + Duration::from_millis(ms)),
        publisher: "p".into(),
    }
}

fn id_of(message: &Message) -> Option<u64> {
    Some(u64::from_be_bytes(message.payload.get(..8)?.try_into().ok()?))
}

impl World {
    /// The lane for a new Peer: the one that was put aside, or an empty one.
    pub(crate) fn lane_for(&mut self, host: usize, node: &NodeId, received: u64) -> Result<Counted, String> {
        let life = self.life(host);
        let lane = life.board.lane_for(node, received);
        let lane = lane.map_err(|error| error.to_string())?;
        let aside = life.aside.get_mut(&node.name).filter(|aside| aside.node == *node);
        let ids = aside.and_then(|aside| aside.ids.take()).unwrap_or_default();
        self.taken(host, node);
        let counted = Counted { lane, ids };
        counted.lane.outbox().engage();
        self.settle_lane(host, node, &counted.lane, &counted.ids);
        Ok(counted)
    }

    pub(crate) fn resume_lane(&mut self, host: usize, p: u64, received: u64) {
        let Some(peer) = self.peer(host, p) else { return };
        if let Err(error) = peer.lane.lane.resume(received) {
            return self.end(host, p, Reason::Protocol(error.to_string()));
        }
        self.settle_peer(host, p);
    }

    pub(crate) fn acknowledged(&mut self, host: usize, p: u64, seq: u64) -> Result<(), String> {
        let Some(peer) = self.peer(host, p) else {
            return Ok(());
        };
        peer.lane
            .lane
            .acknowledge(seq)
            .map_err(|error| error.to_string())?;
        self.settle_peer(host, p);
        Ok(())
    }

    fn settle_peer(&mut self, host: usize, p: u64) {
        let Some(peer) = self.life(host).peers.remove(&p) else {
            return;
        };
        self.settle_lane(host, &peer.node, &peer.lane.lane, &peer.lane.ids);
        self.life(host).peers.insert(p, peer);
    }

    /// What has left the lane is acknowledged: then it was dispatched, and its publisher gets its PUBACK.
    fn settle_lane(&mut self, host: usize, node: &NodeId, lane: &Lane, ids: &RefCell<VecDeque<u64>>) {
        let mut ids = ids.borrow_mut();
        while ids.len() > lane.len() {
            let id = ids.pop_front().expect("it is not empty");
            let known = (id, node.clone());
            if id > 0 && !self.ledger.safe.contains(&known) {
                let from = &self.hosts[host].name;
                let why = if self.ledger.dispatched.contains(&known) {
                    "has not stored it"
                } else {
                    "did not dispatch it"
                };
                self.violated(&format!(
                    "message {id} from {from} was acknowledged, but {node} {why}"
                ));
            }
        }
        if ids.len() != lane.len() {
            self.violated(&format!(
                "a lane to {node} holds {}, not {} messages",
                lane.len(),
                ids.len()
            ));
        }
    }

    fn give_up(&mut self, host: usize, node: &NodeId, ids: &RefCell<VecDeque<u64>>, by_time: bool) -> u64 {
        let lost = std::mem::take(&mut *ids.borrow_mut());
        let count = lost.len() as u64;
        self.ledger.given_up += count;
        if count > 0 {
            let name = &self.hosts[host].name;
            self.say(|| format!("{name} gives up {count} messages for {node}"));
            let other = self.host_of(&node.name);
            let long_ago = |since| self.now - since > 9 * SECOND;
            let sound = self.sound_since(host, other).is_some_and(long_ago);
            if by_time && sound && self.lives(node) && !self.commanded(host) && !self.commanded(other) {
                self.violated("messages were given up although the way to their node was sound");
            }
        }
        count
    }

    /// Whether an operator had this node leave or come lately.
    pub(crate) fn commanded(&self, host: usize) -> bool {
        let at = self.ledger.commanded.get(&self.hosts[host].name);
        at.is_some_and(|at| self.now - at < 30 * SECOND)
    }

    /// A Peer has ended.
    pub(crate) fn part(&mut self, host: usize, node: &NodeId, counted: Counted, abandons: bool) {
        if abandons {
            self.taken(host, node);
            let told = self.life(host).board.abandon(node, counted.lane);
            let lost = self.give_up(host, node, &counted.ids, false);
            if told != lost {
                self.violated(&format!("a lane gave {lost} messages up and counted {told}"));
            }
            return;
        }
        self.taken(host, node);
        let (now, until) = (self.instant(), self.now + LINK_RESUME_WITHIN.as_micros() as u64);
        let life = self.life(host);
        life.board.put_aside(node, counted.lane, now);
        let aside = Aside {
            node: node.clone(),
            ids: Some(counted.ids),
            until,
        };
        let before = life.aside.insert(node.name.clone(), aside);
        if let Some((node, ids)) = before.and_then(|before| Some((before.node, before.ids?))) {
            self.untold(host, &node, &ids);
        }
    }

    /// The board keeps things of one life of a node only.
    pub(crate) fn taken(&mut self, host: usize, node: &NodeId) {
        let life = self.life(host);
        let earlier = life
            .aside
            .get(&node.name)
            .is_some_and(|aside| aside.node != *node);
        let aside = if earlier {
            life.aside.remove(&node.name)
        } else {
            None
        };
        if let Some((node, ids)) = aside.and_then(|aside| Some((aside.node, aside.ids?))) {
            self.untold(host, &node, &ids);
        }
    }

    fn untold(&mut self, host: usize, node: &NodeId, ids: &RefCell<VecDeque<u64>>) {
        let lost = self.give_up(host, node, ids, false);
        let me = self.life(host).id.clone();
        *self.ledger.untold.entry(me).or_default() += lost;
    }

    pub(crate) fn hurry(&mut self, host: usize, name: &NodeName) {
        let until = self.now + ermine::limits::LINK_RESUME_UNREGISTERED_WITHIN.as_micros() as u64;
        let instant = self.instant() + ermine::limits::LINK_RESUME_UNREGISTERED_WITHIN;
        let life = self.life(host);
        life.board.hurry(name, instant);
        if let Some(aside) = life.aside.get_mut(name) {
            aside.until = aside.until.min(until);
        }
    }

    /// The board gives up what waited long enough; the book says the same.
    pub(crate) fn sweep(&mut self, host: usize) {
        let (now, instant) = (self.now, self.instant());
        let life = self.life(host);
        let told = life.board.sweep(instant);
        let me = life.id.clone();
        let due = life.aside.values_mut().filter(|aside| aside.until <= now);
        let due = due.filter_map(|aside| Some((aside.node.clone(), aside.ids.take()?)));
        let due: Vec<_> = due.collect();
        let mut lost = self.ledger.untold.remove(&me).unwrap_or(0);
        for (node, ids) in due {
            lost += self.give_up(host, &node, &ids, true);
        }
        if told != lost {
            self.violated(&format!(
                "the board of {me} counted {told} lost messages, not {lost}"
            ));
        }
    }

    pub(crate) fn send_batches(&mut self, host: usize, p: u64) {
        let instant = self.instant();
        loop {
            let Some(peer) = self.peer(host, p).filter(|peer| peer.up && peer.ready) else {
                return;
            };
            let Some(frame) = peer.lane.lane.next_batch(instant) else {
                break;
            };
            let conn = peer.conn;
            self.send(conn, host, Item::Frame(frame));
        }
    }

    /// A message comes from another node: in order, once. Its number.
    pub(crate) fn dispatch(&mut self, host: usize, from: &NodeId, inbound: &Inbound) -> Option<u64> {
        let me = self.life(host).id.clone();
        self.ledger.forwarded += 1;
        if let Some(id) = id_of(&inbound.message) {
            let latest = self.ledger.latest.entry((from.clone(), me.clone())).or_default();
            let before = std::mem::replace(latest, id);
            if before >= id {
                self.violated(&format!("{me} took message {id} of {from} behind {before}"));
            }
            self.ledger.dispatched.insert((id, me));
        }
        if let Some(stamp) = &inbound.retained {
            let wall = self.wall_us(host);
            let _ = self.life(host).clock.observe(stamp.time, wall);
            let retain = Mail::Retain((*inbound.message).clone(), Some(stamp.clone()));
            self.post(host, Inbox::Retainer, retain);
        }
        id_of(&inbound.message)
    }

    /// A client publishes QoS 1. `false`: it has to wait.
    pub(crate) fn publish(&mut self, host: usize, topic: &str, size: usize, retain: bool) -> Option<u64> {
        let (instant, wall) = (self.instant(), self.wall_us(host));
        let expires = if retain && self.rng.once_in(3) {
            Some(self.rng.within(30_000, 50_000))
        } else {
            None
        };
        let clears = retain && self.rng.once_in(4);
        let life = self.life(host);
        let full = life.links.iter().any(|link| link.waiting.outbox.is_full());
        if full && !self.is_broken(Sabotage::NobodyWaits) {
            return None;
        }
        let life = self.life(host);
        let mut found = Match::default();
        life.table.match_topic(topic, &mut found);
        let matched = found
            .nodes
            .iter()
            .filter_map(|index| life.table.node(index).cloned());
        let matched: Vec<NodeId> = matched.collect();
        let (me, shared) = (life.id.clone(), life.shared);
        let time = retain.then(|| life.clock.stamp(wall));
        let to = life
            .links
            .iter()
            .filter(|link| retain || matched.contains(&link.node));
        let to: Vec<_> = to.map(|link| (link.peer, link.waiting.clone())).collect();
        self.ledger.ids_made += 1;
        let id = self.ledger.ids_made;
        let mut sent = message(id, topic, size, expires.map(|ms| (instant, ms)));
        sent.retain = retain;
        if clears {
            sent.payload = Bytes::new();
        }
        if let Some(time) = time {
            let stamp = Stamp {
                time,
                node: me.name.clone(),
            };
            if clears && !shared {
                let mine = |(node, known, _): &(NodeId, String, Stamp)| *node == me && known == topic;
                self.ledger.writes.retain(|write| !mine(write));
            } else {
                self.ledger.writes.push((me, topic.to_owned(), stamp.clone()));
            }
            self.post(host, Inbox::Retainer, Mail::Retain(sent.clone(), Some(stamp)));
        }
        let message = Arc::new(sent);
        for (peer, waiting) in to {
            let outbound = Outbound {
                message: message.clone(),
                share: None,
                loans: None,
                retained: time,
                only_retained: false,
            };
            waiting.outbox.announce(&outbound);
            // A message that clears carries no number: it is not followed.
            waiting.ids.borrow_mut().push_back(if clears { 0 } else { id });
            if !waiting.outbox.lay(vec![outbound]).is_empty() {
                waiting.ids.borrow_mut().pop_back();
                self.ledger.given_up += 1;
            } else if waiting.outbox.queued() > LINK_QUEUE_BYTES_MAX + size + 1024 {
                self.violated("an outbox holds more than its bound");
            }
            self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Bell));
        }
        Some(id)
    }

    /// Bytes of batches that may be on their way at a time.
    pub(crate) fn window(&self, conn: u64, host: usize) {
        let batches = self.coming(conn, host).filter(|frame| frame.first() == Some(&4));
        let bytes: usize = batches.map(<[u8]>::len).sum();
        if bytes > LINK_WINDOW_BYTES + 2 * FORWARD_BATCH_BYTES {
            self.violated(&format!("{bytes} bytes of messages are on one link"));
        }
    }
}
