//! Re-authentication `[MQTT-4.12.1]`: a client that came in by an authentication method proves anew who it
//! is, while everything else goes on.

use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::event::{AuthOutcome, Effect};
use super::refusal::Refusal;
use super::{Session, State};
use crate::mqtt::packet::{Auth, Packet};
use crate::mqtt::properties::AuthProperties;
use crate::mqtt::reason::ReasonCode;

/// How a connection was authenticated, and whether that is being done again.
#[derive(Debug)]
pub(super) struct Method {
    name: ByteString,
    /// Whose turn it is.
    turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is under way.
    Nobody,
    /// The broker thinks.
    Broker,
    /// The client is to answer.
    Client,
}

impl Method {
    /// The method of a CONNECT, if it has one.
    pub(super) fn of(name: Option<&ByteString>) -> Option<Box<Self>> {
        let name = super::connect::detached(name?);
        Some(Box::new(Self {
            name,
            turn: Turn::Nobody,
        }))
    }

    fn packet(&self, reason: ReasonCode, data: Bytes) -> Packet {
        Packet::Auth(Auth {
            reason,
            properties: AuthProperties {
                authentication_method: Some(self.name.clone()),
                authentication_data: Some(data),
                ..AuthProperties::default()
            },
        })
    }
}

impl Session {
    /// AUTH: only with the method of the CONNECT `[MQTT-4.12.0-7]` `[MQTT-4.12.1-1]`, and in its turn.
    pub(super) fn on_auth(&mut self, auth: Auth, out: &mut Vec<Effect>) -> Result<(), Refusal> {
        let State::Attached(link) = &mut self.state else {
            return Ok(());
        };
        let method = link.method.as_mut().ok_or(Refusal::protocol_error(
            "AUTH without an authentication method in CONNECT",
        ))?;
        let properties = auth.properties;
        let begins = match (auth.reason, method.turn) {
            (ReasonCode::ReAuthenticate, Turn::Nobody) => true,
            (ReasonCode::ContinueAuthentication, Turn::Client) => false,
            _ => return Err(Refusal::protocol_error("AUTH out of turn")),
        };
        if properties.authentication_method.as_ref() != Some(&method.name) {
            let why = "AUTH with another method than CONNECT";
            return Err(Refusal::protocol_error(why));
        }
        method.turn = Turn::Broker;
        let data = properties.authentication_data.unwrap_or_default();
        out.push(Effect::Authenticate { begins, data });
        Ok(())
    }

    /// The broker has answered. One that answers a connection that is gone is not heard.
    pub(super) fn on_authenticated(&mut self, outcome: AuthOutcome, now: Instant, out: &mut Vec<Effect>) {
        let State::Attached(link) = &mut self.state else {
            return;
        };
        let Some(method) = link.method.as_mut().filter(|method| method.turn == Turn::Broker) else {
            return;
        };
        match outcome {
            AuthOutcome::Continue(data) => {
                method.turn = Turn::Client;
                out.push(Effect::Send(
                    method.packet(ReasonCode::ContinueAuthentication, data),
                ));
            }
            AuthOutcome::Success(data) => {
                method.turn = Turn::Nobody;
                out.push(Effect::Send(method.packet(ReasonCode::Success, data)));
            }
            AuthOutcome::Failed(reason) => self.close(reason, now, out),
        }
    }
}
