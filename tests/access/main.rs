//! Who may come in, and what they may do. Goal: every way to be wrong is refused as the standard says, and
//! an operator's change of a file drops no client. Method: one node with files made by `ermine passwd`, and
//! clients that show every packet.

#[path = "../harness/mod.rs"]
mod harness;

mod enhanced;
mod entry;
mod hook;
mod passwd;
mod place;
mod reload;
mod rules;
mod tokens;
