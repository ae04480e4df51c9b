//! Auto-shutdown, as a table: rule × restart type × exit reason × how the child came to end. OTP's
//! `supervisor_SUITE`, group `auto_shutdown`.

mod family;
use actix::Arbiter;
use family::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use supervisors::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Normal,
    Shutdown,
    Error,
    Panic,
    Killed,
    /// `terminate_child`: not by itself.
    Terminated,
    /// Stopped because a sibling is restarted: not by itself.
    WithSibling,
}

const ENDINGS: [Ending; 7] = [
    Ending::Normal,
    Ending::Shutdown,
    Ending::Error,
    Ending::Panic,
    Ending::Killed,
    Ending::Terminated,
    Ending::WithSibling,
];

/// supervisor.erl, `do_restart/3` and `do_auto_shutdown/2`: does a significant child's end count?
fn counts(restart: Restart, ending: Ending) -> bool {
    match ending {
        Ending::Terminated | Ending::WithSibling => false,
        Ending::Normal | Ending::Shutdown => true,
        Ending::Error | Ending::Panic | Ending::Killed => restart == Restart::Temporary,
    }
}

struct Stage {
    root: Root,
    top: Name<Supervisor>,
    reports: Reports,
    /// The bystander, and the two that are significant.
    names: [Name<Child>; 3],
}

/// `one_for_all` over `plain`, `a`, `b`; the last two are significant.
async fn stage(rule: AutoShutdown, restart: Restart) -> Stage {
    let (events, reports, top) = (Events::default(), Reports::default(), Name::new("top"));
    let names = [Name::new("plain"), Name::new("a"), Name::new("b")];
    let significant = |spec: ChildSpec| spec.restart(restart).significant(true);
    let children = vec![
        child("plain", &events, &names[0]),
        significant(child("a", &events, &names[1])),
        significant(child("b", &events, &names[2])),
    ];
    let root = ChildSpec::supervisor("root", &Arbiter::current(), move || {
        SupervisorSpec::new(Strategy::OneForAll, Intensity::new(9, 60), children.clone()).auto_shutdown(rule)
    });
    let root = start(root.name(&top), reports.options()).await.unwrap();
    Stage {
        root,
        top,
        reports,
        names,
    }
}

impl Stage {
    /// Ends `id` and waits until its supervisor has dealt with that, or has itself ended.
    async fn end(&self, place: usize, id: &str, ending: Ending) {
        let child = self.names[place].whereis().unwrap();
        match ending {
            Ending::Normal => child.cast(End::Normally).unwrap(),
            Ending::Shutdown => child.pid().exit(ExitReason::Shutdown),
            Ending::Error => child.cast(End::With(ExitReason::Error("disk".into()))).unwrap(),
            Ending::Panic => child.cast(End::ByPanic).unwrap(),
            Ending::Killed => child.pid().exit(ExitReason::Killed),
            Ending::Terminated => {
                self.top.call(TerminateChild::new(id)).await.unwrap().unwrap();
            }
            Ending::WithSibling => self.names[0].cast(End::ByPanic).unwrap(),
        }
        until("the end", || !child.pid().is_alive(), String::new).await;
        // Whoever is to be restarted is, when this is answered; or there is nobody who could answer.
        let settled = |status: &ChildStatus| {
            matches!(status.state, ChildState::Running(_)) || matches!(status.state, ChildState::Stopped)
        };
        for _ in 0..100 {
            match self.top.call(WhichChildren).await {
                Ok(children) if !children.iter().all(settled) => {}
                _ => tokio::task::yield_now().await,
            }
        }
    }

    fn is_up(&self) -> bool {
        self.root.pid().is_alive()
    }
}

#[test]
fn any_significant_shuts_down_with_the_first_that_ends_by_itself() {
    run(async {
        for restart in [Restart::Transient, Restart::Temporary] {
            for ending in ENDINGS {
                let stage = stage(AutoShutdown::AnySignificant, restart).await;
                stage.end(1, "a", ending).await;
                assert_eq!(stage.is_up(), !counts(restart, ending), "{restart} {ending:?}");
                assert_eq!(stage.root.stop().await, ExitReason::Shutdown);
                let gave_up = |report: &Report| match report {
                    Report::Supervisor(report) => report.error_context == report::ErrorContext::Shutdown,
                    _ => false,
                };
                assert!(
                    !stage.reports.all().iter().any(gave_up),
                    "an auto-shutdown is no failure"
                );
            }
        }
    });
}

