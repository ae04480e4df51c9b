//! What a supervisor does, step by step: the work in hand, and how each job becomes work.

use super::job::{Job, RestartFacts, Then, Waiting, Work};
use super::{Child, State, Supervisor, TryAgainRestart, backoff, contradiction, now, supervisor_report};
use crate::context::{Context, Readiness};
use crate::error::{ChildError, InitFailure, StartError};
use crate::exit::ExitReason;
use crate::intensity::Verdict;
use crate::pid::Pid;
use crate::plan;
use crate::process::Parent;
use crate::report::{Cause, ErrorContext, ProgressReport, Report, RestartCount};
use crate::request::{ChildKey, Reply, RestartError};
use crate::spec::{AutoShutdown, ChildSpec, Restart, child_path};
use crate::tree::{ProcessState, RestartOutcome};
use actix::AsyncContext;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

impl Supervisor {
    /// Goes on until a step takes time or nothing is left to do, and shows how things stand.
    pub(super) fn advance(&mut self, ctx: &mut Context<Self>) {
        self.go_on(ctx);
        self.show();
    }

    fn show(&self) {
        let to_start = |id: &Arc<str>| self.work.as_ref().is_some_and(|work| work.start.contains(id));
        let absent = self.children.iter().filter_map(|child| {
            let state = match &child.state {
                State::Starting(_) | State::Running(_) => return None,
                State::Stopped if to_start(child.id()) => ProcessState::Starting,
                State::Stopped => ProcessState::Stopped,
                State::Ended(..) | State::Restarting(_) => ProcessState::Restarting,
            };
            Some((child.spec.info.clone(), state, child.generation))
        });
        self.pid.office().show(absent);
    }

    fn go_on(&mut self, ctx: &mut Context<Self>) {
        while self.waiting.is_none() {
            let Some(work) = &mut self.work else {
                let Some(job) = self.queue.pop_front() else { return };
                self.begin(job, ctx);
                continue;
            };
            if let Some(id) = work.stop.pop_front() {
                self.stop_child(&id, ctx);
            } else if let Some(id) = work.forget.pop() {
                self.children.retain(|child| *child.id() != id);
            } else if let Some(id) = work.start.pop_front() {
                self.start_child(&id, ctx);
            } else if let Some(work) = self.work.take() {
                self.conclude(work.then, ctx);
            }
        }
    }

    fn begin(&mut self, job: Job, ctx: &mut Context<Self>) {
        match job {
            Job::Boot => self.start_all(),
            Job::Ended(pid) => self.deal_with_exit(&pid, ctx),
            Job::TryAgain(id) => self.try_again(&id, ctx),
            Job::Start(spec, reply) => self.begin_start(spec, reply),
            Job::Restart(id, reply) => self.begin_restart(id, reply),
            Job::Terminate(key, reply) => self.begin_terminate(&key, reply),
            Job::Delete(id, reply) => reply.give(self.delete(&id)),
        }
    }

    fn start_all(&mut self) {
        let start = self.children.iter().map(|child| child.id().clone()).collect();
        self.work = Some(Work {
            stop: VecDeque::new(),
            forget: Vec::new(),
            start,
            then: Then::Ready,
        });
    }

    fn work_start(&mut self, id: Arc<str>, then: Then) {
        let start = VecDeque::from([id]);
        self.work = Some(Work {
            stop: VecDeque::new(),
            forget: Vec::new(),
            start,
            then,
        });
    }

    fn begin_start(&mut self, spec: ChildSpec, reply: Reply<Result<Pid, StartError>>) {
        let id = spec.id().clone();
        if let Some(at) = self.find(&id) {
            let known = match &self.children[at].state {
                State::Running(pid) => StartError::AlreadyStarted(pid.clone()),
                _ => StartError::AlreadyPresent,
            };
            return reply.give(Err(known));
        }
        if let Some(why) = contradiction(&spec, self.auto_shutdown) {
            return reply.give(Err(StartError::BadSpec(why)));
        }
        self.adopt(spec);
        self.work_start(id.clone(), Then::Reply(id, reply));
    }

