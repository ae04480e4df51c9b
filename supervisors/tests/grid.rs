//! The grid of OTP's `supervisor_SUITE`: strategy × restart type × exit reason, each against what OTP does.

mod family;
use family::*;
use supervisors::*;

const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
const RESTARTS: [Restart; 3] = [Restart::Permanent, Restart::Transient, Restart::Temporary];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Normal,
    Shutdown,
    Error,
    Panic,
    Killed,
}

const ENDINGS: [Ending; 5] = [
    Ending::Normal,
    Ending::Shutdown,
    Ending::Error,
    Ending::Panic,
    Ending::Killed,
];

/// supervisor.erl, `do_restart/3`: is it started again?
fn restarted(restart: Restart, ending: Ending) -> bool {
    match restart {
        Restart::Permanent => true,
        Restart::Transient => !matches!(ending, Ending::Normal | Ending::Shutdown),
        Restart::Temporary => false,
    }
}

/// What is seen after b of a, b, c has ended.
fn expected_events(strategy: Strategy, restart: Restart, ending: Ending) -> String {
    // Neither a panic nor a kill leaves a state on which `stopped()` could be called.
    let end = if matches!(ending, Ending::Panic | Ending::Killed) {
        ""
    } else {
        "-b "
    };
    let rest = match strategy {
        _ if !restarted(restart, ending) => "",
        Strategy::OneForOne => "+b",
        Strategy::OneForAll => "-c -a +a +b +c",
        Strategy::RestForOne => "-c +b +c",
    };
    format!("{end}{rest}").trim().to_owned()
}

fn expected_reports(strategy: Strategy, restart: Restart, ending: Ending) -> Vec<&'static str> {
    let mut reports = Vec::new();
    let abnormal = !matches!(ending, Ending::Normal | Ending::Shutdown);
    if matches!(ending, Ending::Error | Ending::Panic) {
        reports.push("crash:root/b");
    }
    if abnormal || restart == Restart::Permanent {
        reports.push("child_terminated:b");
    }
    if restarted(restart, ending) {
        reports.extend(match strategy {
            Strategy::OneForOne => &["progress:b"][..],
            Strategy::OneForAll => &["progress:a", "progress:b", "progress:c"],
            Strategy::RestForOne => &["progress:b", "progress:c"],
        });
    }
    reports
}

async fn case(strategy: Strategy, restart: Restart, ending: Ending) {
    let what = format!("{strategy} {restart} {ending:?}");
    let (events, reports) = (Events::default(), Reports::default());
    let names = [Name::new("a"), Name::new("b"), Name::new("c")];
    let children = vec![
        child("a", &events, &names[0]),
        child("b", &events, &names[1]).restart(restart),
        child("c", &events, &names[2]),
    ];
    let top: Name<Supervisor> = Name::new("top");
    let root = start(
        root(strategy, Intensity::new(3, 5), children).name(&top),
        reports.options(),
    )
    .await
    .unwrap();
    assert_eq!(events.take(), "+a +b +c", "{what}");
    let before = reports.all().len();
    let b = names[1].whereis().unwrap();
    match ending {
        Ending::Normal => b.cast(End::Normally).unwrap(),
        Ending::Shutdown => b.pid().exit(ExitReason::Shutdown),
        Ending::Error => b.cast(End::With(ExitReason::Error("disk".into()))).unwrap(),
        Ending::Panic => b.cast(End::ByPanic).unwrap(),
        Ending::Killed => b.pid().exit(ExitReason::Killed),
    }
    until(&what, || !b.pid().is_alive(), || events.text()).await;
    let expected = expected_events(strategy, restart, ending);
    events.until(&expected).await;
    let reported = expected_reports(strategy, restart, ending);
    until(
        &what,
        || reports.all().len() == before + reported.len(),
        || reports.short().join(" "),
    )
    .await;
    assert_eq!(reports.short()[before..], reported, "{what}");

    let specs: Vec<_> = top.call(WhichChildren).await.unwrap();
    let state = specs
        .iter()
        .find(|status| &*status.id == "b")
        .map(|status| &status.state);
    match (restarted(restart, ending), restart) {
        (true, _) => assert!(matches!(state, Some(ChildState::Running(_))), "{what}: {state:?}"),
        (false, Restart::Temporary) => assert_eq!(state, None, "{what}: the spec is dropped"),
        (false, _) => assert_eq!(state, Some(&ChildState::Stopped), "{what}: the spec is kept"),
    }
    events.take();
    assert_eq!(root.stop().await, ExitReason::Shutdown, "{what}");
    let b_stops = if restarted(restart, ending) { "-b " } else { "" };
    assert_eq!(events.text(), format!("-c {b_stops}-a"), "{what}");
}

#[test]
fn every_strategy_restart_type_and_exit_reason_does_what_otp_does() {
    run(async {
        for strategy in STRATEGIES {
            for restart in RESTARTS {
                for ending in ENDINGS {
                    case(strategy, restart, ending).await;
                }
            }
        }
    });
}

#[test]
fn a_temporary_sibling_does_not_come_back_from_one_for_all_and_rest_for_one() {
    run(async {
        for (strategy, expected) in [
            (Strategy::OneForAll, "-c -b +a +c"),
            (Strategy::RestForOne, "-c -b +a +c"),
            (Strategy::OneForOne, "+a"),
        ] {
            let events = Events::default();
            let names = [Name::new("a"), Name::new("b"), Name::new("c")];
            let children = vec![
                child("a", &events, &names[0]),
                child("b", &events, &names[1]).restart(Restart::Temporary),
                child("c", &events, &names[2]),
            ];
            let root = root(strategy, Intensity::new(3, 5), children);
            let root = start(root, Reports::default().options()).await.unwrap();
            events.take();
            names[0].cast(End::ByPanic).unwrap();
            events.until(expected).await;
            assert_eq!(names[1].whereis().is_some(), strategy == Strategy::OneForOne);
            root.stop().await;
        }
    });
}
