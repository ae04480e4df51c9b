//! Tours of the broker's features with clients that people bring. Goal: what the standard promises
//! works with code that nobody here wrote. Method: a script for each client, run against real nodes,
//! with publisher and subscriber on one and on two of them.
//!
//! `.ci/tours` installs the clients and runs all tours. A plain `cargo test` runs those whose client is a
//! crate, and says of each other one that it was not run.

#[path = "../harness/mod.rs"]
mod harness;

mod doors;
mod mosquitto;
mod rig;
mod rumqttc_311;
mod rumqttc_5;
mod rumqttc_both;
mod scripts;
