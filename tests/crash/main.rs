//! Every kind of actor of a node is crashed on purpose, under load. Goal: exactly what the crash table
//! allows is lost, and not one message more. Method: a real node with `--allow-crash`, clients that count
//! every message (`load`), crashes through the control protocol (`rig`); what clients see of a restart is
//! measured and printed.
//!
//! | file | crashes |
//! |---|---|
//! | `core` | mailmen, router, topics, a Topic, a delegate, clients, retainer, wills, sys |
//! | `edge` | sessions and their shards, connections, listeners |
//! | `wing` | dist, peers, gate, registry, connector, control, and the supervisors above them |
//! | `cluster` | what another node sees: router, a Peer, core |
//! | `escalation` | more crashes than the intensity, up to the root |
//!
//! `ERMINE_CRASH_ROUNDS` (crashes of each kind) and `ERMINE_CRASH_CLIENTS` make a soak of it: with more than
//! three rounds the crashes are spread over time, as far apart as the intensity of their supervisor asks.

#[path = "../harness/mod.rs"]
mod harness;

mod cluster;
mod core;
mod edge;
mod escalation;
mod load;
mod rig;
mod wing;
