//! The store alone: what a commit costs, a long queue, and a start with much in it. Goal: figures by which
//! a change of the engine or of its settings is judged. Method: one process, processor time and bytes as the
//! system counts them, a directory of one's own on the disk that is meant.
//!
//! ```text
//! cargo bench --bench store -- [--dir DIR] [--messages 1000000] [--sessions 100000] [--retained 1000000]
//! ```

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use ermine::broker::storage::{Answer, Retained, Storage, Unreadable};
use ermine::mqtt::message::Message;
use ermine::mqtt::packet::{ProtocolVersion, QoS, SubscriptionIds};
use ermine::routing::stamps::{HybridTime, Stamp};
use ermine::session::lasting::{Change, Queued, Seq, SessionNo, SessionRecord};
use ermine::store::{Pace, Store, StoreConfig};

struct Plan {
    dir: PathBuf,
    messages: u64,
    sessions: u64,
    retained: u64,
}

fn plan() -> Option<Plan> {
    let mut plan = Plan {
        dir: std::env::temp_dir().join(format!("ermine-bench-store-{}", std::process::id())),
        messages: 1_000_000,
        sessions: 100_000,
        retained: 1_000_000,
    };
    // cargo itself adds `--bench`.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(flag) = args.next() {
        let value = args.next()?;
        match flag.as_str() {
            "--dir" => plan.dir = value.into(),
            "--messages" => plan.messages = value.parse().ok()?,
            "--sessions" => plan.sessions = value.parse().ok()?,
            "--retained" => plan.retained = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(plan)
}

/// One number of a file below /proc/self; 0 where there is none.
fn proc(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

/// Processor time of this process in microseconds.
fn cpu_us() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks * 10_000
}

struct Meter {
    began: Instant,
    cpu_us: u64,
    written: u64,
    commits: u64,
    syncs: u64,
}

impl Meter {
    fn start(store: &Store) -> Self {
        let figures = store.figures();
        Self {
            began: Instant::now(),
            cpu_us: cpu_us(),
            written: proc("io", "write_bytes:"),
            commits: figures.commits,
            syncs: figures.syncs,
        }
    }

    fn end(&self, what: &str, store: &Store, messages: u64) {
        let figures = store.figures();
        let seconds = self.began.elapsed().as_secs_f64();
        let per = |all: u64| all as f64 / messages as f64;
        println!(
            "{what:<44} {seconds:>7.2} s {:>9.0} msg/s {:>6.0} commits/s {:>7.4} syncs/msg {:>6.2} us/msg \
             {:>6.0} B/msg, rss {} MB",
            messages as f64 / seconds,
            (figures.commits - self.commits) as f64 / seconds,
            per(figures.syncs - self.syncs),
            per(cpu_us() - self.cpu_us),
            per(proc("io", "write_bytes:") - self.written),
            proc("status", "VmRSS:") / 1024,
        );
    }
}

fn seq(place: u64) -> Seq {
    Seq(NonZeroU64::new(place).expect("places begin with 1"))
}

fn message(topic: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: vec![b'x'; 64].into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        pass_through: Default::default(),
        expires_at: None,
        publisher: "publisher".into(),
    })
}

fn queued(message: &Arc<Message>) -> Queued {
    Queued {
        message: message.clone(),
        subscription_ids: SubscriptionIds::None,
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
    }
}

fn session(no: SessionNo) -> Change {
    let record = SessionRecord {
        client_id: format!("client-{}", no.0).into(),
        version: ProtocolVersion::V5,
        expiry_interval_s: u32::MAX,
        away_since_ms: Some(1),
        noted_ms: 1,
        will: None,
        suspect: None,
        guest: None,
    };
    Change::Session(no, Box::new(record))
}

fn read<T: Send + 'static>(ask: impl FnOnce(Answer<T>)) -> T {
    let (answer, answered) = mpsc::channel::<Result<T, Unreadable>>();
    ask(Box::new(move |read| drop(answer.send(read))));
    let read = answered.recv().expect("the reader answers");
    read.expect("the store is whole")
}

