//! Packets that crash the session which handles them, again and again.
//!
//! A session that crashes is not restarted: its socket closes, and its client connects again. If the bug is
//! one that a single packet meets, and the client sends that packet anew (as QoS 1 and 2 demand of it), the
//! next session crashes as well, and so on for ever. Therefore a session notes a fingerprint of the packet
//! in hand, and what had one in hand when it was torn is remembered here, beside the tables, which outlive
//! sessions. Two crashes of one client over one packet are enough: that packet is not handled a third time.
//! Its client reads DISCONNECT 0x83 (a 3.x client just loses its connection), `packets_poisonous` counts it,
//! and the log names both. The session of that client, a persistent one too, goes on without the packet;
//! nobody else notices anything. A message of a shared group that its members fall over, one after the other,
//! is remembered in the same way under the group's name. All this is forgotten after [`FORGOTTEN_AFTER`]
//! without a crash.

use std::hash::{BuildHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};
use bytestring::ByteString;

use crate::mqtt::message::Message;
use crate::mqtt::packet::Packet;

/// Crashes of one client over one packet after which it is not handled again.
const CRASHES_MAX: u32 = 2;

/// How long a crash is remembered: longer than clients wait between two attempts to connect.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Clients that are remembered; the one whose crash is longest ago gives way.
const CLIENTS_MAX: usize = 1024;

/// Bytes at both ends of a payload that go into a fingerprint.
const SAMPLE_BYTES: usize = 64;

/// What makes a packet the same when it is sent again: topic and payload, or filters. Neither the DUP flag
/// nor the packet identifier, which a client may choose anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint(NonZeroU64);

impl Fingerprint {
    /// Packets that only make sense together with what was said before (acknowledgements) have none. Of a
    /// long payload the length and both ends are taken: this is done for every packet.
    pub(super) fn of(packet: &Packet) -> Option<Self> {
        let mut hasher = hasher();
        match packet {
            Packet::Publish(publish) => write_message(&publish.topic, &publish.payload, &mut hasher),
            Packet::Subscribe(subscribe) => {
                for (filter, _) in &subscribe.filters {
                    filter.hash(&mut hasher);
                }
            }
            Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.hash(&mut hasher),
            _ => return None,
        }
        NonZeroU64::new(hasher.finish()).map(Self)
    }

    /// The same of a message that is delivered.
    pub(super) fn of_message(message: &Message) -> Option<Self> {
        let mut hasher = hasher();
        write_message(&message.topic, &message.payload, &mut hasher);
        NonZeroU64::new(hasher.finish()).map(Self)
    }
}

fn hasher() -> impl Hasher {
    RandomState::with_seeds(5, 6, 7, 8).build_hasher()
}

fn write_message(topic: &str, payload: &[u8], hasher: &mut impl Hasher) {
    let (head, tail) = (
        payload.len().min(SAMPLE_BYTES),
        payload.len().saturating_sub(SAMPLE_BYTES),
    );
    hasher.write(topic.as_bytes());
    hasher.write_usize(payload.len());
    hasher.write(&payload[..head]);
    hasher.write(&payload[tail..]);
}

/// The packet over which a client's session has fallen, and how often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Suspect {
    fingerprint: Fingerprint,
    crashes: u32,
    at: Instant,
}

impl Suspect {
    /// Whether that packet is not to be handled any more.
    pub(super) fn is_poison(&self, packet: Fingerprint) -> bool {
        self.crashes >= CRASHES_MAX && self.fingerprint == packet
    }
}

/// The suspects of one life of `core`.
#[derive(Default)]
pub struct Poison(Mutex<AHashMap<ByteString, Suspect>>);

