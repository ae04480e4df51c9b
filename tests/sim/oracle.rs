//! What must be true: all the time, see [`World::violated`], and when everything has healed.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use ermine::cluster::membership::State;
use ermine::node_name::NodeId;
use ermine::routing::retained::RetainedStore;
use ermine::routing::stamps::{BUCKETS, Stamp};

use crate::traffic::TOPICS;
use crate::world::{MS, SECOND, World};

/// How long after the last fault everything is to be as if nothing had been. The parts: a dial that waits for
/// an answer until its time-out (3 s) after a pause (2.5 s), once more for a link that was half open (3 s),
/// lanes that wait for their node (10 s), an exchange about retained messages whose answer got lost (3 s).
const HEALED_WITHIN: u64 = 25 * SECOND;

impl World {
    /// Runs to its end; how long after the last fault all was well, in microseconds.
    pub(crate) fn run(&mut self) -> u64 {
        self.begin();
        while self.now < self.calm_from {
            let next = self.now + 100 * MS;
            self.run_until(next);
            self.bounds();
        }
        self.calm();
        let healed = loop {
            self.join_all();
            let next = self.now + 250 * MS;
            self.run_until(next);
            self.bounds();
            match self.unhealed() {
                None => break self.now,
                Some(why) if self.now > self.calm_from + HEALED_WITHIN => {
                    self.violated(&format!("after {} s: {why}", HEALED_WITHIN / SECOND));
                }
                Some(_) => {}
            }
        };
        self.everybody_hears();
        self.last_writes();
        if let Some(why) = self.unhealed() {
            self.violated(&format!("it was well, and is no longer: {why}"));
        }
        healed - self.calm_from
    }

    /// What is bounded at any time.
    fn bounds(&self) {
        let links = self.hosts.iter().enumerate();
        for (host, life) in links.filter_map(|(host, place)| Some((host, place.life.as_ref()?))) {
            for peer in life.peers.values() {
                self.window(peer.conn, self.host_of(&peer.node.name));
                let routes = self.coming(peer.conn, self.host_of(&peer.node.name));
                let routes = routes
                    .filter(|frame| matches!(frame.first(), Some(0 | 1)))
                    .count();
                if routes > 8 {
                    self.violated(&format!("{routes} frames of routes of n{host} are on one link"));
                }
            }
            if life.store.book().tombstones().0 > 12 {
                self.violated("more topics are buried than were ever retained");
            }
        }
    }

    fn lives_now(&self) -> Vec<&crate::life::Life> {
        self.hosts.iter().filter_map(|host| host.life.as_ref()).collect()
    }

    /// What is not yet as it is to be.
    fn unhealed(&mut self) -> Option<String> {
        self.unlike_members()
            .or_else(|| self.unlike_routes())
            .or_else(|| self.unlike_retained())
            .or_else(|| self.unlike_owners())
            .or_else(|| self.unsent())
    }

    fn unlike_members(&self) -> Option<String> {
        let lives = self.lives_now();
        let mut records = BTreeMap::new();
        for life in &lives {
            let mut known = life.membership.records();
            known.sort_by(|one, other| one.name.cmp(&other.name));
            let known: Vec<_> = known
                .into_iter()
                .map(|record| (record.name, record.left))
                .collect();
            records.insert(known, life.id.clone());
            for other in lives.iter().filter(|other| other.id != life.id) {
                let member = life.membership.get(&other.id.name);
                let up = |member: &&ermine::cluster::membership::Member| {
                    member.state == State::Up && member.incarnation == Some(other.id.incarnation)
                };
                if member.filter(up).is_none() {
                    let state = member.map(|member| (member.state, member.incarnation));
                    for life in &lives {
                        self.say(|| format!("{}: {:?}", life.id, life.membership.records()));
                    }
                    return Some(format!("{} sees {} as {state:?}", life.id, other.id));
                }
                let peer = life
                    .rows
                    .get(&other.id.name)
                    .and_then(|peer| life.peers.get(peer));
                if peer.is_none_or(|peer| !peer.ready || !peer.up) {
                    return Some(format!("{} has no link to {}", life.id, other.id));
                }
            }
        }
        (records.len() != 1).then(|| format!("the members differ: {records:?}"))
    }

    fn unlike_routes(&self) -> Option<String> {
        let lives = self.lives_now();
        let listings = lives.iter().map(|life| life.table.listing(&life.id.name));
        let listings: Vec<_> = listings.collect();
        let mut truth: BTreeMap<ByteString, Vec<_>> = BTreeMap::new();
        for life in &lives {
            for filter in &life.filters {
                truth
                    .entry(filter.as_str().into())
                    .or_default()
                    .push(life.id.name.clone());
            }
        }
        let truth: Vec<_> = truth.into_iter().collect();
        for (life, listing) in lives.iter().zip(listings) {
            if listing != truth {
                let differ = listing.iter().find(|entry| !truth.contains(entry));
                let lack = truth.iter().find(|entry| !listing.contains(entry));
                return Some(format!("{} holds {differ:?} for {lack:?}", life.id));
            }
            let unsettled = life.peers.values().find(|peer| !peer.slice.is_settled());
            if let Some(peer) = unsettled {
                return Some(format!("{} has not told {} all its routes", life.id, peer.node));
            }
        }
        None
    }

