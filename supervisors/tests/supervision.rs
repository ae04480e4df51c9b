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
        for report in reports.all() {
            println!("{}\n{}", report.render_text(), report.render_json());
        }
    });
}

#[test]
fn a_dynamic_supervisor_starts_children_at_run_time_up_to_its_maximum() {
    run(async {
        let (events, reports) = (Events::default(), Reports::default());
        let (sessions, name) = (Name::new("sessions"), Name::new("s"));
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: 1,
        };
        let dynamic = ChildSpec::dynamic("sessions", &actix::Arbiter::current(), spec, &sessions);
        let root = root(Strategy::OneForOne, Intensity::new(3, 5), vec![dynamic]);
        let root = start(root, reports.options()).await.unwrap();
        let session = child("s/1", &events, &name).restart(Restart::Temporary);
        let pid = sessions.start_child(session.clone()).await.unwrap();
        assert_eq!(&**pid.path(), "root/sessions/s%2F1");
        assert_eq!(
            sessions.start_child(session).await,
            Err(StartError::AlreadyStarted(pid.clone()))
        );
        let another = child("s2", &events, &name).restart(Restart::Temporary);
        assert_eq!(
            sessions.start_child(another.clone()).await,
            Err(StartError::MaxChildren(1))
        );
        assert_eq!(root.tree().list().len(), 3);
        assert_eq!(sessions.call(TerminateChild::new(pid.clone())).await, Ok(Ok(())));
        assert!(!pid.is_alive());
        sessions.start_child(another).await.unwrap();
        assert_eq!(root.stop().await, ExitReason::Shutdown);
        assert_eq!(events.text(), "+s/1 -s/1 +s2 -s2");
    });
}
