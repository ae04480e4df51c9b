//! Clients and the keeper of ownership: who connects where, and what `cluster::owners` does around its value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use ermine::cluster::ownership::{Effect, Epoch, Event, Letter, Ownership, Slip};
use ermine::node_name::NodeId;

use crate::life::Mail;
use crate::peer::ToPeer;
use crate::world::{Inbox, SECOND, World};

/// Longest wait for leave; then a CONNECT is served here.
const CLAIMED_WITHIN: Duration = Duration::from_millis(4200);

/// When the table of clients is looked through again after the first link stood.
const LOOKS_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(6)];

/// A session that was let through appears in the table of clients within this.
const OPENED_WITHIN: Duration = Duration::from_secs(1);

/// What stands at the door for one client id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Waits for leave.
    Claiming(u64),
    /// Is given to a session.
    Serving(u64),
}

/// The table of clients and the keeper's own state.
#[derive(Default)]
pub(crate) struct Clients {
    /// Whether there was ever a link.
    keeper: bool,
    /// Sessions, and when they were served last by the wall clock.
    pub(crate) sessions: BTreeMap<ByteString, u64>,
    doors: BTreeMap<ByteString, Door>,
    departures: BTreeMap<ByteString, Vec<Option<Epoch>>>,
    /// CONNECTs that the keeper knows of.
    waiting: BTreeMap<ByteString, u64>,
    out: BTreeMap<NodeId, Vec<Slip>>,
    flush_armed: bool,
    connects_made: u64,
}

impl Clients {
    fn knows(&self, id: &ByteString) -> bool {
        self.sessions.contains_key(id) || matches!(self.doors.get(id), Some(Door::Serving(_)))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.doors.is_empty() && self.waiting.is_empty()
    }
}

/// Who held which id under which epoch, for all lives that ever were.
pub(crate) type Epochs = BTreeMap<(ByteString, Epoch), NodeId>;

impl World {
    pub(crate) fn ownership<T>(&mut self, host: usize, act: impl FnOnce(&mut Ownership) -> T) -> T {
        let life = self.life(host);
        life.board.ownership(&life.id, act)
    }

    pub(crate) fn tell_clients(&mut self, host: usize, mail: Mail) {
        match mail {
            Mail::Connect(id) => self.connect(host, id),
            Mail::Disconnect(id) => {
                let clients = &mut self.life(host).clients;
                if !clients.doors.contains_key(&id)
                    && clients.sessions.remove(&id).is_some()
                    && clients.keeper
                {
                    self.post(host, Inbox::Owners, Mail::Over(id));
                }
            }
            Mail::Claimed(id, number, opens) => {
                let doors = &mut self.life(host).clients.doors;
                if doors.get(&id) != Some(&Door::Claiming(number)) {
                    return;
                }
                if opens {
                    doors.insert(id.clone(), Door::Serving(number));
                    self.post(host, Inbox::Clients, Mail::Served(id, number));
                } else {
                    doors.remove(&id);
                    self.leave_departures(host, &id);
                }
            }
            Mail::NotAnswered(id, number) => {
                let doors = &mut self.life(host).clients.doors;
                if doors.get(&id) != Some(&Door::Claiming(number)) {
                    return;
                }
                doors.insert(id.clone(), Door::Serving(number));
                let paused = self.disturbed.get(&(host, host)).copied().unwrap_or(0);
                if self.now - paused > 9 * SECOND {
                    self.violated(&format!("a CONNECT of {id} waited for longer than 4 s"));
                }
                self.post(host, Inbox::Clients, Mail::Served(id.clone(), number));
                self.post(host, Inbox::Owners, Mail::Claim(id, 0));
            }
            Mail::Served(id, number) => {
                let wall = self.wall_us(host);
                let clients = &mut self.life(host).clients;
                if clients.doors.get(&id) == Some(&Door::Serving(number)) {
                    clients.doors.remove(&id);
                    clients.sessions.insert(id.clone(), wall);
                    self.leave_departures(host, &id);
                }
            }
            Mail::TakeAway { id, epoch } => {
                let clients = &mut self.life(host).clients;
                if matches!(clients.doors.get(&id), Some(Door::Serving(_))) {
                    clients.departures.entry(id).or_default().push(epoch);
                } else {
                    self.take_away(host, &id, epoch);
                }
            }
            mail => self.tell_owners(host, mail),
        }
    }

