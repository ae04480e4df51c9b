//! `sys`: the `$SYS` topics, and the pulse that notices an arbiter stuck in a handler.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     when each arbiter was last heard of
//! Asked by: nobody
//! Tells:    subscribers of `$SYS/#`, by publishing; every arbiter, by its pulse
//! Dies of:  our bugs only; the next life starts counting time anew, the counters are the tables'

mod load;
mod stored;
mod supervision;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext};
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::{ChildSpec, Context, InitError, Seat, Shutdown, Tree};

use self::load::Load;
use self::stored::Stored;
use super::counters::Snapshot;
use super::publish;
use super::tables::Tables;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;

/// Time between two rounds of `$SYS` (mosquitto's `sys_interval`).
const SYS_INTERVAL: Duration = Duration::from_secs(10);

/// When `$SYS` is first published: whoever starts a node to look at it need not wait for a whole round.
const SYS_FIRST_AFTER: Duration = Duration::from_secs(1);

/// Time between two pulses.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);

/// An arbiter that answers no pulse for so long is reported.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The publisher of `$SYS`.
pub struct Sys {
    tables: Arc<Tables>,
    began: Instant,
    /// Milliseconds since `began` at which each arbiter last answered.
    answered_ms: Arc<Vec<AtomicU64>>,
    /// Where each arbiter notes whom it is polling.
    seats: Arc<Vec<OnceLock<Seat>>>,
    tree: Tree,
    /// How much per minute, and when that was last reckoned.
    load: (Load, Instant),
    /// What was told of the store.
    stored: Stored,
    /// Most clients that were connected when somebody looked.
    connected_max: u64,
    /// Whether an arbiter has been reported and not been heard of since.
    reported: Vec<bool>,
}

impl Sys {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Ok::<_, InitError>(Self::init(&made, ctx));
        ChildSpec::worker("sys", tables.arbiters.control_handle(), init).shutdown(Shutdown::BrutalKill)
    }

    fn init(tables: &Arc<Tables>, ctx: &mut Context<Self>) -> Self {
        let count = tables.arbiters.all.len();
        ctx.run_later(SYS_FIRST_AFTER, |sys, _| sys.publish_all());
        ctx.run_interval(SYS_INTERVAL, |sys, _| sys.publish_all());
        ctx.run_interval(PULSE_INTERVAL, |sys, _| sys.pulse());
        Self {
            tables: tables.clone(),
            began: Instant::now(),
            answered_ms: Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()),
            seats: Arc::new((0..count).map(|_| OnceLock::new()).collect()),
            tree: ctx.pid().tree(),
            load: (Load::default(), Instant::now()),
            stored: Stored::default(),
            connected_max: 0,
            reported: vec![false; count],
        }
    }

    /// Asks every arbiter for a sign of life and reports those that gave none for too long.
    fn pulse(&mut self) {
        let (began, now) = (self.began, self.began.elapsed());
        for (index, arbiter) in self.tables.arbiters.all.iter().enumerate() {
            let silent = now.saturating_sub(Duration::from_millis(self.answered_ms[index].load(Relaxed)));
            let stuck = silent > STUCK_AFTER;
            if stuck && !self.reported[index] {
                let silent_s = silent.as_secs();
                let occupant = self.seats[index].get().and_then(|seat| seat.occupant(&self.tree));
                match occupant {
                    Some(actor) => tracing::error!(
                        arbiter = index,
                        silent_s,
                        "an arbiter is stuck: {} does not return",
                        actor.path()
                    ),
                    None => tracing::error!(
                        arbiter = index,
                        silent_s,
                        "an arbiter is stuck: a task on it that is no actor does not return"
                    ),
                }
            } else if !stuck && self.reported[index] {
                tracing::warn!(arbiter = index, "the arbiter that was stuck goes on");
            }
            self.reported[index] = stuck;
            let (answered, seats) = (self.answered_ms.clone(), self.seats.clone());
            arbiter.spawn_fn(move || {
                seats[index].get_or_init(Seat::here);
                answered[index].store(began.elapsed().as_millis() as u64, Relaxed);
            });
        }
    }

    /// Sessions with a client. Only read here: a torn table is for its writer to escalate.
    fn connected(&self) -> u64 {
        let table = self.tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
        table.values().filter(|known| known.attached).count() as u64
    }

    /// Messages and bytes.
    fn retained(&self) -> (u64, u64) {
        let store = self
            .tables
            .retained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (store.len() as u64, store.bytes() as u64)
    }

    /// Retained messages that all nodes share, and the most buckets of them by which a link differs.
    fn shared(&self) -> (u64, u64) {
        let store = &self.tables.retained;
        let store = store.lock().unwrap_or_else(PoisonError::into_inner);
        let links = self.tables.links.read().unwrap_or_else(PoisonError::into_inner);
        let drift = links.iter().map(|link| link.drift.load(Relaxed)).max();
        (store.book().live_len() as u64, drift.unwrap_or(0) as u64)
    }

    fn publish_all(&mut self) {
        let counted = self.tables.counted();
        let sessions = counted.sessions_opened.saturating_sub(counted.sessions_closed);
        let connected = self.connected();
        self.connected_max = self.connected_max.max(connected);
        publish_value(
            "$SYS/broker/version",
            &format!("ermine version {}", env!("CARGO_PKG_VERSION")),
        );
        publish_value(
            "$SYS/broker/uptime",
            &format!("{} seconds", self.began.elapsed().as_secs()),
        );
        for (topic, number) in numbers(&counted, sessions, connected, self.connected_max) {
            publish_value(&format!("$SYS/broker/{topic}"), &number.to_string());
        }
        let (retained, retained_bytes) = self.retained();
        let (shared, drift) = self.shared();
        let held = [
            ("retained messages/count", retained),
            ("retained messages/bytes", retained_bytes),
            ("retained messages/shared", shared),
            ("retained messages/drift", drift),
            ("store/messages/count", retained + counted.held_messages),
            ("messages/stored", retained + counted.held_messages),
            (
                "shared_subscriptions/count",
                self.tables.share_groups_len() as u64,
            ),
        ];
        for (topic, number) in held {
            publish_value(&format!("$SYS/broker/{topic}"), &number.to_string());
        }
        let (load, since) = &mut self.load;
        load.update(&counted, since.elapsed());
        *since = Instant::now();
        for (topic, value) in load.values() {
            publish_value(&topic, &value);
        }
        if let Some(storage) = &self.tables.storage {
            for (topic, value) in self.stored.values(&storage.figures()) {
                publish_value(&format!("$SYS/broker/store/{topic}"), &value);
            }
        }
        for (topic, value) in supervision::values(&self.tree.summary()) {
            publish_value(&topic, &value);
        }
        for (name, number) in counted.list() {
            if let Some(topic) = topic_of_loss(name) {
                publish_value(&topic, &number.to_string());
            }
        }
    }
}

