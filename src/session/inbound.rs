//! Messages from the client: published once as their QoS wants it, acknowledged in the order in which
//! they came `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`, when the broker has answered for them.
//!
//! The broker answers in any order, so what waits is a ring: an answer is noted where it belongs, and
//! the acknowledgements go out from the front as far as answers have come.
//!
//! A QoS 2 message is handed to the broker when its PUBLISH comes and its packet identifier is kept
//! until PUBREL; the same identifier until then is the same message, whatever its DUP flag says
//! `[MQTT-4.3.3-10]`. The exchange survives its connection: an answer that comes in between is kept for
//! the PUBLISH that the client sends again. QoS 1 messages of a lost connection are only forgotten: the
//! client sends them again and they are published again.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::AHashMap;
use bytestring::ByteString;

use super::connect::{Link, detached};
use super::event::{ClientLimits, Counted, Effect, PublishOutcome, PublishToken};
use super::refusal::{Refusal, explained};
use super::{Session, State};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{Ack, Packet, PacketId, ProtocolVersion, Publish, QoS};
use crate::mqtt::reason::ReasonCode;

/// PUBLISHes that may wait at all, of any protocol: there are no more packet identifiers.
const WAITING_MAX: usize = 65_535;

/// Room that an idle session keeps for messages under way; a burst's memory beyond it is given back.
const IDLE_CAPACITY: usize = 32;

/// Topic aliases of one connection, by number.
pub(super) type Aliases = AHashMap<u16, ByteString>;

/// A PUBLISH of this connection that has not had its PUBACK or PUBREC.
#[derive(Debug)]
struct Waiting {
    token: PublishToken,
    packet_id: PacketId,
    qos: QoS,
    outcome: Option<PublishOutcome>,
}

/// A QoS 2 message between PUBLISH and PUBREL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    /// The broker has not answered.
    Publishing(PublishToken),
    /// The broker has it; PUBREL is awaited.
    Received,
}

/// QoS 1 and 2 messages from one client.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Never goes back, so that a late answer cannot be mistaken for another's.
    next_token: u64,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    /// QoS 2 messages whose PUBREL has not come.
    awaiting_rel: AHashMap<PacketId, Exchange>,
    /// QoS 2 messages of an earlier connection that the broker has not answered for.
    orphans: AHashMap<PublishToken, PacketId>,
}

/// What is to be done with a PUBLISH of QoS 1 or 2.
enum Admission {
    /// Hand it to the broker.
    Publish(PublishToken),
    /// It was handed over before.
    Duplicate,
}

impl Inbound {
    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// The connection is gone: nothing of it is acknowledged on the next.
    pub(super) fn detach(&mut self) {
        for waiting in self.waiting.drain(..) {
            if waiting.qos == QoS::ExactlyOnce && waiting.outcome.is_none() {
                self.orphans.insert(waiting.token, waiting.packet_id);
            }
        }
        self.waiting = VecDeque::new();
    }

    /// Exchanges that were begun elsewhere.
    pub(super) fn awaiting(released: Vec<PacketId>) -> Self {
        let received = released.into_iter().map(|id| (id, Exchange::Received));
        Self {
            awaiting_rel: received.collect(),
            ..Self::default()
        }
    }

    /// QoS 2 messages whose PUBREL has not come. The broker has all of them, answered for or not.
    pub(super) fn awaiting_rel(&self) -> impl Iterator<Item = PacketId> {
        self.awaiting_rel.keys().copied()
    }

    /// A clean start: only the tokens go on.
    pub(super) fn forget(&mut self) {
        *self = Self {
            next_token: self.next_token,
            ..Self::default()
        };
    }

