//! What supervision costs: per message, per poll, per process, and for looking at 100,000 of them.
//!
//! `cargo bench -p supervisors` prints figures and judges nothing: a shared machine is no judge. Each figure
//! is the best of several rounds, bare actix beside a supervised process doing the same work.
#![allow(missing_docs)]
// The comparison needs bare actors.
#![allow(clippy::disallowed_methods)]

use actix::{Actor, Addr, Arbiter, Handler, Message};
use std::time::{Duration, Instant};
use supervisors::{
    ChildSpec, Context, DynamicSpec, DynamicSupervisor, Intensity, Name, Restart, Root, Strategy,
    SupervisorSpec, TreeOptions, start,
};

const ROUNDS: usize = 15;
/// Messages in one batch: what a busy wake-up brings.
const BATCH: u32 = 256;
const BATCHES: u32 = 400;
const CALLS: u32 = 50_000;
const SESSIONS: usize = 100_000;
const SHARDS: usize = 64;

#[derive(Default)]
struct Bare(u64);

impl Actor for Bare {
    type Context = actix::Context<Self>;
}

#[derive(Default)]
struct Supervised(u64);

impl Actor for Supervised {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handler<Add> for Bare {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut actix::Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }
}

impl Handler<Add> for Supervised {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }
}

fn ns_per(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}

/// A pair of figures, the best of all rounds of each.
struct Pair {
    bare: f64,
    supervised: f64,
}

impl Pair {
    fn new() -> Self {
        Pair {
            bare: f64::MAX,
            supervised: f64::MAX,
        }
    }

    fn print(&self, what: &str) {
        let (bare, supervised) = (self.bare, self.supervised);
        let more = supervised - bare;
        println!(
            "{what:<44} bare {bare:7.1} ns   supervised {supervised:7.1} ns   difference {more:+6.1} ns"
        );
    }
}

/// Many messages, then one answer: one poll handles them all.
async fn in_batches(bare: &Addr<Bare>, supervised: &Name<Supervised>) -> Pair {
    let mut best = Pair::new();
    let holder = supervised.whereis().expect("it runs");
    let messages = BATCH * BATCHES;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..BATCHES {
            for n in 1..BATCH {
                bare.do_send(Add(u64::from(n)));
            }
            bare.send(Add(0)).await.expect("it answers");
        }
        best.bare = best.bare.min(ns_per(began.elapsed(), messages));
        let began = Instant::now();
        for _ in 0..BATCHES {
            for n in 1..BATCH {
                holder.cast(Add(u64::from(n))).expect("it runs");
            }
            holder.call(Add(0)).await.expect("it answers");
        }
        best.supervised = best.supervised.min(ns_per(began.elapsed(), messages));
    }
    best
}

/// One question, one answer: every message is a poll of its own.
async fn one_by_one(bare: &Addr<Bare>, supervised: &Name<Supervised>) -> Pair {
    let mut best = Pair::new();
    let holder = supervised.whereis().expect("it runs");
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for n in 0..CALLS {
            bare.send(Add(u64::from(n))).await.expect("it answers");
        }
        best.bare = best.bare.min(ns_per(began.elapsed(), CALLS));
        let began = Instant::now();
        for n in 0..CALLS {
            holder.call(Add(u64::from(n))).await.expect("it answers");
        }
        best.supervised = best.supervised.min(ns_per(began.elapsed(), CALLS));
    }
    best
}

async fn messages() {
    let (name, here) = (Name::new("supervised"), Arbiter::current());
    let root = one_child(ChildSpec::worker("supervised", &here, |_| Ok(Supervised::default())).name(&name));
    let root = start(root, quiet()).await.expect("it starts");
    let bare = Bare::default().start();
    in_batches(&bare, &name)
        .await
        .print("a message among many (one poll)");
    one_by_one(&bare, &name)
        .await
        .print("question and answer (one poll each)");
    root.stop().await;
}

fn quiet() -> TreeOptions {
    TreeOptions {
        sink: std::sync::Arc::new(|_| ()),
        ..TreeOptions::default()
    }
}

