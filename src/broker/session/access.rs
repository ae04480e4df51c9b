//! What this client may do: its rights are asked here, on the way from its packets to the broker and from
//! the broker to its packets. A session that no rule binds pays for one look at an empty option.

use std::time::{Duration, Instant, SystemTime};

use actix::{AsyncContext, SpawnHandle};
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::Context;

use super::Session;
use super::seat::PortSeat;
use crate::access::acl::Action;
use crate::access::identity::{Denial, Identity};
use crate::access::scram::Exchange;
use crate::mqtt::packet::Will;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic;
use crate::session::event::{AuthOutcome, Delivery, SubscribeRequest};
use crate::session::lasting::Guest;

/// Who the client is, and what it is proving.
#[derive(Default)]
pub(super) struct Entry {
    /// The user that it proved to be.
    pub(super) username: Option<ByteString>,
    /// What is noted of it in the store.
    pub(super) guest: Option<Guest>,
    /// A re-authentication whose challenge was sent.
    exchange: Option<Box<Exchange>>,
    /// Fires when what it proved is no longer true.
    expiry: Option<SpawnHandle>,
}

impl PortSeat {
    /// Whether the client may do something with a topic.
    fn allows(&mut self, action: Action, topic: &str) -> bool {
        // What the broker says of itself comes from nobody else, whatever the rules are.
        if action == Action::Write && topic::is_reserved(topic) {
            return false;
        }
        self.rights
            .as_mut()
            .is_none_or(|rights| rights.allow(action, topic))
    }

    /// Whether a will may be published: asked when its connection ends, as mosquitto and EMQX do, also of
    /// one that is published later. One that may not is counted.
    pub(super) fn allows_will(&mut self, will: &Will) -> bool {
        let allowed = self.would_allow_will(will);
        if !allowed {
            self.office.counters().injected.one();
            self.office.counters().dropped_not_authorized.one();
        }
        allowed
    }

    /// The same by the rules of now, and not counted.
    pub(super) fn would_allow_will(&mut self, will: &Will) -> bool {
        self.renew_rights();
        self.allows(Action::Write, &will.topic)
    }

    /// Takes over the rules of the last reload.
    pub(super) fn renew_rights(&mut self) {
        if let Some(rights) = &mut self.rights {
            self.office.tables().keyring.renew(rights);
        }
    }
}

