//! Several nodes. Goal: what a cluster promises holds between real processes: join, routes, forwarding,
//! death, return. Method: real processes on free ports; facts are awaited in the log or asked by the CLI.

#[path = "../harness/mod.rs"]
mod harness;

mod check;
mod check_faults;
mod cutting;
mod death;
mod discovery;
mod drift;
mod joining;
mod leaving;
mod links;
mod mistakes;
mod network;
mod ownership;
mod partition;
mod retained;
mod rotation;
mod routes;
mod shared;
mod soak;
mod suback;
mod trust;
mod trust_leaks;
mod trust_tls;
mod wills;

use harness::cluster::{cluster, join, running};
use harness::host::{Host, eventually};

/// The route table of one node as JSON.
fn routes(host: &Host, node: &str) -> serde_json::Value {
    host.json(&["routes", "--node", node])
}

/// Waits until a node's route table says that exactly these nodes have the filter.
#[track_caller]
fn await_route(host: &Host, node: &str, filter: &str, nodes: &[&str]) {
    eventually(&format!("{node}: {filter} → {nodes:?}"), || {
        let table = routes(host, node);
        let entry = table
            .as_array()
            .expect("an array")
            .iter()
            .find(|entry| entry["filter"] == filter);
        let found: Vec<&str> = match entry {
            Some(entry) => entry["nodes"]
                .as_array()
                .expect("nodes")
                .iter()
                .filter_map(|name| name.as_str())
                .collect(),
            None => Vec::new(),
        };
        (found == nodes).then_some(())
    });
}
