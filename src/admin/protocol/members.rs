//! What is said of the cluster: its members, and the steps by which it changes.

use serde::{Deserialize, Serialize};

use crate::node_name::{Incarnation, NodeName};

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that was asked.
    pub node: NodeName,
    /// All members, itself included, in the order of names.
    pub members: Vec<Member>,
    /// Those that are members no more, in the order of names.
    pub left: Vec<Left>,
    /// Set while the node works alone because it was forced out.
    pub forced_out: Option<ForcedOut>,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: NodeName,
    /// Which life of it; nothing if it was never met.
    pub incarnation: Option<Incarnation>,
    /// Whether it runs, as far as the node that was asked can tell.
    pub running: bool,
    /// `local`, `joining`, `opening`, `up`, `suspect`, `closing` or `down`.
    pub link: String,
    /// Since when the link is in that state.
    pub since_ms: u64,
    /// Routes held of it.
    pub routes: u64,
    /// Version of its slice of the route table.
    pub routes_version: u64,
    /// Last measured round trip, in µs.
    pub round_trip_us: Option<u64>,
    /// Messages sent to it over the present link.
    pub sent: u64,
    /// Messages received from it over the present link.
    pub received: u64,
    /// Why the link is down, if it is.
    pub reason: Option<String>,
    /// Whether the routes held of it were found to differ from what it has, and are not repaired.
    pub route_drift: bool,
    /// Whether a test message sent over the link came back: `both`, `out` (ours did), `in` (theirs came) or
    /// `none`.
    pub canary: Option<String>,
}

/// One that was a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its name.
    pub node: NodeName,
    /// When it left, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who forced it out; nothing if it left by itself.
    pub forced_out_by: Option<NodeName>,
}

/// Why a node works alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedOut {
    /// Whose operator wanted it.
    pub by: NodeName,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// A step of a join, a drain or a check that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinStep {
    /// Of a join: `name`, `registry`, `connection`, `version`, `cookie`, `route sync` or `canary`.
    pub step: String,
    /// Whether it went well; all ends with the first step that did not.
    pub ok: bool,
    /// What was found, on one line.
    pub detail: String,
}

/// How a node is to be emptied before it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainOrder {
    /// Clients disconnected in a second, at least 1.
    pub rate: u32,
    /// Where 5.0 clients are sent: the Server Reference `[MQTT-4.13]`.
    pub server: Option<String>,
    /// Whether they are to go there for good (0x9D) instead of for now (0x9C).
    pub moved: bool,
    /// Whether the node stops when it has left.
    pub stop: bool,
}

impl DrainOrder {
    /// The command as an operator would write it.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("cluster leave --rate {}", self.rate);
        if let Some(server) = &self.server {
            words.push_str(&format!(" --server {}", server.escape_debug()));
        }
        for (set, flag) in [(self.moved, " --moved"), (self.stop, " --stop")] {
            words.push_str(if set { flag } else { "" });
        }
        words
    }
}

/// What a node that is checked tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What its clock shows, in milliseconds since 1970.
    pub clock_ms: u64,
    /// Lowest and highest version of the link protocol that it speaks.
    pub link_versions: (u16, u16),
    /// The members that it reaches, itself not among them.
    pub members: Vec<NodeName>,
}

/// Whether a node is reached, as another one tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whom.
    pub node: NodeName,
    /// Nothing if it is, else the sentence why not.
    pub failed: Option<String>,
}
