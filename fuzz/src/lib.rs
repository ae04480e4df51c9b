//! The fuzz targets, and the rooms of Ermine that they try. `tests/fuzz.rs` compiles the targets too and
//! replays the corpus in every gate.

#[path = "../../src/limits.rs"]
pub mod limits;
#[path = "../../src/mqtt/mod.rs"]
pub mod mqtt;
#[path = "../../src/node_name.rs"]
pub mod node_name;
#[path = "../../src/routing/mod.rs"]
pub mod routing;
#[path = "../../src/session/mod.rs"]
pub mod session;

pub mod broker;
pub mod client;
pub mod filters;
pub mod input;
pub mod packets;
pub mod sessions;
