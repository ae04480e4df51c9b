//! Looking at the processes of a tree.

use super::{Tree, in_frame, lock};
use crate::intensity::Intensity;
use crate::office::Absent;
use crate::pid::Pid;
use crate::spec::{ProcessKind, Restart, Shutdown, Strategy, child_path};
use crate::supervisor::now;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// What a child is doing, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// In its `init`, or its turn to be started has not come.
    Starting,
    /// It runs.
    Running,
    /// It ended, or its restart failed, and it will be started again.
    Restarting,
    /// It does not run and will not by itself (OTP `undefined`).
    Stopped,
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProcessState::Starting => "starting",
            ProcessState::Running => "running",
            ProcessState::Restarting => "restarting",
            ProcessState::Stopped => "stopped",
        })
    }
}

/// One child of the tree.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessInfo {
    /// `root/core/router`; ids with `/` or `%` are percent-escaped.
    pub path: Arc<str>,
    /// The child's id, not escaped.
    pub id: Arc<str>,
    /// What it is.
    pub kind: ProcessKind,
    /// What it is doing.
    pub state: ProcessState,
    /// Which incarnation; none if there is no process.
    pub pid: Option<Pid>,
    /// Times it has been started again since its supervisor started.
    pub restarts: u64,
    /// Which start this is, from 1; 0 if it was never started.
    pub generation: u64,
    /// When it was started; without a process, when it came to be in its state.
    pub since: SystemTime,
    /// Messages waiting.
    pub mailbox_len: usize,
    /// When it is restarted.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// The Rust type of its actor.
    pub actor: &'static str,
    /// Of a supervisor: how it supervises.
    pub supervision: Option<Supervision>,
}

/// How a supervisor supervises, and how that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Supervision {
    /// Whom it restarts together.
    pub strategy: Strategy,
    /// How many restarts it tolerates.
    #[serde(skip)]
    pub intensity: Intensity,
    /// Restarts that count against the intensity now.
    pub intensity_used: u32,
    /// Processes directly below it.
    pub children: usize,
    /// Restarts of children that it has decided upon since it started, failed attempts included.
    pub child_restarts: u64,
    /// Children that have ended abnormally by themselves since it started.
    pub child_crashes: u64,
}

impl Tree {
    /// Every child of the tree, also those that wait for a restart or are stopped; parents before children
    /// and siblings in start order.
    ///
    /// With 100,000 sessions this takes some 100 ms: do not call it on an arbiter that has other things to
    /// do. [`Tree::summary`] takes a few µs, however many sessions there are.
    pub fn list(&self) -> Vec<ProcessInfo> {
        let mut pids = Vec::with_capacity(self.count());
        for shard in &self.0.shards {
            pids.extend(shard.lock().values().cloned());
        }
        in_order(pids)
    }

    /// As [`Tree::list`], without the children of dynamic supervisors, of which there may be 100,000: how
    /// many there are is told by their supervisor's [`Supervision::children`].
    pub fn summary(&self) -> Vec<ProcessInfo> {
        let pids = lock(&self.0.frame).values().cloned().collect();
        in_order(pids)
    }

    /// The children of the supervisor at `path`, in start order; those of a dynamic supervisor by id.
    pub fn children(&self, path: &str) -> Vec<ProcessInfo> {
        let Some(supervisor) = self.find(path) else {
            return Vec::new();
        };
        let ours = |pid: &&Pid| pid.0.parent.as_ref() == Some(&supervisor);
        let mut pids = Vec::new();
        if supervisor.0.info.kind == ProcessKind::DynamicSupervisor || !in_frame(&supervisor) {
            for shard in &self.0.shards {
                pids.extend(shard.lock().values().filter(ours).cloned());
            }
        } else {
            pids.extend(lock(&self.0.frame).values().filter(ours).cloned());
        }
        let mut children: Vec<_> = absent_below(&supervisor).collect();
        children.extend(pids.into_iter().map(placed));
        in_start_order(&mut children);
        children.into_iter().map(|(_, child)| child).collect()
    }

    /// The child at `path`, also one without a process.
    pub fn describe(&self, path: &str) -> Option<ProcessInfo> {
        if let Some(pid) = self.find(path) {
            return Some(ProcessInfo::of(pid));
        }
        let (parent, id) = super::steer::split(path)?;
        let parent = self.find(parent)?;
        let absent = parent.0.office.get()?.find_absent(&id)?;
        Some(ProcessInfo::absent(&parent, absent))
    }

