//! What of a session outlasts the process: noting it, and not promising anything before it is safe.
//!
//! PUBREL and PUBCOMP give up a packet identifier, SUBACK and UNSUBACK tell of a change: of a session that
//! lasts they are sent when the store has committed what they say. That PUBACK and PUBREC wait is the
//! publication's business ([`super::super::keeping`]).

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use actix::{Handler, Message as ActixMessage};
use supervisors::{Caster, Context};

use super::effects::Ask;
use super::{Session, Value};
use crate::broker::keeping::{Gate, Lasting};
use crate::broker::storage::{Condition, Mark, Storage, Unreadable};
use crate::mqtt::packet::Packet;
use crate::mqtt::reason::ReasonCode;
use crate::session::Subscription;
use crate::session::event::{ClientLimits, Event, SubscribeRequest};
use crate::session::lasting::{Change, Exchange, Page, Restored, Seq, SessionNo, SessionRecord};

/// Store → Session: messages of its queue.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Fetched {
    /// Of which stored session: it may have begun anew since.
    pub no: SessionNo,
    /// The messages.
    pub page: Result<Page, Unreadable>,
}

/// What a session does once something is safe.
pub(super) enum Gated {
    /// Sends a packet.
    Send(Packet),
    /// Tells its client of its subscriptions.
    Answer(Ask, Vec<ReasonCode>),
}

/// What waits for the store, in order.
pub(super) type Waiting = VecDeque<(Mark, Gated)>;

