//! Clients that publish and count: nothing may be missing, nothing may come twice, nobody may be closed.
//!
//! Each publisher has a topic and sends numbers with the time to it, one in flight. Half of them use QoS 1,
//! half QoS 2. Each topic has a subscriber of its own; two others subscribe to all topics at once. Given two
//! nodes, half of the topics have their subscriber on the other one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Ack, Packet, Publish, QoS};

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::verdict::{Came, Verdict};

/// Pause between two messages of a publisher when there are few of them, so that the load is steady and
/// leaves room for a crash.
const PACE: Duration = Duration::from_millis(8);

/// Clients from which on each publishes so much less that the load stays the same.
const PACED_CLIENTS: u32 = 24;

/// What ends a stream.
const END: &str = "end";

/// Messages that each subscriber must get after a crash before the next one.
const MORE: u64 = 4;

/// Messages that each subscriber gets before the first crash.
const CALM: u64 = 40;

/// How many messages each subscriber has got.
#[derive(Default)]
struct Progress {
    received: Mutex<Vec<u64>>,
    more: Condvar,
}

/// The running load.
pub(crate) struct Load {
    stops: Vec<Sender<()>>,
    publishers: Vec<JoinHandle<()>>,
    subscribers: Vec<JoinHandle<Tally>>,
    idle: Vec<Client>,
    progress: Arc<Progress>,
}

/// What one subscriber has got.
#[derive(Default)]
struct Tally {
    came: Vec<Came>,
    lost: u64,
    doubled: u64,
    /// Why it did not get all streams to their ends.
    broken: Option<String>,
}

impl Load {
    /// So many clients: a third publishes, a third subscribes to one topic each, two subscribe to all, and
    /// the rest only keeps a connection.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        Self::across(&[address], clients, |_| ())
    }

    /// The same over several nodes; `ready` waits until they know each other's subscriptions to so many
    /// topics.
    pub(crate) fn across(addresses: &[SocketAddr], clients: usize, ready: impl FnOnce(usize)) -> Self {
        let at = |n: usize| addresses[n % addresses.len()];
        let topics = clients / 3;
        let progress = Arc::new(Progress::default());
        let filters = (0..topics).map(|topic| (format!("load/{topic}"), 1));
        let filters: Vec<_> = filters
            .chain((0..2).map(|_| ("load/+".to_owned(), topics)))
            .collect();
        *progress.received.lock().expect("whole") = vec![0; filters.len()];
        let subscribers = filters.into_iter().enumerate().map(|(me, (filter, streams))| {
            let mut client = Options::new(&format!("subscriber-{me}")).connect(at(me));
            client.subscribe(&filter, QoS::ExactlyOnce);
            let progress = progress.clone();
            std::thread::spawn(move || Tally::default().fill(client, me, streams, &progress))
        });
        let subscribers: Vec<_> = subscribers.collect();
        ready(topics);
        let pace = PACE * (u32::try_from(clients).unwrap_or(u32::MAX) / PACED_CLIENTS).max(1);
        let (mut stops, mut publishers) = (Vec::new(), Vec::new());
        for topic in 0..topics {
            let client = Options::new(&format!("publisher-{topic}")).connect(at(topic / 2));
            let (stop, stopped) = channel();
            stops.push(stop);
            publishers.push(std::thread::spawn(move || publish(client, topic, pace, &stopped)));
        }
        let idle = (0..clients.saturating_sub(2 * topics + 2)).map(|n| {
            let mut client = Options::v5(&format!("idle-{n}")).connect(at(n));
            client.subscribe(&format!("idle/{n}"), QoS::AtLeastOnce);
            client
        });
        let load = Self {
            stops,
            publishers,
            subscribers,
            idle: idle.collect(),
            progress,
        };
        // What is measured of a crash is compared with a while without one.
        load.await_each(&load.received(), CALM).expect("the load flows");
        load
    }

    /// How many messages each subscriber has got.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.progress.received.lock().expect("whole").clone()
    }

    /// Waits until every subscriber has got some more.
    #[track_caller]
    pub(crate) fn await_more(&self, before: &[u64]) {
        self.flows_after(before).expect("everybody gets more");
    }

    /// Waits until every subscriber has got some more; a sentence if somebody does not.
    pub(crate) fn flows_after(&self, before: &[u64]) -> Result<(), String> {
        self.await_each(before, MORE)
    }

    fn await_each(&self, before: &[u64], more: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = self.progress.received.lock().expect("whole");
        loop {
            let lacking = |(_, (now, before)): &(usize, (&u64, &u64))| **now < **before + more;
            let waiting = received.iter().zip(before).enumerate().filter(lacking);
            let waiting: Vec<usize> = waiting.map(|(me, _)| me).collect();
            if waiting.is_empty() {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("nothing comes any more to the subscribers {waiting:?}"));
            }
            received = self.progress.more.wait_timeout(received, left).expect("whole").0;
        }
    }

    /// Ends the streams, awaits their ends and counts what is missing.
    pub(crate) fn judge(self) -> Verdict {
        drop(self.stops);
        let mut verdict = Verdict::default();
        for publisher in self.publishers {
            if publisher.join().is_err() {
                verdict.broken("a publisher was closed, or not answered".into());
            }
        }
        for subscriber in self.subscribers {
            let tally = subscriber.join().expect("a subscriber only counts");
            verdict.lost += tally.lost;
            verdict.doubled += tally.doubled;
            verdict.came.extend(tally.came);
            if let Some(why) = tally.broken {
                verdict.broken(why);
            }
        }
        for (n, mut client) in self.idle.into_iter().enumerate() {
            let topic = format!("idle/{n}");
            let echo = std::panic::AssertUnwindSafe(|| client.publish_and_receive(&topic));
            if std::panic::catch_unwind(echo).is_err() {
                verdict.broken(format!("idle client {n} was closed, or not answered"));
            }
        }
        verdict
    }

    /// The same; fails if anything was lost, doubled or closed.
    #[track_caller]
    pub(crate) fn finish(self) -> Verdict {
        let verdict = self.judge();
        assert!(verdict.is_clean(), "{verdict:?}");
        verdict
    }
}

