//! Floor 5: what operators ask a live node.
//!
//! [`protocol`] is the language, [`client`] the asking side (the CLI), [`control`] the answering side:
//! an actor of the node that is given every connection whose cookie proof was for `control`.

pub mod client;
pub mod control;
pub mod protocol;
