//! What the processes between nodes know together, and what outlives them.
//!
//! Each Peer writes its own row; the connector reads them. A lane whose link broke waits here for the
//! link to come back. As a table it belongs to the supervisor, so a crashed process finds it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use supervisors::Caster;
use tokio::sync::Notify;

use super::executor::Executor;
use super::lane::Lane;
use super::ownership::Ownership;
use super::peer::{Adopt, Order};
use crate::broker::links::Outbox;
use crate::limits::{HANDSHAKE_DEADLINE, LINK_RESUME_WITHIN};
use crate::node_name::{Incarnation, NodeId, NodeName};
use crate::registry::cookie::Fingerprint;
use crate::routing::RouteVersion;

mod dealings;

pub use dealings::Dealings;

/// How a link stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// Welcomed; `ractor` is not ready.
    Opening,
    /// Carries routes and messages.
    Up,
    /// Nothing came for a while.
    Suspect,
    /// Its connection broke; a new one may be adopted for a moment.
    Broken,
    /// Closed; what is in its mailbox is put aside.
    Closing,
}

impl LinkState {
    /// The state in one word, as operators read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Broken => "broken",
            Self::Closing => "closing",
        }
    }

    /// Whether there is a connection.
    fn is_carried(self) -> bool {
        matches!(self, Self::Opening | Self::Up | Self::Suspect)
    }
}

/// One link, written by its Peer.
#[derive(Clone, Debug)]
pub struct Row {
    /// To which life of which node.
    pub node: NodeId,
    /// How to tell its Peer something.
    pub orders: Caster<Order>,
    /// How to give it a new connection of the same life.
    pub adopt: Caster<Adopt>,
    /// How it stands.
    pub state: LinkState,
    /// Since when, for people.
    pub since: SystemTime,
    /// Last measured round trip.
    pub round_trip: Option<Duration>,
    /// Messages that were sent over it.
    pub forwarded: u64,
    /// Messages that came over it.
    pub came: u64,
    /// The version of our slice that the other side holds.
    pub routes_sent: RouteVersion,
    /// The version of the other side's slice that we hold.
    pub routes_held: RouteVersion,
    /// Whether we hold all that the other side had when the link came up.
    pub routes_came: bool,
    /// Whether the other side has all that there is of our slice.
    pub routes_settled: bool,
    /// Whether our routes of the other side were found to differ from what it has, and are not repaired.
    pub route_drift: bool,
    /// Whether our canary came back, and whether theirs came.
    pub canaries: (bool, bool),
    /// The cookie that the other side is known to hold: proved it, or said so since.
    pub cookie: Fingerprint,
    /// Where messages wait for it.
    pub outbox: Option<Arc<Outbox>>,
}

impl Row {
    /// The row of a link that is being opened.
    #[must_use]
    pub fn new(node: NodeId, orders: Caster<Order>, adopt: Caster<Adopt>, cookie: Fingerprint) -> Self {
        Self {
            node,
            orders,
            adopt,
            state: LinkState::Opening,
            since: SystemTime::now(),
            round_trip: None,
            forwarded: 0,
            came: 0,
            routes_sent: RouteVersion(0),
            routes_held: RouteVersion(0),
            routes_came: false,
            routes_settled: false,
            route_drift: false,
            canaries: (false, false),
            cookie,
            outbox: None,
        }
    }
}

/// What is kept of a node between two links.
#[derive(Debug)]
struct Kept {
    node: NodeId,
    /// Last batch of that life's messages that was taken.
    taken: u64,
    /// What it has not acknowledged, until when it is kept.
    lane: Option<(Lane, Instant)>,
    /// Messages that it has acknowledged, and messages of it that were taken.
    acknowledged: u64,
    came: u64,
    /// The same of its earlier lives.
    before: (u64, u64),
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<NodeName, Row>,
    kept: BTreeMap<NodeName, Kept>,
    /// Who was welcomed and has no row yet.
    welcomed: BTreeMap<NodeName, Instant>,
    /// Messages that were given up and not counted yet.
    lost: u64,
}

/// The shared table. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
    ownership: Arc<Mutex<Option<Ownership>>>,
    executor: Arc<Mutex<Option<Executor>>>,
    changed: Arc<Notify>,
}

