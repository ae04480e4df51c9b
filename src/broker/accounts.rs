//! Double-entry bookkeeping: whatever came has gone somewhere or is held. Four accounts, of which
//! `docs/OPERATIONS.md` says what each entry means and when it must balance.
//!
//! What came and went is counted; what is held is looked at where it lies, so that a message that was lost
//! without a word shows. Each arbiter looks at itself between two messages of its own: what stays on one
//! arbiter (publications, copies) balances at any moment, what travels (topics, links) once it has arrived.

use actix::{Handler, Message};
use futures_util::future::join_all;
use supervisors::Context;

use super::counters::Snapshot;
use super::mailman::Mailman;
use super::tables::Tables;

/// A counter by its name.
pub type Entry = (&'static str, u64);

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: &'static str,
    /// What came.
    pub came: Vec<Entry>,
    /// What went, well or dropped.
    pub went: Vec<Entry>,
    /// What is held, by place.
    pub held: Vec<Entry>,
}

/// What is held and that nobody counts: it is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Copies in the inboxes of sessions.
    pub inboxes: u64,
    /// Entries for topics, before them and in the mail.
    pub topics: u64,
    /// Messages for other nodes, gathered for the next tick.
    pub gathered: u64,
    /// Messages that wait for links.
    pub outboxes: u64,
    /// Messages that were sent to other nodes and not acknowledged.
    pub on_wire: u64,
}

/// What one arbiter counted and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its counters.
    pub counted: Snapshot,
    /// What lies there.
    pub held: Held,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.counted += other.counted;
        self.held.inboxes += other.held.inboxes;
        self.held.topics += other.held.topics;
        self.held.gathered += other.held.gathered;
        self.held.outboxes += other.held.outboxes;
        self.held.on_wire += other.held.on_wire;
    }
}

/// Anyone → Mailman: what your arbiter counted and holds.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Tally")]
pub struct Audit;

impl Handler<Audit> for Mailman {
    type Result = actix::MessageResult<Audit>;

    fn handle(&mut self, _: Audit, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(self.office().tally())
    }
}

/// What all arbiters counted and hold, each at a moment of its own. `None` if one of them does not answer, as
/// its mailman is being restarted. Waits for an arbiter that is stuck.
pub async fn tally(tables: &Tables) -> Option<Tally> {
    let asked = tables.names.mailmen.iter().map(|mailman| mailman.call(Audit));
    let mut sum = Tally::default();
    for answer in join_all(asked).await {
        sum += answer.ok()?;
    }
    Some(sum)
}

impl Tally {
    /// The accounts, in the order in which a message passes them.
    #[must_use]
    pub fn accounts(&self) -> [Account; 4] {
        [self.publications(), self.topics(), self.copies(), self.links()]
    }

    fn publications(&self) -> Account {
        let counted = &self.counted;
        Account {
            name: "publications",
            came: vec![
                ("received", counted.received),
                ("injected", counted.injected),
                ("dispatched", counted.dispatched),
            ],
            went: vec![
                ("routed", counted.routed),
                ("unrouted", counted.unrouted),
                ("repeated", counted.repeated),
                ("dropped_not_authorized", counted.dropped_not_authorized),
                ("dropped_topic_limit", counted.dropped_topic_limit),
                ("dropped_protocol_error", counted.dropped_protocol_error),
                ("dropped_poisonous", counted.dropped_poisonous),
                ("dropped_publisher_crashed", counted.dropped_publisher_crashed),
                ("dropped_no_table", counted.dropped_no_table),
            ],
            held: Vec::new(),
        }
    }

    fn topics(&self) -> Account {
        let counted = &self.counted;
        Account {
            name: "topics",
            came: vec![("topic_entries", counted.topic_entries)],
            went: vec![
                ("topic_entries_done", counted.topic_entries_done),
                ("topic_entries_given_away", counted.topic_entries_given_away),
                ("dropped_no_member", counted.dropped_no_member),
            ],
            held: vec![("waiting", self.held.topics)],
        }
    }

