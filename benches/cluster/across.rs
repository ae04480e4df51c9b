//! What a message costs that crosses between two nodes, both processes together, beside one node alone.

use std::time::Duration;

use crate::harness::cluster::cluster;
use crate::report::{HEAD, chosen, compare, median};
use crate::{Host, broker};

const SCENARIOS: [&str; 4] = [
    "pairs/qos0/single",
    "pairs/qos0/burst16",
    "pairs/qos1/single",
    "pairs/qos1/burst16",
];

pub(crate) async fn run(rounds: usize, length: Duration) {
    // Each has a registry of its own: they know nothing of each other.
    let (lone, host) = (Host::new(), Host::new());
    let alone = lone.start("alone@127.0.0.1");
    let nodes = cluster(&host, 2);
    let brokers = [
        broker("one node", &[&alone]),
        broker("across two", &[&nodes[0], &nodes[1]]),
    ];
    println!("{HEAD}");
    let mut ratios = Vec::new();
    for scenario in chosen(&SCENARIOS).filter(|scenario| SCENARIOS.contains(&scenario.name)) {
        let found = compare(&brokers, scenario, rounds, length).await;
        if let [one, two] = &found[..]
            && !one.is_empty()
            && !two.is_empty()
        {
            let cpu = |found: &_| median(found, |found| found.cpu_us);
            ratios.push((scenario.name, cpu(one) / cpu(two)));
        }
    }
    println!();
    for (name, ratio) in ratios {
        println!(
            "{name}: across two nodes {:.0} % of the messages per CPU µs of one node",
            ratio * 100.0
        );
    }
}
