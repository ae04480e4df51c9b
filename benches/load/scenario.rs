//! The scenarios: who sends to whom, and how a run of one is measured.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::process::Broker;
use crate::stored::{self, Away, Furnish};
use crate::tally::{Awaited, Tally, add};
use crate::wire::{Template, Wire};

/// What is not measured: connections warm up, caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// How long what is under way at the end may take to come; what has not come then is lost.
const LAST_ORDERS: Duration = Duration::from_secs(5);

/// Connections that are opened at the same time.
const CONNECTING_MAX: usize = 100;

/// Time that a broker is given to tidy up before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// Groups of senders and receivers, each on a topic of its own.
#[derive(Clone, Copy)]
pub(crate) struct Traffic {
    pub(crate) groups: usize,
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    pub(crate) qos: u8,
    /// Messages that a sender writes at once. It waits until all of them have come, unless `flood`.
    pub(crate) burst: u64,
    pub(crate) flood: bool,
    /// Receivers (of the first groups) that read 4 KiB every 20 ms.
    pub(crate) slow: usize,
    /// Receivers whose sessions last.
    pub(crate) lasting: bool,
}

/// What is run.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Traffic(Traffic),
    /// So many clients connect (and subscribe to a topic each), then do nothing.
    Idle {
        clients: usize,
        subscribe: bool,
    },
    /// Messages for subscribers that are away, which then come and get them.
    Away(Away),
    /// The first half of that, and the second: for who starts the broker anew in between.
    Leave(Away),
    Fetch(Away),
    /// Sessions and retained messages that are left behind.
    Furnish(Furnish),
}

impl Kind {
    /// Whether it is run only when its name is given.
    pub(crate) fn is_by_hand(&self) -> bool {
        matches!(self, Self::Leave(_) | Self::Fetch(_))
    }
}

/// A scenario with its name in the table.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

const PAIRS: Traffic = Traffic {
    groups: 100,
    senders: 1,
    receivers: 1,
    qos: 0,
    burst: 1,
    flood: false,
    slow: 0,
    lasting: false,
};
const FAN_OUT: Traffic = Traffic {
    groups: 1,
    receivers: 1000,
    ..PAIRS
};
const FAN_IN: Traffic = Traffic {
    groups: 1,
    senders: 100,
    ..PAIRS
};
const FLOOD: Traffic = Traffic {
    flood: true,
    burst: 256,
    ..PAIRS
};

/// The same to subscribers whose sessions last: 100 of them, or one topic for all of them.
const STORED: Traffic = Traffic {
    qos: 1,
    lasting: true,
    ..PAIRS
};

const MILLION: Away = Away {
    subscribers: 1,
    messages: Some(1_000_000),
};

/// What is left is found again under this name.
const LEFT: &str = "left";

const fn traffic(name: &'static str, traffic: Traffic) -> Scenario {
    Scenario {
        name,
        kind: Kind::Traffic(traffic),
    }
}

const fn away(name: &'static str, subscribers: usize, messages: Option<u64>) -> Scenario {
    Scenario {
        name,
        kind: Kind::Away(Away {
            subscribers,
            messages,
        }),
    }
}

const fn idle(name: &'static str, subscribe: bool) -> Scenario {
    Scenario {
        name,
        kind: Kind::Idle {
            clients: 5000,
            subscribe,
        },
    }
}

