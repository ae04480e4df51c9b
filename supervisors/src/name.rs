//! Registered names: the way to a process that survives its restarts.

use crate::address::Ref;
use crate::context::Context;
use crate::error::{CallError, Gone};
use crate::pid::Pid;
use actix::{Actor, Handler, Message};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// A name under which one process at a time can be found (OTP's registered names, as a value that is handed
/// around instead of a global table: two `Name::new("router")` are two names, so two trees do not meet).
///
/// Set when the process has been initialised, cleared when it ends; while nobody runs, messages come back.
pub struct Name<A: Actor<Context = Context<A>>>(Arc<Slot<A>>);

struct Slot<A: Actor<Context = Context<A>>> {
    text: Box<str>,
    holder: RwLock<Option<Ref<A>>>,
}

impl<A: Actor<Context = Context<A>>> Name<A> {
    /// A name that nobody holds yet; give it to a spec with [`ChildSpec::name`](crate::ChildSpec::name).
    pub fn new(text: &str) -> Self {
        Name(Arc::new(Slot {
            text: text.into(),
            holder: RwLock::new(None),
        }))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Who holds it now (OTP `whereis/1`).
    pub fn whereis(&self) -> Option<Ref<A>> {
        self.0
            .holder
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends to whoever holds the name now.
    ///
    /// # Errors
    /// [`Gone`] gives the message back when nobody does.
    pub fn cast<M>(&self, message: M) -> Result<(), Gone<M>>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        match self.whereis() {
            Some(holder) => holder.cast(message),
            None => Err(Gone(message)),
        }
    }

    /// Calls whoever holds the name now; see [`Ref::call`]. The request is sent before this returns.
    pub fn call<M>(&self, message: M) -> impl Future<Output = Result<M::Result, CallError>> + use<A, M>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let answer = self.whereis().map(|holder| holder.call(message));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Err(CallError::NotRunning),
            }
        }
    }

    /// Calls whoever holds the name now, and waits no longer than `time`; see [`Ref::call_within`].
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

    pub(crate) fn set(&self, holder: Ref<A>) {
        *self.0.holder.write().unwrap_or_else(PoisonError::into_inner) = Some(holder);
    }

    /// Clears the name unless a successor already holds it.
    pub(crate) fn clear(&self, pid: &Pid) {
        let mut holder = self.0.holder.write().unwrap_or_else(PoisonError::into_inner);
        if holder.as_ref().is_some_and(|held| held.pid() == pid) {
            let gone = holder.take();
            drop(holder);
            drop(gone);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Clone for Name<A> {
    fn clone(&self) -> Self {
        Name(self.0.clone())
    }
}

impl<A: Actor<Context = Context<A>>> fmt::Debug for Name<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.as_str())
    }
}
