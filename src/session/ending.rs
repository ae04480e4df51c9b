//! How a connection ends, and how a session ends; what becomes of the will.
//!
//! The will is published whenever the connection ends otherwise than by a DISCONNECT with 0x00
//! `[MQTT-3.1.2-8]`, `[MQTT-3.14.4-3]`: after its delay, or when the session ends, whichever comes
//! first. A session that ends with its connection therefore publishes it at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::event::{Counted, Effect};
use super::refusal::Refusal;
use super::{Session, State};
use crate::mqtt::packet::{Disconnect, Packet, Will};
use crate::mqtt::properties::DisconnectProperties;
use crate::mqtt::reason::ReasonCode;

/// How long a session that would end with its connection waits, after `TakenOver`, for the `Attach`
/// that was announced. Long enough for any backlog of the actor, short enough not to leak.
const TAKEOVER_GRACE: Duration = Duration::from_secs(5);

/// An expiry interval of so many seconds never ends `[MQTT-3.1.2.11.2]`.
const NEVER_S: u32 = u32::MAX;

/// A session without a transport.
#[derive(Debug)]
pub(super) struct Away {
    /// When the session ends; `None` never.
    pub(super) expires_at: Option<Instant>,
    /// The will that the broker was given with a delay.
    will: Option<Box<DelayedWill>>,
}

#[derive(Debug)]
struct DelayedWill {
    will: Arc<Will>,
    /// When the broker publishes it.
    due: Option<Instant>,
}

/// What becomes of the session when its connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Away if it is persistent, else over.
    ByExpiry,
    /// Away in any case: another connection takes it over.
    AwaitTakeover,
    /// Over in any case.
    End,
}

impl Away {
    /// Until it ends; with a will that the broker was given, and when that is due.
    pub(super) fn new(expires_at: Option<Instant>, will: Option<(Arc<Will>, Option<Instant>)>) -> Self {
        let will = will.map(|(will, due)| Box::new(DelayedWill { will, due }));
        Self { expires_at, will }
    }

    /// The will that still waits for its delay, and when it is due.
    pub(super) fn into_delayed_will(self, now: Instant) -> Option<(Arc<Will>, Option<Instant>)> {
        self.delayed_will(now)?;
        self.will.map(|delayed| (delayed.will, delayed.due))
    }

    /// Whether the session has outlived its expiry; the actor's timer may be late.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The will that still waits for its delay, and when it is due.
    pub(super) fn delayed_will(&self, now: Instant) -> Option<(&Arc<Will>, Option<Instant>)> {
        let delayed = self.will.as_ref()?;
        let waits = delayed.due.is_none_or(|due| due > now);
        waits.then_some((&delayed.will, delayed.due))
    }
}

/// The session is over or starts anew: a will that waits for its delay is due now `[MQTT-3.1.2-8]`.
pub(super) fn end_delayed_will(away: Away, now: Instant, out: &mut Vec<Effect>) {
    if away.delayed_will(now).is_none() {
        return;
    }
    if let Some(delayed) = away.will {
        out.push(Effect::CancelWill);
        out.push(Effect::PublishWill {
            will: delayed.will,
            delay_s: 0,
        });
    }
}

impl Session {
    /// Ends the connection because of `reason`; 3.x clients cannot be told it.
    pub(super) fn close(&mut self, refusal: impl Into<Refusal>, now: Instant, out: &mut Vec<Effect>) {
        self.close_then(refusal.into(), None, Then::ByExpiry, now, out);
    }

    /// A connection with the same client id has come `[MQTT-3.1.4-3]`.
    pub(super) fn on_taken_over(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.close_then(
            ReasonCode::SessionTakenOver.into(),
            None,
            Then::AwaitTakeover,
            now,
            out,
        );
    }

    /// The node is being emptied; a 5.0 client is told where to go instead.
    pub(super) fn send_away(
        &mut self,
        reason: ReasonCode,
        server: Option<ByteString>,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        self.close_then(reason.into(), server, Then::ByExpiry, now, out);
    }

    /// The session is to end.
    pub(super) fn on_discard(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.is_attached() {
            self.close_then(ReasonCode::SessionTakenOver.into(), None, Then::End, now, out);
        } else {
            self.end(now, out);
        }
    }

