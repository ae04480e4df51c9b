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
use super::intake::Intake;
use super::lane::Lane;
use super::ownership::Ownership;
use super::peer::{Adopt, Order};
use crate::broker::links::Outbox;
use crate::limits::HANDSHAKE_DEADLINE;
use crate::node_name::{Incarnation, NodeId, NodeName};
use crate::registry::cookie::Fingerprint;
use crate::routing::RouteVersion;

mod dealings;
mod lanes;

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
    /// What came from it.
    intake: Intake,
    /// What it has not acknowledged, until when it is kept.
    lane: Option<(Lane, Instant)>,
    /// Number of the last batch for it that was given up with its lane.
    given_up: u64,
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

    /// The connection of a node that was welcomed goes on with the link that there is.
    pub fn arrived(&self, name: &NodeName) {
        self.lock().welcomed.remove(name);
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

#[cfg(test)]
mod tests;
