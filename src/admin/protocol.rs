//! The control protocol: what `ermine` commands ask a node, and what it answers.
//!
//! It begins where the handshake of `docs/PROTOCOL.md` with purpose `control` ends. Frames are those of
//! the registry (`registry/wire.rs`): a length and a bincode body, at most
//! [`CONTROL_FRAME_BYTES_MAX`](crate::limits::CONTROL_FRAME_BYTES_MAX) long.
//!
//! 1. command → node: one [`Request`].
//! 2. node → command: any number of [`Reply`]s; lists come in chunks of at most [`CHUNK_LEN_MAX`].
//! 3. node → command: [`Reply::Done`] or [`Reply::Failed`]; then the node closes.
//!
//! The order of variants and fields is the encoding: new ones go to the end, and golden tests freeze
//! the bytes.

mod audit;
mod cookie;
mod members;
mod sessions;
mod store;

use serde::{Deserialize, Serialize};

use crate::node_name::{Incarnation, NodeName};
use crate::store::tools::Contents;
pub use audit::{AccountEntry, DealingsEntry, NodeAudit};
pub use cookie::{RotateOrder, Rotated, RotatedMember};
pub use members::{ClusterStatus, DrainOrder, ForcedOut, Greeting, JoinStep, Left, Member, Reach};
pub use sessions::{Access, ClientDetail, SubscriptionEntry};
pub use store::StoreOrder;

/// Entries of a list in one reply. With the longest entries (a filter of 64 KiB and its nodes) a chunk
/// may still pass the frame's bound, so [`chunks`] also counts bytes.
pub const CHUNK_LEN_MAX: usize = 512;

/// Bytes of entries in one reply, roughly: half of what a frame may hold.
pub const CHUNK_BYTES_MAX: usize = crate::limits::CONTROL_FRAME_BYTES_MAX / 2;

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Answered with one [`Reply::Status`].
    Status,
    /// Answered with [`Reply::Tree`] in the order of the tree, parents before children.
    Tree,
    /// Answered with [`Reply::Restarts`], oldest first.
    Restarts,
    /// Answered with one [`Reply::Crashed`].
    Crash {
        /// A path of the tree, or a part of one that names a single actor.
        path: String,
    },
    /// Answered with [`Reply::Routes`] in the order of filters.
    Routes,
    /// Answered with [`Reply::Clients`] in the order of client ids.
    Clients,
    /// Answered with one [`Reply::Cluster`].
    ClusterStatus,
    /// Answered with a [`Reply::Step`] as each step ends, and one [`Reply::Cluster`].
    Join {
        /// The node to join.
        other: NodeName,
    },
    /// Answered with one [`Reply::Cluster`].
    Leave,
    /// Answered before the node begins to stop.
    Stop,
    /// Answered with [`Reply::Tree`]: the whole tree if it is small, else without the children of dynamic
    /// supervisors, whose number their supervisor's entry tells.
    TreeSummary,
    /// Answered with [`Reply::Tree`]: first the process that is meant, then its children.
    Children {
        /// As in [`Request::Crash`].
        path: String,
    },
    /// Answered with one [`Reply::Steered`].
    Steer {
        /// What is to be done to it.
        how: Steering,
        /// As in [`Request::Crash`].
        path: String,
    },
    /// Answered with [`Reply::ClientDetails`] in the order of client ids.
    ClientDetails {
        /// Only those behind this client id.
        after: Option<String>,
        /// So many at most; 0 is all.
        limit: u32,
    },
    /// Answered with one [`Reply::ClientDetails`] and with [`Reply::Subscriptions`].
    Client {
        /// Who.
        client_id: String,
    },
    /// Ends the connection of a client with reason 0x98, Administrative action.
    Kick {
        /// Whose.
        client_id: String,
    },
    /// Answered with [`Reply::Subscriptions`] in the order of client ids and filters.
    Subscriptions,
    /// Answered with [`Reply::Text`]: the metrics as `GET /metrics` tells them.
    Metrics,
    /// Answered with one [`Reply::Access`].
    Access,
    /// Answered with one [`Reply::Reloaded`].
    Reload,
    /// Answered with [`Reply::Listeners`] in the order of the configuration.
    Listeners,
    /// Forces a member out. Answered with one [`Reply::Cluster`].
    Expel {
        /// Whom.
        node: NodeName,
    },
    /// Sends the clients away, then leaves. Answered with a [`Reply::Step`] as each step ends, and one
    /// [`Reply::Cluster`].
    Drain(DrainOrder),
    /// Finds out whether the node could join another, and why not. Answered with a [`Reply::Step`] as each
    /// step ends.
    Check {
        /// The other node.
        other: NodeName,
    },
    /// A node that checks the way to this one says who it is. Answered with one [`Reply::Greeting`].
    Greet {
        /// Who checks.
        from: NodeName,
        /// What its clock shows, in milliseconds since 1970.
        clock_ms: u64,
    },
    /// A node that checks asks whether these are reached from here. Answered with one [`Reply::Reached`].
    Reach {
        /// Who checks.
        from: NodeName,
        /// Whom to try; at most [`crate::limits::NODES_MAX`].
        nodes: Vec<NodeName>,
        /// Whether a canary is to fly, or a proved connection is enough.
        canary: bool,
    },
    /// Answered with the same in [`Reply::Canary`]: large enough to show what small frames do not.
    Canary(Vec<u8>),
    /// Answered with one [`Reply::Rotated`].
    Rotate(RotateOrder),
    /// Answered with one [`Reply::Audit`].
    Audit,
    /// Answered with one [`Reply::Store`].
    Store(StoreOrder),
}

