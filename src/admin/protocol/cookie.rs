//! What is said of a new cookie.

use serde::{Deserialize, Serialize};

use crate::node_name::NodeName;
use crate::registry::sealed::{About, Sealed};

/// A new cookie for a node, or for all of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateOrder {
    /// The new one, under the one by which this connection was proved: control connections are not
    /// encrypted.
    pub sealed: Sealed,
    /// How long the old one is taken after the change, in seconds.
    pub grace_s: u32,
    /// Whether the other members are told nothing.
    pub only_here: bool,
}

impl RotateOrder {
    /// What the sealed cookie is bound to.
    #[must_use]
    pub fn about(to: &NodeName, grace_s: u32, only_here: bool) -> About<'_> {
        About {
            purpose: "control",
            from: "",
            to: to.as_str(),
            numbers: [grace_s.into(), only_here.into()],
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Fingerprint of the old cookie.
    pub before: String,
    /// Fingerprint of the new one.
    pub after: String,
    /// How long the old one is still taken, in seconds.
    pub grace_s: u32,
    /// What became of each node, by name.
    pub members: Vec<RotatedMember>,
}

/// What became of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedMember {
    /// Which.
    pub node: NodeName,
    /// `changed`, `down` or `unconfirmed`.
    pub state: String,
    /// What the operator has yet to do there, one sentence.
    pub left_to_do: Option<String>,
}
