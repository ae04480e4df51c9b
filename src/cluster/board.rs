//! What the processes between nodes know together, and what outlives them.
//!
//! Each Peer writes its own row; the connector reads them. A lane whose link broke waits here for the
//! link to come back. As a table it belongs to the supervisor, so a crashed process finds it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use supervisors::Caster;
use tokio::sync::Notify;

use super::lane::Lane;
use super::peer::Order;
use crate::limits::{HANDSHAKE_DEADLINE, LINK_RESUME_WITHIN};
use crate::node_name::{NodeId, NodeName};
use crate::routing::RouteVersion;

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
    /// Closed; what is in its mailbox is put aside.
    Closing,
}

/// One link, written by its Peer.
#[derive(Clone, Debug)]
pub struct Row {
    /// To which life of which node.
    pub node: NodeId,
    /// How to tell its Peer something.
    pub orders: Caster<Order>,
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
    /// Whether our canary came back, and whether theirs came.
    pub canaries: (bool, bool),
}

/// What is kept of a node between two links.
#[derive(Debug)]
struct Kept {
    node: NodeId,
    /// Last batch of that life's messages that was taken.
    taken: u64,
    /// What it has not acknowledged, until when it is kept.
    lane: Option<(Lane, Instant)>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: BTreeMap<NodeName, Row>,
    kept: BTreeMap<NodeName, Kept>,
    /// Who was welcomed and has no row yet.
    welcomed: BTreeMap<NodeName, Instant>,
}

/// The shared table. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

impl Board {
    /// Every link, by name.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.lock().rows.values().cloned().collect()
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
        row.is_some_and(|row| row.node == *node && row.state != LinkState::Closing)
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

    /// Notes that a batch was taken.
    pub fn take(&self, node: &NodeId, seq: u64) {
        self.kept_of(node, |kept| kept.taken = seq);
    }

    /// Puts a lane aside whose link broke, for [`LINK_RESUME_WITHIN`].
    pub fn put_aside(&self, node: &NodeId, lane: Lane, now: Instant) {
        self.kept_of(node, |kept| kept.lane = Some((lane, now + LINK_RESUME_WITHIN)));
    }

    /// The lane that was put aside for this life of a node.
    #[must_use]
    pub fn lane_of(&self, node: &NodeId) -> Option<Lane> {
        let mut inner = self.lock();
        let kept = inner.kept.get_mut(&node.name).filter(|kept| kept.node == *node)?;
        kept.lane.take().map(|(lane, _)| lane)
    }

    /// Gives up the lanes whose time is over or whose node has a later life. Returns how many messages
    /// are lost with them, and when to look again.
    pub fn sweep(&self, now: Instant) -> (u64, Option<Instant>) {
        let (mut lost, mut next) = (0, None::<Instant>);
        for kept in self.lock().kept.values_mut() {
            match &mut kept.lane {
                Some((lane, until)) if *until <= now => {
                    lane.abandon();
                    lost += lane.dropped.link_down;
                    kept.lane = None;
                }
                Some((_, until)) => next = Some(next.map_or(*until, |at| at.min(*until))),
                None => {}
            }
        }
        (lost, next)
    }

    /// What is kept of this life of a node; what was kept of an earlier one is due to be given up.
    fn kept_of(&self, node: &NodeId, change: impl FnOnce(&mut Kept)) {
        let mut inner = self.lock();
        let kept = inner
            .kept
            .entry(node.name.clone())
            .or_insert_with(|| Kept::of(node));
        if kept.node != *node {
            *kept = Kept::of(node);
        }
        change(kept);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole after every statement: a Peer that panicked while it held the lock tore nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn of(node: &NodeId) -> Self {
        Self {
            node: node.clone(),
            taken: 0,
            lane: None,
        }
    }
}