fn one_child(child: ChildSpec) -> ChildSpec {
    ChildSpec::supervisor("root", &Arbiter::current(), move || {
        SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), vec![child.clone()])
    })
}

/// A tree of 64 shards with all the sessions, which live on `there`.
async fn many(there: &Arbiter, shards: &[Name<DynamicSupervisor>]) -> Root {
    let (names, here) = (shards.to_vec(), Arbiter::current());
    let sessions = ChildSpec::supervisor("sessions", &here.clone(), move || {
        let spec = DynamicSpec {
            intensity: Intensity::new(1, 5),
            max_children: SESSIONS,
        };
        let shard = |(n, name): (usize, &Name<_>)| ChildSpec::dynamic(n.to_string(), &here, spec, name);
        let children = names.iter().enumerate().map(shard).collect();
        SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), children)
    });
    let root = start(one_child(sessions), quiet()).await.expect("it starts");
    let began = Instant::now();
    let mut starts = Vec::with_capacity(SESSIONS);
    for n in 0..SESSIONS {
        let spec = ChildSpec::worker(format!("client-{n}"), &there.handle(), |_| {
            Ok(Supervised::default())
        });
        starts.push(shards[n % SHARDS].start_child(spec.restart(Restart::Temporary)));
    }
    for start in starts {
        start.await.expect("it starts");
    }
    let each = began.elapsed() / SESSIONS as u32;
    println!("{SESSIONS} sessions started, {each:?} each");
    root
}

fn best_of<T>(what: &str, mut act: impl FnMut() -> Vec<T>) {
    let timed = || {
        let began = Instant::now();
        let len = act().len();
        (began.elapsed(), len)
    };
    let best = std::iter::repeat_with(timed)
        .take(ROUNDS)
        .min()
        .expect("there are rounds");
    println!(
        "{what:<44} {:>9.3} ms   {} entries",
        best.0.as_secs_f64() * 1e3,
        best.1
    );
}

/// Questions to one of the sessions while somebody looks at the tree as fast as they can.
async fn disturbed(what: &str, name: &Name<Supervised>, look: impl Fn() -> usize + Send + 'static) {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let looking = std::thread::spawn(move || {
        let mut looks = 0_u32;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            std::hint::black_box(look());
            looks += 1;
        }
        looks
    });
    let holder = name.whereis().expect("it runs");
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        holder.call(Add(1)).await.expect("it answers");
        times.push(asked.elapsed());
    }
    drop(stop);
    let looks = looking.join().expect("it looks");
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let (median, p99, p999) = (at(0.5), at(0.99), at(0.999));
    print!("a question across threads while {what:<14} p50 {median:?}   p99 {p99:?}   ");
    println!("p99.9 {p999:?}   ({looks} looks)");
}

async fn trees() {
    let there = Arbiter::new();
    let shards: Vec<_> = (0..SHARDS).map(|n| Name::new(&n.to_string())).collect();
    let root = many(&there, &shards).await;
    let tree = root.tree();
    best_of("Tree::summary", || tree.summary());
    best_of("Tree::children of one shard", || tree.children("root/sessions/7"));
    best_of("Tree::list", || tree.list());
    let probe = Name::new("probe");
    let spec = ChildSpec::worker("probe", &there.handle(), |_| Ok(Supervised::default())).name(&probe);
    shards[0]
        .start_child(spec.restart(Restart::Temporary))
        .await
        .expect("it starts");
    let (one, other) = (tree.clone(), tree.clone());
    disturbed("nobody looks", &probe, || {
        std::thread::park_timeout(Duration::from_millis(10));
        0
    })
    .await;
    disturbed("summaries", &probe, move || one.summary().len()).await;
    disturbed("whole lists", &probe, move || other.list().len()).await;
    let began = Instant::now();
    root.stop().await;
    println!("{SESSIONS} sessions stopped in {:?}", began.elapsed());
}

fn main() {
    actix::System::new().block_on(async {
        messages().await;
        trees().await;
    });
}
