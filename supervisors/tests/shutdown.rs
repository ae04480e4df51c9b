//! How children are stopped: order, time-outs, kills, and children that panic on the way out.

mod family;
use actix::Arbiter;
use family::*;
use std::time::Duration;
use supervisors::*;
use tokio::time::Instant;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn one(spec: impl FnOnce(&Events, &Name<Child>) -> ChildSpec) -> (Root, Events, Reports) {
    let (events, reports, name) = (Events::default(), Reports::default(), Name::new("a"));
    let root = root(
        Strategy::OneForOne,
        Intensity::new(3, 5),
        vec![spec(&events, &name)],
    );
    let root = start(root, reports.options()).await.unwrap();
    (root, events, reports)
}

#[test]
fn a_child_that_ignores_the_exit_signal_is_killed_after_exactly_its_time_out() {
    run(async {
        let (root, events, reports) = one(|events, name| {
            tempered("a", events, name, Temper::Stubborn).shutdown(Shutdown::Timeout(ms(700)))
        })
        .await;
        let asked = Instant::now();
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert!(
            (700..=701).contains(&asked.elapsed().as_millis()),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(events.text(), "+a", "a kill runs no callback");
        assert_eq!(reports.short(), ["progress:a", "shutdown_error:a"]);
    });
}

#[test]
fn a_brutal_kill_waits_for_nothing_and_is_no_error() {
    run(async {
        let (root, events, reports) =
            one(|events, name| tempered("a", events, name, Temper::Stubborn).shutdown(Shutdown::BrutalKill))
                .await;
        let asked = Instant::now();
        root.stop().await;
        assert_eq!(asked.elapsed(), ms(0));
        assert_eq!((events.text().as_str(), reports.short().len()), ("+a", 1));
    });
}

#[test]
fn a_kill_overtakes_what_waits_in_the_mailbox() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("a", &events, &name)],
        );
        let root = start(root, Reports::default().options()).await.unwrap();
        let victim = name.whereis().unwrap();
        victim.cast(End::ByKill).unwrap();
        let behind = victim.call(Count);
        assert_eq!(behind.await, Err(CallError::Died));
        events.until("+a +a").await;
        assert!(matches!(root.tree().history()[0].reason, ExitReason::Killed));
        root.stop().await;
    });
}

#[test]
fn a_diligent_child_finishes_its_work_within_its_time_out() {
    run(async {
        let (root, events, reports) = one(|events, name| tempered("a", events, name, Temper::Diligent)).await;
        let asked = Instant::now();
        root.stop().await;
        assert!(
            asked.elapsed() >= ms(20) && asked.elapsed() < ms(30),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!((events.text().as_str(), reports.short().len()), ("+a -a", 1));
    });
}

#[test]
fn a_panic_in_stopped_or_drop_is_reported_and_hurts_nobody_else() {
    run(async {
        for temper in [Temper::PanicsInStopped, Temper::PanicsInDrop] {
            let (events, reports) = (Events::default(), Reports::default());
            let (a, b) = (Name::new("a"), Name::new("b"));
            let children = vec![child("a", &events, &a), tempered("b", &events, &b, temper)];
            let root = root(Strategy::OneForOne, Intensity::new(3, 5), children);
            let root = start(root, reports.options()).await.unwrap();
            // Torn by a panic, then panicking again while it is dropped: the first panic is the reason.
            b.cast(End::ByPanic).unwrap();
            events.until("+a +b +b").await;
            assert_eq!(a.call(Count).await, Ok(1));
            root.stop().await;
            assert_eq!(events.text(), "+a +b +b -b -a");
            let reported = reports.short().join(" ");
            assert!(
                reported.ends_with("progress:b crash:root/b shutdown_error:b"),
                "{reported}"
            );
        }
    });
}

#[test]
fn a_supervisor_that_crashes_takes_its_children_along_before_it_is_restarted() {
    run(async {
        let (events, reports, arbiter) = (Events::default(), Reports::default(), Arbiter::current());
        let (x, z) = (Name::new("x"), Name::new("z"));
        let inner = {
            let (events, x) = (events.clone(), x.clone());
            ChildSpec::supervisor("inner", &arbiter, move || {
                let children = vec![child("x", &events, &x)];
                SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), children)
            })
        };
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![inner, child("z", &events, &z)],
        );
        let root = start(root, reports.options()).await.unwrap();
        let old = x.whereis().unwrap();
        root.tree().crash("root/inner", "asked for").unwrap();
        events.until("+x +z +x").await;
        assert!(!old.pid().is_alive());
        assert_eq!(root.tree().count(), 4);
        assert_eq!(z.call(Count).await, Ok(1));
        let reported = reports.short()[3..].join(" ");
        assert_eq!(
            reported,
            "crash:root/inner child_terminated:inner progress:x progress:inner"
        );
        root.stop().await;
        assert_eq!(root.tree().count(), 0);
    });
}

