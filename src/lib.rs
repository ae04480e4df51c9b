//! Ermine, a clustered MQTT broker that works the way Erlang/OTP works.

pub mod mqtt;
pub mod node_name;
pub mod session;
