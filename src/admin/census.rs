//! What operators count: sessions one by one, and everything else in figures.

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use supervisors::{ProcessInfo, ProcessKind};

use crate::admin::control::tree_entry;
use crate::admin::protocol::{ClientDetail, Member, RouteEntry, SubscriptionEntry, TreeEntry};
use crate::broker::counters::Snapshot;
use crate::broker::storage;
use crate::node_name::{Incarnation, NodeName};

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in their order.
    pub entries: Vec<T>,
    /// The last key of this part, if there is more behind it.
    pub next: Option<String>,
}

/// A message that an operator publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Topic name; checked by whoever publishes it.
    pub topic: String,
    /// What it carries.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
}

/// Who can tell. Every `Err` is one sentence for the operator. Lists come in parts of `limit` entries (at
/// least one), those behind the key `after`.
pub trait Census: Send + Sync + 'static {
    /// Sessions in the order of client ids.
    fn clients(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<ClientDetail>, String>>;
    /// One session.
    fn client(&self, client_id: String) -> LocalBoxFuture<'_, Result<Option<ClientDetail>, String>>;
    /// Subscriptions in the order of client ids, and then of filters. All those of one client come in one
    /// part, so it may be longer; its key is the client id.
    fn subscriptions(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<SubscriptionEntry>, String>>;
    /// Those of one client; `None` if there is no such client.
    fn subscriptions_of(
        &self,
        client_id: String,
    ) -> LocalBoxFuture<'_, Result<Option<Vec<SubscriptionEntry>>, String>>;
    /// Ends the connection of a client; whether there is such a client.
    fn kick(&self, client_id: String) -> LocalBoxFuture<'_, Result<bool, String>>;
    /// The route table in the order of filters.
    fn routes(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> LocalBoxFuture<'_, Result<Page<RouteEntry>, String>>;
    /// Publishes a message as if a client of this node had sent it.
    fn publish(&self, message: Publication) -> Result<(), String>;
    /// What the broker counted so far.
    fn counted(&self) -> Snapshot;
    /// How the store is, and what it does.
    fn stored(&self) -> storage::Figures;
    /// Everything that is a number.
    fn figures(&self) -> LocalBoxFuture<'_, Result<Figures, String>>;
}

/// The node in numbers, at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Its name.
    pub node: NodeName,
    /// Which life of its `core`.
    pub incarnation: Incarnation,
    /// When it was started, in milliseconds since 1970.
    pub since_ms: u64,
    /// What the broker counted since its tables were made: name, what it counts, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// Sessions.
    pub sessions: u64,
    /// Sessions with a client.
    pub connected: u64,
    /// Retained messages, and their bytes.
    pub retained: (u64, u64),
    /// Of them those that all nodes share, and the tombstones of such.
    pub retained_shared: (u64, u64),
    /// For each link: buckets of them that differ from the other node's.
    pub retained_drift: Vec<(NodeName, u64)>,
    /// How the store is, and what it does.
    pub stored: storage::Figures,
    /// Wills of other nodes' clients that are kept here, those of them whose node is lost, and bytes of both.
    pub wills: (u64, u64, u64),
    /// Filters in the route table.
    pub filters: u64,
    /// Other nodes' and this node's part of them, this node's first.
    pub routes: Vec<(NodeName, u64)>,
    /// The members of the cluster, this node among them; empty while the cluster is being restarted.
    pub members: Vec<Member>,
    /// For each link: messages that wait for the other node, and their bytes.
    pub waiting: Vec<(NodeName, u64, u64)>,
    /// Restarts since the node was started.
    pub restarts: u64,
    /// Processes.
    pub processes: u64,
    /// The standing part of the tree: see [`structure`].
    pub tree: Vec<TreeEntry>,
    /// The operating system's view.
    pub process: Process,
}

/// The process as the operating system sees it. Zero where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

/// The tree as it is configured, without the children of dynamic supervisors, of which there may be 100,000.
/// Dynamic supervisors with a number for an id are shards: they are told as one, their parent.
#[must_use]
pub fn structure(summary: Vec<ProcessInfo>) -> Vec<TreeEntry> {
    let mut listed: Vec<TreeEntry> = Vec::with_capacity(summary.len());
    for info in summary {
        let shard = info.kind == ProcessKind::DynamicSupervisor
            && info.id.bytes().all(|byte| byte.is_ascii_digit())
            && info.state == supervisors::ProcessState::Running;
        let entry = tree_entry(info);
        let parent = entry.path.rsplit_once('/').map(|(parent, _)| parent);
        let known = listed
            .iter_mut()
            .find(|known| Some(known.path.as_str()) == parent);
        match known {
            Some(parent) if shard => {
                // A shard is not a child that anybody wants to count.
                parent.children = (parent.children + entry.children).saturating_sub(1);
                parent.child_restarts += entry.child_restarts;
                parent.child_crashes += entry.child_crashes;
                parent.mailbox_len += entry.mailbox_len;
            }
            _ => listed.push(entry),
        }
    }
    listed
}
