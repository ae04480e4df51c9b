//! Floor 1: MQTT as values. Packets, properties, topics and the codec between bytes and packets.

pub mod codec;
pub mod error;
pub mod message;
pub mod packet;
pub mod properties;
pub mod reason;
pub mod topic;