/// What an operator can do to a child of the tree, besides crashing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Steering {
    /// End it at once, without a callback. Its supervisor restarts it as after a crash.
    Kill,
    /// Stop it in good order. Its supervisor does not start it again.
    StopChild,
    /// Start it again after it was stopped or has ended.
    StartChild,
    /// Let it hold its arbiter's thread for so many seconds, as a handler that does not return would.
    Stall(u8),
    /// Let the router lose a route of another node; the path is that node's name.
    LoseRoute,
}

impl Steering {
    /// The command.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::StopChild => "stop-child",
            Self::StartChild => "start-child",
            Self::Stall(_) => "crash --stuck",
            Self::LoseRoute => "crash --lose-route",
        }
    }
}

impl Request {
    /// The command as an operator would write it, for the audit line.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Status => "status".into(),
            Self::Tree => "tree".into(),
            Self::Restarts => "restarts".into(),
            Self::Crash { path } => format!("crash {}", path.escape_debug()),
            Self::Routes => "routes".into(),
            Self::Clients => "clients".into(),
            Self::ClusterStatus => "cluster status".into(),
            Self::Join { other } => format!("cluster join {other}"),
            Self::Leave => "cluster leave".into(),
            Self::Stop => "stop".into(),
            Self::TreeSummary => "tree".into(),
            Self::Children { path } => format!("children {}", path.escape_debug()),
            Self::Reload => "reload".into(),
            Self::Listeners => "listeners".into(),
            Self::Steer { how, path } => format!("{} {}", how.word(), path.escape_debug()),
            Self::ClientDetails { .. } => "clients".into(),
            Self::Client { client_id } => format!("clients show {}", client_id.escape_debug()),
            Self::Kick { client_id } => format!("clients kick {}", client_id.escape_debug()),
            Self::Subscriptions => "subscriptions".into(),
            Self::Metrics => "metrics".into(),
            Self::Audit => "audit".into(),
            Self::Access => "token".into(),
            Self::Expel { node } => format!("cluster force-leave {node}"),
            Self::Drain(order) => order.words(),
            Self::Check { other } => format!("cluster check {other}"),
            Self::Greet { from, .. } => format!("a check by {from}"),
            Self::Reach { from, nodes, .. } => format!("{} ways for a check by {from}", nodes.len()),
            Self::Canary(bytes) => format!("a canary of {} bytes", bytes.len()),
            Self::Rotate(order) if order.only_here => "cookie rotate --only-here".into(),
            Self::Rotate(_) => "cookie rotate".into(),
            Self::Store(StoreOrder::Stats) => "store stats".into(),
            Self::Store(StoreOrder::Backup { to }) => format!("store backup {}", to.escape_debug()),
        }
    }

    /// Whether it changes the node, or hands out a secret: such commands are logged where others are only
    /// traced.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(
            self,
            Self::Crash { .. }
                | Self::Steer { .. }
                | Self::Join { .. }
                | Self::Leave
                | Self::Expel { .. }
                | Self::Drain(_)
                | Self::Stop
                | Self::Kick { .. }
                | Self::Access
                | Self::Reload
                | Self::Rotate(_)
                | Self::Store(StoreOrder::Backup { .. })
        )
    }
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The end: all was said and done.
    Done,
    /// The end: the command failed, in one sentence for the operator.
    Failed(String),
    /// The node.
    Status(NodeStatus),
    /// A chunk of the tree.
    Tree(Vec<TreeEntry>),
    /// A chunk of the history.
    Restarts(Vec<RestartEntry>),
    /// The path of the actor that panics now.
    Crashed(String),
    /// A chunk of the route table.
    Routes(Vec<RouteEntry>),
    /// A chunk of the clients.
    Clients(Vec<ClientEntry>),
    /// The cluster.
    Cluster(ClusterStatus),
    /// A step of a join.
    Step(JoinStep),
    /// The path that was meant, when it is done.
    Steered(String),
    /// A chunk of the sessions.
    ClientDetails(Vec<ClientDetail>),
    /// A chunk of the subscriptions.
    Subscriptions(Vec<SubscriptionEntry>),
    /// A piece of a text.
    Text(String),
    /// The way into the HTTP API.
    Access(Access),
    /// One sentence for each file, and whether it was read; where it was not, what was there before stays.
    Reloaded(Vec<(bool, String)>),
    /// A chunk of the listeners.
    Listeners(Vec<ListenerEntry>),
    /// What a checking node is told of this one.
    Greeting(Greeting),
    /// Whom this node reaches, in the order asked.
    Reached(Vec<Reach>),
    /// The same bytes as came.
    Canary(Vec<u8>),
    /// What came of a new cookie.
    Rotated(Rotated),
    /// The node's books.
    Audit(NodeAudit),
    /// What is in the store, or in the copy of it.
    Store(Contents),
}

