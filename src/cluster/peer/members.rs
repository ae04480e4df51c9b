//! How many members of shared groups we have, told a few times a second at most; and how many the other has.

use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;
use supervisors::Context;

use super::Peer;
use crate::broker::office::Office;
use crate::cluster::wire::v1::Frame;
use crate::limits::FORWARD_BATCH_BYTES;

/// Groups in one frame; with [`FORWARD_BATCH_BYTES`] of text, whichever is first.
const FRAME_LEN_MAX: usize = 1024;

/// A look through all groups takes at most this part of the time.
const SHARE_OF_TIME: u32 = 20;

/// What one connection has told.
#[derive(Default)]
pub(super) struct ToldMembers {
    told: AHashMap<ByteString, (u32, u32)>,
    /// When we look again, with very many groups.
    again: Option<Instant>,
}

impl ToldMembers {
    /// What has changed.
    fn changes(&mut self, now: &[(ByteString, u32, u32)]) -> Vec<(ByteString, u32, u32)> {
        let mut changed = Vec::new();
        for (group, online, away) in now {
            if self.told.get(group) != Some(&(*online, *away)) {
                self.told.insert(group.clone(), (*online, *away));
                changed.push((group.clone(), *online, *away));
            }
        }
        if self.told.len() > now.len() {
            let present: ahash::AHashSet<&ByteString> = now.iter().map(|(group, ..)| group).collect();
            self.told.retain(|group, _| {
                let here = present.contains(group);
                if !here {
                    changed.push((group.clone(), 0, 0));
                }
                here
            });
        }
        changed
    }
}

impl Peer {
    /// Looks through the groups and tells what has changed.
    pub(super) fn tell_members(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let told = &mut self.connection.members;
        let Some(office) = Office::here().filter(|_| told.again.is_none_or(|again| again <= now)) else {
            return;
        };
        let changes = told.changes(&office.tables().share_counts());
        told.again = Some(now + now.elapsed() * SHARE_OF_TIME);
        let (mut groups, mut bytes) = (Vec::new(), 0);
        for change in changes {
            if groups.len() >= FRAME_LEN_MAX || bytes + change.0.len() > FORWARD_BATCH_BYTES {
                let groups = std::mem::take(&mut groups);
                bytes = 0;
                self.send(&Frame::ShareMembers { groups }, ctx);
            }
            bytes += change.0.len();
            groups.push(change);
        }
        if !groups.is_empty() {
            self.send(&Frame::ShareMembers { groups }, ctx);
        }
    }

    pub(super) fn members_told(&self, groups: Vec<(ByteString, u32, u32)>) {
        let Some(office) = Office::here() else { return };
        for (group, online, away) in groups {
            let weights = &office.tables().weights;
            weights.set(&self.node.name, group, online, away);
        }
    }

    /// The link is gone, and with it the other node's routes.
    pub(super) fn forget_members(&self) {
        if let Some(office) = Office::here() {
            office.tables().weights.forget(&self.node.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&'static str, u32, u32)]) -> Vec<(ByteString, u32, u32)> {
        let owned = of
            .iter()
            .map(|(group, online, away)| ((*group).into(), *online, *away));
        owned.collect()
    }

    #[test]
    fn only_what_has_changed_is_told_and_what_has_ended_with_no_members() {
        let mut told = ToldMembers::default();
        let first = counts(&[("$share/g/a", 1, 0), ("$share/g/b", 2, 1)]);
        assert_eq!(told.changes(&first), first);
        assert_eq!(told.changes(&first), []);
        let next = counts(&[("$share/g/b", 1, 2)]);
        let mut changes = told.changes(&next);
        changes.sort();
        assert_eq!(changes, counts(&[("$share/g/a", 0, 0), ("$share/g/b", 1, 2)]));
        assert_eq!(told.changes(&next), []);
    }
}