    fn unlike_retained(&self) -> Option<String> {
        let lives = self.lives_now();
        let digests: BTreeSet<_> = lives.iter().map(|life| life.store.book().digest()).collect();
        (digests.len() != 1).then(|| "the retained messages differ".into())
    }

    fn unlike_owners(&mut self) -> Option<String> {
        let (mut owners, mut homes) = (BTreeMap::<ByteString, NodeId>::new(), 0);
        for host in 0..self.hosts.len() {
            let (held, claims, home) = self.ownership(host, |value| {
                let held: BTreeSet<ByteString> = value.held().cloned().collect();
                (held, value.claims_len(), value.home_len())
            });
            homes += home;
            let life = self.life(host);
            let sessions: BTreeSet<ByteString> = life.clients.sessions.keys().cloned().collect();
            if claims > 0 || !life.clients.is_idle() {
                return Some(format!("a CONNECT waits at {}", life.id));
            }
            if held != sessions {
                return Some(format!("{} holds {held:?} and serves {sessions:?}", life.id));
            }
            for id in sessions {
                if let Some(other) = owners.insert(id.clone(), life.id.clone()) {
                    return Some(format!("{id} has sessions at {other} and {}", life.id));
                }
            }
        }
        let sessions = owners.len();
        if self.loud && homes != sessions {
            for host in 0..self.hosts.len() {
                let all = self.ownership(host, |value| format!("{value:?}"));
                self.say(|| all);
            }
        }
        // A grant that got lost with its link is forgotten when its owner tells next what it holds.
        let known = (sessions..=sessions + self.hosts.len()).contains(&homes);
        (!known).then(|| format!("the homes know {homes} ids, but there are {sessions} sessions"))
    }

    fn unsent(&self) -> Option<String> {
        for life in self.lives_now() {
            let waiting = life.peers.values().find(|peer| !peer.lane.lane.is_empty());
            if let Some(peer) = waiting {
                return Some(format!("messages wait at {} for {}", life.id, peer.node));
            }
        }
        None
    }

    /// What is published now comes to every node with a filter that matches.
    fn everybody_hears(&mut self) {
        let mut wanted = Vec::new();
        for host in 0..self.hosts.len() {
            for topic in TOPICS {
                let Some(id) = self.publish(host, topic, 8, false) else {
                    self.violated("a publisher waits although everything is well");
                };
                for other in (0..self.hosts.len()).filter(|other| *other != host) {
                    let life = self.life(other);
                    let matches = |filter: &String| ermine::mqtt::topic::matches(filter, topic);
                    if life.filters.iter().any(matches) {
                        wanted.push((id, life.id.clone()));
                    }
                }
            }
        }
        let until = self.now + SECOND;
        self.run_until(until);
        for (id, node) in wanted {
            if !self.ledger.dispatched.contains(&(id, node.clone())) {
                self.violated(&format!(
                    "message {id} did not come to {node}, where it has subscribers"
                ));
            }
        }
    }

    /// The last write of each topic holds: of the writes of those who are still there at least the last.
    fn last_writes(&self) {
        let mut last: BTreeMap<&str, &Stamp> = BTreeMap::new();
        for (node, topic, stamp) in &self.ledger.writes {
            if self.lives(node) {
                let known = last.entry(topic).or_insert(stamp);
                *known = stamp.max(known);
            }
        }
        for life in self.lives_now() {
            for (topic, stamp) in &last {
                let known = known_of(&life.store, topic);
                if known.as_ref().is_none_or(|known| known < *stamp) {
                    let id = &life.id;
                    self.violated(&format!(
                        "{id} has {known:?} of {topic}, but {stamp:?} was written"
                    ));
                }
                let written = |known: &Stamp| self.ledger.writes.iter().any(|(_, _, stamp)| stamp == known);
                if !known.as_ref().is_some_and(written) {
                    self.violated(&format!("nobody ever wrote {known:?} of {topic}"));
                }
            }
        }
    }
}

fn known_of(store: &RetainedStore, topic: &str) -> Option<Stamp> {
    let buckets: Vec<u8> = (0..=u8::MAX).take(BUCKETS).collect();
    let told = store.told(&buckets, None, usize::MAX, usize::MAX).told;
    told.into_iter()
        .find(|told| told.topic == topic)
        .map(|told| told.known.stamp)
}
