//! The words for retained messages: what sessions and publishers tell the retainer, what it answers.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it
//! Asked by: publishers ([`Retain`]), Session ([`Replay`])
//! Tells:    Session ([`super::session::Retained`])
//! Dies of:  our bugs only

use std::sync::Arc;

use actix::{Actor, Handler, Message as ActixMessage};
use supervisors::{Caster, Context};

use super::session::Retained;
use crate::mqtt::message::Message;
use crate::session::event::SubscribeRequest;

/// Publisher → Retainer: this message was published with the retain flag. An empty payload clears the
/// topic `[MQTT-3.3.1-6]`. Its payload may be a range of a larger read buffer: what is kept is copied.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Retain(pub Arc<Message>);

/// Session → Retainer: these subscriptions are to get what is retained. Answered by batches of
/// deliveries, cast to `to`. Shared subscriptions are not among them `[MQTT-4.8]`.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Replay {
    /// The subscriptions.
    pub requests: Vec<SubscribeRequest>,
    /// The session.
    pub to: Caster<Retained>,
}

/// The retainer.
#[derive(Default)]
pub struct Retainer;

impl Actor for Retainer {
    type Context = Context<Self>;
}

impl Handler<Retain> for Retainer {
    type Result = ();

    fn handle(&mut self, _: Retain, _: &mut Context<Self>) {}
}

impl Handler<Replay> for Retainer {
    type Result = ();

    fn handle(&mut self, _: Replay, _: &mut Context<Self>) {}
}
