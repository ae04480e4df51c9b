//! What a session that was torn by a panic, or killed, leaves to its shared groups (MQTT 5.0 §4.8.2): another
//! member gets what waited for its client, and with DUP what the client had not acknowledged at QoS 1.
//!
//! It is read from the value when that is dropped, outside of the unwinding; so it costs the way of a message
//! nothing but a note of the one of a shared group that is just being handled. That one may be what tore the
//! session, and the next member's: after two it is passed on no more ([`crate::broker::poison`]).

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use supervisors::Context;

use super::Session;
use crate::broker::mail::FilterId;
use crate::broker::poison::Fingerprint;
use crate::mqtt::message::Message;
use crate::session::event::{Delivery, Event};
use crate::session::lasting::Seq;

/// A message of a shared group that is being handled.
pub(super) struct Offered {
    share: NonZeroU64,
    message: Arc<Message>,
    dup: bool,
    /// Its place in the store.
    seq: Option<Seq>,
}

impl Session {
    /// A topic has a message for the client.
    pub(super) fn deliver(&mut self, delivery: Delivery, now: Instant, ctx: &mut Context<Self>) {
        #[cfg(test)]
        let fall_over = delivery.message.clone();
        let Some(share) = delivery.share else {
            return self.handle(Event::Deliver(delivery), now, ctx);
        };
        self.offered = Some(Offered {
            share,
            message: delivery.message.clone(),
            dup: delivery.dup,
            seq: delivery.seq,
        });
        self.handle(Event::Deliver(delivery), now, ctx);
        #[cfg(test)]
        crate::broker::poison::fall_over_message(&fall_over);
        self.offered = None;
    }

    /// Passes on what is left. The rest of the port's inbox follows when the port is closed.
    fn pass_on_what_is_left(&mut self) {
        let office = self.seat.office.clone();
        // Others first: who is gone takes nothing.
        office.set_online(&self.seat.port, false);
        let offered = self.offered.take();
        for owed in self.value.salvage() {
            let in_hand = offered.as_ref().map(|offered| &offered.message);
            if !in_hand.is_some_and(|in_hand| Arc::ptr_eq(in_hand, &owed.message)) {
                self.seat.put_down_torn();
                office.pass_on(FilterId(owed.share.get()), &owed.message, owed.dup);
            }
            office.settle(&self.seat.port, owed.seq);
        }
        let Some(offered) = offered else { return };
        office.settle(&self.seat.port, offered.seq);
        let filter = FilterId(offered.share.get());
        self.seat.put_down_torn();
        if self.is_poison_of(filter, &offered.message) {
            office.counters().dropped_poison.one();
            let topic = &offered.message.topic;
            tracing::error!(%topic, "given up on a message over which two members of a shared group crashed");
        } else {
            // Whether it was written already nobody knows.
            let dup = offered.dup || self.wire.is_some();
            office.pass_on(filter, &offered.message, dup);
        }
    }

    /// Notes that a member of this group crashed over a message; whether it was not the first.
    fn is_poison_of(&self, group: FilterId, message: &Message) -> bool {
        let desk = self.seat.office.known_desk(group);
        let (Some(desk), Some(print)) = (desk, Fingerprint::of_message(message)) else {
            return false;
        };
        let (poison, now) = (&self.seat.office.tables().poison, Instant::now());
        poison.crashed(&desk.filter, print, now);
        let suspect = poison.suspect(&desk.filter, now);
        suspect.is_some_and(|suspect| suspect.is_poison(print))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended && !self.seat.stopped {
            self.pass_on_what_is_left();
        }
    }
}
