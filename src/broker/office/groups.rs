//! What the office does for shared groups: who has a connection, and who gets what another cannot deliver.

use std::sync::Arc;

use super::Office;
use crate::broker::desk::{HOPS_MAX, Turn};
use crate::broker::keeping::Kept;
use crate::broker::mail::{FilterId, Parcel, Receipt, To};
use crate::broker::port::Port;
use crate::mqtt::message::Message;

impl Office {
    /// The session of a port has, or has lost, its connection: its shared groups prefer those that have one.
    pub(in crate::broker) fn set_online(&self, port: &Port, online: bool) {
        for desk in port.set_online(online) {
            desk.set_presence(self, port);
        }
    }

    /// Another member of a shared group gets what one could not deliver.
    pub(in crate::broker) fn pass_on(&self, filter: FilterId, message: &Arc<Message>, dup: bool) {
        let turn = Turn {
            dup,
            ..Turn::default()
        };
        self.counters().passed_on.one();
        self.counters().topic_entries.one();
        self.send_to_heirs(filter, message, None, turn);
    }

    /// Whoever has members of a shared group now gets its message: here, or on another node.
    pub(in crate::broker) fn send_to_heirs(
        &self,
        filter: FilterId,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        turn: Turn,
    ) {
        let Some((text, group)) = self.tables.share_heirs(filter) else {
            return self.find_no_member(receipt);
        };
        let member = group
            .filter(|_| turn.hops < HOPS_MAX)
            .and_then(|group| Some((group.choose(message)?, group.filter())));
        let Some((member, filter)) = member else {
            return self.give_away(&text, message, receipt, turn);
        };
        let turn = Turn {
            nth: member.nth,
            hops: turn.hops + 1,
            ..turn
        };
        let parcel = Parcel::Message {
            filter,
            to: To::Member(turn),
            message: message.clone(),
            receipt,
        };
        self.send(member.arbiter, parcel);
    }

    /// Nobody is left who could get a message of a shared group.
    pub(in crate::broker) fn find_no_member(&self, receipt: Option<Receipt>) {
        self.counters().dropped_no_member.one();
        if let Some(receipt) = receipt {
            self.send(receipt.arbiter.into(), Parcel::Taken(receipt, Kept::Nothing));
        }
    }

    /// The filter has ended on this arbiter while a message for it was on its way.
    pub(super) fn find_no_desk(
        &self,
        filter: FilterId,
        to: &To,
        message: &Arc<Message>,
        mut receipt: Option<Receipt>,
        from: u16,
    ) {
        match to {
            To::Member(turn) => self.send_to_heirs(filter, message, receipt.take(), *turn),
            // Nobody is left whom it could be dispatched to.
            To::All | To::Joint(_) => self.counters().topic_entries_done.one(),
        }
        self.dispatched(receipt, Kept::Nothing, from, message);
    }
}
