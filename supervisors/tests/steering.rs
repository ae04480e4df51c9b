//! Children by their paths: who is there, who is not, and what an operator can do to them.

mod family;
use actix::Arbiter;
use family::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use supervisors::*;

struct Estate {
    root: Root,
    events: Events,
    pool: Name<DynamicSupervisor>,
    broken: Arc<AtomicBool>,
}

/// `root` over `a/b`, `temp` (temporary), `pool` (dynamic) and `flaky`, whose init fails while it is broken.
async fn estate() -> Estate {
    let (events, pool, broken) = (
        Events::default(),
        Name::new("pool"),
        Arc::new(AtomicBool::new(false)),
    );
    let spec = DynamicSpec {
        intensity: Intensity::new(9, 5),
        max_children: 10,
    };
    let flaky = {
        let (events, broken) = (events.clone(), broken.clone());
        ChildSpec::worker("flaky", &Arbiter::current(), move |_| match broken.load(SeqCst) {
            true => Err(InitError::failed("the port is in use")),
            false => Ok(Child::new("flaky", &events, Temper::Good)),
        })
    };
    let children = vec![
        child("a/b", &events, &Name::new("a")),
        child("temp", &events, &Name::new("t")).restart(Restart::Temporary),
        ChildSpec::dynamic("pool", &Arbiter::current(), spec, &pool),
        flaky,
    ];
    let root = root(Strategy::OneForOne, Intensity::new(20, 60), children);
    let root = start(root, Reports::default().options()).await.unwrap();
    Estate {
        root,
        events,
        pool,
        broken,
    }
}

