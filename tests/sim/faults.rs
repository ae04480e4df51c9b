//! What goes wrong, and what clients and operators do meanwhile.

use ermine::cluster::membership::Event as Change;

use crate::life::Mail;
use crate::peer::ToPeer;
use crate::rng::Rng;
use crate::traffic::{FILTERS, TOPICS};
use crate::world::{Event, Inbox, MS, SECOND, World};

/// Client ids.
const CLIENTS: u64 = 6;

/// Topics of retained messages.
const RETAINED: u64 = 12;

/// How far apart the wall clocks are set, half of that to each side.
const SKEW_MAX_US: u64 = 40 * SECOND;

/// How much goes wrong in a run.
#[derive(Clone, Copy)]
pub(crate) struct Mood {
    /// Mean pause between two faults.
    fault_pause: u64,
    /// Mean pause between two things that clients do.
    load_pause: u64,
    /// Operators have nodes leave and join.
    commands: bool,
    /// Large messages; and one node with many filters.
    pub(crate) heavy: bool,
    many: bool,
}

impl Mood {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        Self {
            fault_pause: [200 * MS, 800 * MS, 3 * SECOND][rng.index(3)],
            load_pause: [8 * MS, 30 * MS, 100 * MS][rng.index(3)],
            commands: rng.once_in(4),
            heavy: rng.once_in(40),
            many: rng.once_in(40),
        }
    }
}

