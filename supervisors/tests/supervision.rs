//! A tree lives: it starts in order, restarts what dies, and stops in reverse.

mod family;
use family::*;
use supervisors::*;

#[test]
fn a_panic_takes_one_process_and_its_supervisor_restarts_it_with_fresh_state() {
    run(async {
        let (events, reports) = (Events::default(), Reports::default());
        let (a, b) = (Name::new("a"), Name::new("b"));
        let children = vec![child("a", &events, &a), child("b", &events, &b)];
        let root = root(Strategy::OneForOne, Intensity::new(3, 5), children);
        let root = start(root, reports.options()).await.unwrap();
        assert_eq!(events.text(), "+a +b");
        assert_eq!(a.call(Count).await, Ok(1));
        assert_eq!(b.call(Count).await, Ok(1));
        assert_eq!(a.call(End::ByPanic).await, Err(CallError::Died));
        events.until("+a +b +a").await;
        assert_eq!(a.call(Count).await, Ok(1), "fresh state");
        assert_eq!(b.call(Count).await, Ok(2), "the sibling kept its state");
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert_eq!(events.text(), "+a +b +a -b -a");
        let expected = "progress:a progress:b progress:root crash:root/a child_terminated:a progress:a";
        assert_eq!(reports.short().join(" "), expected.replace("progress:root ", ""));
    });
}

#[test]
fn the_tree_lists_parents_before_children_and_siblings_in_start_order() {
    run(async {
        let (events, z, a) = (Events::default(), Name::new("z"), Name::new("a"));
        let inner = {
            let (events, a) = (events.clone(), a.clone());
            ChildSpec::supervisor("inner", &actix::Arbiter::current(), move || {
                let children = vec![child("b", &events, &Name::new("b")), child("a", &events, &a)];
                SupervisorSpec::new(Strategy::RestForOne, Intensity::new(7, 30), children)
            })
        };
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("z", &events, &z), inner],
        );
        let root = start(root, Reports::default().options()).await.unwrap();
        let tree = root.tree();
        let paths = |tree: &Tree| {
            tree.list()
                .iter()
                .map(|process| process.path.to_string())
                .collect::<Vec<_>>()
        };
        let whole = ["root", "root/z", "root/inner", "root/inner/b", "root/inner/a"];
        assert_eq!(paths(&tree), whole);
        let inner = tree.list()[2].supervision.unwrap();
        assert_eq!(
            (inner.strategy, inner.intensity),
            (Strategy::RestForOne, Intensity::new(7, 30))
        );
        assert_eq!((inner.children, inner.intensity_used), (2, 0));

        assert_eq!(
            tree.crash("root/nowhere", "x").unwrap_err().to_string(),
            "not_found: no process at root/nowhere"
        );
        tree.crash("root/inner/a", "asked for by a test").unwrap();
        events.until("+z +b +a +a").await;
        assert_eq!(paths(&tree), whole);
        assert_eq!(tree.list()[4].restarts, 1);
        let inner = tree.list()[2].supervision.unwrap();
        assert_eq!(
            (inner.intensity_used, inner.child_restarts, inner.child_crashes),
            (1, 1, 1)
        );
        assert_eq!(
            tree.find("root/inner/a").as_ref(),
            a.whereis().as_ref().map(Ref::pid)
        );
        let record = &tree.history()[0];
        assert!(
            matches!(&record.reason, ExitReason::Panic(panic) if &*panic.message == "asked for by a test")
        );
        assert_eq!(
            (&*record.path, &*record.supervisor),
            ("root/inner/a", "root/inner")
        );
        root.stop().await;
        assert_eq!(tree.list().len(), 0);
    });
}

#[test]
fn history_is_bounded_and_keeps_the_newest() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let options = TreeOptions {
            history_len_max: 3,
            ..Reports::default().options()
        };
        let root = root(
            Strategy::OneForOne,
            Intensity::new(100, 5),
            vec![child("a", &events, &name)],
        );
        let root = start(root, options).await.unwrap();
        for _ in 0..5 {
            let victim = name.whereis().unwrap();
            victim.cast(End::ByPanic).unwrap();
            until(
                "a restart",
                || name.whereis().is_some_and(|new| new != victim),
                || events.text(),
            )
            .await;
            name.call(Count).await.unwrap();
        }
        let generations: Vec<_> = root
            .tree()
            .history()
            .iter()
            .map(|record| record.generation)
            .collect();
        assert_eq!(generations, [4, 5, 6]);
        root.stop().await;
    });
}

#[test]
fn a_sink_that_panics_takes_nobody_along() {
    run(async {
        let (events, name) = (Events::default(), Name::new("a"));
        let sink: ReportSink = std::sync::Arc::new(|_| panic!("the disk is full"));
        let options = TreeOptions {
            sink,
            ..TreeOptions::default()
        };
        let root = root(
            Strategy::OneForOne,
            Intensity::new(3, 5),
            vec![child("a", &events, &name)],
        );
        let root = start(root, options).await.unwrap();
        name.cast(End::ByPanic).unwrap();
        events.until("+a +a").await;
        assert_eq!(root.stop().await, ExitReason::Shutdown);
    });
}
