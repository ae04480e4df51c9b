//! The wills: publishes wills, at once or after their delay.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the book of wills belongs to the tables
//! Asked by: Session ([`Request::Publish`], [`Request::Cancel`]), through its tray
//! Tells:    Topics and links, by publishing
//! Dies of:  our bugs only; a torn book is escalated by a failing `init`
//!
//! Sessions publish what is due at once themselves (`publish_now`). When `core` falls its clients fall with
//! it, and then there is nobody to publish to: their wills are noted for the next life of `core`
//! (`bequeath`), as section 3.1.2.5 of MQTT 5.0 allows after a failure of the server. They come out
//! [`REST_AFTER_FALL`] later, when links stand again and subscribers are back; or just before their client
//! itself is served again (`client_is_back`), so that its will never overtakes what it says next.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler};
use ahash::AHashMap;
use bytestring::ByteString;
use supervisors::{ChildSpec, Context, InitError};

use super::clients;
use super::links::WillNews;
use super::office::Office;
use super::publish::{self, Holds};
use super::session::WillPublished;
use super::tables::Tables;
use super::tray::{Bell, Burden};
use crate::mqtt::message::Message;
use crate::mqtt::packet::Will;

/// How long the wills of clients that fell with `core` rest. Clients come back after a second or two (the
/// retry of mosquitto's and paho's is 1 s), links take up to a second.
pub const REST_AFTER_FALL: Duration = Duration::from_secs(5);

/// Requests that are done before others of this arbiter have their turn.
const REQUESTS_PER_BELL: usize = 256;

/// Session → Wills, through its tray.
#[derive(Clone, Debug)]
pub enum Request {
    /// This will is due, now or after its delay.
    Publish {
        /// Whose will.
        client_id: ByteString,
        /// The will.
        will: Arc<Will>,
        /// Will Delay Interval in seconds, capped by the session's expiry.
        delay_s: u32,
    },
    /// The client is back before its will was due.
    Cancel {
        /// Whose will.
        client_id: ByteString,
    },
    /// There is a will in the book that is due before all others.
    Look,
}

impl Burden for Request {}

/// Asks Wills; it does what it is asked in order, also when it falls in between.
pub fn ask(tables: &Tables, request: Request) {
    tables.for_wills.lay(request, &tables.names.wills);
}

/// The wills that wait, as a value: at most one per client.
#[derive(Debug, Default)]
pub struct WillBook {
    due: AHashMap<ByteString, Instant>,
    queue: BTreeMap<(Instant, ByteString), Entry>,
    /// Entries of clients that fell with `core`.
    inherited: usize,
}

#[derive(Debug)]
struct Entry {
    will: Arc<Will>,
    rests: Option<Rests>,
}

/// Why a will waits whose client fell with `core`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rests {
    /// Its client wanted no delay: it is published before that client is served again.
    WasDue,
    /// Its client wanted a delay: the client that is back in time has no will `[MQTT-3.1.3-9]`.
    WasDelayed,
}

impl WillBook {
    /// Notes a will; an earlier one of the same client gives way.
    pub fn put(&mut self, client_id: ByteString, due: Instant, will: Arc<Will>) {
        self.enter(client_id, due, will, None);
    }

    fn enter(&mut self, client_id: ByteString, due: Instant, will: Arc<Will>, rests: Option<Rests>) {
        self.cancel(&client_id);
        self.inherited += usize::from(rests.is_some());
        self.due.insert(client_id.clone(), due);
        self.queue.insert((due, client_id), Entry { will, rests });
    }

    fn remove(&mut self, client_id: &ByteString) -> Option<Entry> {
        let due = self.due.remove(client_id)?;
        let entry = self.queue.remove(&(due, client_id.clone()))?;
        self.inherited -= usize::from(entry.rests.is_some());
        Some(entry)
    }

    /// The client is served again; its will, if that is to be published first.
    fn client_is_back(&mut self, client_id: &ByteString) -> Option<Arc<Will>> {
        let due = *self.due.get(client_id)?;
        // One that its session has put there in this life is the session's to cancel.
        let rests = self.queue.get(&(due, client_id.clone()))?.rests?;
        let entry = self.remove(client_id)?;
        (rests == Rests::WasDue).then_some(entry.will)
    }

