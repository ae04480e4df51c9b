//! QoS 1 and 2 messages that were sent to the client and wait for its acknowledgements.
//!
//! A ring in the order of sending. Acknowledgements come in that order `[MQTT-4.6.0-2]`, so the one
//! that is looked for is nearly always the first; packet identifiers grow along the ring, so any other
//! is found by halving.
//!
//! A stored message has the identifier of its place in the store ([`Seq::packet_id`]), with gaps between them
//! where messages were dropped; the others are counted.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use super::lasting::{Exchange, Seq};
use super::queue::Outgoing;
use crate::mqtt::packet::{PacketId, QoS};

/// Slots that an empty ring keeps.
const IDLE_CAPACITY: usize = 32;

/// How far a message has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// In flight on an earlier connection; its turn to be sent again has not come on this one.
    Held(Outgoing),
    /// Sent; PUBACK or PUBREC is awaited.
    Sent(Outgoing),
    /// PUBREL was sent; PUBCOMP is awaited. The message itself is no longer needed.
    Released(Option<Seq>),
}

impl Stage {
    /// The message's place in the store.
    fn seq(&self) -> Option<Seq> {
        match self {
            Self::Held(outgoing) | Self::Sent(outgoing) => outgoing.seq,
            Self::Released(seq) => *seq,
        }
    }
}

/// One message in flight.
#[derive(Debug)]
struct Slot {
    packet_id: PacketId,
    stage: Stage,
}

/// What a packet identifier in flight stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// A QoS 1 message waits for PUBACK.
    Ack,
    /// A QoS 2 message waits for PUBREC.
    Rec,
    /// A QoS 2 message waits for PUBCOMP.
    Comp,
}

/// The messages in flight to one client.
#[derive(Debug)]
pub(super) struct Inflight {
    slots: VecDeque<Slot>,
    /// How many are [`Stage::Held`].
    held: u32,
    /// How many are [`Stage::Released`].
    released: u32,
    /// Next packet identifier to try for a message that is not stored.
    next: PacketId,
    /// The identifiers do not grow along the ring, until it is empty again: they have gone all the way round
    /// past one that is still in use, or one of another message had to be taken.
    scattered: bool,
}

impl Default for Inflight {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            held: 0,
            released: 0,
            next: PacketId::MIN,
            scattered: false,
        }
    }
}

impl Inflight {
    /// What was in flight elsewhere, or before, in the order of sending: [`Stage::Held`] or
    /// [`Stage::Released`].
    pub(super) fn of(slots: impl Iterator<Item = (PacketId, Stage)>, next: PacketId) -> Self {
        let mut inflight = Self {
            next,
            ..Self::default()
        };
        for (packet_id, stage) in slots {
            inflight.held += u32::from(matches!(stage, Stage::Held(_)));
            inflight.released += u32::from(matches!(stage, Stage::Released(_)));
            inflight.append(packet_id, stage);
        }
        inflight
    }