/// Each message for 100 sessions; each session settles its messages `behind` commits later.
fn fan_out(store: &Store, behind: u64) {
    let numbers: Vec<_> = (0..100).map(|_| store.number()).collect();
    numbers.iter().for_each(|no| store.note(session(*no)));
    store.commit();
    let (message, rounds, per_commit) = (message("fan/out"), 200, 10);
    let meter = Meter::start(store);
    for round in 0..rounds {
        for place in round * per_commit + 1..=(round + 1) * per_commit {
            for no in &numbers {
                store.note(Change::Queued(*no, seq(place), queued(&message)));
                if place > behind * per_commit {
                    store.note(Change::Settled(*no, seq(place - behind * per_commit)));
                }
            }
        }
        store.commit();
    }
    let what = match behind {
        0 => "to 100 clients, acknowledged at once",
        _ => "to 100 clients, acknowledged a commit later",
    };
    meter.end(what, store, rounds * per_commit * numbers.len() as u64);
    numbers.iter().for_each(|no| store.note(Change::Forget(*no)));
    store.commit();
}

fn backlog(store: &Store, messages: u64) {
    let no = store.number();
    store.note(session(no));
    let message = message("some/topic");
    let meter = Meter::start(store);
    for place in 1..=messages {
        store.note(Change::Queued(no, seq(place), queued(&message)));
        if place % 200 == 0 {
            store.commit();
        }
    }
    store.commit();
    meter.end("append, 200 for each commit", store, messages);
    let meter = Meter::start(store);
    let (mut from, mut drained) = (seq(1), 0);
    loop {
        let page = read(|answer| store.page(no, from, seq(messages), 256, 1 << 20, answer));
        let Some((last, _)) = page.last() else { break };
        from = last.next();
        drained += page.len() as u64;
        for (place, _) in &page {
            store.note(Change::Settled(no, *place));
        }
        store.commit();
    }
    assert_eq!(drained, messages);
    meter.end("drain, pages of 256", store, messages);
}

fn fill(store: &Store, plan: &Plan) {
    let node: ermine::node_name::NodeName = "bench@localhost".parse().expect("a name");
    for number in 0..plan.sessions {
        store.note(session(store.number()));
        if number % 10_000 == 0 {
            store.commit();
        }
    }
    for number in 0..plan.retained {
        let topic = format!("building/{}/room/{}/temperature", number / 1000, number % 1000);
        let stamp = Stamp {
            time: HybridTime(number),
            node: node.clone(),
        };
        store.retain(&topic.as_str().into(), Retained::Message(message(&topic), stamp));
        if number % 10_000 == 0 {
            store.commit();
        }
    }
    store.commit();
}

fn open(dir: &Path) -> Arc<Store> {
    let config = StoreConfig {
        dir: dir.join("store"),
        node: "bench@localhost".parse().expect("a name"),
        pace: Pace::default(),
    };
    Store::open(&config).expect("it opens")
}

fn start(plan: &Plan) {
    let began = Instant::now();
    let store = open(&plan.dir);
    let opened = began.elapsed();
    let (mut sessions, mut after) = (0, None);
    loop {
        let page = read(|answer| store.sessions(after, 256, answer));
        let Some(last) = page.last() else { break };
        after = Some(last.no);
        sessions += page.len();
    }
    let with_sessions = began.elapsed();
    let (mut retained, mut after) = (0, None);
    loop {
        let page = read(|answer| store.retained(after.take(), 1000, 1 << 20, answer));
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        retained += page.len();
    }
    println!(
        "start: {:.2} s to open a file of {} MB, {sessions} sessions at {:.2} s, {retained} retained at \
         {:.2} s, rss {} MB",
        opened.as_secs_f64(),
        store.figures().file_bytes >> 20,
        with_sessions.as_secs_f64(),
        began.elapsed().as_secs_f64(),
        proc("status", "VmRSS:") / 1024,
    );
}

fn main() {
    let Some(plan) = plan() else {
        eprintln!("usage: store [--dir DIR] [--messages N] [--sessions N] [--retained N]");
        return;
    };
    fs::create_dir_all(&plan.dir).expect("a directory to work in");
    let store = open(&plan.dir);
    fan_out(&store, 0);
    fan_out(&store, 1);
    backlog(&store, plan.messages);
    fill(&store, &plan);
    drop(store);
    start(&plan);
    fs::remove_dir_all(plan.dir.join("store")).expect("what was made is removed");
}
