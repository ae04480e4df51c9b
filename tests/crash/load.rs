//! Clients that publish and count: nothing may be missing, nothing may come twice, nobody may be closed.
//!
//! Each publisher has a topic and sends numbers to it, one in flight. Half of them use QoS 1, half QoS 2.
//! Each topic has a subscriber of its own; others subscribe to all topics at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Ack, Packet, Publish, QoS};

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};

/// Pause between two messages of a publisher, so that the load is steady and leaves room for a crash.
const PACE: Duration = Duration::from_millis(8);

/// What ends a stream.
const END: &str = "end";

/// Messages that each subscriber must get after a crash before the next one.
const MORE: u64 = 4;

/// Messages that each subscriber gets before the first crash: rather more than [`AFTERMATH`] brings.
const CALM: u64 = 80;

/// How long after a crash a silence counts as its pause.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How many messages each subscriber has got.
#[derive(Default)]
struct Progress {
    received: Mutex<Vec<u64>>,
    more: Condvar,
}

/// The running load.
pub(crate) struct Load {
    stops: Vec<Sender<()>>,
    publishers: Vec<JoinHandle<u64>>,
    subscribers: Vec<JoinHandle<Vec<Instant>>>,
    idle: Vec<Client>,
    progress: Arc<Progress>,
    began: Instant,
}

/// When each subscriber got its messages.
pub(crate) struct Seen {
    arrivals: Vec<Vec<Instant>>,
    began: Instant,
}

/// Median and 99th percentile, in milliseconds.
pub(crate) struct Pause {
    pub around: (f64, f64),
    pub elsewhere: (f64, f64),
}

impl Load {
    /// So many clients: a third publishes, a third subscribes to one topic each, two subscribe to all, and
    /// the rest only keeps a connection.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let topics = clients / 3;
        let progress = Arc::new(Progress::default());
        let filters = (0..topics).map(|topic| (format!("load/{topic}"), 1));
        let filters: Vec<_> = filters
            .chain((0..2).map(|_| ("load/+".to_owned(), topics)))
            .collect();
        *progress.received.lock().expect("whole") = vec![0; filters.len()];
        let subscribers = filters.into_iter().enumerate();
        let subscribers = subscribers.map(|(me, (filter, streams))| {
            let mut client = Options::new(&format!("subscriber-{me}")).connect(address);
            client.subscribe(&filter, QoS::ExactlyOnce);
            let progress = progress.clone();
            std::thread::spawn(move || count(client, me, streams, &progress))
        });
        let subscribers: Vec<_> = subscribers.collect();
        let (mut stops, mut publishers) = (Vec::new(), Vec::new());
        for topic in 0..topics {
            let client = Options::new(&format!("publisher-{topic}")).connect(address);
            let (stop, stopped) = channel();
            stops.push(stop);
            publishers.push(std::thread::spawn(move || publish(client, topic, &stopped)));
        }
        let idle = (0..clients.saturating_sub(2 * topics + 2)).map(|n| {
            let mut client = Options::v5(&format!("idle-{n}")).connect(address);
            client.subscribe(&format!("idle/{n}"), QoS::AtLeastOnce);
            client
        });
        let load = Self {
            stops,
            publishers,
            subscribers,
            idle: idle.collect(),
            progress,
            began: Instant::now(),
        };
        // What is measured of a crash is compared with a while without one.
        load.await_each(&load.received(), CALM);
        load
    }

    /// How many messages each subscriber has got.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.progress.received.lock().expect("whole").clone()
    }

    /// Waits until every subscriber has got some more.
    #[track_caller]
    pub(crate) fn await_more(&self, before: &[u64]) {
        self.await_each(before, MORE);
    }

    #[track_caller]
    fn await_each(&self, before: &[u64], more: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.progress.received.lock().expect("whole");
        while received
            .iter()
            .zip(before)
            .any(|(now, before)| *now < before + more)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "somebody gets nothing any more: {before:?}, {received:?}"
            );
            received = self.progress.more.wait_timeout(received, left).expect("whole").0;
        }
    }

    /// Ends the streams and awaits their ends. Fails if anything was lost, doubled or closed.
    #[track_caller]
    pub(crate) fn finish(self) -> Seen {
        drop(self.stops);
        for publisher in self.publishers {
            publisher.join().expect("every publication was acknowledged");
        }
        let arrivals = self.subscribers.into_iter();
        let arrivals = arrivals.map(|subscriber| subscriber.join().expect("everything came once"));
        let arrivals = arrivals.collect();
        for (n, mut client) in self.idle.into_iter().enumerate() {
            client.publish_and_receive(&format!("idle/{n}"));
        }
        Seen {
            arrivals,
            began: self.began,
        }
    }
}

