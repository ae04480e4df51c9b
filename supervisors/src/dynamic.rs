//! The supervisor of children that are added at run time.
//!
//! Parent:   any supervisor; usually permanent, infinity
//! Owns:     its children's processes: when it dies they die, and nobody starts them again
//! Asked by: anybody (StartChild, TerminateChild, WhichChildren, CountChildren)
//! Tells:    its children (exit signals), its parent (through its exit)
//! Dies of:  too many restarts of permanent or transient children, its parent's wish
//!
//! Made for 100,000 temporary children: an exit costs two look-ups, starts do not wait for each other, and at
//! the end all are stopped at once.

mod halt;

use crate::context::Context;
use crate::error::{ChildError, InitFailure, StartError};
use crate::exit::ExitReason;
use crate::intensity::{Intensity, Verdict};
use crate::office::{Door, Office};
use crate::pid::Pid;
use crate::process::{ChildEvent, Parent};
use crate::report::{Cause, ChildFacts, ErrorContext, ProgressReport, Report, RestartCount, Restarted};
use crate::request::{
    Answer, ChildCounts, ChildKey, ChildState, ChildStatus, CountChildren, Reply, StartChild, TerminateChild,
    WhichChildren,
};
use crate::spec::{AutoShutdown, ChildSpec, DynamicSpec, ProcessKind, Restart, Strategy, child_path};
use crate::supervisor::{backoff, contradiction, now, supervisor_report};
use crate::tree::{RestartOutcome, RestartRecord};
use actix::{Actor, AsyncContext, Handler, Message, Running};
use actix_rt::task::JoinHandle;
use halt::Halt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// See the module's text.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// let (here, guests) = (actix::Arbiter::current(), Name::<DynamicSupervisor>::new("guests"));
/// let spec = DynamicSpec { intensity: Intensity::default(), max_children: 2 };
/// let root = ChildSpec::dynamic("guests", &here, spec, &guests);
/// let root = start(root, TreeOptions::default()).await.expect("it starts");
///
/// let guest = |id: &str| ChildSpec::worker(id, &here, |_ctx| Ok(Idle)).restart(Restart::Temporary);
/// let alice = guests.start_child(guest("alice")).await.expect("there is room");
/// assert_eq!(guests.start_child(guest("alice")).await, Err(StartError::AlreadyStarted(alice.clone())));
/// guests.start_child(guest("bob")).await.expect("there is room");
/// assert_eq!(guests.start_child(guest("carol")).await, Err(StartError::MaxChildren(2)));
///
/// guests.call(TerminateChild::new(alice)).await.expect("it is asked").expect("it ends");
/// assert_eq!(guests.call(CountChildren).await.expect("an answer").active, 1);
/// # root.stop().await;
/// # });
/// ```
pub struct DynamicSupervisor {
    pid: Pid,
    max_children: usize,
    /// Boxed: a hash table keeps up to half of its places free.
    children: HashMap<Arc<str>, Box<Child>>,
    /// Pid number to id, for every child with a process.
    ids: HashMap<u64, Arc<str>>,
    halt: Option<Halt>,
}

struct Child {
    spec: ChildSpec,
    state: State,
    /// Of the incarnation that started last.
    generation: u64,
    /// Failed starts since it last ran.
    failures: u32,
    restart: Option<Box<RestartFacts>>,
}

enum State {
    /// The first start is answered, a restart is not.
    Starting(Pid, Option<Reply<Result<Pid, StartError>>>),
    Running(Pid),
    Stopping(Pid, Vec<Reply<Result<(), ChildError>>>, Option<JoinHandle<()>>),
    /// Its restart failed and will be tried again.
    Restarting,
}

/// A restart that has not succeeded yet.
struct RestartFacts {
    reason: ExitReason,
    n: u32,
    down_since: Instant,
    at: SystemTime,
}

impl Child {
    fn pid(&self) -> Option<&Pid> {
        match &self.state {
            State::Starting(pid, _) | State::Running(pid) | State::Stopping(pid, ..) => Some(pid),
            State::Restarting => None,
        }
    }

