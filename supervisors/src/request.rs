//! What supervisors can be asked (OTP's `supervisor` module, under the same names) and how the answer
//! travels.

use crate::address::Ref;
use crate::context::Context;
use crate::dynamic::DynamicSupervisor;
use crate::error::{ChildError, StartError};
use crate::name::Name;
use crate::pid::Pid;
use crate::spec::{ChildSpec, ProcessKind};
use crate::supervisor::Supervisor;
use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Starts a child at run time. Answered when its `init` is over. Such children are lost when the supervisor
/// itself is restarted, as in OTP.
#[derive(Debug, Message)]
#[rtype(result = "Result<Pid, StartError>")]
pub struct StartChild(pub ChildSpec);

/// Which child is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildKey {
    /// By its id.
    Id(Arc<str>),
    /// By its pid.
    Pid(Pid),
}

impl From<&str> for ChildKey {
    fn from(id: &str) -> Self {
        ChildKey::Id(id.into())
    }
}

impl From<Arc<str>> for ChildKey {
    fn from(id: Arc<str>) -> Self {
        ChildKey::Id(id)
    }
}

impl From<Pid> for ChildKey {
    fn from(pid: Pid) -> Self {
        ChildKey::Pid(pid)
    }
}

/// Stops a child by its shutdown protocol. Its spec stays (unless it is temporary, or the supervisor
/// dynamic). Answered when it has ended.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), ChildError>")]
pub struct TerminateChild(pub ChildKey);

impl TerminateChild {
    /// By id or pid.
    pub fn new(key: impl Into<ChildKey>) -> Self {
        TerminateChild(key.into())
    }
}

/// Starts a child again that has been terminated or has ended by itself. [`Supervisor`] only.
#[derive(Debug, Message)]
#[rtype(result = "Result<Pid, RestartError>")]
pub struct RestartChild(pub Arc<str>);

/// Why a child could not be started again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// There is no child to be started.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It could not be started. Its spec stays.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Forgets the spec of a child that does not run. [`Supervisor`] only.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), ChildError>")]
pub struct DeleteChild(pub Arc<str>);

/// Asks for the children, in start order (a dynamic supervisor's: in no order).
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// let (here, root) = (actix::Arbiter::current(), Name::<Supervisor>::new("root"));
/// let idle = |id: &str| ChildSpec::worker(id, &actix::Arbiter::current(), |_ctx| Ok(Idle));
/// let spec = ChildSpec::supervisor("root", &here, move || {
///     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![idle("a")])
/// });
/// let tree = start(spec.name(&root), TreeOptions::default()).await.expect("it starts");
/// root.start_child(idle("b")).await.expect("it starts");
/// let children = root.call(WhichChildren).await.expect("an answer");
/// assert_eq!(children.iter().map(|child| &*child.id).collect::<Vec<_>>(), ["a", "b"]);
///
/// let still = root.call(DeleteChild("b".into())).await.expect("an answer");
/// assert_eq!(still, Err(ChildError::Running));
/// root.call(TerminateChild::new("b")).await.expect("an answer").expect("it ends");
/// assert_eq!(root.start_child(idle("b")).await, Err(StartError::AlreadyPresent));
/// root.call(DeleteChild("b".into())).await.expect("an answer").expect("it does not run");
/// assert_eq!(root.call(CountChildren).await.expect("an answer").specs, 1);
/// # tree.stop().await;
/// # });
/// ```
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Vec<ChildStatus>")]
pub struct WhichChildren;

/// Asks for the numbers of children.
#[derive(Clone, Copy, Debug)]
pub struct CountChildren;

impl Message for CountChildren {
    type Result = ChildCounts;
}

/// One child, as its supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// Its id.
    pub id: Arc<str>,
    /// What it is doing.
    pub state: ChildState,
    /// What it is.
    pub kind: ProcessKind,
}

/// What a child is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildState {
    /// In its `init`.
    Starting(Pid),
    /// It runs.
    Running(Pid),
    /// Asked to stop.
    Stopping(Pid),
    /// Its restart failed and will be tried again (OTP `restarting`).
    Restarting,
    /// It does not run and will not by itself (OTP `undefined`).
    Stopped,
}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChildCounts {
    /// Specs known.
    pub specs: usize,
    /// Processes alive.
    pub active: usize,
    /// Specs of supervisors, alive or not.
    pub supervisors: usize,
    /// Specs of workers, alive or not.
    pub workers: usize,
}

