//! Who is a member of this cluster, who is reached, and who is dialled when.
//!
//! A value: events in, effects out, the clock is handed in. What two nodes know of the membership
//! merges by stamp: the later of "joined" and "left" wins, so an absent node learns on its return
//! that it, or another, has left. Membership is no majority vote and blocks nobody.
//!
//! State of a member × event:
//!
//! | | linked | suspect | trusted | unlinked | dial failed | left |
//! |---|---|---|---|---|---|---|
//! | **joining** | up | | | down, dial later | dial later | left |
//! | **up** | up (replaced) | suspect | | down, dial | | left |
//! | **suspect** | up (replaced) | | up | down, dial | | left |
//! | **down** | up | | | | dial later | left |
//! | **left** | only by a join | | | | | |

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::wire::v1::{Hello, MemberRecord, Refusal};
use crate::limits::{HANDSHAKE_DEADLINE, RECONNECT_PAUSE};
use crate::node_name::{NodeId, NodeName};

mod member;
mod orders;
mod tombstones;

use member::Dial;
pub use member::{Member, State};

/// Both clocks: the monotonic one for what is due, the wall's for stamps and people.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Now {
    /// For pauses.
    pub instant: Instant,
    /// For stamps and `since`.
    pub wall: SystemTime,
}

/// What happens to the membership.
#[derive(Clone, Debug)]
pub enum Event {
    /// An operator asks this node to join `name`; dials at once.
    Join(NodeName),
    /// An operator asks this node to leave: it forgets all others, and they forget it.
    Leave,
    /// An operator forces another member out, dead or not. When it returns it is told so.
    Expel(NodeName),
    /// Nodes that the configuration or DNS names: all of them, each time. Those that are unknown are dialled
    /// until they are linked, but for a node that left: then only an operator's join counts.
    Seeds(Vec<NodeName>),
    /// A linked node told what it knows: in the opening of a link or in a `Members` frame.
    Heard {
        /// Who told; ignored unless it is a member, so that no late frame undoes a leave.
        from: NodeName,
        /// What it knows.
        records: Vec<MemberRecord>,
    },
    /// This node is welcomed and its link is about to open: no dial crosses it.
    Welcomed(NodeName),
    /// A link is open.
    Linked(NodeId),
    /// Nothing came over the link for a while.
    Suspect(NodeName),
    /// Something came again.
    Trusted(NodeName),
    /// The link of this life of a node is closed.
    Unlinked(NodeId),
    /// Dialling did not lead to a link.
    DialFailed(NodeName),
    /// The dialled node refused because one of the two left; the record says which.
    RefusedAsLeft(MemberRecord),
    /// The time of a [`Effect::WakeAt`], or any other: looks whether something is due.
    Tick,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Dial this node; `join` when an operator asked for it.
    Dial {
        /// Whom.
        name: NodeName,
        /// Whether an operator asked.
        join: bool,
    },
    /// Close the link: the node left, or this one did.
    Close(NodeName),
    /// Tell every linked node what [`Membership::records`] says now.
    Gossip,
    /// Write [`Membership::records`] to the members file.
    Save,
    /// Call again with [`Event::Tick`] at this time. A wake-up from the past is harmless.
    WakeAt(Instant),
}

/// The membership as this node sees it.
#[derive(Debug)]
pub struct Membership {
    me: NodeId,
    /// When we left last: who remembers us from before that is told so.
    left_at: u64,
    /// Who forced us out then, if somebody did.
    out_by: Option<NodeName>,
    /// The greatest stamp that anybody has given us: a leave has to be later, whatever our clock says.
    known_as: u64,
    members: BTreeMap<NodeName, Member>,
    /// State of the generator of jitter.
    seed: u64,
}

impl Membership {
    /// A membership of one, or what the members file remembers: each is dialled at the first tick.
    #[must_use]
    pub fn new(me: NodeId, remembered: &[MemberRecord], now: Now) -> Self {
        let seed = me.incarnation.0 | 1;
        let mut this = Self {
            me,
            left_at: 0,
            out_by: None,
            known_as: 0,
            members: BTreeMap::new(),
            seed,
        };
        for record in remembered {
            if record.name == this.me.name {
                this.out_by = record.by.clone();
                this.left_at = if record.left {
                    record.stamp
                } else {
                    record.stamp.saturating_sub(1)
                };
            } else if record.left || !this.is_full() {
                this.members.insert(record.name.clone(), Member::of(record, now));
            }
        }
        this.forget_old_tombstones();
        this
    }

    /// Every member but this node, those that left included, by name.
    pub fn members(&self) -> impl Iterator<Item = (&NodeName, &Member)> {
        self.members.iter()
    }

    /// One member.
    #[must_use]
    pub fn get(&self, name: &NodeName) -> Option<&Member> {
        self.members.get(name)
    }

    /// Whether `name` is a member that did not leave.
    #[must_use]
    pub fn holds(&self, name: &NodeName) -> bool {
        self.members
            .get(name)
            .is_some_and(|member| member.state != State::Left)
    }

