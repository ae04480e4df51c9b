//! What becomes of the client's will, and who hears of it: Wills, and where there are other nodes the keeper,
//! so that one of them publishes it should this node be lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Handler, Message};
use supervisors::Context;

use super::{PortSeat, Session};
use crate::broker::links::WillNews;
use crate::broker::wills;
use crate::mqtt::packet::Will;

/// The keeper → Session: say once more what will your client has. Nothing is said of none.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct TellWill;

/// Wills → Session: the will of your client is published, after its delay: it is not to be found again.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct WillPublished;

impl PortSeat {
    /// The connection is gone: it is the value's to decide about the will.
    pub(super) fn lose_will(&mut self) {
        if self.will.take().is_some() {
            wills::tell(self.office.tables(), &self.port.client_id, WillNews::Over);
        }
    }
}

impl Session {
    /// A client is connected; it may have a will.
    pub(super) fn have_will(&mut self) {
        self.seat.will = self.value.will().map(|(will, _)| will.clone());
        self.tell_will();
    }

    fn tell_will(&mut self) {
        let Some((will, delay_s)) = self.value.will() else {
            return;
        };
        if self.seat.would_allow_will(will) {
            let news = WillNews::Lives(will.clone(), delay_s);
            wills::tell(self.seat.office.tables(), self.value.client_id(), news);
        }
    }

    pub(super) fn publish_will(&mut self, will: Arc<Will>, delay_s: u32, now: Instant) {
        if !self.seat.allows_will(&will) {
            return;
        }
        let client_id = self.value.client_id().clone();
        if delay_s == 0 {
            return wills::publish_now(&self.seat.office, &client_id, will, now);
        }
        let tables = self.seat.office.tables();
        let due = now.checked_add(Duration::from_secs(delay_s.into()));
        let news = WillNews::Runs(will.clone(), due.unwrap_or(now));
        wills::tell(tables, &client_id, news);
        let request = wills::Request::Publish {
            client_id,
            will,
            delay_s,
        };
        wills::ask(tables, request);
    }

    /// The will of a client that fell with an earlier process.
    pub(super) fn leave_will(&mut self, will: Arc<Will>, delay_s: u32, now: Instant) {
        if self.seat.allows_will(&will) {
            wills::inherit(
                self.seat.office.tables(),
                self.value.client_id(),
                will,
                delay_s,
                now,
            );
        }
    }

    pub(super) fn cancel_will(&self) {
        let (tables, client_id) = (self.seat.office.tables(), self.value.client_id().clone());
        wills::tell(tables, &client_id, WillNews::Over);
        wills::ask(tables, wills::Request::Cancel { client_id });
    }
}

impl Handler<WillPublished> for Session {
    type Result = ();

    fn handle(&mut self, _: WillPublished, _: &mut Context<Self>) {
        // A client that is back has another one, or none, and that was noted.
        if self.wire.is_none() {
            self.note_away();
        }
    }
}

impl Handler<TellWill> for Session {
    type Result = ();

    fn handle(&mut self, _: TellWill, _: &mut Context<Self>) {
        self.tell_will();
    }
}
