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

use harness::host::{Host, Node, eventually};

/// Nodes n1, n2, … that are one cluster.
fn cluster(host: &Host, size: usize) -> Vec<Node> {
    let nodes = (1..=size).map(|n| host.start(&format!("n{n}@127.0.0.1")));
    let nodes: Vec<Node> = nodes.collect();
    join(host, &nodes);
    nodes
}

/// Makes one cluster of nodes.
fn join(host: &Host, nodes: &[Node]) {
    for node in &nodes[1..] {
        host.ok(&["cluster", "join", &node.name, "--node", &nodes[0].name]);
    }
    for node in nodes {
        eventually(&format!("{} sees all {}", node.name, nodes.len()), || {
            (running(host, &node.name).len() == nodes.len()).then_some(())
        });
    }
}

/// Names of the running nodes as one node sees them.
fn running(host: &Host, node: &str) -> Vec<String> {
    let status = host.json(&["cluster", "status", "--node", node]);
    let nodes = status["running_nodes"].as_array().expect("running_nodes");
    nodes
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

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