/// All of them, in the order of the table.
pub(crate) const ALL: &[Scenario] = &[
    traffic("pairs/qos0/single", PAIRS),
    traffic("pairs/qos0/burst16", Traffic { burst: 16, ..PAIRS }),
    traffic("pairs/qos1/single", Traffic { qos: 1, ..PAIRS }),
    traffic(
        "pairs/qos1/burst16",
        Traffic {
            qos: 1,
            burst: 16,
            ..PAIRS
        },
    ),
    traffic(
        "pairs/qos2/burst16",
        Traffic {
            qos: 2,
            burst: 16,
            ..PAIRS
        },
    ),
    traffic("fan-out/qos0/single", FAN_OUT),
    traffic("fan-out/qos0/burst16", Traffic { burst: 16, ..FAN_OUT }),
    traffic("fan-out/qos1/single", Traffic { qos: 1, ..FAN_OUT }),
    traffic("fan-in/qos0/single", FAN_IN),
    traffic("fan-in/qos0/burst16", Traffic { burst: 16, ..FAN_IN }),
    traffic(
        "fan-in/qos1/burst16",
        Traffic {
            qos: 1,
            burst: 16,
            ..FAN_IN
        },
    ),
    traffic(
        "fan-in/qos2/burst16",
        Traffic {
            qos: 2,
            burst: 16,
            ..FAN_IN
        },
    ),
    traffic("flood/pairs", FLOOD),
    traffic("flood/10-of-100-slow", Traffic { slow: 10, ..FLOOD }),
    traffic(
        "flood/fan-in",
        Traffic {
            flood: true,
            burst: 256,
            ..FAN_IN
        },
    ),
    traffic("stored/pairs/qos1/single", STORED),
    traffic("stored/pairs/qos1/burst16", Traffic { burst: 16, ..STORED }),
    traffic(
        "stored/pairs/qos2/burst16",
        Traffic {
            qos: 2,
            burst: 16,
            ..STORED
        },
    ),
    traffic(
        "stored/fan-out/qos1/burst16",
        Traffic {
            groups: 1,
            receivers: 100,
            burst: 16,
            ..STORED
        },
    ),
    away("stored/away/100", 100, None),
    away("stored/away/million", 1, Some(1_000_000)),
    Scenario {
        name: "stored/leave",
        kind: Kind::Leave(MILLION),
    },
    Scenario {
        name: "stored/fetch",
        kind: Kind::Fetch(MILLION),
    },
    Scenario {
        name: "stored/furnish",
        kind: Kind::Furnish(Furnish {
            sessions: 100_000,
            retained: 1_000_000,
        }),
    },
    idle("idle/5000", false),
    idle("idle/5000-subscribed", true),
];

/// What one run has found.
#[derive(Clone, Default)]
pub(crate) struct Found {
    /// Deliveries, or connects, per second.
    pub(crate) per_s: f64,
    /// Processor time of the broker for each of them.
    pub(crate) cpu_us: f64,
    /// Highest resident memory; of an idle scenario the growth per client, in KiB.
    pub(crate) rss_kib: f64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) disorder: u64,
    /// Calls of fsync and fdatasync for each of them.
    pub(crate) syncs: f64,
    /// Bytes that were given to the disk for each of them.
    pub(crate) written: f64,
}

/// Runs one scenario once.
pub(crate) async fn run(broker: &Broker, kind: Kind, tag: &str, length: Duration) -> io::Result<Found> {
    match kind {
        Kind::Traffic(traffic) => run_traffic(broker, traffic, tag, length).await,
        Kind::Idle { clients, subscribe } => run_idle(broker, clients, subscribe, tag).await,
        Kind::Away(away) => stored::run_away(broker, away, tag, length).await,
        Kind::Leave(away) => Ok(stored::leave(broker, away, LEFT, length).await?.0),
        Kind::Fetch(away) => {
            let sent = away.messages.unwrap_or_default() * away.subscribers as u64;
            stored::fetch(broker, away, LEFT, sent).await
        }
        Kind::Furnish(furnish) => stored::run_furnish(broker, furnish, tag).await,
    }
}

