//! Node names `name@host` and incarnations: the identity of a node everywhere in the cluster.
//!
//! A name alone is not an identity: a node that was killed and started again has the same name and
//! none of the old state. Erlang calls the difference *creation* (`erl_dist_protocol`); here it is
//! the [`Incarnation`], and the pair is a [`NodeId`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest node name in bytes, `name@host` together. DNS allows 253 for the host.
pub const NODE_NAME_LEN_MAX: usize = 255;

/// A node's name, `name@host`. Cheap to clone; ordered as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// Why a text is not a node name. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// There is no `@`, or more than one.
    #[error("node name '{0}' must have the form name@host, for example ermine@127.0.0.1")]
    Form(String),
    /// The part before `@` is empty or holds a character outside `[A-Za-z0-9_-]`.
    #[error("node name '{0}': the part before '@' may hold only letters, digits, '_' and '-'")]
    Name(String),
    /// The part after `@` is empty or holds a character outside `[A-Za-z0-9._:-]` and brackets.
    #[error("node name '{0}': the part after '@' must be a host name or an IP address")]
    Host(String),
    /// The whole is longer than [`NODE_NAME_LEN_MAX`].
    #[error("node name is {0} bytes long; at most {max} are allowed", max = NODE_NAME_LEN_MAX)]
    Long(usize),
}

impl NodeName {
    /// The whole name, `name@host`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before `@`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(name, _)| name)
    }

    /// The part after `@`: a host name or an IP address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, host)| host)
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > NODE_NAME_LEN_MAX {
            return Err(NodeNameError::Long(text.len()));
        }
        let form = || NodeNameError::Form(text.into());
        let (name, host) = text.split_once('@').ok_or_else(form)?;
        if host.contains('@') {
            return Err(form());
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(NodeNameError::Name(text.into()));
        }
        let hostlike = |c: char| plain(c) || matches!(c, '.' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(hostlike) {
            return Err(NodeNameError::Host(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which life of a node this is: microseconds since the epoch at its start, so a later life of the
/// same name compares greater. Erlang's *creation*.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One life of one node: the identity by which state is owned.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NodeId {
    /// The name, which stays through restarts.
    pub name: NodeName,
    /// Which life of that name.
    pub incarnation: Incarnation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_name_is_split_at_its_at_sign() {
        let name: NodeName = "n2@10.0.0.7".parse().unwrap();
        assert_eq!((name.short(), name.host()), ("n2", "10.0.0.7"));
        assert_eq!(name.to_string(), "n2@10.0.0.7");
    }

    #[test]
    fn each_malformed_name_has_its_own_sentence() {
        let parse = |text: &str| text.parse::<NodeName>().unwrap_err();
        assert!(matches!(parse("ermine"), NodeNameError::Form(_)));
        assert!(matches!(parse("a@b@c"), NodeNameError::Form(_)));
        assert!(matches!(parse("@host"), NodeNameError::Name(_)));
        assert!(matches!(parse("n 1@host"), NodeNameError::Name(_)));
        assert!(matches!(parse("n1@"), NodeNameError::Host(_)));
        assert!(matches!(parse("n1@ho st"), NodeNameError::Host(_)));
        assert!(matches!(
            parse(&format!("n@{}", "h".repeat(300))),
            NodeNameError::Long(302)
        ));
    }
}
