//! Restart intensity, failing starts, and what happens when a supervisor gives up.

mod family;
use actix::Arbiter;
use family::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use supervisors::*;
use tokio::time::{Instant, advance};

async fn crash(name: &Name<Child>) {
    let victim = name.whereis().expect("it runs");
    victim.cast(End::ByPanic).unwrap();
    until("the crash", || !victim.pid().is_alive(), String::new).await;
}

#[test]
fn ten_crashes_in_a_hundred_seconds_are_tolerated_and_the_eleventh_is_not() {
    run(async {
        let (events, reports, a, b) = (
            Events::default(),
            Reports::default(),
            Name::new("a"),
            Name::new("b"),
        );
        let children = vec![child("b", &events, &b), child("a", &events, &a)];
        let root = root(Strategy::OneForOne, Intensity::new(10, 100), children);
        let root = start(root, reports.options()).await.unwrap();
        for _ in 0..10 {
            advance(Duration::from_secs(9)).await;
            crash(&a).await;
            until("the restart", || a.whereis().is_some(), || events.text()).await;
        }
        assert_eq!(b.call(Count).await, Ok(1));
        crash(&a).await;
        assert_eq!(root.wait().await, ExitReason::Shutdown);
        assert!(
            events.text().ends_with("+a -b"),
            "the others are stopped: {}",
            events.text()
        );
        let reported = reports.short();
        assert_eq!(
            reported[reported.len() - 3..],
            ["crash:root/a", "child_terminated:a", "shutdown:a"]
        );
        let Report::Supervisor(last) = reports.all().pop().unwrap() else {
            panic!("{reported:?}")
        };
        assert_eq!(last.reason, report::Cause::ReachedMaxRestartIntensity);
        let history = root.tree().history();
        assert_eq!(history.len(), 11);
        assert_eq!(history[9].n, 10);
        assert_eq!(history[10].outcome, RestartOutcome::GaveUp);
    });
}

#[test]
fn crashes_that_are_far_apart_are_tolerated_for_ever() {
    run(async {
        let (events, a) = (Events::default(), Name::new("a"));
        let root = root(
            Strategy::OneForOne,
            Intensity::new(1, 5),
            vec![child("a", &events, &a)],
        );
        let root = start(root, Reports::default().options()).await.unwrap();
        for _ in 0..20 {
            crash(&a).await;
            until("the restart", || a.whereis().is_some(), || events.text()).await;
            advance(Duration::from_secs(6)).await;
        }
        assert_eq!(root.stop().await, ExitReason::Shutdown);
    });
}

#[test]
fn a_supervisor_that_gives_up_is_restarted_by_its_own_supervisor_until_that_gives_up_too() {
    run(async {
        let (events, reports, arbiter) = (Events::default(), Reports::default(), Arbiter::current());
        let (x, y, z) = (Name::new("x"), Name::new("y"), Name::new("z"));
        let inner = {
            let (events, x, y) = (events.clone(), x.clone(), y.clone());
            ChildSpec::supervisor("inner", &arbiter, move || {
                let children = vec![child("x", &events, &x), child("y", &events, &y)];
                SupervisorSpec::new(Strategy::OneForOne, Intensity::new(2, 5), children)
            })
        };
        let root = root(
            Strategy::OneForOne,
            Intensity::new(1, 5),
            vec![child("z", &events, &z), inner],
        );
        let root = start(root, reports.options()).await.unwrap();
        events.take();
        for _ in 0..2 {
            crash(&x).await;
            until("the restart", || x.whereis().is_some(), || events.text()).await;
        }
        assert_eq!(events.take(), "+x +x");
        crash(&x).await;
        events.until("-y +x +y").await;
        assert_eq!(z.call(Count).await, Ok(1), "z noticed nothing");
        assert_eq!(
            x.whereis().unwrap().pid().generation(),
            1,
            "a new supervisor counts anew"
        );
        for _ in 0..3 {
            until("the restart", || x.whereis().is_some(), || events.text()).await;
            crash(&x).await;
        }
        assert_eq!(root.wait().await, ExitReason::Shutdown);
        assert!(events.text().ends_with("-y -z"), "{}", events.text());
        let reported = reports.short().join(" ");
        assert!(
            reported.ends_with("shutdown:x child_terminated:inner shutdown:inner"),
            "{reported}"
        );
    });
}