    /// Notes a PUBLISH and says whether it is new. Nothing is noted of one that exceeds the client's
    /// quota `[MQTT-3.3.4-7]`; what it sends again does not count.
    fn admit(&mut self, qos: QoS, packet_id: PacketId, has_quota: bool) -> Result<Admission, ReasonCode> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(ReasonCode::ReceiveMaximumExceeded);
        }
        let known = match qos {
            QoS::ExactlyOnce => self.awaiting_rel.get(&packet_id).copied(),
            _ => None,
        };
        let (token, outcome) = match known {
            // Sent twice on one connection: its PUBREC is on the way.
            Some(Exchange::Publishing(token)) if self.position(token).is_some() => {
                return Ok(Admission::Duplicate);
            }
            Some(Exchange::Publishing(token)) => {
                self.orphans.remove(&token);
                (token, None)
            }
            Some(Exchange::Received) => (self.take_token(), Some(PublishOutcome::Taken)),
            None if !has_quota => return Err(ReasonCode::ReceiveMaximumExceeded),
            None => (self.take_token(), None),
        };
        self.waiting.push_back(Waiting {
            token,
            packet_id,
            qos,
            outcome,
        });
        if known.is_some() {
            return Ok(Admission::Duplicate);
        }
        if qos == QoS::ExactlyOnce {
            self.awaiting_rel.insert(packet_id, Exchange::Publishing(token));
        }
        Ok(Admission::Publish(token))
    }

    fn take_token(&mut self) -> PublishToken {
        self.next_token += 1;
        PublishToken(self.next_token)
    }

    /// Where a token waits. Tokens of one connection are consecutive but for what was sent again.
    fn position(&self, token: PublishToken) -> Option<usize> {
        let guess = token.0.wrapping_sub(self.waiting.front()?.token.0) as usize;
        match self.waiting.get(guess) {
            Some(waiting) if waiting.token == token => Some(guess),
            _ => self.waiting.iter().position(|waiting| waiting.token == token),
        }
    }

    /// Notes the broker's answer. `version` decides what a refusal means for a QoS 2 exchange: should that be
    /// over, this was its identifier.
    fn answer(
        &mut self,
        token: PublishToken,
        outcome: PublishOutcome,
        version: ProtocolVersion,
    ) -> Option<PacketId> {
        let packet_id = if let Some(index) = self.position(token) {
            let waiting = &mut self.waiting[index];
            waiting.outcome = Some(outcome);
            (waiting.qos == QoS::ExactlyOnce).then_some(waiting.packet_id)
        } else {
            self.orphans.remove(&token)
        };
        let packet_id = packet_id?;
        if self.awaiting_rel.get(&packet_id) != Some(&Exchange::Publishing(token)) {
            return None;
        }
        if acknowledgement(outcome, version).is_ok_and(|reason| !reason.is_error()) {
            self.awaiting_rel.insert(packet_id, Exchange::Received);
            None
        } else {
            self.awaiting_rel.remove(&packet_id);
            Some(packet_id)
        }
    }

    /// QoS 2 messages that the broker has, and has answered for.
    pub(super) fn received(&self) -> impl Iterator<Item = PacketId> {
        let all = self.awaiting_rel.iter();
        let received = all.filter(|(_, exchange)| **exchange == Exchange::Received);
        received.map(|(packet_id, _)| *packet_id)
    }

    /// PUBREL has come: the identifier is free.
    fn complete(&mut self, packet_id: PacketId) {
        self.awaiting_rel.remove(&packet_id);
        if self.awaiting_rel.is_empty() && self.awaiting_rel.capacity() > IDLE_CAPACITY {
            self.awaiting_rel.shrink_to(IDLE_CAPACITY / 2);
        }
    }

    /// The oldest PUBLISH, if the broker has answered for it.
    fn pop_answered(&mut self) -> Option<(Waiting, PublishOutcome)> {
        let outcome = self.waiting.front()?.outcome?;
        let waiting = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(IDLE_CAPACITY);
        }
        Some((waiting, outcome))
    }
}

/// The reason with which an outcome is acknowledged, or the one for which the connection is closed.
fn acknowledgement(outcome: PublishOutcome, version: ProtocolVersion) -> Result<ReasonCode, ReasonCode> {
    match outcome {
        PublishOutcome::Taken => Ok(ReasonCode::Success),
        PublishOutcome::NoSubscribers if version.is_v5() => Ok(ReasonCode::NoMatchingSubscribers),
        PublishOutcome::NoSubscribers => Ok(ReasonCode::Success),
        PublishOutcome::Refused(reason) if version.is_v5() => Ok(reason),
        PublishOutcome::Refused(reason) if is_for_good(reason) => Ok(ReasonCode::Success),
        PublishOutcome::Refused(reason) => Err(reason),
    }
}

/// Whether sending the same PUBLISH again could never help.
fn is_for_good(reason: ReasonCode) -> bool {
    matches!(
        reason,
        ReasonCode::NotAuthorized
            | ReasonCode::TopicNameInvalid
            | ReasonCode::PayloadFormatInvalid
            | ReasonCode::PacketTooLarge
            | ReasonCode::RetainNotSupported
            | ReasonCode::QoSNotSupported
    )
}

/// Puts the topic name in place of an alias, or remembers the alias `[MQTT-3.3.2-8]` to `[MQTT-3.3.2-12]`.
fn resolve_alias(link: &mut Link, limits: &ClientLimits, publish: &mut Publish) -> Result<(), Refusal> {
    let Some(alias) = publish.properties.topic_alias else {
        return if publish.topic.is_empty() {
            Err(Refusal::protocol_error(
                "PUBLISH without topic name and topic alias",
            ))
        } else {
            Ok(())
        };
    };
    if alias == 0 || alias > limits.topic_alias_max {
        return Err(ReasonCode::TopicAliasInvalid.into());
    }
    if publish.topic.is_empty() {
        let known = link.aliases.as_ref().and_then(|aliases| aliases.get(&alias));
        publish.topic = known
            .ok_or(Refusal::protocol_error("the topic alias has no topic name"))?
            .clone();
    } else {
        link.aliases
            .get_or_insert_default()
            .insert(alias, detached(&publish.topic));
    }
    Ok(())
}