/// Opens `count` clients; with a filter for each, they subscribe to it.
pub(crate) async fn open(
    broker: &Broker,
    tag: String,
    count: usize,
    clean: bool,
    filter: impl Fn(usize) -> Option<(String, u8)>,
) -> io::Result<Vec<Wire>> {
    let (mut opening, mut open) = (JoinSet::new(), Vec::with_capacity(count));
    for index in 0..count {
        let (at, id, filter) = (
            broker.seat(index).to_owned(),
            format!("{tag}-{index}"),
            filter(index),
        );
        opening.spawn_local(async move {
            let mut wire = Wire::connect(&at, &id, clean).await?;
            if let Some((filter, qos)) = filter {
                wire.subscribe(&filter, qos).await?;
            }
            io::Result::Ok((index, wire))
        });
        while opening.len() >= CONNECTING_MAX {
            open.extend(opening.join_next().await);
        }
    }
    while let Some(opened) = opening.join_next().await {
        open.push(opened);
    }
    let opened: Result<Vec<_>, io::Error> = open
        .into_iter()
        .map(|joined| joined.unwrap_or_else(|error| Err(io::Error::other(error))))
        .collect();
    let mut opened = opened?;
    opened.sort_by_key(|(index, _)| *index);
    Ok(opened.into_iter().map(|(_, wire)| wire).collect())
}

async fn run_idle(broker: &Broker, clients: usize, subscribe: bool, tag: &str) -> io::Result<Found> {
    let (rss, cpu, begin) = (broker.rss_kib(), broker.cpu_s(), Instant::now());
    let filter = |index| subscribe.then(|| (format!("{tag}/idle/{index}"), 0));
    let open = open(broker, format!("{tag}-idle"), clients, true, filter).await?;
    let took = begin.elapsed();
    let cpu = broker.cpu_s() - cpu;
    sleep(SETTLE).await;
    let found = Found {
        per_s: clients as f64 / took.as_secs_f64(),
        cpu_us: cpu * 1e6 / clients as f64,
        rss_kib: (broker.rss_kib() - rss) / clients as f64,
        syncs: f64::NAN,
        written: f64::NAN,
        ..Found::default()
    };
    drop(open);
    sleep(SETTLE).await;
    Ok(found)
}

/// A run's clients at work.
struct Floor {
    stop: Rc<Cell<bool>>,
    sent: Rc<Cell<u64>>,
    broken: Rc<Cell<u64>>,
    /// The receivers, and which of them are slow.
    tallies: Vec<(Rc<Tally>, bool)>,
    senders: JoinSet<()>,
    receivers: JoinSet<()>,
}

impl Floor {
    fn delivered(&self) -> u64 {
        self.tallies.iter().map(|(tally, _)| tally.delivered.get()).sum()
    }

    fn sum(&self, of: impl Fn(&Tally) -> u64) -> u64 {
        self.tallies.iter().map(|(tally, _)| of(tally)).sum()
    }

    /// Messages that were overtaken on their way to receivers that are not slow.
    fn missing(&self) -> u64 {
        let quick = self.tallies.iter().filter(|(_, slow)| !slow);
        quick.map(|(tally, _)| tally.missing()).sum()
    }
}

async fn set_up(broker: &Broker, traffic: Traffic, tag: &str) -> io::Result<Floor> {
    let mut floor = Floor {
        stop: Rc::default(),
        sent: Rc::default(),
        broken: Rc::default(),
        tallies: Vec::new(),
        senders: JoinSet::new(),
        receivers: JoinSet::new(),
    };
    let Traffic {
        groups,
        senders,
        receivers,
        qos,
        ..
    } = traffic;
    let topic = |group: usize| format!("{tag}/{group}");
    let filter = |index: usize| Some((topic(index / receivers), qos));
    let subscribed = open(
        &broker.turned(),
        format!("{tag}-r"),
        groups * receivers,
        !traffic.lasting,
        filter,
    )
    .await?;
    let publishing = open(broker, format!("{tag}-s"), groups * senders, true, |_| None).await?;
    let (mut subscribed, mut publishing) = (subscribed.into_iter(), publishing.into_iter());
    for group in 0..groups {
        let awaited: Rc<[Awaited]> = (0..senders).map(|_| Awaited::default()).collect();
        for wire in subscribed.by_ref().take(receivers) {
            let slow = floor.tallies.len() < traffic.slow;
            let tally = Rc::new(Tally::new(&awaited));
            floor.tallies.push((tally.clone(), slow));
            floor
                .receivers
                .spawn_local(receive(wire, tally, slow, floor.broken.clone()));
        }
        for (sender, wire) in publishing.by_ref().take(senders).enumerate() {
            let template = Template::new(sender as u32, &topic(group), qos);
            let (stop, sent) = (floor.stop.clone(), floor.sent.clone());
            let (awaited, broken) = (awaited.clone(), floor.broken.clone());
            floor.senders.spawn_local(async move {
                if send(wire, template, traffic, &awaited[sender], &stop, &sent)
                    .await
                    .is_err()
                {
                    add(&broken);
                }
            });
        }
    }
    Ok(floor)
}

