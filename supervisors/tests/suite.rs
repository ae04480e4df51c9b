//! What is left of OTP's `supervisor_SUITE` beside the grids: `ignore`, siblings that fail in a restart,
//! escalation of every strategy, restart loops that hang. Each test is named in its text as OTP names it.
//!
//! | group of `supervisor_SUITE` | where |
//! |---|---|
//! | `sup_start`, `sup_start_map` | here, `escalation.rs`; maps are Rust's types |
//! | `sup_stop`, `child_unlink` | `shutdown.rs` |
//! | `child_adm`, `child_specs`, `count_children`, `tree` | `shutdown.rs`, `steering.rs`, `supervision.rs` |
//! | `normal_`, `shutdown_`, `abnormal_termination`, `temporary_bystander` | `grid.rs` |
//! | `restart_one_for_one` …, `multiple_restarts` | `grid.rs`, `escalation.rs`, here |
//! | `restart_simple_one_for_one`, `simple_one_for_one_*` | here, `dynamic.rs` |
//! | `hanging_restart_loop*` | here |
//! | `auto_shutdown` | `significant.rs` |
//! | `code_change*`, `extra_return`, `simple_global_supervisor` | nothing here has such a thing |

mod family;
use actix::Arbiter;
use family::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use supervisors::*;
use tokio::time::Instant;

const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];

/// A child whose nth `init` fails when told so.
fn moody(
    id: &'static str,
    events: &Events,
    name: &Name<Child>,
    fails: impl Fn(u32) -> bool + Send + Sync + 'static,
) -> ChildSpec {
    let (events, starts) = (events.clone(), Arc::new(AtomicU32::new(0)));
    ChildSpec::worker(id, &Arbiter::current(), move |_| {
        if fails(starts.fetch_add(1, SeqCst) + 1) {
            events.push(format!("!{id}"));
            return Err(InitError::failed("the port is in use"));
        }
        Ok(Child::new(id, &events, Temper::Good))
    })
    .name(name)
}

fn names<const N: usize>() -> [Name<Child>; N] {
    std::array::from_fn(|_| Name::new("child"))
}

async fn ids(top: &Name<Supervisor>) -> String {
    let children = top.call(WhichChildren).await.unwrap();
    let shown = |child: &ChildStatus| match child.state {
        ChildState::Running(_) => child.id.to_string(),
        _ => format!("({})", child.id),
    };
    children.iter().map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn sup_start_ignore_a_permanent_child_is_kept_and_a_temporary_one_is_not() {
    run(async {
        for (restart, kept) in [
            (Restart::Permanent, true),
            (Restart::Transient, true),
            (Restart::Temporary, false),
        ] {
            let (events, top) = (Events::default(), Name::new("top"));
            let ignores =
                || ChildSpec::worker::<Child>("i", &Arbiter::current(), |_| Err(InitError::ignore()));
            let children = vec![ignores().restart(restart), child("c", &events, &Name::new("c"))];
            let root = root(Strategy::OneForOne, Intensity::default(), children).name(&top);
            let root = start(root, Reports::default().options()).await.unwrap();
            assert_eq!(ids(&top).await, if kept { "(i) c" } else { "c" });
            let again = top.start_child(ignores().restart(restart)).await;
            assert_eq!(
                again,
                Err(if kept {
                    StartError::AlreadyPresent
                } else {
                    StartError::Ignored
                })
            );
            assert_eq!(ids(&top).await, if kept { "(i) c" } else { "c" });
            root.stop().await;
        }
    });
}

#[test]
fn sup_start_ignore_child_start_child_simple_a_dynamic_supervisor_keeps_nobody_who_ignores() {
    run(async {
        for restart in [Restart::Permanent, Restart::Temporary] {
            let pool = Name::new("pool");
            let spec = DynamicSpec {
                intensity: Intensity::default(),
                max_children: 1,
            };
            let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool);
            let root = root(Strategy::OneForOne, Intensity::default(), vec![dynamic]);
            let root = start(root, Reports::default().options()).await.unwrap();
            let ignores = ChildSpec::worker::<Child>("i", &Arbiter::current(), |_| Err(InitError::ignore()));
            for _ in 0..2 {
                let ignored = pool.start_child(ignores.clone().restart(restart)).await;
                assert_eq!(ignored, Err(StartError::Ignored));
            }
            assert_eq!(pool.call(CountChildren).await, Ok(ChildCounts::default()));
            assert_eq!(root.stop().await, ExitReason::Shutdown);
        }
    });
}

