//! What an audit is told of an arbiter: its counters, and what lies here and is looked at.

use std::rc::Rc;

use super::Office;
use crate::broker::accounts::{Held, Tally};
use crate::broker::counters::Snapshot;
use crate::broker::mail::Parcel;
use crate::broker::port::Port;

impl Office {
    /// As it is between two messages of this arbiter.
    pub(in crate::broker) fn tally(&self) -> Tally {
        Tally {
            counted: Snapshot::of(std::slice::from_ref(self.counters())),
            held: Held {
                inboxes: self.inboxes_len() as u64,
                topics: self.entries_len() as u64,
                gathered: self.forwards.borrow().len() as u64,
                ..Held::default()
            },
        }
    }

    /// Copies that sessions have not taken from their ports.
    fn inboxes_len(&self) -> usize {
        let ports = self.ports.borrow();
        let waiting = |port: &Rc<Port>| port.inbox.borrow().len() + port.pen.borrow().len();
        ports.values().map(waiting).sum()
    }

    /// Messages for topics: before the topics here, and in the mail from and to here. What lies in the boxes
    /// of others they look at themselves.
    fn entries_len(&self) -> usize {
        let is_message = |parcel: &&Parcel| matches!(parcel, Parcel::Message { .. });
        let desks: usize = self.desks.borrow().values().map(|desk| desk.waiting_len()).sum();
        let out = self.out.borrow().iter().flatten().filter(is_message).count();
        let incoming = self.incoming.borrow();
        let incoming = incoming.iter().map(|(_, parcel)| parcel).filter(is_message);
        desks + out + incoming.count() + self.tables.post[self.me].messages_len()
    }
}
