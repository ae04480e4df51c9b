//! Child specs: what a supervisor is told about its children (OTP `child_spec()`, `sup_flags()`).

use crate::context::Context;
use crate::dynamic::DynamicSupervisor;
use crate::error::InitError;
use crate::intensity::Intensity;
use crate::name::Name;
use crate::pid::Pid;
use crate::process::{Init, Lifeline, Parent, Process};
use crate::supervisor::Supervisor;
use actix::{Actor, ArbiterHandle};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// After an abnormal exit: any but `Normal` and `Shutdown`.
    Transient,
    /// Never, not even when its siblings are; its spec is dropped when it ends.
    Temporary,
}

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed without being asked.
    BrutalKill,
    /// Asked; killed when it has not ended by then.
    Timeout(Duration),
    /// Asked, and waited for as long as it takes. For supervisors.
    Infinity,
}

impl Serialize for Shutdown {
    /// As OTP prints it: `brutal_kill`, milliseconds, or `infinity`.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Shutdown::Timeout(time) => {
                serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
            _ => serializer.collect_str(self),
        }
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shutdown::BrutalKill => f.write_str("brutal_kill"),
            Shutdown::Timeout(time) => write!(f, "{}", time.as_millis()),
            Shutdown::Infinity => f.write_str("infinity"),
        }
    }
}

/// Who else is restarted with a child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Nobody.
    #[default]
    OneForOne,
    /// All its siblings.
    OneForAll,
    /// The siblings started after it.
    RestForOne,
}

/// Whether a supervisor ends when its significant children have ended by themselves.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # actix::System::new().block_on(async {
/// let here = actix::Arbiter::current();
/// let root = ChildSpec::supervisor("root", &here.clone(), move || {
///     let job = ChildSpec::worker("job", &here, |ctx: &mut Context<Idle>| {
///         ctx.exit(ExitReason::Normal); // done already
///         Ok(Idle)
///     });
///     let job = job.restart(Restart::Temporary).significant(true);
///     SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![job])
///         .auto_shutdown(AutoShutdown::AllSignificant)
/// });
/// let root = start(root, TreeOptions::default()).await.expect("it starts");
/// assert_eq!(root.wait().await, ExitReason::Shutdown); // with its last significant child
/// # });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// No. Significant children are refused.
    #[default]
    Never,
    /// When the first of them ends.
    AnySignificant,
    /// When the last of them ends.
    AllSignificant,
}

/// What kind of process a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    /// Does work.
    Worker,
    /// Supervises children that its spec names.
    Supervisor,
    /// Supervises children that are added at run time.
    DynamicSupervisor,
}

impl ProcessKind {
    /// OTP's `child_type`: `worker` or `supervisor`.
    pub fn child_type(self) -> &'static str {
        match self {
            ProcessKind::Worker => "worker",
            _ => "supervisor",
        }
    }
}

macro_rules! lower_case_display {
    ($type:ident { $($variant:ident => $text:literal),* }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($type::$variant => $text),* })
            }
        }
    };
}
lower_case_display!(Restart { Permanent => "permanent", Transient => "transient", Temporary => "temporary" });
lower_case_display!(Strategy {
    OneForOne => "one_for_one", OneForAll => "one_for_all", RestForOne => "rest_for_one"
});
lower_case_display!(ProcessKind {
    Worker => "worker", Supervisor => "supervisor", DynamicSupervisor => "dynamic"
});

/// What a spec says about a child, apart from how to start it.
#[derive(Clone, Debug)]
pub(crate) struct ChildInfo {
    pub(crate) id: Arc<str>,
    pub(crate) kind: ProcessKind,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) actor: &'static str,
    /// Place among its siblings; 0 under a dynamic supervisor.
    pub(crate) position: u32,
}

/// What a supervisor watches over.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # let here = actix::System::new().block_on(async { actix::Arbiter::current() });
/// // The table is made anew each time the supervisor starts, and outlives the workers below it.
/// let shop = ChildSpec::supervisor("shop", &here.clone(), move || {
///     let idle = |id| ChildSpec::worker(id, &here, |_ctx| Ok(Idle));
///     let children = vec![idle("store"), idle("till")]; // the till leans on the store
///     SupervisorSpec::new(Strategy::RestForOne, Intensity::new(5, 60), children)
/// });
/// assert_eq!(shop.outline().len(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    /// Who else is restarted with a child.
    pub strategy: Strategy,
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// In start order; stopped in reverse.
    pub children: Vec<ChildSpec>,
    /// Whether it ends with its significant children.
    pub auto_shutdown: AutoShutdown,
}