#[test]
fn one_for_all_and_rest_for_one_other_child_fails_restart() {
    run(async {
        // b fails once when it is restarted with a; what was started before it in the same restart is
        // stopped with the next try by one_for_all, and left alone by rest_for_one, for which b failed.
        for (strategy, expected) in [
            (Strategy::OneForAll, "-c -b +a !b -a +a +b +c"),
            (Strategy::RestForOne, "-c -b +a !b +b +c"),
        ] {
            let (events, [a, b, c], top) = (Events::default(), names(), Name::new("top"));
            let children = vec![
                child("a", &events, &a),
                moody("b", &events, &b, |nth| nth == 2),
                child("c", &events, &c),
            ];
            let root = root(strategy, Intensity::new(3, 3600), children).name(&top);
            let root = start(root, Reports::default().options()).await.unwrap();
            events.take();
            a.cast(End::ByPanic).unwrap();
            events.until(expected).await;
            assert_eq!(ids(&top).await, "a b c");
            root.stop().await;
        }
    });
}

#[test]
fn one_for_one_one_for_all_and_rest_for_one_escalation() {
    run(async {
        // A child that never starts again uses the budget up; the others are stopped, in reverse order.
        for strategy in STRATEGIES {
            let (events, reports, [a, b, c]) = (Events::default(), Reports::default(), names());
            let children = vec![
                child("a", &events, &a),
                moody("b", &events, &b, |nth| nth > 1),
                child("c", &events, &c),
            ];
            let root = root(strategy, Intensity::new(4, 3600), children);
            let root = start(root, reports.options()).await.unwrap();
            events.take();
            b.cast(End::ByPanic).unwrap();
            assert_eq!(root.wait().await, ExitReason::Shutdown, "{strategy}");
            let tries = events.text().matches("!b").count();
            assert_eq!(tries, 4, "{strategy}: {}", events.text());
            assert!(events.text().ends_with("-a"), "{strategy}: {}", events.text());
            let last = reports.short().pop().unwrap();
            assert_eq!(last, "shutdown:b", "{strategy}");
            assert_eq!(root.tree().count(), 0);
        }
    });
}

#[test]
fn one_for_one_one_for_all_and_rest_for_one_restart_frequency() {
    run(async {
        // Each strategy counts one restart for each exit, however many children it restarts.
        for strategy in STRATEGIES {
            let (events, [a, b]) = (Events::default(), names());
            let children = vec![child("a", &events, &a), child("b", &events, &b)];
            let root = root(strategy, Intensity::new(2, 3600), children);
            let root = start(root, Reports::default().options()).await.unwrap();
            for victim in [&a, &b] {
                let old = victim.whereis().unwrap();
                old.cast(End::ByPanic).unwrap();
                let back = || {
                    let new = |name: &Name<Child>| name.whereis().is_some_and(|child| child != old);
                    new(victim) && a.whereis().is_some() && b.whereis().is_some()
                };
                until("the restart", back, || events.text()).await;
                a.call(Count).await.unwrap();
                b.call(Count).await.unwrap();
            }
            assert_eq!(root.tree().restarts(), 2, "{strategy}");
            a.cast(End::ByPanic).unwrap();
            assert_eq!(root.wait().await, ExitReason::Shutdown, "{strategy}");
        }
    });
}

