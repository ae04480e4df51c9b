//! Links, call time-outs, the watchdog: what OTP users look for beside monitors.

mod family;
use actix::{Actor, Arbiter, Handler, Message};
use family::*;
use std::sync::mpsc;
use std::time::Duration;
use supervisors::*;
use tokio::time::Instant;

/// Links itself to whom it is told.
struct Partner;

impl Actor for Partner {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
enum Tie {
    Link(Pid),
    Unlink(Pid),
    End(ExitReason),
    Crash,
}

impl Handler<Tie> for Partner {
    type Result = ();

    fn handle(&mut self, tie: Tie, ctx: &mut Context<Self>) {
        match tie {
            Tie::Link(pid) => ctx.link(&pid),
            Tie::Unlink(pid) => ctx.unlink(&pid),
            Tie::End(reason) => ctx.exit(reason),
            Tie::Crash => panic!("torn"),
        }
    }
}

struct Pair {
    root: Root,
    reports: Reports,
    a: Name<Partner>,
    b: Name<Partner>,
}

/// Two temporary children on two arbiters, linked twice over.
async fn pair(there: &Arbiter) -> Pair {
    let (reports, a, b) = (Reports::default(), Name::new("a"), Name::new("b"));
    let one = ChildSpec::worker("a", &Arbiter::current(), |_| Ok(Partner)).name(&a);
    let two = ChildSpec::worker("b", &there.handle(), |_| Ok(Partner)).name(&b);
    let children = vec![one.restart(Restart::Temporary), two.restart(Restart::Temporary)];
    let root = root(Strategy::OneForOne, Intensity::new(0, 5), children);
    let root = start(root, reports.options()).await.unwrap();
    for _ in 0..2 {
        let other = b.whereis().unwrap().pid().clone();
        a.call(Tie::Link(other)).await.unwrap();
    }
    Pair { root, reports, a, b }
}

async fn ended(name: &Name<Partner>) {
    until("the end", || name.whereis().is_none(), String::new).await;
}

#[test]
fn linked_processes_end_together_with_one_reason_and_one_crash_report() {
    run(async {
        for first in ["a", "b"] {
            let there = Arbiter::new();
            let Pair { root, reports, a, b } = pair(&there).await;
            let victim = if first == "a" { &a } else { &b };
            victim.cast(Tie::Crash).unwrap();
            ended(&a).await;
            ended(&b).await;
            let done = || reports.short().len() == 5;
            until("the reports", done, || reports.short().join(" ")).await;
            let mut told = reports.short()[2..].to_vec();
            told.sort();
            let crash = format!("crash:root/{first}");
            let expected = ["child_terminated:a", "child_terminated:b", &*crash];
            assert_eq!(told, expected, "the other's end is no crash of its own");
            for report in reports.all() {
                if let Report::Supervisor(report) = report {
                    let report::Cause::Exit(ExitReason::Panic(panic)) = report.reason else {
                        panic!("{report:?}")
                    };
                    assert_eq!(&*panic.message, "torn");
                }
            }
            root.stop().await;
        }
    });
}

#[test]
fn every_reason_but_normal_passes_a_link_and_none_passes_what_was_untied() {
    run(async {
        let cases = [
            (ExitReason::Normal, false, true),
            (ExitReason::Shutdown, false, false),
            (ExitReason::Error("disk".into()), false, false),
            (ExitReason::Error("disk".into()), true, true),
        ];
        for (reason, untied, survives) in cases {
            let there = Arbiter::new();
            let Pair { root, a, b, .. } = pair(&there).await;
            if untied {
                let other = a.whereis().unwrap().pid().clone();
                b.call(Tie::Unlink(other)).await.unwrap();
            }
            a.cast(Tie::End(reason.clone())).unwrap();
            ended(&a).await;
            if survives {
                // Its answer comes after any signal that its partner's end might have sent.
                assert_eq!(
                    b.call(Tie::Unlink(root.pid().clone())).await,
                    Ok(()),
                    "{reason:?}"
                );
                assert!(b.whereis().is_some(), "{reason:?}");
            } else {
                ended(&b).await;
            }
            root.stop().await;
        }
    });
}

#[test]
fn a_link_to_a_process_that_has_ended_is_an_exit_with_noproc() {
    run(async {
        let there = Arbiter::new();
        let Pair { root, reports, a, b } = pair(&there).await;
        let gone = a.whereis().unwrap().pid().clone();
        b.call(Tie::Unlink(gone.clone())).await.unwrap();
        gone.exit(ExitReason::Killed);
        ended(&a).await;
        b.cast(Tie::Link(gone)).unwrap();
        ended(&b).await;
        let noproc = |report: &Report| match report {
            Report::Supervisor(report) => report.reason == report::Cause::Exit(ExitReason::NoProc),
            _ => false,
        };
        let told = || reports.all().iter().any(noproc);
        until("the report", told, || reports.short().join(" ")).await;
        root.stop().await;
    });
}

#[test]
fn a_supervisor_is_not_ended_by_a_link() {
    run(async {
        let there = Arbiter::new();
        let Pair { root, a, b, .. } = pair(&there).await;
        a.call(Tie::Link(root.pid().clone())).await.unwrap();
        a.cast(Tie::Crash).unwrap();
        ended(&a).await;
        ended(&b).await;
        assert!(root.pid().is_alive());
        assert_eq!(root.stop().await, ExitReason::Shutdown);
    });
}

/// Answers when it is let.
struct Slow;

impl Actor for Slow {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Never;

impl Handler<Never> for Slow {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, _: Never, _: &mut Context<Self>) -> Self::Result {
        Box::pin(std::future::pending())
    }
}

/// Holds its arbiter until the other end speaks.
#[derive(Message)]
#[rtype(result = "()")]
struct Hold(mpsc::Receiver<()>);

impl Handler<Hold> for Slow {
    type Result = ();

