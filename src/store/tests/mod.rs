//! Tests of the store over engines that keep, forget and fail.

mod basics;
mod damage;
mod faults;
mod replay;

use std::num::NonZeroU64;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::*;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{PacketId, ProtocolVersion, QoS, SubscriptionIds, SubscriptionOptions};
use crate::session::Subscription;
use crate::session::lasting::{Queued, SessionRecord};

fn seq(place: u64) -> Seq {
    Seq(NonZeroU64::new(place).expect("a place"))
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("a packet id")
}

fn message(payload: &str) -> Arc<Message> {
    Arc::new(Message {
        topic: "a/b".into(),
        payload: payload.to_owned().into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        pass_through: Default::default(),
        expires_at: None,
        publisher: "p".into(),
    })
}

fn queued(payload: &str) -> Queued {
    Queued {
        message: message(payload),
        subscription_ids: SubscriptionIds::from(Some(7)),
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
    }
}

/// Writes into a store of `a@localhost` that a later version has made it.
fn newer(file: &std::path::Path) {
    let medium = medium::OnDisk::open(file).expect("the file");
    let engine = disk::Disk::open(Arc::new(medium), false).expect("it opens");
    let key = key::Key::Header.bytes();
    let newer = Header {
        format: opening::FORMAT + 1,
        node: "a@localhost".into(),
        next_session: 1,
    };
    let step = engine::Step::Put(key.clone(), record::write(&key, &newer));
    let applied = engine::Engine::apply(&engine, &[step], engine::Durability::Synced);
    applied.expect("it is written");
}

fn record(client_id: &str) -> Box<SessionRecord> {
    Box::new(SessionRecord {
        client_id: client_id.into(),
        version: ProtocolVersion::V5,
        expiry_interval_s: 3600,
        away_since_ms: None,
        noted_ms: 0,
        will: None,
        suspect: None,
        guest: None,
    })
}

fn subscription(identifier: u32) -> Subscription {
    Subscription {
        options: SubscriptionOptions::default(),
        identifier: Some(identifier),
    }
}

/// Waits for an answer of the reader's thread.
fn read<T: Send + 'static>(ask: impl FnOnce(Answer<T>)) -> Result<T, Unreadable> {
    let (answer, answered) = mpsc::channel();
    ask(Box::new(move |read| answer.send(read).expect("somebody waits")));
    answered
        .recv_timeout(Duration::from_secs(30))
        .expect("the reader answers")
}

fn sessions(store: &Arc<Store>) -> Vec<Restored> {
    read(|answer| store.sessions(None, usize::MAX, answer)).expect("readable")
}

fn page(store: &Arc<Store>, no: SessionNo) -> Vec<(u64, String)> {
    let all = (seq(1), seq(u64::MAX), usize::MAX, usize::MAX);
    let page = read(|answer| store.page(no, all.0, all.1, all.2, all.3, answer)).expect("readable");
    let text = |queued: &Queued| String::from_utf8(queued.message.payload.to_vec()).expect("text");
    page.iter()
        .map(|(seq, queued)| (seq.0.get(), text(queued)))
        .collect()
}