#[test]
fn simple_one_for_one_grid_of_restart_types_and_exit_reasons() {
    run(async {
        for restart in [Restart::Permanent, Restart::Transient, Restart::Temporary] {
            for (end, abnormal) in [
                (End::Normally, false),
                (End::With(ExitReason::Shutdown), false),
                (End::With(ExitReason::Error("disk".into())), true),
                (End::ByPanic, true),
                (End::ByKill, true),
            ] {
                let (events, reports, pool, name) = (
                    Events::default(),
                    Reports::default(),
                    Name::new("pool"),
                    Name::new("c"),
                );
                let spec = DynamicSpec {
                    intensity: Intensity::new(1, 5),
                    max_children: 9,
                };
                let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool);
                let root = root(Strategy::OneForOne, Intensity::new(0, 5), vec![dynamic]);
                let root = start(root, reports.options()).await.unwrap();
                let old = pool
                    .start_child(child("c", &events, &name).restart(restart))
                    .await
                    .unwrap();
                name.cast(end.clone()).unwrap();
                until("the end", || !old.is_alive(), || events.text()).await;
                let again = restart == Restart::Permanent || restart == Restart::Transient && abnormal;
                let what = format!("{restart} {end:?}");
                let settled = || match again {
                    true => name.whereis().is_some(),
                    false => !abnormal || reports.short().contains(&"child_terminated:c".to_owned()),
                };
                until(&what, settled, || reports.short().join(" ")).await;
                let active = |counts: ChildCounts| counts.active;
                let mut left = usize::MAX;
                for _ in 0..100 {
                    left = pool.call(CountChildren).await.map(active).unwrap();
                }
                assert_eq!(left, usize::from(again), "{what}");
                root.stop().await;
            }
        }
    });
}

#[test]
fn simple_one_for_one_shutdown_waits_for_each_as_long_as_its_time_out() {
    run(async {
        let (events, pool) = (Events::default(), Name::new("pool"));
        let spec = DynamicSpec {
            intensity: Intensity::default(),
            max_children: 9,
        };
        let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool);
        let root = root(Strategy::OneForOne, Intensity::default(), vec![dynamic]);
        let root = start(root, Reports::default().options()).await.unwrap();
        let tempers = [
            ("d1", Temper::Diligent),
            ("d2", Temper::Diligent),
            ("s", Temper::Stubborn),
        ];
        for (id, temper) in tempers {
            let spec = tempered(id, &events, &Name::new(id), temper);
            let spec = spec.shutdown(Shutdown::Timeout(Duration::from_millis(200)));
            pool.start_child(spec).await.unwrap();
        }
        events.take();
        let asked = Instant::now();
        root.stop().await;
        assert!(
            (200..210).contains(&asked.elapsed().as_millis()),
            "{:?}",
            asked.elapsed()
        );
        let mut ended: Vec<_> = events.text().split(' ').map(str::to_owned).collect();
        ended.sort();
        assert_eq!(ended, ["-d1", "-d2"]);
    });
}

/// `hanging_restart_loop`: a child that cannot be restarted for a while, and a budget that lasts.
#[test]
fn hanging_restart_loop_everything_is_answered_meanwhile_and_a_shutdown_ends_it() {
    run(async {
        let (events, top, [a, b]) = (Events::default(), Name::new("top"), names());
        let children = vec![moody("a", &events, &a, |nth| nth > 1), child("b", &events, &b)];
        let root = root(Strategy::OneForOne, Intensity::new(1_000_000, 3600), children).name(&top);
        let root = start(root, Reports::default().options()).await.unwrap();
        a.cast(End::ByPanic).unwrap();
        until(
            "some tries",
            || events.text().matches("!a").count() > 4,
            || events.text(),
        )
        .await;
        assert_eq!(ids(&top).await, "(a) b");
        let status = top.call(WhichChildren).await.unwrap();
        assert_eq!(status[0].state, ChildState::Restarting);
        let counts = ChildCounts {
            specs: 2,
            active: 1,
            supervisors: 0,
            workers: 2,
        };
        assert_eq!(top.call(CountChildren).await, Ok(counts));
        let restarting = Ok(Err(RestartError::Child(ChildError::Restarting)));
        assert_eq!(top.call(RestartChild("a".into())).await, restarting);
        assert_eq!(
            top.call(DeleteChild("a".into())).await,
            Ok(Err(ChildError::Restarting))
        );
        let again = moody("a", &events, &a, |_| false);
        assert_eq!(top.start_child(again).await, Err(StartError::AlreadyPresent));
        let third = child("c", &events, &Name::new("c"));
        assert!(top.start_child(third).await.is_ok(), "others are started");
        // It can be given up, which ends the loop …
        assert_eq!(top.call(TerminateChild::new("a")).await, Ok(Ok(())));
        let tries = events.text().matches("!a").count();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(ids(&top).await, "(a) b c");
        assert_eq!(events.text().matches("!a").count(), tries);
        assert_eq!(top.call(DeleteChild("a".into())).await, Ok(Ok(())));
        // … or the supervisor can be stopped in the middle of it.
        let looping = moody("l", &events, &Name::new("l"), |nth| nth > 1);
        let pid = top.start_child(looping).await.unwrap();
        pid.exit(ExitReason::Killed);
        until(
            "some tries",
            || events.text().matches("!l").count() > 2,
            || events.text(),
        )
        .await;
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert_eq!(root.tree().count(), 0);
    });
}

