//! The whole tree: starting and stopping it, and looking at every process in it.

use crate::error::{InitFailure, StartError};
use crate::exit::ExitReason;
use crate::panic::install_hook;
use crate::pid::Pid;
use crate::process::{ChildEvent, Parent};
use crate::report::{Report, ReportSink, to_tracing};
use crate::reporter::Reporter;
use crate::slot::Slots;
use crate::spec::{ChildSpec, ProcessKind, child_path};
use crate::watchdog::Watchdog;
use serde::Serialize;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

mod list;
mod steer;

pub use list::{ProcessInfo, ProcessState, Supervision};
pub use steer::SteerError;

const SHARDS: usize = 64;

/// How a tree reports and remembers.
#[derive(Clone)]
pub struct TreeOptions {
    /// Receives every report; `tracing` unless said.
    pub sink: ReportSink,
    /// Restarts that [`Tree::history`] remembers.
    pub history_len_max: usize,
    /// A process that does not come back to its arbiter for so long is reported as unresponsive, by a thread
    /// of its own; `None`: nobody watches.
    pub unresponsive_after: Option<Duration>,
}

impl Default for TreeOptions {
    fn default() -> Self {
        TreeOptions {
            sink: to_tracing(),
            history_len_max: 1000,
            unresponsive_after: Some(Duration::from_secs(5)),
        }
    }
}

impl fmt::Debug for TreeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeOptions")
            .field("history_len_max", &self.history_len_max)
            .finish_non_exhaustive()
    }
}

/// The live processes of one tree. Cloning shares it; every method may be called from any thread.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// # let here = actix::Arbiter::current();
/// # let child = ChildSpec::worker("idle", &here, |_ctx| Ok(Idle));
/// # let root = ChildSpec::supervisor("root", &here, move || {
/// #     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![child.clone()])
/// # });
/// # let root = start(root, TreeOptions::default()).await.expect("it starts");
/// let tree = root.tree();
/// let paths: Vec<_> = tree.list().into_iter().map(|process| process.path.to_string()).collect();
/// assert_eq!(paths, ["root", "root/idle"]);
///
/// tree.terminate_child("root/idle").await.expect("it ends");
/// assert_eq!(tree.describe("root/idle").expect("its spec stays").state, ProcessState::Stopped);
/// tree.restart_child("root/idle").await.expect("it starts");
/// let again = tree.restart_child("root/idle").await.expect_err("once is enough");
/// assert_eq!(again.to_string(), "running: the child runs");
/// assert!(tree.history().is_empty(), "nothing of this was a restart");
/// # root.stop().await;
/// # });
/// ```
#[derive(Clone)]
pub struct Tree(Arc<Table>);

struct Table {
    /// Every live process by its path.
    shards: [Slots<Arc<str>, Pid>; SHARDS],
    /// Those that are not below a dynamic supervisor, by number: few, however many sessions there are.
    frame: Mutex<BTreeMap<u64, Pid>>,
    restarts: AtomicU64,
    reporter: Reporter,
    history: Mutex<VecDeque<RestartRecord>>,
    history_len_max: usize,
}

/// One restart, or the decision against it.
#[derive(Clone, Debug, Serialize)]
pub struct RestartRecord {
    /// When the child's exit was handled.
    pub at: SystemTime,
    /// Path of the supervisor.
    pub supervisor: Arc<str>,
    /// Path of the child.
    pub path: Arc<str>,
    /// Why it had ended (or could not be started).
    pub reason: ExitReason,
    /// What became of it.
    pub outcome: RestartOutcome,
    /// Restarts within the supervisor's period, with this one.
    pub n: u32,
    /// Which start of the child it is.
    pub generation: u64,
    /// From exit to start, in µs.
    pub downtime_us: u64,
    /// Siblings restarted with it, by id.
    pub children_restarted: Vec<Arc<str>>,
}

/// What became of a child that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartOutcome {
    /// It runs again.
    Restarted,
    /// Its start failed; it will be tried again.
    StartFailed,
    /// The supervisor's intensity was used up: it gave up.
    GaveUp,
}

impl Tree {
    pub(crate) fn new(options: TreeOptions) -> Self {
        Tree(Arc::new(Table {
            shards: std::array::from_fn(|_| Slots::new()),
            frame: Mutex::default(),
            restarts: AtomicU64::new(0),
            reporter: Reporter::new(options.sink),
            history: Mutex::default(),
            history_len_max: options.history_len_max,
        }))
    }

    /// The last restarts, oldest first.
    pub fn history(&self) -> Vec<RestartRecord> {
        lock(&self.0.history).iter().cloned().collect()
    }

