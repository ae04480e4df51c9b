//! What all clients of a trial share: where the broker is, what phase it is, and what they saw.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Publish, QoS};

use crate::dice::Dice;
use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::journal::{Course, Fate, Id, Seen, Sent, Standing, Step, TOPICS};
use crate::keep::Keeps;

/// What the clients are to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Phase {
    /// Publish, come and go.
    Load,
    /// Publish nothing new, bring what is under way to its end, get all there is.
    Settle,
    /// Make sure that nothing more comes, and end.
    End,
}

/// How one subscriber subscribes, for the verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub qos: QoS,
    /// The topic that it subscribes to and unsubscribes from; `None`: all of them, all the time.
    pub toggles: Option<usize>,
}

/// What one subscriber saw.
pub(crate) struct Ledger {
    pub terms: Terms,
    /// By publisher and number.
    seen: Vec<Vec<Seen>>,
    /// By publisher, topic and QoS: one behind the last message that came for the first time.
    front: Vec<[[usize; 3]; TOPICS]>,
    pub course: Course,
    /// When it threw its session away last: before it said so, and when it had been told that it is gone.
    thrown_away: Option<(Instant, Option<Instant>)>,
    pub deliveries: u64,
}

pub(crate) struct World {
    pub address: SocketAddr,
    pub dice: Dice,
    phase: AtomicUsize,
    round: AtomicUsize,
    sent: Vec<Mutex<Vec<Sent>>>,
    pub keeps: Keeps,
    ledgers: Vec<Mutex<Ledger>>,
    violations: Mutex<Vec<String>>,
    /// A publication may be refused with a reason.
    pub may_refuse: AtomicBool,
}

impl World {
    pub(crate) fn new(address: SocketAddr, dice: Dice, publishers: usize, terms: &[Terms]) -> Self {
        let ledger = |terms: &Terms| {
            Mutex::new(Ledger {
                terms: *terms,
                seen: vec![Vec::new(); publishers],
                front: vec![Default::default(); publishers],
                course: Course::default(),
                thrown_away: None,
                deliveries: 0,
            })
        };
        Self {
            address,
            dice,
            phase: AtomicUsize::new(Phase::Load as usize),
            round: AtomicUsize::new(0),
            sent: (0..publishers).map(|_| Mutex::default()).collect(),
            keeps: Keeps::new(publishers),
            ledgers: terms.iter().map(ledger).collect(),
            violations: Mutex::default(),
            may_refuse: AtomicBool::new(false),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Load,
            1 => Phase::Settle,
            _ => Phase::End,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as usize, Ordering::SeqCst);
    }

    pub(crate) fn begin_round(&self, round: usize) {
        self.round.store(round, Ordering::SeqCst);
    }

    /// Something that must not be.
    pub(crate) fn violated(&self, who: impl Display, what: impl Display) {
        let round = self.round.load(Ordering::SeqCst);
        let mut violations = self.violations.lock().expect("no panic holds it");
        violations.push(format!("round {round}: {who}: {what}"));
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no panic holds it").clone()
    }

