//! What a cluster costs and how fast it is. Goal: the figures that decide whether several nodes are worth it:
//! how soon a route is known elsewhere, how long a node takes to join one with a million routes, what a
//! message costs that crosses between nodes, how soon after a join the first one does, and whether a mesh
//! stays healthy under load. Method: real nodes of the built binary, started here with a registry and data
//! directories of their own; clients and tallies are those of `benches/load`. See `docs/BENCHMARKS.md`.
//!
//! ```text
//! cargo bench --bench cluster -- [--only across] [--rounds 3] [--seconds 3] [--routes 1000000] \
//!     [--subscribes 10000]
//! ```

#[path = "../../tests/harness/mod.rs"]
mod harness;
#[path = "../load/process.rs"]
mod process;
#[path = "../load/report.rs"]
mod report;
#[path = "../load/scenario.rs"]
mod scenario;
#[path = "../load/stored.rs"]
mod stored;
#[path = "../load/tally.rs"]
mod tally;
#[path = "../load/wire.rs"]
mod wire;

mod across;
mod convergence;
mod joining;
mod mesh;
mod sync;

use std::io;
use std::time::Duration;

use harness::host::{Host, Node};
use process::Broker;

/// What is asked for.
struct Plan {
    only: Vec<String>,
    rounds: usize,
    length: Duration,
    /// Routes of the node that is joined.
    routes: usize,
    /// Subscribes per second while routes converge.
    subscribes: usize,
}

const USAGE: &str = "usage: cluster [--only PART_OF_NAME …] [--rounds N] [--seconds S] [--routes N] \
                     [--subscribes PER_SECOND]";

const SECTIONS: [&str; 5] = ["convergence", "sync", "across", "join", "mesh"];

/// `None`: not understood. Without `--bench`, which `cargo bench` adds, nothing is measured.
fn plan() -> Option<Option<Plan>> {
    let mut plan = Plan {
        only: Vec::new(),
        rounds: 3,
        length: Duration::from_secs(3),
        routes: 1_000_000,
        subscribes: 10_000,
    };
    let mut measures = false;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--bench" {
            measures = true;
            continue;
        }
        let value = args.next()?;
        match flag.as_str() {
            "--only" => plan.only.push(value),
            "--rounds" => plan.rounds = value.parse().ok()?,
            "--seconds" => plan.length = Duration::from_secs_f64(value.parse().ok()?),
            "--routes" => plan.routes = value.parse().ok()?,
            "--subscribes" => plan.subscribes = value.parse().ok()?,
            _ => return None,
        }
    }
    (plan.rounds > 0).then_some(measures.then_some(plan))
}

/// What clients and `/proc` know of some nodes.
fn broker(name: &str, nodes: &[&Node]) -> Broker {
    Broker {
        name: name.into(),
        at: nodes.iter().map(|node| node.mqtt.to_string()).collect(),
        pids: nodes.iter().map(|node| node.pid()).collect(),
    }
}

/// The value below which this part of them is.
fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    let at = at.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn quantiles(name: &str, mut of_ms: Vec<f64>) {
    of_ms.sort_by(f64::total_cmp);
    println!(
        "{name}: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms ({} times)",
        percentile(&of_ms, 0.5),
        percentile(&of_ms, 0.99),
        percentile(&of_ms, 1.0),
        of_ms.len()
    );
}

async fn run(plan: Plan) -> io::Result<()> {
    let wanted = |name: &&str| plan.only.is_empty() || plan.only.iter().any(|part| name.contains(&**part));
    for section in SECTIONS.iter().filter(|name| wanted(name)) {
        println!("\n# {section}\n");
        match *section {
            "convergence" => convergence::run(plan.subscribes, plan.length).await?,
            "sync" => sync::run(plan.routes).await?,
            "across" => across::run(plan.rounds, plan.length).await,
            "join" => joining::run(plan.rounds).await?,
            _ => mesh::run(plan.length * 10).await?,
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let plan = match plan() {
        Some(Some(plan)) => plan,
        // `cargo test --benches` comes here: starting nodes is not for it.
        Some(None) => return Ok(()),
        None => return Err(io::Error::other(USAGE)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime: sockets and a clock");
    tokio::task::LocalSet::new().block_on(&runtime, run(plan))
}
