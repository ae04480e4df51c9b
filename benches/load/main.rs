//! The load generator: how much processor time and memory a broker needs per message, and whether
//! everything arrives once and in order. Goal: figures that can be compared between brokers on one noisy
//! machine. Method: interleaved rounds, medians, processor time instead of throughput; see
//! `docs/BENCHMARKS.md`.
//!
//! ```text
//! cargo bench --bench load -- --broker NAME=HOST:PORT,PID [--broker …] \
//!     [--only pairs] [--rounds 3] [--seconds 2]
//! ```

mod process;
mod scenario;
mod stored;
mod tally;
mod wire;

use std::time::Duration;

use process::Broker;
use scenario::{ALL, Found, Kind};

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
                let (at, pid) = rest.split_once(',').unwrap_or((rest, ""));
                plan.brokers.push(Broker {
                    name: name.into(),
                    at: at.into(),
                    pid: pid.parse().ok(),
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

fn median(rounds: &[Found], of: impl Fn(&Found) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A figure, if it could be had.
fn known(figure: f64, decimals: usize) -> String {
    if figure.is_nan() {
        "–".into()
    } else {
        format!("{figure:.decimals$}")
    }
}

fn report(scenario: &str, idle: bool, broker: &Broker, rounds: &[Found]) {
    let cpu = |found: &Found| found.cpu_us;
    let least = rounds.iter().map(cpu).fold(f64::INFINITY, f64::min);
    let most = rounds.iter().map(cpu).fold(0.0, f64::max);
    let rss = median(rounds, |found| found.rss_kib);
    let memory = if idle {
        format!("{rss:.2} KiB each")
    } else {
        format!("{:.1} MiB", rss / 1024.0)
    };
    let sum = |of: fn(&Found) -> u64| rounds.iter().map(of).sum::<u64>();
    println!(
        "| {scenario} | {} | {:.0} | {:.2} | {least:.2}–{most:.2} | {memory} | {} / {} / {} | {} | {} |",
        broker.name,
        median(rounds, |found| found.per_s),
        median(rounds, cpu),
        sum(|found| found.lost),
        sum(|found| found.duplicates),
        sum(|found| found.disorder),
        known(median(rounds, |found| found.syncs), 4),
        known(median(rounds, |found| found.written), 0),
    );
}

async fn run(plan: Plan) {
    println!(
        "| scenario | broker | per second | CPU µs each | least–most | memory | lost / twice / disorder | \
         syncs each | bytes to disk each |"
    );
    println!("|---|---|---:|---:|---:|---:|---|---:|---:|");
    for (number, scenario) in ALL.iter().enumerate() {
        let wanted = plan.only.is_empty() && !scenario.kind.is_by_hand()
            || plan.only.iter().any(|part| scenario.name.contains(&**part));
        if !wanted {
            continue;
        }
        let mut found = vec![Vec::new(); plan.brokers.len()];
        for round in 0..plan.rounds {
            for (broker, found) in plan.brokers.iter().zip(&mut found) {
                let tag = format!("s{number}r{round}");
                match scenario::run(broker, scenario.kind, &tag, plan.length).await {
                    Ok(result) => found.push(result),
                    Err(error) => eprintln!("{} at {}: {error}", scenario.name, broker.name),
                }
            }
        }
        for (broker, found) in plan
            .brokers
            .iter()
            .zip(&found)
            .filter(|(_, found)| !found.is_empty())
        {
            report(
                scenario.name,
                matches!(scenario.kind, Kind::Idle { .. }),
                broker,
                found,
            );
        }
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
