//! The retainer: sole writer of the retained messages.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the store belongs to the tables
//! Asked by: publishers ([`Request::Retain`]), sessions ([`Request::Replay`]), links ([`Request::Merge`]),
//!           through its tray
//! Tells:    Session ([`Replay`]), links ([`Merged`])
//! Dies of:  our bugs only; a store torn by a panic inside a write is escalated by a failing `init`

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message as ActixMessage};
use supervisors::{Caster, ChildSpec, Context, InitError};

use super::counters::Counters;
use super::links::{Merged, Replicated};
use super::mail::MESSAGE_OVERHEAD;
use super::session::Replay;
use super::tables::Tables;
use super::tray::{Bell, Burden};
use crate::mqtt::message::Message;
use crate::routing::retained::{RetainOutcome, RetainedStore, Told};
use crate::routing::stamps::{Stamp, wall_us};
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
    Retain {
        /// The message.
        message: Arc<Message>,
        /// When and where, unless it is this node's own (`$SYS`).
        stamp: Option<Stamp>,
    },
    /// Another node has these.
    Merge {
        /// No more than a frame holds.
        replicated: Vec<Replicated>,
        /// Who is told when that is done.
        to: Caster<Merged>,
    },
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
                Self::Retain { message, .. } => message.weight() + MESSAGE_OVERHEAD,
                Self::Merge { replicated, .. } => replicated.iter().map(weight).sum(),
                Self::Replay { requests, .. } => size_of_val(&**requests),
            }
    }
}

fn weight(replicated: &Replicated) -> usize {
    size_of::<Replicated>()
        + match replicated {
            Replicated::Message(message, _) => message.weight() + MESSAGE_OVERHEAD,
            Replicated::Tombstone(told) => told.topic.len(),
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
    /// When it was last logged that the store is full, or a clock wrong.
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
            retainer.with(|store| store.expire(Instant::now(), wall_us()));
        });
        Ok(Self {
            tables: tables.clone(),
            warned: None,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut RetainedStore) -> T) -> T {
        // Only this actor writes; had it torn the store, `init` would have refused to run.
        let retained = &self.tables.retained;
        let mut store = retained.lock().unwrap_or_else(PoisonError::into_inner);
        if self.tables.linked.load(Relaxed) {
            store.share();
        }
        act(&mut store)
    }

    fn work_off(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..REQUESTS_PER_BELL {
            match self.tables.for_retainer.take() {
                Some(Request::Retain { message, stamp }) => self.retain(&message, stamp.as_ref()),
                Some(Request::Merge { replicated, to }) => {
                    replicated.iter().for_each(|replicated| self.merge(replicated));
                    // A link that is gone begins anew.
                    let _ = to.cast(Merged);
                }
                // A session that is gone needs nothing.
                Some(Request::Replay { requests, to }) => {
                    let until = self.with(|store| store.count());
                    drop(to.cast(Replay { requests, until }));
                }
                None => return,
            }
        }
        ctx.notify(Bell);
    }

    fn merge(&mut self, replicated: &Replicated) {
        match replicated {
            Replicated::Message(message, stamp) => self.retain(message, Some(stamp)),
            Replicated::Tombstone(Told { topic, known }) => {
                let Some(died_us) = known.died_us else { return };
                if self.is_believed(topic, &known.stamp) {
                    self.with(|store| store.merge_tombstone(topic, &known.stamp, died_us, wall_us()));
                }
            }
        }
    }

    fn retain(&mut self, message: &Arc<Message>, stamp: Option<&Stamp>) {
        let outcome = match stamp {
            Some(stamp) if !self.is_believed(&message.topic, stamp) => return,
            Some(stamp) => self.with(|store| store.merge(message, stamp)),
            None => self.with(|store| store.set(message)),
        };
        if matches!(outcome, RetainOutcome::Full) {
            self.counters().retained_refused.one();
            if self.may_warn() {
                let topic = &message.topic;
                tracing::warn!(%topic, "not retained: the store of retained messages is full");
            }
        }
    }

    /// Whether the time of a write of another node can be; our own clock goes on behind it then.
    fn is_believed(&mut self, topic: &str, stamp: &Stamp) -> bool {
        if stamp.node == self.tables.node.name {
            return true;
        }
        let Err(ahead) = self.tables.clock.observe(stamp.time, wall_us()) else {
            return true;
        };
        self.counters().retained_ahead.one();
        if self.may_warn() {
            let node = &stamp.node;
            tracing::warn!(
                %topic,
                "not retained: {node} wrote it {ahead}, one of the two clocks is wrong; set them by NTP"
            );
        }
        false
    }

    fn counters(&self) -> &Counters {
        &self.tables.counters[self.tables.arbiters.control()]
    }

    /// A flood of refusals must not become a flood of the log; the counters have them all.
    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let warned = self
            .warned
            .filter(|warned| now.duration_since(*warned) < WARN_INTERVAL);
        self.warned = warned.or(Some(now));
        warned.is_none()
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
