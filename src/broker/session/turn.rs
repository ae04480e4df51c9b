//! One wake-up of a session: take receipts, read all there is (up to a budget), take deliveries, write
//! once. Nothing here waits.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Cx, Poll};
use std::time::Instant;

use actix::fut::ActorFuture;
use supervisors::Context;

use super::Session;
use crate::broker::poison::Fingerprint;
use crate::limits::{OUTBOX_BYTES_MAX, SESSION_QUEUE_LEN_MAX};
use crate::mqtt::packet::{Packet, QoS};
use crate::mqtt::reason::ReasonCode;
use crate::session::event::{Counted, Event};

/// Bytes that a session reads in one wake-up before its neighbours have their turn.
const READ_BUDGET: usize = 32 << 10;

/// Packets that a session handles in one wake-up: 32 KiB of the shortest are 4,000, for which its neighbours
/// would wait long.
const PACKETS_PER_TURN: usize = 512;

/// Deadlines that may pass in one wake-up; more are the next one's.
const WAKES_PER_TURN: usize = 4;

/// The future by which a session is woken; ends with it.
pub(super) struct Turns;

impl ActorFuture<Session> for Turns {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session,
        ctx: &mut Context<Session>,
        cx: &mut Cx<'_>,
    ) -> Poll<()> {
        session.seat.port.wake.register(cx);
        let now = Instant::now();
        session.seat.renew_rights();
        session.take_receipts(now, ctx);
        session.take_safe(ctx);
        let unread = session.read(now, ctx, cx);
        // Of what was just published: nobody subscribed, or only other nodes.
        session.take_receipts(now, ctx);
        let more = session.replay(now, ctx);
        session.take_deliveries(now, ctx);
        session.watch_clock(now, ctx, cx);
        let drained = session.flush(now, ctx, cx);
        if unread || more || drained {
            session.seat.port.wake.wake();
        }
        let value = &session.value;
        let inflight = value.held_len() - value.queue_len();
        session
            .seat
            .tell_held(value.subscriptions_len(), value.queue_len(), inflight);
        if session.ended {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Session {
    fn take_receipts(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if self.seat.port.taken.borrow().is_empty() {
            return;
        }
        let taken = self.seat.port.taken.take();
        for (token, outcome) in &taken {
            self.handle(
                Event::Published {
                    token: *token,
                    outcome: *outcome,
                },
                now,
                ctx,
            );
        }
    }

    /// Reads until the socket is empty, the budget is used up (true: there may be more), or this session
    /// must wait: for a desk, a link or the mail that it publishes to, or for its own client to read.
    fn read(&mut self, now: Instant, ctx: &mut Context<Self>, cx: &mut Cx<'_>) -> bool {
        let (mut budget, mut packets) = (READ_BUDGET, PACKETS_PER_TURN);
        self.unread = self.is_held_back();
        if self.unread {
            return false;
        }
        loop {
            if self.is_braked(now, cx) || self.holds.is_held(&self.seat.office, cx.waker()) {
                self.unread = true;
                return false;
            }
            if !self.handle_packets(&mut packets, now, ctx) {
                if packets == 0 {
                    return true;
                }
                // A rate that is used up wakes this turn when it may go on.
                self.unread = self.is_braked(now, cx);
                return false;
            }
            if budget == 0 {
                return true;
            }
            let Some(wire) = &mut self.wire else { return false };
            match wire.poll_read(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(len)) if len > 0 => {
                    budget = budget.saturating_sub(len);
                    if let Some(brake) = &mut self.brake {
                        brake.throttle.read(len, now);
                    }
                    self.seat.office.counters().bytes_received.add(len as u64);
                }
                Poll::Ready(_) => {
                    self.lose_wire(now, ctx);
                    return false;
                }
            }
        }
    }

    /// Handles every whole packet that was read, up to a budget; false when no more may be read now.
    fn handle_packets(&mut self, budget: &mut usize, now: Instant, ctx: &mut Context<Self>) -> bool {
        loop {
            let Some(wire) = &mut self.wire else { return false };
            if *budget == 0 || wire.output.len() > OUTBOX_BYTES_MAX || !self.value.wants_input() {
                return false;
            }
            if self
                .brake
                .as_ref()
                .is_some_and(|brake| brake.throttle.until(now).is_some())
            {
                return false;
            }
            match wire.next_packet() {
                Ok(None) => return true,
                Ok(Some(packet)) => {
                    *budget -= 1;
                    let counters = self.seat.office.counters();
                    counters.packets_received.one();
                    if let Packet::Publish(publish) = &packet {
                        self.seat.publishing();
                        counters.payload_received.add(publish.payload.len() as u64);
                        if let Some(brake) = &mut self.brake {
                            brake.throttle.published(now);
                        }
                    }
                    self.seat.in_hand = Fingerprint::of(&packet);
                    if self.is_poison() {
                        self.refuse_poison(&packet, now, ctx);
                        return false;
                    }
                    #[cfg(test)]
                    crate::broker::poison::fall_over(&packet);
                    self.handle(Event::Packet(packet), now, ctx);
                    self.seat.in_hand = None;
                }
                Err(error) => {
                    tracing::debug!(client = %self.value.client_id(), %error, "malformed packet");
                    self.handle(Event::Malformed(error.reason), now, ctx);
                    return false;
                }
            }
        }
    }

    /// Whether earlier sessions of this client have fallen over the packet in hand, and too often.
    fn is_poison(&self) -> bool {
        let (Some(suspect), Some(packet)) = (self.suspect, self.seat.in_hand) else {
            return false;
        };
        suspect.is_poison(packet)
    }

    fn refuse_poison(&mut self, packet: &Packet, now: Instant, ctx: &mut Context<Self>) {
        self.seat.in_hand = None;
        self.seat.office.counters().packets_poisonous.one();
        if matches!(packet, Packet::Publish(_)) {
            self.seat.office.counters().dropped_poisonous.one();
            self.seat.published();
        }
        let client = self.value.client_id();
        let what = match packet {
            Packet::Publish(publish) => format!("PUBLISH to {:?}", publish.topic),
            Packet::Subscribe(subscribe) => format!("SUBSCRIBE to {:?}", subscribe.filters[0].0),
            _ => "UNSUBSCRIBE".to_owned(),
        };
        tracing::error!(%client, "refused a {what} over which the client's session has crashed twice");
        self.handle(Event::Kick(ReasonCode::ImplementationSpecificError), now, ctx);
    }

    /// Whether deliveries stay in the inbox, where they pause their Topics, until the client has taken
    /// more of what it was sent.
    pub(super) fn is_full(&self) -> bool {
        let (pinned, _) = self.value.queue_pinned();
        let queue_full = pinned >= SESSION_QUEUE_LEN_MAX / 2;
        self.wire
            .as_ref()
            .is_some_and(|wire| wire.output.len() >= OUTBOX_BYTES_MAX || queue_full)
    }

    fn take_deliveries(&mut self, now: Instant, ctx: &mut Context<Self>) {
        loop {
            let full = self.is_full();
            if self.moving.holds() {
                return;
            }
            if full && !self.seat.port.is_slow() {
                return;
            }
            let Some(delivery) = self.seat.port.pop() else {
                return;
            };
            if full && delivery.message.qos.min(delivery.options.qos) == QoS::AtMostOnce {
                self.seat.office.counters().count(Counted::DroppedSlowConsumer);
                continue;
            }
            self.take_delivery(delivery, now, ctx);
        }
    }

    /// Arms the one timer lazily: a deadline that moves on (keep-alive does with each packet) costs
    /// nothing until the old one has passed.
    fn watch_clock(&mut self, now: Instant, ctx: &mut Context<Self>, cx: &mut Cx<'_>) {
        for _ in 0..WAKES_PER_TURN {
            let Some(wake_at) = self.wake_at else {
                self.timer = None;
                return;
            };
            if wake_at <= now {
                self.wake_at = None;
                self.wake_value(now, ctx);
                continue;
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(wake_at.into())));
            if timer.deadline().into_std() > wake_at {
                timer.as_mut().reset(wake_at.into());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
            if timer.deadline().into_std() >= wake_at {
                self.wake_at = None;
                self.wake_value(now.max(wake_at), ctx);
            } else {
                timer.as_mut().reset(wake_at.into());
            }
        }
        self.seat.port.wake.wake();
    }

    fn wake_value(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if self.unread {
            self.handle(Event::NotRead, now, ctx);
        }
        let away = self.wire.is_none();
        self.handle(Event::Wake, now, ctx);
        if away && self.ended {
            self.seat.office.counters().sessions_expired.one();
        }
    }

    /// The one write of this turn. True when deliveries were held back and there is room for them now.
    fn flush(&mut self, now: Instant, ctx: &mut Context<Self>, cx: &mut Cx<'_>) -> bool {
        let was_full = self.is_full();
        let held_back = self.is_held_back();
        let Some(wire) = &mut self.wire else {
            return self.tell_weight(0, true);
        };
        if held_back {
            let left = wire.output.len();
            return self.tell_weight(left, true);
        }
        match wire.flush(cx) {
            Ok(written) => {
                let left = wire.output.len();
                self.seat.office.counters().bytes_sent.add(written as u64);
                let released = self.tell_weight(left, written > 0);
                released || was_full && !self.is_full()
            }
            Err(_) => {
                self.lose_wire(now, ctx);
                true
            }
        }
    }

    /// Tells the port what is held back; what it paused goes on when that has shrunk.
    fn tell_weight(&mut self, outbox_bytes: usize, moved: bool) -> bool {
        let port = &self.seat.port;
        // What lies on the disk waits there and throttles nobody.
        let (_, pinned) = self.value.queue_pinned();
        let queued = if self.wire.is_some() { pinned } else { 0 };
        port.set_outbox(outbox_bytes + queued, moved, self.is_full());
        let drained = port.has_drained();
        if drained {
            port.not_slow();
            self.seat.office.let_go(port);
        }
        drained
    }
}