/// A child whose `init` fails when the counter says so.
fn flaky(events: &Events, name: &Name<Child>, starts: &Arc<AtomicU32>, fails: fn(u32) -> bool) -> ChildSpec {
    let (events, starts) = (events.clone(), starts.clone());
    ChildSpec::worker("flaky", &Arbiter::current(), move |_| {
        let nth = starts.fetch_add(1, SeqCst) + 1;
        if fails(nth) {
            events.push(format!("!{nth}"));
            return Err(InitError::failed("the port is in use"));
        }
        Ok(Child::new("flaky", &events, Temper::Good))
    })
    .name(name)
}

#[test]
fn a_child_that_fails_at_the_first_start_undoes_those_before_it_in_reverse() {
    run(async {
        let (events, reports) = (Events::default(), Reports::default());
        let (a, b, f) = (Name::new("a"), Name::new("b"), Name::new("f"));
        let flaky = flaky(&events, &f, &Arc::default(), |_| true);
        let children = vec![
            child("a", &events, &a),
            child("b", &events, &b),
            flaky,
            child("c", &events, &b),
        ];
        let root = root(Strategy::OneForOne, Intensity::new(9, 5), children);
        let error = start(root, reports.options()).await.unwrap_err();
        assert_eq!(events.text(), "+a +b !1 -b -a");
        let why = error.to_string();
        assert!(
            why.contains("failed to start child flaky: error: the port is in use"),
            "{why}"
        );
        assert_eq!(reports.short(), ["progress:a", "progress:b", "start_error:flaky"]);
    });
}

#[test]
fn a_restart_that_fails_is_tried_again_after_0_10_50_and_250_ms_and_counts() {
    run(async {
        let (events, reports, name, starts) = (
            Events::default(),
            Reports::default(),
            Name::new("f"),
            Arc::default(),
        );
        let flaky = flaky(&events, &name, &starts, |nth| (2..=5).contains(&nth));
        let root = root(Strategy::OneForOne, Intensity::new(5, 5), vec![flaky]);
        let root = start(root, reports.options()).await.unwrap();
        let crashed = Instant::now();
        crash(&name).await;
        events.until("+flaky !2 !3 !4 !5 +flaky").await;
        let waited = crashed.elapsed().as_millis();
        assert!(
            (310..=325).contains(&waited),
            "0 + 10 + 50 + 250 ms, not {waited}"
        );
        let history = root.tree().history();
        assert_eq!(
            history.iter().map(|record| record.n).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5]
        );
        let last = history.last().unwrap();
        assert_eq!((last.outcome, last.generation), (RestartOutcome::Restarted, 2));
        assert!(last.downtime_us >= 310_000, "{}", last.downtime_us);
        // The budget of 5 is used up: one more is one too many.
        crash(&name).await;
        assert_eq!(root.wait().await, ExitReason::Shutdown);
    });
}

#[test]
fn a_restart_that_never_succeeds_escalates() {
    run(async {
        let (events, reports, name, starts) = (
            Events::default(),
            Reports::default(),
            Name::new("f"),
            Arc::default(),
        );
        let flaky = flaky(&events, &name, &starts, |nth| nth > 1);
        let root = root(Strategy::OneForOne, Intensity::new(3, 60), vec![flaky]);
        let root = start(root, reports.options()).await.unwrap();
        crash(&name).await;
        assert_eq!(root.wait().await, ExitReason::Shutdown);
        assert_eq!(events.text(), "+flaky !2 !3 !4");
        let reported = reports.short()[2..].join(" ");
        let tries = "start_error:flaky start_error:flaky start_error:flaky shutdown:flaky";
        assert_eq!(reported, format!("child_terminated:flaky {tries}"));
    });
}

