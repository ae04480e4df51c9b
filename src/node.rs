//! Floor 5: a node: boot, signals, drain.

use std::process::ExitCode;

use crate::config::Config;

/// Runs a node until it is told to stop.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    eprintln!("ermine: {} cannot run yet: the node has no rooms", config.name);
    ExitCode::from(crate::cli::EXIT_FAILED)
}
