//! What a node counts: one block of counters per arbiter, so that counting never moves a cache line
//! between cores; readers add the blocks up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::session::event::Counted;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// The counters of one arbiter. Only that arbiter adds; anybody may read. On its own cache lines.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters { $($(#[doc = $doc])* pub $name: Count,)* }

        /// What all arbiters of a node counted since its tables were made.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Snapshot { $($(#[doc = $doc])* pub $name: u64,)* }

        impl std::ops::AddAssign for Snapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)*
            }
        }

        impl Snapshot {
            /// The sum over the blocks.
            #[must_use]
            pub fn of(blocks: &[Counters]) -> Self {
                let mut sum = Self::default();
                for block in blocks {
                    $(sum.$name += block.$name.get();)*
                }
                sum
            }

            /// Name and value of each counter, in the order of the struct.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// As [`Snapshot::list`], with what each counter counts in between.
            #[must_use]
            pub fn described(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*).trim_ascii(), self.$name),)*]
            }
        }
    };
}

counters! {
    /// PUBLISH packets that clients sent, repeated ones too.
    received,
    /// PUBLISH packets that clients sent again at QoS 2 before the end of their exchange: published once.
    repeated,
    /// Messages handed to the topics and links that they matched, whoever they came from.
    routed,
    /// Entries for topics: one for each filter of a message, or for filters that match together, and arbiter.
    topic_entries,
    /// Entries that topics have dispatched to their subscribers.
    topic_entries_done,
    /// Entries for a shared group that went on to another node, as nobody here could take them.
    topic_entries_given_away,
    /// Copies of messages offered to sessions.
    offered,
    /// Copies that reached their client: QoS 0 given to its transport, QoS 1 and 2 acknowledged by it.
    delivered,
    /// Copies not sent because they are their client's own, which its subscription does not want (No Local).
    withheld,
    /// Copies that a member of a shared group left to another member.
    passed_on,
    /// Copies that went to another node with their session.
    moved_away,
    /// Copies that a session which crashed left in the store, for its next life.
    left_in_store,
    /// Copies that came from another node with their session.
    moved_in,
    /// Copies that were found in the store, with their session.
    restored,
    /// PUBLISH packets given to clients' transports, repeated ones too.
    publishes_sent,
    /// Packets of any kind that clients sent.
    packets_received,
    /// Packets given to clients' transports, PUBLISH not among them.
    packets_sent,
    /// Bytes of payload that clients published.
    payload_received,
    /// Bytes of payload given to clients' transports.
    payload_sent,
    /// Sockets that listeners accepted.
    sockets_opened,
    /// CONNECTs that were accepted.
    connects_accepted,
    /// Sessions whose client did not come back in time.
    sessions_expired,
    /// Bytes read from clients.
    bytes_received,
    /// Bytes written to clients.
    bytes_sent,
    /// Sessions opened.
    sessions_opened,
    /// Sessions that ended, whatever the reason.
    sessions_closed,
    /// Sockets closed at once because too many had not spoken yet.
    connections_refused,
    /// CONNECTs that were answered with a refusal, or were none.
    connects_refused,
    /// CONNECTs with a wrong user name or password, or without any where one is asked for.
    connects_denied,
    /// CONNECTs from addresses that had been wrong too often.
    connects_barred,
    /// CONNECTs that were not decided about: too many waited, or who decides could not be asked.
    connects_undecided,
    /// Sockets that sent no CONNECT in time.
    connects_late,
    /// Sockets without the PROXY header that their listener expects, or with a bad one.
    proxy_headers_refused,
    /// Sockets whose TLS handshake failed.
    tls_handshakes_failed,
    /// Sockets whose request for a WebSocket was refused.
    upgrades_refused,
    /// Packets that were not handled: the same one had crashed its client's session twice.
    packets_poisonous,
    /// Messages that were not retained because the store was full.
    retained_refused,
    /// Messages of other nodes that were not retained because their time lies too far ahead of our clock.
    retained_ahead,
    /// Subscriptions refused because the session had as many as it may have.
    subscriptions_refused,
    /// Times that a client was not read because it used up its rate of messages or bytes.
    clients_throttled,
    /// Sockets closed at once because the node had as many as it may have.
    refused_node_full,
    /// Sockets closed at once because their listener had as many as it may have.
    refused_listener_full,
    /// Sockets closed at once because their address had as many as it may have.
    refused_address_full,
    /// Sockets closed at once because their address came too often.
    refused_address_rate,
    /// Sockets closed because all first packets together took too much memory.
    refused_hello_memory,
    /// Messages for other nodes, handed to their links.
    forwarded,
    /// Messages that the other nodes have taken.
    forwards_acknowledged,
    /// Messages taken back from a link, as other nodes serve the shared groups that they were for.
    forwards_taken_back,
    /// Messages that came from other nodes.
    dispatched,
    /// Messages of shared groups given to another node, because the one that was chosen first could not.
    shared_given_again,
    /// Messages that the broker itself published, wills and `$SYS` among them, or its operators.
    injected,
    /// Wills published for clients of nodes that were lost.
    wills_executed,
    /// Wills of other nodes' clients that were not kept because there were too many.
    wills_not_held,
    /// Messages that clients or the broker published and that matched no subscriber and no route.
    unrouted,
    /// Dropped: it came when the session's queue was at its limit of messages or bytes.
    dropped_queue_full,
    /// Dropped: it had waited longest when the session's queue was at its limit.
    dropped_queue_oldest,
    /// Dropped: its topic had more levels or bytes than its publisher may use.
    dropped_topic_limit,
    /// Dropped: QoS 0 and the client was away.
    dropped_qos0_offline,
    /// Dropped: QoS 0 and the client's transport made no progress.
    dropped_slow_consumer,
    /// Dropped: published again by a client whose sessions had crashed over it twice.
    dropped_poisonous,
    /// Dropped: the PUBLISH broke the protocol, and its client was disconnected.
    dropped_protocol_error,
    /// Dropped: the session that was to publish it crashed over it.
    dropped_publisher_crashed,
    /// Dropped: the route table was torn; it is made anew at once.
    dropped_no_table,
    /// Dropped: expired before it could be sent.
    dropped_expired,
    /// Dropped: larger than the client's Maximum Packet Size.
    dropped_too_large,
    /// Dropped: could not be encoded, by a bug of ours.
    dropped_unencodable,
    /// Dropped: the client answered it with a reason that refuses it.
    dropped_by_client,
    /// Dropped: its session ended before the client, which may have it, acknowledged it at QoS 1 or 2.
    dropped_unacknowledged,
    /// Dropped: waited for a session that ended or was cleaned.
    dropped_session_ended,
    /// Dropped: waited in the store, which does not have it any more.
    dropped_not_found,
    /// Dropped: waited for a session that crashed, or was in flight.
    dropped_session_crashed,
    /// Dropped: came twice to a session that moved here, once on the way of its old node.
    dropped_twin,
    /// Dropped: waited in a session that moved to another node with more than may be moved.
    dropped_not_moved,
    /// Dropped: the node that it was for did not come back in time.
    dropped_link_down,
    /// Dropped: expired before it could be sent to another node.
    dropped_link_expired,
    /// Dropped: another node was to retain it, without subscribers there, and did not come back in time; it
    /// gets it when it is back.
    dropped_link_retained,
    /// Dropped: QoS 1 or 2, for a client that is away, while the store took nothing.
    dropped_store_failing,
    /// Dropped: QoS 0 and the queue of a link was full.
    dropped_link_full,
    /// Dropped: the actor that dispatched it panicked twice over it.
    dropped_poison,
    /// Dropped: a member of a shared group went away with it.
    dropped_no_member,
    /// Dropped: published to a topic that its client may not write; wills too.
    dropped_not_authorized,
    /// Dropped: matched a subscription of a client that may not read it.
    dropped_unreadable,
    /// Acknowledgements from clients for packet identifiers that were not in flight.
    unknown_acks,
    /// Routes of other nodes that were asked for anew because ours differed from theirs.
    route_repairs,
    /// SUBACKs that were sent although not all other nodes had told in time that they hold the routes.
    subacks_unconfirmed,
    /// Now: subscriptions of the sessions.
    held_subscriptions,
    /// Now: messages that wait in the queues of sessions.
    held_messages,
    /// Now: messages that were sent at QoS 1 or 2 and that their clients have not acknowledged.
    held_inflight,
}

