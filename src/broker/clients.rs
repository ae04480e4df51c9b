//! Client id → session: what sessions tell of themselves.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it
//! Asked by: Session ([`Attached`], [`Detached`], [`Ended`])
//! Tells:    nobody
//! Dies of:  our bugs only

use actix::{Actor, Handler, Message as ActixMessage};
use bytestring::ByteString;
use supervisors::{Context, Pid, Ref};

use super::session::Session;

/// Session → Clients: a transport was attached. The first one tells where the session is.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Attached {
    /// The client id.
    pub client_id: ByteString,
    /// The session.
    pub session: Ref<Session>,
}

/// Session → Clients: the transport is gone, the session waits for the next.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Detached {
    /// The client id.
    pub client_id: ByteString,
    /// The session.
    pub session: Pid,
}

/// Session → Clients: the session is over; its process is about to end. One that crashes does not tell:
/// whoever must know monitors it.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Ended {
    /// The client id.
    pub client_id: ByteString,
    /// The session.
    pub session: Pid,
}

/// The keeper of client ids.
#[derive(Default)]
pub struct Clients;

impl Actor for Clients {
    type Context = Context<Self>;
}

impl Handler<Attached> for Clients {
    type Result = ();

    fn handle(&mut self, _: Attached, _: &mut Context<Self>) {}
}

impl Handler<Detached> for Clients {
    type Result = ();

    fn handle(&mut self, _: Detached, _: &mut Context<Self>) {}
}

impl Handler<Ended> for Clients {
    type Result = ();

    fn handle(&mut self, _: Ended, _: &mut Context<Self>) {}
}
