//! Monitors, names, mailbox depth: what a process can know of another.

mod family;
use actix::{Actor, Arbiter, Handler, Message};
use family::*;
use std::sync::{Arc, Mutex};
use supervisors::*;

/// Watches whom it is told to, and notes each `Down`.
struct Watcher(Arc<Mutex<Vec<Down>>>);

impl Actor for Watcher {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "Vec<MonitorRef>")]
struct Watch(Pid, usize);

impl Handler<Watch> for Watcher {
    type Result = Vec<MonitorRef>;

    fn handle(&mut self, Watch(pid, times): Watch, ctx: &mut Context<Self>) -> Vec<MonitorRef> {
        (0..times).map(|_| ctx.monitor(&pid)).collect()
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct KillAndForget(Pid, MonitorRef);

impl Handler<KillAndForget> for Watcher {
    type Result = ();

    /// The victim lives on another arbiter: when this returns, its `Down` lies in our mailbox.
    fn handle(&mut self, KillAndForget(pid, monitor): KillAndForget, ctx: &mut Context<Self>) {
        pid.exit(ExitReason::Killed);
        while pid.is_alive() {
            std::thread::yield_now();
        }
        ctx.demonitor(monitor);
    }
}

impl Handler<Down> for Watcher {
    type Result = ();

    fn handle(&mut self, down: Down, _: &mut Context<Self>) {
        self.0.lock().unwrap().push(down);
    }
}

struct Scene {
    root: Root,
    events: Events,
    target: Name<Child>,
    watcher: Name<Watcher>,
    downs: Arc<Mutex<Vec<Down>>>,
}

/// A watcher here and its target on another arbiter.
async fn scene(there: &Arbiter) -> Scene {
    let (events, downs) = (Events::default(), Arc::<Mutex<Vec<Down>>>::default());
    let (target, watcher) = (Name::new("target"), Name::new("watcher"));
    let child = {
        let events = events.clone();
        ChildSpec::worker("target", &there.handle(), move |_| {
            Ok(Child::new("target", &events, Temper::Good))
        })
        .name(&target)
    };
    let notes = downs.clone();
    let watching = ChildSpec::worker("watcher", &Arbiter::current(), move |_| {
        Ok(Watcher(notes.clone()))
    })
    .name(&watcher);
    let root = root(Strategy::OneForOne, Intensity::new(9, 5), vec![child, watching]);
    let root = start(root, Reports::default().options()).await.unwrap();
    Scene {
        root,
        events,
        target,
        watcher,
        downs,
    }
}

#[test]
fn a_down_comes_exactly_once_per_monitor_with_the_reason() {
    run(async {
        let Scene {
            root,
            events,
            target,
            watcher,
            downs,
        } = scene(&Arbiter::new()).await;
        let old = target.whereis().unwrap();
        let monitors = watcher.call(Watch(old.pid().clone(), 2)).await.unwrap();
        old.cast(End::With(ExitReason::Error("disk".into()))).unwrap();
        until(
            "both downs",
            || downs.lock().unwrap().len() == 2,
            || events.text(),
        )
        .await;
        {
            let downs = downs.lock().unwrap();
            assert_eq!(
                downs.iter().map(|down| down.monitor).collect::<Vec<_>>(),
                monitors
            );
            assert!(
                downs
                    .iter()
                    .all(|down| down.reason == ExitReason::Error("disk".into()) && down.pid == *old.pid())
            );
        }
        // Of a process that has ended long ago.
        watcher.call(Watch(old.pid().clone(), 1)).await.unwrap();
        until("noproc", || downs.lock().unwrap().len() == 3, || events.text()).await;
        assert_eq!(downs.lock().unwrap()[2].reason, ExitReason::NoProc);
        old.pid().exit(ExitReason::Killed);
        root.stop().await;
        assert_eq!(downs.lock().unwrap().len(), 3);
    });
}

#[test]
fn no_down_is_handled_after_demonitor_even_if_it_is_already_on_its_way() {
    run(async {
        let Scene {
            root,
            target,
            watcher,
            downs,
            ..
        } = scene(&Arbiter::new()).await;
        let pid = target.whereis().unwrap().pid().clone();
        let monitor = watcher.call(Watch(pid.clone(), 1)).await.unwrap()[0];
        watcher.call(KillAndForget(pid, monitor)).await.unwrap();
        root.stop().await;
        assert_eq!(downs.lock().unwrap().len(), 0);
    });
}

#[test]
fn a_name_survives_a_restart_and_is_free_while_nobody_runs() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("a", &events, &name)],
        );
        assert!(name.cast(Count).is_err());
        assert_eq!(name.call(Count).await, Err(CallError::NotRunning));
        let root = start(root, Reports::default().options()).await.unwrap();
        let first = name.whereis().unwrap();
        name.cast(End::ByPanic).unwrap();
        events.until("+a +a").await;
        assert_ne!(name.whereis().unwrap(), first);
        assert_eq!(name.call(Count).await, Ok(1));
        assert_eq!(first.call(Count).await, Err(CallError::NotRunning));
        assert!(first.cast(Count).is_err());
        assert!(first.caster::<Count>().cast(Count).is_err());
        root.stop().await;
        assert!(name.whereis().is_none());
    });
}

#[test]
fn the_mailbox_is_counted_in_messages_that_wait() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("a", &events, &name)],
        );
        let root = start(root, Reports::default().options()).await.unwrap();
        let child = name.whereis().unwrap();
        let caster = child.caster::<Count>();
        for _ in 0..3 {
            child.cast(Count).unwrap();
            caster.cast(Count).unwrap();
        }
        let answer = name.call(Count);
        assert_eq!(child.pid().mailbox_len(), 7);
        assert_eq!(root.tree().list()[1].mailbox_len, 7);
        assert_eq!(answer.await, Ok(7));
        assert_eq!(child.pid().mailbox_len(), 0);
        root.stop().await;
    });
}

#[test]
fn a_call_is_handled_even_if_nobody_waits_for_its_answer() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("a", &events, &name)],
        );
        let root = start(root, Reports::default().options()).await.unwrap();
        drop(name.call(Count));
        assert_eq!(name.call(Count).await, Ok(2));
        root.stop().await;
    });
}

#[test]
#[should_panic(
    expected = "child a is a monitors::Watcher, the name \"x\" is one for a monitors::family::Child"
)]
fn a_name_for_another_type_is_refused_when_the_spec_is_written() {
    run(async {
        let spec = ChildSpec::worker("a", &Arbiter::current(), |_| Ok(Watcher(Arc::default())));
        spec.name(&Name::<Child>::new("x"));
    });
}