    fn begin_restart(&mut self, id: Arc<str>, reply: Reply<Result<Pid, RestartError>>) {
        match self.find(&id).map(|at| &self.children[at].state) {
            None => reply.give(Err(ChildError::NotFound.into())),
            Some(State::Stopped) => self.work_start(id.clone(), Then::ReplyRestart(id, reply)),
            Some(State::Restarting(_) | State::Ended(..)) => reply.give(Err(ChildError::Restarting.into())),
            Some(State::Starting(_) | State::Running(_)) => reply.give(Err(ChildError::Running.into())),
        }
    }

    fn begin_terminate(&mut self, key: &ChildKey, reply: Reply<Result<(), ChildError>>) {
        let Some(at) = key.find_in(self) else {
            return reply.give(Err(ChildError::NotFound));
        };
        let id = self.children[at].id().clone();
        let (stop, then) = (VecDeque::from([id.clone()]), Then::Terminated(id, reply));
        self.work = Some(Work {
            stop,
            forget: Vec::new(),
            start: VecDeque::new(),
            then,
        });
    }

    fn delete(&mut self, id: &str) -> Result<(), ChildError> {
        let at = self.find(id).ok_or(ChildError::NotFound)?;
        match self.children[at].state {
            State::Stopped => drop(self.children.remove(at)),
            State::Restarting(_) | State::Ended(..) => return Err(ChildError::Restarting),
            State::Starting(_) | State::Running(_) => return Err(ChildError::Running),
        }
        Ok(())
    }

    fn start_child(&mut self, id: &str, ctx: &mut Context<Self>) {
        let Some(at) = self.find(id) else { return };
        let child = &mut self.children[at];
        let (path, info) = (child_path(self.pid.path(), id), child.spec.info.clone());
        let tree = self.pid.0.tree.clone();
        let pid = Pid::new(tree, path, info, Some(self.pid.clone()), child.generation + 1);
        child.state = State::Starting(pid.clone());
        self.waiting = Some(Waiting::Start(pid.clone()));
        child.spec.launch(pid, Parent::Supervisor(ctx.myself()));
    }

    pub(super) fn child_started(&mut self, pid: &Pid) {
        let Some(at) = self.find_pid(pid) else { return };
        let child = &mut self.children[at];
        child.state = State::Running(pid.clone());
        child.generation = pid.generation();
        child.failures = 0;
        let down_since = child.down_since.take();
        if !matches!(&self.waiting, Some(Waiting::Start(starting)) if starting == pid) {
            return; // It is being stopped while it starts.
        }
        self.waiting = None;
        let child = &self.children[at];
        let restarted = match self.work.as_ref().map(|work| &work.then) {
            Some(Then::Restarted(facts)) => Some(facts.of(child, down_since, &self.pid)),
            _ => None,
        };
        self.pid.0.tree.report(&Report::Progress(ProgressReport {
            at: SystemTime::now(),
            supervisor: self.pid.path().clone(),
            started: child.facts(),
            generation: child.generation,
            restarted,
            quiet: false,
        }));
    }

