//! Every kind of actor of a node is crashed on purpose, under load. Goal: exactly what the crash table
//! allows is lost, and not one message more. Method: a real node with `--allow-crash`, clients that count
//! every message (`load`), crashes through the control protocol (`rig`); what clients see of a restart is
//! measured and printed.
//!
//! | file | crashes |
//! |---|---|
//! | `core` | mailmen, router, topics, a Topic, a delegate, clients, retainer, wills, sys |
//! | `edge` | sessions and their shards, connections, listeners |
//! | `shared` | members of a shared group that hold messages |
//! | `wing` | dist, peers, gate, registry, connector, control, and the supervisors above them |
//! | `cluster` | what another node sees: router, a Peer, core |
//! | `escalation` | more crashes than the intensity, up to the root; what becomes of wills |
//! | `stuck` | nothing: a process that does not come back to its arbiter |
//! | `soak` | all of these a hundred times with 200 clients, when it is asked for |
//!
//! ```sh
//! ERMINE_CRASH_ROUNDS=100 ERMINE_CRASH_CLIENTS=200 cargo test --test crash soak -- --nocapture
//! ERMINE_CRASH_KINDS=router,dist ERMINE_CRASH_ROUNDS=20 cargo test --test crash soak -- --nocapture
//! ```
//! prints a table of what each kind cost. Crashes follow each other as soon as what fell is there again and
//! traffic flows; the intensities of that node (`[supervision]`) let no supervisor give up.

#[path = "../harness/mod.rs"]
mod harness;

mod cluster;
mod core;
mod edge;
mod escalation;
mod load;
mod rig;
mod shared;
mod soak;
mod stuck;
mod verdict;
mod wing;