    /// The live process at `path`.
    pub fn find(&self, path: &str) -> Option<Pid> {
        self.shard(path).get(path)
    }

    /// Number of live processes.
    pub fn count(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Looks at every process, if need be: for rare occasions.
    pub(crate) fn find_number(&self, number: u64) -> Option<Pid> {
        if let Some(pid) = lock(&self.0.frame).get(&number) {
            return Some(pid.clone());
        }
        let in_shard = |pid: &&Pid| pid.number() == number;
        self.0
            .shards
            .iter()
            .find_map(|shard| shard.lock().values().find(in_shard).cloned())
    }
}

/// A child with its place among its siblings.
type Placed = (u32, ProcessInfo);

fn placed(pid: Pid) -> Placed {
    (pid.0.info.position, ProcessInfo::of(pid))
}

/// The processes, with the children that have none, parents before children.
fn in_order(pids: Vec<Pid>) -> Vec<ProcessInfo> {
    let mut listed = Vec::with_capacity(pids.len());
    let mut families: HashMap<u64, Vec<Placed>> = HashMap::new();
    // Whoever was found without its supervisor, which has just ended, is shown like a root.
    let found: HashSet<u64> = pids
        .iter()
        .filter(|pid| pid.0.office.get().is_some())
        .map(Pid::number)
        .collect();
    for pid in pids {
        if pid.0.office.get().is_some() {
            families
                .entry(pid.number())
                .or_default()
                .extend(absent_below(&pid));
        }
        let parent = pid.0.parent.as_ref().map(Pid::number);
        let above = parent.filter(|parent| found.contains(parent)).unwrap_or(0);
        families.entry(above).or_default().push(placed(pid));
    }
    families.values_mut().for_each(in_start_order);
    below(0, &mut families, &mut listed);
    listed
}

/// The trees are as deep as their specs.
fn below(parent: u64, families: &mut HashMap<u64, Vec<Placed>>, listed: &mut Vec<ProcessInfo>) {
    for (_, child) in families.remove(&parent).unwrap_or_default() {
        let number = child.pid.as_ref().map(Pid::number);
        listed.push(child);
        if let Some(number) = number {
            below(number, families, listed);
        }
    }
}

fn in_start_order(siblings: &mut Vec<Placed>) {
    siblings.sort_unstable_by(|(a, one), (b, other)| (a, &one.id).cmp(&(b, &other.id)));
    // A child that is just being started again may still be shown as absent; its process is the news.
    siblings.dedup_by(|(_, later), (_, first)| {
        let same = later.path == first.path;
        if same && first.pid.is_none() {
            std::mem::swap(later, first);
        }
        same
    });
}

fn absent_below(supervisor: &Pid) -> impl Iterator<Item = Placed> {
    let absent = supervisor
        .0
        .office
        .get()
        .map(|office| office.absent())
        .unwrap_or_default();
    absent
        .into_iter()
        .map(|absent| (absent.info.position, ProcessInfo::absent(supervisor, absent)))
}

impl ProcessInfo {
    fn of(pid: Pid) -> Self {
        let control = &pid.0;
        let supervision = control.office.get().map(|office| Supervision {
            strategy: office.strategy,
            intensity: office.intensity,
            intensity_used: office.used(now()),
            children: pid.live_children(),
            child_restarts: office.restarts(),
            child_crashes: office.crashes(),
        });
        ProcessInfo {
            path: control.path.clone(),
            id: control.info.id.clone(),
            kind: control.info.kind,
            state: if pid.has_started() {
                ProcessState::Running
            } else {
                ProcessState::Starting
            },
            restarts: control.generation.saturating_sub(1),
            generation: control.generation,
            since: control.since,
            mailbox_len: pid.mailbox_len(),
            restart: control.info.restart,
            shutdown: control.info.shutdown,
            actor: control.info.actor,
            supervision,
            pid: Some(pid),
        }
    }

    fn absent(supervisor: &Pid, absent: Absent) -> Self {
        let Absent {
            info,
            state,
            generation,
            since,
        } = absent;
        ProcessInfo {
            path: child_path(supervisor.path(), &info.id),
            id: info.id.clone(),
            kind: info.kind,
            state,
            pid: None,
            restarts: generation.saturating_sub(1),
            generation,
            since,
            mailbox_len: 0,
            restart: info.restart,
            shutdown: info.shutdown,
            actor: info.actor,
            supervision: None,
        }
    }
}
