//! The `[limits]` of a configuration: what one client may do, with the range of each number.

use std::time::Duration;

use crate::limits;
use crate::session::event::ClientLimits;

/// Session expiry that a client gets at most unless configured otherwise: seven days in seconds.
/// EMQX has 2 hours, mosquitto and VerneMQ never expire; a queue that nobody fetches must end some day.
pub(super) const SESSION_EXPIRY_MAX_S: u32 = 7 * 24 * 3600;

/// Topic aliases that a 5.0 client may use unless configured otherwise; each keeps one topic name.
pub(super) const TOPIC_ALIAS_MAX: u16 = 32;

/// Largest packet that MQTT can express: a Remaining Length of 268,435,455 `[MQTT-2.2.3]` after five
/// bytes of header.
pub(super) const PACKET_SIZE_MAX_OF_MQTT: u32 = 268_435_455 + 5;

/// What one client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for the CONNECT of a new socket.
    pub connect_deadline: Duration,
    /// What a session is told to grant.
    pub client: ClientLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_deadline: limits::CONNECT_DEADLINE,
            client: ClientLimits {
                receive_maximum: limits::RECEIVE_MAXIMUM,
                inflight_max: limits::INFLIGHT_MAX,
                queue_len_max: limits::SESSION_QUEUE_LEN_MAX,
                queue_bytes_max: limits::SESSION_QUEUE_BYTES_MAX,
                packet_size_max: limits::PACKET_SIZE_MAX,
                topic_alias_max: TOPIC_ALIAS_MAX,
                subscriptions_max: limits::SUBSCRIPTIONS_MAX,
                session_expiry_max_s: SESSION_EXPIRY_MAX_S,
                keep_alive_max_s: 0,
            },
        }
    }
}

/// One number of `[limits]`: its key, what it may be, and where it is put.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) set: fn(&mut Limits, u64),
}

/// Every key of `[limits]`. A `set` narrows with `as`: the range is checked before it is called.
pub(super) const KEYS: [Key; 10] = [
    Key {
        name: "connect_deadline_s",
        min: 1,
        max: 300,
        set: |limits, n| limits.connect_deadline = Duration::from_secs(n),
    },
    Key {
        name: "packet_size_max",
        min: 128,
        max: PACKET_SIZE_MAX_OF_MQTT as u64,
        set: |limits, n| limits.client.packet_size_max = n as u32,
    },
    Key {
        name: "inflight_max",
        min: 1,
        max: 65_535,
        set: |limits, n| limits.client.inflight_max = n as u16,
    },
    Key {
        name: "receive_maximum",
        min: 1,
        max: 65_535,
        set: |limits, n| limits.client.receive_maximum = n as u16,
    },
    Key {
        name: "queue_len_max",
        min: 0,
        max: 1_000_000,
        set: |limits, n| limits.client.queue_len_max = n as usize,
    },
    Key {
        name: "queue_bytes_max",
        min: 0,
        max: 1 << 32,
        set: |limits, n| limits.client.queue_bytes_max = n as usize,
    },
    Key {
        name: "topic_alias_max",
        min: 0,
        max: 65_535,
        set: |limits, n| limits.client.topic_alias_max = n as u16,
    },
    Key {
        name: "subscriptions_max",
        min: 1,
        max: 1_000_000,
        set: |limits, n| limits.client.subscriptions_max = n as usize,
    },
    Key {
        name: "session_expiry_max_s",
        min: 0,
        max: u32::MAX as u64,
        set: |limits, n| limits.client.session_expiry_max_s = n as u32,
    },
    Key {
        name: "keep_alive_max_s",
        min: 0,
        max: 65_535,
        set: |limits, n| limits.client.keep_alive_max_s = n as u16,
    },
];
