//! The verdict sees what it is to see: each wrong that a broker could do, done by hand.

use std::net::SocketAddr;
use std::time::Instant;

use ermine::mqtt::packet::QoS;

use crate::dice::Dice;
use crate::house::publication;
use crate::journal::{Fate, Id, Sent, Step};
use crate::world::{Terms, World, topic};

const ONCE: Terms = Terms {
    qos: QoS::ExactlyOnce,
    toggles: None,
};

/// A world with one publisher, which has sent messages of these QoS to topic 0, all of them promised, and two
/// subscribers: one to everything, one that comes and goes.
fn world(messages: &[QoS]) -> World {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let toggles = Terms {
        toggles: Some(0),
        ..ONCE
    };
    let world = World::new(nowhere, Dice::new(1), 1, &[ONCE, toggles]);
    for qos in messages {
        send(&world, *qos);
    }
    world
}

fn send(world: &World, qos: QoS) {
    let first = Instant::now();
    world.sent(0).push(Sent {
        topic: 0,
        qos,
        first,
        times: 1,
        fate: Fate::Promised(Instant::now()),
    });
}

/// A message comes to a subscriber.
fn comes(world: &World, subscriber: usize, seq: usize, packet_id: u16, dup: bool) {
    let qos = world.sent(0)[seq].qos;
    let payload = Id { publisher: 0, seq }.payload();
    world.received(subscriber, &publication(packet_id, &topic(0), &payload, qos, dup));
}

#[track_caller]
fn tells(world: &World, what: &str) {
    let violations = world.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert!(violations[0].contains(what), "{violations:?}");
}

#[test]
fn what_came_as_it_should_is_no_violation() {
    let world = world(&[QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::AtLeastOnce]);
    comes(&world, 0, 0, 1, false);
    comes(&world, 0, 1, 2, false);
    comes(&world, 0, 1, 2, true);
    comes(&world, 0, 2, 3, true);
    assert!(world.violations().is_empty(), "{:?}", world.violations());
    assert!(world.missing(&[0]).is_empty());
    assert!(world.unwanted(&[0]).is_empty());
}

#[test]
fn what_did_not_come_is_missing() {
    let world = world(&[QoS::AtLeastOnce, QoS::AtLeastOnce]);
    comes(&world, 0, 0, 1, false);
    assert_eq!(world.missing(&[0]).len(), 1);
    assert!(world.missing(&[2]).is_empty(), "judged before");
}

#[test]
fn what_comes_twice_is_seen() {
    let world = world(&[QoS::ExactlyOnce]);
    comes(&world, 0, 0, 1, false);
    comes(&world, 0, 0, 1, true);
    tells(&world, "QoS 2 twice");
}

#[test]
fn a_redelivery_without_dup_or_under_another_identifier_is_seen() {
    let without = world(&[QoS::AtLeastOnce]);
    comes(&without, 0, 0, 1, false);
    comes(&without, 0, 0, 1, false);
    tells(&without, "without DUP");
    let another = world(&[QoS::AtLeastOnce]);
    comes(&another, 0, 0, 1, false);
    comes(&another, 0, 0, 2, true);
    tells(&another, "another packet identifier");
}

#[test]
fn disorder_is_seen_but_not_between_qos_1_and_2() {
    let world = world(&[QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]);
    comes(&world, 0, 1, 1, false);
    comes(&world, 0, 2, 2, false);
    assert!(world.violations().is_empty());
    comes(&world, 0, 0, 3, false);
    tells(&world, "out of order");
}

#[test]
fn bytes_that_nobody_sent_and_refused_messages_are_seen() {
    let strange = world(&[QoS::AtLeastOnce]);
    let mut payload = Id { publisher: 0, seq: 0 }.payload();
    payload.push(0);
    strange.received(0, &publication(1, &topic(0), &payload, QoS::AtLeastOnce, false));
    tells(&strange, "bytes that nobody sent");
    let refused = world(&[QoS::AtLeastOnce]);
    refused.sent(0)[0].fate = Fate::Refused;
    comes(&refused, 0, 0, 1, false);
    tells(&refused, "refused and delivered");
}

#[test]
fn who_subscribed_gets_what_is_sent_then_and_who_left_nothing() {
    let world = world(&[QoS::AtLeastOnce]);
    for step in [Step::Asked, Step::Granted] {
        world.ledger(1).course.note(step);
    }
    send(&world, QoS::AtLeastOnce);
    for step in [Step::Leaving, Step::Left] {
        world.ledger(1).course.note(step);
    }
    send(&world, QoS::AtLeastOnce);
    for seq in 0..3 {
        comes(&world, 0, seq, seq as u16 + 1, false);
    }
    assert_eq!(
        world.missing(&[0]).len(),
        1,
        "what was sent while it was subscribed"
    );
    comes(&world, 1, 1, 1, false);
    assert!(world.missing(&[0]).is_empty());
    assert!(world.unwanted(&[0]).is_empty());
    comes(&world, 1, 2, 2, false);
    assert_eq!(world.unwanted(&[0]).len(), 1, "what was sent after it had left");
}

/// A subscriber that has subscribed, was sent a message, has thrown its session away and subscribed anew.
fn thrown_away() -> World {
    let world = world(&[]);
    for step in [Step::Asked, Step::Granted] {
        world.ledger(1).course.note(step);
    }
    send(&world, QoS::AtLeastOnce);
    world.ledger(1).throws_away();
    world.ledger(1).has_thrown_away();
    send(&world, QoS::AtLeastOnce);
    for step in [Step::Asked, Step::Granted] {
        world.ledger(1).course.note(step);
    }
    send(&world, QoS::AtLeastOnce);
    world
}

#[test]
fn what_waited_in_a_session_that_was_thrown_away_must_not_come() {
    let world = thrown_away();
    comes(&world, 1, 0, 1, false);
    tells(&world, "thrown away");
}

#[test]
fn who_has_thrown_a_session_away_is_owed_what_came_for_the_next() {
    let world = thrown_away();
    comes(&world, 0, 0, 1, false);
    comes(&world, 0, 1, 2, false);
    comes(&world, 0, 2, 3, false);
    assert_eq!(world.missing(&[0]).len(), 1, "{:?}", world.missing(&[0]));
    comes(&world, 1, 2, 1, false);
    assert!(world.missing(&[0]).is_empty());
    comes(&world, 1, 1, 2, false);
    assert_eq!(world.unwanted(&[0]).len(), 1, "sent between the two sessions");
}

#[test]
fn disorder_of_what_was_sent_again_is_seen_by_who_was_subscribed_all_the_time() {
    let world = world(&[]);
    for step in [Step::Asked, Step::Granted] {
        world.ledger(1).course.note(step);
    }
    for _ in 0..2 {
        send(&world, QoS::AtLeastOnce);
    }
    world.sent(0).iter_mut().for_each(|sent| sent.times = 2);
    comes(&world, 1, 1, 1, false);
    comes(&world, 1, 0, 2, false);
    tells(&world, "out of order");
}
