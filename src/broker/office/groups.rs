//! What the office does for shared groups: who has a connection, and who gets what another cannot deliver.

use std::sync::Arc;

use super::Office;
use crate::broker::desk::Turn;
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
        let group = self.tables.share_group_of(filter);
        let member = group.and_then(|group| group.choose(message));
        let Some(member) = member else {
            return self.counters().dropped_no_member.one();
        };
        let turn = Turn {
            nth: member.nth,
            dup,
            hops: 0,
        };
        let parcel = Parcel::Message {
            filter,
            to: To::Member(turn),
            message: message.clone(),
            receipt: None,
        };
        self.send(member.arbiter, parcel);
    }

    /// The filter has ended on this arbiter while a message for it was on its way.
    pub(super) fn find_no_desk(
        &self,
        filter: FilterId,
        to: &To,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        from: u16,
    ) {
        if matches!(to, To::Member(_)) {
            self.pass_on(filter, message, false);
        }
        self.dispatched(receipt, from, message);
    }
}
