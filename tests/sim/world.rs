//! The scheduler: virtual time, hosts that live, pause and die, and whatever is on its way within them.
//!
//! Time is counted in microseconds since the run began. Everything that happens is an entry of one queue,
//! ordered by time and then by number, so a run is a function of its seed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use ermine::cluster::membership::Now;
use ermine::cluster::wire::v1::MemberRecord;
use ermine::node_name::{Incarnation, NodeId, NodeName};

use crate::clients::Epochs;
use crate::faults::Mood;
use crate::life::{Life, Mail};
use crate::net::{Conn, Opening};
use crate::rng::Rng;
use crate::sabotage::Sabotage;
use crate::traffic::Ledger;

/// Microseconds.
pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1_000_000;

/// The wall clock when a run begins: some day in 2027.
const WALL_AT_START: u64 = 1_800_000_000 * SECOND;

/// Lines of the trace that are shown of a run that failed.
const TRACE_LINES: usize = 250;

/// Mailboxes of a life: each keeps its order, and is as slow as it likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Inbox {
    /// The arbiter of the processes between nodes.
    Wing,
    Router,
    Retainer,
    Clients,
    /// Clients → Owners.
    Owners,
    /// Router → Peer: answers, and deltas.
    Answers(u64),
    Deltas(u64),
}

#[derive(Debug)]
pub(crate) enum Event {
    /// Mail of a life; nobody reads it after that.
    Mail {
        host: usize,
        life: u64,
        mail: Mail,
    },
    /// The first item of a direction of a connection may have arrived.
    Arrival {
        conn: u64,
        to: usize,
    },
    /// An item was not acknowledged for as long as TCP bears.
    Unacknowledged {
        conn: u64,
        to: usize,
        sent: u64,
    },
    Opening(Opening),
    Fault,
    Load,
    Heal(Vec<(usize, usize)>),
    Reset(usize, usize),
    Resume(usize),
    Start(usize),
}

