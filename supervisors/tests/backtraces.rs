//! Goal: with `RUST_BACKTRACE=1` a crash report shows the culprit first, and no arbiter waits for it.
//! Method: this test program runs itself again with that variable, and reads what it prints.

use actix::{Actor, Handler, Message};
use std::process::Command;
use std::sync::Arc;
use supervisors::{
    ChildSpec, Context, Intensity, Name, Report, Strategy, SupervisorSpec, TreeOptions, start,
};

struct Till;

impl Actor for Till {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Pay;

impl Handler<Pay> for Till {
    type Result = ();

    fn handle(&mut self, _: Pay, _: &mut Context<Self>) {
        open_the_drawer(None);
    }
}

#[inline(never)]
fn open_the_drawer(key: Option<u8>) {
    key.expect("there is a key");
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn a_till_crashes() {
    actix::System::new().block_on(async {
        let (here, till) = (actix::Arbiter::current(), Name::<Till>::new("till"));
        let child = ChildSpec::worker("till", &here, |_ctx| Ok(Till)).name(&till);
        let root = ChildSpec::supervisor("root", &here, move || {
            SupervisorSpec::new(Strategy::OneForOne, Intensity::default(), vec![child.clone()])
        });
        let sink = |report: &Report| {
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            println!("by {thread}\n{}\n.", report.render_text());
        };
        let options = TreeOptions {
            sink: Arc::new(sink),
            ..TreeOptions::default()
        };
        let root = start(root, options).await.unwrap();
        let _ = till.call(Pay).await;
        while till.whereis().is_none() {
            tokio::task::yield_now().await;
        }
        root.stop().await;
        assert_eq!(root.tree().backtraces_dropped(), 0);
    });
}

#[test]
fn the_culprit_comes_first_and_is_looked_up_by_a_thread_that_serves_nobody() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_till_crashes", "--ignored", "--nocapture"]);
    let output = again.env("RUST_BACKTRACE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let reports: Vec<&str> = text.split("\n.\n").collect();
    let at = |what: &str| reports.iter().position(|report| report.contains(what)).unwrap();
    let crash = at("=CRASH REPORT");
    assert!(reports[crash].contains("by reporter"), "{text}");
    let (_, frames) = reports[crash].split_once("backtrace:\n").unwrap();
    let first = frames.lines().next().unwrap();
    assert!(first.contains("open_the_drawer"), "{frames}");
    assert!(frames.contains("Pay"), "who called it: {frames}");
    assert!(!frames.contains("supervisors::process"), "{frames}");
    assert!(crash < at("child_terminated"), "the order of the reports: {text}");
    assert!(!reports[at("child_terminated")].contains("backtrace:"), "{text}");
}