/// Where a counter is told that counts what was dropped, refused or held up.
fn topic_of_loss(name: &str) -> Option<String> {
    if let Some(reason) = name.strip_prefix("dropped_") {
        return Some(format!("$SYS/broker/dropped/{reason}"));
    }
    let refused = name.strip_prefix("refused_").or(name.strip_suffix("_refused"));
    refused
        .map(|what| format!("$SYS/broker/refused/{what}"))
        .or_else(|| (name == "clients_throttled").then(|| "$SYS/broker/clients/throttled".to_owned()))
}

/// What is counted, under mosquitto's names where they mean the same.
fn numbers(counted: &Snapshot, sessions: u64, connected: u64, most: u64) -> [(&'static str, u64); 20] {
    [
        ("clients/total", sessions),
        ("clients/connected", connected),
        ("clients/disconnected", sessions.saturating_sub(connected)),
        ("clients/maximum", most),
        ("clients/expired", counted.sessions_expired),
        ("messages/received", counted.packets_received),
        ("messages/sent", counted.packets_sent + counted.publishes_sent),
        ("publish/messages/received", counted.received),
        ("publish/messages/sent", counted.publishes_sent),
        ("publish/messages/dropped", counted.dropped()),
        ("publish/bytes/received", counted.payload_received),
        ("publish/bytes/sent", counted.payload_sent),
        ("bytes/received", counted.bytes_received),
        ("bytes/sent", counted.bytes_sent),
        ("subscriptions/count", counted.held_subscriptions),
        ("connections/sockets/count", counted.sockets_opened),
        ("connections/refused", counted.connects_refused),
        ("messages/unrouted", counted.unrouted),
        ("cluster/messages/forwarded", counted.forwarded),
        ("cluster/messages/dispatched", counted.dispatched),
    ]
}

/// Published to this node only: who subscribes to `$SYS` asks the node that it is connected to.
fn publish_value(topic: &str, value: &str) {
    let message = Arc::new(Message {
        topic: ByteString::from(topic),
        payload: Bytes::copy_from_slice(value.as_bytes()),
        qos: QoS::AtMostOnce,
        retain: true,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: ByteString::new(),
    });
    publish::publish_here(&message);
}

impl Actor for Sys {
    type Context = Context<Self>;
}