    fn facts(&self) -> ChildFacts {
        ChildFacts::new(&self.spec.info, self.pid().cloned())
    }
}

impl DynamicSupervisor {
    pub(crate) fn new(spec: DynamicSpec, ctx: &mut Context<Self>) -> Self {
        let door = Door::Dynamic(ctx.myself());
        Office::open(ctx.pid(), Strategy::OneForOne, spec.intensity, door);
        DynamicSupervisor {
            pid: ctx.pid().clone(),
            max_children: spec.max_children,
            children: HashMap::new(),
            ids: HashMap::new(),
            halt: None,
        }
    }

    fn launch(&mut self, spec: &ChildSpec, generation: u64, ctx: &mut Context<Self>) -> Pid {
        let path = child_path(self.pid.path(), spec.id());
        let tree = self.pid.0.tree.clone();
        let pid = Pid::new(tree, path, spec.info.clone(), Some(self.pid.clone()), generation);
        if generation > 1 {
            self.pid.office().hide(spec.id());
        }
        self.ids.insert(pid.number(), spec.id().clone());
        spec.launch(pid.clone(), Parent::Dynamic(ctx.myself()));
        pid
    }

    fn refusal(&self, spec: &ChildSpec) -> Option<StartError> {
        if self.halt.is_some() {
            return Some(StartError::ShuttingDown);
        }
        if let Some(child) = self.children.get(spec.id()) {
            return Some(match child.pid() {
                Some(pid) => StartError::AlreadyStarted(pid.clone()),
                None => StartError::AlreadyPresent,
            });
        }
        if let Some(why) = contradiction(spec, AutoShutdown::Never) {
            return Some(StartError::BadSpec(why));
        }
        (self.children.len() >= self.max_children).then_some(StartError::MaxChildren(self.max_children))
    }

    fn started(&mut self, pid: &Pid) {
        let Some(child) = self
            .ids
            .get(&pid.number())
            .and_then(|id| self.children.get_mut(id))
        else {
            return;
        };
        let State::Starting(_, reply) = &mut child.state else {
            return;
        };
        let reply = reply.take();
        child.state = State::Running(pid.clone());
        child.generation = pid.generation();
        child.failures = 0;
        let restarted = child
            .restart
            .take()
            .map(|facts| facts.succeeded(child, self.pid.office().intensity, &self.pid));
        self.pid.0.tree.report(&Report::Progress(ProgressReport {
            at: SystemTime::now(),
            supervisor: self.pid.path().clone(),
            started: child.facts(),
            generation: child.generation,
            restarted,
            quiet: child.spec.info.restart == Restart::Temporary,
        }));
        if let Some(reply) = reply {
            reply.give(Ok(pid.clone()));
        }
    }

    fn failed(&mut self, pid: &Pid, failure: InitFailure, ctx: &mut Context<Self>) {
        let Some(id) = self.ids.remove(&pid.number()) else {
            return;
        };
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        let facts = child.facts();
        let error = match (&mut child.state, failure) {
            (State::Stopping(..), _) => return self.stopped(&id, None),
            (_, InitFailure::Ignore) => StartError::Ignored,
            (_, InitFailure::Failed(reason)) => {
                let cause = Cause::Exit(reason.clone());
                supervisor_report(&self.pid, ErrorContext::StartError, cause, facts, None);
                StartError::Init(reason)
            }
        };
        let reply = match &mut child.state {
            State::Starting(_, reply) => reply.take(),
            _ => None,
        };
        if child.restart.is_none() || error == StartError::Ignored {
            self.children.remove(&id);
            if let Some(reply) = reply {
                reply.give(Err(error));
            }
            return;
        }
        child.state = State::Restarting;
        self.pid
            .office()
            .show_restarting(&child.spec.info, child.generation);
        child.failures += 1;
        let pause = backoff(child.failures);
        if pause.is_zero() {
            let _ = ctx.myself().cast(TryAgainRestart(id));
        } else {
            ctx.run_later(pause, move |supervisor, ctx| supervisor.try_again(&id, ctx));
        }
    }

