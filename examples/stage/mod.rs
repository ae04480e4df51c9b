//! What the examples stand on: a host of their own with nodes on it, and a small MQTT client.
//!
//! An example needs no other binary: it runs itself again. Called without arguments it is the play;
//! called with the words of a command it is `ermine`, so the same file is the node and the operator.
#![allow(dead_code, unreachable_pub)] // each example uses its part

pub mod client;
pub mod host;

use std::process::ExitCode;
use std::time::Duration;

/// How long an awaited event may take. Far above what it needs, so that a slow machine fails no example.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A fact, or the sentence that says what was not seen.
pub type Told<T = ()> = Result<T, String>;

/// Plays on a fresh host, or is `ermine` when there are arguments.
pub fn perform(play: impl FnOnce(&host::Host) -> Told) -> ExitCode {
    if std::env::args_os().len() > 1 {
        return ermine::cli::main();
    }
    match host::Host::new().and_then(|host| play(&host)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("\nthis example failed: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// A heading of the story.
pub fn act(title: &str) {
    println!(
        "\n── {title} {}",
        "─".repeat(96_usize.saturating_sub(title.chars().count()))
    );
}

/// Asks again until `probe` has an answer. For facts that only a command can tell.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Told<Option<T>>) -> Told<T> {
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < deadline {
        if let Some(found) = probe()? {
            return Ok(found);
        }
    }
    Err(format!(
        "{what} did not come true within {} s",
        PATIENCE.as_secs()
    ))
}
