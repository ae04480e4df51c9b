//! Topic aliases towards the client `[MQTT-3.3.2.3.4]`: it says how many it takes, and each topic gets one
//! with its first message until there are no more. None is ever given to another topic, so that a message
//! never depends on one that was sent long before for something else.

use std::num::NonZeroU16;

use ahash::AHashMap;
use bytestring::ByteString;

use super::connect::detached;
use crate::limits::{TOPIC_ALIASED_BYTES_MAX, TOPIC_ALIASES_TO_CLIENT_MAX};
use crate::mqtt::codec::TopicAlias;

/// Topic aliases towards one client; they end with its connection `[MQTT-3.3.2-7]`.
#[derive(Debug)]
pub(super) struct AliasesOut {
    /// The client's Topic Alias Maximum, or ours.
    max: u16,
    numbers: AHashMap<ByteString, NonZeroU16>,
}

impl AliasesOut {
    /// None for a client that allows none, which is what most do `[MQTT-3.1.2-27]`.
    pub(super) fn new(client_max: u16) -> Option<Box<Self>> {
        let max = client_max.min(TOPIC_ALIASES_TO_CLIENT_MAX);
        (max > 0).then(|| {
            Box::new(Self {
                max,
                numbers: AHashMap::default(),
            })
        })
    }

    /// The alias of a topic whose message is about to be sent; the client knows it from then on.
    pub(super) fn of(&mut self, topic: &ByteString) -> Option<TopicAlias> {
        if let Some(number) = self.numbers.get(topic) {
            return Some(TopicAlias {
                number: *number,
                known: true,
            });
        }
        let number = u16::try_from(self.numbers.len() + 1)
            .ok()
            .and_then(NonZeroU16::new)?;
        if number.get() > self.max || topic.len() > TOPIC_ALIASED_BYTES_MAX {
            return None;
        }
        self.numbers.insert(detached(topic), number);
        Some(TopicAlias { number, known: false })
    }
}
