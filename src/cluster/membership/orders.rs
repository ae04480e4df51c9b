//! What operators and the configuration say of the membership.

use super::{Dial, Effect, Member, Membership, Now, State};
use crate::node_name::NodeName;

impl Membership {
    pub(super) fn join(&mut self, name: NodeName, now: Now) {
        let known = self
            .members
            .get(&name)
            .is_some_and(|member| member.state != State::Left);
        if name == self.me.name || (!known && self.is_full()) {
            return;
        }
        if !known {
            let before = self.members.get(&name);
            let by = before.and_then(|member| member.by.clone());
            let tombstone = before.map(|member| member.stamp);
            let (was_left, stamp) = (tombstone.is_some(), tombstone.unwrap_or(0));
            let fresh = Member {
                tentative: true,
                was_left,
                by,
                ..Member::joining(stamp, now)
            };
            self.members.insert(name.clone(), fresh);
        }
        let member = self.members.get_mut(&name).expect("inserted above or known");
        if !matches!(member.state, State::Up | State::Suspect) {
            member.join = true;
            if !matches!(member.dial, Dial::Running { .. }) {
                member.dial = Dial::Due(now.instant);
            }
        }
    }

    /// Forgets everybody; `by` says who wanted it, if not this node's operator. No tombstones of the others:
    /// told to anybody they would bury them too. Our own stamp refuses whoever still takes us for a
    /// member.
    pub(super) fn leave(&mut self, stamp: u64, by: Option<NodeName>, out: &mut Vec<Effect>) {
        self.left_at = self.left_at.max(stamp);
        self.out_by = by;
        let members = std::mem::take(&mut self.members);
        out.push(Effect::Gossip);
        let linked = |member: &Member| matches!(member.state, State::Up | State::Suspect);
        let closed = members.into_iter().filter(|(_, member)| linked(member));
        out.extend(closed.map(|(name, _)| Effect::Close(name)));
        out.push(Effect::Save);
    }

    /// Buries another member, as if it had left: all nodes forget it, and it is told when it comes.
    pub(super) fn expel(&mut self, name: &NodeName, now: Now, out: &mut Vec<Effect>) {
        let (stamp, by) = (self.next_stamp(now), self.me.name.clone());
        let Some(member) = self.members.get_mut(name).filter(|_| self.me.name != *name) else {
            return;
        };
        if member.state == State::Left {
            return;
        }
        let linked = matches!(member.state, State::Up | State::Suspect);
        member.bury(stamp, Some(by), now);
        out.push(Effect::Gossip);
        if linked {
            out.push(Effect::Close(name.clone()));
        }
        out.push(Effect::Save);
    }

    /// Takes over the seeds: new ones are dialled, former ones that were never linked are forgotten.
    pub(super) fn seed(&mut self, names: Vec<NodeName>, now: Now) {
        if self.is_out() {
            return;
        }
        self.members.retain(|name, member| {
            let running = matches!(member.dial, Dial::Running { .. });
            !member.seed || !member.tentative || running || names.contains(name)
        });
        for name in names {
            if name == self.me.name || self.is_full() || self.members.contains_key(&name) {
                continue;
            }
            let fresh = Member {
                tentative: true,
                seed: true,
                ..Member::joining(0, now)
            };
            self.members.insert(name, fresh);
        }
    }
}
