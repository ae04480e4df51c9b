//! QoS 1 and 2 messages that were sent to the client and wait for its acknowledgements.
//!
//! A ring in the order of sending. Acknowledgements come in that order `[MQTT-4.6.0-2]`, so the one
//! that is looked for is nearly always the first; packet identifiers grow along the ring, so any other
//! is found by halving.

use std::collections::VecDeque;
use std::num::NonZeroU64;

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
    Released,
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
    held: usize,
    /// Next packet identifier to try.
    next: PacketId,
    /// The identifiers have gone all the way round past one that is still in use: they no longer grow
    /// along the ring, until it is empty again.
    wrapped: bool,
}

impl Default for Inflight {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            held: 0,
            next: PacketId::MIN,
            wrapped: false,
        }
    }
}

impl Inflight {
    /// What was in flight elsewhere, in the order of sending; without a message it waits for PUBCOMP.
    pub(super) fn of(slots: impl Iterator<Item = (PacketId, Option<Outgoing>)>, next: PacketId) -> Self {
        let slots = slots.map(|(packet_id, outgoing)| Slot {
            packet_id,
            stage: outgoing.map_or(Stage::Released, Stage::Held),
        });
        let slots: VecDeque<Slot> = slots.collect();
        let held = slots
            .iter()
            .filter(|slot| !matches!(slot.stage, Stage::Released))
            .count();
        Self {
            held,
            next,
            // Whether they grow along the ring is not looked at.
            wrapped: !slots.is_empty(),
            slots,
        }
    }

    /// Takes everything out, in the order of sending.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = (PacketId, Option<Outgoing>)> + use<> {
        let slots = std::mem::take(&mut self.slots);
        self.clear();
        slots.into_iter().map(|slot| match slot.stage {
            Stage::Held(outgoing) | Stage::Sent(outgoing) => (slot.packet_id, Some(outgoing)),
            Stage::Released => (slot.packet_id, None),
        })
    }

    /// The packet identifier that is tried next.
    pub(super) fn next(&self) -> PacketId {
        self.next
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many messages fill the window of this connection.
    pub(super) fn sent_len(&self) -> usize {
        self.slots.len() - self.held
    }

    /// Takes a message in flight, and says under which packet identifier: one that is not in use
    /// `[MQTT-2.2.1-4]`. There must be fewer than 65,535 in flight, which the window guarantees.
    pub(super) fn push(&mut self, outgoing: Outgoing) -> PacketId {
        debug_assert!(
            self.slots.len() < usize::from(u16::MAX),
            "the window is below 65,535"
        );
        while self.is_used(self.next) {
            self.wrapped = true;
            self.next = successor(self.next);
        }
        let packet_id = self.next;
        self.next = successor(packet_id);
        self.slots.push_back(Slot {
            packet_id,
            stage: Stage::Sent(outgoing),
        });
        packet_id
    }

    /// What an acknowledgement of `packet_id` would have to be.
    pub(super) fn awaits(&self, packet_id: PacketId) -> Option<Awaits> {
        let slot = &self.slots[self.find(packet_id)?];
        Some(match &slot.stage {
            Stage::Released => Awaits::Comp,
            Stage::Held(outgoing) | Stage::Sent(outgoing) if outgoing.qos == QoS::ExactlyOnce => Awaits::Rec,
            Stage::Held(_) | Stage::Sent(_) => Awaits::Ack,
        })
    }

    /// PUBREC came: the message is the client's, the identifier is kept until PUBCOMP.
    pub(super) fn release(&mut self, packet_id: PacketId) {
        if let Some(index) = self.find(packet_id) {
            let stage = std::mem::replace(&mut self.slots[index].stage, Stage::Released);
            self.held -= usize::from(matches!(stage, Stage::Held(_)));
        }
    }

    /// The exchange is over: the identifier is free.
    pub(super) fn remove(&mut self, packet_id: PacketId) {
        if let Some(slot) = self.find(packet_id).and_then(|index| self.slots.remove(index)) {
            self.held -= usize::from(matches!(slot.stage, Stage::Held(_)));
        }
        if self.slots.is_empty() {
            self.wrapped = false;
            self.slots.shrink_to(IDLE_CAPACITY);
        }
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
            *held -= usize::from(matches!(slot.stage, Stage::Held(_)));
            if let Stage::Held(outgoing) | Stage::Sent(outgoing) =
                std::mem::replace(&mut slot.stage, Stage::Released)
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
            let stage = std::mem::replace(&mut slot.stage, Stage::Released);
            slot.stage = match stage {
                Stage::Sent(outgoing) | Stage::Held(outgoing) => {
                    self.held += 1;
                    Stage::Held(outgoing)
                }
                Stage::Released => Stage::Released,
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
            .filter(|slot| matches!(slot.stage, Stage::Released))
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
            let Stage::Held(outgoing) = std::mem::replace(&mut slot.stage, Stage::Released) else {
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
        self.held = 0;
        self.wrapped = false;
    }

    fn is_used(&self, packet_id: PacketId) -> bool {
        if self.wrapped {
            return self.find(packet_id).is_some();
        }
        self.slots
            .front()
            .is_some_and(|first| first.packet_id == packet_id)
    }

    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.slots.front()?.packet_id;
        if first == packet_id {
            return Some(0);
        }
        if self.wrapped {
            return self.slots.iter().position(|slot| slot.packet_id == packet_id);
        }
        let distance = |id: PacketId| id.get().wrapping_sub(first.get());
        self.slots
            .binary_search_by_key(&distance(packet_id), |slot| distance(slot.packet_id))
            .ok()
    }
}

/// The identifier after this one; 65,535 is followed by 1.
fn successor(packet_id: PacketId) -> PacketId {
    packet_id.checked_add(1).unwrap_or(PacketId::MIN)
}
