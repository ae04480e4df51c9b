//! A lane against its bounds, and two ends of one over connections that break.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::cluster::intake::{Came, Intake, Waiting};
use crate::limits::LINK_QUEUE_BYTES_MAX;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;

fn message(number: usize, qos: QoS, size: usize) -> Arc<Message> {
    Arc::new(Message {
        topic: format!("t/{number}").into(),
        payload: Bytes::from(vec![0; size]),
        qos,
        retain: false,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: "p".into(),
    })
}

/// As the broker does it: counted, then given.
fn give(lane: &mut Lane, messages: impl IntoIterator<Item = Arc<Message>>) {
    for message in messages {
        let outbound = Outbound {
            message,
            share: None,
            loans: None,
            retained: None,
            only_retained: false,
        };
        lane.outbox.announce(&outbound);
        lane.outbox.lay(vec![outbound]);
    }
}

fn lane() -> Lane {
    Lane::new(0)
}

fn seq_and_topics(frame: &[u8]) -> (u64, Vec<String>) {
    let Frame::Forward { seq, messages } = v1::decode(frame).unwrap() else {
        panic!("no forward")
    };
    (
        seq,
        messages.iter().map(|message| message.topic.to_owned()).collect(),
    )
}

#[test]
fn a_batch_ends_at_its_count_or_its_bytes_but_one_large_message_travels_alone() {
    let now = Instant::now();
    let mut lane = lane();
    give(
        &mut lane,
        (0..FORWARD_BATCH_LEN + 1).map(|n| message(n, QoS::AtMostOnce, 0)),
    );
    give(
        &mut lane,
        [
            message(9, QoS::AtMostOnce, FORWARD_BATCH_BYTES * 2),
            message(10, QoS::AtMostOnce, 1),
        ],
    );
    let batches: Vec<_> = std::iter::from_fn(|| lane.next_batch(now)).collect();
    let lens: Vec<_> = batches
        .iter()
        .map(|frame| seq_and_topics(frame).1.len())
        .collect();
    assert_eq!(lens, [FORWARD_BATCH_LEN, 1, 1, 1]);
}

#[test]
fn the_window_closes_until_an_acknowledgement_opens_it() {
    let now = Instant::now();
    let mut lane = lane();
    give(
        &mut lane,
        (0..100).map(|n| message(n, QoS::AtLeastOnce, FORWARD_BATCH_BYTES)),
    );
    let sent = std::iter::from_fn(|| lane.next_batch(now)).count();
    assert_eq!(sent, LINK_WINDOW_BYTES / FORWARD_BATCH_BYTES);
    assert!(!lane.is_ready() && lane.outbox.queued() > 0);
    lane.acknowledge(1).unwrap();
    assert!(lane.is_ready() && lane.next_batch(now).is_some() && lane.next_batch(now).is_none());
}

#[test]
fn what_is_given_up_is_counted() {
    let mut lane = lane();
    give(
        &mut lane,
        (0..5).map(|n| message(n, QoS::AtMostOnce, FORWARD_BATCH_BYTES)),
    );
    lane.next_batch(Instant::now()).unwrap();
    assert_eq!(lane.len(), 5);
    lane.abandon();
    assert_eq!(
        (lane.len(), lane.dropped.link_down, lane.outbox.queued()),
        (0, 5, 0)
    );
}

