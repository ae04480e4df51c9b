//! Clients: client id → session; one CONNECT at a time for each id.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     the CONNECTs that wait for their turn (their connections ask again); the table of clients
//!           belongs to `core`
//! Asked by: Connection ([`Connect`]), Session ([`Fact`], through its tray), operators
//! Tells:    sessions (start), Session ([`Reattach`], [`Kick`], [`Pack`]), the keeper of ownership, if any
//! Dies of:  our bugs only; its next life watches every session that the table knows

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use actix::{
    Actor, ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, ResponseFuture, WrapFuture,
};
use ahash::AHashMap;
use bytestring::ByteString;
use supervisors::{CallError, ChildSpec, Context, Down, ExitReason, InitError, Name, Pid, Ref, StartError};
use tokio::sync::oneshot;

use self::departures::Departure;
use super::session::{Claim, Kick, Past, Reattach, Session};
use super::tables::Tables;
use super::tray::{Bell, Burden};
use crate::mqtt::reason::ReasonCode;

mod departures;
mod listing;
mod reviving;

#[cfg(doc)]
use super::session::Pack;
pub use departures::TakeAway;
pub use listing::{count, known, page, served, tell_wills};
pub use reviving::Revive;

/// A session that does not take a new transport over within this is stuck, and killed.
const REATTACH_WITHIN: Duration = Duration::from_secs(2);

/// Pause before a session is started again whose predecessor has not quite ended.
const START_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How long after a restart a client without a session is kept in the table.
const UNSURE_FOR: Duration = Duration::from_secs(5);

/// CONNECTs with one client id that wait; the oldest gives way, as it would be taken over anyway.
const WAITING_MAX: usize = 16;

/// Connection → Clients: a CONNECT was read and allowed. Answered when a session has taken it over.
#[derive(Debug, ActixMessage)]
#[rtype(result = "Result<(), ConnectError>")]
pub struct Connect {
    /// The client id, assigned if the client gave none.
    pub client_id: ByteString,
    /// The worker that has read the CONNECT; a new session starts there.
    pub worker: usize,
    /// The socket, until a session takes it.
    pub claim: Claim,
}

/// Why no session took a CONNECT. The socket still lies in the claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    /// No session could be started, or none in time.
    #[error("no session could be started for it")]
    Unavailable,
    /// Another connection of the same client came later.
    #[error("a later connection of the same client took its place")]
    Overtaken,
}

impl ConnectError {
    /// What the client is told.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Unavailable => ReasonCode::ServerUnavailable,
            Self::Overtaken => ReasonCode::SessionTakenOver,
        }
    }
}

/// Facts that are noted before others of this arbiter have their turn.
const FACTS_PER_BELL: usize = 256;

/// Session → Clients, through its tray. A session that crashes tells nothing: whoever must know monitors it.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A transport was attached: of which client, which session, which user.
    Attached(ByteString, Ref<Session>, Option<ByteString>),
    /// The transport is gone: the session waits for the next, or is over.
    Away(ByteString, Pid),
}

impl Burden for Fact {}

/// Tells Clients; it notes what it is told in order, also when it falls in between.
pub fn tell(tables: &Tables, fact: Fact) {
    tables.for_clients.lay(fact, &tables.names.clients);
}

/// Operator → Clients: every session, in no order.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "Vec<Known>")]
pub struct ListClients;

/// Operator → Clients: end the connection of a client. Answered by whether there is such a client.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "bool")]
pub struct KickClient(pub ByteString, pub ReasonCode);

/// One session, as the table of clients knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The client id.
    pub client_id: ByteString,
    /// Where its session is found.
    pub session: Name<Session>,
    /// Whether a client is connected to it.
    pub attached: bool,
    /// When the session began.
    pub since: SystemTime,
    /// When a client was attached to it last.
    pub served: SystemTime,
    /// The user that the client proved to be; `None` is an anonymous one.
    pub username: Option<ByteString>,
    /// Its session has fallen too often, and lies in the store until the client comes.
    pub is_left: bool,
}

