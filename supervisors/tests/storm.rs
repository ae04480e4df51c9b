//! Goal: whatever happens in whatever order, the tree is whole again afterwards and nothing is left behind.
//! Method: a seed decides on crashes, kills and requests in a tree of three levels. Then the tree must settle
//! into exactly its specs, a stop must leave no process, and every process that ever ran must have been told
//! of once.

mod family;
use actix::{Actor, Arbiter, ArbiterHandle, Handler, Message};
use family::*;
use proptest::prelude::{Just, ProptestConfig, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as Generate;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use supervisors::*;

/// Workers 0 and 1 are children of `one`, 2 to 4 of `all`, 5 to 7 of `rest`.
const WORKERS: usize = 8;
const SUPERVISORS: [(&str, Strategy, std::ops::Range<usize>); 3] = [
    ("one", Strategy::OneForOne, 0..2),
    ("all", Strategy::OneForAll, 2..5),
    ("rest", Strategy::RestForOne, 5..8),
];

#[derive(Clone, Debug)]
enum Blow {
    Crash(usize),
    Kill(usize),
    AskToStop(usize),
    Terminate(usize),
    CrashSupervisor(usize),
    KillSupervisor(usize),
    /// Lets that many polls happen.
    Breathe(usize),
}

fn blow() -> impl Generate<Value = Blow> {
    prop_oneof![
        4 => (0..WORKERS).prop_map(Blow::Crash),
        4 => (0..WORKERS).prop_map(Blow::Kill),
        2 => (0..WORKERS).prop_map(Blow::AskToStop),
        2 => (0..WORKERS).prop_map(Blow::Terminate),
        1 => (0..3usize).prop_map(Blow::CrashSupervisor),
        1 => (0..3usize).prop_map(Blow::KillSupervisor),
        1 => Just(Blow::Breathe(100)),
        6 => (1..12usize).prop_map(Blow::Breathe),
    ]
}

/// Watches every worker and counts how often it is told of its end.
struct Coroner(Arc<Mutex<BTreeMap<String, u32>>>);

impl Actor for Coroner {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Born(Pid);

impl Handler<Born> for Coroner {
    type Result = ();

    fn handle(&mut self, Born(pid): Born, ctx: &mut Context<Self>) {
        ctx.monitor(&pid);
        self.0.lock().unwrap().insert(pid.to_string(), 0);
    }
}

impl Handler<Down> for Coroner {
    type Result = ();

    fn handle(&mut self, down: Down, _: &mut Context<Self>) {
        *self.0.lock().unwrap().entry(down.pid.to_string()).or_default() += 1;
    }
}

struct Storm {
    root: Root,
    tops: Vec<Name<Supervisor>>,
    workers: Vec<Name<Child>>,
}

/// Supervisors here, workers on the given arbiters in turn.
async fn plant(coroner: &Name<Coroner>, arbiters: &[ArbiterHandle]) -> Storm {
    let tops: Vec<Name<Supervisor>> = SUPERVISORS.iter().map(|(id, ..)| Name::new(id)).collect();
    let workers: Vec<Name<Child>> = (0..WORKERS).map(|n| Name::new(&n.to_string())).collect();
    let (here, often, events) = (
        Arbiter::current(),
        Intensity::new(1_000_000, 60),
        Events::default(),
    );
    let supervisor =
        |(at, (id, strategy, range)): (usize, &(&'static str, Strategy, std::ops::Range<usize>))| {
            let worker = |n: usize| {
                let (coroner, events) = (coroner.clone(), events.clone());
                let temper = if n.is_multiple_of(3) {
                    Temper::Diligent
                } else {
                    Temper::Good
                };
                ChildSpec::worker(n.to_string(), &arbiters[n % arbiters.len()], move |ctx| {
                    coroner
                        .cast(Born(ctx.pid().clone()))
                        .expect("the coroner lives in another tree");
                    Ok(Child::new("worker", &events, temper))
                })
                .name(&workers[n])
            };
            let (strategy, children) = (*strategy, range.clone().map(worker).collect::<Vec<_>>());
            ChildSpec::supervisor(*id, &here, move || {
                SupervisorSpec::new(strategy, often, children.clone())
            })
            .name(&tops[at])
        };
    let supervisors = SUPERVISORS.iter().enumerate().map(supervisor).collect::<Vec<_>>();
    let root = root(Strategy::RestForOne, often, supervisors);
    let root = start(root, Reports::default().options()).await.unwrap();
    Storm { root, tops, workers }
}

impl Storm {
    async fn strike(&self, blow: &Blow) {
        let path = |at: usize| format!("root/{}", SUPERVISORS[at].0);
        let worker = |n: usize| self.workers[n].whereis();
        match *blow {
            Blow::Crash(n) => drop(worker(n).map(|worker| worker.cast(End::ByPanic))),
            Blow::Kill(n) => worker(n)
                .iter()
                .for_each(|worker| worker.pid().exit(ExitReason::Killed)),
            Blow::AskToStop(n) => {
                worker(n)
                    .iter()
                    .for_each(|worker| worker.pid().exit(ExitReason::Shutdown));
            }
            Blow::Terminate(n) => {
                let at = SUPERVISORS
                    .iter()
                    .position(|(.., range)| range.contains(&n))
                    .unwrap();
                drop(self.tops[at].call(TerminateChild::new(&*n.to_string())));
            }
            Blow::CrashSupervisor(at) => drop(self.root.tree().crash(&path(at), "struck")),
            Blow::KillSupervisor(at) => {
                if let Some(pid) = self.root.tree().find(&path(at)) {
                    pid.exit(ExitReason::Killed);
                }
            }
            Blow::Breathe(polls) => {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Starts again what was terminated, until every child runs and answers under its name.
    async fn settle(&self) {
        for _ in 0..1000 {
            let mut whole = true;
            for (top, (.., range)) in self.tops.iter().zip(SUPERVISORS) {
                let Ok(children) = top.call(WhichChildren).await else {
                    whole = false;
                    continue;
                };
                assert_eq!(children.len(), range.len());
                for child in children {
                    whole &= matches!(child.state, ChildState::Running(_));
                    if child.state == ChildState::Stopped {
                        let _ = top.call(RestartChild(child.id)).await;
                    }
                }
            }
            // Behind all blows: on other threads they may not have landed yet.
            for worker in &self.workers {
                whole &= worker.call(Count).await.is_ok();
            }
            if whole && self.root.tree().count() == 1 + SUPERVISORS.len() + WORKERS {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("it does not settle: {:#?}", self.root.tree().list());
    }
}

async fn weather(blows: Vec<Blow>, arbiters: &[ArbiterHandle]) {
    let (deaths, coroner) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Name::new("coroner"));
    let noted = deaths.clone();
    let office = ChildSpec::worker("coroner", &Arbiter::current(), move |_| {
        Ok(Coroner(noted.clone()))
    })
    .name(&coroner);
    let office = start(office, Reports::default().options()).await.unwrap();
    let storm = plant(&coroner, arbiters).await;
    for blow in &blows {
        storm.strike(blow).await;
    }
    storm.settle().await;
    assert_eq!(storm.root.stop().await, ExitReason::Shutdown);
    assert_eq!(storm.root.tree().list().len(), 0);
    office.stop().await;
    let deaths = deaths.lock().unwrap();
    assert!(
        deaths.len() >= WORKERS && deaths.values().all(|&times| times == 1),
        "{deaths:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_storm_the_tree_is_whole_and_each_death_was_told_once(
        blows in prop::collection::vec(blow(), 0..60)
    ) {
        run(async { weather(blows, &[Arbiter::current()]).await });
    }
}

proptest! {
    // Real time and real threads, so fewer cases.
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn so_it_is_with_workers_on_three_threads(blows in prop::collection::vec(blow(), 0..60)) {
        actix::System::new().block_on(async {
            let arbiters = [Arbiter::new(), Arbiter::new()];
            let handles = [Arbiter::current(), arbiters[0].handle(), arbiters[1].handle()];
            weather(blows, &handles).await;
            for arbiter in arbiters {
                arbiter.stop();
                arbiter.join().expect("no arbiter panics");
            }
        });
    }
}