impl SupervisorSpec {
    /// A supervisor that does not shut itself down.
    pub fn new(strategy: Strategy, intensity: Intensity, children: Vec<ChildSpec>) -> Self {
        SupervisorSpec {
            strategy,
            intensity,
            children,
            auto_shutdown: AutoShutdown::Never,
        }
    }

    /// Sets [`AutoShutdown`].
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }
}

/// A supervisor of children that are added at run time (OTP `simple_one_for_one`, but with a spec per child).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicSpec {
    /// Shared by all its children. Temporary children do not use it up.
    pub intensity: Intensity,
    /// More are refused with [`StartError::MaxChildren`](crate::StartError::MaxChildren).
    pub max_children: usize,
}

pub(crate) struct Launch {
    pub(crate) pid: Pid,
    pub(crate) parent: Parent,
    name: Option<Arc<dyn Any + Send + Sync>>,
}

/// How to start, restart and stop one child.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # let here = actix::System::new().block_on(async { actix::Arbiter::current() });
/// use std::time::Duration;
///
/// let writer = ChildSpec::worker("writer", &here, |_ctx| Ok(Idle))
///     .restart(Restart::Transient) // not after an end in good order
///     .shutdown(Shutdown::Timeout(Duration::from_secs(30))); // it has much to write down
/// assert_eq!(&**writer.id(), "writer");
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    /// Shared with the control block of every incarnation.
    pub(crate) info: Arc<ChildInfo>,
    actor_type: TypeId,
    name: Option<Arc<dyn Any + Send + Sync>>,
    launch: Arc<dyn Fn(Launch) + Send + Sync>,
    pub(crate) below: Below,
}

/// What a child has below it when it starts: enough to draw the tree without starting it.
#[derive(Clone)]
pub(crate) enum Below {
    /// Nothing: a worker.
    Nothing,
    /// What the spec says.
    Children(Arc<dyn Fn() -> SupervisorSpec + Send + Sync>),
    /// Nothing yet.
    Dynamic(DynamicSpec),
}

