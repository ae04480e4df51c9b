//! Retained messages for new subscriptions: read from the store as the client takes them, so that a filter
//! which matches a million of them costs a session no more than one that matches ten.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Instant;

use ahash::AHashSet;
use bytestring::ByteString;
use supervisors::Context;

use super::Session;
use crate::routing::retained::RetainedCursor;
use crate::session::event::{Delivery, SubscribeRequest};

/// Retained messages that are looked at under one lock of the store.
const STEPS_PER_LOOK: usize = 64;

/// Looks in one turn, before what is published now has its turn.
const LOOKS_PER_TURN: usize = 4;

/// Subscriptions of a session that have not got all that is retained. Bounded by its subscriptions.
#[derive(Default)]
pub(super) struct Replays {
    waiting: VecDeque<(SubscribeRequest, RetainedCursor)>,
    /// Found for the first of them and not handled yet.
    found: VecDeque<Delivery>,
}

impl Replays {
    /// Subscriptions that are to get what is retained. One that is waiting already begins anew, and those
    /// that the session does not have any more are forgotten.
    pub(super) fn add(&mut self, requests: Vec<SubscribeRequest>, until: u64, has: impl Fn(&str) -> bool) {
        let anew: AHashSet<ByteString> = requests.iter().map(|request| request.filter.clone()).collect();
        self.waiting
            .retain(|(request, _)| !anew.contains(&request.filter) && has(&request.filter));
        let requests = requests.into_iter().filter(|request| has(&request.filter));
        self.waiting
            .extend(requests.map(|request| (request, RetainedCursor::until(until))));
    }
}

impl Session {
    /// One turn's worth of retained messages, as long as the client takes them. True when there are more to
    /// be handled and there is room.
    pub(super) fn replay(&mut self, now: Instant, ctx: &mut Context<Self>) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            while !self.is_full() {
                let Some(mut delivery) = self.replays.found.pop_front() else {
                    break;
                };
                self.seat.office.counters().offered.one();
                let port = &self.seat.port;
                self.seat.office.keep(port, &mut delivery, None);
                // What waits until it is safe came first.
                let free = port.pen.borrow_mut().hold(None, delivery);
                if let Some(delivery) = free {
                    self.take_delivery(delivery, now, ctx);
                }
            }
            if !self.replays.found.is_empty() {
                return false;
            }
            if !self.look(now) {
                self.replays = Replays::default();
                return false;
            }
        }
        !self.is_full()
    }

    /// Looks for more in the store; false when nothing waits.
    fn look(&mut self, now: Instant) -> bool {
        let Replays { waiting, found } = &mut self.replays;
        let Some((request, cursor)) = waiting.front_mut() else {
            return false;
        };
        let has = self.value.has_subscription(&request.filter);
        // Only read here: a torn store is for its writer to escalate.
        let store = &self.seat.office.tables().retained;
        let more = has && {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            store.matching_from(cursor, &request.filter, now, STEPS_PER_LOOK, &mut |message| {
                found.push_back(Delivery {
                    message: message.clone(),
                    options: request.options,
                    subscription_ids: request.subscription_identifier.into(),
                    share: None,
                    dup: false,
                    seq: None,
                    from_retained: true,
                });
            })
        };
        if !more {
            waiting.pop_front();
        }
        true
    }
}
