//! The subscribers of one filter on one arbiter, and who of them gets a message.
//!
//! A session with several filters that match one topic gets one copy: at the highest QoS of its
//! subscriptions `[MQTT-3.3.4-2]`, with all their identifiers `[MQTT-3.3.4-3]` `[MQTT-3.3.4-4]`, with the
//! retain flag as it was published if one of them asks for that, and none on account of one that wants no
//! messages of its own client `[MQTT-3.8.3-3]`. 3.x says no less `[MQTT-3.3.5-1]`. Only who has more than one
//! subscription is looked at twice.

use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::Desk;
use crate::broker::keeping::Kept;
use crate::broker::mail::{FilterId, Joint, To};
use crate::broker::office::Office;
use crate::broker::port::{Port, Room};
use crate::mqtt::message::Message;
use crate::mqtt::packet::{QoS, SubscriptionOptions};
use crate::session::event::Delivery;

/// One subscriber of the filter on this arbiter.
pub(super) struct Row {
    pub(super) port: Rc<Port>,
    options: SubscriptionOptions,
    subscription_identifier: Option<u32>,
}

impl Row {
    fn delivery(&self, message: &Arc<Message>) -> Delivery {
        Delivery {
            message: message.clone(),
            options: self.options,
            subscription_ids: self.subscription_identifier.into(),
            from_retained: false,
            share: None,
            dup: false,
            seq: None,
        }
    }

    pub(super) fn delivery_of_share(&self, filter: FilterId, message: &Arc<Message>, dup: bool) -> Delivery {
        Delivery {
            share: NonZeroU64::new(filter.0),
            dup,
            ..self.delivery(message)
        }
    }
}

/// What a session said to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offered {
    /// It took it.
    Taken,
    /// Its outbox makes no progress, and the message is of QoS 0.
    Slow,
    /// It is over.
    Gone,
}

impl Desk {
    /// Hands the entry in hand to every row, from where the last life fell.
    pub(super) fn dispatch_to_all(self: &Rc<Self>, office: &Rc<Office>, message: &Arc<Message>) -> usize {
        let rows = self.rows.borrow();
        let first = self.cursor.get();
        for (position, row) in rows.iter().enumerate().skip(first) {
            self.cursor.set(position);
            self.deliver(office, &row.port, || row.delivery(message));
        }
        rows.len() - first.min(rows.len()) + 1
    }

    /// The same for several filters; the cursor counts on over the rows of all of them.
    pub(super) fn dispatch_jointly(
        self: &Rc<Self>,
        office: &Rc<Office>,
        message: &Arc<Message>,
        joint: &Joint,
    ) -> usize {
        let desks = desks_of(office, joint);
        // The rows of the other desks may have changed between two lives: a copy too many, but none lost.
        let changes = desks.iter().map(|desk| desk.changes.get()).sum();
        if self.seen_changes.replace(changes) != changes {
            self.cursor.set(0);
        }
        let (first, mut position) = (self.cursor.get(), 0);
        for (nth, desk) in desks.iter().enumerate() {
            for row in desk.rows.borrow().iter() {
                if position >= first {
                    self.cursor.set(position);
                    self.deliver_once(office, &desks, nth, row, message);
                }
                position += 1;
            }
        }
        position - first.min(position) + 1
    }

    /// How many rows the entry in hand is for.
    pub(super) fn rows_of(&self, office: &Office, to: &To) -> usize {
        match to {
            To::All => self.len(),
            // It is for one of them.
            To::Member(_) => 0,
            To::Joint(joint) => desks_of(office, joint).iter().map(|desk| desk.len()).sum(),
        }
    }

    /// One copy for the session of a row of the `nth` desk, unless it has had its copy with an earlier one.
    fn deliver_once(
        self: &Rc<Self>,
        office: &Rc<Office>,
        desks: &[Rc<Desk>],
        nth: usize,
        row: &Row,
        message: &Arc<Message>,
    ) {
        let places = row.port.rows.borrow();
        if places.len() == 1 {
            self.deliver(office, &row.port, || row.delivery(message));
            return;
        }
        if desks[..nth].iter().any(|desk| places.contains_key(&desk.id)) {
            return;
        }
        let mut merged: Option<Delivery> = None;
        let is_own = message.publisher == row.port.client_id;
        for desk in &desks[nth..] {
            let Some((_, position)) = places.get(&desk.id) else {
                continue;
            };
            let rows = desk.rows.borrow();
            let other = &rows[*position];
            if other.options.no_local && is_own {
                continue;
            }
            match &mut merged {
                None => merged = Some(other.delivery(message)),
                Some(merged) => merge(merged, other),
            }
        }
        if let Some(merged) = merged {
            self.deliver(office, &row.port, || merged);
        }
    }

