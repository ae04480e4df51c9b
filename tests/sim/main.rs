//! The cluster's values, many of them, under one seed. Goal: whatever the network, the clocks and the
//! processes do, routes and retained messages converge, a client id has one owner, no acknowledged message
//! is lost and none comes twice. Method: three to five nodes made of the very values that the processes
//! between nodes feed, in virtual time, with everything that goes wrong drawn from a seed; oracles look on.
//!
//! | | |
//! |---|---|
//! | `ERMINE_SIM_SEED=7 cargo test --test sim` | one seed; with `ERMINE_SIM_LOUD=1` its whole trace |
//! | `ERMINE_SIM_SEEDS=1000000 cargo test --release --test sim` | so many, on all cores |
//! | `ERMINE_SIM_FROM=5000` | … from this one on |
//!
//! Between two nodes is TCP ([`net`]): a connection keeps its order and loses only its end, so frames are
//! neither lost nor reordered within one; connections are, over and over. Beyond that goes what the values
//! claim to bear: batches come twice when a link resumes, frames of routes and answers about retained
//! messages get lost with a process that crashes, letters about client ids with a link.

mod clients;
mod faults;
mod frames;
mod life;
mod net;
mod oracle;
mod peer;
mod rng;
mod router;
mod sabotage;
mod traffic;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use world::{SECOND, World};

/// Seeds that are tried where nothing else is asked for.
const SEEDS: u64 = 1000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// What a number of runs came to.
#[derive(Default)]
struct Sums {
    steps: AtomicU64,
    messages: AtomicU64,
    given_up: AtomicU64,
    healed_max: AtomicU64,
}

fn run(seed: u64, sums: &Sums) {
    let mut world = World::new(seed);
    let healed = world.run();
    sums.steps.fetch_add(world.steps, Relaxed);
    sums.messages.fetch_add(world.ledger.forwarded, Relaxed);
    sums.given_up.fetch_add(world.ledger.given_up, Relaxed);
    sums.healed_max.fetch_max(healed, Relaxed);
}

#[test]
fn every_seed_converges_and_loses_nothing() {
    if let Some(seed) = number("ERMINE_SIM_SEED") {
        return run(seed, &Sums::default());
    }
    let (from, many) = (number("ERMINE_SIM_FROM").unwrap_or(1), number("ERMINE_SIM_SEEDS"));
    let until = from + many.unwrap_or(SEEDS);
    let cores = if many.is_some() {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    let (next, sums, began) = (AtomicU64::new(from), Sums::default(), Instant::now());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= until {
                return;
            }
            run(seed, &sums);
            if seed % 10_000 == 0 {
                eprintln!("{seed}: {} s", began.elapsed().as_secs());
            }
        }
    };
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    eprintln!(
        "{} seeds, {} steps, {} messages across, {} given up, healed within {:.1} s, took {:.1} s",
        until - from,
        sums.steps.into_inner(),
        sums.messages.into_inner(),
        sums.given_up.into_inner(),
        sums.healed_max.into_inner() as f64 / SECOND as f64,
        began.elapsed().as_secs_f64()
    );
}
