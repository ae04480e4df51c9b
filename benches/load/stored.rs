//! What is stored: messages for subscribers that are away, and what a broker has to find again when it
//! starts.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::process::Broker;
use crate::scenario::{Found, WARM_UP, open};
use crate::tally::{Awaited, Tally};
use crate::wire::{Template, Wire};

/// Publications that a sender has under way.
const WINDOW: u64 = 16;

/// … if it sends a given number of messages.
const LONG_WINDOW: u64 = 256;

/// Retained topics that are sought.
const LOOKUPS: u64 = 500;

/// How long nothing may come while something is missing.
const LAST_ORDERS: Duration = Duration::from_secs(10);

/// Subscribers that are away, a sender for each.
#[derive(Clone, Copy)]
pub(crate) struct Away {
    pub(crate) subscribers: usize,
    /// Messages of each sender; `None`: as many as go in the time of the measurement.
    pub(crate) messages: Option<u64>,
}

/// What is left behind.
#[derive(Clone, Copy)]
pub(crate) struct Furnish {
    /// Sessions that last, with a subscription each.
    pub(crate) sessions: usize,
    /// Retained messages of 64 bytes.
    pub(crate) retained: u64,
}

/// Fills the queues with QoS 1, which is what is measured, then has them drained and says how long it took.
pub(crate) async fn run_away(broker: &Broker, away: Away, tag: &str, length: Duration) -> io::Result<Found> {
    let (filled, sent) = leave(broker, away, tag, length).await?;
    let drained = fetch(broker, away, tag, sent).await?;
    Ok(Found {
        lost: drained.lost,
        duplicates: drained.duplicates,
        disorder: drained.disorder,
        ..filled
    })
}

