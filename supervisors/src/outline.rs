//! The tree as its specs describe it, without starting anything.

use crate::intensity::Intensity;
use crate::spec::{Below, ChildSpec, ProcessKind, Restart, Shutdown, Strategy, child_path};
use std::sync::Arc;

/// One process that a spec would start.
///
/// ```
/// # use actix::Actor;
/// # use supervisors::*;
/// # struct Idle;
/// # impl Actor for Idle {
/// #     type Context = Context<Self>;
/// # }
/// # let here = actix::System::new().block_on(async { actix::Arbiter::current() });
/// # let child = ChildSpec::worker("idle", &here, |_ctx| Ok(Idle));
/// let root = ChildSpec::supervisor("root", &here, move || {
///     SupervisorSpec::new(Strategy::OneForAll, Intensity::default(), vec![child.clone()])
/// });
/// let planned = root.outline(); // nothing is started
/// assert_eq!(planned[0].strategy, Some(Strategy::OneForAll));
/// assert_eq!(&*planned[1].path, "root/idle");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The path it would have; see [`ProcessInfo`](crate::ProcessInfo).
    pub path: Arc<str>,
    /// The child's id, not escaped.
    pub id: Arc<str>,
    /// What it is.
    pub kind: ProcessKind,
    /// When it is restarted.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Of a supervisor whose children its spec names.
    pub strategy: Option<Strategy>,
    /// Of a supervisor: how many restarts it tolerates.
    pub intensity: Option<Intensity>,
    /// The Rust type of its actor.
    pub actor: &'static str,
}

impl ChildSpec {
    /// This child and all below it, parents before children and siblings in start order.
    ///
    /// Asks each supervisor for its spec as a start would; if that builds tables, they are dropped again.
    pub fn outline(&self) -> Vec<Outline> {
        let mut drawn = Vec::new();
        self.draw("", &mut drawn);
        drawn
    }

    fn draw(&self, parent: &str, drawn: &mut Vec<Outline>) {
        let info = &self.info;
        let path = child_path(parent, &info.id);
        let at = drawn.len();
        drawn.push(Outline {
            path: path.clone(),
            id: info.id.clone(),
            kind: info.kind,
            restart: info.restart,
            shutdown: info.shutdown,
            strategy: None,
            intensity: None,
            actor: info.actor,
        });
        match &self.below {
            Below::Nothing => {}
            Below::Dynamic(spec) => drawn[at].intensity = Some(spec.intensity),
            Below::Children(spec) => {
                let spec = spec();
                drawn[at].strategy = Some(spec.strategy);
                drawn[at].intensity = Some(spec.intensity);
                for child in &spec.children {
                    child.draw(&path, drawn);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, DynamicSpec, Name, SupervisorSpec};
    use std::time::Duration;

    struct Idle;

    impl actix::Actor for Idle {
        type Context = Context<Self>;
    }

    #[actix::test]
    async fn a_spec_is_drawn_without_a_start() {
        let arbiter = actix_rt::Arbiter::current();
        let intensity = Intensity {
            restarts: 5,
            period: Duration::from_secs(60),
        };
        let root = ChildSpec::supervisor("root", &arbiter.clone(), move || {
            let worker = ChildSpec::worker("a/b", &arbiter, |_: &mut Context<Idle>| panic!("was started"));
            let spec = DynamicSpec {
                intensity,
                max_children: 7,
            };
            let dynamic = ChildSpec::dynamic("many", &arbiter, spec, &Name::new("many"));
            let children = vec![worker.restart(Restart::Transient), dynamic];
            SupervisorSpec::new(Strategy::RestForOne, intensity, children)
        });
        let drawn = root.outline();
        let paths: Vec<&str> = drawn.iter().map(|outline| &*outline.path).collect();
        assert_eq!(paths, ["root", "root/a%2Fb", "root/many"]);
        assert_eq!(
            (drawn[0].strategy, drawn[0].intensity),
            (Some(Strategy::RestForOne), Some(intensity))
        );
        assert_eq!((drawn[1].restart, drawn[1].intensity), (Restart::Transient, None));
        assert_eq!(
            (drawn[2].kind, drawn[2].strategy),
            (ProcessKind::DynamicSupervisor, None)
        );
        assert_eq!(drawn[2].intensity, Some(intensity));
    }
}
