//! Registered names: the way to a process that survives its restarts.

use crate::address::Ref;
use crate::context::Context;
use crate::error::{CallError, Gone};
use crate::pid::Pid;
use crate::slot::Slot;
use actix::{Actor, Handler, Message};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A name under which one process at a time can be found (OTP's registered names, as a value that is handed
/// around instead of a global table: two `Name::new("router")` are two names, so two trees do not meet).
///
/// Set when the process has been initialised, cleared when it ends; while nobody runs, messages come back.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// let name = Name::<Idle>::new("idle");
/// assert!(name.whereis().is_none());
///
/// let here = actix::Arbiter::current();
/// let child = ChildSpec::worker("idle", &here, |_ctx| Ok(Idle)).name(&name);
/// let root = ChildSpec::supervisor("root", &here, move || {
///     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![child.clone()])
/// });
/// let root = start(root, TreeOptions::default()).await.expect("it starts");
/// let first = name.whereis().expect("it runs").pid().clone();
/// first.exit(ExitReason::Killed);
/// while name.whereis().is_none_or(|holder| *holder.pid() == first) {
///     tokio::task::yield_now().await;
/// }
/// let second = name.whereis().expect("it runs again");
/// assert_eq!((second.pid().path(), second.pid().generation()), (first.path(), 2));
/// # root.stop().await;
/// # });
/// ```
pub struct Name<A: Actor<Context = Context<A>>>(Arc<Plate<A>>);

struct Plate<A: Actor<Context = Context<A>>> {
    text: Box<str>,
    holder: Slot<Ref<A>>,
}

impl<A: Actor<Context = Context<A>>> Name<A> {
    /// A name that nobody holds yet; give it to a spec with [`ChildSpec::name`](crate::ChildSpec::name).
    pub fn new(text: &str) -> Self {
        Name(Arc::new(Plate {
            text: text.into(),
            holder: Slot::new(),
        }))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Who holds it now (OTP `whereis/1`).
    pub fn whereis(&self) -> Option<Ref<A>> {
        self.0.holder.get()
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
        self.0.holder.set(holder);
    }

    /// Clears the name unless a successor already holds it.
    pub(crate) fn clear(&self, pid: &Pid) {
        self.0.holder.leave(|held| held.pid() == pid);
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