#[test]
fn behind_its_bound_the_outbox_of_a_node_that_is_down_takes_nothing() {
    let mut lane = lane();
    lane.release();
    let laid = |payload: usize| {
        let outbound = Outbound {
            message: message(1, QoS::AtLeastOnce, payload),
            share: None,
            loans: None,
            retained: None,
            only_retained: false,
        };
        lane.outbox.announce(&outbound);
        lane.outbox.lay(vec![outbound]).is_empty()
    };
    assert!(laid(LINK_QUEUE_BYTES_MAX), "the last one that finds room");
    let queued = lane.outbox.queued();
    assert!(!laid(1) && lane.outbox.queued() == queued && lane.len() == 1);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_an_error() {
    let mut lane = lane();
    give(&mut lane, [message(1, QoS::AtMostOnce, 1)]);
    lane.next_batch(Instant::now()).unwrap();
    let sentence = lane.acknowledge(2).unwrap_err().to_string();
    assert_eq!(sentence, "batch 2 was acknowledged, but the last one sent is 1");
    assert_eq!(lane.len(), 1);
}

#[test]
fn what_expires_in_the_queue_is_counted_and_not_sent() {
    let now = Instant::now();
    let mut lane = lane();
    let mut late = (*message(1, QoS::AtLeastOnce, 1)).clone();
    late.expires_at = Some(now);
    give(&mut lane, [Arc::new(late)]);
    assert_eq!((lane.next_batch(now), lane.dropped.expired), (None, 1));
    assert!(lane.is_empty());
}

#[test]
fn a_new_lane_goes_on_behind_the_numbers_of_the_one_before() {
    let mut lane = Lane::new(41);
    give(&mut lane, [message(1, QoS::AtMostOnce, 1)]);
    assert_eq!(seq_and_topics(&lane.next_batch(Instant::now()).unwrap()).0, 42);
}

/// What happens on a flaky connection.
#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Send,
    Arrive,
    /// The receiver has room for one batch more.
    Take,
    /// Its store has written the oldest that it had not.
    Store,
    Ack,
    Break,
    /// The sender gives up what it has, and begins anew; the receiver may not have heard of it.
    GiveUp,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..20usize).prop_map(Step::Push),
        4 => Just(Step::Send),
        4 => Just(Step::Arrive),
        3 => Just(Step::Take),
        3 => Just(Step::Store),
        3 => Just(Step::Ack),
        2 => Just(Step::Break),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 0..200)
}

/// The other node: what it was sent, what it took of that, and what of it its store has.
#[derive(Default)]
struct Receiver {
    wire: VecDeque<Vec<u8>>,
    waiting: Waiting,
    /// Topics of batches that wait, by number.
    topics: BTreeMap<u64, Vec<String>>,
    intake: Intake,
    unstored: VecDeque<(u64, oneshot::Sender<()>)>,
    stored: u64,
    taken: Vec<usize>,
}

impl Receiver {
    fn arrive(&mut self) {
        let Some(frame) = self.wire.pop_front() else {
            return;
        };
        let (seq, topics) = seq_and_topics(&frame);
        match self.waiting.came(self.intake.taken(), seq) {
            Came::Fresh => {
                self.waiting.push(seq, Vec::new());
                self.topics.insert(seq, topics);
            }
            Came::Again => {}
            Came::Gap(last) => panic!("gap: {seq} after {last}"),
        }
    }

    fn take(&mut self) {
        let Some((seq, _)) = self.waiting.next_batch() else {
            return;
        };
        let (store, gate) = oneshot::channel();
        self.intake.take(seq, Some(gate));
        self.unstored.push_back((seq, store));
        let topics = self.topics.remove(&seq).expect("it waited");
        let numbers = topics
            .iter()
            .map(|topic| topic[2..].parse::<usize>().expect("a number"));
        self.taken.extend(numbers);
        self.waiting.found_room();
    }

    fn store(&mut self) {
        if let Some((seq, store)) = self.unstored.pop_front() {
            self.stored = seq;
            store.send(()).expect("it is waited for");
        }
    }

    /// What it tells the sender: nothing that its store does not have.
    fn tells(&mut self) -> u64 {
        let now = &mut Context::from_waker(Waker::noop());
        let taken = self.intake.taken();
        let _ = self.intake.poll_safe(taken, now);
        assert!(self.intake.safe() <= self.stored);
        self.intake.safe()
    }

    fn everything(&mut self) {
        while !(self.wire.is_empty() && self.topics.is_empty() && self.unstored.is_empty()) {
            self.arrive();
            self.take();
            self.store();
        }
    }
}

