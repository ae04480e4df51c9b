//! The load generator: how much processor time and memory a broker needs per message, and whether
//! everything arrives once and in order. Goal: figures that can be compared between brokers on one noisy
//! machine. Method: interleaved rounds, medians, processor time instead of throughput; see
//! `docs/BENCHMARKS.md`.
//!
//! ```text
//! cargo bench --bench load -- --broker NAME=HOST:PORT,PID[,HOST:PORT,PID …] [--broker …] \
//!     [--only pairs] [--rounds 3] [--seconds 2]
//! ```

mod process;
mod report;
mod scenario;
mod stored;
mod tally;
mod wire;

use std::time::Duration;

use process::Broker;
use report::{HEAD, chosen, compare};

struct Plan {
    brokers: Vec<Broker>,
    only: Vec<String>,
    rounds: usize,
    length: Duration,
}

const USAGE: &str = "usage: load --broker NAME=HOST:PORT,PID [--broker …] [--only PART_OF_NAME …] \
                     [--rounds N] [--seconds S] [--payload BYTES]";

fn plan() -> Option<Plan> {
    let mut plan = Plan {
        brokers: Vec::new(),
        only: Vec::new(),
        rounds: 3,
        length: Duration::from_secs(2),
    };
    // cargo itself adds `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(flag) = args.next() {
        let value = args.next()?;
        match flag.as_str() {
            "--broker" => {
                let (name, rest) = value.split_once('=')?;
                let nodes: Vec<&str> = rest.split(',').collect();
                plan.brokers.push(Broker {
                    name: name.into(),
                    at: nodes.iter().step_by(2).map(|at| (*at).into()).collect(),
                    pids: nodes
                        .iter()
                        .skip(1)
                        .step_by(2)
                        .filter_map(|pid| pid.parse().ok())
                        .collect(),
                });
            }
            "--only" => plan.only.push(value),
            "--payload" => {
                let len = value.parse().ok().filter(|len| *len >= 12)?;
                // Given twice, the first holds.
                let _ = wire::PAYLOAD_LEN_SET.set(len);
            }
            "--rounds" => plan.rounds = value.parse().ok()?,
            "--seconds" => plan.length = Duration::from_secs_f64(value.parse().ok()?),
            _ => return None,
        }
    }
    (!plan.brokers.is_empty() && plan.rounds > 0).then_some(plan)
}

async fn run(plan: Plan) {
    println!("{HEAD}");
    for scenario in chosen(&plan.only) {
        compare(&plan.brokers, scenario, plan.rounds, plan.length).await;
    }
}

fn main() {
    let Some(plan) = plan() else {
        eprintln!("{USAGE}");
        // `cargo test --benches` runs this without a broker: nothing to do is no failure.
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime: sockets and a clock");
    tokio::task::LocalSet::new().block_on(&runtime, run(plan));
}
