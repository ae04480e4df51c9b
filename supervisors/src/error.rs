//! What can go wrong when a process is started, called or told something.

use crate::exit::ExitReason;
use crate::pid::Pid;
use std::fmt;

/// The process is gone; here is the message back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gone<M>(pub M);

impl<M> fmt::Debug for Gone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gone(..)")
    }
}

impl<M> fmt::Display for Gone<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the process is not running; the message was not sent")
    }
}

impl<M> std::error::Error for Gone<M> {}

/// A call was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody runs under that name or reference. The request was not sent.
    #[error("the process is not running; the request was not sent")]
    NotRunning,
    /// It ended, or dropped the request, before it answered. The request may have been carried out.
    #[error("the process ended before it answered; the request may have been carried out")]
    Died,
    /// The time of a `call_within` is over. The request may still be carried out.
    #[error("no answer came in time; the request may still be carried out")]
    TimedOut,
}

/// Why a child could not be started (OTP: the `Reason` of `{error, Reason}`; where OTP has a word for it, the
/// text begins with that word). The supervisor is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A child with that id runs or starts (OTP `{already_started, Pid}`).
    #[error("already_started: a child with this id runs as {0}")]
    AlreadyStarted(Pid),
    /// A child with that id is known but does not run (OTP `already_present`); restart or delete it.
    #[error("already_present: a child with this id is known and does not run")]
    AlreadyPresent,
    /// The dynamic supervisor's `max_children` is reached.
    #[error("the supervisor already has its maximum of {0} children")]
    MaxChildren(usize),
    /// `init` failed, panicked, or was stopped.
    #[error("the child's init failed: {0}")]
    Init(ExitReason),
    /// `init` said [`InitError::ignore`].
    #[error("the child's init chose not to run")]
    Ignored,
    /// The spec contradicts itself or its supervisor.
    #[error("bad child spec: {0}")]
    BadSpec(String),
    /// The supervisor is stopping.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor could not be called.
    #[error("the supervisor cannot be reached: {0}")]
    Unreachable(#[from] CallError),
}

/// A request about a child failed; the text begins with OTP's word. The child is unchanged.
///
/// ```
/// assert_eq!(supervisors::ChildError::Running.to_string(), "running: the child runs");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChildError {
    /// No child has that id or pid (OTP `not_found`).
    #[error("not_found: the supervisor has no such child")]
    NotFound,
    /// It runs, and that request wants one that does not (OTP `running`).
    #[error("running: the child runs")]
    Running,
    /// It is being restarted (OTP `restarting`).
    #[error("restarting: the child is being restarted")]
    Restarting,
    /// The supervisor is stopping.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor could not be called.
    #[error("the supervisor cannot be reached: {0}")]
    Unreachable(#[from] CallError),
}

/// No live process has that path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not_found: no process at {0}")]
pub struct NoSuchProcess(pub String);

/// What an `init` returns when it has no actor to return. Any `std::error::Error` converts by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitError(pub(crate) InitFailure);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InitFailure {
    Ignore,
    Failed(ExitReason),
}

impl InitError {
    /// The child does not want to run now, and that is no failure (OTP `ignore`).
    pub fn ignore() -> Self {
        InitError(InitFailure::Ignore)
    }

    /// The child cannot run; the sentence goes into the report.
    pub fn failed(why: impl fmt::Display) -> Self {
        InitError(InitFailure::Failed(ExitReason::Error(why.to_string())))
    }
}

impl<E: std::error::Error> From<E> for InitError {
    fn from(error: E) -> Self {
        InitError::failed(error)
    }
}
