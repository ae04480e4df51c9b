//! Children that are added at run time.

mod family;
use actix::Arbiter;
use family::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use supervisors::*;
use tokio::time::Instant;

async fn pool(intensity: Intensity, max_children: usize) -> (Root, Name<DynamicSupervisor>, Reports) {
    let (reports, name) = (Reports::default(), Name::new("pool"));
    let spec = DynamicSpec {
        intensity,
        max_children,
    };
    let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &name);
    let root = root(Strategy::OneForOne, Intensity::new(0, 5), vec![dynamic]);
    (start(root, reports.options()).await.unwrap(), name, reports)
}

#[test]
fn up_to_max_children_are_started_and_an_id_can_be_used_again() {
    run(async {
        let (root, pool, _) = pool(Intensity::new(1, 5), 1).await;
        let (events, name) = (Events::default(), Name::new("s"));
        let session = child("s/1", &events, &name).restart(Restart::Temporary);
        let pid = pool.start_child(session.clone()).await.unwrap();
        assert_eq!(&**pid.path(), "root/pool/s%2F1");
        assert_eq!(
            pool.start_child(session.clone()).await,
            Err(StartError::AlreadyStarted(pid.clone()))
        );
        let another = child("s2", &events, &name).restart(Restart::Temporary);
        assert_eq!(
            pool.start_child(another.clone()).await,
            Err(StartError::MaxChildren(1))
        );
        assert_eq!(pool.call(TerminateChild::new(pid.clone())).await, Ok(Ok(())));
        assert_eq!(
            pool.call(TerminateChild::new(pid)).await,
            Ok(Err(ChildError::NotFound))
        );
        pool.start_child(another).await.unwrap();
        assert_eq!(pool.call(TerminateChild::new("s2")).await, Ok(Ok(())));
        pool.start_child(session).await.unwrap();
        root.stop().await;
        assert_eq!(events.text(), "+s/1 -s/1 +s2 -s2 +s/1 -s/1");
    });
}

#[test]
fn all_children_are_stopped_at_once_and_errors_are_grouped() {
    run(async {
        let (root, pool, reports) = pool(Intensity::new(1, 5), 10).await;
        let (events, name) = (Events::default(), Name::new("s"));
        for id in ["a", "b", "c"] {
            let spec = tempered(id, &events, &name, Temper::Stubborn).restart(Restart::Temporary);
            pool.start_child(spec.shutdown(Shutdown::Timeout(Duration::from_millis(100))))
                .await
                .unwrap();
        }
        pool.start_child(child("good", &events, &name)).await.unwrap();
        let asked = Instant::now();
        root.stop().await;
        assert!(
            (100..110).contains(&asked.elapsed().as_millis()),
            "in parallel: {:?}",
            asked.elapsed()
        );
        let all = reports.all();
        let Some(Report::Supervisor(last)) = all.last() else {
            panic!("{:?}", reports.short())
        };
        assert_eq!(
            (last.error_context, last.offender.nb_children),
            (report::ErrorContext::ShutdownError, Some(3))
        );
        assert_eq!(
            all.iter()
                .filter(|report| report.level() == report::Level::Error)
                .count(),
            1
        );
        assert_eq!(
            all.iter()
                .filter(|report| report.level() == report::Level::Debug)
                .count(),
            3
        );
    });
}

#[test]
fn a_slow_init_does_not_hold_up_the_others() {
    run(async {
        let (root, pool, _) = pool(Intensity::new(1, 5), 10).await;
        let (events, name) = (Events::default(), Name::new("fast"));
        let open = Arc::new(tokio::sync::Notify::new());
        let (waits, said) = (open.clone(), events.clone());
        let slow = ChildSpec::worker_async("slow", &Arbiter::current(), move || {
            let (waits, said) = (waits.clone(), said.clone());
            Box::pin(async move {
                waits.notified().await;
                Ok(Child::new("slow", &said, Temper::Good))
            })
        });
        let slow = actix_rt::spawn(pool.start_child(slow));
        pool.start_child(child("fast", &events, &name)).await.unwrap();
        assert_eq!(events.text(), "+fast");
        open.notify_one();
        assert!(slow.await.unwrap().is_ok());
        assert_eq!(events.text(), "+fast +slow");
        root.stop().await;
    });
}

#[test]
fn crashes_of_temporary_children_are_reported_and_cost_nobody_anything() {
    run(async {
        let (root, pool, reports) = pool(Intensity::new(0, 5), 100).await;
        let events = Events::default();
        for id in ["a", "b", "c", "d"] {
            let name = Name::new(id);
            pool.start_child(child(id, &events, &name).restart(Restart::Temporary))
                .await
                .unwrap();
            name.cast(End::ByPanic).unwrap();
        }
        until(
            "4 reports",
            || {
                reports
                    .short()
                    .iter()
                    .filter(|r| r.starts_with("child_t"))
                    .count()
                    == 4
            },
            String::new,
        )
        .await;
        assert_eq!(pool.call(CountChildren).await, Ok(ChildCounts::default()));
        assert_eq!(root.tree().count(), 2);
        root.stop().await;
    });
}