    /// The transport is gone without a word.
    pub(super) fn on_transport_lost(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.detach(true, Then::ByExpiry, now, out);
    }

    /// DISCONNECT: the client goes, and in 5.0 may say how long its session is to stay.
    pub(super) fn on_disconnect(
        &mut self,
        disconnect: &Disconnect,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let State::Attached(link) = &self.state else {
            return Ok(());
        };
        if let Some(asked_s) = disconnect.properties.session_expiry_interval_s {
            // [MQTT-3.14.2.2.2]: what was to end with the connection cannot be made to stay.
            if asked_s > 0 && link.expiry_was_zero {
                let why = "a session that was to end with its connection cannot be kept";
                return Err(Refusal::protocol_error(why));
            }
            self.expiry_interval_s = asked_s.min(self.limits.session_expiry_max_s);
        }
        let publish_will = self.version.is_v5() && disconnect.reason != ReasonCode::Success;
        out.push(Effect::CloseTransport);
        self.detach(publish_will, Then::ByExpiry, now, out);
        Ok(())
    }

    fn close_then(
        &mut self,
        refusal: Refusal,
        server_reference: Option<ByteString>,
        then: Then,
        now: Instant,
        out: &mut Vec<Effect>,
    ) {
        if !self.is_attached() {
            return;
        }
        if self.version.is_v5() {
            let properties = DisconnectProperties {
                reason_string: refusal.reason_string(),
                server_reference,
                ..DisconnectProperties::default()
            };
            out.push(Effect::Send(Packet::Disconnect(Disconnect {
                reason: refusal.reason,
                properties,
            })));
        }
        out.push(Effect::CloseTransport);
        self.detach(true, then, now, out);
    }

    /// Leaves Attached. What belonged to the connection goes with it.
    fn detach(&mut self, publish_will: bool, then: Then, now: Instant, out: &mut Vec<Effect>) {
        let State::Attached(link) = &mut self.state else {
            return;
        };
        let will = link.will.take().filter(|_| publish_will);
        if let Some(inbound) = &mut self.inbound {
            inbound.detach();
        }
        for request in &mut self.requests {
            request.detach();
        }
        let lives_s = if then == Then::End {
            0
        } else {
            self.expiry_interval_s
        };
        let delayed = will.and_then(|will| publish_will_of(will, lives_s, now, out));
        let expires_at = match (lives_s, then) {
            (0, Then::AwaitTakeover) => now.checked_add(TAKEOVER_GRACE),
            (0, _) => return self.end(now, out),
            (NEVER_S, _) => None,
            (seconds, _) => now.checked_add(Duration::from_secs(seconds.into())),
        };
        if let Some(at) = expires_at {
            out.push(Effect::WakeAt(at));
        }
        self.inflight.detach();
        self.state = State::Away(Away::new(expires_at, delayed));
        if then != Then::AwaitTakeover {
            self.queue.shrink(self.head());
        }
    }

    /// The session is over.
    pub(super) fn end(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return,
            State::Away(away) => end_delayed_will(away, now, out),
            State::New | State::Attached(_) => {}
        }
        self.pass_on(None, true, out);
        self.drop_held(out);
        out.push(Effect::End);
    }

    /// Lets go of all messages for the client, and counts them.
    pub(super) fn drop_held(&mut self, out: &mut Vec<Effect>) {
        let unheard = self.inflight.unheard_len();
        self.inflight.clear();
        out.extend(Counted::DroppedUnacknowledged.times(unheard));
        out.extend(Counted::DroppedSessionEnded.times(self.queue.clear()));
    }
}

/// Hands the will to the broker; what has a delay is returned, to be remembered with when it is due.
pub(super) fn publish_will_of(
    will: Arc<Will>,
    session_lives_s: u32,
    now: Instant,
    out: &mut Vec<Effect>,
) -> Option<(Arc<Will>, Option<Instant>)> {
    let delay_s = will
        .properties
        .will_delay_interval_s
        .unwrap_or(0)
        .min(session_lives_s);
    let delayed = (delay_s > 0).then(|| {
        let due = now.checked_add(Duration::from_secs(delay_s.into()));
        (will.clone(), due)
    });
    out.push(Effect::PublishWill { will, delay_s });
    delayed
}
