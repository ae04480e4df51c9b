//! What is done when the set of nodes that are up changes: everything is said again that may have got lost.

use std::collections::BTreeMap;

use bytestring::ByteString;

use super::{Effect, Epoch, Letter, Now, Ownership};
use crate::node_name::NodeId;

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
        let again: Vec<_> = self
            .claims
            .iter()
            .map(|(id, claim)| (id.clone(), claim.clone()))
            .collect();
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
                Some((epoch, previous)) if previous == *node => self.open(id, epoch, None, out),
                None if claim.asked == *node => {
                    let (home, number) = (self.home_of(&id).clone(), claim.claim);
                    self.claims
                        .entry(id.clone())
                        .and_modify(|claim| claim.asked = home.clone());
                    self.send(home, Letter::Claim { id, claim: number }, out);
                }
                _ => {}
            }
        }
    }

    /// The set of nodes changed: the homes are told what is held here.
    fn view_changed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.tell_all_held(|_| true, out);
        let told = self.home.view_changed((&self.up, &self.me), now);
        let view = self.home.view();
        for node in self.up.clone() {
            self.send(node, Letter::AllHeld { view, ask: true }, out);
        }
        self.tell(told, out);
    }

    /// Tells the homes that are `wanted` what is held here of theirs.
    pub(super) fn tell_all_held(&mut self, wanted: impl Fn(&NodeId) -> bool, out: &mut Vec<Effect>) {
        let mut holds: BTreeMap<NodeId, Vec<(ByteString, Epoch)>> = BTreeMap::new();
        for (id, epoch) in &self.held {
            let home = self.home_of(id);
            if wanted(home) {
                holds.entry(home.clone()).or_default().push((id.clone(), *epoch));
            }
        }
        for (home, held) in holds {
            for part in held.chunks(HOLDS_LEN_MAX) {
                self.send(home.clone(), Letter::Holds(part.to_vec()), out);
            }
        }
    }
}
