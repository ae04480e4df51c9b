//! A node as its operators see it over HTTP. Goal: figures add up, nobody gets in without the token, and
//! whatever goes wrong there reaches no client. Method: a real node, raw HTTP, and what `ermine` tells.

#[path = "../harness/mod.rs"]
mod harness;

mod api;
mod door;
mod figures;
mod http;
mod page;
