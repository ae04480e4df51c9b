//! How soon after its SUBACK on one node another node holds a route, while many more subscribe.
//!
//! Told by messages: from the SUBACK on a publisher on the other node sends to the new topic again and
//! again, until one arrives. That one found the route when it was published; so the time until it has
//! arrived is more than the route took, by the pause between two of them (1 ms) and the way of a message.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::harness::cluster::cluster;
use crate::process::Broker;
use crate::scenario::open;
use crate::tally::{Awaited, Tally};
use crate::wire::{Template, Wire};
use crate::{Host, broker, quantiles};

/// Clients that do nothing but subscribe.
const CROWD: usize = 50;

/// Clients whose routes are timed, each fifty times a second; their subscribes count as well.
const PROBES: usize = 10;

const PROBE_EACH: Duration = Duration::from_millis(20);

/// Pause between two messages that look for the route.
const AGAIN_AFTER: Duration = Duration::from_millis(1);

pub(crate) async fn run(per_s: usize, length: Duration) -> io::Result<()> {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let (here, there) = (broker("n1", &[&nodes[0]]), broker("n2", &[&nodes[1]]));
    let stop = Rc::new(Cell::new(false));
    let made = Rc::new(Cell::new(0));
    let mut tasks = JoinSet::new();
    let probed = per_s.min(PROBES * 50);
    let each = Duration::from_secs_f64(CROWD as f64 / (per_s - probed).max(1) as f64);
    for (number, wire) in open(&here, "crowd".into(), CROWD, true, |_| None)
        .await?
        .into_iter()
        .enumerate()
    {
        tasks.spawn_local(subscribe(wire, number, each, stop.clone(), made.clone()));
    }
    let found: Rc<Cell<Vec<f64>>> = Rc::default();
    for probe in probes(&here, &there).await? {
        tasks.spawn_local(probe.run(stop.clone(), made.clone(), found.clone()));
    }
    let (begin, cpu) = (Instant::now(), (here.cpu_s(), there.cpu_s()));
    tokio::time::sleep(length).await;
    let took = begin.elapsed().as_secs_f64();
    let (subscribed, cpu) = (made.get(), (here.cpu_s() - cpu.0, there.cpu_s() - cpu.1));
    stop.set(true);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    println!(
        "{:.0} subscribes per second; CPU µs of each: {:.1} on the node of its client, {:.1} on the other",
        subscribed as f64 / took,
        cpu.0 * 1e6 / subscribed as f64,
        cpu.1 * 1e6 / subscribed as f64,
    );
    quantiles(
        "SUBACK until a message has come from the other node",
        found.take(),
    );
    Ok(())
}

async fn subscribe(
    mut wire: Wire,
    number: usize,
    each: Duration,
    stop: Rc<Cell<bool>>,
    made: Rc<Cell<u64>>,
) -> io::Result<()> {
    // Whoever is late catches up.
    let mut clock = interval(each);
    let mut count = 0;
    while !stop.get() {
        clock.tick().await;
        wire.subscribe(&format!("crowd/{number}/{count}"), 0).await?;
        count += 1;
        made.set(made.get() + 1);
    }
    Ok(())
}

/// One route after the other.
struct Probe {
    number: usize,
    subscriber: Wire,
    publisher: Wire,
}

async fn probes(here: &Broker, there: &Broker) -> io::Result<Vec<Probe>> {
    let subscribers = open(here, "probe".into(), PROBES, true, |_| None).await?;
    let publishers = open(there, "prober".into(), PROBES, true, |_| None).await?;
    let pairs = subscribers.into_iter().zip(publishers).enumerate();
    let probe = |(number, (subscriber, publisher))| Probe {
        number,
        subscriber,
        publisher,
    };
    Ok(pairs.map(probe).collect())
}

impl Probe {
    async fn run(
        mut self,
        stop: Rc<Cell<bool>>,
        made: Rc<Cell<u64>>,
        found: Rc<Cell<Vec<f64>>>,
    ) -> io::Result<()> {
        let mut clock = interval(PROBE_EACH);
        let mut count = 0;
        while !stop.get() {
            clock.tick().await;
            let took = self.once(&format!("probe/{}/{count}", self.number)).await?;
            count += 1;
            made.set(made.get() + 1);
            let mut all = found.take();
            all.push(took.as_secs_f64() * 1e3);
            found.set(all);
        }
        Ok(())
    }

    async fn once(&mut self, topic: &str) -> io::Result<Duration> {
        let sender: Rc<[Awaited]> = Rc::new([Awaited::default()]);
        let tally = Tally::new(&sender);
        let mut template = Template::new(0, topic, 0);
        self.subscriber.subscribe(topic, 0).await?;
        let since = Instant::now();
        while tally.delivered.get() == 0 {
            self.publisher.publish(&mut template, 1).await?;
            if let Ok(taken) = timeout(AGAIN_AFTER, self.subscriber.take(&tally)).await {
                taken?;
            }
        }
        let took = since.elapsed();
        // What was sent behind it comes as well, before the next SUBACK.
        while tally.delivered.get() + tally.missing() < template.next {
            self.subscriber.take(&tally).await?;
        }
        Ok(took)
    }
}
