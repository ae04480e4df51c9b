//! Stopping: one child by its shutdown protocol, and all of them in reverse start order.

use super::job::{Then, Waiting, Work};
use super::{Phase, State, Supervisor, now, supervisor_report};
use crate::context::Context;
use crate::error::ChildError;
use crate::error::StartError;
use crate::exit::ExitReason;
use crate::pid::Pid;
use crate::plan;
use crate::report::{Cause, ErrorContext};
use crate::spec::{Restart, Shutdown};
use actix::AsyncContext;
use std::collections::VecDeque;

/// Whether a child that was told to stop ended as told (OTP `shutdown/1`).
pub(crate) fn ended_as_told(reason: &ExitReason, shutdown: Shutdown, restart: Restart) -> bool {
    match reason {
        ExitReason::Shutdown => shutdown != Shutdown::BrutalKill || restart != Restart::Permanent,
        ExitReason::Killed => shutdown == Shutdown::BrutalKill,
        ExitReason::Normal => restart != Restart::Permanent,
        _ => false,
    }
}

impl Supervisor {
    /// Asks (or kills) and waits for the exit; a time-out kills.
    pub(super) fn stop_child(&mut self, id: &str, ctx: &mut Context<Self>) {
        let Some(at) = self.find(id) else { return };
        let child = &mut self.children[at];
        match &child.state {
            State::Stopped => {}
            State::Restarting(_) => child.state = State::Stopped,
            State::Ended(_, reason) => {
                let reason = reason.clone();
                self.child_stopped(at, Some(reason), ctx);
            }
            State::Starting(pid) | State::Running(pid) => {
                let (pid, shutdown) = (pid.clone(), child.spec.info.shutdown);
                self.ask_to_stop(pid, shutdown, ctx);
            }
        }
    }

    fn ask_to_stop(&mut self, pid: Pid, shutdown: Shutdown, ctx: &mut Context<Self>) {
        let timer = match shutdown {
            Shutdown::BrutalKill => {
                pid.exit(ExitReason::Killed);
                None
            }
            Shutdown::Infinity => {
                pid.exit(ExitReason::Shutdown);
                None
            }
            Shutdown::Timeout(time) => {
                pid.exit(ExitReason::Shutdown);
                let naughty = pid.clone();
                Some(ctx.run_later(time, move |_, _| naughty.exit(ExitReason::Killed)))
            }
        };
        self.waiting = Some(Waiting::Stop(pid, timer));
    }

    /// The child at `at`, which was told to stop, has ended. No reason: its `init` was interrupted.
    pub(super) fn child_stopped(&mut self, at: usize, reason: Option<ExitReason>, ctx: &mut Context<Self>) {
        if let Some(Waiting::Stop(_, Some(timer))) = self.waiting.take() {
            ctx.cancel_future(timer);
        }
        let child = &mut self.children[at];
        let (info, facts) = (&child.spec.info, child.facts());
        let unexpected = reason.filter(|reason| !ended_as_told(reason, info.shutdown, info.restart));
        child.state = State::Stopped;
        child.down_since.get_or_insert_with(now);
        if let Some(reason) = unexpected {
            supervisor_report(
                &self.pid,
                ErrorContext::ShutdownError,
                Cause::Exit(reason),
                facts,
                None,
            );
        }
    }

    /// Stops all children in reverse start order, then exits with `reason`. What was being done is given up.
    pub(super) fn halt(&mut self, reason: ExitReason, ctx: &mut Context<Self>) {
        if self.phase != Phase::Up {
            return;
        }
        self.phase = Phase::Halting;
        self.queue.drain(..).for_each(|job| job.refuse());
        match self.work.take().map(|work| work.then) {
            Some(Then::Reply(_, reply)) => reply.give(Err(StartError::ShuttingDown)),
            Some(Then::ReplyRestart(_, reply)) => reply.give(Err(StartError::ShuttingDown.into())),
            Some(Then::Terminated(_, reply)) => reply.give(Err(ChildError::ShuttingDown)),
            Some(Then::Ready | Then::Restarted(_) | Then::Exit(_)) | None => {}
        }
        // A stop that is under way stays the first step; a start is interrupted in its turn.
        let under_way = self.waiting.as_ref().and_then(Waiting::stopping).cloned();
        if under_way.is_none() {
            self.waiting = None;
        }
        let order = plan::halt(&self.siblings());
        let stop = order
            .into_iter()
            .map(|at| &self.children[at])
            .filter(|child| under_way.is_none() || child.pid() != under_way.as_ref())
            .map(|child| child.id().clone())
            .collect();
        let then = Then::Exit(reason);
        self.work = Some(Work {
            stop,
            forget: Vec::new(),
            start: VecDeque::new(),
            then,
        });
        self.advance(ctx);
    }

    pub(super) fn finish(&mut self, reason: ExitReason, ctx: &mut Context<Self>) {
        self.phase = Phase::Empty;
        ctx.exit(reason);
    }
}