/// Client id → session; written by Clients only.
pub type ClientTable = AHashMap<ByteString, Known>;

type Answer = oneshot::Sender<Result<(), ConnectError>>;

/// What waits for one client id.
#[derive(Default)]
struct Turnstile {
    phase: Phase,
    waiting: VecDeque<(Connect, Answer)>,
    /// Other nodes that are to have the session, as soon as the CONNECT that is being served is.
    departures: Vec<Departure>,
}

/// What is done for one client id.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Free,
    /// A CONNECT waits for leave.
    Claiming,
    /// A CONNECT is given to a session.
    Serving,
}

/// The keeper of client ids.
pub struct Clients {
    tables: Arc<Tables>,
    turnstiles: AHashMap<ByteString, Turnstile>,
    pids: AHashMap<Pid, ByteString>,
    /// How often sessions have fallen lately, since when.
    fallen: AHashMap<ByteString, (u32, Instant)>,
    /// Where the session is started that comes next from the store.
    next_worker: usize,
}

/// What came of one attempt to give a CONNECT to a session.
enum Attempt {
    Taken,
    Refused,
    /// The session is ending; again as soon as it has.
    Again,
}

impl Clients {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Self::init(&made, ctx);
        ChildSpec::worker("clients", tables.arbiters.control_handle(), init).name(&tables.names.clients)
    }

    fn init(tables: &Arc<Tables>, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        if tables.clients.is_poisoned() {
            return Err(InitError::failed("the table of clients is torn"));
        }
        let mut clients = Self {
            tables: tables.clone(),
            turnstiles: AHashMap::default(),
            pids: AHashMap::default(),
            fallen: AHashMap::default(),
            next_worker: 0,
        };
        let mut unsure = Vec::new();
        let known: Vec<Known> = clients.table(|table| table.values().cloned().collect());
        for Known {
            client_id, session, ..
        } in known
        {
            match session.whereis() {
                Some(session) => clients.watch(client_id, session.pid(), ctx),
                None => unsure.push(client_id),
            }
        }
        // Ended while nobody watched, or just starting: by then it is clear which.
        ctx.run_later(UNSURE_FOR, move |clients, _| {
            for client_id in unsure {
                clients.forget_if_gone(&client_id);
            }
        });
        Ok(clients)
    }

    fn table<T>(&self, act: impl FnOnce(&mut ClientTable) -> T) -> T {
        // Only this actor writes; had it torn the table, `init` would have refused to run.
        act(&mut self.tables.clients.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watch(&mut self, client_id: ByteString, session: &Pid, ctx: &mut Context<Self>) {
        if self.pids.insert(session.clone(), client_id).is_none() {
            ctx.monitor(session);
        }
    }

    /// Lets the next CONNECT of a client through, unless one is being served.
    fn serve(&mut self, client_id: &ByteString, ctx: &mut Context<Self>) {
        let Some(turnstile) = self.turnstiles.get_mut(client_id) else {
            return;
        };
        if turnstile.phase != Phase::Free {
            return;
        }
        let Some((connect, answer)) = turnstile.waiting.pop_front() else {
            self.turnstiles.remove(client_id);
            return;
        };
        // A node that never had a link asks nobody.
        if self.tables.keeper().is_none() {
            turnstile.phase = Phase::Serving;
            return self.attempt(connect, Past::None, answer, ctx);
        }
        turnstile.phase = Phase::Claiming;
        self.claim(connect, answer, ctx);
    }

    fn attempt(&mut self, connect: Connect, past: Past, answer: Answer, ctx: &mut Context<Self>) {
        let present = self.table(|table| table.get(&connect.client_id)?.session.whereis());
        if let Some(session) = present {
            self.watch(connect.client_id.clone(), session.pid(), ctx);
            let taken = reattach(session, connect.claim.clone());
            ctx.spawn(
                taken
                    .into_actor(self)
                    .map(|came, clients, ctx| clients.tried(came, connect, past, answer, ctx)),
            );
        } else {
            self.start(connect, past, answer, ctx);
        }
    }

    /// Starts a session. Of a client whose session has fallen the store is asked what it had.
    fn start(&mut self, connect: Connect, past: Past, answer: Answer, ctx: &mut Context<Self>) {
        let fallen = self.table(|table| table.contains_key(&connect.client_id));
        let storage = self.tables.storage.clone();
        match storage.filter(|_| fallen && matches!(past, Past::None)) {
            None => self.start_with(connect, past, answer, ctx),
            Some(storage) => {
                let found = reviving::past_of(self.tables.clone(), storage, connect.client_id.clone());
                ctx.spawn(found.into_actor(self).map(|past, clients, ctx| {
                    clients.start_with(connect, past, answer, ctx);
                }));
            }
        }
    }

    fn start_with(&mut self, connect: Connect, past: Past, answer: Answer, ctx: &mut Context<Self>) {
        let worker = past.worker().unwrap_or(connect.worker);
        let started = self.start_child(&connect.client_id, worker, &connect.claim, &past);
        ctx.spawn(started.into_actor(self).map(|started, clients, ctx| {
            let came = match started {
                Ok(pid) => {
                    clients.watch(connect.client_id.clone(), &pid, ctx);
                    Attempt::Taken
                }
                // It took the socket and failed: nothing is left to try with.
                Err(_) if !connect.claim.is_open() && matches!(past, Past::None) => Attempt::Refused,
                Err(error) => {
                    tracing::debug!(client = %connect.client_id, %error, "a session could not be started");
                    Attempt::Again
                }
            };
            // What is stored may be another by now: it is read anew.
            let stale = matches!((&came, &past), (Attempt::Again, Past::Stored(..)));
            let past = if stale { Past::None } else { past };
            clients.tried(came, connect, past, answer, ctx);
        }));
    }

    /// Has the session of a client started, and writes it into the table.
    fn start_child(
        &self,
        client_id: &ByteString,
        worker: usize,
        claim: &Claim,
        past: &Past,
    ) -> impl Future<Output = Result<Pid, StartError>> + use<> {
        let make = || Known {
            client_id: client_id.clone(),
            session: Name::new("session"),
            attached: false,
            since: SystemTime::now(),
            served: past.served(),
            username: None,
            is_left: false,
        };
        // Before it starts, so that a crash of this actor cannot lose sight of it.
        let name = self.table(|table| {
            let known = table.entry(client_id.clone()).or_insert_with(make);
            known.is_left = false;
            known.session.clone()
        });
        let spec = Session::spec(&self.tables, worker, client_id, claim, past.clone()).name(&name);
        self.tables.names.shard(client_id).start_child(spec)
    }

    fn tried(
        &mut self,
        came: Attempt,
        connect: Connect,
        past: Past,
        answer: Answer,
        ctx: &mut Context<Self>,
    ) {
        let client_id = connect.client_id.clone();
        match came {
            // The connection gives up after a while and closes the answer.
            Attempt::Again if !answer.is_closed() => {
                ctx.run_later(START_AGAIN_AFTER, |clients, ctx| {
                    clients.attempt(connect, past, answer, ctx)
                });
                return;
            }
            Attempt::Taken => drop(answer.send(Ok(()))),
            Attempt::Refused | Attempt::Again => {
                if let Some(turnstile) = self.turnstiles.get_mut(&client_id) {
                    turnstile.phase = Phase::Free;
                }
                self.forget_if_gone(&client_id);
                let _ = answer.send(Err(ConnectError::Unavailable));
            }
        }
        self.served(&client_id, ctx);
    }

    fn note_all(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..FACTS_PER_BELL {
            match self.tables.for_clients.take() {
                Some(Fact::Attached(client_id, session, username)) => {
                    self.watch(client_id.clone(), session.pid(), ctx);
                    self.note(&client_id, session.pid(), |known| {
                        known.attached = true;
                        known.served = SystemTime::now();
                        known.username = username;
                    });
                }
                Some(Fact::Away(client_id, session)) => {
                    self.note(&client_id, &session, |known| known.attached = false);
                }
                None => return,
            }
        }
        ctx.notify(Bell);
    }

    /// What is told of a session that has a successor is not noted.
    fn note(&self, client_id: &ByteString, session: &Pid, change: impl FnOnce(&mut Known)) {
        self.table(|table| {
            if let Some(known) = table.get_mut(client_id)
                && known
                    .session
                    .whereis()
                    .is_none_or(|present| present.pid() == session)
            {
                change(known);
            }
        });
    }

    /// Removes a client from the table unless its session, or a successor of it, lives or is starting.
    fn forget_if_gone(&self, client_id: &ByteString) {
        let starting = self
            .turnstiles
            .get(client_id)
            .is_some_and(|turnstile| turnstile.phase != Phase::Free);
        let gone = self.table(|table| {
            let alive = table
                .get(client_id)
                .is_some_and(|known| known.is_left || known.session.whereis().is_some());
            if !starting && !alive {
                table.remove(client_id);
            }
            !starting && !alive
        });
        if gone && let Some(keeper) = self.tables.keeper() {
            keeper.ended(client_id);
        }
    }
}

/// Gives a transport to a session that lives. One that does not answer is killed: no CONNECT waits for it.
async fn reattach(session: Ref<Session>, claim: Claim) -> Attempt {
    match tokio::time::timeout(REATTACH_WITHIN, session.call(Reattach(claim.clone()))).await {
        Ok(Ok(())) if !claim.is_open() => Attempt::Taken,
        Ok(Ok(()) | Err(CallError::Died | CallError::NotRunning)) if claim.is_open() => Attempt::Again,
        Ok(_) => Attempt::Refused,
        Err(_) => {
            session.pid().exit(ExitReason::Killed);
            if claim.is_open() {
                Attempt::Again
            } else {
                Attempt::Refused
            }
        }
    }
}

impl Actor for Clients {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // What was told while nobody heard the bell.
        self.note_all(ctx);
    }
}