    fn exited(&mut self, pid: &Pid, reason: ExitReason, ctx: &mut Context<Self>) {
        let Some(id) = self.ids.remove(&pid.number()) else {
            return;
        };
        let Some(child) = self.children.get_mut(&id) else {
            return;
        };
        if matches!(child.state, State::Stopping(..)) {
            return self.stopped(&id, Some(reason));
        }
        let again = match child.spec.info.restart {
            Restart::Permanent => true,
            Restart::Transient => reason.is_abnormal(),
            Restart::Temporary => false,
        };
        let facts = child.facts();
        if reason.is_abnormal() {
            self.pid.office().count_crash();
        }
        if !again {
            if reason.is_abnormal() {
                supervisor_report(
                    &self.pid,
                    ErrorContext::ChildTerminated,
                    Cause::Exit(reason),
                    facts,
                    None,
                );
            }
            self.children.remove(&id);
            return;
        }
        child.state = State::Restarting;
        self.pid
            .office()
            .show_restarting(&child.spec.info, child.generation);
        let at = SystemTime::now();
        child.restart = Some(Box::new(RestartFacts {
            reason: reason.clone(),
            n: 0,
            down_since: now(),
            at,
        }));
        let intensity = self.pid.office().intensity;
        let verdict = self.pid.office().add_restart(now());
        let n = match verdict {
            Verdict::Restart(n) => n,
            Verdict::GiveUp => intensity.restarts.saturating_add(1),
        };
        let count = Some(RestartCount::new(n, intensity));
        supervisor_report(
            &self.pid,
            ErrorContext::ChildTerminated,
            Cause::Exit(reason),
            facts,
            count,
        );
        self.carry_out(&id, verdict, ctx);
    }

    fn try_again(&mut self, id: &Arc<str>, ctx: &mut Context<Self>) {
        let waits = self
            .children
            .get(id)
            .is_some_and(|child| matches!(child.state, State::Restarting));
        if self.halt.is_none() && waits {
            let verdict = self.pid.office().add_restart(now());
            self.carry_out(id, verdict, ctx);
        }
    }

    fn carry_out(&mut self, id: &Arc<str>, verdict: Verdict, ctx: &mut Context<Self>) {
        let Verdict::Restart(n) = verdict else {
            return self.give_up(id, ctx);
        };
        let Some(child) = self.children.get_mut(id) else {
            return;
        };
        if let Some(facts) = &mut child.restart {
            facts.n = n;
        }
        let (spec, generation) = (child.spec.clone(), child.generation + 1);
        let pid = self.launch(&spec, generation, ctx);
        if let Some(child) = self.children.get_mut(id) {
            child.state = State::Starting(pid, None);
        }
    }

    fn give_up(&mut self, id: &Arc<str>, ctx: &mut Context<Self>) {
        let Some(child) = self.children.remove(id) else {
            return;
        };
        self.pid.office().hide(id);
        let cause = Cause::ReachedMaxRestartIntensity;
        supervisor_report(&self.pid, ErrorContext::Shutdown, cause, child.facts(), None);
        if let Some(facts) = &child.restart {
            self.pid
                .0
                .tree
                .remember(facts.record(&child, &self.pid, RestartOutcome::GaveUp, 0));
        }
        self.begin_halt(ctx);
    }
}

impl RestartFacts {
    fn succeeded(&self, child: &Child, intensity: Intensity, supervisor: &Pid) -> Restarted {
        let downtime = now().saturating_duration_since(self.down_since);
        let downtime_us = u64::try_from(downtime.as_micros()).unwrap_or(u64::MAX);
        supervisor
            .0
            .tree
            .remember(self.record(child, supervisor, RestartOutcome::Restarted, downtime_us));
        let restart = RestartCount::new(self.n, intensity);
        Restarted {
            restart,
            downtime_us,
            children_restarted: Vec::new(),
        }
    }

    fn record(
        &self,
        child: &Child,
        supervisor: &Pid,
        outcome: RestartOutcome,
        downtime_us: u64,
    ) -> RestartRecord {
        RestartRecord {
            at: self.at,
            supervisor: supervisor.path().clone(),
            path: child_path(supervisor.path(), child.spec.id()),
            reason: self.reason.clone(),
            outcome,
            n: self.n,
            generation: child.generation,
            downtime_us,
            children_restarted: Vec::new(),
        }
    }
}

