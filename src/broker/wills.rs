//! Wills that are due later, and how a will becomes a message.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it
//! Asked by: Session ([`PublishWill`], [`CancelWill`])
//! Tells:    every subscriber (by publishing)
//! Dies of:  our bugs only

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Handler, Message as ActixMessage};
use bytestring::ByteString;
use supervisors::Context;

use crate::mqtt::message::Message;
use crate::mqtt::packet::Will;

/// Session → Wills: publish this will after its delay, unless [`CancelWill`] comes first. One per client
/// id; a later one replaces it. A session publishes a will without delay itself.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct PublishWill {
    /// Whose will.
    pub client_id: ByteString,
    /// The will.
    pub will: Box<Will>,
    /// Seconds from now.
    pub delay_s: u32,
}

/// Session → Wills: the client is back in time.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct CancelWill {
    /// Whose will.
    pub client_id: ByteString,
}

/// The message that a will becomes when it is published. Its expiry counts from then `[MQTT-3.1.3.2.4]`.
#[must_use]
pub fn message_of(will: &Will, publisher: &ByteString, now: Instant) -> Arc<Message> {
    let expiry = will.properties.publish.message_expiry_interval_s;
    Arc::new(Message {
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain,
        pass_through: will.properties.publish.pass_through.clone(),
        expires_at: expiry.and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into()))),
        publisher: publisher.clone(),
    })
}

/// The keeper of delayed wills.
#[derive(Default)]
pub struct Wills;

impl Actor for Wills {
    type Context = Context<Self>;
}

impl Handler<PublishWill> for Wills {
    type Result = ();

    fn handle(&mut self, _: PublishWill, _: &mut Context<Self>) {}
}

impl Handler<CancelWill> for Wills {
    type Result = ();

    fn handle(&mut self, _: CancelWill, _: &mut Context<Self>) {}
}