fn states(list: &[ProcessInfo]) -> String {
    let state = |info: &ProcessInfo| format!("{}:{}", info.path.trim_start_matches("root/"), info.state);
    list.iter().map(state).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_child_is_stopped_seen_started_and_forgotten_by_its_path() {
    run(async {
        let Estate { root, events, .. } = estate().await;
        let tree = root.tree();
        tree.terminate_child("root/a%2Fb").await.unwrap();
        let whole = "root:running a%2Fb:stopped temp:running pool:running flaky:running";
        assert_eq!(states(&tree.list()), whole);
        assert_eq!(states(&tree.summary()), whole);
        let stopped = tree.describe("root/a%2Fb").unwrap();
        assert_eq!((stopped.pid, stopped.generation, &*stopped.id), (None, 1, "a/b"));
        assert_eq!(tree.count(), 4, "only the living are counted");

        let pid = tree.restart_child("root/a%2Fb").await.unwrap();
        assert_eq!(tree.find("root/a%2Fb"), Some(pid.clone()));
        assert_eq!(pid.generation(), 2);
        let running = Err(SteerError::Child(ChildError::Running));
        assert_eq!(tree.restart_child("root/a%2Fb").await.map(drop), running);
        assert_eq!(tree.delete_child("root/a%2Fb").await, running);

        tree.terminate_child("root/temp").await.unwrap();
        assert!(
            tree.describe("root/temp").is_none(),
            "a temporary child is forgotten"
        );
        let gone = Err(SteerError::Child(ChildError::NotFound));
        assert_eq!(tree.restart_child("root/temp").await.map(drop), gone);
        tree.terminate_child("root/a%2Fb").await.unwrap();
        tree.delete_child("root/a%2Fb").await.unwrap();
        assert_eq!(states(&tree.list()), "root:running pool:running flaky:running");
        assert_eq!(events.text(), "+a/b +temp +flaky -a/b +a/b -temp -a/b");
        root.stop().await;
        assert!(tree.list().is_empty());
    });
}

#[test]
fn what_cannot_be_done_to_a_path_says_why() {
    run(async {
        let Estate {
            root, events, pool, ..
        } = estate().await;
        let tree = root.tree();
        assert_eq!(
            tree.terminate_child("root").await,
            Err(SteerError::Root("root".into()))
        );
        for nobody in ["nobody", "root/nobody/x", "root/flaky/x"] {
            let error = tree.terminate_child(nobody).await.unwrap_err();
            assert_eq!(error.to_string(), format!("not_found: no process at {nobody}"));
        }
        assert!(tree.kill("root/nobody").is_err() && tree.crash("root/nobody", "x").is_err());
        let guest = child("guest", &events, &Name::new("g")).restart(Restart::Temporary);
        pool.start_child(guest).await.unwrap();
        let running = Err(SteerError::Child(ChildError::Running));
        assert_eq!(tree.restart_child("root/pool/guest").await.map(drop), running);
        assert_eq!(
            tree.summary().len(),
            5,
            "the guests of a pool are not in the summary"
        );
        assert_eq!(tree.summary()[3].supervision.unwrap().children, 1);
        assert_eq!(states(&tree.children("root/pool")), "pool/guest:running");
        tree.terminate_child("root/pool/guest").await.unwrap();
        let dynamic = Err(SteerError::Dynamic("root/pool/guest".into()));
        assert_eq!(tree.delete_child("root/pool/guest").await, dynamic);
        root.stop().await;
    });
}

#[test]
fn a_child_that_waits_for_its_restart_is_seen_waiting() {
    run(async {
        let Estate { root, broken, .. } = estate().await;
        let tree = root.tree();
        broken.store(true, SeqCst);
        tree.kill("root/flaky").unwrap();
        let waiting = || {
            tree.describe("root/flaky")
                .is_some_and(|child| child.state == ProcessState::Restarting)
        };
        until("the pause", waiting, || states(&tree.list())).await;
        let error = tree.restart_child("root/flaky").await.unwrap_err();
        assert_eq!(error, SteerError::Child(ChildError::Restarting));
        let root_info = &tree.summary()[0];
        assert!(
            root_info.supervision.unwrap().intensity_used >= 2,
            "failed attempts count"
        );
        broken.store(false, SeqCst);
        let back = || tree.find("root/flaky").is_some();
        until("the restart", back, || states(&tree.list())).await;
        assert_eq!(tree.restarts(), 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(
            tree.summary()[0].supervision.unwrap().intensity_used,
            0,
            "long ago"
        );
        root.stop().await;
    });
}

#[test]
fn a_child_of_a_pool_that_waits_for_its_restart_is_seen_waiting() {
    run(async {
        let Estate {
            root, events, pool, ..
        } = estate().await;
        let broken = Arc::new(AtomicBool::new(false));
        let (fails, tree, name) = (broken.clone(), root.tree(), Name::<Child>::new("g"));
        let guest = ChildSpec::worker("guest", &Arbiter::current(), move |_| match fails.load(SeqCst) {
            true => Err(InitError::failed("not yet")),
            false => Ok(Child::new("guest", &events, Temper::Good)),
        });
        pool.start_child(guest.restart(Restart::Transient).name(&name))
            .await
            .unwrap();
        broken.store(true, SeqCst);
        name.cast(End::ByPanic).unwrap();
        let waiting = || states(&tree.children("root/pool")) == "pool/guest:restarting";
        until("the pause", waiting, || states(&tree.list())).await;
        broken.store(false, SeqCst);
        let back = || states(&tree.children("root/pool")) == "pool/guest:running";
        until("the restart", back, || states(&tree.list())).await;
        assert_eq!(tree.summary()[3].supervision.unwrap().child_crashes, 1);
        root.stop().await;
    });
}

#[test]
fn a_hanging_init_is_seen_starting_and_so_are_those_behind_it() {
    run(async {
        let Estate { root, events, .. } = estate().await;
        let (tree, arbiter) = (root.tree(), Arbiter::current());
        tree.terminate_child("root/flaky").await.unwrap();
        let (inner_arbiter, top) = (arbiter.clone(), Name::<Supervisor>::new("top"));
        let inner = ChildSpec::supervisor("inner", &arbiter, move || {
            let hangs =
                || ChildSpec::worker_async::<Child>("h", &inner_arbiter, || Box::pin(std::future::pending()));
            let behind = child("behind", &events, &Name::new("b"));
            SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), vec![hangs(), behind])
        });
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: 1,
        };
        let nest = Name::new("nest");
        let other = start(
            supervisors::ChildSpec::dynamic("other", &arbiter, spec, &nest),
            Reports::default().options(),
        );
        let other = other.await.unwrap();
        drop(nest.start_child(inner.name(&top)));
        let seen = || states(&other.tree().children("other/inner"));
        let starting = "other/inner/h:starting other/inner/behind:starting";
        until("the start", || seen() == starting, seen).await;
        other.stop().await;
        root.stop().await;
    });
}