    fn connect(&mut self, host: usize, id: ByteString) {
        let clients = &mut self.life(host).clients;
        if clients.doors.contains_key(&id) {
            // As a second CONNECT behind the first, which is let through when that is served.
            return;
        }
        clients.connects_made += 1;
        let number = clients.connects_made;
        if clients.keeper {
            clients.doors.insert(id.clone(), Door::Claiming(number));
            self.after(host, CLAIMED_WITHIN, Mail::NotAnswered(id.clone(), number));
            self.post(host, Inbox::Owners, Mail::Claim(id, number));
        } else {
            clients.doors.insert(id.clone(), Door::Serving(number));
            self.post(host, Inbox::Clients, Mail::Served(id, number));
        }
    }

    fn leave_departures(&mut self, host: usize, id: &ByteString) {
        let waiting = self.life(host).clients.departures.remove(id);
        for epoch in waiting.unwrap_or_default() {
            self.take_away(host, id, epoch);
        }
    }

    fn take_away(&mut self, host: usize, id: &ByteString, epoch: Option<Epoch>) {
        let state = self.life(host).clients.sessions.remove(id).is_some();
        let id = id.clone();
        if let Some(epoch) = epoch {
            self.post(host, Inbox::Owners, Mail::Packed { id, epoch, state });
        }
    }

    fn tell_owners(&mut self, host: usize, mail: Mail) {
        match mail {
            Mail::Claim(id, number) => {
                self.life(host).clients.waiting.insert(id.clone(), number);
                self.feed(host, Event::Connect(id));
            }
            Mail::Over(id) => self.feed(host, Event::Ended(id)),
            Mail::Packed { id, epoch, state } => {
                let state = state.then(|| Bytes::from_static(b"session"));
                self.feed(host, Event::Packed { id, epoch, state });
            }
            Mail::Stands(node) => self.stands(host, node),
            Mail::Fell(node) => self.feed(host, Event::Down(node)),
            Mail::Said(node, slips) => {
                for slip in slips {
                    if let Slip::Letter(letter) = slip {
                        if self.loud {
                            self.say(|| format!("{} ← {node}: {letter:?}", self.hosts[host].name));
                        }
                        if !self.ownership(host, |value| value.is_up(&node)) {
                            self.stands(host, node.clone());
                        }
                        self.feed(host, Event::Letter(node.clone(), letter));
                    }
                }
            }
            Mail::Wake => self.feed(host, Event::Wake),
            Mail::Compare(also_gone) => self.compare(host, also_gone),
            Mail::Forget(gone) => {
                for (id, epoch) in gone {
                    let held = self.ownership(host, |value| value.held_under(&id)) == Some(epoch);
                    if held && !self.life(host).clients.knows(&id) {
                        self.feed(host, Event::Ended(id));
                    }
                }
            }
            Mail::FlushSlips => self.flush_slips(host),
            mail => self.violated(&format!("nobody reads {mail:?}")),
        }
    }