impl Session {
    /// PUBLISH from the client.
    pub(super) fn on_publish(
        &mut self,
        mut publish: Publish,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let State::Attached(link) = &mut self.state else {
            return Ok(());
        };
        if publish.properties.topic_alias.is_some() || publish.topic.is_empty() {
            resolve_alias(link, &self.limits, &mut publish)?;
        }
        let token = match (publish.qos, publish.packet_id) {
            (QoS::AtMostOnce, _) => None,
            // The codec lets none pass; without an identifier it could not be answered.
            (_, None) => return Err(ReasonCode::MalformedPacket.into()),
            (qos, Some(packet_id)) => {
                let inbound = self.inbound.get_or_insert_default();
                let quota = self.limits.receive_maximum.max(1);
                let has_quota = !self.version.is_v5() || link.unacknowledged < quota;
                match inbound.admit(qos, packet_id, has_quota)? {
                    Admission::Duplicate => {
                        out.push(Effect::Count(Counted::Repeated));
                        // The PUBLISH is accounted for: what is wrong with an earlier one is another matter.
                        if let Err(refusal) = self.acknowledge(out) {
                            self.close(refusal, now, out);
                        }
                        return Ok(());
                    }
                    Admission::Publish(token) => {
                        link.unacknowledged = link.unacknowledged.saturating_add(1);
                        Some(token)
                    }
                }
            }
        };
        if !self.limits.allow_topic(&publish.topic) {
            out.push(Effect::Count(Counted::DroppedTopicLimit));
            if let Some(token) = token {
                self.on_published(
                    token,
                    PublishOutcome::Refused(ReasonCode::TopicNameInvalid),
                    now,
                    out,
                );
            }
            return Ok(());
        }
        let exchange = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce);
        let message = Message::from_publish(publish, &self.client_id, now);
        out.push(Effect::Publish {
            token,
            message,
            exchange,
        });
        Ok(())
    }

    /// The broker has answered for a message.
    pub(super) fn on_published(
        &mut self,
        token: PublishToken,
        outcome: PublishOutcome,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some(inbound) = &mut self.inbound else { return };
        let refused = inbound.answer(token, outcome, self.version);
        self.complete(refused, out);
        if let Err(reason) = self.acknowledge(out) {
            self.close(reason, now, out);
        }
    }

    /// The exchange of a message from the client is over; the store, where there is one, is to know.
    fn complete(&self, packet_id: Option<PacketId>, out: &mut Vec<Effect>) {
        if self.is_persistent() && !self.is_ended() {
            out.extend(packet_id.map(Effect::Completed));
        }
    }

    /// Sends the acknowledgements whose turn it is.
    fn acknowledge(&mut self, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let (State::Attached(link), Some(inbound)) = (&mut self.state, &mut self.inbound) else {
            return Ok(());
        };
        while let Some((waiting, outcome)) = inbound.pop_answered() {
            let ack = Ack::with_reason(waiting.packet_id, acknowledgement(outcome, self.version)?);
            if waiting.qos == QoS::AtLeastOnce || ack.reason.is_error() {
                link.unacknowledged = link.unacknowledged.saturating_sub(1);
            }
            let ack = explained(ack);
            out.push(Effect::Send(match waiting.qos {
                QoS::ExactlyOnce => Packet::PubRec(ack),
                _ => Packet::PubAck(ack),
            }));
        }
        Ok(())
    }

    /// PUBREL: the exchange of a QoS 2 message is over.
    pub(super) fn on_pubrel(&mut self, ack: &Ack, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let State::Attached(link) = &mut self.state else {
            return Ok(());
        };
        let packet_id = ack.packet_id;
        let exchange = self
            .inbound
            .as_ref()
            .and_then(|inbound| inbound.awaiting_rel.get(&packet_id));
        let mut exchange_over = false;
        let reason = match exchange {
            // It answers a PUBREC that was never sent.
            Some(Exchange::Publishing(_)) => {
                return Err(Refusal::protocol_error("PUBREL before its PUBREC"));
            }
            Some(Exchange::Received) => {
                exchange_over = true;
                link.unacknowledged = link.unacknowledged.saturating_sub(1);
                ReasonCode::Success
            }
            None => {
                out.push(Effect::Count(Counted::UnknownAck));
                if self.version.is_v5() {
                    ReasonCode::PacketIdentifierNotFound
                } else {
                    ReasonCode::Success
                }
            }
        };
        if let Some(inbound) = &mut self.inbound {
            inbound.complete(packet_id);
        }
        self.complete(exchange_over.then_some(packet_id), out);
        let ack = explained(Ack::with_reason(packet_id, reason));
        out.push(Effect::Send(Packet::PubComp(ack)));
        Ok(())
    }
}