    /// Takes over what waited in an earlier life, and what that life did not come to.
    fn inherit(&mut self, before: WillBook, asked: impl Iterator<Item = Request>, now: Instant) {
        let rested = now + REST_AFTER_FALL;
        for ((due, client_id), entry) in before.queue {
            let rests = entry.rests.or(Some(Rests::WasDelayed));
            self.enter(client_id, due.max(rested), entry.will, rests);
        }
        for request in asked {
            match request {
                Request::Publish {
                    client_id,
                    will,
                    delay_s,
                } => self.rest(client_id, will, delay_s, now),
                Request::Cancel { client_id } => drop(self.cancel(&client_id)),
                Request::Look => {}
            }
        }
    }

    /// Notes the will of a client that fell with an earlier life.
    fn rest(&mut self, client_id: ByteString, will: Arc<Will>, delay_s: u32, now: Instant) {
        let rested = now + REST_AFTER_FALL;
        let delayed = now.checked_add(Duration::from_secs(delay_s.into()));
        let due = delayed.map_or(rested, |due| due.max(rested));
        let rests = if delay_s == 0 {
            Rests::WasDue
        } else {
            Rests::WasDelayed
        };
        self.enter(client_id, due, will, Some(rests));
    }

    /// Forgets the will of a client; whether there was one.
    pub fn cancel(&mut self, client_id: &ByteString) -> bool {
        self.remove(client_id).is_some()
    }

    /// When the next will is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Every will that waits, whose it is and when it is due.
    pub fn waiting(&self) -> impl Iterator<Item = (&ByteString, &Arc<Will>, Instant)> {
        let queue = self.queue.iter();
        queue.map(|((due, client_id), entry)| (client_id, &entry.will, *due))
    }

    /// Takes the next will that is due at `now`, with its client.
    pub fn take_due(&mut self, now: Instant) -> Option<(ByteString, Arc<Will>)> {
        if self.next()? > now {
            return None;
        }
        let client_id = self.queue.first_key_value()?.0.1.clone();
        let entry = self.remove(&client_id)?;
        Some((client_id, entry.will))
    }
}

/// Publishes a will that is due, in the name of a session that has ended. If the life of `core` is over, the
/// next one does.
pub(super) fn publish_now(office: &Office, client_id: &ByteString, will: Arc<Will>, now: Instant) {
    if office.tables().stand() {
        office.counters().injected.one();
        office.publish(&message_of(&will, client_id, now), None, &mut Holds::default());
    } else {
        let request = Request::Publish {
            client_id: client_id.clone(),
            will,
            delay_s: 0,
        };
        ask(office.tables(), request);
    }
}

/// Tells who keeps it of a client's will, where there are other nodes.
pub(super) fn tell(tables: &Tables, client_id: &ByteString, news: WillNews) {
    if let Some(keeper) = tables.keeper() {
        keeper.will(client_id, news);
    }
}

/// Leaves the will of a client that fell with an earlier process to Wills: it rests as those do that fell
/// with an earlier life of `core`.
pub(super) fn inherit(tables: &Tables, client_id: &ByteString, will: Arc<Will>, delay_s: u32, now: Instant) {
    let mut book = lock(&tables.wills);
    let before = book.next();
    book.rest(client_id.clone(), will, delay_s, now);
    let sooner = book.next() != before;
    tables.wills_rest.store(true, Relaxed);
    drop(book);
    if sooner {
        ask(tables, Request::Look);
    }
}

/// A client is about to be served. If it fell with an earlier life of `core`, its will goes out now.
pub(super) fn client_is_back(office: &Office, client_id: &ByteString) {
    let tables = office.tables();
    if tables.wills_rest.load(Relaxed) {
        let will = lock(&tables.wills).client_is_back(client_id);
        if let Some(will) = will {
            office.counters().injected.one();
            let message = message_of(&will, client_id, Instant::now());
            office.publish(&message, None, &mut Holds::default());
        }
    }
}

/// Leaves the wills of one life of `core` to the next. Called between the two, when no session lives.
pub(super) fn bequeath(before: &Tables, heir: &Tables) {
    let waiting = if before.wills.is_poisoned() {
        tracing::error!("the wills that waited for their delay are lost: the book of wills was torn");
        WillBook::default()
    } else {
        std::mem::take(&mut *lock(&before.wills))
    };
    let mut book = lock(&heir.wills);
    book.inherit(
        waiting,
        std::iter::from_fn(|| before.for_wills.take()),
        Instant::now(),
    );
    heir.wills_rest.store(book.inherited > 0, Relaxed);
    if book.inherited > 0 {
        let wills = book.inherited;
        tracing::warn!(wills, "core fell: the wills of its clients will be published");
    }
}

