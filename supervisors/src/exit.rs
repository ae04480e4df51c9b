//! Why a process ended, and how others learn of it.

use crate::backtrace::Trace;
use crate::pid::Pid;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Why a process ended. OTP's exit reasons (`normal`, `shutdown`, `killed`, `noproc`, anything else).
///
/// ```
/// use supervisors::ExitReason;
///
/// // A transient child stays down after these two, and only these.
/// assert!(!ExitReason::Normal.is_abnormal() && !ExitReason::Shutdown.is_abnormal());
/// assert!(ExitReason::Error("disk full".into()).is_abnormal());
/// assert_eq!(ExitReason::Error("disk full".into()).to_string(), "error: disk full");
/// ```
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

impl ExitReason {
    /// The same without frames, for reports that are about somebody else's panic.
    pub(crate) fn without_backtrace(self) -> Self {
        match self {
            ExitReason::Panic(panic) => ExitReason::Panic(PanicReport {
                backtrace: None,
                ..panic
            }),
            other => other,
        }
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
    pub backtrace: Option<Trace>,
}

/// Names one monitor. Two monitors of the same process have two references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonitorRef(pub(crate) u64);

/// A monitored process ended. Comes exactly once per monitor.
///
///
/// ```
/// use actix::{Actor, Handler};
/// use supervisors::*;
///
/// struct Watcher(Pid, tokio::sync::mpsc::UnboundedSender<ExitReason>);
///
/// impl Actor for Watcher {
///     type Context = Context<Self>;
///
///     fn started(&mut self, ctx: &mut Context<Self>) {
///         ctx.monitor(&self.0);
///     }
/// }
///
/// impl Handler<Down> for Watcher {
///     type Result = ();
///
///     fn handle(&mut self, down: Down, _: &mut Context<Self>) {
///         let _ = self.1.send(down.reason);
///     }
/// }
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// # let (here, all) = (actix::Arbiter::current(), Name::<DynamicSupervisor>::new("all"));
/// # let spec = DynamicSpec { intensity: Intensity::default(), max_children: 9 };
/// # let root = start(ChildSpec::dynamic("all", &here, spec, &all), TreeOptions::default()).await.unwrap();
/// let idle = ChildSpec::worker("idle", &here, |_ctx| Ok(Idle)).restart(Restart::Temporary);
/// let idle = all.start_child(idle).await.expect("it starts");
/// let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
/// let watched = idle.clone();
/// let watcher = ChildSpec::worker("watcher", &here, move |_ctx| Ok(Watcher(watched.clone(), told.clone())));
/// all.start_child(watcher).await.expect("it starts");
///
/// idle.exit(ExitReason::Killed);
/// assert_eq!(hears.recv().await, Some(ExitReason::Killed));
/// # root.stop().await;
/// # });
/// ```
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
