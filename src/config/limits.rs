//! The `[limits]` of a configuration: what one client, one listener and the node may do, with the range of
//! each number. All of them but those of the node may stand in a `[[listener]]` too, for its clients alone.

use std::time::Duration;

use crate::broker::crowd::DoorLimits;
use crate::limits;
use crate::routing::retained::RetainedLimits;
use crate::session::event::{ClientLimits, QueuePolicy};

/// Largest packet that MQTT can express: a Remaining Length of 268,435,455 `[MQTT-2.2.3]` after five
/// bytes of header.
pub(super) const PACKET_SIZE_MAX_OF_MQTT: u32 = 268_435_455 + 5;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for the CONNECT of a new socket.
    pub connect_deadline: Duration,
    /// What a session is told to grant.
    pub client: ClientLimits,
    /// What a listener lets in. In `[limits]` its `connections_max` is that of the whole node.
    pub door: DoorLimits,
    /// What the node retains.
    pub retained: RetainedLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_deadline: limits::CONNECT_DEADLINE,
            client: ClientLimits::default(),
            door: DoorLimits::default(),
            retained: RetainedLimits::default(),
        }
    }
}

impl Limits {
    /// What holds at a listener that says nothing of its own: all that the node's `[limits]` say but the
    /// number of connections, which there is the node's.
    #[must_use]
    pub fn of_listener(&self) -> Self {
        let mut own = *self;
        own.door.connections_max = 0;
        own
    }
}

/// One number of `[limits]`: its key, what it may be, and where it is.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) set: fn(&mut Limits, u64),
    get: fn(&Limits) -> u64,
}

/// A number that is a field of [`Limits`]. What is set narrows with `as`: the range is checked before.
macro_rules! number {
    ($name:literal, $min:expr, $max:expr, $($field:ident).+ : $kind:ty) => {
        Key {
            name: $name,
            min: $min as u64,
            max: $max as u64,
            set: |limits, number| limits.$($field).+ = number as $kind,
            get: |limits| limits.$($field).+ as u64,
        }
    };
}

/// Connections and sockets in a second that anybody may want to allow.
const CONNECTIONS: u64 = 100_000_000;

/// Every number that may stand in `[limits]` and in a `[[listener]]`.
pub(super) const KEYS: [Key; 18] = [
    Key {
        name: "connect_deadline_s",
        min: 1,
        max: 300,
        set: |limits, n| limits.connect_deadline = Duration::from_secs(n),
        get: |limits| limits.connect_deadline.as_secs(),
    },
    number!("packet_size_max", 128, PACKET_SIZE_MAX_OF_MQTT, client.packet_size_max: u32),
    number!("inflight_max", 1, u16::MAX, client.inflight_max: u16),
    number!("receive_maximum", 1, u16::MAX, client.receive_maximum: u16),
    number!("queue_len_max", 0, 1_000_000, client.queue_len_max: usize),
    number!("queue_bytes_max", 0, 1_u64 << 32, client.queue_bytes_max: usize),
    number!("topic_alias_max", 0, u16::MAX, client.topic_alias_max: u16),
    number!("subscriptions_max", 1, 1_000_000, client.subscriptions_max: usize),
    number!("session_expiry_max_s", 0, u32::MAX, client.session_expiry_max_s: u32),
    number!("keep_alive_max_s", 0, u16::MAX, client.keep_alive_max_s: u16),
    number!("topic_levels_max", 1, limits::TOPIC_LEVELS_MAX, client.topic_levels_max: u16),
    number!("topic_bytes_max", 1, u16::MAX, client.topic_bytes_max: u16),
    number!("message_rate", 0, u32::MAX, client.message_rate: u32),
    number!("byte_rate", 0, u32::MAX, client.byte_rate: u32),
    number!("connections_max", 0, CONNECTIONS, door.connections_max: usize),
    number!("connections_per_address_max", 0, CONNECTIONS, door.connections_per_address_max: usize),
    number!("connect_rate", 0, CONNECTIONS, door.connect_rate: u32),
    number!("connect_rate_per_address", 0, CONNECTIONS, door.connect_rate_per_address: u32),
];

/// The numbers that only the node's `[limits]` have.
pub(super) const NODE_KEYS: [Key; 2] = [
    number!("retained_len_max", 0, 1_u64 << 32, retained.len_max: usize),
    number!("retained_bytes_max", 0, 1_u64 << 40, retained.bytes_max: usize),
];

/// What gives way when a queue is full.
pub(super) const QUEUE_POLICY: &str = "queue_policy";

/// Whether QoS 0 waits for a client that is away.
pub(super) const QUEUE_QOS0: &str = "queue_qos0";

/// The names of all keys that a `[[listener]]` may have.
pub(super) fn listener_names() -> Vec<&'static str> {
    let numbers = KEYS.iter().map(|key| key.name);
    numbers.chain([QUEUE_POLICY, QUEUE_QOS0]).collect()
}

/// The names of all keys of `[limits]`.
pub(super) fn names() -> Vec<&'static str> {
    let mut names = listener_names();
    names.extend(NODE_KEYS.iter().map(|key| key.name));
    names
}

impl Limits {
    /// What holds at a listener: each key that it may have, and its value, as they stand in a file.
    #[must_use]
    pub fn effective(&self) -> Vec<(String, String)> {
        let numbers = KEYS.iter().map(|key| (key.name, (key.get)(self).to_string()));
        let policy = match self.client.queue_policy {
            QueuePolicy::DropNewest => "drop_newest",
            QueuePolicy::DropOldest => "drop_oldest",
        };
        let words = [
            (QUEUE_POLICY, policy.to_owned()),
            (QUEUE_QOS0, self.client.queue_qos0.to_string()),
        ];
        let all = numbers.chain(words);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The policy of that name.
pub(super) fn queue_policy(text: &str) -> Result<QueuePolicy, String> {
    match text {
        "drop_newest" => Ok(QueuePolicy::DropNewest),
        "drop_oldest" => Ok(QueuePolicy::DropOldest),
        _ => Err(format!(
            "{QUEUE_POLICY} must be one of drop_newest, drop_oldest, not '{text}'"
        )),
    }
}
