//! What is done when the set of nodes that are up changes: everything is said again that may have got lost.

use std::collections::BTreeMap;

use bytestring::ByteString;

use super::{Effect, Epoch, Letter, Now, Ownership};
use crate::node_name::NodeId;

type Held = Vec<(ByteString, Epoch)>;

/// Client ids in one letter.
const HOLDS_LEN_MAX: usize = 512;

impl Ownership {
    pub(super) fn up(&mut self, node: NodeId, now: Now, out: &mut Vec<Effect>) {
        // A later life of the same name has taken the place of the earlier.
        let earlier: Vec<_> = self
            .up
            .iter()
            .filter(|up| up.name == node.name && **up != node)
            .cloned()
            .collect();
        for gone in earlier {
            self.up.remove(&gone);
            self.home.forget_owner(&gone);
        }
        self.up.insert(node.clone());
        self.view_changed(now, out);
        self.say_again(&node, out);
    }

    /// What was on its way to a node, and may have got lost with the link or with its keeper.
    pub(super) fn say_again(&mut self, node: &NodeId, out: &mut Vec<Effect>) {
        let mut again: Vec<_> = self
            .claims
            .iter()
            .map(|(id, claim)| (id.clone(), claim.clone()))
            .collect();
        // In the order of their numbers: a home takes a lesser one for one that it has heard.
        again.sort_by_key(|(_, claim)| claim.claim);
        for (id, claim) in again {
            match claim.granted {
                Some((epoch, previous)) if previous == *node => {
                    self.send(previous, Letter::Release { id, epoch }, out);
                }
                None if claim.asked == *node => {
                    let claim = claim.claim;
                    self.send(node.clone(), Letter::Claim { id, claim }, out);
                }
                _ => {}
            }
        }
    }

    pub(super) fn down(&mut self, node: &NodeId, now: Now, out: &mut Vec<Effect>) {
        if !self.up.remove(node) {
            return;
        }
        self.home.forget_owner(node);
        self.view_changed(now, out);
        let stranded: Vec<_> = self
            .claims
            .iter()
            .map(|(id, claim)| (id.clone(), claim.clone()))
            .collect();
        for (id, claim) in stranded {
            match claim.granted {
                Some((epoch, previous)) if previous == *node => self.open(id, epoch, None, now, out),
                None if claim.asked == *node => {
                    // Another home may have heard greater numbers.
                    self.claims_made += 1;
                    let (home, number) = (self.home_of(&id).clone(), self.claims_made);
                    self.claims.entry(id.clone()).and_modify(|claim| {
                        claim.asked = home.clone();
                        claim.claim = number;
                    });
                    self.send(home, Letter::Claim { id, claim: number }, out);
                }
                _ => {}
            }
        }
    }

    /// The set of nodes changed: the homes are told what is held here.
    fn view_changed(&mut self, now: Now, out: &mut Vec<Effect>) {
        let told = self.home.view_changed((&self.up, &self.me), now);
        let mut homes: BTreeMap<NodeId, Held> = BTreeMap::new();
        for (id, epoch) in &self.held {
            let home = self.home_of(id);
            match homes.get_mut(home) {
                Some(held) => held.push((id.clone(), *epoch)),
                None => drop(homes.insert(home.clone(), vec![(id.clone(), *epoch)])),
            }
        }
        if let Some(held) = homes.remove(&self.me) {
            self.own.push_back(Letter::Holds(held));
        }
        for node in self.up.clone() {
            let held = homes.remove(&node).unwrap_or_default();
            self.tell_held(node, held, true, out);
        }
        self.tell(told, out);
    }

    /// Tells a node that asked what is held here of those whose home it is.
    pub(super) fn tell_all_held(&mut self, to: NodeId, out: &mut Vec<Effect>) {
        let its = self.held.iter().filter(|(id, _)| *self.home_of(id) == to);
        let held = its.map(|(id, epoch)| (id.clone(), *epoch)).collect();
        self.tell_held(to, held, false, out);
    }

    /// Asks a node, or this one, what it holds of those whose home this node is.
    pub(super) fn ask_all_held(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if node == self.me {
            self.tell_all_held(node, out);
        } else {
            let its = self.held.iter().filter(|(id, _)| *self.home_of(id) == node);
            let held = its.map(|(id, epoch)| (id.clone(), *epoch)).collect();
            self.tell_held(node, held, true, out);
        }
    }

    fn tell_held(&mut self, to: NodeId, mut held: Held, ask: bool, out: &mut Vec<Effect>) {
        let whole = held.len() <= HOLDS_LEN_MAX;
        if !whole {
            self.send(to.clone(), Letter::Recount, out);
            while held.len() > HOLDS_LEN_MAX {
                let rest = held.split_off(HOLDS_LEN_MAX);
                let part = std::mem::replace(&mut held, rest);
                self.send(to.clone(), Letter::Holds(part), out);
            }
        }
        let view = self.home.view();
        let all = Letter::AllHeld {
            view,
            ask,
            held,
            whole,
        };
        self.send(to, all, out);
    }
}
