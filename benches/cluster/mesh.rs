//! Five nodes under load for a while: whether all stay linked, nothing is lost, and the books balance.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::harness::cluster::cluster;
use crate::harness::host::text;
use crate::report::{HEAD, chosen, compare};
use crate::{Host, broker};

const NODES: usize = 5;

/// Pause between two looks at the links of a node.
const LOOKS_EACH: Duration = Duration::from_millis(200);

pub(crate) async fn run(length: Duration) -> io::Result<()> {
    let host = Arc::new(Host::new());
    let nodes = cluster(&host, NODES);
    let mesh = broker("five nodes", &nodes.iter().collect::<Vec<_>>());
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    let (stop, stopped) = mpsc::channel::<()>();
    let watch = std::thread::spawn({
        let (host, names) = (host.clone(), names.clone());
        move || watch(&host, &names, &stopped)
    });
    println!("{HEAD}");
    for scenario in chosen(&["pairs/"]).filter(|scenario| scenario.name.starts_with("pairs/")) {
        compare(std::slice::from_ref(&mesh), scenario, 1, length / 5).await;
    }
    drop(stop);
    let (looks, unwell) = watch
        .join()
        .map_err(|_| io::Error::other("nobody could look at the links"))?;
    println!(
        "\n{looks} looks at a node's links, {} of them found one that was not up",
        unwell.len()
    );
    unwell.iter().for_each(|what| println!("  {what}"));
    for name in &names {
        let audit = host.run(&["audit", "--node", name, "--within", "20"]);
        let verdict = if audit.status.success() {
            "balanced"
        } else {
            "NOT balanced"
        };
        println!("audit of {name}: {verdict}");
        if !audit.status.success() {
            println!("{}{}", text(&audit.stdout), text(&audit.stderr));
        }
    }
    Ok(())
}

/// Asks one node after the other how its links are; what was not well.
fn watch(host: &Host, names: &[String], stop: &Receiver<()>) -> (usize, Vec<String>) {
    let (mut looks, mut unwell) = (0, Vec::new());
    while stop.recv_timeout(LOOKS_EACH) == Err(RecvTimeoutError::Timeout) {
        let name = &names[looks % names.len()];
        let status = host.json(&["cluster", "status", "--node", name]);
        let members = status["members"].as_array().into_iter().flatten();
        for member in members.filter(|member| member["link"] != "up" && member["node"] != **name) {
            unwell.push(format!("{name}: {} is {}", member["node"], member["link"]));
        }
        looks += 1;
    }
    (looks, unwell)
}
