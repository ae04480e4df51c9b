//! `kill -9` at random moments, and a few stops in good order, as often as asked for.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::dice::Dice;
use crate::house::NAME;
use crate::trial::{End, Trial, say};

/// Rounds in the gate.
const ROUNDS: usize = 5;

/// Rounds under one load, before everything has to arrive.
const ROUNDS_OF_ONE_LOAD: usize = 10;

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn kill_at_any_moment_loses_and_doubles_nothing_that_was_acknowledged() {
    let rounds = number("ERMINE_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = number("ERMINE_KILL_SEED").unwrap_or_else(|| since.map_or(0, |since| since.as_secs()));
    say(&format!("kill: {rounds} rounds, ERMINE_KILL_SEED={seed}"));
    let began = Instant::now();
    let mut trial = Trial::begin(seed);
    let mut dice = Dice::new(seed);
    let ends: Vec<(usize, End)> = (0..rounds).map(|round| (round, End::roll(&mut dice))).collect();
    for ends in ends.chunks(ROUNDS_OF_ONE_LOAD) {
        trial.rounds(ends, |_| ());
        let violations = trial.world.violations();
        let (sent, deliveries) = trial.figures();
        let (last, _) = ends[ends.len() - 1];
        say(&format!(
            "kill: {} of {rounds} rounds after {} s, {sent} messages, {deliveries} deliveries, {} violations",
            last + 1,
            began.elapsed().as_secs(),
            violations.len()
        ));
        if !violations.is_empty() {
            say(&trial.log());
            let shown = violations.len().min(40);
            panic!(
                "{} violations, ERMINE_KILL_SEED={seed}, {ends:?}:\n{}",
                violations.len(),
                violations[..shown].join("\n")
            );
        }
    }
}

#[test]
fn a_node_that_is_left_alone_passes() {
    let mut trial = Trial::begin(3);
    let half_a_second = std::time::Duration::from_millis(500);
    trial.rounds(&[(0, End::Spared(half_a_second))], |_| ());
    let violations = trial.world.violations();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
    let (sent, deliveries) = trial.figures();
    assert!(
        sent > 100 && deliveries > sent as u64,
        "{sent} messages, {deliveries} deliveries"
    );
}

#[test]
fn stops_in_good_order_lose_and_double_nothing() {
    let mut trial = Trial::begin(5);
    let mut dice = Dice::new(5);
    let stop = |round| (round, End::Stopped(dice.millis(30, 150)));
    let ends: Vec<(usize, End)> = (0..ROUNDS).map(stop).collect();
    trial.rounds(&ends, |_| ());
    let violations = trial.world.violations();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// The trial is worth something only if it can fail: here the node forgets everything between its lives.
#[test]
fn a_node_that_has_lost_its_data_is_found_out() {
    let mut trial = Trial::begin(7);
    // What is lost never comes, however long it is awaited.
    trial.owed_within = std::time::Duration::from_millis(500);
    let end = End::Killed(std::time::Duration::from_millis(300));
    trial.rounds(&[(0, end)], |trial| {
        let directory = trial.host.data_dir(NAME);
        std::fs::remove_dir_all(directory).expect("removed");
    });
    let violations = trial.world.violations();
    let tells = |what: &str| violations.iter().any(|violation| violation.contains(what));
    assert!(tells("no session present"), "{violations:?}");
    assert!(tells("lacks"), "{violations:?}");
}