#[test]
fn all_significant_shuts_down_with_the_last_if_that_ends_by_itself() {
    run(async {
        for restart in [Restart::Transient, Restart::Temporary] {
            for first in ENDINGS {
                for last in ENDINGS {
                    // A crash, or a restart of the sibling, brings a transient child back.
                    let back = restart == Restart::Transient
                        && (first != Ending::Terminated)
                        && !counts(restart, first);
                    // Temporary ones both end with their sibling: nobody is left to be the last.
                    if first == Ending::WithSibling && restart == Restart::Temporary {
                        continue;
                    }
                    let stage = stage(AutoShutdown::AllSignificant, restart).await;
                    stage.end(1, "a", first).await;
                    assert!(stage.is_up(), "{restart} {first:?}: b is left");
                    stage.end(2, "b", last).await;
                    let down = counts(restart, last) && !back;
                    assert_eq!(stage.is_up(), !down, "{restart} {first:?} {last:?}");
                    stage.root.stop().await;
                }
            }
        }
    });
}

#[test]
fn a_significant_sibling_that_waits_for_its_restart_is_not_gone() {
    run(async {
        let (events, broken) = (Events::default(), Arc::new(AtomicBool::new(false)));
        let (a, b) = (Name::<Child>::new("a"), Name::<Child>::new("b"));
        let (fails, said) = (broken.clone(), events.clone());
        let flaky = ChildSpec::worker("a", &Arbiter::current(), move |_| match fails.load(SeqCst) {
            true => Err(InitError::failed("not yet")),
            false => Ok(Child::new("a", &said, Temper::Good)),
        });
        let significant = |spec: ChildSpec| spec.restart(Restart::Transient).significant(true);
        let children = vec![significant(flaky.name(&a)), significant(child("b", &events, &b))];
        let root = ChildSpec::supervisor("root", &Arbiter::current(), move || {
            SupervisorSpec::new(Strategy::OneForOne, Intensity::new(50, 5), children.clone())
                .auto_shutdown(AutoShutdown::AllSignificant)
        });
        let root = start(root, Reports::default().options()).await.unwrap();
        let state = |path: &str| root.tree().describe(path).map(|child| child.state);
        broken.store(true, SeqCst);
        a.cast(End::ByPanic).unwrap();
        let waits = || state("root/a") == Some(ProcessState::Restarting);
        until("the pause", waits, String::new).await;
        b.cast(End::Normally).unwrap();
        let ended = || state("root/b") == Some(ProcessState::Stopped);
        until("b's end", ended, String::new).await;
        broken.store(false, SeqCst);
        until("the restart", || a.whereis().is_some(), String::new).await;
        a.cast(End::Normally).unwrap();
        assert_eq!(root.wait().await, ExitReason::Shutdown);
    });
}

#[test]
fn an_auto_shutdown_is_a_normal_end_for_a_transient_supervisor_and_a_restart_for_a_permanent_one() {
    run(async {
        for (restart, comes_back) in [(Restart::Transient, false), (Restart::Permanent, true)] {
            let (events, a) = (Events::default(), Name::new("a"));
            let inner = {
                let (events, a) = (events.clone(), a.clone());
                ChildSpec::supervisor("inner", &Arbiter::current(), move || {
                    let one = child("a", &events, &a)
                        .restart(Restart::Temporary)
                        .significant(true);
                    SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![one])
                        .auto_shutdown(AutoShutdown::AnySignificant)
                })
            };
            let root = root(
                Strategy::OneForOne,
                Intensity::new(1, 5),
                vec![inner.restart(restart)],
            );
            let root = start(root, Reports::default().options()).await.unwrap();
            a.cast(End::Normally).unwrap();
            if comes_back {
                events.until("+a -a +a").await;
            } else {
                let stopped = || {
                    let inner = root.tree().describe("root/inner");
                    inner.is_some_and(|inner| inner.state == ProcessState::Stopped)
                };
                until("the end", stopped, || events.text()).await;
            }
            assert_eq!(root.stop().await, ExitReason::Shutdown);
        }
    });
}
