//! Messages to the client: what is sent when, and what its acknowledgements do.
//!
//! QoS 0 is sent at once or dropped and counted; it is queued only for a client that is away, where the
//! limits say so. QoS 1 and 2 are sent while the window (the smaller of
//! the client's Receive Maximum and the broker's own) has room, else queued; they may be overtaken by
//! QoS 0, never by one another `[MQTT-4.6.0-6]`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::Link;
use super::event::{Counted, Delivery, Effect, Transmit};
use super::inflight::Awaits;
use super::lasting::{Exchange, Seq};
use super::queue::{self, Outgoing};
use super::refusal::{Refusal, explained};
use super::{Session, State};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{Ack, Packet, PacketId, QoS, SubscriptionIds};
use crate::mqtt::reason::ReasonCode;

/// No PUBLISH is longer than its message's weight, this, and its subscription identifiers: fixed header 5,
/// topic length 2, packet identifier 2, property length 4, expiry 5, topic alias 3.
const OVERHEAD_MAX: usize = 21;

/// A message that need not wait is sent if it expired so shortly before: its interval counts whole seconds.
/// One of 0 seconds reaches who is there and can take it, and nobody else.
const BEGUN_WITHIN: Duration = Duration::from_secs(1);

/// Bytes of a subscription identifier at most.
const IDENTIFIER_MAX: usize = 5;

/// A message that a torn session owes to a shared group.
#[derive(Debug)]
pub struct Salvaged {
    /// The group.
    pub share: NonZeroU64,
    /// The message.
    pub message: Arc<Message>,
    /// Whether the client may have had it.
    pub dup: bool,
    /// Its place in the store.
    pub seq: Option<Seq>,
}

impl Session {
    /// A topic has a message for this client.
    pub(super) fn on_deliver(&mut self, delivery: Delivery, now: Instant, out: &mut Vec<Effect>) {
        let Delivery {
            message,
            options,
            subscription_ids,
            from_retained,
            share,
            dup,
            seq,
        } = delivery;
        match self.state {
            State::Attached(_) | State::Away(_) => {}
            // It has no subscriptions yet: the delivery was meant for a session before it.
            // Or there will be none any more.
            State::New | State::Ended => return drop_counted(Counted::DroppedSessionEnded, seq, out),
        }
        // [MQTT-3.8.3-3]
        if options.no_local && message.publisher == self.client_id {
            return drop_counted(Counted::Withheld, seq, out);
        }
        let outgoing = Outgoing {
            qos: message.qos.min(options.qos),
            // [MQTT-3.3.1-8], [MQTT-3.3.1-9], [MQTT-3.3.1-12], [MQTT-3.3.1-13]
            retain: from_retained || (options.retain_as_published && message.retain),
            subscription_ids,
            share,
            dup,
            seq,
            message,
        };
        let waits = self.limits.queue_qos0 && matches!(self.state, State::Away(_));
        if outgoing.qos != QoS::AtMostOnce || waits {
            return self.enqueue(outgoing, now, out);
        }
        let is_v5 = self.version.is_v5();
        match &mut self.state {
            State::Attached(link) => match refusal(link, is_v5, &outgoing, before(now)) {
                Some(counted) => drop_counted(counted, seq, out),
                None => {
                    let transmit = transmit(outgoing, None, false, is_v5, now);
                    out.push(aliased(link, transmit));
                    settle(seq, out);
                }
            },
            State::Away(_) => drop_counted(Counted::DroppedQoS0Offline, seq, out),
            State::New | State::Ended => {}
        }
    }

    /// Sends a QoS 1 or 2 message, or has it wait.
    pub(super) fn enqueue(&mut self, outgoing: Outgoing, now: Instant, out: &mut Vec<Effect>) {
        if let State::Attached(link) = &self.state
            && self.queue.is_empty()
            && !self.inflight.has_held()
            && self.inflight.len() < usize::from(link.window)
            && self.inflight.takes(&outgoing)
        {
            return self.start(outgoing, before(now), now, out);
        }
        if !self.queue.has_room(outgoing.message.weight(), &self.limits) {
            self.drop_expired(now, out);
        }
        let head = self.head();
        let gave_way = self.queue.push(outgoing, &self.limits, head, out);
        if gave_way || self.is_attached() {
            self.fetch(now, out);
        }
    }