    pub(crate) fn sent(&self, publisher: usize) -> MutexGuard<'_, Vec<Sent>> {
        self.sent[publisher].lock().expect("no panic holds it")
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.ledgers.len()
    }

    pub(crate) fn ledger(&self, subscriber: usize) -> MutexGuard<'_, Ledger> {
        self.ledgers[subscriber].lock().expect("no panic holds it")
    }

    /// Connects until it succeeds or the trial ends. Only a broker that took the connection and said nothing
    /// is at fault.
    pub(crate) fn connect(&self, options: &Options, who: &str) -> Option<Client> {
        let deadline = Instant::now() + 3 * PATIENCE;
        loop {
            match options.clone().try_connect(self.address) {
                Ok(client) if (client.connack.reason as u8) < 0x80 => return Some(client),
                Ok(client) => self.violated(who, format!("CONNACK {:?}", client.connack.reason)),
                Err(error) if is_silence(&error) => self.violated(who, "no CONNACK"),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                self.violated(who, "no connection for a minute");
                return None;
            }
            // The node is away; whoever is back sooner than this would only find that out more often.
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// A message came to a subscriber, for the first time in this exchange.
    pub(crate) fn received(&self, subscriber: usize, publish: &Publish) {
        let who = format!("subscriber {subscriber}");
        let Some(id) = Id::of(&publish.payload) else {
            return self.violated(who, format!("bytes that nobody sent on {}", publish.topic));
        };
        let sent = self.sent(id.publisher).get(id.seq).cloned();
        let Some(sent) = sent else {
            return self.violated(who, format!("{id:?} was never sent"));
        };
        let mut ledger = self.ledger(subscriber);
        if let Err(what) = ledger.take(id, &sent, publish) {
            self.violated(who, format!("{what}: {id:?} {sent:?}, as {publish:?}"));
        }
    }

    /// What is missing of what was promised in messages from `from` on (by publisher).
    pub(crate) fn missing(&self, from: &[usize]) -> Vec<String> {
        let mut missing = Vec::new();
        for (publisher, from) in from.iter().enumerate() {
            let sent = self.sent(publisher);
            for subscriber in 0..self.subscribers() {
                let ledger = self.ledger(subscriber);
                for (seq, sent) in sent.iter().enumerate().skip(*from) {
                    let id = Id { publisher, seq };
                    if ledger.lacks(id, sent) {
                        missing.push(format!("subscriber {subscriber} lacks {id:?} {sent:?}"));
                    }
                }
            }
        }
        missing
    }

    /// What came to those who had left, in messages from `from` on.
    pub(crate) fn unwanted(&self, from: &[usize]) -> Vec<String> {
        let mut unwanted = Vec::new();
        for (publisher, from) in from.iter().enumerate() {
            let sent = self.sent(publisher);
            for subscriber in 0..self.subscribers() {
                let ledger = self.ledger(subscriber);
                for (seq, sent) in sent.iter().enumerate().skip(*from) {
                    let id = Id { publisher, seq };
                    let left = ledger.standing(sent) == Standing::Off;
                    if left && ledger.times(id) > 0 {
                        unwanted.push(format!(
                            "subscriber {subscriber} had left and got {id:?} {sent:?}"
                        ));
                    }
                }
            }
        }
        unwanted
    }

    pub(crate) fn deliveries(&self) -> u64 {
        (0..self.subscribers())
            .map(|subscriber| self.ledger(subscriber).deliveries)
            .sum()
    }
}

/// Nothing was said in time, as opposed to: the server is gone.
pub(crate) fn is_silence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

impl Ledger {
    fn times(&self, id: Id) -> u8 {
        let seen = self.seen[id.publisher].get(id.seq);
        seen.map_or(0, |seen| seen.times)
    }

    /// What of the subscription was certain while the message was on its way to the broker.
    fn standing(&self, sent: &Sent) -> Standing {
        match (self.terms.toggles, sent.fate) {
            (None, _) => Standing::On,
            (Some(topic), _) if topic != sent.topic => Standing::Off,
            (Some(_), Fate::Promised(at)) => self.course.between(sent.first, at),
            (Some(_), _) => Standing::Unknown,
        }
    }

    fn lacks(&self, id: Id, sent: &Sent) -> bool {
        let promised = matches!(sent.fate, Fate::Promised(_));
        let kept = self
            .thrown_away
            .is_none_or(|(_, gone)| gone.is_some_and(|gone| gone < sent.first));
        promised && self.times(id) == 0 && kept && self.standing(sent) == Standing::On
    }

    /// The subscriber is about to throw its session away.
    pub(crate) fn throws_away(&mut self) {
        self.course.note(Step::Leaving);
        self.thrown_away = Some((Instant::now(), None));
    }

    /// It was told that the session is gone.
    pub(crate) fn has_thrown_away(&mut self) {
        self.course.note(Step::Left);
        if let Some((_, gone)) = &mut self.thrown_away {
            *gone = Some(Instant::now());
        }
    }

    fn take(&mut self, id: Id, sent: &Sent, publish: &Publish) -> Result<(), &'static str> {
        self.deliveries += 1;
        let qos = sent.qos.min(self.terms.qos);
        if publish.qos != qos {
            return Err("another QoS than granted");
        }
        if publish.topic != topic(sent.topic) {
            return Err("on another topic");
        }
        if sent.fate == Fate::Refused {
            return Err("refused and delivered");
        }
        if let (Fate::Promised(at), Some((since, Some(_)))) = (sent.fate, self.thrown_away)
            && at < since
            && sent.times == 1
        {
            return Err("of a session that was thrown away");
        }
        let all = &mut self.seen[id.publisher];
        if all.len() <= id.seq {
            all.resize(id.seq + 1, Seen::default());
        }
        let seen = &mut all[id.seq];
        let packet_id = publish.packet_id.map_or(0, u16::from);
        let before = std::mem::replace(&mut seen.packet_id, packet_id);
        seen.times = seen.times.saturating_add(1);
        if seen.times == 1 {
            // Who subscribes between the two gets what is sent again behind what was sent later.
            let judged = sent.times == 1
                || self.terms.toggles.is_none()
                || self.course.between(sent.first, Instant::now()) == Standing::On;
            let front = &mut self.front[id.publisher][sent.topic][sent.qos as usize];
            let late = id.seq < *front && judged;
            *front = (*front).max(id.seq + 1);
            return if late { Err("out of order") } else { Ok(()) };
        }
        match qos {
            QoS::ExactlyOnce => Err("QoS 2 twice"),
            // What the publisher had to send again may come again as another message.
            _ if sent.times > 1 => Ok(()),
            _ if !publish.dup => Err("again, without DUP"),
            _ if before != packet_id => Err("again, under another packet identifier"),
            _ => Ok(()),
        }
    }
}

/// A topic of the load.
pub(crate) fn topic(index: usize) -> String {
    format!("load/{index}")
}