impl World {
    /// The first cause of everything.
    pub(crate) fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let skew = self.rng.below(SKEW_MAX_US) as i64 - SKEW_MAX_US as i64 / 2;
            self.hosts[host].skew = if self.rng.once_in(2) { skew } else { 0 };
            let at = self.rng.below(300 * MS);
            self.at(at, Event::Start(host));
        }
        self.run_until(301 * MS);
        self.join_all();
        let (fault, load) = (self.now + SECOND, self.now + self.rng.below(800 * MS));
        self.at(fault, Event::Fault);
        self.at(load, Event::Load);
        if self.mood.many {
            let host = self.rng.index(self.hosts.len());
            (0..2500).for_each(|n| self.subscribe(host, &format!("many/{n}"), true));
        }
    }

    /// Whoever is not of the same cluster as the first two joins it.
    pub(crate) fn join_all(&mut self) {
        for host in 0..self.hosts.len() {
            let other = self.hosts[usize::from(host == 0)].name.clone();
            let Some(life) = self.hosts[host].life.as_ref() else {
                continue;
            };
            if !life.membership.holds(&other) {
                self.post(host, Inbox::Wing, Mail::Membership(Change::Join(other)));
            }
        }
    }

    fn some_host(&mut self) -> usize {
        let len = self.hosts.len();
        self.rng.index(len)
    }

    fn some_pair(&mut self) -> (usize, usize) {
        let a = self.some_host();
        let b = (a + 1 + self.rng.index(self.hosts.len() - 1)) % self.hosts.len();
        (a, b)
    }

    pub(crate) fn fault(&mut self) {
        if self.now >= self.calm_from {
            return;
        }
        let next = self.now + self.rng.within(1, 2 * self.mood.fault_pause);
        self.at(next, Event::Fault);
        match self.rng.below(20) {
            0..=2 => self.cut_pair(),
            3..=4 => self.split(),
            5..=7 => {
                let (a, b) = self.some_pair();
                self.reset(a, b);
            }
            8 => self.flap(),
            9..=10 => {
                let (host, length) = (self.some_host(), self.rng.within(50 * MS, 9 * SECOND));
                self.pause(host, length);
            }
            11..=13 => {
                let (host, dark) = (self.some_host(), self.rng.once_in(3));
                self.kill(host, dark);
                let at = self.now + self.rng.within(50 * MS, 6 * SECOND);
                self.at(at, Event::Start(host));
            }
            14 => {
                let host = self.some_host();
                let skew = self.rng.below(SKEW_MAX_US) as i64 - SKEW_MAX_US as i64 / 2;
                self.say(|| format!("the clock of n{host} is set {} ms ahead", skew / MS as i64));
                self.hosts[host].skew = skew;
            }
            15 => self.process_falls(),
            16 => self.crash_peer(),
            17 => self.corrupt(),
            _ if self.mood.commands => self.command(),
            _ => {}
        }
    }

    fn cut_directions(&mut self, directions: Vec<(usize, usize)>, length: u64) {
        for (from, to) in &directions {
            self.say(|| format!("n{from} → n{to} is cut for {} ms", length / MS));
            self.cut.insert((*from, *to));
            self.disturb(*from, *to);
        }
        self.at(self.now + length, Event::Heal(directions));
    }

    fn cut_pair(&mut self) {
        let (a, b) = self.some_pair();
        let one_way = self.rng.once_in(3);
        let length = self.rng.within(20 * MS, 13 * SECOND);
        let directions = if one_way {
            vec![(a, b)]
        } else {
            vec![(a, b), (b, a)]
        };
        self.cut_directions(directions, length);
    }

    /// The hosts fall into two sides.
    fn split(&mut self) {
        let sides = self.rng.next();
        let length = self.rng.within(100 * MS, 13 * SECOND);
        let side = |host: usize| sides >> host & 1;
        let all = (0..self.hosts.len()).flat_map(|a| (0..self.hosts.len()).map(move |b| (a, b)));
        let across: Vec<_> = all.filter(|(a, b)| side(*a) != side(*b)).collect();
        self.cut_directions(across, length);
    }

    /// Every connection of a pair is reset again and again.
    fn flap(&mut self) {
        let (a, b) = self.some_pair();
        for n in 0..self.rng.within(2, 12) {
            let at = self.now + n * self.rng.within(30 * MS, 200 * MS);
            self.at(at, Event::Reset(a, b));
        }
    }

    fn process_falls(&mut self) {
        let (host, router) = (self.some_host(), self.rng.once_in(2));
        if self.hosts[host].life.is_some() {
            self.fall(host, router);
        }
    }

    fn crash_peer(&mut self) {
        let host = self.some_host();
        let Some(life) = self.hosts[host].life.as_ref() else {
            return;
        };
        let peers: Vec<u64> = life.peers.keys().copied().collect();
        if !peers.is_empty() {
            let peer = peers[self.rng.index(peers.len())];
            self.say(|| format!("a Peer of n{host} falls"));
            self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Crash));
        }
    }

    /// A replica of one route loses it; with more than one, which one it is would not be the seed's choice.
    fn corrupt(&mut self) {
        let (host, other) = self.some_pair();
        let name = self.hosts[other].name.clone();
        let Some(life) = self.hosts[host].life.as_mut() else {
            return;
        };
        let single = |(node, replica): (&ermine::node_name::NodeId, &ermine::routing::Replica)| {
            (node.name == name && replica.len() == 1).then(|| node.clone())
        };
        let node = life.table.replicas().find_map(single);
        if let Some(node) = node
            && life.table.lose_one(&node.name)
        {
            let me = life.id.clone();
            self.say(|| format!("{me} loses the route of {node}"));
            self.corrupted.insert((me, node));
        }
    }

    /// Routes differ from their owner's at the same version: only where they were made to.
    pub(crate) fn drifted(&mut self, host: usize, node: &ermine::node_name::NodeId) {
        let me = self.life(host).id.clone();
        if !self.corrupted.contains(&(me.clone(), node.clone())) {
            self.violated(&format!("the routes of {node} that {me} holds have drifted"));
        }
    }

    fn command(&mut self) {
        let (host, other) = self.some_pair();
        if self.hosts[host].life.is_none() {
            return;
        }
        for at in [host, other] {
            let name = self.hosts[at].name.clone();
            self.ledger.commanded.insert(name, self.now);
        }
        let name = self.hosts[other].name.clone();
        let change = match self.rng.below(4) {
            0 => Change::Leave,
            1 => Change::Expel(name),
            _ => Change::Join(name),
        };
        self.say(|| format!("an operator at n{host}: {change:?}"));
        self.post(host, Inbox::Wing, Mail::Membership(change));
    }

    pub(crate) fn load(&mut self) {
        if self.now >= self.calm_from {
            return;
        }
        let next = self.now + self.rng.within(1, 2 * self.mood.load_pause);
        self.at(next, Event::Load);
        let host = self.some_host();
        if self.hosts[host].life.is_none() || self.hosts[host].paused {
            return;
        }
        match self.rng.below(100) {
            0..=64 => {
                let topic = TOPICS[self.rng.index(TOPICS.len())];
                let size = if self.mood.heavy { 48 << 10 } else { 8 };
                let burst = if self.rng.once_in(10) {
                    self.rng.within(2, 40)
                } else {
                    1
                };
                for _ in 0..burst {
                    self.publish(host, topic, size, false);
                }
            }
            65..=79 => {
                let filter = FILTERS[self.rng.index(FILTERS.len())];
                let on = !self.life(host).filters.contains(filter);
                self.subscribe(host, filter, on);
            }
            80..=89 => {
                let topic = format!("r/{}", self.rng.below(RETAINED));
                self.publish(host, &topic, 8, true);
            }
            number => {
                let id = format!("c{}", self.rng.below(CLIENTS)).into();
                let mail = if number < 97 {
                    Mail::Connect(id)
                } else {
                    Mail::Disconnect(id)
                };
                self.post(host, Inbox::Clients, mail);
            }
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm(&mut self) {
        self.say(|| "everything heals".into());
        let cut: Vec<_> = self.cut.iter().copied().collect();
        self.heal(&cut);
        for host in 0..self.hosts.len() {
            self.resume(host);
            self.start(host);
        }
    }
}
