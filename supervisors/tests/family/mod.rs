//! What the tests of this crate share: a child that records its life, a log of reports, a way to await
//! events.
#![allow(dead_code, missing_docs, unreachable_pub)]

use actix::{Actor, ActorContext, AsyncContext, Handler, Message, Running};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervisors::*;

/// What happened, in order: `+a` started, `-a` ended in order, `~a` dropped.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub fn push(&self, event: String) {
        self.0.lock().unwrap().push(event);
    }

    pub fn text(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }

    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join(" ")
    }

    pub async fn until(&self, text: &str) {
        until(text, || self.text() == text, || self.text()).await;
    }
}

/// Awaits a condition that another process brings about. Time may be paused: then it only advances when all
/// wait.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool, state: impl Fn() -> String) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
        if !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("waited in vain for `{what}`, there is `{}`", state());
}

#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Vec<Report>>>);

impl Reports {
    pub fn options(&self) -> TreeOptions {
        let reports = self.0.clone();
        TreeOptions {
            sink: Arc::new(move |report| reports.lock().unwrap().push(report.clone())),
            ..Default::default()
        }
    }

    pub fn all(&self) -> Vec<Report> {
        // With RUST_BACKTRACE=1 reports are a little later than what they are about.
        while supervisors::reports_waiting() > 0 {
            std::thread::yield_now();
        }
        self.0.lock().unwrap().clone()
    }

    /// `child_terminated:id`, `progress:id`, `crash:path`, …
    pub fn short(&self) -> Vec<String> {
        let short = |report: &Report| match report {
            Report::Supervisor(report) => format!("{}:{}", report.error_context.as_str(), report.offender.id),
            Report::Progress(report) => format!("progress:{}", report.started.id),
            Report::Crash(report) => format!("crash:{}", report.path),
        };
        self.all().iter().map(short).collect()
    }
}

/// How a child behaves.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Temper {
    #[default]
    Good,
    /// Never agrees to stop.
    Stubborn,
    /// Finishes work for 20 ms before it stops.
    Diligent,
    PanicsInStopped,
    PanicsInDrop,
}

pub struct Child {
    pub id: &'static str,
    pub events: Events,
    pub temper: Temper,
    pub count: u64,
    finished: bool,
}

impl Child {
    pub fn new(id: &'static str, events: &Events, temper: Temper) -> Self {
        Child {
            id,
            events: events.clone(),
            temper,
            count: 0,
            finished: false,
        }
    }
}

impl Actor for Child {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.events.push(format!("+{}", self.id));
    }

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        match self.temper {
            Temper::Stubborn => Running::Continue,
            Temper::Diligent if !self.finished => {
                ctx.run_later(Duration::from_millis(20), |child, ctx| {
                    child.finished = true;
                    ctx.stop();
                });
                Running::Continue
            }
            _ => Running::Stop,
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.events.push(format!("-{}", self.id));
        if self.temper == Temper::PanicsInStopped {
            panic!("panic in stopped()");
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.temper == Temper::PanicsInDrop {
            panic!("panic in drop");
        }
    }
}

/// Ends the child in a given way.
#[derive(Message, Clone, Debug)]
#[rtype(result = "()")]
pub enum End {
    Normally,
    With(ExitReason),
    ByPanic,
    ByKill,
}

impl Handler<End> for Child {
    type Result = ();

    fn handle(&mut self, end: End, ctx: &mut Context<Self>) {
        match end {
            End::Normally => ctx.stop(),
            End::With(reason) => ctx.exit(reason),
            End::ByPanic => panic!("boom"),
            End::ByKill => ctx.pid().exit(ExitReason::Killed),
        }
    }
}

#[derive(Message)]
#[rtype(result = "u64")]
pub struct Count;

impl Handler<Count> for Child {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.count += 1;
        self.count
    }
}

/// A well-behaved worker on the current arbiter.
pub fn child(id: &'static str, events: &Events, name: &Name<Child>) -> ChildSpec {
    tempered(id, events, name, Temper::Good)
}

pub fn tempered(id: &'static str, events: &Events, name: &Name<Child>, temper: Temper) -> ChildSpec {
    let events = events.clone();
    let arbiter = actix::Arbiter::current();
    ChildSpec::worker(id, &arbiter, move |_| Ok(Child::new(id, &events, temper))).name(name)
}

/// A root supervisor on the current arbiter.
pub fn root(strategy: Strategy, intensity: Intensity, children: Vec<ChildSpec>) -> ChildSpec {
    ChildSpec::supervisor("root", &actix::Arbiter::current(), move || {
        SupervisorSpec::new(strategy, intensity, children.clone())
    })
}

/// Runs a test inside an actix system with paused time.
pub fn run(test: impl Future<Output = ()>) {
    actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    })
    .block_on(test);
}
