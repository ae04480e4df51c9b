//! A lane against its bounds, and two ends of one over connections that break.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
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
fn a_new_lane_goes_on_after_what_the_other_side_has_taken() {
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
    Ack,
    Break,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..20usize).prop_map(Step::Push),
        Just(Step::Send),
        Just(Step::Arrive),
        Just(Step::Ack),
        Just(Step::Break),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn over_connections_that_break_anywhere_every_message_arrives_once_and_in_order(steps in steps()) {
        let now = Instant::now();
        let mut lane = lane();
        let (mut pushed, mut taken, mut last, mut wire) = (0, vec![], 0, VecDeque::new());
        let arrive = |wire: &mut VecDeque<Vec<u8>>, last: &mut u64, taken: &mut Vec<String>| {
            let Some(frame) = wire.pop_front() else { return };
            let (seq, topics) = seq_and_topics(&frame);
            match came(*last, seq) {
                Came::Fresh => { *last = seq; taken.extend(topics); }
                Came::Again => {}
                Came::Gap => panic!("gap: {seq} after {last}"),
            }
        };
        for step in steps {
            match step {
                Step::Push(count) => {
                    give(&mut lane, (pushed..pushed + count).map(|n| message(n, QoS::AtLeastOnce, 30_000)));
                    pushed += count;
                }
                Step::Send => wire.extend(lane.next_batch(now)),
                Step::Arrive => arrive(&mut wire, &mut last, &mut taken),
                Step::Ack => lane.acknowledge(last).unwrap(),
                Step::Break => { wire.clear(); lane.resume(last).unwrap(); }
            }
        }
        while !lane.is_empty() {
            wire.extend(lane.next_batch(now));
            arrive(&mut wire, &mut last, &mut taken);
            lane.acknowledge(last).unwrap();
        }
        let expected: Vec<_> = (0..pushed).map(|n| format!("t/{n}")).collect();
        prop_assert_eq!(taken, expected);
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
