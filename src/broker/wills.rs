//! The wills: publishes wills, at once or after their delay.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     nothing that dies with it; the book of wills belongs to the tables
//! Asked by: Session ([`Request::Publish`], [`Request::Cancel`]), through its tray
//! Tells:    Topics and links, by publishing
//! Dies of:  our bugs only; a torn book is escalated by a failing `init`

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Handler};
use ahash::AHashMap;
use bytestring::ByteString;
use supervisors::{ChildSpec, Context, InitError};

use super::publish;
use super::tables::Tables;
use super::tray::{Bell, Burden};
use crate::mqtt::message::Message;
use crate::mqtt::packet::Will;

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
        will: Box<Will>,
        /// Will Delay Interval in seconds, capped by the session's expiry.
        delay_s: u32,
    },
    /// The client is back before its will was due.
    Cancel {
        /// Whose will.
        client_id: ByteString,
    },
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
    queue: BTreeMap<(Instant, ByteString), Arc<Message>>,
}

impl WillBook {
    /// Notes a will; an earlier one of the same client gives way.
    pub fn put(&mut self, client_id: ByteString, due: Instant, message: Arc<Message>) {
        self.cancel(&client_id);
        self.due.insert(client_id.clone(), due);
        self.queue.insert((due, client_id), message);
    }

    /// Forgets the will of a client; whether there was one.
    pub fn cancel(&mut self, client_id: &ByteString) -> bool {
        let Some(due) = self.due.remove(client_id) else {
            return false;
        };
        self.queue.remove(&(due, client_id.clone())).is_some()
    }

    /// When the next will is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next will that is due at `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<Arc<Message>> {
        if self.next()? > now {
            return None;
        }
        let ((_, client_id), message) = self.queue.pop_first()?;
        self.due.remove(&client_id);
        Some(message)
    }
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
        // Only this actor writes; had it torn the book, `init` would have refused to run.
        act(&mut self.tables.wills.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes what is due and comes back when the next one is. A wake that comes too often is harmless.
    fn execute(&mut self, ctx: &mut Context<Self>) {
        while let Some(message) = self.with(|book| book.take_due(Instant::now())) {
            publish_will(&message);
        }
        if let Some(next) = self.with(|book| book.next()) {
            ctx.run_later(next.saturating_duration_since(Instant::now()), Self::execute);
        }
    }

    fn work_off(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..REQUESTS_PER_BELL {
            match self.tables.for_wills.take() {
                Some(Request::Publish {
                    client_id,
                    will,
                    delay_s,
                }) => self.note(client_id, &will, delay_s, ctx),
                Some(Request::Cancel { client_id }) => drop(self.with(|book| book.cancel(&client_id))),
                None => return,
            }
        }
        ctx.notify(Bell);
    }

    fn note(&mut self, client_id: ByteString, will: &Will, delay_s: u32, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let at = now
            .checked_add(Duration::from_secs(delay_s.into()))
            .unwrap_or(now);
        let message = message_of(will, &client_id, at);
        if delay_s == 0 {
            return publish_will(&message);
        }
        let sooner = self.with(|book| {
            let before = book.next();
            book.put(client_id, at, message);
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
mod tests {
    use super::*;

    fn message(text: &'static str) -> Arc<Message> {
        let will = Will {
            topic: text.into(),
            payload: bytes::Bytes::new(),
            qos: crate::mqtt::packet::QoS::AtMostOnce,
            retain: false,
            properties: crate::mqtt::properties::WillProperties::default(),
        };
        message_of(&will, &"c".into(), Instant::now())
    }

    #[test]
    fn wills_come_out_when_they_are_due_and_in_that_order() {
        let (now, mut book) = (Instant::now(), WillBook::default());
        let at = |seconds| now + Duration::from_secs(seconds);
        book.put("late".into(), at(9), message("late"));
        book.put("soon".into(), at(3), message("soon"));
        assert_eq!(book.take_due(at(2)), None);
        assert_eq!(book.take_due(at(9)).unwrap().topic, "soon");
        assert_eq!(book.take_due(at(9)).unwrap().topic, "late");
        assert_eq!(book.take_due(at(9)), None);
    }

    #[test]
    fn a_cancelled_will_never_comes_and_a_second_one_replaces_the_first() {
        let (now, mut book) = (Instant::now(), WillBook::default());
        book.put("c".into(), now, message("first"));
        book.put("c".into(), now, message("second"));
        assert_eq!(book.take_due(now).unwrap().topic, "second");
        book.put("c".into(), now, message("third"));
        assert!(book.cancel(&"c".into()) && !book.cancel(&"c".into()));
        assert_eq!((book.take_due(now), book.next()), (None, None));
    }
}