proptest! {
    #[test]
    fn over_connections_that_break_anywhere_every_message_arrives_once_and_in_order(steps in steps()) {
        let now = Instant::now();
        let (mut lane, mut far) = (lane(), Receiver::default());
        let (mut pushed, mut given_up) = (0, 0);
        for step in steps {
            match step {
                Step::Push(count) => {
                    give(&mut lane, (pushed..pushed + count).map(|n| message(n, QoS::AtLeastOnce, 30_000)));
                    pushed += count;
                }
                Step::Send => far.wire.extend(lane.next_batch(now)),
                Step::Arrive => far.arrive(),
                Step::Take => far.take(),
                Step::Store => far.store(),
                Step::Ack => lane.acknowledge(far.tells()).unwrap(),
                Step::Break => {
                    far.wire.clear();
                    far.waiting.reconnected();
                    lane.resume(far.tells()).unwrap();
                }
                Step::GiveUp => {
                    far.wire.clear();
                    far.waiting.reconnected();
                    given_up += lane.len();
                    lane.abandon();
                    lane = Lane::new(lane.last());
                }
            }
        }
        while !lane.is_empty() {
            far.wire.extend(lane.next_batch(now));
            far.everything();
            lane.acknowledge(far.tells()).unwrap();
        }
        far.everything();
        prop_assert!(far.taken.is_sorted_by(|one, next| one < next), "{:?}", far.taken);
        prop_assert!(far.taken.len() + given_up >= pushed, "{} and {given_up} of {pushed}", far.taken.len());
        prop_assert_eq!(lane.outbox.queued(), 0);
        prop_assert_eq!(lane.unacked_bytes, 0);
    }
}

/// What befalls a lane whose messages expire.
#[derive(Debug, Clone)]
enum Fate {
    /// Messages are given that expire after so many seconds, if at all.
    Give(usize, Option<u64>),
    Send,
    /// So many of the batches that were sent are acknowledged.
    Ack(u64),
    /// The connection breaks, and all that was not acknowledged is sent again.
    Break,
    /// Seconds go by.
    Later(u64),
    /// The publishers are let go.
    Release,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        3 => (1_usize..5, prop::option::of(0_u64..4)).prop_map(|(count, expiry)| Fate::Give(count, expiry)),
        4 => Just(Fate::Send),
        3 => (0_u64..3).prop_map(Fate::Ack),
        1 => Just(Fate::Break),
        2 => (1_u64..3).prop_map(Fate::Later),
        1 => Just(Fate::Release),
    ];
    prop::collection::vec(fate, 0..80)
}

proptest! {
    #[test]
    fn every_message_given_to_a_lane_is_acknowledged_dropped_or_held(fates in fates()) {
        let (mut lane, mut now) = (lane(), Instant::now());
        let (mut given, mut acknowledged, mut sent, mut acked) = (0, 0, 0, 0);
        for fate in fates {
            match fate {
                Fate::Give(count, expiry_s) => {
                    given += count;
                    let expires_at = expiry_s.map(|seconds| now + std::time::Duration::from_secs(seconds));
                    give(&mut lane, (0..count).map(|n| {
                        let message = Message::clone(&message(n, QoS::AtLeastOnce, 100));
                        Arc::new(Message { expires_at, ..message })
                    }));
                }
                Fate::Send => {
                    if let Some(frame) = lane.next_batch(now) {
                        sent = seq_and_topics(&frame).0.max(sent);
                    }
                }
                Fate::Ack(more) => {
                    acked = sent.min(acked + more);
                    lane.acknowledge(acked).unwrap();
                }
                Fate::Break => lane.resume(acked).unwrap(),
                Fate::Later(seconds) => now += std::time::Duration::from_secs(seconds),
                Fate::Release => lane.release(),
            }
            acknowledged += lane.newly_acknowledged();
            let (held, on_wire) = (lane.len(), lane.outbox.on_wire());
            prop_assert_eq!(given as u64, acknowledged + lane.dropped.expired + held as u64);
            prop_assert_eq!(on_wire, held - lane.outbox.len());
        }
        lane.abandon();
        prop_assert_eq!(given as u64, acknowledged + lane.dropped.expired + lane.dropped.link_down);
        prop_assert_eq!((lane.len(), lane.outbox.on_wire()), (0, 0));
    }
}
