//! Who owns a client id: one live session per id in the cluster.
//!
//! A value: events in, effects out, the clock is handed in. Each id has a *home*, the node that rendezvous
//! hashing picks among those that are up; the home serialises the claims of its ids and numbers them with
//! [`Epoch`]s. Nobody votes and nobody waits for a majority: each side of a split has its own homes, and when
//! it heals the higher epoch wins.
//!
//! A CONNECT, step by step ("Ownership" in `docs/PROTOCOL.md`):
//!
//! 1. the claimant asks the home ([`Letter::Claim`]); who holds the id itself only raises its epoch;
//! 2. the home answers with a new epoch and the owner before ([`Letter::Granted`]);
//! 3. the claimant asks that owner for its session ([`Letter::Release`]); an owner that does not answer
//!    within [`OWNER_ANSWERS_WITHIN`] is fenced: whatever it does later, its epoch is lower;
//! 4. the owner ends its session and hands its state over ([`Letter::Released`]); the claimant opens.
//!
//! A home that does not answer within [`CLAIM_WITHIN`] is passed over: the claimant numbers the claim itself.
//! So no CONNECT waits longer than the two together.
//!
//! When the set of nodes that are up changes, every node tells the new homes all that it holds
//! ([`Letter::AllHeld`]); a home forgets what it told before and does not name again. A home waits for
//! that, at most [`HOME_WAITS`], before it grants: it would not know the owner before. A holder with a
//! lower epoch than the home knows is told so ([`Letter::Fenced`]) and discards its session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::membership::Now;
use crate::node_name::NodeId;

mod handover;
mod home;
mod view;
mod words;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use handover::Leaving;
use home::Home;
pub(super) use home::home_among;
pub use words::{Effect, Epoch, Event, Letter, Slip};

/// Longest wait for the home's answer.
pub const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// Longest wait for the session of the owner before. With [`CLAIM_WITHIN`] below 5 s.
pub const OWNER_ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Longest that a home waits for what the others hold, after the set of nodes changed.
pub const HOME_WAITS: Duration = Duration::from_secs(1);

/// How far a CONNECT on this node has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Claim {
    claim: u64,
    /// The home that was asked.
    asked: NodeId,
    until: Instant,
    /// What was granted, and who is asked for its session.
    granted: Option<(Epoch, NodeId)>,
    /// A later claimant that is to have what this one gets.
    heir: Option<(NodeId, Epoch)>,
}

/// What one node knows of client ids.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ownership {
    me: NodeId,
    /// Nodes with a link that stands.
    up: BTreeSet<NodeId>,
    /// Ids whose session is here, or on its way out ([`Effect::HandOver`]).
    held: BTreeMap<ByteString, Epoch>,
    /// Hand-overs that wait for [`Event::Packed`], or have left within [`OWNER_ANSWERS_WITHIN`].
    leaving: BTreeMap<ByteString, Leaving>,
    claims: BTreeMap<ByteString, Claim>,
    claims_made: u64,
    home: Home,
    /// Letters to ourselves.
    own: VecDeque<Letter>,
}

