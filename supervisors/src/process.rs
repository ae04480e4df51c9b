//! The future that drives one actor as an OTP process.
//!
//! It catches a panic in every poll, drops the actor outside of the unwinding, obeys exit signals, and
//! reports the exit exactly once: also when the struct is torn, and also when its arbiter ends under it.

use crate::address::Ref;
use crate::context::Context;
use crate::dynamic::DynamicSupervisor;
use crate::error::{InitError, InitFailure};
use crate::exit::ExitReason;
use crate::name::Name;
use crate::panic::guard;
use crate::pid::{CRASH, KILL, LINKED, Pid, SHUTDOWN};
use crate::report::{CrashReport, Report};
use crate::supervisor::Supervisor;
use crate::watchdog::Turn;
use actix::dev::{ContextFut, Mailbox};
use actix::{Actor, ActorContext, Message};
use futures_util::future::LocalBoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Sleep;

/// How long a supervisor that died waits for its children, already killed, before its own exit is reported.
/// Only a child that is stuck inside a handler takes that long.
const BURIAL_MAX: Duration = Duration::from_secs(5);

/// What a supervisor hears from its children.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum ChildEvent {
    Started(Pid),
    /// `init` (and `started()`) did not succeed.
    Failed(Pid, InitFailure),
    Exited(Pid, ExitReason),
}

#[derive(Clone)]
pub(crate) enum Parent {
    Supervisor(Ref<Supervisor>),
    Dynamic(Ref<DynamicSupervisor>),
    Root(UnboundedSender<ChildEvent>),
}

impl Parent {
    fn tell(&self, event: ChildEvent) {
        // A parent that is gone has killed its children; nobody is left to be told.
        match self {
            Parent::Supervisor(parent) => drop(parent.cast(event)),
            Parent::Dynamic(parent) => drop(parent.cast(event)),
            Parent::Root(parent) => drop(parent.send(event)),
        }
    }
}

/// Owes the parent exactly one `Started` or `Failed`, and after a `Started` exactly one `Exited`.
pub(crate) struct Lifeline {
    pid: Pid,
    parent: Parent,
    started: bool,
    over: bool,
    /// It ends because of a link: the crash is somebody else's, and has been reported.
    by_link: bool,
}

impl Lifeline {
    pub(crate) fn new(pid: Pid, parent: Parent) -> Self {
        Lifeline {
            pid,
            parent,
            started: false,
            over: false,
            by_link: false,
        }
    }

    fn start(&mut self) {
        self.started = true;
        self.pid.set_started();
        self.parent.tell(ChildEvent::Started(self.pid.clone()));
    }

    fn end(&mut self, end: InitFailure, mailbox_len: usize) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let reason = match &end {
            InitFailure::Ignore => ExitReason::Normal,
            InitFailure::Failed(reason) => reason.clone(),
        };
        let crashed = match &reason {
            _ if self.by_link => false,
            ExitReason::Panic(_) => true,
            // A failed init is the supervisor's report alone, as in OTP.
            ExitReason::Error(_) => self.started,
            _ => false,
        };
        if crashed {
            self.pid
                .0
                .tree
                .report(&Report::Crash(self.crash_report(&reason, mailbox_len)));
        }
        self.pid.bury(&reason);
        self.parent.tell(match self.started {
            true => ChildEvent::Exited(self.pid.clone(), reason),
            false => ChildEvent::Failed(self.pid.clone(), end),
        });
    }

    fn crash_report(&self, reason: &ExitReason, mailbox_len: usize) -> CrashReport {
        let mut ancestors = Vec::new();
        let mut next = self.pid.0.parent.as_ref();
        while let Some(ancestor) = next {
            ancestors.push(ancestor.path().clone());
            next = ancestor.0.parent.as_ref();
        }
        CrashReport {
            at: SystemTime::now(),
            path: self.pid.path().clone(),
            pid: self.pid.clone(),
            actor: self.pid.0.info.actor,
            generation: self.pid.generation(),
            reason: reason.clone(),
            mailbox_len,
            ancestors,
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.end(InitFailure::Failed(ExitReason::Killed), 0);
    }
}

