//! Carrying out what the session's value causes, in order.
//!
//! What is sent here is written by the turn that follows: actix polls a turn after each message that an
//! actor handled, and an answer of the router asks for one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{ActorFutureExt, AsyncContext};
use bytestring::ByteString;
use futures_util::future::Either;
use supervisors::Context;

use super::Session;
use super::access::with_refused;
use super::keeping::Gated;
use super::replay::Replays;
use crate::broker::confirm::confirmed;
use crate::broker::mail::{FilterId, PortId};
use crate::broker::port::Parting;
use crate::broker::publish::{Holds, Publisher};
use crate::broker::retainer;
use crate::broker::router::{Subscribe, Unsubscribe};
use crate::mqtt::codec::EncodeError;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{Packet, PacketId};
use crate::mqtt::reason::ReasonCode;
use crate::session::event::{Effect, Event, PublishOutcome, PublishToken, SubscribeRequest, Transmit};

/// First pause before a request is asked again of a router that is being restarted; it grows tenfold.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(5);

/// Times that a request is asked: the router's restart takes a few milliseconds.
const ASKS_MAX: u32 = 40;

/// A request to the router that has not been answered.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Subscribe {
        packet_id: PacketId,
        requests: Vec<SubscribeRequest>,
        /// Filters that the client may not subscribe to, if there are any: one flag for each filter, asked
        /// for or not.
        refused: Vec<bool>,
    },
    Unsubscribe {
        packet_id: PacketId,
        filters: Vec<ByteString>,
    },
    /// Subscriptions that the session had on another node; the value has them already.
    Restore { requests: Vec<SubscribeRequest> },
}

impl Session {
    pub(super) fn carry_out(&mut self, effect: Effect, now: Instant, ctx: &mut Context<Self>) {
        match effect {
            Effect::Transmit(transmit) => self.transmit(&transmit),
            Effect::Send(packet @ (Packet::PubRel(_) | Packet::PubComp(_))) => {
                self.when_safe(Gated::Send(packet), ctx);
            }
            Effect::Send(packet) => self.send(&packet),
            Effect::Publish {
                token,
                message,
                exchange,
            } => self.publish(token, exchange, &message),
            Effect::Exchange(seq, exchange) => self.note_exchange(seq, exchange),
            Effect::Settled(seq) => self.note_settled(seq),
            Effect::Completed(packet_id) => self.note_completed(packet_id),
            Effect::Subscribe {
                packet_id,
                mut requests,
            } => {
                let refused = self.sift(&mut requests);
                let ask = Ask::Subscribe {
                    packet_id,
                    requests,
                    refused,
                };
                self.ask(ask, ctx);
            }
            Effect::Authenticate { begins, data } => {
                let outcome = self.reauthenticate(begins, &data);
                self.handle(Event::Authenticated(outcome), now, ctx);
            }
            Effect::Unsubscribe { packet_id, filters } => {
                self.ask(Ask::Unsubscribe { packet_id, filters }, ctx);
            }
            Effect::ForgetSubscriptions => self.change_port(),
            Effect::CloseTransport => self.close_wire(ctx),
            Effect::Fetch {
                from,
                last,
                len,
                bytes,
            } => self.fetch(from, last, len, bytes, ctx.myself().caster()),
            Effect::PublishWill { will, delay_s } => self.publish_will(will, delay_s, now),
            Effect::CancelWill => self.cancel_will(),
            Effect::PassOn { share, message, dup } => {
                self.seat.put_down();
                self.seat.office.pass_on(FilterId(share.get()), &message, dup);
            }
            Effect::WakeAt(instant) => self.wake_at = Some(instant),
            Effect::Count(counted) => self.seat.count(counted),
            Effect::CountTimes(counted, times) => (0..times).for_each(|_| self.seat.count(counted)),
            Effect::End => self.end(ctx),
        }
    }

    fn transmit(&mut self, transmit: &Transmit) {
        let counters = self.seat.office.counters();
        let sent = self.wire.as_mut().map(|wire| wire.transmit(transmit));
        if let Some(Ok(_)) = sent {
            counters.publishes_sent.one();
            counters.payload_sent.add(transmit.message.payload.len() as u64);
        }
        if transmit.packet_id.is_none() {
            // That was its end; at QoS 1 and 2 the value tells it.
            self.seat.put_down();
            match sent {
                Some(Ok(_)) => counters.delivered.one(),
                Some(Err(EncodeError::PacketTooLarge { .. })) => counters.dropped_too_large.one(),
                Some(Err(_)) => counters.dropped_unencodable.one(),
                None => counters.dropped_qos0_offline.one(),
            }
        }
        self.note_unsent(sent);
    }

    pub(super) fn send(&mut self, packet: &Packet) {
        let Some(wire) = &mut self.wire else { return };
        let sent = wire.send(packet);
        self.seat.office.counters().packets_sent.one();
        self.note_unsent(Some(sent));
    }

    /// What cannot be encoded counts as sent `[MQTT-3.1.2-25]`; anything but its size is a bug of ours.
    fn note_unsent(&self, sent: Option<Result<usize, EncodeError>>) {
        match sent {
            Some(Err(error)) if !matches!(error, EncodeError::PacketTooLarge { .. }) => {
                tracing::error!(client = %self.value.client_id(), %error, "a packet could not be encoded");
            }
            _ => {}
        }
    }

