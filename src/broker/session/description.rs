//! What a session tells operators of itself.

use actix::{Handler, Message as ActixMessage, MessageResult};
use bytestring::ByteString;
use supervisors::Context;

use super::Session;
use crate::broker::transport::origin::OriginInfo;
use crate::mqtt::packet::ProtocolVersion;
use crate::session::Subscription;

/// Operator → Session: how it is.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "SessionInfo")]
pub struct Describe;

/// Operator → Session: what it has subscribed to, in no order.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "Vec<(ByteString, Subscription)>")]
pub struct ListSubscriptions;

/// How a session is: the answer to [`Describe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its client id.
    pub client_id: ByteString,
    /// The user that its client proved to be; `None` is an anonymous one.
    pub username: Option<ByteString>,
    /// Protocol of the connection, or of the last one.
    pub version: ProtocolVersion,
    /// Whether a transport is attached.
    pub attached: bool,
    /// Where that transport comes from.
    pub origin: Option<OriginInfo>,
    /// Whether it outlives its transport.
    pub persistent: bool,
    /// Filters that it has subscribed to.
    pub subscriptions: usize,
    /// Messages that wait for the client.
    pub queue_len: usize,
    /// Messages sent and not acknowledged.
    pub inflight_len: usize,
    /// Bytes in its inbox, its outbox and its queue.
    pub weight_bytes: usize,
    /// Whether QoS 0 to it is dropped because it does not read.
    pub slow: bool,
}

impl Handler<Describe> for Session {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Context<Self>) -> Self::Result {
        let (value, port) = (&self.value, &self.seat.port);
        MessageResult(SessionInfo {
            client_id: value.client_id().clone(),
            username: self.entry.username.clone(),
            version: value.version(),
            attached: value.is_attached(),
            origin: self.wire.as_ref().map(|wire| wire.origin.describe()),
            persistent: value.is_persistent(),
            subscriptions: value.subscriptions_len(),
            queue_len: value.queue_len(),
            inflight_len: value.inflight_len(),
            weight_bytes: port.weight(),
            slow: port.is_slow(),
        })
    }
}

impl Handler<ListSubscriptions> for Session {
    type Result = MessageResult<ListSubscriptions>;

    fn handle(&mut self, _: ListSubscriptions, _: &mut Context<Self>) -> Self::Result {
        let subscriptions = self.value.subscriptions();
        MessageResult(
            subscriptions
                .map(|(filter, subscription)| (filter.clone(), *subscription))
                .collect(),
        )
    }
}
