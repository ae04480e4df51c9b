//! Sessions that come back from the store: all of them when the node starts, and one that has crashed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, WrapFuture};
use bytestring::ByteString;
use supervisors::Context;
use tokio::sync::oneshot;

use super::{Clients, Phase};
use crate::broker::session::{Claim, Past, Ticket, wall_ms};
use crate::broker::storage::Storage;
use crate::broker::tables::Tables;
use crate::session::lasting::Restored;

/// Times that a session which falls is fetched from the store before it is left there until its client comes.
const REVIVED_MAX: u32 = 3;

/// Within this time.
const REVIVED_WITHIN: Duration = Duration::from_secs(60);

/// Revival → Clients: start this session again. It is done when the ticket is dropped.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Revive {
    /// What the store has of it.
    pub restored: Box<Restored>,
    /// Dropped when its subscriptions are in place, or it could not be started.
    pub ticket: Ticket,
}

/// What the store has of a client's session.
pub(super) async fn past_of(tables: Arc<Tables>, storage: Arc<dyn Storage>, client_id: ByteString) -> Past {
    let (answer, answered) = oneshot::channel();
    let orphan = tables.orphans.of(&client_id);
    let before = orphan.map(|orphan| orphan.from);
    storage.session_of(
        &client_id,
        before,
        Box::new(move |found| drop(answer.send(found))),
    );
    match answered.await {
        Ok(Ok(Some(mut restored))) => {
            // That of a client that was connected was published when its session fell. One that waits for its
            // delay waits on with Wills, which publishes it once; its session may cancel it.
            let is_away = restored.record.away_since_ms.is_some();
            let waits = |due_ms: u64| is_away && due_ms > wall_ms();
            restored.record.will = restored.record.will.take().filter(|(_, due_ms)| waits(*due_ms));
            // It is known what was sent: it is only the session that has fallen.
            restored.record.away_since_ms.get_or_insert_with(wall_ms);
            Past::Stored(Box::new(restored), Ticket::of_fallen(orphan))
        }
        Ok(Ok(None)) => Past::None,
        Ok(Err(error)) => {
            tracing::error!(client = %client_id, %error, "its session begins anew");
            Past::None
        }
        Err(_) => Past::None,
    }
}

impl Clients {
    /// A session has fallen. What its client was promised is in the store, if it was promised anything.
    pub(super) fn revive_fallen(&mut self, client_id: ByteString, ctx: &mut Context<Self>) {
        let turnstile = self.turnstiles.entry(client_id.clone()).or_default();
        if turnstile.phase != Phase::Free {
            // The CONNECT that is being served asks the store.
            return;
        }
        let Some(storage) = self
            .tables
            .storage
            .clone()
            .filter(|_| self.may_revive(&client_id))
        else {
            self.table(|table| table.get_mut(&client_id).map(|known| known.is_left = true));
            return self.serve(&client_id, ctx);
        };
        if let Some(turnstile) = self.turnstiles.get_mut(&client_id) {
            turnstile.phase = Phase::Serving;
        }
        let found = past_of(self.tables.clone(), storage, client_id.clone());
        ctx.spawn(found.into_actor(self).map(move |past, clients, ctx| match past {
            Past::Stored(..) => clients.revive(client_id, past, ctx),
            Past::None | Past::Moved(_) => clients.revived(&client_id, ctx),
        }));
    }

    /// Whether it has not fallen too often.
    fn may_revive(&mut self, client_id: &ByteString) -> bool {
        let now = Instant::now();
        self.fallen
            .retain(|_, (_, since)| now.duration_since(*since) < REVIVED_WITHIN);
        let (times, _) = self.fallen.entry(client_id.clone()).or_insert((0, now));
        *times += 1;
        if *times == REVIVED_MAX + 1 {
            tracing::error!(client = %client_id, "its session falls again and again: left in the store");
        }
        *times <= REVIVED_MAX
    }

    fn revive(&mut self, client_id: ByteString, past: Past, ctx: &mut Context<Self>) {
        self.next_worker = (self.next_worker + 1) % self.tables.arbiters.workers;
        let worker = past.worker().unwrap_or(self.next_worker);
        let started = self.start_child(&client_id, worker, &Claim::none(), &past);
        ctx.spawn(started.into_actor(self).map(move |started, clients, ctx| {
            // Of one that could not be started.
            if let Past::Stored(_, ticket) = &past {
                ticket.give_up();
            }
            match started {
                Ok(pid) => {
                    clients.watch(client_id.clone(), &pid, ctx);
                    clients.revived(&client_id, ctx);
                }
                Err(error) => {
                    tracing::error!(client = %client_id, %error, "its session could not be started again");
                    if let Some(turnstile) = clients.turnstiles.get_mut(&client_id) {
                        turnstile.phase = Phase::Free;
                    }
                    // Until it has failed too often.
                    clients.revive_fallen(client_id, ctx);
                }
            }
        }));
    }

    fn revived(&mut self, client_id: &ByteString, ctx: &mut Context<Self>) {
        if let Some(turnstile) = self.turnstiles.get_mut(client_id) {
            turnstile.phase = Phase::Free;
        }
        self.forget_if_gone(client_id);
        self.served(client_id, ctx);
    }
}

impl Handler<Revive> for Clients {
    type Result = ();

    fn handle(&mut self, Revive { restored, ticket }: Revive, ctx: &mut Context<Self>) {
        let client_id = restored.record.client_id.clone();
        let lives = self.table(|table| Some(table.get(&client_id)?.session.whereis().is_some()));
        if lives == Some(true) {
            // It is only the revival that has fallen.
            return ticket.give_up();
        }
        let turnstile = self.turnstiles.entry(client_id.clone()).or_default();
        if turnstile.phase == Phase::Free {
            turnstile.phase = Phase::Serving;
            self.revive(client_id, Past::Stored(restored, ticket), ctx);
        }
    }
}