    /// Begins the exchange of one message that had not expired at `unexpired`; there is room for it.
    fn start(&mut self, outgoing: Outgoing, unexpired: Instant, now: Instant, out: &mut Vec<Effect>) {
        let State::Attached(link) = &mut self.state else {
            return;
        };
        let is_v5 = self.version.is_v5();
        let seq = outgoing.seq;
        if let Some(counted) = refusal(link, is_v5, &outgoing, unexpired) {
            return drop_counted(counted, seq, out);
        }
        // QoS 0 that waited while the client was away is sent and forgotten.
        let acknowledged = outgoing.qos != QoS::AtMostOnce;
        let packet_id = acknowledged.then(|| self.inflight.push(outgoing.clone()));
        let dup = outgoing.dup && acknowledged;
        if let (Some(seq), Some(packet_id)) = (seq, packet_id) {
            out.push(Effect::Exchange(seq, Exchange::Sent(packet_id)));
        }
        let transmit = transmit(outgoing, packet_id, dup, is_v5, now);
        out.push(aliased(link, transmit));
        if !acknowledged {
            settle(seq, out);
        }
    }

    /// Fills the window: first what an earlier connection left in flight, then the queue.
    pub(super) fn pump(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let State::Attached(link) = &mut self.state else {
            return;
        };
        let window = usize::from(link.window);
        if self.inflight.has_held() {
            let is_v5 = self.version.is_v5();
            self.inflight.resend(window, |packet_id, outgoing| {
                // Its delivery has begun, so it no longer expires; but it may be too large for this
                // connection, and is then treated as if it had been delivered [MQTT-3.1.2-25].
                let fits = fits(link, is_v5, outgoing);
                if fits {
                    let transmit = transmit(outgoing.clone(), Some(packet_id), true, is_v5, now);
                    out.push(aliased(link, transmit));
                } else {
                    drop_counted(Counted::DroppedTooLarge, outgoing.seq, out);
                }
                fits
            });
        }
        while !self.inflight.has_held() && self.inflight.len() < window {
            let next = self.queue.pop_if(|outgoing| self.inflight.takes(outgoing));
            let Some(outgoing) = next else { break };
            self.start(outgoing, now, now, out);
        }
        self.fetch(now, out);
    }

    /// The session is resumed `[MQTT-4.4.0-1]`: PUBRELs first, then what is unacknowledged, in order.
    pub(super) fn resend(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.inflight.hold_all();
        out.extend(
            self.inflight
                .released()
                .map(|id| Effect::Send(Packet::PubRel(Ack::success(id)))),
        );
        self.drop_expired(now, out);
    }

    /// Another member of a shared group is to have what waits for this client, and what it has not
    /// acknowledged. A QoS 2 message that was sent stays: it must not reach two of them
    /// `[MQTT-4.8.2-4]` `[MQTT-4.8.2-5]`. Without a group it is about all of them.
    ///
    /// What is stored is settled, unless the store forgets it with all else.
    pub(super) fn pass_on(&mut self, of: Option<NonZeroU64>, settles: bool, out: &mut Vec<Effect>) {
        let sent = self.inflight.take_shared(of);
        let queued = self.queue.take_shared(of);
        let all = sent.into_iter().map(|outgoing| (outgoing, true));
        let all = all.chain(queued.into_iter().map(|outgoing| (outgoing, false)));
        for (outgoing, sent) in all {
            let Some(share) = outgoing.share else { continue };
            out.push(Effect::PassOn {
                share,
                message: outgoing.message,
                dup: sent || outgoing.dup,
            });
            settle(outgoing.seq.filter(|_| settles), out);
        }
    }