    fn handle(&mut self, Hold(until): Hold, _: &mut Context<Self>) {
        let _ = until.recv();
    }
}

#[test]
fn a_call_within_a_time_does_not_wait_longer() {
    run(async {
        let name = Name::<Slow>::new("slow");
        let slow = ChildSpec::worker("slow", &Arbiter::current(), |_| Ok(Slow)).name(&name);
        let root = root(Strategy::OneForOne, Intensity::new(0, 5), vec![slow]);
        let root = start(root, Reports::default().options()).await.unwrap();
        let asked = Instant::now();
        let time = Duration::from_millis(250);
        assert_eq!(name.call_within(Never, time).await, Err(CallError::TimedOut));
        assert_eq!(asked.elapsed().as_millis() / 10, 25);
        root.stop().await;
        assert_eq!(name.call_within(Never, time).await, Err(CallError::NotRunning));
    });
}

#[test]
fn a_process_that_does_not_come_back_is_reported_once_with_its_path_and_thread() {
    actix::System::new().block_on(async {
        let (reports, name, there) = (Reports::default(), Name::<Slow>::new("slow"), Arbiter::new());
        let slow = ChildSpec::worker("slow", &there.handle(), |_| Ok(Slow)).name(&name);
        let root = root(Strategy::OneForOne, Intensity::new(0, 5), vec![slow]);
        let options = TreeOptions {
            unresponsive_after: Some(Duration::from_millis(40)),
            ..reports.options()
        };
        let root = start(root, options).await.unwrap();
        for held in 1..=2 {
            let (let_go, hold) = mpsc::channel();
            name.cast(Hold(hold)).unwrap();
            let told = || reports.short().len() == 1 + held;
            until("the report", told, || reports.short().join(" ")).await;
            drop(let_go);
            // Handled after the hold.
            let _ = name.call_within(Never, Duration::from_millis(100)).await;
        }
        let all = reports.all();
        let Report::Supervisor(report) = &all[1] else {
            panic!("{all:?}")
        };
        assert_eq!(report.error_context, report::ErrorContext::Unresponsive);
        assert_eq!(
            report.offender.pid.as_ref(),
            name.whereis().as_ref().map(Ref::pid)
        );
        let report::Cause::Unresponsive { for_ms, thread } = &report.reason else {
            panic!("{report:?}")
        };
        assert!(
            *for_ms >= 40 && thread.starts_with("actix-rt"),
            "{for_ms} {thread}"
        );
        assert!(all[1].render_text().contains("errorContext: unresponsive"));
        assert_eq!(reports.short().len(), 3, "once for each");
        root.stop().await;
    });
}
