//! A session goes to another node, and comes from one ("Ownership" in `docs/PROTOCOL.md`, steps 4 to 8).
//!
//! Who goes packs itself and lingers: its subscriptions stay in place until those on the other node are, and
//! what comes until then follows as late messages. Who comes restores its subscriptions and leaves what is
//! delivered to it in its inbox until the late ones are there, so that nothing is lost, and what both had
//! is delivered once.

use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, ResponseActFuture, WrapFuture};
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::{Caster, Context};
use tokio::sync::oneshot;

use super::effects::Ask;
use super::{Past, Session, Value, keeping};
use crate::broker::door::Grants;
use crate::broker::keeping::Lasting;
use crate::session::event::{Counted, Effect, Event, SubscribeRequest};

/// How long who has gone lingers for word that the other is in place.
const LINGERS_WITHIN: Duration = Duration::from_secs(1);

/// … and how long after that word: until all nodes know the new routes.
const LINGERS_ON: Duration = Duration::from_millis(150);

/// Longest wait for late messages, and so for being handed over again.
const LATE_WITHIN: Duration = Duration::from_millis(1300);

/// Longest wait for the part of a queue that lies in the store.
const GATHERED_WITHIN: Duration = Duration::from_millis(500);

/// Subscriptions that are restored with one request to the router.
const RESTORED_AT_ONCE: usize = 1024;

/// Clients, operator → Session: end, whatever the session's expiry.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Discard;

/// Clients → Session: another node has your client. Its transport is told 0x8E. Answered with nothing when
/// the session ended with that.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "Option<Parcel>")]
pub struct Pack;

/// A session on its way to another node.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// See [`crate::session::Session::pack`].
    pub state: Bytes,
    /// Who lingers.
    pub depart: Caster<Depart>,
}

/// Whoever carries it → Session: the other node has the subscriptions in place. Answered with what came since
/// it was packed.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Depart {
    /// Takes what came; dropped if the session falls before.
    pub late: oneshot::Sender<Bytes>,
}

/// Whoever carries it → Session: what was delivered to the session before.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Late(pub Bytes);

/// Where a session is on its way.
#[derive(Default)]
pub(super) struct Move {
    /// Dropped when the late messages are in, or are not waited for any longer.
    awaited: Option<oneshot::Sender<()>>,
    /// Dropped when the queue is in memory, as far as it may go along.
    gathered: Option<oneshot::Sender<()>>,
    /// Resolves when the late messages are in; taken by who waits.
    awaits: Option<oneshot::Receiver<()>>,
    /// The session before was not resumed: what comes late is for nobody.
    clean: bool,
}

impl Move {
    /// Whether deliveries stay in the inbox.
    pub(super) fn holds(&self) -> bool {
        self.awaited.is_some()
    }
}

impl Past {
    /// The value of a session that starts here, its place in the store if it has one, and what it causes.
    pub(super) fn value(
        &self,
        client_id: &ByteString,
        limits: &Grants,
    ) -> (Value, Option<Lasting>, Vec<Effect>) {
        let mut effects = Vec::new();
        let moved = match self {
            Self::None => return (Value::new(client_id.clone()), None, effects),
            Self::Stored(stored, _) => {
                let limits = limits.of(stored.record.guest.as_ref());
                let (value, lasting) = keeping::restored((**stored).clone(), limits, &mut effects);
                return (value, Some(lasting), effects);
            }
            Self::Moved(moved) => moved,
        };
        let unpacked = Value::unpack(client_id.clone(), moved, Instant::now(), &mut effects);
        let value = unpacked.unwrap_or_else(|error| {
            tracing::error!(client = %client_id, %error, "the session of another node is lost");
            Value::new(client_id.clone())
        });
        (value, None, effects)
    }
}

impl Session {
    /// It has come from another node: its subscriptions are put in place.
    pub(super) fn settle(&mut self, clean: bool, ctx: &mut Context<Self>) {
        self.moving.clean = clean;
        if !clean {
            let (awaited, awaits) = oneshot::channel();
            self.moving.awaited = Some(awaited);
            self.moving.awaits = Some(awaits);
            ctx.run_later(LATE_WITHIN, |session, _| session.await_no_longer());
        }
        self.restore_rows(ctx);
    }

    /// Puts the subscriptions that the value has in place.
    pub(super) fn restore_rows(&mut self, ctx: &mut Context<Self>) {
        let subscriptions = self.value.subscriptions();
        let mut requests: Vec<_> = subscriptions
            .map(|(filter, subscription)| SubscribeRequest {
                filter: filter.clone(),
                options: subscription.options,
                subscription_identifier: subscription.identifier,
                send_retained: false,
            })
            .collect();
        // Rules may differ by now; what may not be subscribed to brings nothing.
        self.sift(&mut requests);
        if requests.is_empty() {
            return self.settled(ctx);
        }
        for requests in requests.chunks(RESTORED_AT_ONCE) {
            let requests = requests.to_vec();
            self.ask(Ask::Restore { requests }, ctx);
        }
    }

    /// All subscriptions are in place.
    pub(super) fn settled(&mut self, ctx: &mut Context<Self>) {
        if self.revived(ctx) {
            // It was here before.
            return;
        }
        if let Some(keeper) = self.seat.office.tables().keeper() {
            keeper.settled(self.value.client_id(), ctx.myself().caster());
        }
    }

