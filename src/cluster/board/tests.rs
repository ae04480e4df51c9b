//! What the board keeps between links.

use bytes::Bytes;

use super::*;
use crate::broker::links::Outbound;
use crate::limits::LINK_RESUME_WITHIN;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;

fn life(incarnation: u64) -> NodeId {
    NodeId {
        name: "b@h".parse().unwrap(),
        incarnation: Incarnation(incarnation),
    }
}

fn lane_of_one() -> Lane {
    let lane = Lane::new(0);
    let message = Arc::new(Message {
        topic: "t".into(),
        payload: Bytes::new(),
        qos: QoS::AtLeastOnce,
        retain: false,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: "p".into(),
    });
    let outbound = Outbound {
        message,
        share: None,
        loans: None,
        retained: None,
        only_retained: false,
    };
    lane.outbox().announce(&outbound);
    lane.outbox().lay(vec![outbound]);
    lane
}

#[test]
fn a_lane_is_found_again_by_the_same_life_and_by_no_other() {
    let (board, now) = (Board::default(), Instant::now());
    board.take(&life(1), 7, 0, None);
    board.put_aside(&life(1), lane_of_one(), now);
    assert_eq!((board.taken(&life(1)), board.taken(&life(2))), (7, 0));
    assert_eq!(board.lane_for(&life(1), 0).unwrap().len(), 1);
    assert_eq!(board.lane_for(&life(1), 0).unwrap().len(), 0, "once");
    board.put_aside(&life(1), lane_of_one(), now);
    assert_eq!(board.lane_for(&life(2), 0).unwrap().len(), 0);
}

#[test]
fn a_lane_whose_node_does_not_come_back_is_given_up_and_counted() {
    let (board, now) = (Board::default(), Instant::now());
    board.put_aside(&life(1), lane_of_one(), now);
    assert_eq!(board.sweep(now), 0);
    assert_eq!(board.sweep(now + LINK_RESUME_WITHIN), 1);
    assert!(board.lane_for(&life(1), 0).unwrap().is_empty());
    assert_eq!(board.sweep(now + LINK_RESUME_WITHIN), 0);
}

#[test]
fn a_lane_of_a_node_that_seems_to_have_ended_is_given_up_sooner_and_never_later() {
    let (board, now) = (Board::default(), Instant::now());
    let (node, second) = (life(1), std::time::Duration::from_secs(1));
    board.put_aside(&node, lane_of_one(), now);
    board.hurry(&node.name, now + second);
    board.hurry(&node.name, now + second * 2);
    assert_eq!(board.sweep(now), 0);
    assert_eq!(board.sweep(now + second), 1);
    board.hurry(&node.name, now); // nothing is left to hurry
}

#[test]
fn what_waits_for_an_earlier_life_is_counted_when_a_later_one_comes() {
    let (board, now) = (Board::default(), Instant::now());
    board.put_aside(&life(1), lane_of_one(), now);
    board.take(&life(2), 1, 0, None);
    assert_eq!((board.taken(&life(1)), board.taken(&life(2))), (0, 1));
    assert_eq!(board.sweep(now), 1);
}

#[test]
fn what_was_dealt_with_an_earlier_life_is_told_apart() {
    let (board, now) = (Board::default(), Instant::now());
    board.take(&life(1), 1, 5, None);
    board.acknowledged(&life(1), 3);
    board.put_aside(&life(1), lane_of_one(), now);
    let told = |board: &Board| {
        let [dealings] = &board.dealings()[..] else {
            panic!("one node")
        };
        (
            dealings.node.incarnation.0,
            dealings.waiting,
            dealings.acknowledged,
            dealings.came,
            dealings.before,
        )
    };
    assert_eq!(told(&board), (1, 1, 3, 5, (0, 0)));
    board.link_to(&life(2));
    board.acknowledged(&life(2), 1);
    assert_eq!(told(&board), (2, 0, 1, 0, (3, 5)));
}

#[test]
fn a_welcome_holds_our_own_dial_back_for_as_long_as_an_opening_may_take() {
    let (board, now) = (Board::default(), Instant::now());
    assert!(!board.has_link(&life(1), now));
    board.welcome(&life(1).name, now);
    assert!(board.has_link(&life(1), now));
    assert!(!board.has_link(&life(1), now + HANDSHAKE_DEADLINE));
}

#[test]
fn the_numbers_of_a_lane_that_was_given_up_are_used_for_no_others() {
    let (board, now) = (Board::default(), Instant::now());
    let sent = || {
        let mut lane = lane_of_one();
        lane.next_batch(now).expect("a batch");
        lane
    };
    assert_eq!(board.abandon(&life(1), sent()), 1);
    // Whatever the other side has told of it: it may be taking what it has not told.
    assert_eq!(board.lane_for(&life(1), 0).unwrap().last(), 1);
    board.put_aside(&life(1), sent(), now);
    board.sweep(now + LINK_RESUME_WITHIN);
    assert_eq!(board.lane_for(&life(1), 0).unwrap().last(), 1);
    assert_eq!(board.lane_for(&life(2), 0).unwrap().last(), 0, "it knows none");
}

#[test]
fn an_opening_tells_only_of_what_is_safe() {
    let board = Board::default();
    let (store, gate) = tokio::sync::oneshot::channel();
    board.take(&life(1), 1, 1, None);
    board.take(&life(1), 2, 1, Some(gate));
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    assert!(board.poll_safe(&life(1), 2, cx).is_pending());
    assert_eq!((board.taken(&life(1)), board.received(&life(1))), (2, 1));
    store.send(()).expect("it is waited for");
    assert!(board.poll_safe(&life(1), 2, cx).is_ready());
    assert_eq!(board.received(&life(1)), 2);
}
