//! Floor 2: the session of one client as a value.
//!
//! A session outlives its transports. It is fed [`Event`]s by the actor around it and answers with
//! [`Effect`]s, which the actor carries out in order; it has no clock, no socket and no runtime.
//! Protocol errors are not `Err`: they are answered by effects, as the standard wants them answered.
//!
//! # State × event
//!
//! | | New | Attached | Away | Ended |
//! |---|---|---|---|---|
//! | `Attach` | CONNACK → Attached | `TakenOver`, then as in Away | resume or forget → Attached | – |
//! | `Packet` | – | by packet, below | – | – |
//! | `Malformed` | – | close with its reason | – | – |
//! | `Deliver` | counted | sent, or queued behind the window | QoS 0 counted, others queued | counted |
//! | `Published` | – | acknowledged, in order of arrival | QoS 2 remembered | – |
//! | `Subscribed`, `Unsubscribed` | – | SUBACK, UNSUBACK | noted | – |
//! | `TransportLost` | – | will; → Away, or End | – | – |
//! | `TakenOver` | – | DISCONNECT 0x8E, close, will → Away | – | – |
//! | `SendAway` | – | DISCONNECT with reference, close, will; → Away, or End | – | – |
//! | `Kick` | – | DISCONNECT, close, will; → Away, or End | – | – |
//! | `Discard` | End | DISCONNECT 0x8E, close, will, End | will that is delayed, End | – |
//! | `Authenticated` | – | AUTH, or close | – | – |
//! | `PassOn` | – | – | what is queued, and what was sent at QoS 1, of that group | – |
//! | `Wake` | – | keep-alive over: close 0x8D; else re-armed | expired: End; else re-armed | – |
//! | `Writable` | – | queue flows | – | – |
//! | `NotRead` | – | counts as activity | – | – |
//! | `Fetched` | – | joins the head of the queue, queue flows | the same, or given up again | – |
//! | `FetchFailed` | – | asked again later | asked again later, if it is needed | – |
//!
//! Messages that the store has come with a [`Seq`](lasting::Seq), and a long queue of them is in memory only
//! as far as its head. `Fetch` asks for more of it: while Attached when the head runs low; while Away only
//! when the oldest are to give way to new ones, or the session is to be packed. What becomes of each is told
//! by `Exchange` and `Settled`, of QoS 2 from the client by `Completed`: see [`lasting`].
//!
//! *Resume*: session present, PUBRELs and in-flight messages are sent again, then the queue flows.
//! *Forget*: clean start, expired, or not persistent; the subscriptions are removed, the rest is dropped.
//!
//! | packet (Attached) | answer |
//! |---|---|
//! | PUBLISH QoS 0 | `Publish` |
//! | PUBLISH QoS 1 | `Publish`; PUBACK when `Published` |
//! | PUBLISH QoS 2 | `Publish`, once per exchange; PUBREC when `Published` |
//! | PUBREL | PUBCOMP; unknown id: PUBCOMP 0x92; before its PUBREC: protocol error |
//! | PUBACK | slot freed, queue flows; unknown id: counted; of QoS 2: protocol error |
//! | PUBREC | PUBREL, or slot freed if it refuses; unknown id: PUBREL 0x92; of QoS 1: protocol error |
//! | PUBCOMP | slot freed, queue flows; unknown id: counted; before its PUBREC: protocol error |
//! | SUBSCRIBE | `Subscribe` for what the session accepts; SUBACK when `Subscribed` |
//! | UNSUBSCRIBE | `Unsubscribe` for what the session has; UNSUBACK when `Unsubscribed` |
//! | PINGREQ | PINGRESP |
//! | DISCONNECT | close; will only in 5.0 with a reason other than 0x00; → Away, or End |
//! | AUTH | of the CONNECT's method: `Authenticate`; AUTH when `Authenticated`. Else: protocol error |
//! | CONNECT, server's packets | protocol error |
//!
//! *Close* and *protocol error* are: in 5.0 a DISCONNECT with the reason, then `CloseTransport`; in 3.x
//! `CloseTransport` alone; then the will, then Away or End.

use std::sync::Arc;
use std::time::Instant;

use bytestring::ByteString;

use crate::mqtt::packet::{Packet, ProtocolVersion, Will};