    /// What a session that was torn by a panic owes to its shared groups. Takes nothing for granted but that
    /// the lists can be read; what was sent at
    /// QoS 2 stays `[MQTT-4.8.2-5]`.
    pub fn salvage(&mut self) -> Vec<Salvaged> {
        let sent = self.inflight.salvage().map(|outgoing| (outgoing, true));
        let queued = self.queue.salvage().map(|outgoing| (outgoing, false));
        let all = sent.chain(queued);
        let salvaged = all.filter_map(|(outgoing, sent)| {
            Some(Salvaged {
                share: outgoing.share?,
                dup: sent || outgoing.dup,
                seq: outgoing.seq,
                message: outgoing.message,
            })
        });
        salvaged.collect()
    }

    fn drop_expired(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.queue.remove_expired(now, out);
    }

    /// PUBACK: a QoS 1 message is the client's, or refused by it; both end the exchange.
    pub(super) fn on_puback(
        &mut self,
        ack: &Ack,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match self.inflight.awaits(ack.packet_id) {
            Some(Awaits::Ack) => {
                settle(self.inflight.remove(ack.packet_id), out);
                out.push(Effect::Count(heard(ack)));
                self.pump(now, out);
            }
            Some(Awaits::Rec | Awaits::Comp) => {
                return Err(Refusal::protocol_error("PUBACK for a message of QoS 2"));
            }
            None => out.push(Effect::Count(Counted::UnknownAck)),
        }
        Ok(())
    }

    /// PUBREC: a QoS 2 message is the client's, or refused by it. One that was answered before, or whose
    /// message is unknown, is answered too, or the client would wait for ever.
    pub(super) fn on_pubrec(
        &mut self,
        ack: &Ack,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let packet_id = ack.packet_id;
        let awaits = self.inflight.awaits(packet_id);
        match awaits {
            Some(Awaits::Ack) => return Err(Refusal::protocol_error("PUBREC for a message of QoS 1")),
            Some(Awaits::Rec | Awaits::Comp) if ack.reason.is_error() => {
                settle(self.inflight.remove(packet_id), out);
                if awaits == Some(Awaits::Rec) {
                    out.push(Effect::Count(heard(ack)));
                }
                self.pump(now, out);
                return Ok(());
            }
            Some(Awaits::Rec) => {
                let released = Exchange::Released(packet_id);
                let seq = self.inflight.release(packet_id);
                out.extend(seq.map(|seq| Effect::Exchange(seq, released)));
                out.push(Effect::Count(heard(ack)));
            }
            Some(Awaits::Comp) => {}
            None => out.push(Effect::Count(Counted::UnknownAck)),
        }
        if !ack.reason.is_error() {
            let known = awaits.is_some() || !self.version.is_v5();
            let reason = if known {
                ReasonCode::Success
            } else {
                ReasonCode::PacketIdentifierNotFound
            };
            let ack = explained(Ack::with_reason(packet_id, reason));
            out.push(Effect::Send(Packet::PubRel(ack)));
        }
        Ok(())
    }

    /// PUBCOMP: the exchange of a QoS 2 message is over, also when the client no longer knows it.
    pub(super) fn on_pubcomp(
        &mut self,
        ack: &Ack,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        match self.inflight.awaits(ack.packet_id) {
            Some(Awaits::Comp) => {
                settle(self.inflight.remove(ack.packet_id), out);
                self.pump(now, out);
            }
            Some(Awaits::Ack | Awaits::Rec) => {
                return Err(Refusal::protocol_error("PUBCOMP before its PUBREL"));
            }
            None => out.push(Effect::Count(Counted::UnknownAck)),
        }
        Ok(())
    }
}

/// A message is the client's or nobody's: should it be stored, it need not be any longer.
pub(super) fn settle(seq: Option<Seq>, out: &mut Vec<Effect>) {
    out.extend(seq.map(Effect::Settled));
}