    fn publish(&mut self, token: Option<PublishToken>, exchange: Option<PacketId>, message: &Arc<Message>) {
        if !self.may_publish(&message.topic) {
            self.seat.published();
            if let Some(token) = token {
                let refused = PublishOutcome::Refused(ReasonCode::NotAuthorized);
                self.seat.port.taken.borrow_mut().push((token, refused));
            }
            return;
        }
        let port = &self.seat.port;
        let publisher = token.map(|token| Publisher {
            port,
            token,
            exchange,
        });
        let outcome = self.seat.office.publish(message, publisher, &mut self.holds);
        self.seat.published();
        if let (Some(token), Some(outcome)) = (token, outcome) {
            port.taken.borrow_mut().push((token, outcome));
        }
    }

    /// A clean start in place: with a new port the session has no rows, no deliveries and no receipts.
    fn change_port(&mut self) {
        self.note_end();
        let office = &self.seat.office;
        let fresh = office.open_port(self.seat.port.client_id.clone());
        office.close_port(&self.seat.port, Parting::Ended);
        office.set_online(&fresh, self.wire.is_some());
        self.seat.port = fresh;
        self.holds = Holds::default();
        // The one that is being asked finds the old port closed; the value ignores its answer.
        self.asks.clear();
        self.replays = Replays::default();
    }

    pub(super) fn ask(&mut self, ask: Ask, ctx: &mut Context<Self>) {
        self.asks.push_back(ask);
        self.ask_next(ctx);
    }

    fn ask_next(&mut self, ctx: &mut Context<Self>) {
        if self.asking {
            return;
        }
        let Some(ask) = self.asks.pop_front() else {
            // An idle session keeps no room for requests.
            self.asks = VecDeque::new();
            return;
        };
        self.asking = true;
        self.ask_router(ask, 1, ctx);
    }

    fn ask_router(&mut self, ask: Ask, times: u32, ctx: &mut Context<Self>) {
        let (router, port) = (&self.seat.office.tables().names.router, self.seat.port.id);
        let asked = ask.clone();
        let answer = match asked {
            Ask::Subscribe { requests, .. } | Ask::Restore { requests } => {
                let asked = router.call(Subscribe { port, requests });
                Either::Left(confirmed(self.seat.office.clone(), asked))
            }
            Ask::Unsubscribe { filters, .. } => Either::Right(router.call(Unsubscribe { port, filters })),
        };
        ctx.spawn(
            answer
                .into_actor(self)
                .map(move |answer, session, ctx| match answer {
                    Ok(reasons) => session.answered(ask, reasons, port, ctx),
                    // The same rows again: a join replaces, a leave of what is gone is harmless.
                    Err(_) if times < ASKS_MAX && session.seat.port.id == port => {
                        ctx.run_later(ASK_AGAIN_AFTER * times.min(10), move |session, ctx| {
                            session.ask_router(ask, times + 1, ctx)
                        });
                    }
                    Err(_) => {
                        let count = match &ask {
                            Ask::Subscribe { requests, .. } | Ask::Restore { requests } => requests.len(),
                            Ask::Unsubscribe { filters, .. } => filters.len(),
                        };
                        session.answered(ask, vec![ReasonCode::UnspecifiedError; count], port, ctx);
                    }
                }),
        );
    }

    fn answered(&mut self, ask: Ask, reasons: Vec<ReasonCode>, port: PortId, ctx: &mut Context<Self>) {
        self.asking = false;
        // What was asked before a clean start is of a session that is no more.
        if port == self.seat.port.id {
            self.note_answer(&ask, &reasons);
        }
        self.when_safe(Gated::Answer(ask, reasons), ctx);
        self.seat.port.wake.wake();
        self.ask_next(ctx);
    }

    /// Tells the value what the router has answered.
    pub(super) fn tell_answer(&mut self, ask: Ask, reasons: Vec<ReasonCode>, ctx: &mut Context<Self>) {
        let now = Instant::now();
        match ask {
            Ask::Restore { .. } => {
                let more = |ask: &Ask| matches!(ask, Ask::Restore { .. });
                if !self.asks.iter().any(more) {
                    self.settled(ctx);
                }
            }
            Ask::Unsubscribe { packet_id, .. } => {
                self.handle(Event::Unsubscribed { packet_id, reasons }, now, ctx);
            }
            Ask::Subscribe {
                packet_id,
                requests,
                refused,
            } => {
                let granted = requests
                    .into_iter()
                    .zip(&reasons)
                    .filter(|(_, reason)| !reason.is_error());
                let replayed = granted.map(|(request, _)| request);
                let requests: Vec<_> = replayed.filter(|request| request.send_retained).collect();
                let reasons = with_refused(&refused, reasons);
                self.handle(Event::Subscribed { packet_id, reasons }, now, ctx);
                if !requests.is_empty() {
                    let to = ctx.myself().caster();
                    let request = retainer::Request::Replay { requests, to };
                    retainer::ask(self.seat.office.tables(), request);
                }
            }
        }
    }
}
