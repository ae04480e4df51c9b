//! The texts, word for word: people grep logs for them.

use crate::exit::{ExitReason, PanicReport};
use crate::pid::Pid;
use crate::report::{
    Cause, ChildFacts, CrashReport, ErrorContext, ProgressReport, Report, RestartCount, Restarted,
    SupervisorReport,
};
use crate::spec::{Restart, Shutdown};
use crate::tree::{Tree, TreeOptions};
use crate::{ProcessKind, spec::ChildInfo};
use std::time::{Duration, SystemTime};

/// 2026-08-07 10:00:00.123456 UTC.
fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_786_096_800_123_456)
}

fn router() -> (ChildFacts, Pid) {
    let info = ChildInfo {
        id: "router".into(),
        kind: ProcessKind::Worker,
        restart: Restart::Permanent,
        shutdown: Shutdown::Timeout(Duration::from_secs(5)),
        significant: false,
        actor: "ermine::broker::router::Router",
        position: 0,
    };
    let pid = Pid::new(
        Tree::new(TreeOptions::default()),
        "root/core/router".into(),
        info.clone().into(),
        None,
        2,
    );
    (ChildFacts::new(&info, Some(pid.clone())), pid)
}

fn panic() -> ExitReason {
    ExitReason::Panic(PanicReport {
        message: "index out of bounds".into(),
        location: "src/broker/router.rs:42:7".into(),
        backtrace: None,
    })
}

const COUNT: RestartCount = RestartCount {
    n: 1,
    intensity: 5,
    period_ms: 60_000,
};

fn check(report: &Report, pid: &Pid, text: &str, json: &str) {
    assert_eq!(report.render_text(), text.replace("PID", &pid.to_string()));
    assert_eq!(
        report.render_json(),
        json.replace("PID", &pid.to_string()).replace('\n', "")
    );
}

#[test]
fn a_supervisor_report_reads_as_otps() {
    let (offender, pid) = router();
    let report = Report::Supervisor(SupervisorReport {
        at: at(),
        supervisor: "root/core".into(),
        error_context: ErrorContext::ChildTerminated,
        reason: Cause::Exit(ExitReason::Killed),
        offender,
        restart: Some(COUNT),
    });
    let text = "=SUPERVISOR REPORT==== 7-Aug-2026::10:00:00.123456 ===
    supervisor: root/core
    errorContext: child_terminated
    reason: killed
    offender: [{pid,PID},
               {id,router},
               {actor,ermine::broker::router::Router},
               {restart_type,permanent},
               {significant,false},
               {shutdown,5000},
               {child_type,worker}]
    restart: 1 of 5 in 60 s";
    let json = r#"{"report":"supervisor","at":"2026-08-07T10:00:00.123456Z","supervisor":"root/core",
"error_context":"child_terminated","reason":{"exit":"killed"},
"offender":{"pid":"PID","id":"router","actor":"ermine::broker::router::Router","restart_type":"permanent",
"significant":false,"shutdown":5000,"child_type":"worker"},
"restart":{"n":1,"intensity":5,"period_ms":60000}}"#;
    check(&report, &pid, text, json);
}

#[test]
fn a_supervisor_that_gives_up_says_so_in_otps_words() {
    let (offender, pid) = router();
    let report = Report::Supervisor(SupervisorReport {
        at: at(),
        supervisor: "root/core".into(),
        error_context: ErrorContext::Shutdown,
        reason: Cause::ReachedMaxRestartIntensity,
        offender: ChildFacts {
            nb_children: Some(2),
            pid: None,
            shutdown: Shutdown::BrutalKill,
            ..offender
        },
        restart: Some(RestartCount { n: 6, ..COUNT }),
    });
    let text = "=SUPERVISOR REPORT==== 7-Aug-2026::10:00:00.123456 ===
    supervisor: root/core
    errorContext: shutdown
    reason: reached_max_restart_intensity
    offender: [{nb_children,2},
               {id,router},
               {actor,ermine::broker::router::Router},
               {restart_type,permanent},
               {significant,false},
               {shutdown,brutal_kill},
               {child_type,worker}]
    restart: none left of 5 in 60 s";
    let json = r#"{"report":"supervisor","at":"2026-08-07T10:00:00.123456Z","supervisor":"root/core",
"error_context":"shutdown","reason":"reached_max_restart_intensity",
"offender":{"pid":null,"nb_children":2,"id":"router","actor":"ermine::broker::router::Router",
"restart_type":"permanent","significant":false,"shutdown":"brutal_kill","child_type":"worker"},
"restart":{"n":6,"intensity":5,"period_ms":60000}}"#;
    check(&report, &pid, text, json);
}

#[test]
fn a_progress_report_after_a_restart_says_what_it_cost() {
    let (started, pid) = router();
    let report = Report::Progress(ProgressReport {
        at: at(),
        supervisor: "root/core".into(),
        started,
        generation: 2,
        restarted: Some(Restarted {
            restart: COUNT,
            downtime_us: 87,
            children_restarted: vec!["clients".into(), "wills".into()],
        }),
        quiet: false,
    });
    let text = "=PROGRESS REPORT==== 7-Aug-2026::10:00:00.123456 ===
    supervisor: root/core
    started: [{pid,PID},
              {id,router},
              {actor,ermine::broker::router::Router},
              {restart_type,permanent},
              {significant,false},
              {shutdown,5000},
              {child_type,worker}]
    generation: 2
    restart: 1 of 5 in 60 s
    downtime_us: 87
    children_restarted: [clients,wills]";
    let json = r#"{"report":"progress","at":"2026-08-07T10:00:00.123456Z","supervisor":"root/core",
"started":{"pid":"PID","id":"router","actor":"ermine::broker::router::Router","restart_type":"permanent",
"significant":false,"shutdown":5000,"child_type":"worker"},"generation":2,
"restart":{"n":1,"intensity":5,"period_ms":60000},"downtime_us":87,
"children_restarted":["clients","wills"]}"#;
    check(&report, &pid, text, json);
}

#[test]
fn a_crash_report_says_what_where_and_under_whom() {
    let (_, pid) = router();
    let report = Report::Crash(CrashReport {
        at: at(),
        path: "root/core/router".into(),
        pid: pid.clone(),
        actor: "ermine::broker::router::Router",
        generation: 2,
        reason: panic(),
        mailbox_len: 3,
        ancestors: vec!["root/core".into(), "root".into()],
    });
    let text = "=CRASH REPORT==== 7-Aug-2026::10:00:00.123456 ===
  crasher:
    initial call: ermine::broker::router::Router
    pid: PID
    registered_name: root/core/router
    exception error: index out of bounds
      in src/broker/router.rs:42:7
    ancestors: [root/core,root]
    message_queue_len: 3
    generation: 2";
    let json = r#"{"report":"crash","at":"2026-08-07T10:00:00.123456Z","path":"root/core/router","pid":"PID",
"actor":"ermine::broker::router::Router","generation":2,
"reason":{"panic":{"message":"index out of bounds","location":"src/broker/router.rs:42:7"}},"mailbox_len":3,
"ancestors":["root/core","root"]}"#;
    check(&report, &pid, text, json);
}
