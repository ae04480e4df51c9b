//! The retainer: sole writer of the retained messages.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the store belongs to the tables
//! Asked by: publishers ([`Request::Retain`]), sessions ([`Request::Replay`]), through its tray
//! Tells:    Session ([`Replay`])
//! Dies of:  our bugs only; a store torn by a panic inside a write is escalated by a failing `init`

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message as ActixMessage};
use supervisors::{Caster, ChildSpec, Context, InitError};

use super::mail::MESSAGE_OVERHEAD;
use super::session::Replay;
use super::tables::Tables;
use super::tray::{Bell, Burden};
use crate::mqtt::message::Message;
use crate::routing::retained::{RetainOutcome, RetainedStore};
use crate::session::event::SubscribeRequest;

/// How often expired messages are looked for; matching never returns one in between.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two lines of the log about a full store.
const WARN_INTERVAL: Duration = Duration::from_secs(1);

/// Requests that are done before others of this arbiter have their turn.
const REQUESTS_PER_BELL: usize = 256;

/// Anyone → Retainer, through its tray.
#[derive(Clone, Debug)]
pub enum Request {
    /// This message was published with the retain flag.
    Retain(Arc<Message>),
    /// These subscriptions are to get what is retained. Answered, when everything is in the store that was
    /// asked before, by handing them back: the session reads the store itself, as fast as its client does.
    /// Shared subscriptions are not among them `[MQTT-4.8]`.
    Replay {
        /// The subscriptions.
        requests: Vec<SubscribeRequest>,
        /// The session.
        to: Caster<Replay>,
    },
}

impl Burden for Request {
    fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Retain(message) => message.weight() + MESSAGE_OVERHEAD,
                Self::Replay { requests, .. } => size_of_val(&**requests),
            }
    }
}

/// Asks the retainer; it does what it is asked in order, also when it falls in between.
pub fn ask(tables: &Tables, request: Request) {
    tables.for_retainer.lay(request, &tables.names.retainer);
}

/// Anyone → Retainer: how many messages are retained.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "usize")]
pub struct RetainedLen;

/// The retainer.
pub struct Retainer {
    tables: Arc<Tables>,
    /// When it was last logged that the store is full.
    warned: Option<Instant>,
}

impl Retainer {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Self::init(&made, ctx);
        ChildSpec::worker("retainer", tables.arbiters.control_handle(), init).name(&tables.names.retainer)
    }

    fn init(tables: &Arc<Tables>, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        if tables.retained.is_poisoned() {
            return Err(InitError::failed("the retained messages are torn"));
        }
        ctx.run_interval(EXPIRY_INTERVAL, |retainer, _| {
            let now = Instant::now();
            retainer.with(|store| {
                if store.next_expiry().is_some_and(|due| due <= now) {
                    store.expire(now);
                }
            });
        });
        Ok(Self {
            tables: tables.clone(),
            warned: None,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut RetainedStore) -> T) -> T {
        // Only this actor writes; had it torn the store, `init` would have refused to run.
        act(&mut self
            .tables
            .retained
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn work_off(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..REQUESTS_PER_BELL {
            match self.tables.for_retainer.take() {
                Some(Request::Retain(message)) => self.retain(&message),
                // A session that is gone needs nothing.
                Some(Request::Replay { requests, to }) => {
                    let until = self.with(|store| store.stamp());
                    drop(to.cast(Replay { requests, until }));
                }
                None => return,
            }
        }
        ctx.notify(Bell);
    }

    fn retain(&mut self, message: &Arc<Message>) {
        if matches!(self.with(|store| store.set(message)), RetainOutcome::Full) {
            self.tables.counters[self.tables.arbiters.control()]
                .retained_refused
                .one();
            let now = Instant::now();
            // A flood of them must not become a flood of the log; the counter has them all.
            if self
                .warned
                .is_none_or(|warned| now.duration_since(warned) >= WARN_INTERVAL)
            {
                self.warned = Some(now);
                let topic = &message.topic;
                tracing::warn!(%topic, "not retained: the store of retained messages is full");
            }
        }
    }
}

impl Actor for Retainer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // What was asked while nobody heard the bell.
        self.work_off(ctx);
    }
}

impl Handler<Bell> for Retainer {
    type Result = ();

    fn handle(&mut self, _: Bell, ctx: &mut Context<Self>) {
        self.work_off(ctx);
    }
}

impl Handler<RetainedLen> for Retainer {
    type Result = usize;

    fn handle(&mut self, _: RetainedLen, _: &mut Context<Self>) -> usize {
        self.with(|store| store.len())
    }
}
