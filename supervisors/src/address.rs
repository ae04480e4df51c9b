//! Ways to reach a process: [`Ref`] knows its type, [`Caster`] knows one message.

use crate::context::{Context, counted};
use crate::error::{CallError, Gone};
use crate::pid::Pid;
use actix::dev::channel::AddressSender;
use actix::{Actor, Handler, Message};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A reference to one incarnation of a process. It does not keep the process alive and does not follow it
/// over a restart (a [`Name`](crate::Name) does). Cloning costs one atomic increment.
pub struct Ref<A: Actor<Context = Context<A>>>(pub(crate) Arc<Door<A>>);

pub(crate) struct Door<A: Actor<Context = Context<A>>> {
    pub(crate) sender: AddressSender<A>,
    pub(crate) pid: Pid,
}

impl<A: Actor<Context = Context<A>>> Ref<A> {
    /// Who it is.
    pub fn pid(&self) -> &Pid {
        &self.0.pid
    }

    /// Sends without waiting for anything (OTP `cast`). Order is kept between one sender and one receiver.
    ///
    /// # Errors
    /// [`Gone`] gives the message back when the process has ended. Success does not mean that it will be
    /// handled.
    pub fn cast<M>(&self, message: M) -> Result<(), Gone<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.0.post(message)
    }

    /// Sends at once and returns the answer to await (OTP `call/3` with `infinity`; [`Ref::call_within`] has
    /// a time-out). The request is handled even if the future is dropped.
    pub fn call<M>(&self, message: M) -> impl Future<Output = Result<M::Result, CallError>> + use<A, M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.0.pid.count_sent();
        let answer = counted(|| self.0.sender.send(message)).map_err(|_| {
            self.0.pid.uncount_sent();
            CallError::NotRunning
        });
        async move { answer?.await.map_err(|_| CallError::Died) }
    }

    /// As [`Ref::call`], but does not wait longer than `time` for the answer (OTP's default is 5 s). Unlike
    /// OTP's, a late answer is dropped and never found in a mailbox.
    pub fn call_within<M>(
        &self,
        message: M,
        time: Duration,
    ) -> impl Future<Output = Result<M::Result, CallError>> + use<A, M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let answer = self.call(message);
        async move {
            tokio::time::timeout(time, answer)
                .await
                .unwrap_or(Err(CallError::TimedOut))
        }
    }

    /// The same process, seen as a receiver of `M` only.
    pub fn caster<M>(&self) -> Caster<M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        Caster(self.0.clone())
    }
}

impl<A: Actor<Context = Context<A>>> Clone for Ref<A> {
    fn clone(&self) -> Self {
        Ref(self.0.clone())
    }
}

impl<A: Actor<Context = Context<A>>> PartialEq for Ref<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0.pid == other.0.pid
    }
}

impl<A: Actor<Context = Context<A>>> Eq for Ref<A> {}

impl<A: Actor<Context = Context<A>>> fmt::Debug for Ref<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({})", self.0.pid)
    }
}

/// A [`Ref`] of which only one message is known.
pub struct Caster<M>(Arc<dyn Post<M>>);

impl<M> Caster<M> {
    /// As [`Ref::cast`].
    ///
    /// # Errors
    /// [`Gone`] gives the message back when the process has ended.
    pub fn cast(&self, message: M) -> Result<(), Gone<M>> {
        self.0.post(message)
    }

    /// Who it is.
    pub fn pid(&self) -> &Pid {
        self.0.pid()
    }
}

impl<M> Clone for Caster<M> {
    fn clone(&self) -> Self {
        Caster(self.0.clone())
    }
}

impl<M> fmt::Debug for Caster<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caster({})", self.pid())
    }
}

trait Post<M>: Send + Sync {
    fn post(&self, message: M) -> Result<(), Gone<M>>;
    fn pid(&self) -> &Pid;
}

impl<A, M> Post<M> for Door<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn post(&self, message: M) -> Result<(), Gone<M>> {
        self.pid.count_sent();
        counted(|| self.sender.do_send(message)).map_err(|refused| {
            self.pid.uncount_sent();
            Gone(refused.into_inner())
        })
    }

    fn pid(&self) -> &Pid {
        &self.pid
    }
}