/// Fills the queues and leaves them; how many messages lie there.
pub(crate) async fn leave(
    broker: &Broker,
    away: Away,
    tag: &str,
    length: Duration,
) -> io::Result<(Found, u64)> {
    let topic = |group: usize| format!("{tag}/{group}");
    let filter = |index: usize| Some((topic(index), 1));
    for wire in open(broker, format!("{tag}-away"), away.subscribers, false, filter).await? {
        wire.disconnect().await?;
    }
    let senders = open(broker, format!("{tag}-s"), away.subscribers, true, |_| None).await?;
    let (stop, acked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
    let mut sending = JoinSet::new();
    if away.messages.is_none() {
        sleep(WARM_UP).await;
    }
    let (cpu, disk, begin) = (broker.cpu_s(), broker.disk(), Instant::now());
    for (group, wire) in senders.into_iter().enumerate() {
        let template = Template::new(0, &topic(group), 1);
        sending.spawn_local(fill(wire, template, away.messages, stop.clone(), acked.clone()));
    }
    if away.messages.is_none() {
        sleep(length).await;
        stop.set(true);
    }
    while let Some(sent) = sending.join_next().await {
        sent.map_err(io::Error::other)??;
    }
    let (took, cpu) = (begin.elapsed().as_secs_f64(), broker.cpu_s() - cpu);
    let (syncs, written) = disk.used();
    let sent = acked.get();
    let found = Found {
        per_s: sent as f64 / took,
        cpu_us: cpu * 1e6 / sent as f64,
        rss_kib: broker.rss_kib(),
        syncs: syncs / sent as f64,
        written: written / sent as f64,
        ..Found::default()
    };
    Ok((found, sent))
}

/// Publishes and awaits acknowledgements; how many messages.
async fn fill(
    mut wire: Wire,
    mut template: Template,
    messages: Option<u64>,
    stop: Rc<Cell<bool>>,
    acked: Rc<Cell<u64>>,
) -> io::Result<u64> {
    let acks = Tally::default();
    let window = if messages.is_some() { LONG_WINDOW } else { WINDOW };
    let enough = |next: u64| stop.get() || messages.is_some_and(|messages| next >= messages);
    loop {
        let under_way = template.next - acks.acked.get();
        if !enough(template.next) && under_way <= window / 2 {
            let left = messages.map_or(u64::MAX, |messages| messages - template.next);
            wire.publish(&mut template, (window - under_way).min(left))
                .await?;
        } else if under_way == 0 {
            acked.set(acked.get() + template.next);
            return Ok(template.next);
        }
        wire.take(&acks).await?;
    }
}

/// The subscribers come and get what lies there for them.
pub(crate) async fn fetch(broker: &Broker, away: Away, tag: &str, sent: u64) -> io::Result<Found> {
    let (cpu, disk, begin) = (broker.cpu_s(), broker.disk(), Instant::now());
    let (mut coming, mut tallies) = (JoinSet::new(), Vec::new());
    for mut wire in open(broker, format!("{tag}-away"), away.subscribers, false, |_| None).await? {
        let awaited: Rc<[Awaited]> = Rc::new([Awaited::default()]);
        let tally = Rc::new(Tally::new(&awaited));
        tallies.push(tally.clone());
        coming.spawn_local(async move {
            if wire.take_early(&tally).await.is_ok() {
                while wire.take(&tally).await.is_ok() {}
            }
        });
    }
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(|tally| of(tally)).sum::<u64>();
    let (mut came, mut moved, mut rss_kib) = (0, Instant::now(), 0_f64);
    while sum(Tally::distinct) < sent && moved.elapsed() < LAST_ORDERS {
        let now = sum(Tally::distinct);
        if now != came {
            (came, moved) = (now, Instant::now());
        }
        rss_kib = rss_kib.max(broker.rss_kib());
        // Whatever ends a reader is a loss, and found out below.
        let _ = timeout(Duration::from_millis(5), coming.join_next()).await;
    }
    let (took, cpu) = (begin.elapsed().as_secs_f64(), broker.cpu_s() - cpu);
    let (syncs, written) = disk.used();
    let drained = sum(Tally::distinct);
    let each = |all: f64| all / drained.max(1) as f64;
    eprintln!(
        "{}: {drained} drained in {took:.2} s, {:.0} per second, {:.2} µs, {:.4} syncs and {:.0} bytes each, \
         {:.1} MiB",
        broker.name,
        drained as f64 / took,
        each(cpu * 1e6),
        each(syncs),
        each(written),
        rss_kib / 1024.0
    );
    Ok(Found {
        per_s: drained as f64 / took,
        cpu_us: each(cpu * 1e6),
        rss_kib,
        syncs: each(syncs),
        written: each(written),
        lost: sent.saturating_sub(drained),
        duplicates: sum(|tally| tally.duplicates.get()),
        disorder: sum(|tally| tally.disorder.get() + tally.strange.get()),
    })
}

/// Leaves sessions and retained messages behind; what is measured is making them.
pub(crate) async fn run_furnish(broker: &Broker, furnish: Furnish, tag: &str) -> io::Result<Found> {
    let (cpu, disk, begin) = (broker.cpu_s(), broker.disk(), Instant::now());
    let mut made = 0;
    while made < furnish.sessions {
        let some = (furnish.sessions - made).min(2000);
        let filter = |index: usize| Some((format!("{tag}/own/{}", made + index), 1));
        for wire in open(broker, format!("{tag}-{made}"), some, false, filter).await? {
            drop(wire);
        }
        made += some;
    }
    let mut wire = Wire::connect(broker.seat(0), &format!("{tag}-keeper"), true).await?;
    let acks = Tally::default();
    let mut sent = 0;
    while acks.acked.get() < furnish.retained {
        while sent < furnish.retained && sent - acks.acked.get() < LONG_WINDOW {
            wire.retain(&format!("{tag}/kept/{sent}"), sent);
            sent += 1;
        }
        wire.flush().await?;
        wire.take(&acks).await?;
    }
    let made = furnish.sessions as f64 + furnish.retained as f64;
    let (took, cpu) = (begin.elapsed().as_secs_f64(), broker.cpu_s() - cpu);
    let (syncs, written) = disk.used();
    if let Err(error) = look_up(broker, tag, furnish.retained).await {
        eprintln!(
            "{}: retained topics are not found by wildcards: {error}",
            broker.name
        );
    }
    Ok(Found {
        per_s: made / took,
        cpu_us: cpu * 1e6 / made,
        rss_kib: broker.rss_kib(),
        syncs: syncs / made,
        written: written / made,
        ..Found::default()
    })
}

/// Seeks retained topics one by one, with a wildcard in the middle, and says how long each took.
async fn look_up(broker: &Broker, tag: &str, retained: u64) -> io::Result<()> {
    let mut wire = Wire::connect(broker.seat(0), &format!("{tag}-looks"), true).await?;
    let (cpu, mut latencies) = (broker.cpu_s(), Vec::new());
    for number in (0..LOOKUPS).map(|index| index * (retained / LOOKUPS)) {
        let awaited: Rc<[Awaited]> = Rc::new([Awaited::default()]);
        let tally = Tally::new(&awaited);
        let begin = Instant::now();
        wire.subscribe(&format!("{tag}/+/{number}"), 0).await?;
        wire.take_early(&tally).await?;
        while tally.distinct() == 0 {
            timeout(LAST_ORDERS, wire.take(&tally)).await??;
        }
        latencies.push(begin.elapsed());
    }
    latencies.sort();
    let (middle, worst) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
    eprintln!(
        "{}: a wildcard over {retained} retained topics finds one in {:.0} µs (median; at most {:.0}), CPU \
         {:.0} µs",
        broker.name,
        middle.as_secs_f64() * 1e6,
        worst.as_secs_f64() * 1e6,
        (broker.cpu_s() - cpu) * 1e6 / LOOKUPS as f64
    );
    Ok(())
}
