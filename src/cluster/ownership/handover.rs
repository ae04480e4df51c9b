//! Steps 3 and 4: a session goes from its owner to the claimant, or on to who claimed it after that.

use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Claim, Effect, Epoch, Letter, Now, OWNER_ANSWERS_WITHIN, Ownership};
use crate::node_name::NodeId;

/// A session that goes to another node, or went and may have got lost with the link: whoever asks for
/// it again gets the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Leaving {
    to: NodeId,
    epoch: Epoch,
    /// As it was packed, and how long that is kept.
    packed: Option<(Option<Bytes>, Instant)>,
}

impl Ownership {
    pub(super) fn packed(
        &mut self,
        id: ByteString,
        epoch: Epoch,
        state: Option<Bytes>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if let Some(leaving) = self.leaving.get(&id).filter(|leaving| leaving.epoch == epoch) {
            let to = leaving.to.clone();
            self.leaving.remove(&id);
            self.pass_on(id, (to, epoch), state, now, out);
        }
    }

    /// Sends a session, and keeps it for the case that it is asked for again.
    pub(super) fn pass_on(
        &mut self,
        id: ByteString,
        (to, epoch): (NodeId, Epoch),
        state: Option<Bytes>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let until = now.instant + OWNER_ANSWERS_WITHIN;
        let leaving = Leaving {
            to: to.clone(),
            epoch,
            packed: Some((state.clone(), until)),
        };
        // One that is being packed for somebody goes its way.
        if self
            .leaving
            .get(&id)
            .is_none_or(|leaving| leaving.packed.is_some())
        {
            self.leaving.insert(id.clone(), leaving);
            out.push(Effect::WakeAt(until));
        }
        self.send(to, Letter::Released { id, epoch, state }, out);
    }

    /// Step 3 has come.
    pub(super) fn release(&mut self, from: &NodeId, id: ByteString, epoch: Epoch, out: &mut Vec<Effect>) {
        if let Some(held) = self.held.get(&id).copied() {
            if held > epoch {
                self.send(from.clone(), Letter::Fenced { id, epoch: held }, out);
            } else {
                self.held.remove(&id);
                let leaving = Leaving {
                    to: from.clone(),
                    epoch,
                    packed: None,
                };
                self.leaving.insert(id.clone(), leaving);
                out.push(Effect::HandOver { id, epoch });
            }
            return;
        }
        let asked = |leaving: &&Leaving| leaving.to == *from && leaving.epoch == epoch;
        if let Some(leaving) = self.leaving.get(&id).filter(asked) {
            // Asked again. It is being packed, or what was sent has got lost.
            if let Some((state, _)) = leaving.packed.clone() {
                self.send(from.clone(), Letter::Released { id, epoch, state }, out);
            }
            return;
        }
        // What we are waiting for is passed on as soon as it comes, to the latest who asked for it.
        let mut answered = Some((from.clone(), epoch));
        if self.claims.get(&id).is_some_and(|claim| claim.heir == answered) {
            // Asked again: it has our word already.
            return;
        }
        if let Some(claim) = self.claims.get_mut(&id)
            && claim.granted.as_ref().is_none_or(|(mine, _)| *mine < epoch)
            && claim.heir.as_ref().is_none_or(|(_, other)| *other < epoch)
        {
            answered = std::mem::replace(&mut claim.heir, answered);
        }
        if let Some((to, epoch)) = answered {
            let state = None;
            self.send(to, Letter::Released { id, epoch, state }, out);
        }
    }

    /// Step 4 has come.
    pub(super) fn released(
        &mut self,
        id: ByteString,
        epoch: Epoch,
        state: Option<Bytes>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let mine = |claim: &&mut Claim| claim.granted.as_ref().is_some_and(|(mine, _)| *mine == epoch);
        if self.claims.get_mut(&id).filter(mine).is_some() {
            self.open(id, epoch, state, now, out);
        }
    }

    pub(super) fn open(
        &mut self,
        id: ByteString,
        epoch: Epoch,
        state: Option<Bytes>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let claim = self.claims.remove(&id);
        if let Some(claim) = &claim {
            self.forget_at(&claim.asked, id.clone(), out);
        }
        if let Some(heir) = claim.and_then(|claim| claim.heir) {
            out.push(Effect::Overtaken(id.clone()));
            return self.pass_on(id, heir, state, now, out);
        }
        self.held.insert(id.clone(), epoch);
        // Whoever numbered it: by now another may be home, or the home may have forgotten meanwhile.
        self.tell_home(&id, epoch, out);
        out.push(Effect::Open { id, state });
    }

    pub(super) fn fenced(&mut self, id: ByteString, epoch: Epoch, out: &mut Vec<Effect>) {
        if let Some(held) = self.held.get(&id).copied() {
            if held < epoch {
                self.held.remove(&id);
                out.push(Effect::Discard(id));
            } else {
                // Whoever says so does not know of ours yet.
                self.tell_home(&id, held, out);
            }
        } else if let Some(claim) = self.claims.get(&id)
            && claim.granted.as_ref().is_some_and(|(mine, _)| *mine < epoch)
        {
            let heir = self.claims.remove(&id).and_then(|claim| claim.heir);
            if let Some((to, epoch)) = heir {
                let (id, state) = (id.clone(), None);
                self.send(to, Letter::Released { id, epoch, state }, out);
            }
            out.push(Effect::Overtaken(id));
        }
    }

    /// Forgets sessions that have left long enough ago; when to look again.
    pub(super) fn keep_until(&mut self, now: Now) -> Option<Instant> {
        let is_kept = |leaving: &Leaving| {
            leaving
                .packed
                .as_ref()
                .is_none_or(|(_, until)| *until > now.instant)
        };
        self.leaving.retain(|_, leaving| is_kept(leaving));
        let kept = self
            .leaving
            .values()
            .filter_map(|leaving| Some(leaving.packed.as_ref()?.1));
        kept.min()
    }
}
