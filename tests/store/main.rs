//! What lasts, shown on real node processes: clients that note every acknowledgement, a node that is ended
//! and started again on its data directory, and a verdict over what came.
//!
//! | file | shows |
//! |---|---|
//! | `kill` | `kill -9` at random moments under load: what was acknowledged is there, QoS 2 once |
//! | `trial` | the rounds of such a run, and the verdict |
//! | `world`, `journal`, `keep`, `dice` | what was sent, promised and seen; retained values; seeded chance |
//! | `suspicion` | that the verdict sees each wrong |
//! | `publisher`, `subscriber` | clients as correct as a client library can be |
//! | `again` | what is there again after a restart, to the packet |
//! | `bad_days` | directories not to be used, full disks |
//! | `damage` | damaged files |
//! | `queue` | queues longer than memory |
//! | `crash` | sessions that crash |
//! | `wills` | wills of clients that fell with their node |
//!
//! ```sh
//! ERMINE_KILL_ROUNDS=500 cargo test --test store kill -- --nocapture
//! ERMINE_KILL_SEED=1763850000 ERMINE_KILL_ROUNDS=10 cargo test --test store kill
//! ```

#[path = "../harness/mod.rs"]
mod harness;

mod again;
mod bad_days;
mod crash;
mod damage;
mod dice;
mod house;
mod journal;
mod keep;
mod kill;
mod publisher;
mod queue;
mod subscriber;
mod suspicion;
mod trial;
mod wills;
mod world;
