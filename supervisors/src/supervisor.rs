//! The supervisor of children that its spec names.
//!
//! Parent:   any supervisor, or none; usually permanent, infinity
//! Owns:     its children's processes: when it dies they die; their specs
//! Asked by: anybody (StartChild, TerminateChild, RestartChild, DeleteChild, WhichChildren, CountChildren)
//! Tells:    its children (exit signals), its parent (through its exit)
//! Dies of:  too many restarts, a child that fails at its own start, auto-shutdown, its parent's wish
//!
//! Whatever takes time (a child's `init`, a child that is stopping) is a step of the work in hand; what comes
//! meanwhile waits in a queue, in order of arrival, except questions, which are answered at once.

mod job;
mod stop;
mod work;

use crate::context::{Context, Readiness};
use crate::error::{ChildError, InitError, StartError};
use crate::exit::ExitReason;
use crate::office::{Door, Office};
use crate::pid::Pid;
use crate::process::ChildEvent;
use crate::report::{Cause, ChildFacts, ErrorContext, Report, RestartCount, SupervisorReport};
use crate::request::{
    Answer, ChildCounts, ChildKey, ChildState, ChildStatus, CountChildren, DeleteChild, Reply, RestartChild,
    RestartError, StartChild, TerminateChild, WhichChildren,
};
use crate::spec::{AutoShutdown, ChildSpec, ProcessKind, Restart, Strategy, SupervisorSpec};
use actix::{Actor, Handler, Message, Running};
use job::{Job, Waiting, Work};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
pub(crate) use stop::ended_as_told;

/// See the module's text.
pub struct Supervisor {
    pid: Pid,
    strategy: Strategy,
    auto_shutdown: AutoShutdown,
    /// In start order.
    children: Vec<Child>,
    position_next: u32,
    /// What is being done; at most one thing.
    work: Option<Work>,
    /// The step of it that takes time.
    waiting: Option<Waiting>,
    /// What comes next.
    queue: VecDeque<Job>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Halting,
    /// Every child has ended; the actor may stop.
    Empty,
}

struct Child {
    spec: ChildSpec,
    state: State,
    /// Of the incarnation that started last.
    generation: u64,
    /// Failed starts since it last ran.
    failures: u32,
    down_since: Option<Instant>,
}

enum State {
    Stopped,
    Starting(Pid),
    Running(Pid),
    /// Ended by itself, and that has not been dealt with yet.
    Ended(Pid, ExitReason),
    /// Its restart failed, therefore, and will be tried again.
    Restarting(ExitReason),
}

impl Child {
    fn new(spec: ChildSpec) -> Self {
        Child {
            spec,
            state: State::Stopped,
            generation: 0,
            failures: 0,
            down_since: None,
        }
    }

    fn id(&self) -> &Arc<str> {
        self.spec.id()
    }

    /// Its process, also one that has ended and has not been dealt with.
    fn pid(&self) -> Option<&Pid> {
        match &self.state {
            State::Starting(pid) | State::Running(pid) | State::Ended(pid, _) => Some(pid),
            State::Stopped | State::Restarting(_) => None,
        }
    }

    fn facts(&self) -> ChildFacts {
        ChildFacts::new(&self.spec.info, self.pid().cloned())
    }
}

/// The pause before a failed restart is tried again; OTP has none. The first comes at once, so that the rest
/// of the mailbox is not starved; later ones leave time for what is in the way (a port in use) to go away.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis([0, 10, 50, 250, 1000][failures.saturating_sub(1).min(4) as usize])
}

/// The clock of restart windows; tokio's, so that tests can pause it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What contradicts itself in a spec under a supervisor with that rule.
pub(crate) fn contradiction(spec: &ChildSpec, auto_shutdown: AutoShutdown) -> Option<String> {
    let (id, info) = (spec.id(), &spec.info);
    if !info.significant {
        return None;
    }
    if info.restart == Restart::Permanent {
        return Some(format!(
            "child {id} is permanent and significant: a permanent child never ends"
        ));
    }
    let never = auto_shutdown == AutoShutdown::Never;
    never.then(|| format!("child {id} is significant, but its supervisor never shuts itself down"))
}

pub(crate) fn supervisor_report(
    supervisor: &Pid,
    error_context: ErrorContext,
    reason: Cause,
    offender: ChildFacts,
    restart: Option<RestartCount>,
) {
    // The frames are the crash report's, as in OTP the crasher's stack is.
    let reason = match reason {
        Cause::Exit(reason) => Cause::Exit(reason.without_backtrace()),
        other => other,
    };
    let at = SystemTime::now();
    let supervisor_path = supervisor.path().clone();
    let report = SupervisorReport {
        at,
        supervisor: supervisor_path,
        error_context,
        reason,
        offender,
        restart,
    };
    supervisor.0.tree.report(&Report::Supervisor(report));
}

