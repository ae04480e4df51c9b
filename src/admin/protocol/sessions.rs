//! Sessions and their subscriptions, as operators read them.

use serde::{Deserialize, Serialize};

use super::Weight;

/// One session in all its figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientDetail {
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
    /// Whether the session answered in time; what follows is empty if it did not.
    pub answered: bool,
    /// Where its client is; behind a proxy that tells, not the proxy.
    pub address: Option<String>,
    /// The listener that it came by, as it is called in the tree.
    pub listener: Option<String>,
    /// The user that its client proved to be.
    pub username: Option<String>,
    /// Common name of the client's certificate.
    pub common_name: Option<String>,
    /// `3.1`, `3.1.1` or `5.0`.
    pub protocol: Option<String>,
    /// Whether the session outlives its connection.
    pub persistent: bool,
    /// Filters that it has subscribed to.
    pub subscriptions: u64,
    /// Messages that wait for the client.
    pub queue_len: u64,
    /// Messages sent to the client and not acknowledged.
    pub inflight_len: u64,
    /// Bytes in its inbox, its outbox and its queue.
    pub weight_bytes: u64,
    /// Whether QoS 0 to it is dropped because it does not read.
    pub slow: bool,
}

/// One subscription of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionEntry {
    /// Client id.
    pub client_id: String,
    /// Topic filter, `$share/…` included.
    pub filter: String,
    /// Greatest QoS.
    pub qos: u8,
    /// No Local (5.0).
    pub no_local: bool,
    /// Retain As Published (5.0).
    pub retain_as_published: bool,
    /// Retain Handling (5.0): 0, 1 or 2.
    pub retain_handling: u8,
    /// Subscription Identifier (5.0).
    pub identifier: Option<u32>,
}

/// Where the HTTP API of a node is, and how to get in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `http://HOST:PORT`; nothing if it is not switched on.
    pub url: Option<String>,
    /// The bearer token.
    pub token: Option<String>,
}

impl Weight for ClientDetail {
    fn weight(&self) -> usize {
        200 + self.client_id.len() + self.username.as_ref().map_or(0, String::len)
    }
}

impl Weight for SubscriptionEntry {
    fn weight(&self) -> usize {
        48 + self.client_id.len() + self.filter.len()
    }
}