impl Poison {
    fn lock(&self) -> MutexGuard<'_, AHashMap<ByteString, Suspect>> {
        // Whole entries are put in and taken out under this lock: a poisoned one is whole too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of a client crashed with this packet in hand; or a member of a group, with this message.
    pub(super) fn crashed(&self, client_id: &ByteString, fingerprint: Fingerprint, now: Instant) {
        let mut suspects = self.lock();
        suspects.retain(|_, suspect| now.duration_since(suspect.at) < FORGOTTEN_AFTER);
        if suspects.len() >= CLIENTS_MAX && !suspects.contains_key(client_id) {
            let oldest = suspects.iter().min_by_key(|(_, suspect)| suspect.at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                suspects.remove(&oldest);
            }
        }
        let before = suspects
            .get(client_id)
            .filter(|suspect| suspect.fingerprint == fingerprint);
        let crashes = before.map_or(0, |suspect| suspect.crashes).saturating_add(1);
        suspects.insert(
            client_id.clone(),
            Suspect {
                fingerprint,
                crashes,
                at: now,
            },
        );
    }

    /// What a client's new session must know.
    pub(super) fn suspect(&self, client_id: &ByteString, now: Instant) -> Option<Suspect> {
        let suspect = *self.lock().get(client_id)?;
        (now.duration_since(suspect.at) < FORGOTTEN_AFTER).then_some(suspect)
    }
}

/// The bug that tests need: every session falls over this payload.
#[cfg(test)]
pub(super) fn fall_over(packet: &Packet) {
    if let Packet::Publish(publish) = packet {
        assert_ne!(
            &publish.payload[..],
            b"fall over this",
            "a bug that one packet meets"
        );
    }
}

/// … and over this message when it is delivered.
#[cfg(test)]
pub(super) fn fall_over_message(message: &Message) {
    assert_ne!(
        &message.payload[..],
        b"fall over this delivery",
        "a bug that one delivery meets"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::packet::{PacketId, Publish, QoS};
    use crate::mqtt::properties::PublishProperties;
    use bytes::Bytes;

    fn print(topic: &str, payload: &[u8], dup: bool, id: u16) -> Fingerprint {
        let publish = Publish {
            dup,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            packet_id: PacketId::new(id),
            properties: PublishProperties::default(),
            payload: Bytes::copy_from_slice(payload),
        };
        Fingerprint::of(&Packet::Publish(publish)).unwrap()
    }

    #[test]
    fn a_packet_that_is_sent_again_has_the_same_fingerprint_and_no_other_has() {
        let long = [7; 1000];
        assert_eq!(print("a", &long, false, 1), print("a", &long, true, 2));
        assert_ne!(print("a", &long, false, 1), print("b", &long, false, 1));
        assert_ne!(print("a", &long, false, 1), print("a", &long[1..], false, 1));
        assert_ne!(print("a", b"x", false, 1), print("a", b"y", false, 1));
    }

    #[test]
    fn a_packet_is_poison_after_two_crashes_of_the_same_client_and_not_for_ever() {
        let (poison, now) = (Poison::default(), Instant::now());
        let (a, b) = (print("a", b"x", false, 1), print("b", b"x", false, 1));
        let client = ByteString::from("client");
        let judged = |now| {
            poison
                .suspect(&client, now)
                .is_some_and(|suspect| suspect.is_poison(a))
        };
        poison.crashed(&client, a, now);
        assert!(!judged(now));
        // Over another one in between: not the same packet twice.
        poison.crashed(&client, b, now);
        poison.crashed(&client, a, now);
        assert!(!judged(now));
        poison.crashed(&client, a, now);
        assert!(judged(now) && !judged(now + FORGOTTEN_AFTER));
        assert_eq!(poison.suspect(&"other".into(), now), None);
    }

    #[test]
    fn no_more_clients_are_remembered_than_there_is_room_for() {
        let (poison, start) = (Poison::default(), Instant::now());
        let a = print("a", b"x", false, 1);
        for n in 0..=CLIENTS_MAX {
            poison.crashed(&n.to_string().into(), a, start + Duration::from_millis(n as u64));
        }
        assert_eq!(poison.lock().len(), CLIENTS_MAX);
        assert_eq!(poison.suspect(&"0".into(), start), None, "the oldest");
    }
}
