//! The table: a row per scenario and broker, of all its rounds.

use std::time::Duration;

use crate::process::Broker;
use crate::scenario::{self, ALL, Found, Kind, Scenario};

/// The head of the table.
pub(crate) const HEAD: &str = "| scenario | broker | per second | CPU µs each | least–most | memory | \
                               lost / twice / disorder | syncs each | bytes to disk each |\n\
                               |---|---|---:|---:|---:|---:|---|---:|---:|";

/// The median of a figure of all rounds.
pub(crate) fn median(rounds: &[Found], of: impl Fn(&Found) -> f64) -> f64 {
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

/// A row: medians, with the least and the most of the processor time; what is lost or doubled is summed up.
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
        "| {scenario} | {} | {:.0} | {:.2} | {least:.2}–{most:.2} | {memory} | \
         {} / {} / {} | {} | {} |",
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

/// The scenarios whose names contain one of these parts; with no part all but those that are only run by
/// name.
pub(crate) fn chosen(parts: &[impl AsRef<str>]) -> impl Iterator<Item = &'static Scenario> {
    let asked = |name: &str| parts.iter().any(|part| name.contains(part.as_ref()));
    ALL.iter()
        .filter(move |scenario| asked(scenario.name) || parts.is_empty() && !scenario.kind.is_by_hand())
}

/// Runs a scenario with each broker in turn, round by round, and prints its rows. What each round has found,
/// broker by broker.
pub(crate) async fn compare(
    brokers: &[Broker],
    scenario: &Scenario,
    rounds: usize,
    length: Duration,
) -> Vec<Vec<Found>> {
    let number = ALL.iter().position(|known| known.name == scenario.name);
    let number = number.unwrap_or(ALL.len());
    let mut found = vec![Vec::new(); brokers.len()];
    for round in 0..rounds {
        for (broker, found) in brokers.iter().zip(&mut found) {
            let tag = format!("s{number}r{round}");
            match scenario::run(broker, scenario.kind, &tag, length).await {
                Ok(result) => found.push(result),
                Err(error) => eprintln!("{} at {}: {error}", scenario.name, broker.name),
            }
        }
    }
    let idle = matches!(scenario.kind, Kind::Idle { .. });
    for (broker, found) in brokers.iter().zip(&found).filter(|(_, found)| !found.is_empty()) {
        report(scenario.name, idle, broker, found);
    }
    found
}
