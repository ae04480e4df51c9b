//! Floor 2: who may come in, and what they may do; values without a clock, a socket or a runtime.
//!
//! | file | holds |
//! |---|---|
//! | [`identity`] | what a client says of itself, and what was found to be true of it |
//! | [`acl`] | the rules of an ACL file (mosquitto's syntax) |
//! | [`rights`] | the rules as they are for one session, with a bounded memory |
//! | [`passwords`] | the password file: argon2id and SCRAM verifiers |
//! | [`scram`] | SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677) |
//! | [`jwt`] | tokens in the place of passwords |
//! | [`hook`] | what is asked of an HTTP server, and what its answer means |
//! | [`settings`] | what the operator says about it |
//! | [`attempts`] | how often an address may be wrong |

pub mod acl;
pub mod attempts;
pub mod hook;
pub mod identity;
pub mod jwt;
pub mod passwords;
pub mod rights;
pub mod scram;
pub mod settings;