type InitNow<A> = dyn Fn(&mut Context<A>) -> Result<A, InitError> + Send + Sync;
type InitLater<A> = dyn Fn() -> LocalBoxFuture<'static, Result<A, InitError>> + Send + Sync;

/// How a child's first state is made.
pub(crate) enum Init<A: Actor<Context = Context<A>>> {
    Now(Arc<InitNow<A>>),
    Later(Arc<InitLater<A>>),
}

impl<A: Actor<Context = Context<A>>> Clone for Init<A> {
    fn clone(&self) -> Self {
        match self {
            Init::Now(init) => Init::Now(init.clone()),
            Init::Later(init) => Init::Later(init.clone()),
        }
    }
}

// The large variant is the one that nearly always is: a box would cost every process one more allocation.
#[allow(clippy::large_enum_variant)]
enum Stage<A: Actor<Context = Context<A>>> {
    Unborn(Init<A>),
    Initialising(LocalBoxFuture<'static, Result<A, InitError>>),
    Running(ContextFut<A, Context<A>>),
    /// A dead supervisor, waiting for the children that it killed.
    Mourning(ExitReason, Pin<Box<Sleep>>),
    Over,
}

/// One process, from `init` to its report.
pub(crate) struct Process<A: Actor<Context = Context<A>>> {
    pid: Pid,
    stage: Stage<A>,
    name: Option<Name<A>>,
    lifeline: Lifeline,
    /// The signals that have been obeyed.
    seen: u8,
    bound: bool,
    mailbox_len: usize,
}

impl<A: Actor<Context = Context<A>>> Process<A> {
    pub(crate) fn new(lifeline: Lifeline, init: Init<A>, name: Option<Name<A>>) -> Self {
        let pid = lifeline.pid.clone();
        Process {
            pid,
            stage: Stage::Unborn(init),
            name,
            lifeline,
            seen: 0,
            bound: false,
            mailbox_len: 0,
        }
    }

    fn give_birth(&mut self, init: Init<A>) {
        match init {
            Init::Now(init) => {
                let (mut ctx, mailbox) = Context::new(self.pid.clone());
                match guard(|| init(&mut ctx)) {
                    Ok(Ok(actor)) => self.run(ctx, mailbox, actor),
                    Ok(Err(InitError(failure))) => self.fail(failure),
                    Err(panic) => self.fail(InitFailure::Failed(ExitReason::Panic(panic))),
                }
            }
            Init::Later(init) => match guard(|| init()) {
                Ok(future) => self.stage = Stage::Initialising(future),
                Err(panic) => self.fail(InitFailure::Failed(ExitReason::Panic(panic))),
            },
        }
    }

    fn run(&mut self, ctx: Context<A>, mailbox: Mailbox<A>, actor: A) {
        if let Some(name) = &self.name {
            name.set(ctx.myself());
        }
        self.stage = Stage::Running(ctx.into_future(actor, mailbox));
    }

    fn fail(&mut self, failure: InitFailure) {
        self.stage = Stage::Over;
        self.end(failure);
    }

    /// The process no longer runs: drops what it was, then reports, unless children of it are still alive.
    fn die(&mut self, reason: ExitReason, torn: bool) {
        let reason = self.drop_stage(torn).unwrap_or(reason);
        if self.pid.live_children() > 0 {
            self.stage = Stage::Mourning(reason, Box::pin(tokio::time::sleep(BURIAL_MAX)));
        } else {
            self.end(InitFailure::Failed(reason));
        }
    }

    /// Drops actor, context and mailbox outside of any unwinding. A panic in there is the exit reason, unless
    /// there was one already.
    fn drop_stage(&mut self, torn: bool) -> Option<ExitReason> {
        self.mailbox_len = self.pid.mailbox_len();
        if let Some(name) = &self.name {
            name.clear(&self.pid);
        }
        let mut stage = std::mem::replace(&mut self.stage, Stage::Over);
        if let Stage::Running(future) = &mut stage {
            // Without this the future would call `stopping()` and `stopped()` on what is torn or killed.
            future.ctx().terminate();
        }
        let dropped = guard(move || drop(stage));
        dropped.err().filter(|_| !torn).map(ExitReason::Panic)
    }

