//! Leave to serve a CONNECT, where there are other nodes; and sessions that leave for one of them.

use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, ResponseFuture, WrapFuture};
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::{Context, ExitReason};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Answer, Clients, Connect, ConnectError, Phase};
use crate::broker::links::Claimed;
use crate::broker::session::{Discard, Pack, Parcel, Past};
use crate::broker::tables::Tables;

/// Longest wait for leave; then a CONNECT is served here. Who gives leave takes at most 4 s; a connection
/// gives up after 5 s.
const CLAIMED_WITHIN: Duration = Duration::from_millis(4200);

/// Pause before who has fallen is asked again; it is back in milliseconds.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Times that who falls again and again is asked.
const ASKED_MAX: usize = 20;

/// A session that does not pack itself within this is stuck, and killed. It may wait for late messages of its
/// own for 1.3 s; the other node waits 2 s.
const PACKED_WITHIN: Duration = Duration::from_millis(1800);

/// The keeper of ownership → Clients: the client is served by another node from now on. Answered with its
/// session, if that outlives its connection and is wanted.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "Option<Parcel>")]
pub struct TakeAway {
    /// Which client.
    pub client_id: ByteString,
    /// Whether the session is wanted; otherwise it is discarded.
    pub keep: bool,
}

/// A [`TakeAway`] that waits.
pub(super) struct Departure {
    keep: bool,
    answer: oneshot::Sender<Option<Parcel>>,
}

/// Asks for leave to serve a client here; nobody answers if there is none.
async fn leave(tables: Arc<Tables>, client_id: ByteString) -> Option<Claimed> {
    let deadline = Instant::now() + CLAIMED_WITHIN;
    for _ in 0..ASKED_MAX {
        let Some(keeper) = tables.keeper() else { break };
        let (answer, answered) = oneshot::channel();
        keeper.claim(&client_id, answer);
        match timeout_at(deadline, answered).await {
            Ok(Ok(claimed)) => return Some(claimed),
            Ok(Err(_)) => sleep(ASKED_AGAIN_AFTER).await,
            Err(_) => break,
        }
    }
    tracing::warn!(client = %client_id, "served without leave of the other nodes: nobody could be asked");
    None
}

impl Clients {
    /// Asks for leave, then gives the CONNECT to a session.
    pub(super) fn claim(&mut self, connect: Connect, answer: Answer, ctx: &mut Context<Self>) {
        let asked = leave(self.tables.clone(), connect.client_id.clone()).into_actor(self);
        ctx.spawn(asked.map(|claimed, clients, ctx| match claimed {
            Some(Claimed::Open(moved)) => clients.let_through(connect, moved, answer, ctx),
            Some(Claimed::Overtaken) => {
                let _ = answer.send(Err(ConnectError::Overtaken));
                clients.served(&connect.client_id, ctx);
            }
            None => {
                let client_id = connect.client_id.clone();
                clients.let_through(connect, None, answer, ctx);
                // It is known now. Other nodes hear of it all the same, or of a later one there it ends.
                if let Some(keeper) = clients.tables.keeper() {
                    keeper.claim(&client_id, oneshot::channel().0);
                }
            }
        }));
    }

    fn let_through(
        &mut self,
        connect: Connect,
        moved: Option<Bytes>,
        answer: Answer,
        ctx: &mut Context<Self>,
    ) {
        if let Some(turnstile) = self.turnstiles.get_mut(&connect.client_id) {
            turnstile.phase = Phase::Serving;
        }
        self.attempt(connect, moved.map_or(Past::None, Past::Moved), answer, ctx);
    }

    /// A CONNECT was served, or was not: what waited for that is next.
    pub(super) fn served(&mut self, client_id: &ByteString, ctx: &mut Context<Self>) {
        if let Some(turnstile) = self.turnstiles.get_mut(client_id) {
            turnstile.phase = Phase::Free;
            for departure in std::mem::take(&mut turnstile.departures) {
                self.take_away(client_id, departure, ctx);
            }
        }
        self.serve(client_id, ctx);
    }

    fn take_away(&mut self, client_id: &ByteString, departure: Departure, ctx: &mut Context<Self>) {
        // From now on it is none of ours: a session of this client that comes next has another name.
        let known = self.table(|table| table.remove(client_id));
        let Some(session) = known.and_then(|known| known.session.whereis()) else {
            let _ = departure.answer.send(None);
            return;
        };
        let packed = async move {
            if !departure.keep {
                // One that is ending needs no telling.
                let _ = session.cast(Discard);
                let _ = departure.answer.send(None);
                return;
            }
            let parcel = timeout(PACKED_WITHIN, session.call(Pack)).await;
            if parcel.is_err() {
                session.pid().exit(ExitReason::Killed);
            }
            let _ = departure.answer.send(parcel.ok().and_then(Result::ok).flatten());
        };
        ctx.spawn(packed.into_actor(self));
    }
}

impl Handler<TakeAway> for Clients {
    type Result = ResponseFuture<Option<Parcel>>;

    fn handle(&mut self, TakeAway { client_id, keep }: TakeAway, ctx: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let departure = Departure { keep, answer };
        match self.turnstiles.get_mut(&client_id) {
            Some(turnstile) if turnstile.phase == Phase::Serving => turnstile.departures.push(departure),
            _ => self.take_away(&client_id, departure, ctx),
        }
        Box::pin(async move { answered.await.unwrap_or(None) })
    }
}
