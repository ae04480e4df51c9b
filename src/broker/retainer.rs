//! The retainer: sole writer of the retained messages.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the store belongs to the tables
//! Asked by: publishers ([`Retain`]), sessions ([`Replay`])
//! Tells:    Session ([`Retained`])
//! Dies of:  our bugs only; a store torn by a panic inside a write is escalated by a failing `init`

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message as ActixMessage};
use supervisors::{Caster, ChildSpec, Context, InitError};

use super::session::Retained;
use super::tables::Tables;
use crate::mqtt::message::Message;
use crate::routing::retained::{RetainOutcome, RetainedStore};
use crate::session::event::{Delivery, SubscribeRequest};

/// How often expired messages are looked for; matching never returns one in between.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

/// Anyone → Retainer: this message was published with the retain flag.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Retain(pub Arc<Message>);

/// Session → Retainer: these subscriptions are to get what is retained. Answered by batches of
/// deliveries, cast to `to`. Shared subscriptions are not among them `[MQTT-4.8]`.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Replay {
    /// The subscriptions.
    pub requests: Vec<SubscribeRequest>,
    /// The session.
    pub to: Caster<Retained>,
}

/// Anyone → Retainer: how many messages are retained.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "usize")]
pub struct RetainedLen;

/// The retainer.
pub struct Retainer {
    tables: Arc<Tables>,
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
}

impl Actor for Retainer {
    type Context = Context<Self>;
}

impl Handler<Retain> for Retainer {
    type Result = ();

    fn handle(&mut self, Retain(message): Retain, _: &mut Context<Self>) {
        if matches!(self.with(|store| store.set(&message)), RetainOutcome::Full) {
            self.tables.counters[self.tables.arbiters.control()]
                .retained_refused
                .one();
            tracing::warn!(topic = %message.topic, "not retained: the store of retained messages is full");
        }
    }
}

impl Handler<Replay> for Retainer {
    type Result = ();

    fn handle(&mut self, Replay { requests, to }: Replay, _: &mut Context<Self>) {
        let now = Instant::now();
        for request in requests {
            let mut found = Vec::new();
            self.with(|store| {
                store.matching(&request.filter, now, &mut |message| {
                    found.push(Delivery {
                        message: message.clone(),
                        options: request.options,
                        subscription_identifier: request.subscription_identifier,
                        from_retained: true,
                    });
                });
            });
            // A session that is gone needs nothing.
            if !found.is_empty() && to.cast(Retained(found)).is_err() {
                return;
            }
        }
    }
}

impl Handler<RetainedLen> for Retainer {
    type Result = usize;

    fn handle(&mut self, _: RetainedLen, _: &mut Context<Self>) -> usize {
        self.with(|store| store.len())
    }
}