    fn await_no_longer(&mut self) {
        self.moving.awaited = None;
        self.seat.port.wake.wake();
    }

    /// Takes everything out of the inbox.
    fn collect(&mut self, now: Instant, ctx: &mut Context<Self>) {
        while let Some(delivery) = self.seat.port.pop() {
            self.take_delivery(delivery, now, ctx);
        }
    }

    /// Has what of the queue lies in the store alone read, as much as may go along.
    fn gather(&mut self, ctx: &mut Context<Self>) -> impl ActorFuture<Self, Output = ()> + use<> {
        let (now, mut effects) = (Instant::now(), Vec::new());
        self.value.gather(now, &mut effects);
        for effect in effects {
            self.carry_out(effect, now, ctx);
        }
        let (gathered, all) = oneshot::channel();
        self.moving.gathered = Some(gathered);
        self.note_gathered();
        let waited = async move {
            // What is not there by then stays behind, and is counted.
            let _ = tokio::time::timeout(GATHERED_WITHIN, all).await;
        };
        waited.into_actor(self)
    }

    /// A piece of the queue has come.
    pub(super) fn note_gathered(&mut self) {
        if self.value.unfetched().is_none() {
            self.moving.gathered = None;
        }
    }

    fn pack(&mut self, ctx: &mut Context<Self>) -> Option<Parcel> {
        if self.ended {
            return None;
        }
        let now = Instant::now();
        self.moving.awaited = None;
        self.collect(now, ctx);
        let mut effects = Vec::new();
        let state = self.value.pack(now, &mut effects);
        for effect in effects {
            self.carry_out(effect, now, ctx);
        }
        // A turn follows, which tells what is held now.
        self.seat.port.wake.wake();
        let state = state?;
        ctx.run_later(LINGERS_WITHIN, |session, ctx| session.depart(None, ctx));
        Some(Parcel {
            state,
            depart: ctx.myself().caster(),
        })
    }

    fn depart(&mut self, late: Option<oneshot::Sender<Bytes>>, ctx: &mut Context<Self>) {
        if self.ended {
            return;
        }
        let now = Instant::now();
        self.collect(now, ctx);
        if let Some(late) = late {
            let mut effects = Vec::new();
            let arrives = late.send(self.value.pack_late(now, &mut effects)).is_ok();
            for effect in effects {
                self.carry_out(if arrives { effect } else { unmoved(effect) }, now, ctx);
            }
        }
        self.handle(Event::Discard, now, ctx);
    }

    fn admit(&mut self, late: &Bytes, ctx: &mut Context<Self>) {
        let (now, mut effects) = (Instant::now(), Vec::new());
        let admitted = if self.moving.clean {
            // Counted: it is for the session that was discarded.
            Value::new(ByteString::new()).admit_late(late, now, &mut effects)
        } else {
            self.value.admit_late(late, now, &mut effects)
        };
        match admitted {
            Ok(messages) => {
                let (twins, kept) = self.seat.port.drop_twins(&messages);
                self.seat.office.counters().dropped_twin.add(twins);
                kept.into_iter().for_each(|seq| self.note_settled(seq));
            }
            Err(error) => {
                tracing::error!(client = %self.value.client_id(), %error, "late messages are lost");
            }
        }
        for effect in effects {
            self.carry_out(effect, now, ctx);
        }
        self.await_no_longer();
    }
}

/// What does not go with its session after all.
fn unmoved(effect: Effect) -> Effect {
    match effect {
        Effect::Count(Counted::MovedAway) => Effect::Count(Counted::DroppedNotMoved),
        other => other,
    }
}

impl Handler<Discard> for Session {
    type Result = ();

    fn handle(&mut self, _: Discard, ctx: &mut Context<Self>) {
        self.handle(Event::Discard, Instant::now(), ctx);
    }
}

impl Handler<Pack> for Session {
    type Result = ResponseActFuture<Self, Option<Parcel>>;

    fn handle(&mut self, _: Pack, ctx: &mut Context<Self>) -> Self::Result {
        self.handle(Event::TakenOver, Instant::now(), ctx);
        self.seat.port.wake.wake();
        let late = self.moving.awaits.take().filter(|_| self.moving.holds());
        let waited = async move {
            if let Some(late) = late {
                // Bounded by `LATE_WITHIN`; an error says that it is over, too.
                let _ = late.await;
            }
        };
        let gathered = |(), session: &mut Self, ctx: &mut Context<Self>| session.gather(ctx);
        let packed = |(), session: &mut Self, ctx: &mut Context<Self>| session.pack(ctx);
        Box::pin(waited.into_actor(self).then(gathered).map(packed))
    }
}

impl Handler<Depart> for Session {
    type Result = ();

    fn handle(&mut self, Depart { late }: Depart, ctx: &mut Context<Self>) {
        ctx.run_later(LINGERS_ON, |session, ctx| session.depart(Some(late), ctx));
    }
}

impl Handler<Late> for Session {
    type Result = ();

    fn handle(&mut self, Late(late): Late, ctx: &mut Context<Self>) {
        self.admit(&late, ctx);
    }
}
