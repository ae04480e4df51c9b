//! The jobs of a supervisor, the work they become, and what is told of a restart.

use super::{Child, now};
use crate::error::{ChildError, StartError};
use crate::exit::ExitReason;
use crate::pid::Pid;
use crate::report::{RestartCount, Restarted};
use crate::request::{ChildKey, Reply, RestartError};
use crate::spec::{ChildSpec, child_path};
use crate::tree::{RestartOutcome, RestartRecord};
use actix::SpawnHandle;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Something to be done when nothing else is.
pub(super) enum Job {
    /// Start all children.
    Boot,
    /// Deal with a child that ended by itself.
    Ended(Pid),
    TryAgain(Arc<str>),
    Start(ChildSpec, Reply<Result<Pid, StartError>>),
    Terminate(ChildKey, Reply<Result<(), ChildError>>),
    Restart(Arc<str>, Reply<Result<Pid, RestartError>>),
    Delete(Arc<str>, Reply<Result<(), ChildError>>),
}

impl Job {
    /// Answers whoever waits for it: the supervisor is shutting down.
    pub(super) fn refuse(self) {
        match self {
            Job::Boot | Job::Ended(_) | Job::TryAgain(_) => {}
            Job::Start(_, reply) => reply.give(Err(StartError::ShuttingDown)),
            Job::Restart(_, reply) => reply.give(Err(StartError::ShuttingDown.into())),
            Job::Terminate(_, reply) | Job::Delete(_, reply) => reply.give(Err(ChildError::ShuttingDown)),
        }
    }
}

/// A job in steps: stop these, forget those, start these, then conclude. Children by id.
pub(super) struct Work {
    pub(super) stop: VecDeque<Arc<str>>,
    pub(super) forget: Vec<Arc<str>>,
    pub(super) start: VecDeque<Arc<str>>,
    pub(super) then: Then,
}

/// How work is concluded.
pub(super) enum Then {
    Ready,
    Restarted(RestartFacts),
    Reply(Arc<str>, Reply<Result<Pid, StartError>>),
    ReplyRestart(Arc<str>, Reply<Result<Pid, RestartError>>),
    Terminated(Arc<str>, Reply<Result<(), ChildError>>),
    Exit(ExitReason),
}

/// A restart in progress, told in the reports of its starts.
pub(super) struct RestartFacts {
    pub(super) failed: Arc<str>,
    pub(super) reason: ExitReason,
    pub(super) count: RestartCount,
    pub(super) others: Vec<Arc<str>>,
    pub(super) at: SystemTime,
}

/// The step that takes time.
pub(super) enum Waiting {
    Start(Pid),
    Stop(Pid, Option<SpawnHandle>),
}

impl Waiting {
    pub(super) fn stopping(&self) -> Option<&Pid> {
        match self {
            Waiting::Stop(pid, _) => Some(pid),
            Waiting::Start(_) => None,
        }
    }
}

impl RestartFacts {
    /// What the progress report of `child` says, and, if it is the one that failed, what history keeps.
    pub(super) fn of(&self, child: &Child, down_since: Option<Instant>, supervisor: &Pid) -> Restarted {
        let downtime = down_since
            .map(|then| now().saturating_duration_since(then))
            .unwrap_or_default();
        let downtime_us = u64::try_from(downtime.as_micros()).unwrap_or(u64::MAX);
        let mut children_restarted = Vec::new();
        if *child.id() == self.failed {
            children_restarted.clone_from(&self.others);
            let outcome = RestartOutcome::Restarted;
            let record = self.record(child, supervisor, outcome, self.reason.clone(), downtime_us);
            supervisor.0.tree.remember(record);
        }
        Restarted {
            restart: self.count,
            downtime_us,
            children_restarted,
        }
    }

    pub(super) fn record(
        &self,
        child: &Child,
        supervisor: &Pid,
        outcome: RestartOutcome,
        reason: ExitReason,
        downtime_us: u64,
    ) -> RestartRecord {
        RestartRecord {
            at: self.at,
            supervisor: supervisor.path().clone(),
            path: child_path(supervisor.path(), child.id()),
            reason,
            outcome,
            n: self.count.n,
            generation: child.generation,
            downtime_us,
            children_restarted: self.others.clone(),
        }
    }
}