/// One counter with a single writer, so adding is a plain load and store.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Wraps after 2⁶⁴.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// For what is not counted but held: there are `now` where there were `before`.
    pub fn moved(&self, before: u64, now: u64) {
        self.add(now.wrapping_sub(before));
    }

    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    /// Counts what a session told.
    pub fn count(&self, counted: Counted) {
        match counted {
            Counted::DroppedQueueFull => self.dropped_queue_full.one(),
            Counted::DroppedQueueOldest => self.dropped_queue_oldest.one(),
            Counted::DroppedNotFound => self.dropped_not_found.one(),
            Counted::DroppedNotMoved => self.dropped_not_moved.one(),
            Counted::DroppedTopicLimit => self.dropped_topic_limit.one(),
            Counted::SubscriptionsRefused => self.subscriptions_refused.one(),
            Counted::DroppedQoS0Offline => self.dropped_qos0_offline.one(),
            Counted::DroppedSlowConsumer => self.dropped_slow_consumer.one(),
            Counted::DroppedExpired => self.dropped_expired.one(),
            Counted::DroppedTooLarge => self.dropped_too_large.one(),
            Counted::DroppedSessionEnded => self.dropped_session_ended.one(),
            Counted::DroppedUnacknowledged => self.dropped_unacknowledged.one(),
            Counted::DroppedByClient => self.dropped_by_client.one(),
            Counted::DroppedProtocolError => self.dropped_protocol_error.one(),
            Counted::Withheld => self.withheld.one(),
            Counted::Delivered => self.delivered.one(),
            Counted::MovedAway => self.moved_away.one(),
            Counted::MovedIn => self.moved_in.one(),
            Counted::Restored => self.restored.one(),
            Counted::Repeated => self.repeated.one(),
            Counted::UnknownAck => self.unknown_acks.one(),
        }
    }
}

impl Snapshot {
    /// All drops, whatever the reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.list()
            .iter()
            .filter(|(name, _)| name.starts_with("dropped_"))
            .map(|(_, n)| n)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_adds_the_blocks_up_and_sums_the_drops() {
        let blocks = [Counters::default(), Counters::default()];
        blocks[0].received.add(2);
        blocks[1].received.one();
        blocks[0].count(Counted::DroppedExpired);
        blocks[1].dropped_link_full.add(4);
        let sum = Snapshot::of(&blocks);
        assert_eq!((sum.received, sum.dropped()), (3, 5));
        assert!(sum.list().contains(&("dropped_expired", 1)));
    }
}
