//! A trial: a node that is ended at random moments under load and started again, and what its clients say.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Packet, QoS};

use crate::crash::path_of;
use crate::dice::Dice;
use crate::harness::PATIENCE;
use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually};
use crate::house::NAME;
use crate::keep::Keeps;
use crate::publisher::Publisher;
use crate::subscriber::{Habit, Subscriber};
use crate::world::{Phase, Terms, World};

/// Nothing is dropped because a queue is full: what is missing was lost.
const ROOMY: &str = "[limits]
queue_len_max = 1000000
queue_bytes_max = 1073741824
";

const PUBLISHERS: usize = 4;

/// A topic where something is retained all the time.
const MARK: &str = "mark";

/// Those who subscribe to everything, and those who subscribe to one topic and leave it again and again.
const SUBSCRIBERS: [(Habit, QoS, Option<usize>); 10] = [
    (Habit::Stays, QoS::ExactlyOnce, None),
    (Habit::ComesAndGoes, QoS::ExactlyOnce, None),
    (Habit::Away, QoS::ExactlyOnce, None),
    (Habit::Away, QoS::AtLeastOnce, None),
    (Habit::ComesAndGoes, QoS::AtLeastOnce, None),
    (Habit::Stays, QoS::ExactlyOnce, Some(0)),
    (Habit::ComesAndGoes, QoS::AtLeastOnce, Some(1)),
    (Habit::ComesAndGoes, QoS::ExactlyOnce, Some(2)),
    (Habit::StartsOver, QoS::ExactlyOnce, Some(0)),
    (Habit::StartsOver, QoS::AtLeastOnce, Some(1)),
];

/// How a round ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// `kill -9` so long after the clients could come in.
    Killed(Duration),
    /// The same, and `kill -9` again so long after the process was started, whether it is up or not.
    KilledTwice(Duration, Duration),
    /// SIGTERM.
    Stopped(Duration),
    /// Not at all: it goes on.
    Spared(Duration),
    /// Not at all, but the sessions of all subscribers crash, one after the other.
    Crashes(Duration),
}

impl End {
    pub(crate) fn roll(dice: &mut Dice) -> Self {
        let after = dice.millis(20, 400);
        match dice.below(8) {
            0 => Self::Stopped(after),
            1 => Self::KilledTwice(after, dice.millis(1, 150)),
            _ => Self::Killed(after),
        }
    }
}

pub(crate) struct Trial {
    pub host: Host,
    config: String,
    node: Option<Node>,
    pub world: Arc<World>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// By publisher: messages from here on were not judged yet.
    unjudged: Vec<usize>,
    look: usize,
    /// How long nothing may come while something is missing.
    pub owed_within: Duration,
}

impl Trial {
    pub(crate) fn begin(seed: u64) -> Self {
        let host = Host::new();
        let config = host.home().join("roomy.toml");
        std::fs::write(&config, ROOMY).expect("written");
        let config = config.to_str().expect("a path of ours").to_owned();
        let node = host.start_with(NAME, &["--config", &config, "--worker-threads", "2"]);
        Options::new("mark")
            .connect(node.mqtt)
            .publish_with(MARK, "there", QoS::AtLeastOnce, true);
        let terms = SUBSCRIBERS.map(|(_, qos, toggles)| Terms { qos, toggles });
        let world = Arc::new(World::new(node.mqtt, Dice::new(seed), PUBLISHERS, &terms));
        let enroll = |(no, (habit, _, _)): (usize, &(Habit, QoS, Option<usize>))| {
            let mut subscriber = Subscriber::new(no, &world, *habit);
            subscriber.enroll();
            subscriber
        };
        Self {
            config,
            node: Some(node),
            publishers: (0..PUBLISHERS).map(|no| Publisher::new(no, &world)).collect(),
            subscribers: SUBSCRIBERS.iter().enumerate().map(enroll).collect(),
            unjudged: vec![0; PUBLISHERS],
            look: 0,
            owed_within: PATIENCE,
            host,
            world,
        }
    }

    fn spawn(&self) -> Node {
        let arguments = ["--config", &self.config, "--worker-threads", "2"];
        self.host.spawn_at(self.world.address, NAME, &arguments)
    }

    fn start(&mut self) {
        let node = self.spawn();
        node.await_log("the node is up", |line| line.contains("node started"));
        self.node = Some(node);
    }

    fn kill(&mut self) {
        if let Some(node) = self.node.take() {
            node.kill();
        }
    }

    /// Load for a while, then the end of the node, `between` its two lives, and the next one.
    fn round(&mut self, end: End, between: impl Fn(&Self)) {
        let (End::Killed(after)
        | End::KilledTwice(after, _)
        | End::Stopped(after)
        | End::Spared(after)
        | End::Crashes(after)) = end;
        std::thread::park_timeout(after);
        match end {
            End::Spared(_) => return,
            End::Crashes(_) => return self.crash_sessions(),
            End::Stopped(_) => {
                let status = self.node.take().expect("a node").stop();
                assert!(status.success(), "a stop in good order: {status}");
            }
            _ => self.kill(),
        }
        between(self);
        if let End::KilledTwice(_, after) = end {
            let node = self.spawn();
            std::thread::park_timeout(after);
            node.kill();
        }
        let promised = self.world.keeps.promised();
        self.start();
        self.look_at_what_is_retained(&promised);
    }