/// A time that all threads of the test agree on.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Publishes until it is told to stop; each exchange is completed.
fn publish(mut client: Client, topic: usize, pace: Duration, stopped: &Receiver<()>) {
    let (topic, qos) = match topic % 2 {
        0 => (format!("load/{topic}"), QoS::AtLeastOnce),
        _ => (format!("load/{topic}"), QoS::ExactlyOnce),
    };
    let mut sent = 0;
    loop {
        let at = epoch().elapsed().as_micros();
        client.publish(&topic, &format!("{sent} {at}"), qos);
        sent += 1;
        if stopped.recv_timeout(pace) == Err(RecvTimeoutError::Disconnected) {
            client.publish(&topic, END, qos);
            return;
        }
    }
}

impl Tally {
    /// Takes the messages of so many streams to their ends.
    fn fill(mut self, mut client: Client, me: usize, streams: usize, progress: &Progress) -> Self {
        let mut next: HashMap<String, u64> = HashMap::new();
        let mut ended = 0;
        while ended < streams {
            let publish = match client.next_within(PATIENCE) {
                Ok(Some(Packet::Publish(publish))) => publish,
                Ok(Some(Packet::PubRel(released))) => {
                    client.send(&Packet::PubComp(Ack::success(released.packet_id)));
                    continue;
                }
                other => {
                    self.broken = Some(format!("subscriber {me} got {other:?}"));
                    break;
                }
            };
            let came = Instant::now();
            acknowledge(&mut client, &publish);
            let text = std::str::from_utf8(&publish.payload).expect("text").to_owned();
            if text == END {
                ended += 1;
            } else {
                self.note(next.entry(publish.topic.to_string()).or_default(), &text, came);
            }
            progress.received.lock().expect("whole")[me] += 1;
            progress.more.notify_all();
        }
        self
    }

    /// Every subscriber is there before the first message, so `due` begins with 0.
    fn note(&mut self, due: &mut u64, text: &str, at: Instant) {
        let (number, sent) = text.split_once(' ').expect("a number and a time");
        let number: u64 = number.parse().expect("a number");
        let sent: u64 = sent.parse().expect("a time");
        let sent = epoch() + Duration::from_micros(sent);
        self.came.push(Came { sent, at });
        if number < *due {
            self.doubled += 1;
        } else {
            self.lost += number - *due;
            *due = number + 1;
        }
    }
}

/// Acknowledges without waiting: other messages may come before the PUBREL.
fn acknowledge(client: &mut Client, publish: &Publish) {
    let Some(id) = publish.packet_id else { return };
    client.send(&match publish.qos {
        QoS::ExactlyOnce => Packet::PubRec(Ack::success(id)),
        _ => Packet::PubAck(Ack::success(id)),
    });
}