    /// Whether this node left its cluster, or was forced out, and has not joined one since.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.left_at != 0 && self.members.is_empty()
    }

    /// Who forced this node out, and when, if it is out for that.
    #[must_use]
    pub fn forced_out(&self) -> Option<(&NodeName, SystemTime)> {
        let by = self.out_by.as_ref().filter(|_| self.is_out())?;
        Some((by, SystemTime::UNIX_EPOCH + Duration::from_micros(self.left_at)))
    }

    /// What this node tells others and writes to its members file: itself first.
    #[must_use]
    pub fn records(&self) -> Vec<MemberRecord> {
        let of = |(name, member): (&NodeName, &Member)| member.record(name);
        let left = self.is_out();
        let stamp = if left { self.left_at } else { self.left_at + 1 };
        let me = MemberRecord {
            name: self.me.name.clone(),
            stamp,
            left,
            by: self.out_by.clone().filter(|_| left),
        };
        let sure = self.members.iter().filter(|(_, member)| !member.tentative);
        std::iter::once(me).chain(sure.map(of)).collect()
    }

    /// Whether a node that dialled us and proved the cookie gets a link. Changes nothing.
    ///
    /// # Errors
    /// The refusal that it is told.
    pub fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let name = &hello.node.name;
        if *name == self.me.name {
            return Err(Refusal::Myself);
        }
        let theirs_of_me = hello.members.iter().find(|record| record.name == self.me.name);
        if !hello.join && theirs_of_me.is_some_and(|record| !record.left && record.stamp <= self.left_at) {
            return Err(Refusal::Left(self.my_tombstone()));
        }
        let Some(member) = self.members.get(name) else {
            return if self.is_full() {
                Err(Refusal::Full)
            } else {
                Ok(())
            };
        };
        if member.state == State::Left && self.is_full() {
            return Err(Refusal::Full);
        }
        let theirs_of_self = hello.members.iter().find(|record| record.name == *name);
        let newer = theirs_of_self.is_some_and(|record| !record.left && record.stamp > member.stamp);
        if member.state == State::Left && !hello.join && !newer {
            return Err(Refusal::Left(member.record(name)));
        }
        let linked = matches!(member.state, State::Up | State::Suspect);
        if linked && member.incarnation > Some(hello.node.incarnation) {
            return Err(Refusal::Outdated);
        }
        // Both dialled at once: as in Erlang the connection of the greater name is kept.
        if matches!(member.dial, Dial::Running { .. }) && self.me.name > *name {
            return Err(Refusal::Simultaneous);
        }
        Ok(())
    }

    /// Takes in one event; what is to be done is appended to `out`.
    pub fn handle(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        // Links that stand are told one after the other at a restart: none of them is dialled meanwhile.
        let dials = !matches!(event, Event::Linked(_));
        match event {
            Event::Join(name) => self.join(name, now),
            Event::Leave => self.leave(self.next_stamp(now), None, out),
            Event::Expel(name) => self.expel(&name, now, out),
            Event::Seeds(names) => self.seed(names, now),
            Event::Heard { from, records } if self.holds(&from) => self.hear(records, now, out),
            Event::Heard { .. } => {}
            Event::Welcomed(name) => self.welcomed(&name, now),
            Event::Linked(node) => self.linked(node, now, out),
            Event::Suspect(name) => self.turn(&name, State::Up, State::Suspect, now),
            Event::Trusted(name) => self.turn(&name, State::Suspect, State::Up, now),
            Event::Unlinked(node) => self.unlinked(&node, now),
            Event::DialFailed(name) => self.dial_failed(&name, now),
            Event::RefusedAsLeft(record) => self.refused_as_left(record, now, out),
            Event::Tick => {}
        }
        self.forget_old_tombstones();
        if dials {
            self.dial_due(now, out);
        }
        if let Some(at) = self.next_due() {
            out.push(Effect::WakeAt(at));
        }
    }

    /// Merges by stamp; whatever is taken over is told on, or a node that meets an older word last would keep
    /// that. Of a record of this node itself only the stamp is noted: only its own operator makes it leave.
    fn hear(&mut self, records: Vec<MemberRecord>, now: Now, out: &mut Vec<Effect>) {
        let mut news = false;
        for record in records {
            if record.name == self.me.name {
                self.known_as = self.known_as.max(record.stamp);
                continue;
            }
            let full = self.is_full();
            let forgotten = record.left && self.is_forgotten(record.stamp);
            match self.members.get_mut(&record.name) {
                None if forgotten => continue,
                None if full && !record.left => continue,
                None => {
                    self.members.insert(record.name.clone(), Member::of(&record, now));
                }
                Some(member) if !member.is_older_than(&record) => continue,
                Some(member) if record.left => {
                    if matches!(member.state, State::Up | State::Suspect) {
                        out.push(Effect::Close(record.name.clone()));
                    }
                    member.bury(record.stamp, record.by, now);
                }
                Some(member) if member.state == State::Left && full => continue,
                Some(member) if member.state == State::Left => *member = Member::of(&record, now),
                // Known and alive on both sides; a member's word is as good as a link.
                Some(member) => (member.stamp, member.tentative) = (record.stamp, false),
            }
            news = true;
        }
        if news {
            out.extend([Effect::Gossip, Effect::Save]);
        }
    }

    fn welcomed(&mut self, name: &NodeName, now: Now) {
        if let Some(member) = self.members.get_mut(name)
            && matches!(member.dial, Dial::Due(_))
        {
            member.dial = Dial::Due(now.instant + HANDSHAKE_DEADLINE);
        }
    }

    fn linked(&mut self, node: NodeId, now: Now, out: &mut Vec<Effect>) {
        let stamp = self.next_stamp(now);
        let member = self
            .members
            .entry(node.name)
            .or_insert_with(|| Member::joining(stamp, now));
        let news = member.tentative || matches!(member.state, State::Joining | State::Left);
        if member.tentative || member.state == State::Left {
            // Its tombstones are out of date from now on.
            member.stamp = stamp;
        }
        member.set(State::Up, now);
        member.incarnation = Some(node.incarnation);
        (member.dial, member.pause) = (Dial::Idle, RECONNECT_PAUSE.0);
        (member.join, member.tentative, member.by) = (false, false, None);
        if news {
            out.extend([Effect::Gossip, Effect::Save]);
        }
    }

    fn turn(&mut self, name: &NodeName, from: State, to: State, now: Now) {
        if let Some(member) = self.members.get_mut(name).filter(|member| member.state == from) {
            member.set(to, now);
        }
    }

    fn unlinked(&mut self, node: &NodeId, now: Now) {
        let jitter = self.jitter();
        let Some(member) = self.members.get_mut(&node.name) else {
            return;
        };
        if member.incarnation != Some(node.incarnation) {
            // The end of an older life's link says nothing of the present one.
            return;
        }
        match member.state {
            State::Up | State::Suspect => {
                member.set(State::Down, now);
                member.pause = RECONNECT_PAUSE.0;
                member.dial_after_pause(now, jitter);
            }
            // A connection that was to go on with the link broke before it was ready. Nobody else dials: the
            // dial that led to it has ended well, and who welcomed it waits for it.
            State::Down if member.dial != Dial::Idle => member.dial_again(now, jitter),
            State::Down | State::Joining | State::Left => {}
        }
    }

    fn dial_failed(&mut self, name: &NodeName, now: Now) {
        let jitter = self.jitter();
        let Some(member) = self.members.get_mut(name) else {
            return;
        };
        let Dial::Running { join } = member.dial else {
            return;
        };
        if !matches!(member.state, State::Joining | State::Down) {
            member.dial = Dial::Idle;
        } else if member.join && !join {
            // The operator asked while a dial without the operator's word was running.
            member.dial = Dial::Due(now.instant);
        } else if member.tentative && member.was_left {
            member.bury(member.stamp, member.by.clone(), now);
        } else if member.tentative && !member.seed {
            self.members.remove(name);
        } else {
            member.join = false;
            member.dial_again(now, jitter);
        }
    }

    /// The dialled node told that it left, or that we did (then whom we knew is forgotten). Who answers so
    /// may have known less than we know now: then it is dialled again.
    fn refused_as_left(&mut self, record: MemberRecord, now: Now, out: &mut Vec<Effect>) {
        if record.name == self.me.name {
            if record.stamp > self.left_at {
                self.leave(record.stamp, record.by, out);
            }
        } else if self.members.contains_key(&record.name) {
            self.hear(vec![record], now, out);
        }
    }

    fn dial_due(&mut self, now: Now, out: &mut Vec<Effect>) {
        for (name, member) in &mut self.members {
            if matches!(member.dial, Dial::Due(at) if at <= now.instant) {
                member.dial = Dial::Running { join: member.join };
                out.push(Effect::Dial {
                    name: name.clone(),
                    join: member.join,
                });
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let due = |member: &Member| match member.dial {
            Dial::Due(at) => Some(at),
            Dial::Idle | Dial::Running { .. } => None,
        };
        self.members.values().filter_map(due).min()
    }

    /// Greater than every stamp known here, and about the time of day.
    fn next_stamp(&self, now: Now) -> u64 {
        let since_epoch = now
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let clock = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        let known = self
            .members
            .values()
            .map(|member| member.stamp)
            .max()
            .unwrap_or(0);
        let known = known.max(self.left_at).max(self.known_as);
        clock.max(known.saturating_add(1))
    }

    fn my_tombstone(&self) -> MemberRecord {
        MemberRecord {
            name: self.me.name.clone(),
            stamp: self.left_at,
            left: true,
            by: self.out_by.clone(),
        }
    }

    /// 75 to 125 per cent, so that nodes that lost each other at once do not dial in step.
    fn jitter(&mut self) -> u32 {
        // xorshift64: any seed but 0 will do, and this is no secret.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        75 + u32::try_from(self.seed % 51).unwrap_or(25)
    }
}

#[cfg(test)]
mod tests;
