//! Why a process ended, and how others learn of it.

use crate::pid::Pid;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Why a process ended. OTP's exit reasons (`normal`, `shutdown`, `killed`, `noproc`, anything else).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It had nothing left to do (`ctx.stop()`).
    Normal,
    /// It was asked to stop, or a supervisor gave up.
    Shutdown,
    /// It gave up by itself with `ctx.exit(ExitReason::Error(..))`, or its `init` failed.
    Error(String),
    /// A panic: a bug of ours. The state of the process was dropped.
    Panic(PanicReport),
    /// Killed by its supervisor, or its arbiter ended under it.
    Killed,
    /// There was no such process when the monitor was set.
    NoProc,
}

impl ExitReason {
    /// False for `Normal` and `Shutdown`, the two reasons after which a transient child stays down.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, ExitReason::Normal | ExitReason::Shutdown)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Normal => f.write_str("normal"),
            ExitReason::Shutdown => f.write_str("shutdown"),
            ExitReason::Error(why) => write!(f, "error: {why}"),
            ExitReason::Panic(panic) => write!(f, "panic: {} at {}", panic.message, panic.location),
            ExitReason::Killed => f.write_str("killed"),
            ExitReason::NoProc => f.write_str("noproc"),
        }
    }
}

/// What a panic said and where. Clones share their text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PanicReport {
    /// The panic's message, or "opaque panic payload".
    pub message: Arc<str>,
    /// `file:line:column`, or "unknown place".
    pub location: Arc<str>,
    /// Present when `RUST_BACKTRACE` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<Arc<str>>,
}

/// Names one monitor. Two monitors of the same process have two references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorRef(pub(crate) u64);

/// A monitored process ended. Comes exactly once per monitor.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct Down {
    /// Who ended.
    pub pid: Pid,
    /// Why; [`ExitReason::NoProc`] when it was gone before the monitor was set.
    pub reason: ExitReason,
    /// What `Context::monitor` returned.
    pub monitor: MonitorRef,
    /// The watcher's pid number: a `Down` for a monitor that it has given up is dropped on arrival.
    pub(crate) watcher: u64,
}