mod aliases;
mod auth;
mod backlog;
mod connect;
mod ending;
pub mod event;
mod inbound;
mod inflight;
mod keepalive;
pub mod lasting;
mod outbound;
mod packing;
mod queue;
mod refusal;
mod stored;
mod subscriptions;

#[cfg(test)]
mod tests;

use connect::Link;
use ending::Away;
use event::{ClientLimits, Counted, Effect, Event};
use inbound::Inbound;
use inflight::Inflight;
pub use outbound::Salvaged;
pub use packing::Unpackable;
use queue::Queue;
use refusal::Refusal;
pub use subscriptions::Subscription;
use subscriptions::{Request, Subscriptions};

/// SUBSCRIBE and UNSUBSCRIBE packets that wait for the router before the session wants no more input.
const REQUESTS_MAX: usize = 64;

/// The session of one client.
///
/// Small when idle: what few sessions need is boxed and made on first use.
#[derive(Debug)]
pub struct Session {
    /// Its name; never changes.
    client_id: ByteString,
    /// Whether a transport is attached, and what lives only as long as that.
    state: State,
    /// Protocol of the latest connection.
    version: ProtocolVersion,
    /// Seconds that the session outlives its transport; 0 not at all, `u32::MAX` for ever.
    expiry_interval_s: u32,
    /// It is to go to another node, or has gone: nothing of its queue is given up to the store.
    is_leaving: bool,
    /// From the latest `Attach`.
    limits: ClientLimits,
    /// What the client has subscribed to.
    subscriptions: Subscriptions,
    /// SUBSCRIBEs and UNSUBSCRIBEs that the router has not answered.
    requests: Vec<Request>,
    /// QoS 1 and 2 messages from the client; made by the first one.
    inbound: Option<Box<Inbound>>,
    /// QoS 1 and 2 messages on their way to the client.
    inflight: Inflight,
    /// QoS 1 and 2 messages that wait for the client or for a slot in flight.
    queue: Queue,
}

/// Where a session is in its life.
#[derive(Debug)]
enum State {
    /// Never attached.
    New,
    /// A transport is attached.
    Attached(Link),
    /// The transport is gone, the session waits for the next.
    Away(Away),
    /// Over; nothing happens any more.
    Ended,
}

impl Session {
    /// A session that was never attached. Until its first [`Event::Attach`] it has the default limits.
    #[must_use]
    pub fn new(client_id: ByteString) -> Self {
        Self {
            // A copy of its own: the CONNECT's frame is not kept alive by a name.
            client_id: connect::detached(&client_id),
            state: State::New,
            version: ProtocolVersion::V3_1_1,
            expiry_interval_s: 0,
            is_leaving: false,
            limits: connect::default_limits(),
            subscriptions: Subscriptions::default(),
            requests: Vec::new(),
            inbound: None,
            inflight: Inflight::default(),
            queue: Queue::default(),
        }
    }

    /// Takes one event and appends what it causes to `out`, in order.
    ///
    /// `now` is taken once per wake-up of the actor; it may stand still between events, and an event
    /// that comes in a state that has no use for it (a packet decoded after the close) is ignored.
    pub fn handle(&mut self, event: Event, now: Instant, out: &mut Vec<Effect>) {
        match event {
            Event::Packet(packet) => self.on_packet(packet, now, out),
            Event::Deliver(delivery) => self.on_deliver(delivery, now, out),
            Event::Published { token, outcome } => self.on_published(token, outcome, now, out),
            Event::Subscribed { packet_id, reasons } => self.on_subscribed(packet_id, &reasons, out),
            Event::Unsubscribed { packet_id, reasons } => self.on_unsubscribed(packet_id, &reasons, out),
            Event::Attach(attach) => self.on_attach(*attach, now, out),
            Event::Malformed(reason) | Event::Kick(reason) => self.close(reason, now, out),
            Event::SendAway { reason, server } => self.send_away(reason, server, now, out),
            Event::TransportLost => self.on_transport_lost(now, out),
            Event::TakenOver => self.on_taken_over(now, out),
            Event::Discard => self.on_discard(now, out),
            Event::Authenticated(outcome) => self.on_authenticated(outcome, now, out),
            Event::PassOn(share) => {
                if matches!(self.state, State::Away(_)) {
                    self.pass_on(Some(share), true, out);
                }
            }
            Event::Wake => self.on_wake(now, out),
            Event::Writable => self.pump(now, out),
            Event::NotRead => self.on_not_read(now),
            Event::Fetched(page) => self.on_fetched(page, now, out),
            Event::FetchFailed => self.on_fetch_failed(now, out),
        }
    }