impl Session {
    /// A client has come in.
    pub(super) fn enter(&mut self, identity: Identity, listener: ByteString, ctx: &mut Context<Self>) {
        let keyring = &self.seat.office.tables().keyring;
        self.seat.rights = keyring.rights(&identity, self.value.client_id());
        if let Some(expiry) = self.entry.expiry.take() {
            ctx.cancel_future(expiry);
        }
        let expiry = identity.expires_at_s.map(|at_s| {
            let now_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_secs());
            let left = Duration::from_secs(at_s.saturating_sub(now_s));
            ctx.run_later(left, |session, ctx| {
                tracing::info!(client = %session.value.client_id(), "its token is over; disconnected");
                session.kick(ReasonCode::NotAuthorized, ctx);
            })
        });
        // A copy: the original keeps the frame of the CONNECT alive.
        let username = identity.username.map(|name| ByteString::from(&*name));
        self.entry = Entry {
            guest: Some(Guest {
                username: username.clone(),
                is_unbound: identity.superuser || identity.acl.is_some(),
                listener,
            }),
            username,
            exchange: None,
            expiry,
        };
    }

    /// It has come back from the store, and this was its client: it has the rights of that user by the rules
    /// of now. Rules that the client brought along came with its token, and are not stored: until it is back
    /// with another one, what it subscribed to by the old one is what it gets.
    pub(super) fn recognise(&mut self, guest: Option<&Guest>) {
        let identity = Identity {
            username: guest.and_then(|guest| guest.username.clone()),
            superuser: guest.is_some_and(|guest| guest.is_unbound),
            ..Identity::default()
        };
        let keyring = &self.seat.office.tables().keyring;
        self.seat.rights = keyring.rights(&identity, self.value.client_id());
        self.entry.username = identity.username;
        self.entry.guest = guest.cloned();
    }

    /// Whether its will is to be stored. Where its rules are, too, that is asked when it is found again.
    pub(super) fn may_note_will(&mut self, will: &Will) -> bool {
        let unbound = self.entry.guest.as_ref().is_some_and(|guest| guest.is_unbound);
        !unbound || self.seat.would_allow_will(will)
    }

    /// Whether the client may publish to a topic; what it may not at QoS 0 is dropped and counted. (At QoS
    /// 1 and 2 it is told in 5.0, and acknowledged and dropped in 3.x, as mosquitto does.)
    pub(super) fn may_publish(&mut self, topic: &str) -> bool {
        let allowed = self.seat.allows(Action::Write, topic);
        if !allowed {
            self.seat.office.counters().dropped_not_authorized.one();
        }
        allowed
    }

    /// A message that matched, if the client may have it; what it may not is dropped and counted.
    pub(super) fn take_delivery(&mut self, delivery: Delivery, now: Instant, ctx: &mut Context<Self>) {
        self.seat.take_up();
        let seq = delivery.seq;
        if self.seat.allows(Action::Read, &delivery.message.topic) {
            self.deliver(delivery, now, ctx);
        } else {
            self.seat.put_down();
            self.seat.office.counters().dropped_unreadable.one();
            if let Some(seq) = seq {
                self.note_settled(seq);
            }
        }
    }

    /// Takes out of a SUBSCRIBE what the client may not subscribe to: one `true` per filter that was taken.
    /// Empty if all may stay.
    pub(super) fn sift(&mut self, requests: &mut Vec<SubscribeRequest>) -> Vec<bool> {
        self.seat.renew_rights();
        let Some(rights) = &self.seat.rights else {
            return Vec::new();
        };
        let refused: Vec<bool> = requests
            .iter()
            .map(|request| !rights.allow_subscription(&request.filter))
            .collect();
        if !refused.contains(&true) {
            return Vec::new();
        }
        let mut each = refused.iter();
        requests.retain(|_| !each.next().is_some_and(|refused| *refused));
        refused
    }

    /// A step of a re-authentication. SCRAM's server has nothing to wait for, so the answer is there at once.
    pub(super) fn reauthenticate(&mut self, begins: bool, data: &Bytes) -> AuthOutcome {
        match self.prove(begins, data) {
            Ok(outcome) => outcome,
            Err(denial) => {
                let client = self.value.client_id();
                tracing::info!(%client, %denial, "failed to re-authenticate");
                // A DISCONNECT knows neither 0x86 nor 0x8A nor 0x8C.
                AuthOutcome::Failed(match denial {
                    Denial::Malformed => ReasonCode::ProtocolError,
                    Denial::Busy | Denial::Unavailable => ReasonCode::ServerBusy,
                    _ => ReasonCode::NotAuthorized,
                })
            }
        }
    }

    fn prove(&mut self, begins: bool, data: &Bytes) -> Result<AuthOutcome, Denial> {
        let keyring = &self.seat.office.tables().keyring;
        if begins {
            let (exchange, challenge) = keyring.challenge(None, data)?;
            // It may not become somebody else while it is connected: its session is the first user's.
            if self.entry.username.as_deref() != Some(exchange.username()) {
                return Err(Denial::WrongCredentials);
            }
            self.entry.exchange = Some(Box::new(exchange));
            return Ok(AuthOutcome::Continue(challenge.into()));
        }
        let exchange = self.entry.exchange.take().ok_or(Denial::Malformed)?;
        let (_, signature) = keyring.conclude(None, *exchange, data)?;
        Ok(AuthOutcome::Success(signature.into()))
    }
}

/// The router's reasons with those of filters that were not asked for in their places.
pub(super) fn with_refused(refused: &[bool], reasons: Vec<ReasonCode>) -> Vec<ReasonCode> {
    if refused.is_empty() {
        return reasons;
    }
    let mut granted = reasons.into_iter();
    refused
        .iter()
        .map(|refused| match refused {
            true => ReasonCode::NotAuthorized,
            // The router answers for each; one that it forgot was not granted.
            false => granted.next().unwrap_or(ReasonCode::UnspecifiedError),
        })
        .collect()
}