/// The giving end of an answer that comes later than the handler returns, without a future or a task of its
/// own. Dropped without an answer, the caller gets [`CallError::Died`](crate::CallError::Died).
///
///
/// ```
/// use actix::{Actor, Handler, Message};
/// use supervisors::*;
///
/// /// Answers the first question when the second one comes.
/// #[derive(Default)]
/// struct Slow(Option<Reply<u32>>);
///
/// impl Actor for Slow {
///     type Context = Context<Self>;
/// }
///
/// #[derive(Message)]
/// #[rtype(result = "u32")]
/// struct Ask(u32);
///
/// impl Handler<Ask> for Slow {
///     type Result = Answer<u32>;
///
///     fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self>) -> Answer<u32> {
///         let (reply, answer) = Reply::new();
///         if let Some(earlier) = self.0.replace(reply) {
///             earlier.give(number);
///         }
///         answer
///     }
/// }
/// # actix::System::new().block_on(async {
/// # let (here, slow) = (actix::Arbiter::current(), Name::<Slow>::new("slow"));
/// # let child = ChildSpec::worker("slow", &here, |_ctx| Ok(Slow::default())).name(&slow);
/// # let root = ChildSpec::supervisor("root", &here, move || {
/// #     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![child.clone()])
/// # });
/// # let root = start(root, TreeOptions::default()).await.expect("it starts");
/// let (first, second) = (slow.call(Ask(1)), slow.call(Ask(2)));
/// assert_eq!(first.await, Ok(2));
/// root.stop().await;
/// assert_eq!(second.await, Err(CallError::Died)); // nobody is left waiting
/// # });
/// ```
pub struct Reply<T>(Rc<RefCell<ReplyState<T>>>);

enum ReplyState<T> {
    Open,
    Asked(OneshotSender<T>),
    Given(T),
    Over,
}

impl<T> Reply<T> {
    /// The two ends: one to answer with, one to return from the handler.
    // The two ends are one thing; there is no other constructor to be confused with.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (Reply<T>, Answer<T>) {
        let state = Rc::new(RefCell::new(ReplyState::Open));
        (Reply(state.clone()), Answer(state))
    }

    /// Answers; nothing happens if the caller no longer waits.
    pub fn give(self, answer: T) {
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, ReplyState::Over) {
            // A caller that no longer waits is no error.
            ReplyState::Asked(caller) => drop(caller.send(answer)),
            ReplyState::Open => *state = ReplyState::Given(answer),
            ReplyState::Given(_) | ReplyState::Over => {}
        }
    }
}

/// What a handler returns when it will answer through a [`Reply`]: `type Result = Answer<M::Result>`.
pub struct Answer<T>(Rc<RefCell<ReplyState<T>>>);

impl<A: Actor, M: Message<Result = T>, T: 'static> MessageResponse<A, M> for Answer<T> {
    fn handle(self, _: &mut A::Context, caller: Option<OneshotSender<T>>) {
        let mut state = self.0.borrow_mut();
        match (std::mem::replace(&mut *state, ReplyState::Over), caller) {
            (ReplyState::Given(answer), Some(caller)) => drop(caller.send(answer)),
            (ReplyState::Open, Some(caller)) => *state = ReplyState::Asked(caller),
            _ => {}
        }
    }
}

impl<A: Actor, M: Message<Result = ChildCounts>> MessageResponse<A, M> for ChildCounts {
    fn handle(self, _: &mut A::Context, caller: Option<OneshotSender<ChildCounts>>) {
        if let Some(caller) = caller {
            let _ = caller.send(self);
        }
    }
}

/// A supervisor that children can be added to.
pub trait AddChildren: Actor<Context = Context<Self>> + actix::Handler<StartChild> {}

impl AddChildren for Supervisor {}
impl AddChildren for DynamicSupervisor {}

impl<S: AddChildren> Ref<S> {
    /// [`StartChild`] with both errors in one.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_child(&self, spec: ChildSpec) -> impl Future<Output = Result<Pid, StartError>> + use<S> {
        let answer = self.call(StartChild(spec));
        async move { answer.await? }
    }
}

impl<S: AddChildren> Name<S> {
    /// [`StartChild`] with both errors in one.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_child(&self, spec: ChildSpec) -> impl Future<Output = Result<Pid, StartError>> + use<S> {
        let answer = self.call(StartChild(spec));
        async move { answer.await? }
    }
}

impl<T> std::fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply(..)")
    }
}

impl<T> std::fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer(..)")
    }
}