    fn feed(&mut self, host: usize, event: Event) {
        if self.loud && !matches!(event, Event::Letter(..) | Event::Wake) {
            self.say(|| format!("{}: {event:?}", self.hosts[host].name));
        }
        let now = self.both(host);
        let mut out = Vec::new();
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.ownership(host, |value| value.handle(event, now, &mut out));
            for effect in std::mem::take(&mut out) {
                events.extend(self.owners_do(host, effect));
            }
        }
    }

    fn owners_do(&mut self, host: usize, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Send(node, letter) => {
                self.note_epochs(host, &letter);
                let clients = &mut self.life(host).clients;
                clients.out.entry(node).or_default().push(Slip::Letter(letter));
                if !std::mem::replace(&mut clients.flush_armed, true) {
                    self.post(host, Inbox::Wing, Mail::FlushSlips);
                }
            }
            Effect::Open { id, .. } => {
                let clients = &mut self.life(host).clients;
                let number = clients.waiting.remove(&id);
                let heard = number.filter(|n| clients.doors.get(&id) == Some(&Door::Claiming(*n)));
                if let Some(number) = heard {
                    let claimed = Mail::Claimed(id, number, true);
                    self.post(host, Inbox::Clients, claimed);
                } else if !clients.knows(&id) {
                    return Some(Event::Ended(id));
                }
            }
            Effect::Overtaken(id) => {
                let clients = &mut self.life(host).clients;
                let number = clients.waiting.remove(&id);
                let heard = number.filter(|n| clients.doors.get(&id) == Some(&Door::Claiming(*n)));
                let known = clients.knows(&id);
                if let Some(number) = heard {
                    self.post(host, Inbox::Clients, Mail::Claimed(id.clone(), number, false));
                }
                if known {
                    return self.owners_do(host, Effect::Discard(id));
                }
            }
            Effect::HandOver { id, epoch } => {
                let epoch = Some(epoch);
                self.post(host, Inbox::Clients, Mail::TakeAway { id, epoch });
            }
            Effect::Discard(id) => {
                self.post(host, Inbox::Clients, Mail::TakeAway { id, epoch: None });
            }
            Effect::WakeAt(at) => {
                let pause = at.saturating_duration_since(self.instant());
                self.after(host, pause, Mail::Wake);
            }
        }
        None
    }

    /// Two lives never hold an id under the same epoch.
    fn note_epochs(&mut self, host: usize, letter: &Letter) {
        let (Letter::Holds(held) | Letter::AllHeld { held, .. }) = letter else {
            return;
        };
        let me = self.life(host).id.clone();
        for (id, epoch) in held {
            let before = self.epochs.insert((id.clone(), *epoch), me.clone());
            if let Some(other) = before.filter(|other| *other != me) {
                self.violated(&format!(
                    "{other} and {me} hold {id} under the same epoch {epoch:?}"
                ));
            }
        }
    }

    fn flush_slips(&mut self, host: usize) {
        let life = self.life(host);
        life.clients.flush_armed = false;
        for (node, slips) in std::mem::take(&mut life.clients.out) {
            let life = self.life(host);
            let row = life.rows.get(&node.name).copied();
            let row = row.filter(|row| life.peers.get(row).is_some_and(|peer| peer.node == node));
            if let Some(peer) = row {
                self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Slips(slips)));
            }
        }
    }

    fn stands(&mut self, host: usize, node: NodeId) {
        if !std::mem::replace(&mut self.life(host).clients.keeper, true) {
            self.compare(host, false);
            for pause in LOOKS_AGAIN_AFTER {
                self.after(host, pause, Mail::Compare(true));
            }
        }
        self.feed(host, Event::Up(node));
    }

    /// Compares with the table of clients, as the keeper does when it starts.
    fn compare(&mut self, host: usize, also_gone: bool) {
        let wall = self.wall_us(host);
        let clients = &self.life(host).clients;
        let mut served = clients.sessions.clone();
        let serving = clients
            .doors
            .iter()
            .filter(|(_, door)| matches!(door, Door::Serving(_)));
        served.extend(serving.map(|(id, _)| (id.clone(), wall)));
        let known: BTreeSet<ByteString> = served.keys().cloned().collect();
        let gone: Vec<(ByteString, Epoch)> = self.ownership(host, |value| {
            let gone = value.held().filter(|id| also_gone && !known.contains(*id));
            let gone = gone.filter_map(|id| Some((id.clone(), value.held_under(id)?)));
            let gone = gone.collect();
            for (id, at) in served {
                value.hold(id, at);
            }
            gone
        });
        self.after(host, OPENED_WITHIN, Mail::Forget(gone));
    }
}