    pub(super) fn child_failed(&mut self, pid: &Pid, failure: InitFailure, ctx: &mut Context<Self>) {
        let Some(at) = self.find_pid(pid) else { return };
        if self.waiting.as_ref().and_then(Waiting::stopping) == Some(pid) {
            // Its `init` was interrupted by us.
            return self.child_stopped(at, None, ctx);
        }
        self.waiting = None;
        let facts = self.children[at].facts();
        self.children[at].state = State::Stopped;
        let reason = match failure {
            InitFailure::Ignore => return self.child_ignored(at),
            InitFailure::Failed(reason) => reason,
        };
        supervisor_report(
            &self.pid,
            ErrorContext::StartError,
            Cause::Exit(reason.clone()),
            facts,
            None,
        );
        let id = self.children[at].id().clone();
        match self.work.take().map(|work| work.then) {
            Some(Then::Ready) => {
                let why = format!("failed to start child {id}: {reason}");
                self.halt(ExitReason::Error(why), ctx);
            }
            Some(Then::Restarted(facts)) => self.restart_failed(at, reason, &facts, ctx),
            Some(Then::Reply(_, reply)) => {
                self.children.remove(at);
                reply.give(Err(StartError::Init(reason)));
            }
            Some(Then::ReplyRestart(_, reply)) => reply.give(Err(StartError::Init(reason).into())),
            Some(Then::Terminated(..) | Then::Exit(_)) | None => {}
        }
    }

    /// OTP `ignore`: no failure; the spec is kept, without a process, unless the child is temporary.
    fn child_ignored(&mut self, at: usize) {
        if self.children[at].spec.info.restart == Restart::Temporary {
            self.children.remove(at);
        }
        match &mut self.work {
            Some(Work {
                then: Then::Reply(..) | Then::ReplyRestart(..),
                ..
            }) => {}
            _ => return,
        }
        match self.work.take().map(|work| work.then) {
            Some(Then::Reply(_, reply)) => reply.give(Err(StartError::Ignored)),
            Some(Then::ReplyRestart(_, reply)) => reply.give(Err(StartError::Ignored.into())),
            _ => {}
        }
    }

    fn restart_failed(
        &mut self,
        at: usize,
        reason: ExitReason,
        facts: &RestartFacts,
        ctx: &mut Context<Self>,
    ) {
        let child = &mut self.children[at];
        child.state = State::Restarting(reason.clone());
        child.failures += 1;
        self.pid
            .0
            .tree
            .remember(facts.record(child, &self.pid, RestartOutcome::StartFailed, reason, 0));
        let (id, pause) = (child.id().clone(), backoff(child.failures));
        if pause.is_zero() {
            let _ = ctx.myself().cast(TryAgainRestart(id));
        } else {
            ctx.run_later(pause, move |supervisor, ctx| {
                supervisor.enqueue(Job::TryAgain(id), ctx)
            });
        }
    }

    fn try_again(&mut self, id: &str, ctx: &mut Context<Self>) {
        let Some(at) = self.find(id) else { return };
        // Otherwise it was terminated meanwhile, or restarted with a sibling.
        let State::Restarting(reason) = &self.children[at].state else {
            return;
        };
        let reason = reason.clone();
        match self.pid.office().add_restart(now()) {
            Verdict::Restart(n) => self.plan_restart(at, reason, n),
            Verdict::GiveUp => self.give_up(at, reason, ctx),
        }
    }

    pub(super) fn child_exited(&mut self, pid: Pid, reason: ExitReason, ctx: &mut Context<Self>) {
        let Some(at) = self.find_pid(&pid) else { return };
        if self.waiting.as_ref().and_then(Waiting::stopping) == Some(&pid) {
            return self.child_stopped(at, Some(reason), ctx);
        }
        if reason.is_abnormal() {
            self.pid.office().count_crash();
        }
        self.children[at].state = State::Ended(pid.clone(), reason);
        self.children[at].down_since = Some(now());
        self.queue.push_back(Job::Ended(pid));
    }

