//! The hot path in one process: a tree with core, topics and sessions, two workers, real sockets.

mod crashes;
mod delivery;
mod groups;
mod rig;
mod sessions;
mod storage;
mod subscriptions;
