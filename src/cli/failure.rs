//! How a command fails: one sentence on standard error and an exit code.

use std::process::ExitCode;

use crate::admin::client::AskError;
use crate::config::ConfigError;

/// The command was understood and did not succeed.
pub const EXIT_FAILED: u8 = 1;

/// Wrong usage or configuration; nothing was opened (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The root supervisor gave up; the node stopped in good order (`EX_SOFTWARE` of sysexits.h). The
/// service manager is the supervisor above.
pub const EXIT_GAVE_UP: u8 = 70;

/// One sentence and an exit code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// A command that did not succeed.
    pub(super) fn command(sentence: String) -> Self {
        Self {
            sentence,
            code: EXIT_FAILED,
        }
    }

    /// Wrong usage or configuration.
    pub(super) fn usage(sentence: String) -> Self {
        Self {
            sentence,
            code: EXIT_USAGE,
        }
    }

    /// What the operator reads.
    pub(super) fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Says the sentence and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        eprintln!("ermine: {}", self.sentence);
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::command(error.to_string())
    }
}