impl ChildSpec {
    /// A worker whose first state `init` makes, on `arbiter`, each time it is started.
    ///
    /// An `Err` or a panic of `init`, or of the actor's `started()`, is a failed start. Defaults: permanent,
    /// shutdown 5 s (OTP's).
    pub fn worker<A>(
        id: impl Into<Arc<str>>,
        arbiter: &ArbiterHandle,
        init: impl Fn(&mut Context<A>) -> Result<A, InitError> + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>>,
    {
        let shutdown = Shutdown::Timeout(Duration::from_secs(5));
        Self::new(
            id.into(),
            ProcessKind::Worker,
            shutdown,
            arbiter,
            Init::Now(Arc::new(init)),
        )
    }

    /// A worker whose `init` has to await something (a socket to be bound). An exit signal ends a hanging
    /// `init`.
    pub fn worker_async<A>(
        id: impl Into<Arc<str>>,
        arbiter: &ArbiterHandle,
        init: impl Fn() -> LocalBoxFuture<'static, Result<A, InitError>> + Send + Sync + 'static,
    ) -> Self
    where
        A: Actor<Context = Context<A>>,
    {
        let shutdown = Shutdown::Timeout(Duration::from_secs(5));
        Self::new(
            id.into(),
            ProcessKind::Worker,
            shutdown,
            arbiter,
            Init::Later(Arc::new(init)),
        )
    }

    /// A supervisor. `spec` is asked for each time it is started, on its arbiter, so it may build what its
    /// children share (tables belong to a supervisor and outlive its workers). Defaults: permanent, infinity.
    pub fn supervisor(
        id: impl Into<Arc<str>>,
        arbiter: &ArbiterHandle,
        spec: impl Fn() -> SupervisorSpec + Send + Sync + 'static,
    ) -> Self {
        let spec = Arc::new(spec);
        let below = Below::Children(spec.clone());
        let init = move |ctx: &mut Context<Supervisor>| Supervisor::init(spec(), ctx);
        let mut child = Self::new(
            id.into(),
            ProcessKind::Supervisor,
            Shutdown::Infinity,
            arbiter,
            Init::Now(Arc::new(init)),
        );
        child.below = below;
        child
    }

    /// A supervisor that starts without children and is told of them through `name`. Defaults: permanent,
    /// infinity.
    pub fn dynamic(
        id: impl Into<Arc<str>>,
        arbiter: &ArbiterHandle,
        spec: DynamicSpec,
        name: &Name<DynamicSupervisor>,
    ) -> Self {
        let init = move |ctx: &mut Context<DynamicSupervisor>| Ok(DynamicSupervisor::new(spec, ctx));
        let kind = ProcessKind::DynamicSupervisor;
        let mut child = Self::new(
            id.into(),
            kind,
            Shutdown::Infinity,
            arbiter,
            Init::Now(Arc::new(init)),
        );
        child.below = Below::Dynamic(spec);
        child.name(name)
    }

    fn new<A>(
        id: Arc<str>,
        kind: ProcessKind,
        shutdown: Shutdown,
        arbiter: &ArbiterHandle,
        init: Init<A>,
    ) -> Self
    where
        A: Actor<Context = Context<A>>,
    {
        let arbiter = arbiter.clone();
        let launch = move |Launch { pid, parent, name }: Launch| {
            let lifeline = Lifeline::new(pid, parent);
            let init = init.clone();
            // On an arbiter that is gone the closure is dropped, and with it the lifeline, which reports.
            arbiter.spawn_fn(move || {
                let name = name.and_then(|name| name.downcast_ref::<Name<A>>().cloned());
                actix_rt::spawn(Process::new(lifeline, init, name));
            });
        };
        ChildSpec {
            info: Arc::new(ChildInfo {
                id,
                kind,
                restart: Restart::default(),
                shutdown,
                significant: false,
                actor: std::any::type_name::<A>(),
                position: 0,
            }),
            actor_type: TypeId::of::<A>(),
            name: None,
            launch: Arc::new(launch),
            below: Below::Nothing,
        }
    }

    /// Registers the process under `name` while it runs.
    ///
    /// # Panics
    /// If the name is one for another type of actor.
    pub fn name<A: Actor<Context = Context<A>>>(mut self, name: &Name<A>) -> Self {
        assert!(
            self.actor_type == TypeId::of::<A>(),
            "child {} is a {}, the name {:?} is one for a {}",
            self.info.id,
            self.info.actor,
            name.as_str(),
            std::any::type_name::<A>()
        );
        self.name = Some(Arc::new(name.clone()));
        self
    }

    /// When it is restarted; permanent unless said.
    pub fn restart(mut self, restart: Restart) -> Self {
        Arc::make_mut(&mut self.info).restart = restart;
        self
    }

    /// How it is stopped; 5 s for workers and infinity for supervisors unless said.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        Arc::make_mut(&mut self.info).shutdown = shutdown;
        self
    }

    /// Counts for the supervisor's [`AutoShutdown`]; never for a permanent child.
    pub fn significant(mut self, significant: bool) -> Self {
        Arc::make_mut(&mut self.info).significant = significant;
        self
    }

    /// The child's id.
    pub fn id(&self) -> &Arc<str> {
        &self.info.id
    }

    /// Starts one incarnation under `pid`; the parent is told how that went.
    pub(crate) fn launch(&self, pid: Pid, parent: Parent) {
        (self.launch)(Launch {
            pid,
            parent,
            name: self.name.clone(),
        });
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(f)
    }
}

/// A path one level down: ids with `%` or `/` are percent-escaped in their segment.
pub(crate) fn child_path(parent: &str, id: &str) -> Arc<str> {
    if parent.is_empty() {
        return escape(id).into();
    }
    format!("{parent}/{}", escape(id)).into()
}

fn escape(id: &str) -> String {
    id.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_an_id_does_not_make_a_new_level() {
        assert_eq!(
            &*child_path("root/topics", "sensors/+/100%"),
            "root/topics/sensors%2F+%2F100%25"
        );
    }
}
