//! Several nodes of one host that are one cluster.

use super::host::{Host, Node, eventually};

/// Nodes n1, n2, … that are one cluster.
pub fn cluster(host: &Host, size: usize) -> Vec<Node> {
    let nodes = (1..=size).map(|n| host.start(&format!("n{n}@127.0.0.1")));
    let nodes: Vec<Node> = nodes.collect();
    join(host, &nodes);
    nodes
}

/// Makes one cluster of nodes.
pub fn join(host: &Host, nodes: &[Node]) {
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
pub fn running(host: &Host, node: &str) -> Vec<String> {
    let status = host.json(&["cluster", "status", "--node", node]);
    let nodes = status["running_nodes"].as_array().expect("running_nodes");
    nodes
        .iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}