#[test]
fn a_supervisor_that_is_killed_by_its_time_out_leaves_no_orphans() {
    run(async {
        let (events, arbiter) = (Events::default(), Arbiter::current());
        let x = Name::new("x");
        let inner = {
            let (events, x) = (events.clone(), x.clone());
            ChildSpec::supervisor("inner", &arbiter, move || {
                let children =
                    vec![tempered("x", &events, &x, Temper::Stubborn).shutdown(Shutdown::Infinity)];
                SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), children)
            })
            .shutdown(Shutdown::Timeout(ms(50)))
        };
        let root = root(Strategy::OneForOne, Intensity::new(3, 5), vec![inner]);
        let root = start(root, Reports::default().options()).await.unwrap();
        let orphan = x.whereis().unwrap();
        root.stop().await;
        assert!(!orphan.pid().is_alive());
        assert_eq!(root.tree().count(), 0);
    });
}

#[test]
fn a_supervisor_answers_while_a_child_is_stopping() {
    run(async {
        let (events, name, top) = (Events::default(), Name::new("a"), Name::<Supervisor>::new("top"));
        let slow = tempered("a", &events, &name, Temper::Stubborn).shutdown(Shutdown::Timeout(ms(300)));
        let root = root(Strategy::OneForOne, Intensity::new(3, 5), vec![slow]).name(&top);
        let root = start(root, Reports::default().options()).await.unwrap();
        let asked = Instant::now();
        let terminated = top.call(TerminateChild::new("a"));
        let status = top.call(WhichChildren).await.unwrap();
        assert!(matches!(status[0].state, ChildState::Stopping(_)), "{status:?}");
        assert_eq!(asked.elapsed(), ms(0));
        assert_eq!(terminated.await, Ok(Ok(())));
        assert_eq!(
            top.call(CountChildren).await.unwrap(),
            ChildCounts {
                specs: 1,
                workers: 1,
                ..Default::default()
            }
        );
        assert!(top.call(RestartChild("a".into())).await.unwrap().is_ok());
        assert_eq!(
            top.call(DeleteChild("a".into())).await,
            Ok(Err(ChildError::Running))
        );
        assert_eq!(top.call(TerminateChild::new("a")).await, Ok(Ok(())));
        assert_eq!(top.call(DeleteChild("a".into())).await, Ok(Ok(())));
        assert_eq!(
            top.call(DeleteChild("a".into())).await,
            Ok(Err(ChildError::NotFound))
        );
        let pid = top.start_child(child("b", &events, &name)).await.unwrap();
        assert_eq!(
            top.start_child(child("b", &events, &name)).await,
            Err(StartError::AlreadyStarted(pid))
        );
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert_eq!(top.call(WhichChildren).await, Err(CallError::NotRunning));
    });
}

#[test]
fn an_arbiter_that_ends_reports_the_exit_of_its_processes() {
    run(async {
        let (events, reports, name) = (Events::default(), Reports::default(), Name::<Child>::new("a"));
        let arbiter = Arbiter::new();
        let there = arbiter.handle();
        let spec = {
            let events = events.clone();
            ChildSpec::worker("a", &there, move |_| Ok(Child::new("a", &events, Temper::Good))).name(&name)
        };
        let root = root(Strategy::OneForOne, Intensity::new(0, 5), vec![spec]);
        let root = start(root, reports.options()).await.unwrap();
        assert_eq!(name.call(Count).await, Ok(1));
        arbiter.stop();
        assert_eq!(root.wait().await, ExitReason::Shutdown, "the restart budget is 0");
        assert_eq!(
            reports.short().join(" "),
            "progress:a child_terminated:a shutdown:a"
        );
    });
}
