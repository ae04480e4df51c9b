//! One node, seen by MQTT clients. Goal: the promises of 3.1.1 (and the first of 5.0) hold on a real
//! process. Method: clients that show every packet; what must not come is told apart from what is late
//! by a PINGREQ behind it.

#[path = "../harness/mod.rs"]
mod harness;

mod clauses;
mod clauses_v5;
mod delivery;
mod misbehaviour;
mod reasons;
mod sessions;
mod shared;
mod start;
mod v5;
mod v5_time;
mod websocket;
