//! An application message on its way through the broker, independent of any connection.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;

use super::packet::{Publish, QoS};

/// A message as it was published, shared by all its receivers.
///
/// Built once per PUBLISH; sessions hold `Arc<Message>` in their queues and patch flags and packet
/// identifier when they encode it.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    /// Topic name; never empty, never a filter.
    pub topic: ByteString,
    /// Application payload.
    pub payload: Bytes,
    /// QoS at which it was published.
    pub qos: QoS,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// Pass-through properties as they came (see [`super::properties::PublishProperties`]).
    pub pass_through: Bytes,
    /// When it expires; `None` never. On the local monotonic clock.
    pub expires_at: Option<Instant>,
    /// Client id of the publisher, for No Local and for the trace. Empty for the broker itself.
    pub publisher: ByteString,
}

impl Message {
    /// The message of a PUBLISH whose topic alias is already resolved.
    #[must_use]
    pub fn from_publish(publish: Publish, publisher: &ByteString, now: Instant) -> Arc<Self> {
        let expires_at = publish
            .properties
            .message_expiry_interval_s
            .and_then(|seconds| now.checked_add(std::time::Duration::from_secs(seconds.into())));
        Arc::new(Self {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            pass_through: publish.properties.pass_through,
            expires_at,
            publisher: publisher.clone(),
        })
    }

    /// The same message in storage of its own.
    ///
    /// A decoded message is a range of the buffer that it was read into and keeps all of that alive.
    /// Whoever stores it for long (retained messages, queues of absent clients) stores this instead.
    #[must_use]
    pub fn detached(&self) -> Self {
        let string = |text: &ByteString| ByteString::from(&**text);
        Self {
            topic: string(&self.topic),
            payload: Bytes::copy_from_slice(&self.payload),
            pass_through: Bytes::copy_from_slice(&self.pass_through),
            publisher: string(&self.publisher),
            ..*self
        }
    }

    /// Bytes that the message counts for in bounded queues: topic, payload, properties.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.topic.len() + self.payload.len() + self.pass_through.len()
    }
}