    /// Hands a message to one session; what it does not take although it is there is dropped.
    fn deliver(self: &Rc<Self>, office: &Rc<Office>, port: &Rc<Port>, delivery: impl FnOnce() -> Delivery) {
        if self.offer(office, port, delivery) == Offered::Slow {
            office.counters().offered.one();
            office.counters().dropped_slow_consumer.one();
        }
    }

    /// Offers a message to one session. One that it takes is counted.
    pub(super) fn offer(
        self: &Rc<Self>,
        office: &Rc<Office>,
        port: &Rc<Port>,
        delivery: impl FnOnce() -> Delivery,
    ) -> Offered {
        let room = port.room();
        if matches!(room, Room::Closed) {
            return Offered::Gone;
        }
        let mut delivery = delivery();
        #[cfg(test)]
        super::tests::fall_over(port, &delivery.message);
        match room {
            Room::Slow if delivery.message.qos.min(delivery.options.qos) == QoS::AtMostOnce => {
                return Offered::Slow;
            }
            Room::Pause => office.pause(self, port, Instant::now()),
            Room::Take | Room::Slow | Room::Closed => {}
        }
        match office.keep(port, &mut delivery, self.publication.get()) {
            Kept::Nothing => port.push(delivery),
            Kept::Noted => {
                self.kept.set(self.kept.get().max(Kept::Noted));
                office.hand_in(port, delivery, self.publication.get());
            }
            Kept::Refused => {
                self.kept.set(Kept::Refused);
                if !port.is_online() {
                    // Of a shared group another member is asked.
                    if delivery.share.is_none() {
                        office.counters().offered.one();
                        office.counters().dropped_store_failing.one();
                    }
                    return Offered::Gone;
                }
                port.push(delivery);
            }
        }
        office.counters().offered.one();
        Offered::Taken
    }

    /// Writes the row of a session, or replaces it.
    pub(super) fn write(
        self: &Rc<Self>,
        office: &Office,
        port: &Rc<Port>,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) {
        // What a fallen session had asked for was not granted.
        if port.is_closed() || port.is_orphaned() {
            return;
        }
        let mut rows = self.rows.borrow_mut();
        let known = port.rows.borrow().get(&self.id).map(|(_, position)| *position);
        let row = Row {
            port: port.clone(),
            options,
            subscription_identifier: identifier,
        };
        if rows.is_empty() {
            self.since.set(office.next_occupation());
        }
        self.changes.set(self.changes.get() + 1);
        if let Some(position) = known {
            rows[position] = row;
        } else {
            port.rows.borrow_mut().insert(self.id, (self.clone(), rows.len()));
            rows.push(row);
            drop(rows);
            if self.share.is_some() {
                port.count_shared(true);
                self.set_presence(office, port);
            }
        }
    }

    /// The row at a position is that of a session which is back under another port.
    pub(in crate::broker) fn reseat(&self, position: usize, port: &Rc<Port>) {
        if let Some(row) = self.rows.borrow_mut().get_mut(position) {
            row.port = port.clone();
        }
    }

    /// Removes the row of a session; false when it has none.
    pub(in crate::broker) fn remove(&self, port: &Rc<Port>) -> bool {
        let Some((_, mut position)) = port.rows.borrow_mut().remove(&self.id) else {
            return false;
        };
        self.changes.set(self.changes.get() + 1);
        if self.share.is_some() {
            port.count_shared(false);
            position = self.leave_online(position);
        }
        let mut rows = self.rows.borrow_mut();
        rows.swap_remove(position);
        if let Some(moved) = rows.get(position)
            && let Some(entry) = moved.port.rows.borrow_mut().get_mut(&self.id)
        {
            entry.1 = position;
        }
        true
    }
}

fn desks_of(office: &Office, joint: &Joint) -> SmallVec<[Rc<Desk>; 4]> {
    joint.iter().filter_map(|id| office.known_desk(*id)).collect()
}

/// One more subscription of the same session matches.
fn merge(delivery: &mut Delivery, row: &Row) {
    delivery.options.qos = delivery.options.qos.max(row.options.qos);
    delivery.options.retain_as_published |= row.options.retain_as_published;
    delivery.options.no_local = false;
    if let Some(identifier) = row.subscription_identifier {
        delivery.subscription_ids.add(identifier);
    }
}
