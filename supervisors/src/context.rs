//! The execution context of a process: actix's, with an identity, exit reasons, monitors and a counted
//! mailbox.

use crate::address::{Door, Ref};
use crate::exit::{Down, ExitReason, MonitorRef};
use crate::pid::{KILL, LINKED, Pid};
use actix::dev::channel::channel;
use actix::dev::{
    AsyncContextParts, ContextFut, ContextParts, Envelope, EnvelopeProxy, Mailbox, MessageResponse,
    OneshotSender, ToEnvelope,
};
use actix::{
    Actor, ActorContext, ActorFuture, ActorState, Addr, AsyncContext, Handler, Message, SpawnHandle,
    WrapFuture,
};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an actor is given to act with. `type Context = supervisors::Context<Self>` makes it an OTP process.
///
/// actix's own methods come with `use actix::{ActorContext, AsyncContext}`: `stop`, `spawn`, `wait`,
/// `run_later`, `run_interval`, `notify`, …
pub struct Context<A: Actor<Context = Context<A>>> {
    parts: ContextParts<A>,
    myself: Ref<A>,
    /// Boxed because it is nearly always absent, and there may be 100,000 contexts.
    exit: Option<Box<ExitReason>>,
    monitors: BTreeMap<MonitorRef, Pid>,
    readiness: Readiness,
}

/// When the supervisor is told that a child has started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// After the first poll, so after `started()`.
    Ready,
    /// Not yet: a supervisor is ready when its children are.
    Deferred,
}

impl<A: Actor<Context = Context<A>>> Context<A> {
    pub(crate) fn new(pid: Pid) -> (Self, Mailbox<A>) {
        // Capacity 0 is actix's word for unbounded: depth is counted in `Pid`, and the socket is the valve.
        let (sender, receiver) = channel(0);
        let mailbox = Mailbox::new(receiver);
        let context = Context {
            parts: ContextParts::new(mailbox.sender_producer()),
            // Held for the whole life: actix would end an actor to which no address is left.
            myself: Ref(Arc::new(Door { sender, pid })),
            exit: None,
            monitors: BTreeMap::new(),
            readiness: Readiness::Ready,
        };
        (context, mailbox)
    }

    pub(crate) fn into_future(self, actor: A, mailbox: Mailbox<A>) -> ContextFut<A, Self> {
        ContextFut::new(self, actor, mailbox)
    }

    /// This process.
    pub fn pid(&self) -> &Pid {
        self.myself.pid()
    }

    /// A reference to this process, to be given to others.
    pub fn myself(&self) -> Ref<A> {
        self.myself.clone()
    }

    /// Stops with a reason (OTP `{stop, Reason, State}`); `ctx.stop()` is `exit(ExitReason::Normal)`.
    /// `stopping()` and `stopped()` run. The first reason stands.
    pub fn exit(&mut self, reason: ExitReason) {
        self.exit.get_or_insert_with(|| Box::new(reason));
        self.parts.stop();
    }

    /// Sends one [`Down`] to this process when `pid` ends; at once, with `NoProc`, if it has ended already.
    pub fn monitor(&mut self, pid: &Pid) -> MonitorRef
    where
        A: Handler<Down>,
    {
        let myself = self.myself();
        let notice = Box::new(move |down| drop(myself.cast(down)));
        let monitor = pid.watch(self.pid().number(), notice);
        self.monitors.insert(monitor, pid.clone());
        monitor
    }

    /// Gives a monitor up. No [`Down`] of it is handled afterwards (OTP `demonitor(Ref, [flush])`).
    pub fn demonitor(&mut self, monitor: MonitorRef) {
        if let Some(pid) = self.monitors.remove(&monitor) {
            pid.unwatch(monitor);
        }
    }

    /// Ties this process and `pid` together (OTP `link/1`): when one of them ends with any reason but
    /// `Normal`, the other ends at once with the same reason, without `stopping()` and `stopped()`. Linking
    /// twice is linking once. If `pid` has ended already, this process ends with `NoProc`.
    ///
    /// Whoever wants to hear of an end instead of sharing it uses [`Context::monitor`] (OTP: traps exits).
    /// Supervisors are not ended by links.
    pub fn link(&mut self, pid: &Pid) {
        self.pid().link(pid);
    }

    /// Unties both processes. An exit signal that is already on its way still arrives.
    pub fn unlink(&mut self, pid: &Pid) {
        self.pid().unlink(pid);
    }

    /// The handle of the future that is being polled, as in actix's own context.
    pub fn handle(&self) -> SpawnHandle {
        self.parts.curr_handle()
    }

    pub(crate) fn take_exit(&mut self) -> Option<ExitReason> {
        self.exit.take().map(|reason| *reason)
    }

    pub(crate) fn set_readiness(&mut self, readiness: Readiness) {
        self.readiness = readiness;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readiness == Readiness::Ready
    }

    /// True if a `Down` on its way to us belongs to a monitor that still stands, which ends with it.
    fn accepts(&mut self, down: &Down) -> bool {
        down.watcher != self.pid().number() || self.monitors.remove(&down.monitor).is_some()
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Context<A> {
    fn drop(&mut self) {
        for (monitor, pid) in std::mem::take(&mut self.monitors) {
            pid.unwatch(monitor);
        }
    }
}

impl<A: Actor<Context = Context<A>>> ActorContext for Context<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }

    fn terminate(&mut self) {
        self.parts.terminate();
    }

    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl<A: Actor<Context = Context<A>>> AsyncContext<A> for Context<A> {
    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(future)
    }

    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.wait(future);
    }

    fn waiting(&self) -> bool {
        self.parts.waiting()
    }

    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }

    fn address(&self) -> Addr<A> {
        self.parts.address()
    }
}

impl<A: Actor<Context = Context<A>>> AsyncContextParts<A> for Context<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

thread_local! {
    /// Set while a message is packed on behalf of `Ref`, whose sends are counted.
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

pub(crate) fn counted<T>(send: impl FnOnce() -> T) -> T {
    COUNTED.set(true);
    let sent = send();
    COUNTED.set(false);
    sent
}

impl<A, M> ToEnvelope<A, M> for Context<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: M, answer: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        let counted = COUNTED.replace(false);
        Envelope::with_proxy(Box::new(Letter {
            message: Some(message),
            answer,
            counted,
        }))
    }
}

/// A message on its way. Unlike actix's own it is handled even if the caller no longer waits.
struct Letter<M: Message> {
    message: Option<M>,
    answer: Option<OneshotSender<M::Result>>,
    counted: bool,
}

impl<A, M> EnvelopeProxy<A> for Letter<M>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, actor: &mut A, ctx: &mut Context<A>) {
        if self.counted {
            ctx.pid().count_handled();
        }
        // actix empties the mailbox in one go; a flood must not delay a kill. Waiting for ever leaves the
        // loop without the callbacks that ending it would bring; the process looks at its signals next.
        if ctx.pid().signals() & (KILL | LINKED) != 0 {
            return ctx.wait(std::future::pending::<()>().into_actor(actor));
        }
        let Some(message) = self.message.take() else {
            return;
        };
        // The comparison of types is decided at compile time: only a `Down` is looked into.
        if let Some(down) = (&message as &dyn Any).downcast_ref::<Down>()
            && !ctx.accepts(down)
        {
            return;
        }
        actor.handle(message, ctx).handle(ctx, self.answer.take());
    }
}