#[test]
fn a_restart_that_fails_leaves_the_supervisor_free_for_other_children() {
    run(async {
        let (events, name, other, starts) =
            (Events::default(), Name::new("f"), Name::new("o"), Arc::default());
        let flaky = flaky(&events, &name, &starts, |nth| (2..=5).contains(&nth));
        let children = vec![flaky, child("o", &events, &other)];
        let root = root(Strategy::OneForOne, Intensity::new(9, 5), children);
        let root = start(root, Reports::default().options()).await.unwrap();
        crash(&name).await;
        until("the pause", || events.text().ends_with("!4"), || events.text()).await;
        crash(&other).await;
        until("the restart of o", || other.whereis().is_some(), || events.text()).await;
        assert!(name.whereis().is_none(), "still pausing");
        root.stop().await;
    });
}

#[test]
fn an_init_that_panics_or_hangs_is_a_failed_start_and_ignore_is_none() {
    run(async {
        let arbiter = Arbiter::current();
        let reports = Reports::default();
        let panics = ChildSpec::worker::<Child>("p", &arbiter, |_| panic!("no state today"));
        let error = start(
            root(Strategy::OneForOne, Intensity::default(), vec![panics]),
            reports.options(),
        )
        .await;
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("panic: no state today at")
        );
        assert_eq!(reports.short(), ["crash:root/p", "start_error:p"]);

        let top: Name<Supervisor> = Name::new("top");
        let ignores = ChildSpec::worker::<Child>("i", &arbiter, |_| Err(InitError::ignore()));
        let root = root(Strategy::OneForOne, Intensity::default(), vec![ignores.clone()]).name(&top);
        let root = start(root, Reports::default().options()).await.unwrap();
        assert_eq!(
            top.call(WhichChildren).await.unwrap()[0].state,
            ChildState::Stopped
        );
        let ignored = top.call(RestartChild("i".into())).await.unwrap();
        assert_eq!(ignored, Err(RestartError::Start(StartError::Ignored)));

        // A hanging init does not keep its supervisor from being stopped.
        let hangs = ChildSpec::worker_async::<Child>("h", &arbiter, || Box::pin(std::future::pending()));
        let started = top.start_child(hangs);
        let status = top.call(WhichChildren).await.unwrap();
        assert!(matches!(status[1].state, ChildState::Starting(_)), "{status:?}");
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert_eq!(started.await, Err(StartError::ShuttingDown));
    });
}

#[test]
fn specs_that_contradict_themselves_are_refused() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let a = child("a", &events, &name);
        for (children, why) in [
            (vec![a.clone(), a.clone()], "duplicate child id a"),
            (vec![a.clone().significant(true)], "permanent and significant"),
            (
                vec![a.clone().restart(Restart::Transient).significant(true)],
                "never shuts itself down",
            ),
        ] {
            let root = root(Strategy::OneForOne, Intensity::default(), children);
            let error = start(root, Reports::default().options())
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    });
}

#[test]
fn significant_children_take_their_supervisor_along_when_they_end_by_themselves() {
    run(async {
        use AutoShutdown::{AllSignificant, AnySignificant};
        for (auto_shutdown, ends_with_first) in [(AnySignificant, true), (AllSignificant, false)] {
            let (events, a, b) = (Events::default(), Name::new("a"), Name::new("b"));
            let significant = |spec: ChildSpec| spec.restart(Restart::Transient).significant(true);
            let children = vec![
                significant(child("a", &events, &a)),
                significant(child("b", &events, &b)),
            ];
            let root = ChildSpec::supervisor("root", &Arbiter::current(), move || {
                SupervisorSpec::new(Strategy::OneForOne, Intensity::new(5, 5), children.clone())
                    .auto_shutdown(auto_shutdown)
            });
            let root = start(root, Reports::default().options()).await.unwrap();
            // A crash is a restart, not an end.
            crash(&a).await;
            events.until("+a +b +a").await;
            a.cast(End::Normally).unwrap();
            if !ends_with_first {
                events.until("+a +b +a -a").await;
                assert_eq!(b.call(Count).await, Ok(1));
                b.cast(End::Normally).unwrap();
            }
            assert_eq!(root.wait().await, ExitReason::Shutdown);
            assert_eq!(events.text(), "+a +b +a -a -b");
        }
    });
}