    fn crash_sessions(&self) {
        for no in 0..self.world.subscribers() {
            let path = eventually("the session is back", || {
                path_of(&self.host, &format!("subscriber-{no}"))
            });
            self.host.ok(&["crash", &path]);
        }
    }

    /// Some rounds under one load; then everything has to arrive.
    pub(crate) fn rounds(&mut self, ends: &[(usize, End)], between: impl Fn(&Self)) {
        self.world.enter(Phase::Load);
        let publishers = std::mem::take(&mut self.publishers).into_iter();
        let publishing: Vec<JoinHandle<Publisher>> = publishers
            .map(|publisher| std::thread::spawn(move || publisher.run()))
            .collect();
        let subscribers = std::mem::take(&mut self.subscribers).into_iter();
        let receiving: Vec<JoinHandle<Subscriber>> = subscribers
            .map(|subscriber| std::thread::spawn(move || subscriber.run()))
            .collect();
        for (round, end) in ends {
            self.world.begin_round(*round);
            self.round(*end, &between);
        }
        std::thread::park_timeout(Duration::from_millis(50));
        self.world.enter(Phase::Settle);
        self.publishers = joined(publishing);
        self.await_all();
        self.world.enter(Phase::End);
        self.subscribers = joined(receiving);
        self.judge();
    }

    /// Waits until all that was promised has come, or nothing comes any more.
    fn await_all(&self) {
        let (mut deliveries, mut moved) = (0, Instant::now());
        while !self.world.missing(&self.unjudged).is_empty() && moved.elapsed() < self.owed_within {
            let now = self.world.deliveries();
            if now != deliveries {
                (deliveries, moved) = (now, Instant::now());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn judge(&mut self) {
        for missing in self.world.missing(&self.unjudged) {
            self.world.violated("the verdict", missing);
        }
        for unwanted in self.world.unwanted(&self.unjudged) {
            self.world.violated("the verdict", unwanted);
        }
        for (publisher, unjudged) in self.unjudged.iter_mut().enumerate() {
            *unjudged = self.world.sent(publisher).len();
        }
    }

    /// A new client sees what is retained.
    fn look_at_what_is_retained(&mut self, promised: &[Option<usize>]) {
        self.look += 1;
        let options = Options::new(&format!("look-{}", self.look));
        let Some(mut client) = self.world.connect(&options, "the look") else {
            return;
        };
        client.send_subscribe("kept/#", Default::default());
        // What is retained for the second comes when all is there that is retained for the first.
        client.send_subscribe(MARK, Default::default());
        let deadline = Instant::now() + PATIENCE;
        let mut found: HashMap<String, String> = HashMap::new();
        loop {
            match client.next_within(deadline.saturating_duration_since(Instant::now())) {
                Ok(Some(Packet::Publish(publish))) if publish.topic == MARK => break,
                Ok(Some(Packet::Publish(publish))) if publish.payload.is_empty() => {
                    found.remove(&*publish.topic);
                }
                Ok(Some(Packet::Publish(publish))) => {
                    let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                    found.insert(publish.topic.to_string(), payload);
                }
                Ok(Some(_)) => {}
                other => return self.world.violated("the look", format!("{other:?}")),
            }
        }
        if let Some(wrong) = self.wrongly_retained(promised, &found) {
            self.world.violated("the look", wrong);
        }
    }

    /// A topic that holds what it must not, if there is one.
    fn wrongly_retained(
        &self,
        promised: &[Option<usize>],
        found: &HashMap<String, String>,
    ) -> Option<String> {
        promised.iter().enumerate().find_map(|(publisher, promised)| {
            let there = found.get(&Keeps::topic(publisher));
            let number = there.map(|text| text.parse().expect("the number of a value"));
            let may = self.world.keeps.may_hold(publisher, *promised, number);
            (!may).then(|| format!("kept/{publisher} holds {there:?}, promised was {promised:?}"))
        })
    }

    /// Messages that were sent, and deliveries.
    pub(crate) fn figures(&self) -> (usize, u64) {
        let sent = (0..PUBLISHERS).map(|no| self.world.sent(no).len()).sum();
        (sent, self.world.deliveries())
    }

    /// What the node said, for the reader of a failed trial.
    pub(crate) fn log(&self) -> String {
        self.node.as_ref().map(|node| node.log.all()).unwrap_or_default()
    }
}

fn joined<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    let join = |thread: JoinHandle<T>| thread.join().expect("a client does not panic");
    threads.into_iter().map(join).collect()
}

/// A line for the reader of the gate, past the capture of the test harness.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
