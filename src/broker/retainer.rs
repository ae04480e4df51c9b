//! The retainer: sole writer of the retained messages.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the store belongs to the tables
//! Asked by: publishers ([`Request::Retain`]), sessions ([`Request::Replay`]), links ([`Request::Merge`]),
//!           through its tray
//! Tells:    Session ([`Replay`]), links ([`Merged`])
//! Dies of:  our bugs only; a store torn by a panic inside a write is escalated by a failing `init`

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler, Message as ActixMessage};
use bytestring::ByteString;
use supervisors::{Caster, ChildSpec, Context, InitError};
use tokio::sync::oneshot;

use super::counters::Counters;
use super::links::{Merged, Replicated, Share};
use super::mail::MESSAGE_OVERHEAD;
use super::session::Replay;
use super::storage::Retained;
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

/// What is read from the store at once.
const PAGE_LEN: usize = 1024;

/// Bytes of it, but for the first message.
const PAGE_BYTES: usize = 1 << 20;

/// Requests that are done before others of this arbiter have their turn.
const REQUESTS_PER_BELL: usize = 256;

/// Anyone → Retainer, through its tray.
#[derive(Debug)]
pub enum Request {
    /// This message was published with the retain flag.
    Retain {
        /// The message.
        message: Arc<Message>,
        /// When and where, unless it is this node's own (`$SYS`).
        stamp: Option<Stamp>,
        /// What its publisher waits for.
        share: Option<Share>,
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
        let init = move || Box::pin(Self::init(made.clone())) as _;
        ChildSpec::worker_async("retainer", tables.arbiters.control_handle(), init)
            .name(&tables.names.retainer)
    }

    async fn init(tables: Arc<Tables>) -> Result<Self, InitError> {
        if tables.retained.is_poisoned() {
            return Err(InitError::failed("the retained messages are torn"));
        }
        let mut retainer = Self { tables, warned: None };
        if !retainer.tables.retained_read.load(Acquire) {
            retainer.read_all().await?;
            retainer.tables.retained_read.store(true, Release);
        }
        Ok(retainer)
    }

    /// Takes in what was retained before this life of `core`.
    async fn read_all(&mut self) -> Result<(), InitError> {
        let Some(storage) = self.tables.storage.clone() else {
            return Ok(());
        };
        let ask = |after: Option<ByteString>| {
            let (answer, answered) = oneshot::channel();
            let answer = Box::new(move |page| drop(answer.send(page)));
            storage.retained(after, PAGE_LEN, PAGE_BYTES, answer);
            answered
        };
        let mut answered = ask(None);
        loop {
            let page = match answered.await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(InitError::failed(error.to_string())),
                Err(_) => return Err(InitError::failed("the store does not answer")),
            };
            let Some((last, _)) = page.last() else { break };
            // The store reads on while this page is taken in.
            answered = ask(Some(last.clone()));
            for (topic, known) in page {
                self.restore(&topic, known);
            }
        }
        Ok(())
    }

    fn restore(&mut self, topic: &ByteString, known: Retained) {
        let (now, now_us) = (Instant::now(), wall_us());
        match known {
            Retained::Message(message, stamp) => {
                // Our own clock may have been ahead before; it goes on behind that.
                let _ = self.tables.clock.observe(stamp.time, now_us);
                if message.expires_at.is_some_and(|at| at <= now) {
                    self.note(topic, Retained::Forgotten);
                } else if let RetainOutcome::Full = self.with(|store| store.merge(&message, &stamp)) {
                    self.counters().retained_refused.one();
                }
            }
            Retained::Cleared(stamp, died_us) => {
                let _ = self.tables.clock.observe(stamp.time, now_us);
                if !self.with(|store| store.merge_tombstone(topic, &stamp, died_us, now_us)) {
                    self.note(topic, Retained::Forgotten);
                }
            }
            Retained::Forgotten => {}
        }
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
                Some(Request::Retain {
                    message,
                    stamp,
                    share,
                }) => {
                    let noted = self.retain(&message, stamp.as_ref());
                    if let Some(mut share) = share.filter(|_| noted) {
                        share.noted();
                    }
                }
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
            Replicated::Message(message, stamp) => drop(self.retain(message, Some(stamp))),
            Replicated::Tombstone(Told { topic, known }) => {
                let Some(died_us) = known.died_us else { return };
                if self.is_believed(topic, &known.stamp)
                    && self.with(|store| store.merge_tombstone(topic, &known.stamp, died_us, wall_us()))
                {
                    self.note(topic, Retained::Cleared(known.stamp.clone(), died_us));
                }
            }
        }
    }

    /// Retains a message; true when the store was told so.
    fn retain(&mut self, message: &Arc<Message>, stamp: Option<&Stamp>) -> bool {
        let outcome = match stamp {
            Some(stamp) if !self.is_believed(&message.topic, stamp) => return false,
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
        // What has no stamp is `$SYS`, which each life of a node has of its own.
        stamp.is_some_and(|stamp| self.keep(message, stamp, outcome))
    }

    fn keep(&self, message: &Arc<Message>, stamp: &Stamp, outcome: RetainOutcome) -> bool {
        let known = match outcome {
            RetainOutcome::Stored | RetainOutcome::Replaced => {
                Retained::Message(message.clone(), stamp.clone())
            }
            // Who never had a link remembers no tombstones.
            RetainOutcome::Removed if !self.tables.linked.load(Relaxed) => Retained::Forgotten,
            RetainOutcome::Removed => Retained::Cleared(stamp.clone(), stamp.time.wall_us()),
            RetainOutcome::Absent | RetainOutcome::Full | RetainOutcome::Outdated => return false,
        };
        self.note(&message.topic, known)
    }

    fn expire(&self) {
        let (now_us, shared) = (wall_us(), self.tables.linked.load(Relaxed));
        let mut changed = Vec::new();
        self.with(|store| {
            store.expire(Instant::now(), now_us, &mut |topic, stamp| {
                changed.push((topic, stamp.filter(|_| shared).cloned()));
            })
        });
        for (topic, stamp) in changed {
            let known = stamp.map_or(Retained::Forgotten, |stamp| Retained::Cleared(stamp, now_us));
            self.note(&topic, known);
        }
    }

    fn note(&self, topic: &ByteString, known: Retained) -> bool {
        let storage = self.tables.storage.as_ref();
        storage.is_some_and(|storage| {
            storage.retain(topic, known);
            true
        })
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
        ctx.run_interval(EXPIRY_INTERVAL, |retainer, _| retainer.expire());
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
