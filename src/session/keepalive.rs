//! Keep-alive, and the one timer of a session.
//!
//! A packet only notes the time; the timer is armed once and, when it fires too early, armed again for
//! what is left. So a busy client costs one store per packet and one wake-up per period.

use std::time::{Duration, Instant};

use super::connect::Link;
use super::event::{ClientLimits, Effect};
use super::{Session, State};
use crate::mqtt::packet::Connect;
use crate::mqtt::reason::ReasonCode;

/// The keep-alive in seconds that holds for a connection; 0 is off.
///
/// A 5.0 client is told a shorter one than it asked for `[MQTT-3.1.2-21]`. A 3.x client cannot be told,
/// so it keeps its own.
pub(super) fn negotiate(connect: &Connect, limits: &ClientLimits) -> u16 {
    let (asked, max) = (connect.keep_alive_s, limits.keep_alive_max_s);
    if connect.version.is_v5() && max > 0 && (asked == 0 || asked > max) {
        max
    } else {
        asked
    }
}

/// When the connection is given up: one and a half times the keep-alive after the latest packet
/// `[MQTT-3.1.2-22]`. `None` if keep-alive is off.
pub(super) fn deadline(link: &Link) -> Option<Instant> {
    let patience = Duration::from_millis(u64::from(link.keep_alive_s) * 1500);
    if patience.is_zero() {
        None
    } else {
        link.last_activity.checked_add(patience)
    }
}

impl Session {
    /// The broker does not read the client: that it says nothing is not its fault.
    pub(super) fn on_not_read(&mut self, now: Instant) {
        if let State::Attached(link) = &mut self.state {
            link.last_activity = now;
        }
    }

    /// The timer fired, perhaps for a deadline that has since moved.
    pub(super) fn on_wake(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let over = self.deadline().is_some_and(|at| at <= now);
        match &self.state {
            State::Attached(_) if over => self.close(ReasonCode::KeepAliveTimeout, now, out),
            State::Away(_) if over => self.end(now, out),
            State::Attached(_) | State::Away(_) => {
                self.fetch(now, out);
                self.arm(now, out);
            }
            State::New | State::Ended => {}
        }
    }

    /// When the connection is given up, or the session ends without one.
    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Attached(link) => deadline(link),
            State::Away(away) => away.expires_at,
            State::New | State::Ended => None,
        }
    }

    /// Sets the one timer: for the deadline, or for the store that is to be asked again.
    pub(super) fn arm(&self, now: Instant, out: &mut Vec<Effect>) {
        let retry = self.queue.retry_at().filter(|at| *at > now);
        let next = self.deadline().into_iter().chain(retry).min();
        out.extend(next.map(Effect::WakeAt));
    }
}