    fn deal_with_exit(&mut self, pid: &Pid, ctx: &mut Context<Self>) {
        let Some(at) = self.find_pid(pid) else { return };
        let State::Ended(_, reason) = &self.children[at].state else {
            return;
        };
        let (reason, facts) = (reason.clone(), self.children[at].facts());
        let restart = self.children[at].spec.info.restart;
        let again = match restart {
            Restart::Permanent => true,
            Restart::Transient => reason.is_abnormal(),
            Restart::Temporary => false,
        };
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
            return self.child_is_done(at, ctx);
        }
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
            Cause::Exit(reason.clone()),
            facts,
            count,
        );
        match verdict {
            Verdict::Restart(n) => self.plan_restart(at, reason, n),
            Verdict::GiveUp => self.give_up(at, reason, ctx),
        }
    }

    /// A child ended by itself and stays down.
    fn child_is_done(&mut self, at: usize, ctx: &mut Context<Self>) {
        let info = &self.children[at].spec.info;
        let (significant, temporary) = (info.significant, info.restart == Restart::Temporary);
        self.children[at].state = State::Stopped;
        if temporary {
            self.children.remove(at);
        }
        let others_left = || {
            self.children
                .iter()
                .any(|child| child.spec.info.significant && !matches!(child.state, State::Stopped))
        };
        let shut_down = significant
            && match self.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !others_left(),
            };
        if shut_down {
            self.halt(ExitReason::Shutdown, ctx);
        }
    }

    fn plan_restart(&mut self, at: usize, reason: ExitReason, n: u32) {
        self.children[at].state = State::Stopped;
        let plan = plan::restart(self.strategy, &self.siblings(), at);
        let ids = |places: &[usize]| {
            places
                .iter()
                .map(|&at| self.children[at].id().clone())
                .collect::<Vec<_>>()
        };
        let (stop, forget, start) = (ids(&plan.stop), ids(&plan.drop), ids(&plan.start));
        let failed = self.children[at].id().clone();
        let others = start.iter().filter(|id| **id != failed).cloned().collect();
        let count = RestartCount::new(n, self.pid.office().intensity);
        let facts = RestartFacts {
            failed,
            reason,
            count,
            others,
            at: SystemTime::now(),
        };
        let then = Then::Restarted(facts);
        self.work = Some(Work {
            stop: stop.into(),
            forget,
            start: start.into(),
            then,
        });
    }

    fn give_up(&mut self, at: usize, reason: ExitReason, ctx: &mut Context<Self>) {
        let (child, intensity) = (&self.children[at], self.pid.office().intensity);
        // One more than it may be: what the supervisor report of this exit says too.
        let count = RestartCount::new(intensity.restarts.saturating_add(1), intensity);
        let cause = Cause::ReachedMaxRestartIntensity;
        supervisor_report(&self.pid, ErrorContext::Shutdown, cause, child.facts(), None);
        let failed = child.id().clone();
        let facts = RestartFacts {
            failed,
            reason: reason.clone(),
            count,
            others: Vec::new(),
            at: SystemTime::now(),
        };
        self.pid
            .0
            .tree
            .remember(facts.record(child, &self.pid, RestartOutcome::GaveUp, reason, 0));
        self.children.remove(at);
        self.halt(ExitReason::Shutdown, ctx);
    }

    fn conclude(&mut self, then: Then, ctx: &mut Context<Self>) {
        let running = |id: &str| match self.find(id).map(|at| &self.children[at].state) {
            Some(State::Running(pid) | State::Ended(pid, _)) => Ok(pid.clone()),
            _ => Err(StartError::Init(ExitReason::Killed)),
        };
        match then {
            Then::Ready => ctx.set_readiness(Readiness::Ready),
            Then::Restarted(_) => {}
            Then::Reply(id, reply) => reply.give(running(&id)),
            Then::ReplyRestart(id, reply) => reply.give(running(&id).map_err(RestartError::Start)),
            Then::Terminated(id, reply) => {
                if let Some(at) = self.find(&id)
                    && self.children[at].spec.info.restart == Restart::Temporary
                {
                    self.children.remove(at);
                }
                reply.give(Ok(()));
            }
            Then::Exit(reason) => self.finish(reason, ctx),
        }
    }

    pub(super) fn siblings(&self) -> Vec<plan::Sibling> {
        let sibling = |child: &Child| plan::Sibling {
            restart: child.spec.info.restart,
            running: child.pid().is_some() || matches!(child.state, State::Restarting(_)),
        };
        self.children.iter().map(sibling).collect()
    }
}