    fn copies(&self) -> Account {
        let counted = &self.counted;
        Account {
            name: "copies",
            came: vec![
                ("offered", counted.offered),
                ("moved_in", counted.moved_in),
                ("restored", counted.restored),
            ],
            went: vec![
                ("delivered", counted.delivered),
                ("withheld", counted.withheld),
                ("passed_on", counted.passed_on),
                ("moved_away", counted.moved_away),
                ("left_in_store", counted.left_in_store),
                ("dropped_store_failing", counted.dropped_store_failing),
                ("dropped_queue_full", counted.dropped_queue_full),
                ("dropped_queue_oldest", counted.dropped_queue_oldest),
                ("dropped_qos0_offline", counted.dropped_qos0_offline),
                ("dropped_slow_consumer", counted.dropped_slow_consumer),
                ("dropped_expired", counted.dropped_expired),
                ("dropped_too_large", counted.dropped_too_large),
                ("dropped_unencodable", counted.dropped_unencodable),
                ("dropped_by_client", counted.dropped_by_client),
                ("dropped_unreadable", counted.dropped_unreadable),
                ("dropped_unacknowledged", counted.dropped_unacknowledged),
                ("dropped_session_ended", counted.dropped_session_ended),
                ("dropped_session_crashed", counted.dropped_session_crashed),
                ("dropped_twin", counted.dropped_twin),
                ("dropped_not_found", counted.dropped_not_found),
                ("dropped_not_moved", counted.dropped_not_moved),
                ("dropped_poison", counted.dropped_poison),
            ],
            held: vec![
                ("inboxes", self.held.inboxes),
                ("queues", counted.held_messages),
                ("in_flight", counted.held_inflight),
            ],
        }
    }

    fn links(&self) -> Account {
        let counted = &self.counted;
        Account {
            name: "links",
            came: vec![("forwarded", counted.forwarded)],
            went: vec![
                ("forwards_acknowledged", counted.forwards_acknowledged),
                ("forwards_taken_back", counted.forwards_taken_back),
                ("dropped_link_full", counted.dropped_link_full),
                ("dropped_link_down", counted.dropped_link_down),
                ("dropped_link_expired", counted.dropped_link_expired),
                ("dropped_link_retained", counted.dropped_link_retained),
            ],
            held: vec![
                ("gathered", self.held.gathered),
                ("outboxes", self.held.outboxes),
                ("on_wire", self.held.on_wire),
            ],
        }
    }
}

impl Account {
    /// What came and has neither gone nor is held; 0 is right, less than 0 went without having come.
    #[must_use]
    pub fn missing(&self) -> i64 {
        let sum = |entries: &[Entry]| entries.iter().map(|(_, count)| *count as i64).sum::<i64>();
        sum(&self.came) - sum(&self.went) - sum(&self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_drop_is_in_exactly_one_account() {
        let tally = Tally::default();
        let accounts = tally.accounts();
        for (name, _) in tally.counted.list() {
            let times = accounts
                .iter()
                .flat_map(|account| account.came.iter().chain(&account.went))
                .filter(|(known, _)| *known == name)
                .count();
            let is_drop = name.starts_with("dropped_");
            assert!(
                times == usize::from(is_drop) || times == 1,
                "{name}: {times} times"
            );
        }
    }

    #[test]
    fn what_neither_went_nor_is_held_is_missing() {
        let mut tally = Tally::default();
        (tally.counted.offered, tally.counted.moved_in) = (10, 2);
        (tally.counted.delivered, tally.counted.dropped_expired) = (5, 3);
        (tally.held.inboxes, tally.counted.held_messages) = (1, 1);
        let [publications, topics, copies, links] = tally.accounts();
        assert_eq!(copies.missing(), 2);
        for account in [publications, topics, links] {
            assert_eq!(account.missing(), 0, "{}", account.name);
        }
    }
}