impl Ownership {
    /// Of a node that is alone and holds nothing.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            up: BTreeSet::new(),
            held: BTreeMap::new(),
            leaving: BTreeMap::new(),
            claims: BTreeMap::new(),
            claims_made: 0,
            home: Home::default(),
            own: VecDeque::new(),
        }
    }

    /// Takes one event and appends what it causes to `out`, in order.
    pub fn handle(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        match event {
            Event::Connect(id) => self.connect(id, now, out),
            Event::Ended(id) => self.ended(id, out),
            Event::Adopt(id) => self.adopt(id, out),
            Event::Packed { id, epoch, state } => self.packed(id, epoch, state, now, out),
            Event::Letter(from, letter) => self.read(&from, letter, now, out),
            Event::Up(node) => self.up(node, now, out),
            Event::Down(node) => self.down(&node, now, out),
            Event::Wake => self.wake(now, out),
        }
        while let Some(letter) = self.own.pop_front() {
            let me = self.me.clone();
            self.read(&me, letter, now, out);
        }
    }

    /// A session was opened here before this value knew of it, at `at_us` of the wall clock (microseconds
    /// since 1970). Without effects: told to others with the next [`Event::Up`].
    pub fn hold(&mut self, id: ByteString, at_us: u64) {
        let epoch = Epoch {
            counter: at_us,
            by: self.me.incarnation.0,
        };
        // One that has just left may still be listed where it was.
        if !self.claims.contains_key(&id) && !self.leaving.contains_key(&id) {
            self.held.entry(id).or_insert(epoch);
        }
    }

    /// The ids that are held here.
    pub fn held(&self) -> impl Iterator<Item = &ByteString> {
        self.held.keys()
    }

    /// The epoch under which an id is held here.
    #[must_use]
    pub fn held_under(&self, id: &str) -> Option<Epoch> {
        self.held.get(id).copied()
    }

    /// The nodes with a link that stands.
    pub fn up_nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.up.iter()
    }

    /// Whether a link to this node stands.
    #[must_use]
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.up.contains(node)
    }

    /// How many ids are held here.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// How many ids this node is home of.
    #[must_use]
    pub fn home_len(&self) -> usize {
        self.home.len()
    }

    /// CONNECTs that wait.
    #[must_use]
    pub fn claims_len(&self) -> usize {
        self.claims.len()
    }

    /// The home of an id among the nodes that are up.
    #[must_use]
    pub fn home_of(&self, id: &str) -> &NodeId {
        home_among(self.up.iter().chain([&self.me]), id).unwrap_or(&self.me)
    }

    fn send(&mut self, to: NodeId, letter: Letter, out: &mut Vec<Effect>) {
        if to == self.me {
            self.own.push_back(letter);
        } else if self.up.contains(&to) {
            out.push(Effect::Send(to, letter));
        }
    }

    fn tell_home(&mut self, id: &ByteString, epoch: Epoch, out: &mut Vec<Effect>) {
        let home = self.home_of(id).clone();
        self.send(home, Letter::Holds(vec![(id.clone(), epoch)]), out);
    }

    fn connect(&mut self, id: ByteString, now: Now, out: &mut Vec<Effect>) {
        if let Some(held) = self.held.get_mut(&id) {
            // Nobody else holds it, as far as anybody here knows: later than all before, and told on.
            *held = self.home.number(Some(*held), &self.me, now);
            let epoch = *held;
            self.tell_home(&id, epoch, out);
            out.push(Effect::Open { id, state: None });
            return;
        }
        self.claims_made += 1;
        let claim = self.claims_made;
        let until = now.instant + CLAIM_WITHIN;
        let home = self.home_of(&id).clone();
        let waiting = Claim {
            claim,
            asked: home.clone(),
            until,
            granted: None,
            heir: None,
        };
        self.claims.insert(id.clone(), waiting);
        if home != self.me {
            out.push(Effect::WakeAt(until));
        }
        self.send(home, Letter::Claim { id, claim }, out);
    }

    /// Whether the client of an id is here, or about to be.
    #[must_use]
    pub fn serves(&self, id: &ByteString) -> bool {
        self.claims.contains_key(id) || self.held.get(id).is_some_and(|epoch| epoch.counter > 0)
    }

    /// Nobody who holds it has a lower epoch: if anybody does, we are fenced.
    fn adopt(&mut self, id: ByteString, out: &mut Vec<Effect>) {
        if self.serves(&id) {
            return;
        }
        let epoch = Epoch {
            counter: 0,
            by: self.me.incarnation.0,
        };
        self.held.insert(id.clone(), epoch);
        self.tell_home(&id, epoch, out);
    }

    fn ended(&mut self, id: ByteString, out: &mut Vec<Effect>) {
        if self.held.remove(&id).is_some() {
            let home = self.home_of(&id).clone();
            self.send(home, Letter::Drop { id }, out);
        }
    }

    fn read(&mut self, from: &NodeId, letter: Letter, now: Now, out: &mut Vec<Effect>) {
        match letter {
            Letter::Claim { id, claim } => {
                let (up, me) = (&self.up, &self.me);
                let granted = self.home.claim(from, id, claim, (up, me), now);
                self.tell(granted, out);
            }
            Letter::Granted {
                id,
                claim,
                epoch,
                previous,
            } => self.granted(from, id, (claim, epoch, previous), now, out),
            Letter::Release { id, epoch } => self.release(from, id, epoch, out),
            Letter::Released { id, epoch, state } => self.released(id, epoch, state, now, out),
            Letter::Holds(held) => self.hold_told(from, held, now, out),
            Letter::Recount => self.home.recount(from),
            Letter::AllHeld {
                view,
                ask,
                held,
                whole,
            } => {
                if whole {
                    self.home.recount(from);
                }
                self.hold_told(from, held, now, out);
                if ask {
                    // Whatever it forgot while we had no part in its change, it is to know again.
                    self.tell_all_held(from.clone(), out);
                    self.say_again(from, out);
                }
                self.home.all_held(from, view, (&self.up, &self.me), now);
                let granted = self.home.grant_waiting((&self.up, &self.me), now);
                self.tell(granted, out);
            }
            Letter::Drop { id } => self.home.dropped(from, &id),
            Letter::Fenced { id, epoch } => self.fenced(id, epoch, out),
        }
    }

    fn hold_told(&mut self, from: &NodeId, held: Vec<(ByteString, Epoch)>, now: Now, out: &mut Vec<Effect>) {
        for (to, letter) in self.home.holds(from, held, now) {
            self.send(to, letter, out);
        }
    }

    fn tell(&mut self, told: home::Told, out: &mut Vec<Effect>) {
        for (to, letter) in told.letters {
            self.send(to, letter, out);
        }
        out.extend(told.wake_at.map(Effect::WakeAt));
    }

    /// Step 2 has come.
    fn granted(
        &mut self,
        from: &NodeId,
        id: ByteString,
        (claim, epoch, previous): (u64, Epoch, Option<NodeId>),
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let up = &self.up;
        let Some(waiting) = self.claims.get_mut(&id).filter(|waiting| waiting.claim == claim) else {
            self.granted_late(id.clone(), epoch, previous, out);
            self.forget_at(from, id, out);
            return;
        };
        // Who asked for the session before this grant came: the earlier of the two gets nothing from us.
        let heir = waiting.heir.take_if(|(_, theirs)| *theirs < epoch);
        if let Some((to, epoch)) = heir {
            let id = id.clone();
            out.extend(up.contains(&to).then(|| {
                Effect::Send(
                    to,
                    Letter::Released {
                        id,
                        epoch,
                        state: None,
                    },
                )
            }));
        }
        match previous.filter(|previous| up.contains(previous)) {
            Some(previous) => {
                waiting.granted = Some((epoch, previous.clone()));
                waiting.until = now.instant + OWNER_ANSWERS_WITHIN;
                out.push(Effect::WakeAt(waiting.until));
                self.send(previous, Letter::Release { id, epoch }, out);
            }
            None => self.open(id, epoch, None, now, out),
        }
    }

    /// The home was passed over meanwhile. Who held the id before it must still hear that it does no longer.
    fn granted_late(
        &mut self,
        id: ByteString,
        epoch: Epoch,
        previous: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(previous) = previous {
            let id = id.clone();
            self.send(previous, Letter::Release { id, epoch }, out);
        }
        match self.held.get_mut(&id) {
            Some(held) => {
                *held = epoch.max(*held);
                let epoch = *held;
                self.tell_home(&id, epoch, out);
            }
            None if self.claims.contains_key(&id) => {}
            None => {
                let home = self.home_of(&id).clone();
                self.send(home, Letter::Drop { id }, out);
            }
        }
    }

    /// It is home of the id no longer: what it has granted is told to its new home only.
    fn forget_at(&mut self, home: &NodeId, id: ByteString, out: &mut Vec<Effect>) {
        if self.home_of(&id) != home {
            self.send(home.clone(), Letter::Drop { id }, out);
        }
    }

    fn wake(&mut self, now: Now, out: &mut Vec<Effect>) {
        let granted = self.home.grant_waiting((&self.up, &self.me), now);
        self.tell(granted, out);
        for node in self.home.forget_untold(now) {
            self.ask_all_held(node, out);
        }
        let due = |(id, claim): (&ByteString, &Claim)| (claim.until <= now.instant).then(|| id.clone());
        let due: Vec<_> = self.claims.iter().filter_map(due).collect();
        for id in due {
            let granted = self.claims.get(&id).and_then(|claim| claim.granted.clone());
            // The owner is fenced by our higher epoch; a home that says nothing is passed over.
            let epoch = granted.map(|(epoch, _)| epoch);
            let epoch = epoch.unwrap_or_else(|| self.home.number(None, &self.me, now));
            self.open(id, epoch, None, now, out);
        }
        let kept = self.keep_until(now);
        let dues = self.claims.values().map(|claim| claim.until);
        let next = dues.chain(kept).chain(self.home.granted_until()).min();
        out.extend(next.map(Effect::WakeAt));
    }
}
