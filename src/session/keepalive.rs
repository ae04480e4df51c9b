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
        match &self.state {
            State::Attached(link) => match deadline(link) {
                Some(at) if at <= now => self.close(ReasonCode::KeepAliveTimeout, now, out),
                Some(at) => out.push(Effect::WakeAt(at)),
                None => {}
            },
            State::Away(away) if away.is_expired(now) => self.end(now, out),
            State::Away(away) => out.extend(away.expires_at.map(Effect::WakeAt)),
            State::New | State::Ended => {}
        }
    }
}
