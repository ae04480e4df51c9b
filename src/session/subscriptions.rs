//! What the client has subscribed to, and the SUBSCRIBEs and UNSUBSCRIBEs on their way.
//!
//! A subscription is written down when it is asked for, so that the next packet already sees it, and
//! taken back if the router refuses it.

use ahash::AHashMap;
use bytestring::ByteString;

use super::connect::detached;
use super::event::{Counted, Effect, SubscribeRequest};
use super::refusal::Refusal;
use super::{Session, State};
use crate::mqtt::packet::{Packet, PacketId, SubAck, Subscribe, SubscriptionOptions, UnsubAck, Unsubscribe};
use crate::mqtt::properties::AckProperties;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::{self, SHARE_PREFIX};

/// From so many on, subscriptions are hashed. Few clients have that many, and a short list is smaller
/// and faster.
const HASHED_FROM: usize = 17;

/// SUBSCRIBEs and UNSUBSCRIBEs that may wait at all; an actor that heeds `wants_input` never gets here.
const WAITING_MAX: usize = 1024;

/// One subscription of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Its options.
    pub options: SubscriptionOptions,
    /// Its Subscription Identifier (5.0).
    pub identifier: Option<u32>,
}

/// Filter → subscription.
#[derive(Debug)]
pub(super) enum Subscriptions {
    Few(Vec<(ByteString, Subscription)>),
    Many(Box<AHashMap<ByteString, Subscription>>),
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ByteString, &Subscription)> {
        let (list, map) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(map) => (None, Some(map)),
        };
        let list = list
            .into_iter()
            .flatten()
            .map(|(filter, subscription)| (filter, subscription));
        list.chain(map.into_iter().flat_map(|map| map.iter()))
    }

    pub(super) fn contains(&self, filter: &str) -> bool {
        match self {
            Self::Few(list) => list.iter().any(|(known, _)| known == filter),
            Self::Many(map) => map.contains_key(filter),
        }
    }

    /// Adds or replaces; returns what stood there.
    pub(super) fn insert(&mut self, filter: ByteString, subscription: Subscription) -> Option<Subscription> {
        if let Self::Few(list) = self {
            if let Some((_, known)) = list.iter_mut().find(|(known, _)| *known == filter) {
                return Some(std::mem::replace(known, subscription));
            }
            if list.len() + 1 < HASHED_FROM {
                if list.is_empty() {
                    list.reserve_exact(1);
                }
                list.push((filter, subscription));
                return None;
            }
            *self = Self::Many(Box::new(list.drain(..).collect()));
        }
        match self {
            Self::Many(map) => map.insert(filter, subscription),
            Self::Few(_) => None,
        }
    }

    fn remove(&mut self, filter: &str) -> Option<Subscription> {
        match self {
            Self::Few(list) => {
                let index = list.iter().position(|(known, _)| known == filter)?;
                Some(list.swap_remove(index).1)
            }
            Self::Many(map) => map.remove(filter),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE that the router has not answered.
#[derive(Debug)]
pub(super) struct Request {
    packet_id: PacketId,
    /// Whether the client still waits: not after its connection was lost.
    is_awaited: bool,
    kind: Kind,
    /// Per filter of the packet, in order; `None` is the router's to fill.
    verdicts: Vec<Option<ReasonCode>>,
}

#[derive(Debug)]
enum Kind {
    /// Filters given to the router, and what each replaced.
    Subscribe(Vec<(ByteString, Option<Subscription>)>),
    Unsubscribe,
}

impl Request {
    /// The connection is gone: its packet identifiers mean nothing on the next.
    pub(super) fn detach(&mut self) {
        self.is_awaited = false;
    }

    /// Filters that it asks about.
    pub(super) fn len(&self) -> usize {
        self.verdicts.len()
    }

    /// The session forgot its past: whatever the answer is, it is about nothing that it has.
    pub(super) fn forget(&mut self) {
        self.is_awaited = false;
        if let Kind::Subscribe(replaced) = &mut self.kind {
            replaced.clear();
        }
    }

    /// All verdicts, the router's filled in. A router that says too little has failed.
    fn filled(&self, answers: &[ReasonCode]) -> Vec<ReasonCode> {
        let mut answers = answers.iter().copied();
        let verdict = |own: &Option<ReasonCode>| {
            own.unwrap_or_else(|| answers.next().unwrap_or(ReasonCode::UnspecifiedError))
        };
        self.verdicts.iter().map(verdict).collect()
    }
}

impl Session {
    /// SUBSCRIBE: what the session accepts goes to the router.
    pub(super) fn on_subscribe(
        &mut self,
        subscribe: Subscribe,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.check_requests()?;
        let Subscribe {
            packet_id,
            properties,
            filters,
        } = subscribe;
        let identifier = properties.subscription_identifier;
        let mut request = SubscribeBatch::default();
        for (filter, options) in filters {
            // What the codec lets pass: a share without name or filter, too many levels.
            if topic::check_filter(&filter).is_err() || !self.limits.allow_topic(&filter) {
                request.verdicts.push(Some(ReasonCode::TopicFilterInvalid));
                continue;
            }
            let new = !self.subscriptions.contains(&filter);
            let full = new && self.subscriptions.len() >= self.limits.subscriptions_max;
            // The same filter a hundred thousand times in one packet is work, but no subscriptions.
            if full || request.accepted.len() >= self.limits.subscriptions_max {
                out.push(Effect::Count(Counted::SubscriptionsRefused));
                request.verdicts.push(Some(ReasonCode::QuotaExceeded));
                continue;
            }
            // Kept for as long as the subscription: not as a part of the frame it came in.
            let filter = detached(&filter);
            let replaced = self
                .subscriptions
                .insert(filter.clone(), Subscription { options, identifier });
            request.verdicts.push(None);
            request.replaced.push((filter.clone(), replaced));
            // MQTT 5.0 §4.8.2: a shared subscription is not greeted with what is retained.
            let send_retained = !filter.starts_with(SHARE_PREFIX)
                && SubscribeRequest::wants_retained(options.retain_handling, new);
            request.accepted.push(SubscribeRequest {
                filter,
                options,
                subscription_identifier: identifier,
                send_retained,
            });
        }
        let SubscribeBatch {
            verdicts,
            replaced,
            accepted,
        } = request;
        let request = Request {
            packet_id,
            is_awaited: true,
            kind: Kind::Subscribe(replaced),
            verdicts,
        };
        if accepted.is_empty() {
            out.push(suback(packet_id, request.filled(&[])));
        } else {
            self.requests.push(request);
            out.push(Effect::Subscribe {
                packet_id,
                requests: accepted,
            });
        }
        Ok(())
    }

    /// The router has answered a SUBSCRIBE.
    pub(super) fn on_subscribed(
        &mut self,
        packet_id: PacketId,
        reasons: &[ReasonCode],
        out: &mut Vec<Effect>,
    ) {
        let is_mine =
            |request: &Request| request.packet_id == packet_id && matches!(request.kind, Kind::Subscribe(_));
        let Some(index) = self.requests.iter().position(is_mine) else {
            return;
        };
        let request = self.requests.remove(index);
        let verdicts = request.filled(reasons);
        let Kind::Subscribe(replaced) = request.kind else {
            return;
        };
        for (index, (filter, before)) in replaced.into_iter().enumerate() {
            let granted = reasons.get(index).is_some_and(|reason| !reason.is_error());
            if granted || !self.subscriptions.contains(&filter) {
                continue;
            }
            match before {
                Some(before) => self.subscriptions.insert(filter, before),
                None => self.subscriptions.remove(&filter),
            };
        }
        self.after_request();
        if request.is_awaited {
            out.push(suback(packet_id, verdicts));
        }
    }

    /// UNSUBSCRIBE: filters that the session has go to the router.
    pub(super) fn on_unsubscribe(
        &mut self,
        unsubscribe: Unsubscribe,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.check_requests()?;
        let Unsubscribe {
            packet_id, filters, ..
        } = unsubscribe;
        let mut verdicts = Vec::with_capacity(filters.len());
        let mut known = Vec::new();
        for filter in filters {
            let is_known = self.subscriptions.remove(&filter).is_some();
            verdicts.push((!is_known).then_some(ReasonCode::NoSubscriptionExisted));
            if is_known {
                known.push(filter);
            }
        }
        let request = Request {
            packet_id,
            is_awaited: true,
            kind: Kind::Unsubscribe,
            verdicts,
        };
        if known.is_empty() {
            out.push(unsuback(packet_id, request.filled(&[])));
        } else {
            self.requests.push(request);
            out.push(Effect::Unsubscribe {
                packet_id,
                filters: known,
            });
        }
        Ok(())
    }

    /// The router has answered an UNSUBSCRIBE.
    pub(super) fn on_unsubscribed(
        &mut self,
        packet_id: PacketId,
        reasons: &[ReasonCode],
        out: &mut Vec<Effect>,
    ) {
        let is_mine =
            |request: &Request| request.packet_id == packet_id && matches!(request.kind, Kind::Unsubscribe);
        let Some(index) = self.requests.iter().position(is_mine) else {
            return;
        };
        let request = self.requests.remove(index);
        self.after_request();
        if request.is_awaited {
            out.push(unsuback(packet_id, request.filled(reasons)));
        }
    }

    fn check_requests(&self) -> Result<(), Refusal> {
        debug_assert!(
            matches!(self.state, State::Attached(_)),
            "packets come from a connection"
        );
        if self.requests.len() < WAITING_MAX {
            Ok(())
        } else {
            Err(ReasonCode::QuotaExceeded.into())
        }
    }

    /// An idle session keeps no room for requests.
    fn after_request(&mut self) {
        if self.requests.is_empty() {
            self.requests = Vec::new();
        }
    }
}

/// A SUBSCRIBE while it is sorted into what goes to the router and what does not.
#[derive(Default)]
struct SubscribeBatch {
    verdicts: Vec<Option<ReasonCode>>,
    replaced: Vec<(ByteString, Option<Subscription>)>,
    accepted: Vec<SubscribeRequest>,
}

fn suback(packet_id: PacketId, reasons: Vec<ReasonCode>) -> Effect {
    // There is one for all filters: why the first that failed did.
    let failed = reasons.iter().find(|reason| reason.is_error());
    let properties = AckProperties {
        reason_string: failed.and_then(|reason| reason.reason_string()),
        ..AckProperties::default()
    };
    Effect::Send(Packet::SubAck(SubAck {
        packet_id,
        properties,
        reasons,
    }))
}

fn unsuback(packet_id: PacketId, reasons: Vec<ReasonCode>) -> Effect {
    Effect::Send(Packet::UnsubAck(UnsubAck {
        packet_id,
        properties: AckProperties::default(),
        reasons,
    }))
}
