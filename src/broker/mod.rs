//! Floor 3: the processes of one node.
//!
//! | file | holds |
//! |---|---|
//! | [`tables`] | the tables that outlive every worker, and where processes are found |
//! | [`office`] | what the actors of one arbiter share; `desk` and `port` are in it |
//! | [`publish`] | the hot path: a message from its publisher to desks and links |
//! | [`tray`] | what lies before one actor and outlives it |
//! | [`mail`], [`mailman`] | what arbiters send each other, and who carries it |
//! | [`topic`] | dispatches what matches one filter |
//! | [`router`] | writes the route table; birth and death of Topics |
//! | [`session`] | one client: the shell around the session's value |
//! | [`door`], [`listener`], [`connection`] | open doors, who serves them, and sockets until their CONNECT |
//! | [`tls`] | certificates of doors: read, checked, read again |
//! | [`transport`] | TCP, unix sockets, TLS and WebSocket as one stream of bytes |
//! | [`keyring`], [`gatekeeper`] | who may come in; what of that takes time |
//! | [`crowd`], [`throttle`] | how many may come in, and how fast anybody may be |
//! | [`sys`] | `$SYS`, and the pulse that notices a stuck arbiter |
//! | [`clients`], [`retainer`], [`wills`] | client ids, retained messages, delayed wills |
//! | [`poison`] | packets that crash their session again and again |
//! | [`links`] | what broker and links to other nodes say to each other |
//! | [`loans`] | shared groups with members on several nodes |
//! | [`counters`], [`accounts`] | what a node counts, and whether every message is accounted for |
//!
//! The way of a message: `session` reads and decodes it → `publish` finds where it goes → desks of its
//! own arbiter take it directly, others by `mail` → the `topic` there pushes it to the ports of its
//! sessions → `session` encodes and writes it.

pub mod accounts;
mod admission;
pub mod clients;
pub mod confirm;
pub mod connection;
pub mod counters;
pub mod crowd;
pub mod desk;
pub mod door;
pub mod gatekeeper;
pub mod keeping;
pub mod keyring;
pub mod links;
pub mod listener;
pub mod loans;
pub mod mail;
pub mod mailman;
pub mod office;
pub mod outbox;
pub mod poison;
mod port;
pub mod publish;
pub mod retainer;
pub mod revival;
pub mod router;
pub mod session;
pub mod storage;
pub mod sys;
pub mod tables;
pub mod throttle;
pub mod tls;
pub mod topic;
pub mod transport;
pub mod tray;
pub mod wills;

pub use desk::ShareGroup;

#[cfg(test)]
mod tests;
