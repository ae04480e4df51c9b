//! How a transport is attached: the answer to CONNECT.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::aliases::AliasesOut;
use super::auth::Method;
use super::event::{Attach, ClientLimits, Effect};
use super::inbound::Aliases;
use super::{Session, State, ending, keepalive};
use crate::mqtt::packet::{ConnAck, Connect, Packet, Will};
use crate::mqtt::properties::ConnAckProperties;
use crate::mqtt::reason::ReasonCode;

/// What lives exactly as long as one transport.
#[derive(Debug)]
pub(super) struct Link {
    /// When the client's latest packet was handled.
    pub(super) last_activity: Instant,
    /// Keep-alive in force, in seconds; 0 is off.
    pub(super) keep_alive_s: u16,
    /// QoS 1 and 2 messages that may be in flight to the client; at least 1.
    pub(super) window: u16,
    /// QoS 1 and 2 messages of the client on this connection without their last acknowledgement.
    pub(super) unacknowledged: u16,
    /// Largest packet that the client accepts, in bytes.
    pub(super) packet_size_max: u32,
    /// Whether CONNECT asked for an expiry of 0: DISCONNECT may then not ask for another.
    pub(super) expiry_was_zero: bool,
    /// Published when the connection ends otherwise than by a normal DISCONNECT.
    pub(super) will: Option<Arc<Will>>,
    /// Topic aliases of the client; made by the first one.
    pub(super) aliases: Option<Box<Aliases>>,
    /// Topic aliases towards the client; only if it allows any.
    pub(super) aliases_out: Option<Box<AliasesOut>>,
    /// The authentication method of its CONNECT; few have one.
    pub(super) method: Option<Box<Method>>,
}

impl Session {
    /// A transport was attached. The old one, should there be any, is taken over first.
    pub(super) fn on_attach(&mut self, attach: Attach, now: Instant, out: &mut Vec<Effect>) {
        self.on_taken_over(now, out);
        let Attach {
            connect,
            assigned_client_id,
            limits,
            authentication_data,
        } = attach;
        let session_present = match std::mem::replace(&mut self.state, State::New) {
            State::Ended => {
                self.state = State::Ended;
                return;
            }
            State::New | State::Attached(_) => false,
            State::Away(away) => {
                let resume = !connect.clean_start && self.is_persistent() && !away.is_expired(now);
                if resume {
                    // [MQTT-3.1.3-9]: the client is back in time.
                    if away.delayed_will(now).is_some() {
                        out.push(Effect::CancelWill);
                    }
                } else {
                    self.forget(away, now, out);
                }
                resume
            }
        };
        self.limits = limits;
        self.version = connect.version;
        let asked_expiry_s = asked_expiry_s(&connect, &limits);
        self.expiry_interval_s = asked_expiry_s.min(limits.session_expiry_max_s);
        let keep_alive_s = keepalive::negotiate(&connect, &limits);
        let mut reply = ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: self.announce(&connect, assigned_client_id, asked_expiry_s, keep_alive_s),
        };
        // [MQTT-4.12.0-5]: of the same method as the CONNECT.
        reply.properties.authentication_method = connect.properties.authentication_method.clone();
        reply.properties.authentication_data = authentication_data;
        out.push(Effect::Send(Packet::ConnAck(Box::new(reply))));
        let link = Link::new(connect, &limits, keep_alive_s, now);
        if let Some(deadline) = keepalive::deadline(&link) {
            out.push(Effect::WakeAt(deadline));
        }
        self.state = State::Attached(link);
        self.is_leaving = false;
        self.queue.retry_now();
        if session_present {
            self.resend(now, out);
            self.pump(now, out);
        }
    }

    /// What a 5.0 client is told about the server; 3.x is told nothing.
    fn announce(
        &self,
        connect: &Connect,
        assigned_client_id: bool,
        asked_expiry_s: u32,
        keep_alive_s: u16,
    ) -> ConnAckProperties {
        if !connect.version.is_v5() {
            return ConnAckProperties::default();
        }
        let limits = &self.limits;
        ConnAckProperties {
            session_expiry_interval_s: (self.expiry_interval_s != asked_expiry_s)
                .then_some(self.expiry_interval_s),
            receive_maximum: Some(limits.receive_maximum.max(1)),
            maximum_packet_size: Some(limits.packet_size_max),
            assigned_client_identifier: assigned_client_id.then(|| self.client_id.clone()),
            topic_alias_maximum: (limits.topic_alias_max > 0).then_some(limits.topic_alias_max),
            server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
            ..ConnAckProperties::default()
        }
    }

    /// Forgets everything but the name: a clean start, or the session expired unnoticed.
    fn forget(&mut self, away: ending::Away, now: Instant, out: &mut Vec<Effect>) {
        ending::end_delayed_will(away, now, out);
        // Also where it has none: what it had of a store goes with them, and what was delivered to it and not
        // taken yet is not the next one's.
        out.push(Effect::ForgetSubscriptions);
        self.pass_on(None, false, out);
        self.drop_held(out);
        self.subscriptions.clear();
        for request in &mut self.requests {
            request.forget();
        }
        if let Some(inbound) = &mut self.inbound {
            inbound.forget();
        }
    }
}

impl Link {
    fn new(connect: Connect, limits: &ClientLimits, keep_alive_s: u16, now: Instant) -> Self {
        let aliases_out = AliasesOut::new(connect.properties.topic_alias_maximum.unwrap_or(0));
        let expiry_was_zero = connect.properties.session_expiry_interval_s.unwrap_or(0) == 0;
        let method = Method::of(connect.properties.authentication_method.as_ref());
        Self {
            last_activity: now,
            keep_alive_s,
            window: connect
                .properties
                .receive_maximum
                .unwrap_or(u16::MAX)
                .min(limits.inflight_max)
                .max(1),
            unacknowledged: 0,
            packet_size_max: connect.properties.maximum_packet_size.unwrap_or(u32::MAX),
            expiry_was_zero,
            will: connect.will.map(detached_will),
            aliases: None,
            aliases_out,
            method,
        }
    }
}

/// The expiry in seconds that the CONNECT asks for.
///
/// 3.x knows only two: with its connection, or never; never is the longest that the broker allows.
fn asked_expiry_s(connect: &Connect, limits: &ClientLimits) -> u32 {
    match (connect.version.is_v5(), connect.clean_start) {
        (true, _) => connect.properties.session_expiry_interval_s.unwrap_or(0),
        (false, true) => 0,
        (false, false) => limits.session_expiry_max_s,
    }
}

/// A copy that does not keep the frame alive from which the string came.
pub(super) fn detached(string: &ByteString) -> ByteString {
    ByteString::from(string.to_string())
}

/// A copy of a will that does not keep its CONNECT's frame alive: it may be held for days.
fn detached_will(mut will: Will) -> Arc<Will> {
    will.topic = detached(&will.topic);
    will.payload = Bytes::copy_from_slice(&will.payload);
    will.properties.publish.pass_through = Bytes::copy_from_slice(&will.properties.publish.pass_through);
    Arc::new(will)
}

/// What holds before the first `Attach`.
pub(super) fn default_limits() -> ClientLimits {
    ClientLimits {
        topic_alias_max: 0,
        session_expiry_max_s: 0,
        ..ClientLimits::default()
    }
}