/// Milliseconds of the wall clock since 1970.
pub(in crate::broker) fn wall_ms() -> u64 {
    let age = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// The value of a session that was stored, and what it causes.
pub(super) fn restored(
    restored: Restored,
    limits: ClientLimits,
    effects: &mut Vec<crate::session::event::Effect>,
) -> (Value, Lasting) {
    let lasting = Lasting {
        no: restored.no,
        next: restored.next,
    };
    let value = Value::restore(restored, limits, Instant::now(), wall_ms(), effects);
    (value, lasting)
}

impl Session {
    fn storage(&self) -> Option<&dyn Storage> {
        self.seat.office.tables().storage.as_deref()
    }

    pub(super) fn lasting(&self) -> Option<SessionNo> {
        self.seat.port.lasting.get().map(|lasting| lasting.no)
    }

    fn note(&self, change: impl FnOnce(SessionNo) -> Change) {
        if let (Some(no), Some(storage)) = (self.lasting(), self.storage()) {
            storage.note(change(no));
        }
    }

    /// The connection came or went: notes how the session stands, if it outlives its connection.
    pub(super) fn note_record(&mut self) {
        let Some(storage) = self.seat.office.tables().storage.clone() else {
            return;
        };
        let Some(record) = self.value.record(Instant::now(), wall_ms()) else {
            return self.note_end();
        };
        let record = self.signed(record);
        let no = self.lasting().unwrap_or_else(|| {
            let lasting = Lasting {
                no: storage.number(),
                next: Seq::FIRST,
            };
            self.seat.port.lasting.set(Some(lasting));
            lasting.no
        });
        storage.note(Change::Session(no, Box::new(record)));
    }

    /// Adds to a record what the value does not know.
    fn signed(&mut self, mut record: SessionRecord) -> SessionRecord {
        record.guest = self.entry.guest.clone();
        record.will = record.will.filter(|(will, _)| self.may_note_will(will));
        record
    }

    /// The connection is gone: from now on the expiry of the session counts.
    pub(super) fn note_away(&mut self) {
        if self.lasting().is_some() && !self.value.is_ended() {
            self.note_record();
        }
    }

    /// The session is not to be found again.
    pub(super) fn note_end(&self) {
        self.note(Change::Forget);
        self.seat.port.lasting.set(None);
    }

    /// A session that came from another node is stored as a whole.
    pub(super) fn note_all(&mut self) {
        self.note_record();
        let Some(mut lasting) = self.seat.port.lasting.get() else {
            return;
        };
        let mut next = || {
            let seq = lasting.next;
            lasting.next = seq.next();
            seq
        };
        let changes = self
            .value
            .enlist(lasting.no, Instant::now(), wall_ms(), &mut next);
        self.seat.port.lasting.set(Some(lasting));
        for change in changes {
            let change = match change {
                Change::Session(no, record) => Change::Session(no, Box::new(self.signed(*record))),
                change => change,
            };
            self.note(|_| change);
        }
    }

    pub(super) fn note_exchange(&self, seq: Seq, exchange: Exchange) {
        self.note(|no| Change::Exchange(no, seq, exchange));
    }

    pub(super) fn note_settled(&self, seq: Seq) {
        self.note(|no| Change::Settled(no, seq));
    }

    pub(super) fn note_completed(&self, packet_id: crate::mqtt::packet::PacketId) {
        self.note(|no| Change::Completed(no, packet_id));
    }

    /// Notes what the router has granted, or taken away.
    pub(super) fn note_answer(&self, ask: &Ask, reasons: &[ReasonCode]) {
        match ask {
            Ask::Subscribe { requests, .. } => {
                let granted = requests
                    .iter()
                    .zip(reasons)
                    .filter(|(_, reason)| !reason.is_error());
                for (request, _) in granted {
                    self.note(|no| Change::Subscribed(no, request.filter.clone(), subscription(request)));
                }
            }
            Ask::Unsubscribe { filters, .. } => {
                for filter in filters {
                    self.note(|no| Change::Unsubscribed(no, filter.clone()));
                }
            }
            Ask::Restore { .. } => {}
        }
    }

    /// Does something at once, or when everything that was noted is safe.
    pub(super) fn when_safe(&mut self, gated: Gated, ctx: &mut Context<Self>) {
        let mark = match (self.lasting(), self.storage()) {
            (Some(_), Some(storage)) => Some((storage.mark(), storage.committed(), storage.condition())),
            _ => None,
        };
        match mark {
            Some((mark, committed, _)) if committed >= mark && self.waiting.is_empty() => {
                self.pass(gated, true, ctx);
            }
            Some((_, _, Condition::Failing)) if matches!(gated, Gated::Answer(..)) => {
                self.pass(gated, false, ctx);
            }
            Some((mark, ..)) => {
                self.waiting.push_back((mark, gated));
                let port = self.seat.port.clone();
                self.seat.office.wait_for_store(mark, Gate::Wake(port));
            }
            None => self.pass(gated, true, ctx),
        }
    }

    /// Does what has become safe. What asks the client to wait is refused while the store fails; packets
    /// that end an exchange wait on.
    pub(super) fn take_safe(&mut self, ctx: &mut Context<Self>) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(storage) = self.storage() else { return };
        let (committed, failing) = (storage.committed(), storage.condition() == Condition::Failing);
        let due = |waiting: &Waiting| {
            let front = waiting.front();
            front.is_some_and(|(mark, gated)| {
                *mark <= committed || failing && matches!(gated, Gated::Answer(..))
            })
        };
        while due(&self.waiting) {
            if let Some((mark, gated)) = self.waiting.pop_front() {
                self.pass(gated, mark <= committed, ctx);
            }
        }
    }

    fn pass(&mut self, gated: Gated, safe: bool, ctx: &mut Context<Self>) {
        match gated {
            Gated::Send(packet) => self.send(&packet),
            Gated::Answer(ask, reasons) if safe => self.tell_answer(ask, reasons, ctx),
            Gated::Answer(ask, reasons) => {
                let refused = reasons.iter().map(|_| ReasonCode::QuotaExceeded).collect();
                self.tell_answer(ask, refused, ctx);
            }
        }
    }

    /// Its client is back, or has begun anew: the CONNACK leaves when that is safe, and everything else
    /// behind it. So nothing of a session that was thrown away comes to its client any more `[MQTT-3.1.2-4]`;
    /// and of a session that was away when the node fell it is known that nothing was sent of what had
    /// waited, so DUP says what is true `[MQTT-3.3.1-1]`. While the store fails it leaves at once: who is
    /// online is served.
    pub(super) fn hold_back(&mut self) {
        let Some(storage) = self.storage() else { return };
        let mark = storage.mark();
        if storage.committed() < mark && storage.condition() == Condition::Sound {
            let port = self.seat.port.clone();
            self.seat.office.wait_for_store(mark, Gate::Wake(port));
            self.held_back = Some(mark);
        }
    }

    /// Whether nothing may be sent yet.
    pub(super) fn is_held_back(&mut self) -> bool {
        let (Some(mark), Some(storage)) = (self.held_back, self.storage()) else {
            return false;
        };
        if storage.committed() >= mark || storage.condition() == Condition::Failing {
            self.held_back = None;
        }
        self.held_back.is_some()
    }

    /// The connection is gone: what was to be sent on it is sent anew on the next.
    pub(super) fn forget_packets(&mut self) {
        self.waiting.retain(|(_, gated)| !matches!(gated, Gated::Send(_)));
        self.held_back = None;
    }
}

impl Session {
    /// Reads a piece of the queue.
    pub(super) fn fetch(&self, from: Seq, last: Seq, len: usize, bytes: usize, to: Caster<Fetched>) {
        // What is not stored waits in memory: a session without a place in the store fetches nothing.
        if let (Some(no), Some(storage)) = (self.lasting(), self.storage()) {
            let answer = Box::new(move |page| drop(to.cast(Fetched { no, page })));
            storage.page(no, from, last, len, bytes, answer);
        }
    }
}

impl Handler<Fetched> for Session {
    type Result = ();

    fn handle(&mut self, Fetched { no, page }: Fetched, ctx: &mut Context<Self>) {
        if self.lasting() != Some(no) {
            return;
        }
        let event = match page {
            Ok(page) => Event::Fetched(page),
            Err(error) => {
                tracing::error!(client = %self.value.client_id(), %error, "its queue waits");
                Event::FetchFailed
            }
        };
        self.handle(event, Instant::now(), ctx);
        self.note_gathered();
        self.seat.port.wake.wake();
    }
}

fn subscription(request: &SubscribeRequest) -> Subscription {
    Subscription {
        options: request.options,
        identifier: request.subscription_identifier,
    }
}
