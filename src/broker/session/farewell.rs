//! A client is sent to another server: the node is being emptied.

use std::time::Instant;

use actix::{Handler, Message};
use bytestring::ByteString;
use supervisors::Context;

use super::Session;
use crate::mqtt::reason::ReasonCode;
use crate::session::event::Event;

/// Operator → Session: end the connection, and say where to go. The session lives on if it is persistent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct SendAway {
    /// 0x9C or 0x9D with a reference, else 0x8B.
    pub reason: ReasonCode,
    /// The Server Reference.
    pub server: Option<ByteString>,
}

impl Handler<SendAway> for Session {
    type Result = ();

    fn handle(&mut self, SendAway { reason, server }: SendAway, ctx: &mut Context<Self>) {
        self.handle(Event::SendAway { reason, server }, Instant::now(), ctx);
        self.seat.port.wake.wake();
    }
}