/// A machine with one node on it, running or not.
pub(crate) struct Host {
    pub(crate) name: NodeName,
    pub(crate) life: Option<Life>,
    pub(crate) paused: bool,
    /// The power is off: nobody even refuses a connection.
    pub(crate) dark: bool,
    /// What came for a process that is paused.
    waiting: VecDeque<(u64, Mail)>,
    /// The members file.
    pub(crate) disk: Vec<MemberRecord>,
    /// Its latest incarnation: greater than any before, as long as the clock goes forward (`node::plan`).
    incarnation: u64,
    /// How far its wall clock is ahead, in microseconds.
    pub(crate) skew: i64,
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    base: Instant,
    number: u64,
    queue: BTreeMap<(u64, u64), Box<Event>>,
    pub(crate) hosts: Vec<Host>,
    lives: u64,
    mail_at: BTreeMap<(u64, Inbox), u64>,
    pub(crate) conns: BTreeMap<u64, Conn>,
    pub(crate) conns_made: u64,
    /// Directions in which nothing gets through.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// When something was done to a pair of hosts last: a cut, a pause, a death, a reset.
    pub(crate) disturbed: BTreeMap<(usize, usize), u64>,
    pub(crate) ledger: Ledger,
    pub(crate) epochs: Epochs,
    /// Replicas that lost a route on purpose: whose, of whom.
    pub(crate) corrupted: BTreeSet<(NodeId, NodeId)>,
    pub(crate) mood: Mood,
    /// Faults and load happen until then.
    pub(crate) calm_from: u64,
    /// How slow mailboxes and connections are in this run.
    pub(crate) mail_max: u64,
    pub(crate) wire_max: u64,
    trace: Rc<RefCell<VecDeque<String>>>,
    pub(crate) loud: bool,
    pub(crate) steps: u64,
    /// What is broken on purpose, to see whether an oracle objects.
    pub(crate) sabotage: Option<Sabotage>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let size = 3 + usize::from(rng.once_in(3)) + usize::from(rng.once_in(4));
        let hosts = (0..size).map(|n| Host {
            name: format!("n{n}@h").parse().expect("a node name"),
            life: None,
            paused: false,
            dark: false,
            waiting: VecDeque::new(),
            disk: Vec::new(),
            incarnation: 0,
            skew: 0,
        });
        let hosts = hosts.collect();
        let calm_from = rng.within(4, 18) * SECOND;
        let mail_max = [20, 300, 3 * MS][rng.index(3)];
        let wire_max = [200, 2 * MS, 30 * MS][rng.index(3)];
        Self {
            seed,
            now: 0,
            base: Instant::now(),
            number: 0,
            queue: BTreeMap::new(),
            hosts,
            lives: 0,
            mail_at: BTreeMap::new(),
            conns: BTreeMap::new(),
            conns_made: 0,
            cut: BTreeSet::new(),
            disturbed: BTreeMap::new(),
            ledger: Ledger::default(),
            epochs: Epochs::new(),
            corrupted: BTreeSet::new(),
            mood: Mood::of(&mut rng),
            calm_from,
            mail_max,
            wire_max,
            trace: Rc::default(),
            loud: std::env::var_os("ERMINE_SIM_LOUD").is_some(),
            steps: 0,
            sabotage: None,
            rng,
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    pub(crate) fn wall_us(&self, host: usize) -> u64 {
        (WALL_AT_START + self.now).saturating_add_signed(self.hosts[host].skew)
    }

    pub(crate) fn both(&self, host: usize) -> Now {
        Now {
            instant: self.instant(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_micros(self.wall_us(host)),
        }
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        let mut trace = self.trace.borrow_mut();
        if trace.len() == TRACE_LINES {
            trace.pop_front();
        }
        let line = format!("{:>10.6} {}", self.now as f64 / SECOND as f64, what());
        if self.loud {
            eprintln!("{line}");
        }
        trace.push_back(line);
    }

    /// The run has shown a bug.
    #[track_caller]
    pub(crate) fn violated(&self, what: &str) -> ! {
        let trace = self.trace.borrow();
        let lines: Vec<&str> = trace.iter().map(String::as_str).collect();
        panic!(
            "{}\nseed {}: {what}\nagain, with its whole trace: ERMINE_SIM_SEED={} ERMINE_SIM_LOUD=1 \
             cargo test --test sim",
            lines.join("\n"),
            self.seed,
            self.seed
        );
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.queue
            .insert((at.max(self.now), self.number), Box::new(event));
    }

    /// A timer of a life.
    pub(crate) fn after(&mut self, host: usize, pause: Duration, mail: Mail) {
        let Some(life) = &self.hosts[host].life else {
            return;
        };
        let (life, at) = (life.serial, self.now + pause.as_micros() as u64);
        self.at(at, Event::Mail { host, life, mail });
    }

    /// Mail to a process of the same life.
    pub(crate) fn post(&mut self, host: usize, to: Inbox, mail: Mail) {
        let Some(life) = self.hosts[host].life.as_ref().map(|life| life.serial) else {
            return;
        };
        let slow = if to == Inbox::Wing {
            0
        } else {
            self.rng.below(self.mail_max)
        };
        let last = self.mail_at.entry((life, to)).or_default();
        *last = (*last).max(self.now + slow);
        let at = *last;
        self.at(at, Event::Mail { host, life, mail });
    }

    pub(crate) fn host_of(&self, name: &NodeName) -> usize {
        let host = self.hosts.iter().position(|host| host.name == *name);
        host.expect("only the hosts of this run are named")
    }

    pub(crate) fn life(&mut self, host: usize) -> &mut Life {
        self.hosts[host]
            .life
            .as_mut()
            .expect("mail is read by the living")
    }

    /// Whether this very life goes on.
    pub(crate) fn lives(&self, node: &NodeId) -> bool {
        let host = &self.hosts[self.host_of(&node.name)];
        host.life.as_ref().is_some_and(|life| life.id == *node)
    }

    pub(crate) fn disturb(&mut self, a: usize, b: usize) {
        self.disturbed.insert((a.min(b), a.max(b)), self.now);
    }

    pub(crate) fn disturb_all(&mut self, host: usize) {
        (0..self.hosts.len()).for_each(|other| self.disturb(host, other));
    }

    /// Since when nothing stands between two hosts; `None` while something does.
    pub(crate) fn sound_since(&self, a: usize, b: usize) -> Option<u64> {
        let stands = |host: &Host| host.life.is_some() && !host.paused;
        let cut = self.cut.contains(&(a, b)) || self.cut.contains(&(b, a));
        let sound = !cut && stands(&self.hosts[a]) && stands(&self.hosts[b]);
        sound.then(|| self.disturbed.get(&(a.min(b), a.max(b))).copied().unwrap_or(0))
    }

    pub(crate) fn start(&mut self, host: usize) {
        if self.hosts[host].life.is_some() {
            return;
        }
        self.lives += 1;
        let incarnation = self.wall_us(host).max(self.hosts[host].incarnation + 1);
        self.hosts[host].incarnation = incarnation;
        let incarnation = Incarnation(incarnation);
        let name = self.hosts[host].name.clone();
        let id = NodeId { name, incarnation };
        self.say(|| format!("{id} starts"));
        let now = self.both(host);
        let life = Life::new(id, self.lives, &self.hosts[host].disk, now);
        (self.hosts[host].life, self.hosts[host].dark) = (Some(life), false);
        self.disturb_all(host);
        self.post(host, Inbox::Wing, Mail::Tick);
        self.post(host, Inbox::Wing, Mail::Sweep);
        self.post(host, Inbox::Retainer, Mail::Expire);
    }

    /// kill -9, or with `dark` the mains.
    pub(crate) fn kill(&mut self, host: usize, dark: bool) {
        let Some(life) = self.hosts[host].life.take() else {
            return;
        };
        self.say(|| {
            format!(
                "{} {}",
                life.id,
                if dark { "loses its power" } else { "is killed" }
            )
        });
        self.disturb_all(host);
        self.hosts[host].paused = false;
        self.hosts[host].dark = dark;
        self.hosts[host].waiting.clear();
        self.close_all(host, dark);
    }

    pub(crate) fn pause(&mut self, host: usize, length: u64) {
        if self.hosts[host].life.is_some() && !self.hosts[host].paused {
            self.say(|| format!("{} is stopped for {} ms", self.hosts[host].name, length / MS));
            self.disturb_all(host);
            self.hosts[host].paused = true;
            self.at(self.now + length, Event::Resume(host));
        }
    }

    pub(crate) fn resume(&mut self, host: usize) {
        if !std::mem::take(&mut self.hosts[host].paused) {
            return;
        }
        self.say(|| format!("{} goes on", self.hosts[host].name));
        self.disturb_all(host);
        for (life, mail) in std::mem::take(&mut self.hosts[host].waiting) {
            self.at(self.now, Event::Mail { host, life, mail });
        }
        self.arrivals_again();
    }

    /// The next event, if there is one up to `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        let Some((&(at, _), _)) = self.queue.first_key_value() else {
            return false;
        };
        if at > until {
            return false;
        }
        let (_, event) = self.queue.pop_first().expect("it was just seen");
        self.now = at;
        self.steps += 1;
        match *event {
            Event::Mail { host, life, mail } => {
                let place = &mut self.hosts[host];
                if place.life.as_ref().is_none_or(|present| present.serial != life) {
                    return true;
                }
                if place.paused {
                    place.waiting.push_back((life, mail));
                } else {
                    self.read(host, mail);
                }
            }
            Event::Arrival { conn, to } => self.arrive(conn, to),
            Event::Unacknowledged { conn, to, sent } => self.unacknowledged(conn, to, sent),
            Event::Opening(opening) => self.open(opening),
            Event::Fault => self.fault(),
            Event::Load => self.load(),
            Event::Heal(directions) => self.heal(&directions),
            Event::Reset(a, b) if self.now < self.calm_from => self.reset(a, b),
            Event::Reset(..) => {}
            Event::Resume(host) => self.resume(host),
            Event::Start(host) => self.start(host),
        }
        true
    }

    pub(crate) fn run_until(&mut self, until: u64) {
        while self.step(until) {}
        self.now = until;
    }
}
