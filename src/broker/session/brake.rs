//! Not reading a client that is faster than it may be. Its bytes wait in the kernel, and then at the client;
//! nothing is dropped and nobody is disconnected, also not for silence: [`Event::NotRead`].

use std::future::Future;
use std::pin::Pin;
use std::task::Context as Cx;
use std::time::Instant;

use tokio::time::Sleep;

use super::Session;
use crate::broker::throttle::Throttle;
use crate::session::event::ClientLimits;

#[cfg(doc)]
use crate::session::event::Event;

/// The brake of one client.
pub(super) struct Brake {
    pub(super) throttle: Throttle,
    /// Fires when reading may go on; there is one only while it may not.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Brake {
    /// The brake of a client; `None` where its limits set no rate.
    pub(super) fn new(limits: &ClientLimits, now: Instant) -> Option<Box<Self>> {
        let throttle = Throttle::new(limits, now)?;
        Some(Box::new(Self {
            throttle,
            timer: None,
        }))
    }
}

impl Session {
    /// Whether the client must not be read now; this turn is then woken when it may.
    pub(super) fn is_braked(&mut self, now: Instant, cx: &mut Cx<'_>) -> bool {
        let Some(brake) = &mut self.brake else {
            return false;
        };
        let Some(until) = brake.throttle.until(now) else {
            brake.timer = None;
            return false;
        };
        if brake.timer.is_none() {
            self.seat.office.counters().clients_throttled.one();
        }
        let timer = brake
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until.into())));
        timer.as_mut().reset(until.into());
        if timer.as_mut().poll(cx).is_ready() {
            // It has come while we looked.
            cx.waker().wake_by_ref();
        }
        true
    }
}
