//! What a node does with more than it can take. Goal: no client makes its memory grow beyond what the limits
//! say, whatever the client does or leaves undone, and nobody else notices. Method: a real process, its
//! resident memory read from `/proc` every few milliseconds while clients misbehave, and a witness that
//! measures how long its own messages take meanwhile. `ERMINE_FLOOD_MIB=1024` floods with a gigabyte each.

#[path = "../harness/mod.rs"]
mod harness;

mod rates;
mod scale;
mod slow;
mod storms;
