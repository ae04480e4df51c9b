//! Floor 5: the command line.
//!
//! [`main`] is prose: parse the words, do what they say, answer with an exit code: 0 done, 1 the
//! command failed, 64 wrong usage or configuration, 70 a node whose root supervisor gave up. A failure
//! is one sentence on standard error.

mod args;
mod audit;
mod cluster;
mod commands;
mod cookie;
mod drawing;
mod failure;
pub mod log;
mod mqtt;
mod passwd;
mod sessions;
mod shed;
mod show;
mod steering;
mod store;
mod table;
mod time;
mod watch;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::config::{Config, ConfigError, Environment, Flags};
use crate::node::Refusal;
use args::{Cli, Command, StartArgs};
pub(crate) use drawing::live as draw_tree;
use failure::Failure;
pub use failure::{EXIT_FAILED, EXIT_GAVE_UP, EXIT_USAGE};

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let done = match cli.command {
        Command::Start(args) => start(args),
        other => commands::run(other).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(Failure::report)
}

/// Help and version are answers; everything else is wrong usage.
fn misused(error: &clap::Error) -> ExitCode {
    // What a closed standard error does not take is lost either way.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(EXIT_USAGE),
    }
}

/// Runs a node until it is told to stop. Nothing is opened before the configuration is known good.
fn start(args: StartArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(&Flags::from(args), &shed::environment())?;
    config.prepare_data_dir()?;
    let log = log::init(config.log).map_err(|error| Failure::command(format!("cannot log: {error}")))?;
    let ended = crate::node::run(config);
    drop(log);
    ended.map_err(|refusal| match refusal {
        Refusal::Operator(sentence) => Failure::usage(sentence),
        Refusal::Start(sentence) => Failure::command(sentence),
    })
}

/// Checks a configuration file as `start` would.
fn check_config(file: std::path::PathBuf) -> Result<Config, ConfigError> {
    Config::load(
        &Flags {
            config: Some(file),
            ..Flags::default()
        },
        &Environment::of_process(),
    )
}