impl Supervisor {
    pub(crate) fn init(spec: SupervisorSpec, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        let SupervisorSpec {
            strategy,
            intensity,
            children,
            auto_shutdown,
        } = spec;
        let mut ids = HashSet::new();
        for child in &children {
            if !ids.insert(child.id().clone()) {
                return Err(InitError::failed(format_args!(
                    "duplicate child id {}",
                    child.id()
                )));
            }
            if let Some(why) = contradiction(child, auto_shutdown) {
                return Err(InitError::failed(why));
            }
        }
        Office::open(ctx.pid(), strategy, intensity, Door::Named(ctx.myself()));
        let mut supervisor = Supervisor {
            pid: ctx.pid().clone(),
            strategy,
            auto_shutdown,
            children: Vec::with_capacity(children.len()),
            position_next: 0,
            work: None,
            waiting: None,
            queue: VecDeque::from([Job::Boot]),
            phase: Phase::Up,
        };
        children.into_iter().for_each(|child| supervisor.adopt(child));
        Ok(supervisor)
    }

    fn adopt(&mut self, mut spec: ChildSpec) {
        Arc::make_mut(&mut spec.info).position = self.position_next;
        self.position_next += 1;
        self.children.push(Child::new(spec));
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| &**child.id() == id)
    }

    fn find_pid(&self, pid: &Pid) -> Option<usize> {
        self.children.iter().position(|child| child.pid() == Some(pid))
    }

    fn enqueue(&mut self, job: Job, ctx: &mut Context<Self>) {
        if self.phase == Phase::Up {
            self.queue.push_back(job);
            self.advance(ctx);
        } else {
            job.refuse();
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Its own parent hears of the start when all children have started.
        ctx.set_readiness(Readiness::Deferred);
        self.advance(ctx);
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        self.halt(ExitReason::Shutdown, ctx);
        match self.phase {
            Phase::Empty => Running::Stop,
            _ => Running::Continue,
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Empty after an orderly stop. Torn or killed, it takes its children along (OTP: they are linked).
        for child in &self.children {
            if let State::Starting(pid) | State::Running(pid) = &child.state {
                pid.exit(ExitReason::Killed);
            }
        }
    }
}

impl Handler<ChildEvent> for Supervisor {
    type Result = ();

    fn handle(&mut self, event: ChildEvent, ctx: &mut Context<Self>) {
        match event {
            ChildEvent::Started(pid) => self.child_started(&pid),
            ChildEvent::Failed(pid, failure) => self.child_failed(&pid, failure, ctx),
            ChildEvent::Exited(pid, reason) => self.child_exited(pid, reason, ctx),
        }
        self.advance(ctx);
    }
}

/// To itself: a failed restart goes through the mailbox, so that what came meanwhile is not starved.
#[derive(Message)]
#[rtype(result = "()")]
struct TryAgainRestart(Arc<str>);

impl Handler<TryAgainRestart> for Supervisor {
    type Result = ();

    fn handle(&mut self, TryAgainRestart(id): TryAgainRestart, ctx: &mut Context<Self>) {
        self.enqueue(Job::TryAgain(id), ctx);
    }
}

impl Handler<StartChild> for Supervisor {
    type Result = Answer<Result<Pid, StartError>>;

    fn handle(&mut self, StartChild(spec): StartChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        self.enqueue(Job::Start(spec, reply), ctx);
        answer
    }
}

impl Handler<TerminateChild> for Supervisor {
    type Result = Answer<Result<(), ChildError>>;

    fn handle(&mut self, TerminateChild(key): TerminateChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        self.enqueue(Job::Terminate(key, reply), ctx);
        answer
    }
}

impl Handler<RestartChild> for Supervisor {
    type Result = Answer<Result<Pid, RestartError>>;

    fn handle(&mut self, RestartChild(id): RestartChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        self.enqueue(Job::Restart(id, reply), ctx);
        answer
    }
}

impl Handler<DeleteChild> for Supervisor {
    type Result = Answer<Result<(), ChildError>>;

    fn handle(&mut self, DeleteChild(id): DeleteChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        self.enqueue(Job::Delete(id, reply), ctx);
        answer
    }
}

impl Handler<WhichChildren> for Supervisor {
    type Result = Vec<ChildStatus>;

    fn handle(&mut self, _: WhichChildren, _: &mut Context<Self>) -> Self::Result {
        let stopping = self.waiting.as_ref().and_then(Waiting::stopping);
        let status = |child: &Child| ChildStatus {
            id: child.id().clone(),
            kind: child.spec.info.kind,
            state: match &child.state {
                State::Starting(pid) => ChildState::Starting(pid.clone()),
                State::Running(pid) if stopping == Some(pid) => ChildState::Stopping(pid.clone()),
                State::Running(pid) => ChildState::Running(pid.clone()),
                State::Ended(..) | State::Restarting(_) => ChildState::Restarting,
                State::Stopped => ChildState::Stopped,
            },
        };
        self.children.iter().map(status).collect()
    }
}

impl Handler<CountChildren> for Supervisor {
    type Result = ChildCounts;

    fn handle(&mut self, _: CountChildren, _: &mut Context<Self>) -> Self::Result {
        let mut counts = ChildCounts {
            specs: self.children.len(),
            ..ChildCounts::default()
        };
        for child in &self.children {
            counts.active += usize::from(matches!(child.state, State::Running(_)));
            match child.spec.info.kind {
                ProcessKind::Worker => counts.workers += 1,
                _ => counts.supervisors += 1,
            }
        }
        counts
    }
}

impl ChildKey {
    fn find_in(&self, supervisor: &Supervisor) -> Option<usize> {
        match self {
            ChildKey::Id(id) => supervisor.find(id),
            ChildKey::Pid(pid) => supervisor.find_pid(pid),
        }
    }
}