fn lock(wills: &Mutex<WillBook>) -> MutexGuard<'_, WillBook> {
    // Had it been torn in this life, the `init` of `Wills` would refuse to run, and `core` would fall.
    wills.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The publisher of wills.
pub struct Wills {
    tables: Arc<Tables>,
}

impl Wills {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Self::init(&made, ctx);
        ChildSpec::worker("wills", tables.arbiters.control_handle(), init).name(&tables.names.wills)
    }

    fn init(tables: &Arc<Tables>, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        if tables.wills.is_poisoned() {
            return Err(InitError::failed("the book of wills is torn"));
        }
        let mut wills = Self {
            tables: tables.clone(),
        };
        wills.execute(ctx);
        Ok(wills)
    }

    fn with<T>(&self, act: impl FnOnce(&mut WillBook) -> T) -> T {
        act(&mut lock(&self.tables.wills))
    }

    /// Publishes what is due and comes back when the next one is. A wake that comes too often is harmless.
    fn execute(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        while let Some((client_id, will)) = self.with(|book| book.take_due(now)) {
            publish_will(&message_of(&will, &client_id, now));
            self.tell_session(&client_id);
            // Its client may be back and have another one: told which.
            tell(&self.tables, &client_id, WillNews::Published(will));
        }
        if self.with(|book| book.inherited) == 0 {
            self.tables.wills_rest.store(false, Relaxed);
        }
        if let Some(next) = self.with(|book| book.next()) {
            ctx.run_later(next.saturating_duration_since(Instant::now()), Self::execute);
        }
    }

    /// What was stored of a will is to be forgotten when it is published.
    fn tell_session(&self, client_id: &ByteString) {
        if self.tables.storage.is_some()
            && let Some(known) = clients::known(&self.tables, client_id)
            && let Some(session) = known.session.whereis()
        {
            let _ = session.cast(WillPublished);
        }
    }

    fn work_off(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..REQUESTS_PER_BELL {
            match self.tables.for_wills.take() {
                Some(Request::Publish {
                    client_id,
                    will,
                    delay_s,
                }) => self.note(client_id, will, delay_s, ctx),
                Some(Request::Cancel { client_id }) => drop(self.with(|book| book.cancel(&client_id))),
                Some(Request::Look) => self.execute(ctx),
                None => return,
            }
        }
        ctx.notify(Bell);
    }

    fn note(&mut self, client_id: ByteString, will: Arc<Will>, delay_s: u32, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let at = now
            .checked_add(Duration::from_secs(delay_s.into()))
            .unwrap_or(now);
        if delay_s == 0 {
            return publish_will(&message_of(&will, &client_id, now));
        }
        let sooner = self.with(|book| {
            let before = book.next();
            book.put(client_id, at, will);
            before.is_none_or(|before| at < before)
        });
        if sooner {
            ctx.run_later(at.saturating_duration_since(now), Self::execute);
        }
    }
}

fn publish_will(message: &Arc<Message>) {
    if publish::publish(message).is_err() {
        tracing::error!(topic = %message.topic, "a will went nowhere: the route table is torn");
    }
}

/// The message that a will becomes when it is published `[MQTT-3.1.2-8]`. Its expiry counts from then.
#[must_use]
pub fn message_of(will: &Will, publisher: &ByteString, now: Instant) -> Arc<Message> {
    let expiry = will.properties.publish.message_expiry_interval_s;
    Arc::new(Message {
        topic: will.topic.clone(),
        payload: will.payload.clone(),
        qos: will.qos,
        retain: will.retain,
        pass_through: will.properties.publish.pass_through.clone(),
        expires_at: expiry.and_then(|seconds| now.checked_add(Duration::from_secs(seconds.into()))),
        publisher: publisher.clone(),
    })
}

impl Actor for Wills {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // What was asked while nobody heard the bell.
        self.work_off(ctx);
    }
}

impl Handler<Bell> for Wills {
    type Result = ();

    fn handle(&mut self, _: Bell, ctx: &mut Context<Self>) {
        self.work_off(ctx);
    }
}

#[cfg(test)]
mod tests;