impl Handler<Connect> for Clients {
    type Result = ResponseFuture<Result<(), ConnectError>>;

    fn handle(&mut self, connect: Connect, ctx: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let client_id = connect.client_id.clone();
        let turnstile = self.turnstiles.entry(client_id.clone()).or_default();
        turnstile.waiting.push_back((connect, answer));
        if turnstile.waiting.len() > WAITING_MAX
            && let Some((_, overtaken)) = turnstile.waiting.pop_front()
        {
            let _ = overtaken.send(Err(ConnectError::Overtaken));
        }
        self.serve(&client_id, ctx);
        Box::pin(async move { answered.await.unwrap_or(Err(ConnectError::Unavailable)) })
    }
}

impl Handler<Bell> for Clients {
    type Result = ();

    fn handle(&mut self, _: Bell, ctx: &mut Context<Self>) {
        self.note_all(ctx);
    }
}

impl Handler<Down> for Clients {
    type Result = ();

    fn handle(&mut self, down: Down, ctx: &mut Context<Self>) {
        if let Some(client_id) = self.pids.remove(&down.pid) {
            let fell = !matches!(down.reason, ExitReason::Normal | ExitReason::Shutdown);
            if fell && self.tables.storage.is_some() {
                self.revive_fallen(client_id, ctx);
            } else {
                self.forget_if_gone(&client_id);
            }
        }
    }
}

impl Handler<ListClients> for Clients {
    type Result = Vec<Known>;

    fn handle(&mut self, _: ListClients, _: &mut Context<Self>) -> Vec<Known> {
        self.table(|table| table.values().cloned().collect())
    }
}

impl Handler<KickClient> for Clients {
    type Result = bool;

    fn handle(&mut self, KickClient(client_id, reason): KickClient, _: &mut Context<Self>) -> bool {
        let session = self.table(|table| table.get(&client_id)?.session.whereis());
        session.is_some_and(|session| session.cast(Kick(reason)).is_ok())
    }
}
