//! What a node tells an audit: its accounts, and what it had to do with other nodes.

use serde::{Deserialize, Serialize};

use crate::node_name::{Incarnation, NodeName};

/// The books of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAudit {
    /// Which node.
    pub node: NodeName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its accounts, in the order in which a message passes them.
    pub accounts: Vec<AccountEntry>,
    /// Each node that it has ever had a link to.
    pub dealings: Vec<DealingsEntry>,
}

/// One account: what came equals what went and what is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// Its name.
    pub account: String,
    /// What came, by counter.
    pub came: Vec<(String, u64)>,
    /// What went, by counter; drops begin with `dropped_`.
    pub went: Vec<(String, u64)>,
    /// What is held, by place.
    pub held: Vec<(String, u64)>,
}

/// Messages between a node and one life of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealingsEntry {
    /// The other node.
    pub node: NodeName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Messages that it has acknowledged.
    pub acknowledged: u64,
    /// Messages that came from it.
    pub came: u64,
    /// Messages that earlier lives of it have acknowledged.
    pub acknowledged_before: u64,
    /// Messages that came from earlier lives of it.
    pub came_before: u64,
}