impl Actor for DynamicSupervisor {
    type Context = Context<Self>;

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        self.begin_halt(ctx);
        if self.children.is_empty() {
            Running::Stop
        } else {
            Running::Continue
        }
    }
}

impl Drop for DynamicSupervisor {
    fn drop(&mut self) {
        // Empty after an orderly stop. Torn or killed, it takes its children along (OTP: they are linked).
        for child in self.children.values() {
            if let Some(pid) = child.pid() {
                pid.exit(ExitReason::Killed);
            }
        }
    }
}

impl Handler<ChildEvent> for DynamicSupervisor {
    type Result = ();

    fn handle(&mut self, event: ChildEvent, ctx: &mut Context<Self>) {
        match event {
            ChildEvent::Started(pid) => self.started(&pid),
            ChildEvent::Failed(pid, failure) => self.failed(&pid, failure, ctx),
            ChildEvent::Exited(pid, reason) => self.exited(&pid, reason, ctx),
        }
        self.end_halt(ctx);
    }
}

/// To itself: a failed restart goes through the mailbox, so that what came meanwhile is not starved.
#[derive(Message)]
#[rtype(result = "()")]
struct TryAgainRestart(Arc<str>);

impl Handler<TryAgainRestart> for DynamicSupervisor {
    type Result = ();

    fn handle(&mut self, TryAgainRestart(id): TryAgainRestart, ctx: &mut Context<Self>) {
        self.try_again(&id, ctx);
    }
}

impl Handler<StartChild> for DynamicSupervisor {
    type Result = Answer<Result<Pid, StartError>>;

    fn handle(&mut self, StartChild(spec): StartChild, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        if let Some(refusal) = self.refusal(&spec) {
            reply.give(Err(refusal));
            return answer;
        }
        let pid = self.launch(&spec, 1, ctx);
        let state = State::Starting(pid, Some(reply));
        let child = Child {
            state,
            generation: 0,
            failures: 0,
            restart: None,
            spec,
        };
        self.children.insert(child.spec.id().clone(), Box::new(child));
        answer
    }
}

impl Handler<TerminateChild> for DynamicSupervisor {
    type Result = Answer<Result<(), ChildError>>;

    fn handle(&mut self, TerminateChild(key): TerminateChild, _: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = Reply::new();
        let id = match key {
            ChildKey::Id(id) => Some(id),
            ChildKey::Pid(pid) => self.ids.get(&pid.number()).cloned(),
        };
        match id.filter(|id| self.children.contains_key(id)) {
            Some(id) => self.terminate(&id, reply),
            None => reply.give(Err(ChildError::NotFound)),
        }
        answer
    }
}

impl Handler<WhichChildren> for DynamicSupervisor {
    type Result = Vec<ChildStatus>;

    fn handle(&mut self, _: WhichChildren, _: &mut Context<Self>) -> Self::Result {
        let status = |child: &Child| ChildStatus {
            id: child.spec.id().clone(),
            kind: child.spec.info.kind,
            state: match &child.state {
                State::Starting(pid, _) => ChildState::Starting(pid.clone()),
                State::Running(pid) => ChildState::Running(pid.clone()),
                State::Stopping(pid, ..) => ChildState::Stopping(pid.clone()),
                State::Restarting => ChildState::Restarting,
            },
        };
        self.children.values().map(|child| status(child)).collect()
    }
}

impl Handler<CountChildren> for DynamicSupervisor {
    type Result = ChildCounts;

    fn handle(&mut self, _: CountChildren, _: &mut Context<Self>) -> Self::Result {
        let supervisors = self
            .children
            .values()
            .filter(|child| child.spec.info.kind != ProcessKind::Worker)
            .count();
        let specs = self.children.len();
        ChildCounts {
            specs,
            active: self.ids.len(),
            supervisors,
            workers: specs - supervisors,
        }
    }
}