#[test]
fn hanging_restart_loop_simple() {
    run(async {
        let (events, pool, [a]) = (Events::default(), Name::new("pool"), names());
        let spec = DynamicSpec {
            intensity: Intensity::new(1_000_000, 3600),
            max_children: 9,
        };
        let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool);
        let root = root(Strategy::OneForOne, Intensity::default(), vec![dynamic]);
        let root = start(root, Reports::default().options()).await.unwrap();
        pool.start_child(moody("a", &events, &a, |nth| nth > 1))
            .await
            .unwrap();
        a.cast(End::ByPanic).unwrap();
        until(
            "some tries",
            || events.text().matches("!a").count() > 4,
            || events.text(),
        )
        .await;
        let again = pool.start_child(moody("a", &events, &a, |_| false)).await;
        assert!(
            matches!(
                again,
                Err(StartError::AlreadyPresent | StartError::AlreadyStarted(_))
            ),
            "{again:?}"
        );
        pool.start_child(child("b", &events, &Name::new("b")))
            .await
            .unwrap();
        assert_eq!(pool.call(TerminateChild::new("a")).await, Ok(Ok(())));
        let tries = events.text().matches("!a").count();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(pool.call(CountChildren).await.unwrap().active, 1);
        assert_eq!(events.text().matches("!a").count(), tries);
        assert_eq!(root.stop().await, ExitReason::Shutdown);
    });
}

#[test]
fn a_restart_that_meets_a_shutdown_gives_way_to_it() {
    run(async {
        // In every strategy, at every step of the restart: c hangs in its init, a is stubborn in its stop.
        for strategy in STRATEGIES {
            let (events, [a, b, c]) = (Events::default(), names());
            let starts = Arc::new(AtomicU32::new(0));
            let hangs = {
                let events = events.clone();
                ChildSpec::worker_async("c", &Arbiter::current(), move || {
                    let (first, events) = (starts.fetch_add(1, SeqCst) == 0, events.clone());
                    Box::pin(async move {
                        if !first {
                            events.push("?c".into());
                            std::future::pending::<()>().await;
                        }
                        Ok(Child::new("c", &events, Temper::Good))
                    })
                })
            };
            let stubborn = tempered("a", &events, &a, Temper::Stubborn);
            let children = vec![
                stubborn.shutdown(Shutdown::Timeout(Duration::from_millis(300))),
                child("b", &events, &b),
                hangs.name(&c),
            ];
            let root = root(strategy, Intensity::new(9, 60), children);
            let root = start(root, Reports::default().options()).await.unwrap();
            c.cast(End::ByPanic).unwrap();
            let hanging = || events.text().ends_with("?c");
            until("the hanging init", hanging, || events.text()).await;
            let asked = Instant::now();
            assert_eq!(root.stop().await, ExitReason::Shutdown, "{strategy}");
            assert!(
                (300..310).contains(&asked.elapsed().as_millis()),
                "{strategy}: {:?}",
                asked.elapsed()
            );
            assert_eq!(root.tree().count(), 0, "{strategy}");
        }
    });
}
