//! Reports are data first; `render` turns them into OTP's text or into one JSON object a line.

use crate::exit::ExitReason;
use crate::intensity::Intensity;
use crate::pid::Pid;
use crate::spec::{ChildInfo, Restart, Shutdown};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::time::SystemTime;

/// Receives every report of a tree, on the thread of the process that wrote it. Must not block.
pub type ReportSink = Arc<dyn Fn(&Report) + Send + Sync>;

/// One report (SASL's three kinds).
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// use std::sync::{Arc, Mutex};
///
/// let log = Arc::new(Mutex::new(Vec::new()));
/// let written = log.clone();
/// let sink = move |report: &Report| written.lock().unwrap().push(report.render_text());
/// let options = TreeOptions { sink: Arc::new(sink), ..TreeOptions::default() };
/// # let here = actix::Arbiter::current();
/// # let child = ChildSpec::worker("idle", &here, |_ctx| Ok(Idle));
/// # let root = ChildSpec::supervisor("root", &here, move || {
/// #     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![child.clone()])
/// # });
/// let root = start(root, options).await.expect("it starts");
/// assert!(log.lock().unwrap()[0].starts_with("=PROGRESS REPORT==== "));
/// assert!(log.lock().unwrap()[0].contains("\n    supervisor: root\n    started: [{pid,<0."));
/// # root.stop().await;
/// # });
/// ```
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// A child ended, could not be started or stopped, or the supervisor gave up.
    Supervisor(SupervisorReport),
    /// A child was started.
    Progress(ProgressReport),
    /// A process ended abnormally.
    Crash(CrashReport),
}

/// How loud a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Progress of temporary children of dynamic supervisors: there may be 100,000 of them.
    Debug,
    /// Other progress.
    Info,
    /// Supervisor and crash reports.
    Error,
}

impl Report {
    /// Whether rendering it takes time: frames have to be resolved.
    pub(crate) fn is_slow(&self) -> bool {
        let Report::Crash(CrashReport { reason, .. }) = self else {
            return false;
        };
        matches!(reason, ExitReason::Panic(panic) if panic.backtrace.is_some())
    }

    pub(crate) fn without_backtrace(mut self) -> Self {
        if let Report::Crash(report) = &mut self {
            report.reason = report.reason.clone().without_backtrace();
        }
        self
    }

    /// How loud it is.
    pub fn level(&self) -> Level {
        match self {
            Report::Supervisor(_) | Report::Crash(_) => Level::Error,
            Report::Progress(progress) if progress.quiet => Level::Debug,
            Report::Progress(_) => Level::Info,
        }
    }
}

/// OTP's `errorContext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorContext {
    /// A child's `init` failed.
    StartError,
    /// A child ended by itself.
    ChildTerminated,
    /// The supervisor gives up.
    Shutdown,
    /// A child that was told to stop did not end as told.
    ShutdownError,
    /// A child does not come back to its arbiter. Not OTP's: its scheduler takes the turn away.
    Unresponsive,
}

impl ErrorContext {
    /// As OTP spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorContext::StartError => "start_error",
            ErrorContext::ChildTerminated => "child_terminated",
            ErrorContext::Shutdown => "shutdown",
            ErrorContext::ShutdownError => "shutdown_error",
            ErrorContext::Unresponsive => "unresponsive",
        }
    }
}

/// Why a supervisor reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The child's exit reason.
    Exit(ExitReason),
    /// Too many restarts.
    ReachedMaxRestartIntensity,
    /// One poll of it takes this long already. It cannot be ended from outside.
    Unresponsive {
        /// Milliseconds since it was first seen in this poll.
        for_ms: u64,
        /// The thread that it holds up.
        thread: String,
    },
}

/// A child in a report (OTP's `offender` or `started`).
#[derive(Clone, Debug, Serialize)]
pub struct ChildFacts {
    /// The incarnation that is meant; none for a group or a child without process.
    pub pid: Option<Pid>,
    /// How many children a report is about when it is about a group (OTP `nb_children`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nb_children: Option<usize>,
    /// Its id.
    pub id: Arc<str>,
    /// The Rust type of the actor, in the place of OTP's `mfargs`.
    pub actor: &'static str,
    /// Its restart type.
    pub restart_type: Restart,
    /// Whether it counts for auto-shutdown.
    pub significant: bool,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// `worker` or `supervisor`.
    pub child_type: &'static str,
}

impl ChildFacts {
    pub(crate) fn new(info: &ChildInfo, pid: Option<Pid>) -> Self {
        ChildFacts {
            pid,
            nb_children: None,
            id: info.id.clone(),
            actor: info.actor,
            restart_type: info.restart,
            significant: info.significant,
            shutdown: info.shutdown,
            child_type: info.kind.child_type(),
        }
    }
}

/// Where the supervisor's restart budget stands: "restart n of INTENSITY in PERIOD s".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RestartCount {
    /// Restarts within the period, with this one.
    pub n: u32,
    /// How many are tolerated.
    pub intensity: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
}

impl RestartCount {
    pub(crate) fn new(n: u32, intensity: Intensity) -> Self {
        RestartCount {
            n,
            intensity: intensity.restarts,
            period_ms: u64::try_from(intensity.period.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// SUPERVISOR REPORT.
#[derive(Clone, Debug, Serialize)]
pub struct SupervisorReport {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Path of the supervisor.
    pub supervisor: Arc<str>,
    /// What it was doing.
    pub error_context: ErrorContext,
    /// Why.
    pub reason: Cause,
    /// The child.
    pub offender: ChildFacts,
    /// Set when the child will be restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartCount>,
}

/// PROGRESS REPORT.
#[derive(Clone, Debug, Serialize)]
pub struct ProgressReport {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Path of the supervisor.
    pub supervisor: Arc<str>,
    /// The child.
    pub started: ChildFacts,
    /// Which start of this child it is, from 1.
    pub generation: u64,
    /// What follows is set after a restart.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<Restarted>,
    /// True for temporary children of dynamic supervisors.
    #[serde(skip)]
    pub quiet: bool,
}

/// What a restart cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restarted {
    /// Where the budget stands.
    pub restart: RestartCount,
    /// From the exit to this start, in µs, as the supervisor saw it.
    pub downtime_us: u64,
    /// Siblings that are restarted with it.
    pub children_restarted: Vec<Arc<str>>,
}

/// CRASH REPORT.
#[derive(Clone, Debug, Serialize)]
pub struct CrashReport {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Path of the process.
    pub path: Arc<str>,
    /// Its pid.
    pub pid: Pid,
    /// The Rust type of the actor (OTP: `initial call`).
    pub actor: &'static str,
    /// Which start of this child it was.
    pub generation: u64,
    /// Why.
    pub reason: ExitReason,
    /// Messages in its mailbox, now lost.
    pub mailbox_len: usize,
    /// Paths of its supervisors, nearest first.
    pub ancestors: Vec<Arc<str>>,
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let at = time::OffsetDateTime::from(*at);
    match at.format(&time::format_description::well_known::Rfc3339) {
        Ok(text) => serializer.serialize_str(&text),
        Err(error) => Err(serde::ser::Error::custom(error)),
    }
}

/// The default sink: `tracing` events of target `supervisor` whose message is the report's text.
pub fn to_tracing() -> ReportSink {
    Arc::new(|report| match report.level() {
        Level::Error => tracing::error!(target: "supervisor", "{}", report.render_text()),
        Level::Info => tracing::info!(target: "supervisor", "{}", report.render_text()),
        Level::Debug => tracing::debug!(target: "supervisor", "{}", report.render_text()),
    })
}
