//! What the broker does to a session: deliveries, answers, time, and what it should never do.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::input::Input;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{Auth, Packet, RetainHandling, SubscriptionOptions};
use crate::mqtt::properties::AuthProperties;
use crate::mqtt::reason::ReasonCode;
use crate::session::event::{AuthOutcome, Delivery, Event, PublishOutcome, PublishToken};
use crate::sessions::{Bench, TOPICS, packet_id, qos, reason};

impl Bench {
    pub(crate) fn deliver(&mut self, input: &mut Input<'_>) {
        let expiry = input.rarely(3, |input| Duration::from_secs(input.below(20).into()));
        let message = Message {
            topic: TOPICS[usize::from(input.below(4))].into(),
            payload: vec![b'x'; usize::from(input.byte()) * 2].into(),
            qos: qos(input),
            retain: input.flag(),
            pass_through: Bytes::new(),
            expires_at: expiry.map(|left| self.now + left),
            publisher: if input.flag() { "c".into() } else { "other".into() },
        };
        self.handle(Event::Deliver(Delivery {
            message: Arc::new(message),
            options: SubscriptionOptions {
                qos: qos(input),
                no_local: input.flag(),
                retain_as_published: input.flag(),
                retain_handling: RetainHandling::Send,
            },
            subscription_ids: input.rarely(3, |input| 1 + u32::from(input.byte())).into(),
            share: input.rarely(4, |_| NonZeroU64::MIN),
            dup: input.below(8) == 1,
            seq: None,
            from_retained: input.flag(),
        }));
    }

    pub(crate) fn answer_publish(&mut self, input: &mut Input<'_>) {
        let at = usize::from(input.below(3)).min(self.tokens.len().saturating_sub(1));
        let Some((token, id)) = self.tokens.remove(at) else {
            return;
        };
        let outcome = match (input.below(6), reason(input)) {
            (0, reason) if reason.is_error() => {
                self.client.is_refused(id);
                PublishOutcome::Refused(reason)
            }
            (1, _) => PublishOutcome::NoSubscribers,
            _ => PublishOutcome::Taken,
        };
        self.handle(Event::Published { token, outcome });
    }

    pub(crate) fn answer_subscribe(&mut self, input: &mut Input<'_>) {
        if let Some((packet_id, len)) = self.subscribes.pop_front() {
            let reasons = (0..len).map(|_| match reason(input) {
                ReasonCode::Success => [
                    ReasonCode::Success,
                    ReasonCode::GrantedQoS1,
                    ReasonCode::GrantedQoS2,
                ][usize::from(input.below(3))],
                failure => failure,
            });
            self.handle(Event::Subscribed {
                packet_id,
                reasons: reasons.collect(),
            });
        }
    }

    pub(crate) fn answer_unsubscribe(&mut self, input: &mut Input<'_>) {
        if let Some((packet_id, len)) = self.unsubscribes.pop_front() {
            let reasons = (0..len).map(|_| match reason(input) {
                ReasonCode::QuotaExceeded => ReasonCode::NoSubscriptionExisted,
                reason => reason,
            });
            let reasons = reasons.collect();
            self.handle(Event::Unsubscribed { packet_id, reasons });
        }
    }

    pub(crate) fn later(&mut self, input: &mut Input<'_>) {
        let until = self.wake_at.filter(|at| *at > self.now && input.flag());
        self.now = until.unwrap_or(self.now + Duration::from_secs(input.byte().into()));
        self.handle(Event::Wake);
    }

    /// Answers to what was never asked, AUTH out of the blue, and what seldom happens.
    pub(crate) fn nonsense(&mut self, input: &mut Input<'_>) {
        let packet_id = packet_id(input);
        match input.below(8) {
            0 => self.handle(Event::Published {
                token: PublishToken(u64::MAX),
                outcome: PublishOutcome::Taken,
            }),
            1 if self.subscribes.is_empty() => self.handle(Event::Subscribed {
                packet_id,
                reasons: vec![],
            }),
            2 if self.unsubscribes.is_empty() => {
                self.handle(Event::Unsubscribed {
                    packet_id,
                    reasons: vec![],
                });
            }
            3 if self.is_authenticating => {
                self.is_authenticating = false;
                self.handle(Event::Authenticated(match input.below(3) {
                    0 => AuthOutcome::Continue(Bytes::from_static(b"c")),
                    1 => AuthOutcome::Success(Bytes::new()),
                    _ => AuthOutcome::Failed(ReasonCode::NotAuthorized),
                }));
            }
            4 if !self.session.is_attached() => self.handle(Event::PassOn(NonZeroU64::MIN)),
            5 => self.handle(Event::NotRead),
            _ => self.packet(Packet::Auth(Auth {
                reason: if input.flag() {
                    ReasonCode::ReAuthenticate
                } else {
                    ReasonCode::ContinueAuthentication
                },
                properties: AuthProperties {
                    authentication_method: input
                        .rarely(2, |input| if input.flag() { "m" } else { "n" }.into()),
                    ..AuthProperties::default()
                },
            })),
        }
    }
}