/// A node. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: NodeName,
    /// Which life of that name.
    pub incarnation: Incarnation,
    /// Version of the program.
    pub version: String,
    /// When it was started.
    pub since_ms: u64,
    /// MQTT addresses.
    pub listeners: Vec<String>,
    /// Port for other nodes and for operators.
    pub dist_port: u16,
    /// Connected clients.
    pub clients: u64,
    /// Sessions, also those whose client is away.
    pub sessions: u64,
    /// Filters in the route table, of all nodes.
    pub routes: u64,
    /// Processes in the tree.
    pub processes: u64,
    /// Restarts since the start of the node.
    pub restarts: u64,
    /// Other nodes that are connected.
    pub peers: u64,
    /// Whether `ermine crash` is allowed.
    pub allow_crash: bool,
    /// What the broker counted since its tables were made: name and value.
    pub counters: Vec<(String, u64)>,
}

/// One process of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Path from the root, child ids joined by `/`.
    pub path: String,
    /// Child id: the last part of the path.
    pub id: String,
    /// `worker`, `supervisor` or `dynamic`.
    pub kind: String,
    /// Strategy of a supervisor.
    pub strategy: Option<String>,
    /// Intensity of a supervisor, `restarts/period`, for example `5/60s`.
    pub intensity: Option<String>,
    /// `permanent`, `transient` or `temporary`.
    pub restart: String,
    /// How it is stopped: `5s` to end by itself, `kill` or `infinity`.
    pub shutdown: String,
    /// The Rust type of its actor.
    pub actor: String,
    /// Process id.
    pub pid: String,
    /// How often it was restarted.
    pub restarts: u64,
    /// Since when this life of it runs.
    pub since_ms: u64,
    /// Messages that wait for it.
    pub mailbox_len: u64,
    /// `starting`, `running`, `restarting` or `stopped`; `planned` if there is no node.
    pub state: String,
    /// Of a supervisor: processes directly below it, listed or not.
    pub children: u64,
    /// Of a supervisor: restarts that count against its intensity now.
    pub intensity_used: u32,
    /// Of a supervisor: restarts that it has decided upon since it started.
    pub child_restarts: u64,
    /// Of a supervisor: children that have crashed since it started.
    pub child_crashes: u64,
}