/// A message is dropped, and counted for what.
pub(super) fn drop_counted(counted: Counted, seq: Option<Seq>, out: &mut Vec<Effect>) {
    out.push(Effect::Count(counted));
    settle(seq, out);
}

/// What became of a message by PUBACK or PUBREC.
fn heard(ack: &Ack) -> Counted {
    if ack.reason.is_error() {
        Counted::DroppedByClient
    } else {
        Counted::Delivered
    }
}

/// When a message that is sent now without having waited must not have expired.
fn before(now: Instant) -> Instant {
    now.checked_sub(BEGUN_WITHIN).unwrap_or(now)
}

/// Why a message is not to be sent on this connection, if it is not.
fn refusal(link: &Link, is_v5: bool, outgoing: &Outgoing, now: Instant) -> Option<Counted> {
    if queue::is_expired(&outgoing.message, now) {
        return Some(Counted::DroppedExpired);
    }
    (!fits(link, is_v5, outgoing)).then_some(Counted::DroppedTooLarge)
}

/// Whether the PUBLISH is within the client's Maximum Packet Size `[MQTT-3.1.2-24]`.
fn fits(link: &Link, is_v5: bool, outgoing: &Outgoing) -> bool {
    let max = link.packet_size_max as usize;
    len_max(&outgoing.message, &outgoing.subscription_ids) <= max || packet_len(outgoing, is_v5) <= max
}

/// Bytes that the encoded PUBLISH does not exceed; cheaper than to know it exactly.
fn len_max(message: &Message, identifiers: &SubscriptionIds) -> usize {
    message.weight() + OVERHEAD_MAX + IDENTIFIER_MAX * identifiers.as_slice().len()
}

/// Bytes of the encoded PUBLISH, fixed header included.
fn packet_len(outgoing: &Outgoing, is_v5: bool) -> usize {
    let message: &Arc<Message> = &outgoing.message;
    let packet_id = if outgoing.qos == QoS::AtMostOnce { 0 } else { 2 };
    let properties = if is_v5 {
        let identifiers = outgoing.subscription_ids.as_slice().iter();
        let identifier: usize = identifiers.map(|id| 1 + varint_len(*id as usize)).sum();
        let expiry = if message.expires_at.is_some() { 5 } else { 0 };
        let properties = message.pass_through.len() + identifier + expiry;
        varint_len(properties) + properties
    } else {
        0
    };
    let remaining = 2 + message.topic.len() + packet_id + properties + message.payload.len();
    1 + varint_len(remaining) + remaining
}

/// Bytes of a Variable Byte Integer `[MQTT-1.5.5]`.
fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Puts a topic alias in, if the client allows any and the packet has room for one.
fn aliased(link: &mut Link, mut transmit: Transmit) -> Effect {
    let roomy = len_max(&transmit.message, &transmit.subscription_ids) <= link.packet_size_max as usize;
    if let Some(aliases) = link.aliases_out.as_mut().filter(|_| roomy) {
        transmit.alias = aliases.of(&transmit.message.topic);
    }
    Effect::Transmit(transmit)
}

fn transmit(
    outgoing: Outgoing,
    packet_id: Option<PacketId>,
    dup: bool,
    is_v5: bool,
    now: Instant,
) -> Transmit {
    let Outgoing {
        message,
        subscription_ids,
        qos,
        retain,
        ..
    } = outgoing;
    let (expiry_s, subscription_ids) = if is_v5 {
        (remaining_s(&message, now), subscription_ids)
    } else {
        (None, SubscriptionIds::None)
    };
    Transmit {
        message,
        dup,
        qos,
        retain,
        packet_id,
        expiry_s,
        subscription_ids,
        alias: None,
    }
}

/// What is left of the Message Expiry Interval `[MQTT-3.3.2-6]`, in seconds begun: a message
/// says 0 only if it came with 0, or in the second in which it expires.
fn remaining_s(message: &Message, now: Instant) -> Option<u32> {
    let left = message.expires_at?.saturating_duration_since(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}
