//! The members of a shared group on one arbiter `[MQTT-4.8.2]`: those with a connection lie before the
//! others, so that the one whose turn it is is found by its number.

use std::rc::Rc;
use std::sync::Arc;

use super::rows::{Offered, Row};
use super::{Desk, ShareGroup};
use crate::broker::mail::{Parcel, Receipt, To};
use crate::broker::office::Office;
use crate::broker::port::Port;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;

/// Arbiters that a message is sent on to because its members are gone, before it is given up: more than the
/// rounds in which members may come and go meanwhile.
pub(in crate::broker) const HOPS_MAX: u8 = 16;

/// A message for one member of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// Whose turn it is.
    pub nth: u32,
    /// Another member may have had it `[MQTT-3.3.1-1]`.
    pub dup: bool,
    /// Arbiters at which it found nobody.
    pub hops: u8,
    /// Nodes at which it found nobody before it came to this one.
    pub tried: u8,
}

/// Where a message goes on to, because nobody of its group is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Onward {
    /// To the members on another arbiter.
    Arbiter(usize),
    /// To whoever has members now, here or on another node.
    Heirs,
}

impl Desk {
    /// Shared subscription: exactly one member gets it. Where it is to go on, if nobody here can take it.
    pub(super) fn dispatch_to_one(
        self: &Rc<Self>,
        office: &Rc<Office>,
        group: &ShareGroup,
        message: &Arc<Message>,
        turn: Turn,
    ) -> Option<Onward> {
        let rows = self.rows.borrow();
        let online = self.online.get();
        let start = self.sticky_row(office, group, &rows).unwrap_or(turn.nth as usize);
        let offer = |from: usize, to: usize| {
            let count = to - from;
            let mut order = (0..count).map(|k| &rows[from + (start + k) % count]);
            order.any(|row| self.offer_to_member(office, group, row, message, turn.dup))
        };
        if offer(0, online) {
            return None;
        }
        let best_effort = message.qos == QoS::AtMostOnce && online > 0;
        if best_effort {
            // All of them are slow.
            office.counters().offered.one();
            office.counters().dropped_slow_consumer.one();
            return None;
        }
        if turn.hops < HOPS_MAX && group.is_online_elsewhere(office.me()) {
            return group.elsewhere(office.me()).map(Onward::Arbiter);
        }
        if offer(online, rows.len()) {
            return None;
        }
        let elsewhere = group.elsewhere(office.me()).filter(|_| turn.hops < HOPS_MAX);
        elsewhere.map(Onward::Arbiter).or(Some(Onward::Heirs))
    }

    fn offer_to_member(
        self: &Rc<Self>,
        office: &Rc<Office>,
        group: &ShareGroup,
        row: &Row,
        message: &Arc<Message>,
        dup: bool,
    ) -> bool {
        let delivery = || row.delivery_of_share(self.id, message, dup);
        let taken = self.offer(office, &row.port, delivery) == Offered::Taken;
        if taken {
            group.took(row.port.id);
        }
        taken
    }

    /// Where the member sits with which a sticky group stays.
    fn sticky_row(&self, office: &Office, group: &ShareGroup, rows: &[Row]) -> Option<usize> {
        let port = group.stays_with()?;
        if usize::from(port.arbiter) != office.me() {
            return None;
        }
        let port = office.port(port.serial)?;
        let (_, position) = *port
            .rows
            .borrow()
            .get(&self.id)
            .filter(|(_, at)| *at < rows.len())?;
        let online = self.online.get();
        match position < online {
            true => Some(position),
            // The others come first, if there are any.
            false if online > 0 => None,
            false => Some(position - online),
        }
    }

    /// What nobody here could take goes on, with its receipt.
    pub(super) fn send_on(
        &self,
        office: &Office,
        onward: Onward,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        turn: Turn,
    ) {
        let Onward::Arbiter(arbiter) = onward else {
            return office.send_to_heirs(self.id, message, receipt, turn);
        };
        let turn = Turn {
            hops: turn.hops + 1,
            ..turn
        };
        let parcel = Parcel::Message {
            filter: self.id,
            to: To::Member(turn),
            message: message.clone(),
            receipt,
        };
        office.send(arbiter, parcel);
    }

    /// A member's connection came or went: it changes sides.
    pub(in crate::broker) fn set_presence(&self, office: &Office, port: &Port) {
        let Some(position) = port.rows.borrow().get(&self.id).map(|(_, position)| *position) else {
            return;
        };
        let online = self.online.get();
        match (port.is_online(), position < online) {
            (true, false) => {
                self.swap(position, online);
                self.online.set(online + 1);
            }
            (false, true) => {
                self.swap(position, online - 1);
                self.online.set(online - 1);
            }
            _ => return,
        }
        self.tell_members(office);
    }

    /// The row at this position is to be removed: it goes to the side of those without a connection. Where
    /// it is then.
    pub(super) fn leave_online(&self, position: usize) -> usize {
        let online = self.online.get();
        if position >= online {
            return position;
        }
        self.swap(position, online - 1);
        self.online.set(online - 1);
        online - 1
    }

    fn swap(&self, one: usize, other: usize) {
        let mut rows = self.rows.borrow_mut();
        rows.swap(one, other);
        for position in [one, other] {
            if let Some(place) = rows[position].port.rows.borrow_mut().get_mut(&self.id) {
                place.1 = position;
            }
        }
    }

    /// Tells all arbiters how many members sit here.
    pub(in crate::broker) fn tell_members(&self, office: &Office) {
        if let Some(group) = &self.share {
            let online = self.online.get();
            group.set(office.me(), online, self.len() - online);
        }
    }

    /// The group, if this filter is shared.
    pub(in crate::broker) fn group(&self) -> Option<&Arc<ShareGroup>> {
        self.share.as_ref()
    }
}