/// One restart, or the decision against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartEntry {
    /// When the end of the child was handled.
    pub at_ms: u64,
    /// Path of the child.
    pub path: String,
    /// Path of its supervisor.
    pub supervisor: String,
    /// Why it ended, or could not be started.
    pub reason: String,
    /// `restarted`, `start failed` or `gave up`.
    pub outcome: String,
    /// Restarts within the supervisor's period, with this one.
    pub n: u32,
    /// Which start of the child it is, from 1.
    pub generation: u64,
    /// From its end to its start, in µs.
    pub downtime_us: u64,
    /// Ids of the siblings that were restarted with it.
    pub children_restarted: Vec<String>,
}

/// One filter and the nodes that have subscribers of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteEntry {
    /// Topic filter.
    pub filter: String,
    /// Nodes, in the order of names.
    pub nodes: Vec<NodeName>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// Client id.
    pub client_id: String,
    /// Whether the client is connected; its session may wait for it.
    pub connected: bool,
    /// Since when the session is.
    pub since_ms: u64,
    /// Process id of the session.
    pub pid: Option<String>,
    /// Messages that wait for that process.
    pub mailbox_len: u64,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerEntry {
    /// Its name in the tree, for example `tcp:127.0.0.1:1883`.
    pub name: String,
    /// What is spoken: `tcp`, `tls`, `ws`, `wss` or `unix`.
    pub protocol: String,
    /// Where it listens.
    pub address: String,
    /// Whether it accepts connections.
    pub running: bool,
    /// Connections at this time, sockets that have not spoken included.
    pub connections: u64,
    /// Connections at most; 0 is no limit of its own.
    pub connections_max: u64,
    /// Sockets that were let in since the node started.
    pub accepted: u64,
    /// Sockets that were closed at once, for a limit of the listener, the node or the address.
    pub refused: u64,
    /// The limits that hold for its clients: key and value as in a configuration.
    pub limits: Vec<(String, String)>,
}

/// What an entry of a list weighs in a frame, roughly.
pub trait Weight {
    /// Bytes.
    fn weight(&self) -> usize;
}

impl Weight for TreeEntry {
    fn weight(&self) -> usize {
        180 + self.path.len() + self.id.len() + self.actor.len()
    }
}

impl Weight for RestartEntry {
    fn weight(&self) -> usize {
        160 + 2 * self.path.len() + self.reason.len() + 64 * self.children_restarted.len()
    }
}

impl Weight for RouteEntry {
    fn weight(&self) -> usize {
        16 + self.filter.len()
            + self
                .nodes
                .iter()
                .map(|node| 8 + node.as_str().len())
                .sum::<usize>()
    }
}

impl Weight for ListenerEntry {
    fn weight(&self) -> usize {
        160 + 2 * self.name.len() + 48 * self.limits.len()
    }
}

impl Weight for ClientEntry {
    fn weight(&self) -> usize {
        80 + self.client_id.len()
    }
}

/// The entries in chunks that each fit a frame. No entry, no chunk.
pub fn chunks<T: Weight>(entries: impl IntoIterator<Item = T>) -> impl Iterator<Item = Vec<T>> {
    let mut entries = entries.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut chunk: Vec<T> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = entries.peek() {
            let weight = entry.weight();
            if !chunk.is_empty() && (chunk.len() == CHUNK_LEN_MAX || bytes + weight > CHUNK_BYTES_MAX) {
                break;
            }
            bytes += weight;
            chunk.extend(entries.next());
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests;