/// Publishes until it is told to stop; each exchange is completed.
fn publish(mut client: Client, topic: usize, stopped: &std::sync::mpsc::Receiver<()>) -> u64 {
    let (topic, qos) = match topic % 2 {
        0 => (format!("load/{topic}"), QoS::AtLeastOnce),
        _ => (format!("load/{topic}"), QoS::ExactlyOnce),
    };
    let mut sent = 0;
    loop {
        client.publish(&topic, &sent.to_string(), qos);
        sent += 1;
        let told = stopped.recv_timeout(PACE);
        if told == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
            client.publish(&topic, END, qos);
            return sent;
        }
    }
}

/// Takes the messages of so many streams to their ends; when each came.
fn count(mut client: Client, me: usize, streams: usize, progress: &Progress) -> Vec<Instant> {
    let mut next: HashMap<String, u64> = HashMap::new();
    let (mut arrivals, mut ended) = (Vec::new(), 0);
    while ended < streams {
        let publish = match client.next() {
            Packet::Publish(publish) => publish,
            Packet::PubRel(released) => {
                client.send(&Packet::PubComp(Ack::success(released.packet_id)));
                continue;
            }
            other => panic!("{other:?}"),
        };
        arrivals.push(Instant::now());
        acknowledge(&mut client, &publish);
        let text = std::str::from_utf8(&publish.payload).expect("text").to_owned();
        let due = next
            .entry(publish.topic.to_string())
            .or_insert_with(|| first(&text));
        if text == END {
            ended += 1;
        } else {
            let number: u64 = text.parse().expect("a number");
            assert_eq!(
                number, *due,
                "subscriber {me}, {}: lost, doubled or disordered",
                publish.topic
            );
            *due += 1;
        }
        progress.received.lock().expect("whole")[me] += 1;
        progress.more.notify_all();
    }
    arrivals
}

/// Every subscriber is there before the first message.
fn first(text: &str) -> u64 {
    assert!(text == "0" || text == END, "the stream begins with {text}");
    0
}

/// Acknowledges without waiting: other messages may come before the PUBREL.
fn acknowledge(client: &mut Client, publish: &Publish) {
    let Some(id) = publish.packet_id else { return };
    client.send(&match publish.qos {
        QoS::ExactlyOnce => Packet::PubRec(Ack::success(id)),
        _ => Packet::PubAck(Ack::success(id)),
    });
}

impl Seen {
    /// How many messages came.
    pub(crate) fn messages(&self) -> usize {
        self.arrivals.iter().map(Vec::len).sum()
    }

    /// The longest silence of each subscriber after each crash, and in the other stretches of that length.
    pub(crate) fn pause(&self, crashes: &[Instant]) -> Pause {
        let mut around = Vec::new();
        let mut elsewhere = Vec::new();
        for arrivals in &self.arrivals {
            around.extend(crashes.iter().map(|crash| silence(arrivals, *crash)));
            let last = arrivals.last().copied().unwrap_or(self.began);
            let mut from = self.began;
            while from + AFTERMATH < last {
                let near = |crash: &Instant| *crash < from + AFTERMATH && from < *crash + AFTERMATH;
                if !crashes.iter().any(near) {
                    elsewhere.push(silence(arrivals, from));
                }
                from += AFTERMATH / 4;
            }
        }
        Pause {
            around: quantiles(around),
            elsewhere: quantiles(elsewhere),
        }
    }
}

/// The longest time without a message that begins within [`AFTERMATH`] of `from`, in milliseconds.
fn silence(arrivals: &[Instant], from: Instant) -> f64 {
    let mut longest = Duration::ZERO;
    for pair in arrivals.windows(2) {
        if pair[1] > from && pair[0] < from + AFTERMATH {
            longest = longest.max(pair[1] - pair[0]);
        }
    }
    longest.as_secs_f64() * 1e3
}

fn quantiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = (values.len() as f64 * share) as usize;
        values
            .get(position.min(values.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0.0)
    };
    (at(0.5), at(0.99))
}