async fn receive(mut wire: Wire, tally: Rc<Tally>, slow: bool, broken: Rc<Cell<u64>>) {
    loop {
        let read = if slow {
            sleep(Duration::from_millis(20)).await;
            wire.sip(&tally, 4096).await
        } else {
            wire.take(&tally).await
        };
        if read.is_err() {
            return add(&broken);
        }
    }
}

async fn send(
    mut wire: Wire,
    mut template: Template,
    traffic: Traffic,
    awaited: &Awaited,
    stop: &Cell<bool>,
    sent: &Cell<u64>,
) -> io::Result<()> {
    let acks = Tally::default();
    while !stop.get() {
        awaited
            .target
            .set((template.next + traffic.burst) * traffic.receivers as u64);
        wire.publish(&mut template, traffic.burst).await?;
        sent.set(sent.get() + traffic.burst);
        if traffic.flood {
            // A write that is always possible would never let the others on.
            tokio::task::yield_now().await;
            continue;
        }
        while traffic.qos > 0 && acks.acked.get() < template.next {
            wire.take(&acks).await?;
        }
        while awaited.came.get() < awaited.target.get() {
            awaited.bell.notified().await;
        }
    }
    Ok(())
}

async fn run_traffic(broker: &Broker, traffic: Traffic, tag: &str, length: Duration) -> io::Result<Found> {
    let mut floor = set_up(broker, traffic, tag).await?;
    sleep(WARM_UP).await;
    let (delivered, cpu, begin) = (floor.delivered(), broker.cpu_s(), Instant::now());
    let watched = broker.clone();
    let highest = Rc::new(Cell::new(0.0_f64));
    let peak = highest.clone();
    let watch = spawn_local(async move {
        loop {
            peak.set(peak.get().max(watched.rss_kib()));
            sleep(Duration::from_millis(50)).await;
        }
    });
    let disk = broker.disk();
    sleep(length).await;
    let (delivered, took) = (floor.delivered() - delivered, begin.elapsed().as_secs_f64());
    let cpu = broker.cpu_s() - cpu;
    let (syncs, written) = disk.used();
    watch.abort();
    floor.stop.set(true);
    let ended = timeout(LAST_ORDERS, async {
        while floor.senders.join_next().await.is_some() {}
    })
    .await;
    if ended.is_err() && !traffic.flood {
        eprintln!("a sender waits in vain");
    }
    if floor.broken.get() > 0 {
        eprintln!("{} clients lost their connections", floor.broken.get());
    }
    // At the end of a flood millions lie in socket buffers: only what others have overtaken is lost.
    let lost = match traffic.flood {
        true => floor.missing(),
        false => (floor.sent.get() * traffic.receivers as u64).saturating_sub(floor.sum(Tally::distinct)),
    };
    Ok(Found {
        per_s: delivered as f64 / took,
        cpu_us: cpu * 1e6 / delivered as f64,
        rss_kib: highest.get(),
        lost,
        duplicates: floor.sum(|tally| tally.duplicates.get()),
        disorder: floor.sum(|tally| tally.disorder.get() + tally.strange.get()),
        syncs: syncs / delivered as f64,
        written: written / delivered as f64,
    })
}