#[test]
fn transient_children_are_restarted_and_share_one_intensity() {
    run(async {
        let (root, pool, reports) = pool(Intensity::new(2, 5), 100).await;
        let (events, a, b) = (Events::default(), Name::new("a"), Name::new("b"));
        pool.start_child(child("a", &events, &a).restart(Restart::Transient))
            .await
            .unwrap();
        pool.start_child(child("b", &events, &b).restart(Restart::Transient))
            .await
            .unwrap();
        a.cast(End::ByPanic).unwrap();
        events.until("+a +b +a").await;
        b.cast(End::ByPanic).unwrap();
        events.until("+a +b +a +b").await;
        a.cast(End::Normally).unwrap();
        events.until("+a +b +a +b -a").await;
        assert_eq!(pool.call(CountChildren).await.unwrap().active, 1);
        assert_eq!(root.tree().history().len(), 2);
        b.cast(End::ByPanic).unwrap();
        // The pool gives up, and so does the root, whose intensity is 0.
        assert_eq!(root.wait().await, ExitReason::Shutdown);
        let reported = reports.short().join(" ");
        assert!(
            reported.ends_with("child_terminated:b shutdown:b child_terminated:pool shutdown:pool"),
            "{reported}"
        );
    });
}

#[test]
fn a_restart_that_fails_is_tried_again_and_a_first_start_is_not() {
    run(async {
        let (root, pool, _) = pool(Intensity::new(5, 5), 100).await;
        let (events, name, broken) = (
            Events::default(),
            Name::<Child>::new("a"),
            Arc::new(AtomicBool::new(true)),
        );
        let spec = {
            let (events, broken) = (events.clone(), broken.clone());
            ChildSpec::worker("a", &Arbiter::current(), move |_| {
                match broken.swap(false, SeqCst) {
                    true => Err(InitError::failed("not yet")),
                    false => Ok(Child::new("a", &events, Temper::Good)),
                }
            })
            .restart(Restart::Transient)
            .name(&name)
        };
        let refused = pool.start_child(spec.clone()).await.unwrap_err();
        assert_eq!(refused, StartError::Init(ExitReason::Error("not yet".into())));
        assert_eq!(pool.call(CountChildren).await, Ok(ChildCounts::default()));
        pool.start_child(spec).await.unwrap();
        broken.store(true, SeqCst);
        name.cast(End::ByPanic).unwrap();
        events.until("+a +a").await;
        assert_eq!(root.tree().history().len(), 1);
        assert_eq!(root.tree().history()[0].n, 2);
        root.stop().await;
    });
}

#[test]
fn twenty_thousand_children_start_and_stop_in_no_time() {
    run(async {
        let (root, pool, _) = pool(Intensity::new(1, 5), 100_000).await;
        let (events, began) = (Events::default(), std::time::Instant::now());
        let mut starts = Vec::new();
        for n in 0..20_000 {
            let events = events.clone();
            let spec = ChildSpec::worker(format!("s{n}"), &Arbiter::current(), move |_| {
                Ok(Child::new("s", &events, Temper::Good))
            });
            starts.push(pool.start_child(spec.restart(Restart::Temporary)));
        }
        for start in starts {
            start.await.unwrap();
        }
        let started = began.elapsed();
        assert_eq!(root.tree().list().len(), 20_002);
        let listed = began.elapsed() - started;
        root.stop().await;
        println!(
            "start {started:?}, list {listed:?}, stop {:?}",
            began.elapsed() - started - listed
        );
        assert_eq!(root.tree().count(), 0);
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "quadratic? {:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_dynamic_supervisor_that_is_killed_takes_its_children_along_and_comes_back_without_them() {
    run(async {
        let (reports, pool, events) = (Reports::default(), Name::new("pool"), Events::default());
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: 10,
        };
        let dynamic = ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool);
        let root = root(Strategy::OneForOne, Intensity::new(1, 5), vec![dynamic]);
        let root = start(root, reports.options()).await.unwrap();
        let (a, b) = (Name::new("a"), Name::new("b"));
        pool.start_child(tempered("a", &events, &a, Temper::Stubborn))
            .await
            .unwrap();
        pool.start_child(child("b", &events, &b).restart(Restart::Temporary))
            .await
            .unwrap();
        let old = pool.whereis().unwrap();
        old.pid().exit(ExitReason::Killed);
        until(
            "a new pool",
            || pool.whereis().is_some_and(|new| new != old),
            String::new,
        )
        .await;
        assert!(a.whereis().is_none() && b.whereis().is_none());
        assert_eq!(pool.call(CountChildren).await, Ok(ChildCounts::default()));
        root.stop().await;
        assert_eq!(root.tree().count(), 0);
    });
}