    fn on_packet(&mut self, packet: Packet, now: Instant, out: &mut Vec<Effect>) {
        let State::Attached(link) = &mut self.state else {
            return;
        };
        link.last_activity = now;
        let is_publish = matches!(packet, Packet::Publish(_));
        let answered = match packet {
            Packet::Publish(publish) => self.on_publish(publish, now, out),
            Packet::PubAck(ack) => self.on_puback(&ack, now, out),
            Packet::PubRec(ack) => self.on_pubrec(&ack, now, out),
            Packet::PubRel(ack) => self.on_pubrel(&ack, out),
            Packet::PubComp(ack) => self.on_pubcomp(&ack, now, out),
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe, out),
            Packet::PingReq => {
                out.push(Effect::Send(Packet::PingResp));
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(&disconnect, now, out),
            Packet::Auth(auth) => self.on_auth(auth, out),
            // A second CONNECT [MQTT-3.1.0-2]; what only a server sends.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => Err(Refusal::protocol_error(
                "a second CONNECT, or a packet that only servers send",
            )),
        };
        if let Err(refusal) = answered {
            if is_publish {
                out.push(Effect::Count(Counted::DroppedProtocolError));
            }
            self.close(refusal, now, out);
        }
    }

    /// Its client identifier.
    #[must_use]
    pub fn client_id(&self) -> &ByteString {
        &self.client_id
    }

    /// Protocol of the connection, or of the last one.
    #[must_use]
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Whether a transport is attached.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached(_))
    }

    /// Whether [`Effect::End`] was given: the value is of no more use.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The will of the client that is connected, if it has one, and after how many seconds it is due once the
    /// connection is gone `[MQTT-3.1.3-9]`.
    #[must_use]
    pub fn will(&self) -> Option<(&Arc<Will>, u32)> {
        let State::Attached(link) = &self.state else {
            return None;
        };
        let will = link.will.as_ref()?;
        let delay_s = will.properties.will_delay_interval_s.unwrap_or(0);
        Some((will, delay_s.min(self.expiry_interval_s)))
    }

    /// Whether the session outlives its transport.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.expiry_interval_s > 0
    }

    /// When a session without a transport ends; `None` while attached, and if it never expires.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        match &self.state {
            State::Away(away) => away.expires_at,
            _ => None,
        }
    }

    /// Whether the transport may be read further. False while too much of what was read waits for the
    /// broker: the actor then stops decoding until an event of the broker has been handled.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        // A 5.0 client that exceeds its Receive Maximum is to be told so: the packet that does is read.
        // 3.x has no such limit, so it is slowed down.
        let waiting_max = usize::from(self.limits.receive_maximum.max(1)) + usize::from(self.version.is_v5());
        let room = self.unanswered_len() < waiting_max;
        let filters = || self.requests.iter().map(Request::len).sum::<usize>();
        room && self.requests.len() < REQUESTS_MAX && filters() <= self.limits.subscriptions_max
    }

    /// Its subscriptions in no particular order.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&ByteString, &Subscription)> {
        self.subscriptions.iter()
    }

    /// Whether it has subscribed to exactly this filter.
    #[must_use]
    pub fn has_subscription(&self, filter: &str) -> bool {
        self.subscriptions.contains(filter)
    }

    /// How many subscriptions it has.
    #[must_use]
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Messages that wait for the client or for a slot in flight, in memory or in the store.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of those messages (see [`crate::mqtt::message::Message::weight`]).
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Of the messages that wait, those that are in memory and may become many: how many, and their bytes.
    /// Where the rest lies in the store alone the head of the queue is none of them: it does not grow.
    #[must_use]
    pub fn queue_pinned(&self) -> (usize, usize) {
        let load = self.queue.pinned();
        (load.len, load.bytes)
    }

    /// Messages sent to the client and not yet fully acknowledged.
    #[must_use]
    pub fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Messages for the client that have not come to their end: those of the queue, and those that were sent
    /// and that the client has not said to have.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.queue.len() + self.inflight.unheard_len()
    }

    /// Messages from the client that wait for the broker's answer.
    #[must_use]
    pub fn unanswered_len(&self) -> usize {
        self.inbound.as_ref().map_or(0, |inbound| inbound.waiting_len())
    }
}