    fn end(&mut self, end: InitFailure) {
        if let Some(name) = &self.name {
            name.clear(&self.pid);
        }
        self.lifeline.end(end, self.mailbox_len);
    }

    /// Obeys signals that are new.
    fn obey(&mut self, signals: u8) {
        self.seen = signals;
        if matches!(self.stage, Stage::Mourning(..)) {
            return;
        }
        if signals & (KILL | LINKED) != 0 {
            return self.be_killed(signals);
        }
        match &mut self.stage {
            Stage::Running(future) => future.ctx().stop(),
            // Nothing has been built yet that would have to be taken down in order.
            _ => self.die(ExitReason::Shutdown, false),
        }
    }

    /// Ends without a callback: by a kill, or because a linked process has ended.
    fn be_killed(&mut self, signals: u8) {
        if signals & KILL != 0 {
            return self.die(ExitReason::Killed, false);
        }
        self.lifeline.by_link = true;
        let reason = self.pid.take_linked_exit();
        self.die(reason, false);
    }

    fn poll_init(&mut self, task: &mut Task<'_>) {
        if let Stage::Unborn(init) = &self.stage {
            let init = init.clone();
            self.give_birth(init);
        }
        let Stage::Initialising(future) = &mut self.stage else {
            return;
        };
        match guard(|| future.as_mut().poll(task)) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(Ok(actor))) => {
                let (ctx, mailbox) = Context::new(self.pid.clone());
                self.run(ctx, mailbox, actor);
            }
            Ok(Poll::Ready(Err(InitError(failure)))) => self.fail(failure),
            Err(panic) => self.die(ExitReason::Panic(panic), true),
        }
    }

    fn poll_running(&mut self, task: &mut Task<'_>) {
        let Stage::Running(future) = &mut self.stage else {
            return;
        };
        let pid = &self.pid;
        let polled = guard(|| {
            if pid.signals() & CRASH != 0 {
                pid.suffer();
            }
            Pin::new(&mut *future).poll(task)
        });
        let over = match polled {
            Ok(over) => over.is_ready(),
            Err(panic) => return self.die(ExitReason::Panic(panic), true),
        };
        let signals = pid.signals();
        if signals & (KILL | LINKED) != 0 {
            return self.be_killed(signals);
        }
        if !self.lifeline.started && future.ctx().is_ready() {
            self.lifeline.start();
        }
        if over {
            let reason = match future.ctx().take_exit() {
                Some(reason) => reason,
                None if self.seen & SHUTDOWN != 0 => ExitReason::Shutdown,
                None => ExitReason::Normal,
            };
            self.die(reason, false);
        }
    }

    fn poll_mourning(&mut self, task: &mut Task<'_>) {
        let Stage::Mourning(reason, limit) = &mut self.stage else {
            return;
        };
        if self.pid.live_children() == 0 || limit.as_mut().poll(task).is_ready() {
            let reason = reason.clone();
            self.stage = Stage::Over;
            self.end(InitFailure::Failed(reason));
        }
    }
}

impl<A: Actor<Context = Context<A>>> Future for Process<A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        let this = self.get_mut();
        let _turn = Turn::of(this.pid.number());
        if !this.bound {
            this.pid.bind(task.waker());
            this.bound = true;
        }
        let signals = this.pid.signals() & (SHUTDOWN | KILL | LINKED);
        if signals != this.seen {
            this.obey(signals);
        }
        if matches!(this.stage, Stage::Unborn(_) | Stage::Initialising(_)) {
            this.poll_init(task);
        }
        this.poll_running(task);
        this.poll_mourning(task);
        match this.stage {
            Stage::Over => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Process<A> {
    fn drop(&mut self) {
        if self.lifeline.over {
            return;
        }
        // The arbiter ended under us; there is no time to mourn.
        let reason = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Mourning(reason, _) => reason,
            stage => {
                self.stage = stage;
                self.drop_stage(true);
                ExitReason::Killed
            }
        };
        self.end(InitFailure::Failed(reason));
    }
}