impl Board {
    /// Every link, by name.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.lock().rows.values().cloned().collect()
    }

    /// The link to this life of a node, if it can go on over a new connection.
    #[must_use]
    pub fn adopting(&self, node: &NodeId) -> Option<Row> {
        self.row(&node.name)
            .filter(|row| row.node == *node && row.state != LinkState::Closing)
    }

    /// The link to a node.
    #[must_use]
    pub fn row(&self, name: &NodeName) -> Option<Row> {
        self.lock().rows.get(name).cloned()
    }

    /// Adds the row of a new link, which replaces an older one.
    pub fn insert(&self, row: Row) {
        let mut inner = self.lock();
        inner.welcomed.remove(&row.node.name);
        inner.rows.insert(row.node.name.clone(), row);
    }

    /// A node that dialled us is welcomed: its row is about to be inserted.
    pub fn welcome(&self, name: &NodeName, now: Instant) {
        let mut inner = self.lock();
        inner
            .welcomed
            .retain(|_, at| now.duration_since(*at) < HANDSHAKE_DEADLINE);
        inner.welcomed.insert(name.clone(), now);
    }

    /// Whether a link to this node stands or is about to: then a dial of ours comes too late.
    #[must_use]
    pub fn has_link(&self, node: &NodeId, now: Instant) -> bool {
        let inner = self.lock();
        let row = inner.rows.get(&node.name);
        let welcomed = inner.welcomed.get(&node.name);
        row.is_some_and(|row| row.node == *node && row.state.is_carried())
            || welcomed.is_some_and(|at| now.duration_since(*at) < HANDSHAKE_DEADLINE)
    }

    /// Changes the row of a link, if it is that of the same Peer.
    pub fn change(&self, node: &NodeId, orders: &Caster<Order>, change: impl FnOnce(&mut Row)) {
        let mut inner = self.lock();
        if let Some(row) = inner
            .rows
            .get_mut(&node.name)
            .filter(|row| row.orders.pid() == orders.pid())
        {
            change(row);
        }
    }

    /// Removes the row of a link that ended.
    pub fn remove(&self, node: &NodeId, orders: &Caster<Order>) {
        let mut inner = self.lock();
        if inner
            .rows
            .get(&node.name)
            .is_some_and(|row| row.orders.pid() == orders.pid())
        {
            inner.rows.remove(&node.name);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Waits until there is no link.
    pub async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().rows.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// The last batch that was taken of this life of a node, 0 for none.
    #[must_use]
    pub fn taken(&self, node: &NodeId) -> u64 {
        self.lock()
            .kept
            .get(&node.name)
            .filter(|kept| kept.node == *node)
            .map_or(0, |kept| kept.taken)
    }

    /// Notes that a batch of so many messages was taken.
    pub fn take(&self, node: &NodeId, seq: u64, messages: u64) {
        self.kept_of(node, |kept| {
            kept.taken = seq;
            kept.came += messages;
        });
    }

    /// Puts a lane aside whose link broke, for [`LINK_RESUME_WITHIN`].
    pub fn put_aside(&self, node: &NodeId, lane: Lane, now: Instant) {
        let mut lost = 0;
        self.kept_of(node, |kept| {
            lost = kept.give_up();
            kept.lane = Some((lane, now + LINK_RESUME_WITHIN));
        });
        self.lock().lost += lost;
    }

    /// A node seems to have ended: what was put aside for it waits no longer than `until`.
    pub fn hurry(&self, name: &NodeName, until: Instant) {
        if let Some((_, at)) = self.lock().kept.get_mut(name).and_then(|kept| kept.lane.as_mut()) {
            *at = until.min(*at);
        }
    }

    /// The lane that was put aside for this life of a node.
    #[must_use]
    pub fn lane_of(&self, node: &NodeId) -> Option<Lane> {
        let mut inner = self.lock();
        let kept = inner.kept.get_mut(&node.name).filter(|kept| kept.node == *node)?;
        kept.lane.take().map(|(lane, _)| lane)
    }

    /// Gives up the lanes whose time is over, and lets the publishers of those go that are not held any
    /// longer. Returns how many messages were lost, with those of
    /// earlier lives since the last call.
    pub fn sweep(&self, now: Instant) -> u64 {
        let mut inner = self.lock();
        let mut lost = std::mem::take(&mut inner.lost);
        for kept in inner.kept.values_mut() {
            if kept.lane.as_ref().is_some_and(|(_, until)| *until <= now) {
                lost += kept.give_up();
            }
            if let Some((lane, _)) = &mut kept.lane
                && lane.held().is_some_and(|until| until <= now)
            {
                lane.release();
            }
        }
        lost
    }

    /// What is kept of this life of a node; what waits for an earlier one is lost.
    fn kept_of(&self, node: &NodeId, change: impl FnOnce(&mut Kept)) {
        let mut inner = self.lock();
        let kept = inner
            .kept
            .entry(node.name.clone())
            .or_insert_with(|| Kept::of(node));
        let mut lost = 0;
        if kept.node != *node {
            lost = kept.give_up();
            *kept = kept.reborn(node);
        }
        change(kept);
        inner.lost += lost;
    }

    /// What is known of client ids; made anew if its keeper fell over it.
    pub fn ownership<T>(&self, me: &NodeId, act: impl FnOnce(&mut Ownership) -> T) -> T {
        let mut ownership = self.ownership.lock().unwrap_or_else(|torn| {
            let mut ownership = torn.into_inner();
            *ownership = None;
            self.ownership.clear_poison();
            ownership
        });
        act(ownership.get_or_insert_with(|| Ownership::new(me.clone())))
    }

    /// What is known of wills; made anew if its keeper fell over it. `since` is the first life of this
    /// process.
    pub fn executor<T>(&self, since: Incarnation, act: impl FnOnce(&mut Executor) -> T) -> T {
        let mut executor = self.executor.lock().unwrap_or_else(|torn| {
            let mut executor = torn.into_inner();
            *executor = None;
            self.executor.clear_poison();
            executor
        });
        act(executor.get_or_insert_with(|| Executor::new(since)))
    }

    /// Whether this node has been told all wills that are its to execute.
    #[must_use]
    pub fn wills_told(&self, node: &NodeId) -> bool {
        let executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        executor.as_ref().is_none_or(|executor| executor.has_told(node))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole after every statement: a Peer that panicked while it held the lock tore nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Counts and forgets the lane.
    fn give_up(&mut self) -> u64 {
        let lane = self.lane.take().map(|(lane, _)| lane);
        lane.map_or(0, |mut lane| {
            lane.abandon();
            lane.dropped.link_down
        })
    }

    fn of(node: &NodeId) -> Self {
        Self {
            node: node.clone(),
            taken: 0,
            lane: None,
            acknowledged: 0,
            came: 0,
            before: (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::links::Outbound;
    use crate::mqtt::message::Message;
    use crate::mqtt::packet::QoS;

    fn life(incarnation: u64) -> NodeId {
        NodeId {
            name: "b@h".parse().unwrap(),
            incarnation: Incarnation(incarnation),
        }
    }

    fn lane_of_one() -> Lane {
        let lane = Lane::new(0);
        let message = Arc::new(Message {
            topic: "t".into(),
            payload: Bytes::new(),
            qos: QoS::AtLeastOnce,
            retain: false,
            pass_through: Bytes::new(),
            expires_at: None,
            publisher: "p".into(),
        });
        let outbound = Outbound {
            message,
            share: None,
            loans: None,
            retained: None,
            only_retained: false,
        };
        lane.outbox().announce(&outbound);
        lane.outbox().lay(vec![outbound]);
        lane
    }

    #[test]
    fn a_lane_is_found_again_by_the_same_life_and_by_no_other() {
        let (board, now) = (Board::default(), Instant::now());
        board.take(&life(1), 7, 0);
        board.put_aside(&life(1), lane_of_one(), now);
        assert_eq!((board.taken(&life(1)), board.taken(&life(2))), (7, 0));
        assert!(board.lane_of(&life(2)).is_none());
        assert_eq!(board.lane_of(&life(1)).unwrap().len(), 1);
        assert!(board.lane_of(&life(1)).is_none(), "once");
    }

    #[test]
    fn a_lane_whose_node_does_not_come_back_is_given_up_and_counted() {
        let (board, now) = (Board::default(), Instant::now());
        board.put_aside(&life(1), lane_of_one(), now);
        assert_eq!(board.sweep(now), 0);
        assert_eq!(board.sweep(now + LINK_RESUME_WITHIN), 1);
        assert!(board.lane_of(&life(1)).is_none());
        assert_eq!(board.sweep(now + LINK_RESUME_WITHIN), 0);
    }

    #[test]
    fn a_lane_of_a_node_that_seems_to_have_ended_is_given_up_sooner_and_never_later() {
        let (board, now) = (Board::default(), Instant::now());
        let (node, second) = (life(1), std::time::Duration::from_secs(1));
        board.put_aside(&node, lane_of_one(), now);
        board.hurry(&node.name, now + second);
        board.hurry(&node.name, now + second * 2);
        assert_eq!(board.sweep(now), 0);
        assert_eq!(board.sweep(now + second), 1);
        board.hurry(&node.name, now); // nothing is left to hurry
    }

    #[test]
    fn what_waits_for_an_earlier_life_is_counted_when_a_later_one_comes() {
        let (board, now) = (Board::default(), Instant::now());
        board.put_aside(&life(1), lane_of_one(), now);
        board.take(&life(2), 1, 0);
        assert_eq!((board.taken(&life(1)), board.taken(&life(2))), (0, 1));
        assert_eq!(board.sweep(now), 1);
    }

    #[test]
    fn what_was_dealt_with_an_earlier_life_is_told_apart() {
        let (board, now) = (Board::default(), Instant::now());
        board.take(&life(1), 1, 5);
        board.acknowledged(&life(1), 3);
        board.put_aside(&life(1), lane_of_one(), now);
        let told = |board: &Board| {
            let [dealings] = &board.dealings()[..] else {
                panic!("one node")
            };
            (
                dealings.node.incarnation.0,
                dealings.waiting,
                dealings.acknowledged,
                dealings.came,
                dealings.before,
            )
        };
        assert_eq!(told(&board), (1, 1, 3, 5, (0, 0)));
        board.link_to(&life(2));
        board.acknowledged(&life(2), 1);
        assert_eq!(told(&board), (2, 0, 1, 0, (3, 5)));
    }

    #[test]
    fn a_welcome_holds_our_own_dial_back_for_as_long_as_an_opening_may_take() {
        let (board, now) = (Board::default(), Instant::now());
        assert!(!board.has_link(&life(1), now));
        board.welcome(&life(1).name, now);
        assert!(board.has_link(&life(1), now));
        assert!(!board.has_link(&life(1), now + HANDSHAKE_DEADLINE));
    }
}