    /// Takes everything out, in the order of sending.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (PacketId, Option<Outgoing>)> + use<> {
        let slots = std::mem::take(&mut self.slots);
        self.clear();
        slots.into_iter().map(|slot| match slot.stage {
            Stage::Held(outgoing) | Stage::Sent(outgoing) => (slot.packet_id, Some(outgoing)),
            Stage::Released(_) => (slot.packet_id, None),
        })
    }

    /// Gives each message without a place in the store the `next` one, and tells `noted` of it.
    pub(super) fn enlist(
        &mut self,
        next: &mut dyn FnMut() -> Seq,
        mut noted: impl FnMut(Seq, Exchange, Option<&Outgoing>),
    ) {
        for slot in self.slots.iter_mut().filter(|slot| slot.stage.seq().is_none()) {
            let seq = next();
            match &mut slot.stage {
                Stage::Held(outgoing) | Stage::Sent(outgoing) => {
                    outgoing.seq = Some(seq);
                    noted(seq, Exchange::Sent(slot.packet_id), Some(outgoing));
                }
                Stage::Released(known) => {
                    *known = Some(seq);
                    noted(seq, Exchange::Released(slot.packet_id), None);
                }
            }
        }
    }

    /// The packet identifier that is tried next.
    pub(super) fn next(&self) -> PacketId {
        self.next
    }

    /// The places in the store of what is in flight.
    pub(super) fn seqs(&self) -> impl Iterator<Item = Seq> {
        self.slots.iter().filter_map(|slot| slot.stage.seq())
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many messages the client has not said to have.
    pub(super) fn unheard_len(&self) -> usize {
        self.slots.len() - self.released as usize
    }

    /// How many messages fill the window of this connection.
    pub(super) fn sent_len(&self) -> usize {
        self.slots.len() - self.held as usize
    }

    /// Whether the exchange of a message may begin. A stored one of QoS 2 waits until its identifier is free:
    /// under another one the client could not know it again after a crash that came before the store knew.
    pub(super) fn takes(&self, outgoing: &Outgoing) -> bool {
        match outgoing.seq {
            Some(seq) if outgoing.qos == QoS::ExactlyOnce => !self.is_used(seq.packet_id()),
            _ => true,
        }
    }

    /// Takes a message in flight, and says under which packet identifier: one that is not in use
    /// `[MQTT-2.2.1-4]`. There must be fewer than 65,535 in flight, which the window guarantees.
    pub(super) fn push(&mut self, outgoing: Outgoing) -> PacketId {
        debug_assert!(
            self.slots.len() < usize::from(u16::MAX),
            "the window is below 65,535"
        );
        let packet_id = match outgoing.seq.map(Seq::packet_id) {
            None => {
                let free = self.free_from(self.next);
                self.next = successor(free);
                free
            }
            Some(own) if !self.is_used(own) => own,
            // Not its neighbour: that is of the message behind it.
            Some(own) => self.free_from(far_from(own)),
        };
        self.append(packet_id, Stage::Sent(outgoing));
        packet_id
    }

    fn free_from(&self, mut packet_id: PacketId) -> PacketId {
        while self.is_used(packet_id) {
            packet_id = successor(packet_id);
        }
        packet_id
    }

    fn append(&mut self, packet_id: PacketId, stage: Stage) {
        if let Some(last) = self.slots.back() {
            self.scattered |= self.distance(packet_id) <= self.distance(last.packet_id);
        }
        self.slots.push_back(Slot { packet_id, stage });
    }

    /// How far an identifier lies behind that of the first slot, going round.
    fn distance(&self, packet_id: PacketId) -> u16 {
        let first = self.slots.front().map_or(0, |first| first.packet_id.get());
        packet_id.get().wrapping_sub(first)
    }

    /// What an acknowledgement of `packet_id` would have to be.
    pub(super) fn awaits(&self, packet_id: PacketId) -> Option<Awaits> {
        let slot = &self.slots[self.find(packet_id)?];
        Some(match &slot.stage {
            Stage::Released(_) => Awaits::Comp,
            Stage::Held(outgoing) | Stage::Sent(outgoing) if outgoing.qos == QoS::ExactlyOnce => Awaits::Rec,
            Stage::Held(_) | Stage::Sent(_) => Awaits::Ack,
        })
    }

    /// PUBREC came: the message is the client's, the identifier is kept until PUBCOMP. Where it is stored.
    pub(super) fn release(&mut self, packet_id: PacketId) -> Option<Seq> {
        let slot = self.find(packet_id)?;
        let stage = &mut self.slots[slot].stage;
        let seq = stage.seq();
        let before = std::mem::replace(stage, Stage::Released(seq));
        self.held -= u32::from(matches!(before, Stage::Held(_)));
        self.released += u32::from(!matches!(before, Stage::Released(_)));
        seq
    }

    /// The exchange is over: the identifier is free. The message's place in the store.
    pub(super) fn remove(&mut self, packet_id: PacketId) -> Option<Seq> {
        let slot = self.find(packet_id).and_then(|index| self.slots.remove(index));
        if let Some(slot) = &slot {
            self.held -= u32::from(matches!(slot.stage, Stage::Held(_)));
            self.released -= u32::from(matches!(slot.stage, Stage::Released(_)));
        }
        if self.slots.is_empty() {
            self.scattered = false;
            self.slots.shrink_to(IDLE_CAPACITY);
        }
        slot.and_then(|slot| slot.stage.seq())
    }

    /// Takes out what came to the client as a member of a shared group, of this one or of any, and whose
    /// exchange may be begun anew by another member: QoS 1 only `[MQTT-4.8.2-5]`.
    pub(super) fn take_shared(&mut self, of: Option<NonZeroU64>) -> Vec<Outgoing> {
        let mut taken = Vec::new();
        let held = &mut self.held;
        self.slots.retain_mut(|slot| {
            let (Stage::Held(outgoing) | Stage::Sent(outgoing)) = &slot.stage else {
                return true;
            };
            let is_taken = outgoing.share.is_some() && (of.is_none() || outgoing.share == of);
            if !is_taken || outgoing.qos != QoS::AtLeastOnce {
                return true;
            }
            *held -= u32::from(matches!(slot.stage, Stage::Held(_)));
            if let Stage::Held(outgoing) | Stage::Sent(outgoing) =
                std::mem::replace(&mut slot.stage, Stage::Released(None))
            {
                taken.push(outgoing);
            }
            false
        });
        taken
    }

    /// Takes out what another could begin anew, without the counts: they may be wrong.
    pub(super) fn salvage(&mut self) -> impl Iterator<Item = Outgoing> + use<> {
        let slots = std::mem::take(&mut self.slots).into_iter();
        slots.filter_map(|slot| match slot.stage {
            Stage::Held(outgoing) | Stage::Sent(outgoing) if outgoing.qos == QoS::AtLeastOnce => {
                Some(outgoing)
            }
            _ => None,
        })
    }

    /// The connection is gone: what is in flight may wait for long.
    pub(super) fn detach(&mut self) {
        for slot in &mut self.slots {
            if let Stage::Held(outgoing) | Stage::Sent(outgoing) = &mut slot.stage {
                outgoing.detach();
            }
        }
    }

    /// A new connection: nothing was sent on it yet.
    pub(super) fn hold_all(&mut self) {
        self.held = 0;
        for slot in &mut self.slots {
            let stage = std::mem::replace(&mut slot.stage, Stage::Released(None));
            slot.stage = match stage {
                Stage::Sent(outgoing) | Stage::Held(outgoing) => {
                    self.held += 1;
                    Stage::Held(outgoing)
                }
                Stage::Released(seq) => Stage::Released(seq),
            };
        }
    }

    /// Whether messages of an earlier connection have not had their turn on this one.
    pub(super) fn has_held(&self) -> bool {
        self.held > 0
    }

    /// Identifiers that wait for PUBCOMP, in order of sending.
    pub(super) fn released(&self) -> impl Iterator<Item = PacketId> {
        self.slots
            .iter()
            .filter(|slot| matches!(slot.stage, Stage::Released(_)))
            .map(|slot| slot.packet_id)
    }

    /// Gives the oldest held messages to `send` while fewer than `window` are sent. Those for which it
    /// says no are given up: their identifiers are free.
    pub(super) fn resend(&mut self, window: usize, mut send: impl FnMut(PacketId, &Outgoing) -> bool) {
        let (mut sent, mut held) = (self.sent_len(), self.held);
        self.slots.retain_mut(|slot| {
            if sent >= window || !matches!(slot.stage, Stage::Held(_)) {
                return true;
            }
            let Stage::Held(outgoing) = std::mem::replace(&mut slot.stage, Stage::Released(None)) else {
                return true;
            };
            held -= 1;
            let is_sent = send(slot.packet_id, &outgoing);
            sent += usize::from(is_sent);
            slot.stage = Stage::Sent(outgoing);
            is_sent
        });
        self.held = held;
    }

    pub(super) fn clear(&mut self) {
        // `next` goes on: an acknowledgement that is still on its way finds nothing.
        self.slots = VecDeque::new();
        (self.held, self.released) = (0, 0);
        self.scattered = false;
    }

    fn is_used(&self, packet_id: PacketId) -> bool {
        let Some(last) = self.slots.back() else {
            return false;
        };
        let is_behind = !self.scattered && self.distance(packet_id) > self.distance(last.packet_id);
        !is_behind && self.find(packet_id).is_some()
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.slots.front()?.packet_id;
        if first == packet_id {
            return Some(0);
        }
        if self.scattered {
            return self.slots.iter().position(|slot| slot.packet_id == packet_id);
        }
        self.slots
            .binary_search_by_key(&self.distance(packet_id), |slot| self.distance(slot.packet_id))
            .ok()
    }
}

/// The identifier after this one; 65,535 is followed by 1.
fn successor(packet_id: PacketId) -> PacketId {
    packet_id.checked_add(1).unwrap_or(PacketId::MIN)
}

/// An identifier half-way round from this one: that of no message that is near it in the store.
pub(super) fn far_from(packet_id: PacketId) -> PacketId {
    PacketId::new(packet_id.get() ^ 0x8000).unwrap_or(PacketId::MAX)
}
