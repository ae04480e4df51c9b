//! What the tests of processes share: real nodes started from the built binary, and an MQTT client
//! that shows every packet.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

pub mod client;
pub mod cluster;
pub mod host;

use std::time::Duration;

/// How long an awaited event may take. Far above what it needs, so that a slow machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(20);