    /// Restarts since the tree was started, also those that `history` has forgotten.
    pub fn restarts(&self) -> u64 {
        self.0.restarts.load(Relaxed)
    }

    pub(crate) fn insert(&self, pid: &Pid) {
        if in_frame(pid) {
            lock(&self.0.frame).insert(pid.number(), pid.clone());
        }
        self.shard(pid.path()).set(pid.path().clone(), pid.clone());
    }

    /// Takes `pid` out, unless a successor already stands in its place.
    pub(crate) fn remove(&self, pid: &Pid) {
        if in_frame(pid) {
            let gone = lock(&self.0.frame).remove(&pid.number());
            drop(gone);
        }
        self.shard(pid.path()).leave(&**pid.path(), |there| there == pid);
    }

    pub(crate) fn report(&self, report: &Report) {
        self.0.reporter.report(report);
    }

    /// Waits until every report so far is out.
    pub(crate) async fn flush_reports(&self) {
        self.0.reporter.flush().await;
    }

    /// Backtraces that were left out of crash reports because too many waited to be resolved.
    pub fn backtraces_dropped(&self) -> u64 {
        self.0.reporter.dropped()
    }

    pub(crate) fn remember(&self, record: RestartRecord) {
        if record.outcome == RestartOutcome::Restarted {
            self.0.restarts.fetch_add(1, Relaxed);
        }
        let mut history = lock(&self.0.history);
        while history.len() >= self.0.history_len_max.max(1) {
            history.pop_front();
        }
        history.push_back(record);
    }

    fn shard(&self, path: &str) -> &Slots<Arc<str>, Pid> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        // Truncation is harmless: only the low bits are used.
        &self.0.shards[hasher.finish() as usize % SHARDS]
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("processes", &self.count())
            .finish_non_exhaustive()
    }
}

/// Whether the number of its like is the configuration's, not the clients'.
fn in_frame(pid: &Pid) -> bool {
    let mut above = pid.0.parent.as_ref();
    while let Some(parent) = above {
        if parent.0.info.kind == ProcessKind::DynamicSupervisor {
            return false;
        }
        above = parent.0.parent.as_ref();
    }
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks; were one poisoned, its map would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running tree. Dropping it does not stop the tree.
#[derive(Clone, Debug)]
pub struct Root {
    tree: Tree,
    pid: Pid,
    exit: watch::Receiver<Option<ExitReason>>,
}

impl Root {
    /// The processes of the tree.
    pub fn tree(&self) -> Tree {
        self.tree.clone()
    }

    /// The top process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// Stops everything in reverse start order, each child by its shutdown protocol. The root itself is given
    /// all the time it takes.
    pub async fn stop(&self) -> ExitReason {
        self.pid.exit(ExitReason::Shutdown);
        self.wait().await
    }

    /// Waits until the top process has ended: by [`Root::stop`], or because the tree gave up.
    pub async fn wait(&self) -> ExitReason {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Killed),
            // The thread that watches is gone: the runtime is.
            Err(_) => ExitReason::Killed,
        }
    }
}

/// Starts a tree and waits until every child of its spec has been initialised.
///
/// Must be called inside an actix `System`. If a child fails to start, those before it are stopped in reverse
/// order and nothing is left running.
///
/// # Errors
/// [`StartError::Init`] with the reason; [`StartError::Ignored`] if the top process chose not to run.
pub async fn start(root: ChildSpec, options: TreeOptions) -> Result<Root, StartError> {
    install_hook();
    let patience = options.unresponsive_after;
    let tree = Tree::new(options);
    let watchdog = patience.and_then(|patience| Watchdog::watch(&tree, patience));
    let (events, mut inbox) = mpsc::unbounded_channel();
    let pid = Pid::new(
        tree.clone(),
        child_path("", root.id()),
        root.info.clone(),
        None,
        1,
    );
    root.launch(pid.clone(), Parent::Root(events));
    match inbox.recv().await {
        Some(ChildEvent::Started(_)) => {}
        Some(ChildEvent::Failed(_, InitFailure::Ignore)) => return Err(StartError::Ignored),
        Some(ChildEvent::Failed(_, InitFailure::Failed(reason)) | ChildEvent::Exited(_, reason)) => {
            return Err(StartError::Init(reason));
        }
        None => return Err(StartError::Init(ExitReason::Killed)),
    }
    let (end, exit) = watch::channel(None);
    let whole = tree.clone();
    actix_rt::spawn(async move {
        let reason = match inbox.recv().await {
            Some(ChildEvent::Exited(_, reason)) => reason,
            _ => ExitReason::Killed,
        };
        drop(watchdog);
        whole.flush_reports().await;
        end.send_replace(Some(reason));
    });
    Ok(Root { tree, pid, exit })
}
