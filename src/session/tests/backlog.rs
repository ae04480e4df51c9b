//! A queue of which the most lies in the store alone.

use std::num::NonZeroU64;

use proptest::prelude::*;

use super::stored::{found, queued, record_of, seq, settled};
use super::storm::event;
use super::*;
use crate::limits::{QUEUE_AWAY_HEAD_LEN_MAX, QUEUE_HEAD_LEN_MAX};
use crate::session::lasting::{Backlog, Change, Exchange, Restored, SessionNo, SessionRecord};

mod shelf;

use shelf::{Shelf, answer_to, payloads};

fn unstored(payload: &str) -> Event {
    Event::Deliver(delivery(QoS::AtLeastOnce, payload))
}

#[test]
fn of_a_long_queue_only_the_head_is_in_memory_and_all_of_it_comes_in_order() {
    // [MQTT-4.6.0-6]
    let mut shelf = Shelf::new(QueuePolicy::DropNewest);
    shelf.attach();
    shelf.deliver_all(0..404);
    let session = &shelf.bench.session;
    assert_eq!((session.inflight_len(), session.queue_len()), (4, 400));
    let bytes = payloads(4..404)
        .into_iter()
        .map(|payload| payload.len() + "t".len());
    assert_eq!(session.queue_bytes(), bytes.sum::<usize>());
    assert_eq!(shelf.unfetched_len(), 400 - QUEUE_HEAD_LEN_MAX);
    let got: Vec<_> = (1..=4).map(|id| shelf.event(Event::Packet(puback(id)))).collect();
    let first = payloads(0..4);
    assert_eq!([first, shelf.drain(got.concat())].concat(), payloads(0..404));
    assert!(shelf.stored.is_empty());
}

#[test]
fn a_client_that_goes_away_leaves_one_window_in_memory() {
    let mut shelf = Shelf::new(QueuePolicy::DropNewest);
    shelf.attach();
    shelf.deliver_all(0..104);
    assert_eq!(shelf.unfetched_len(), 0);
    shelf.event(Event::TransportLost);
    assert_eq!(shelf.unfetched_len(), 100 - QUEUE_AWAY_HEAD_LEN_MAX);
    shelf.deliver_all(104..110);
    assert_eq!(shelf.bench.session.queue_len(), 106);
    let effects = shelf.attach();
    assert_eq!(shelf.drain(effects), payloads(0..110));
}

#[test]
fn a_page_that_comes_when_the_client_has_gone_again_goes_back() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..100);
    shelf.attach();
    assert!(
        shelf.asked.is_some(),
        "four of 32 are sent, and what is left is not much"
    );
    shelf.event(Event::TransportLost);
    assert_eq!(sent(&shelf.answer()), []);
    assert_eq!(shelf.unfetched_len(), 96 - QUEUE_AWAY_HEAD_LEN_MAX);
    let effects = shelf.attach();
    let again = sent(&effects).iter().filter(|(_, _, _, dup)| *dup).count();
    assert_eq!(again, 4, "[MQTT-4.4.0-1]");
    assert_eq!(shelf.drain(effects), payloads(0..100));
}

#[test]
fn what_the_store_does_not_have_waits_in_its_place() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..40);
    shelf.event(unstored("40"));
    shelf.deliver_all(41..50);
    assert_eq!(shelf.unfetched_len(), 17);
    assert_eq!(shelf.bench.session.queue_len(), 50);
    let effects = shelf.attach();
    assert_eq!(shelf.drain(effects), payloads(0..50));
}

#[test]
fn what_another_member_may_have_stays_in_memory_and_is_given_to_it() {
    // [MQTT-4.8.2-4]
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..40);
    for payload in ["a", "b"] {
        let share = Some(NonZeroU64::MIN);
        shelf.deliver(Delivery {
            share,
            ..delivery(QoS::AtLeastOnce, payload)
        });
        shelf.deliver_all(40..41);
    }
    let effects = shelf.event(Event::PassOn(NonZeroU64::MIN));
    assert_eq!(settled(&effects), [41, 43]);
    let given = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::PassOn { .. }));
    assert_eq!(given.count(), 2);
    assert_eq!(shelf.bench.session.queue_len(), 42);
    let effects = shelf.attach();
    assert_eq!(
        shelf.drain(effects),
        [payloads(0..40), payloads(40..41), payloads(40..41)].concat()
    );
}

#[test]
fn the_limits_hold_for_memory_and_store_together() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..500);
    let refused = shelf.deliver(delivery(QoS::AtLeastOnce, "x"));
    assert_eq!(counted(&refused), [Counted::DroppedQueueFull]);
    assert_eq!(settled(&refused), [501]);
    let effects = shelf.attach();
    assert_eq!(shelf.drain(effects), payloads(0..500));

    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    for _ in 0..9 {
        shelf.deliver(delivery(QoS::AtLeastOnce, &"x".repeat(10_000)));
    }
    let refused = shelf.deliver(delivery(QoS::AtLeastOnce, &"x".repeat(10_000)));
    assert_eq!(
        counted(&refused),
        [Counted::DroppedQueueFull],
        "the topic has a byte, too"
    );
}

#[test]
fn the_oldest_give_way_as_they_are_read_and_the_newest_while_they_are_not() {
    let mut shelf = Shelf::away(QueuePolicy::DropOldest);
    shelf.deliver_all(0..500);
    for dropped in 1..=32 {
        let effects = shelf.deliver(delivery(QoS::AtLeastOnce, "x"));
        assert_eq!(counted(&effects), [Counted::DroppedQueueOldest]);
        assert_eq!(settled(&effects), [dropped]);
    }
    let effects = shelf.deliver(delivery(QoS::AtLeastOnce, "x"));
    assert_eq!(
        counted(&effects),
        [Counted::DroppedQueueFull],
        "nothing older is in memory"
    );
    shelf.answer();
    let effects = shelf.deliver(delivery(QoS::AtLeastOnce, "x"));
    assert_eq!(settled(&effects), [33]);
    assert_eq!(shelf.bench.session.queue_len(), 500);
}

#[test]
fn only_what_can_be_nowhere_but_in_memory_throttles_who_publishes() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..400);
    assert_eq!(shelf.bench.session.queue_len(), 400);
    assert_eq!(shelf.bench.session.queue_pinned(), (0, 0));
    shelf.event(unstored("only here"));
    let weight = "t".len() + "only here".len();
    assert_eq!(shelf.bench.session.queue_pinned(), (1, weight));
    assert_eq!(shelf.bench.session.queue_len(), 401);
}

#[test]
fn a_store_that_cannot_be_read_is_asked_again() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..50);
    let effects = shelf.attach();
    shelf.asked = None;
    let again_at = shelf.bench.now + Duration::from_secs(1);
    assert_eq!(shelf.event(Event::FetchFailed), [Effect::WakeAt(again_at)]);
    for (_, _, packet_id, _) in sent(&effects) {
        shelf.event(Event::Packet(puback(packet_id)));
    }
    assert_eq!(shelf.asked, None, "not at once");
    shelf.bench.later(1);
    shelf.event(Event::Wake);
    assert!(shelf.asked.is_some());
    shelf.event(Event::FetchFailed);
    shelf.asked = None;
    shelf.event(Event::TransportLost);
    shelf.attach();
    shelf.answer();
    assert_eq!((shelf.unfetched_len(), shelf.asked), (0, None));
}

#[test]
fn what_has_expired_in_the_store_is_dropped_when_it_is_read() {
    // [MQTT-3.3.2-5]
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..32);
    for _ in 0..3 {
        let expires_at = shelf.bench.now.checked_add(Duration::from_secs(5));
        shelf.deliver(of_message(Message {
            expires_at,
            ..message(QoS::AtLeastOnce, "late")
        }));
    }
    shelf.deliver_all(32..33);
    shelf.bench.later(10);
    assert_eq!(shelf.bench.session.queue_len(), 36);
    let effects = shelf.attach();
    assert_eq!(shelf.drain(effects), payloads(0..33));
    assert!(shelf.stored.is_empty());
}

#[test]
fn what_the_store_has_lost_is_counted_and_waited_for_no_longer() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..40);
    shelf.stored.split_off(&seq(36));
    shelf.attach();
    // What comes meanwhile is not among what is lost.
    shelf.deliver_all(50..51);
    let mut effects = Vec::new();
    while shelf.asked.is_some() {
        effects.append(&mut shelf.answer());
    }
    assert_eq!(counted(&effects), [Counted::DroppedNotFound; 5]);
    let session = &shelf.bench.session;
    assert_eq!(session.queue_len() + session.inflight_len(), shelf.stored.len());
}

#[test]
fn what_is_in_memory_is_not_taken_from_the_store_again() {
    let exchanges = vec![(seq(5), Exchange::Sent(id(5)), Some(queued(QoS::AtLeastOnce, "5")))];
    let backlog = |len| Backlog {
        len,
        bytes: 2 * len,
        first: seq(3),
        last: seq(7),
    };
    let restored = Restored {
        exchanges,
        queue: Some(backlog(2)),
        ..found(record_of(None))
    };
    let mut out = Vec::new();
    let mut bench = Bench::new();
    bench.session = Session::restore(restored, LIMITS, bench.now, 0, &mut out);
    bench.attach(connect5(100));
    let page = [3, 5, 7].map(|place| (seq(place), queued(QoS::AtLeastOnce, &place.to_string())));
    let effects = bench.handle(Event::Fetched(page.to_vec()));
    assert_eq!(sent(&effects), [("3".into(), 1, 3, true)]);
    assert_eq!(sent(&bench.packet(puback(3))), [("7".into(), 1, 7, true)]);
    assert_eq!(bench.session.queue_len(), 0);
}

#[test]
fn what_may_have_been_sent_before_a_crash_has_dup_and_the_rest_has_not() {
    // [MQTT-3.3.1-1]
    let cases = [(None, None, 40), (Some(1), None, 0), (Some(1), Some(seq(7)), 7)];
    for (away_since_ms, suspect, with_dup) in cases {
        let mut shelf = Shelf::new(QueuePolicy::DropNewest);
        shelf.stored = (1..=40)
            .map(|place| (seq(place), queued(QoS::AtLeastOnce, "x")))
            .collect();
        let backlog = Backlog {
            len: 40,
            bytes: 80,
            first: seq(1),
            last: seq(40),
        };
        let restored = Restored {
            queue: Some(backlog),
            ..found(SessionRecord {
                suspect,
                ..record_of(away_since_ms)
            })
        };
        let mut out = Vec::new();
        shelf.bench.session = Session::restore(restored, shelf.limits, shelf.bench.now, 0, &mut out);
        shelf.noted(out);
        let mut line = sent(&shelf.attach());
        line.append(&mut sent(&shelf.answer()));
        let mut dups = Vec::new();
        while let Some((_, _, packet_id, dup)) = line.pop() {
            dups.push((packet_id, dup));
            line.append(&mut sent(&shelf.event(Event::Packet(puback(packet_id)))));
        }
        assert_eq!(dups.len(), 40);
        assert!(
            dups.iter()
                .all(|(packet_id, dup)| *dup == (*packet_id <= with_dup))
        );
    }
}

#[test]
fn a_session_is_packed_with_what_was_gathered_and_says_what_was_not() {
    let pack = |shelf: &mut Shelf| {
        let mut out = Vec::new();
        let packed = shelf
            .bench
            .session
            .pack(shelf.bench.now, &mut out)
            .expect("it moves");
        let session = Session::unpack("c".into(), &packed, shelf.bench.now, &mut Vec::new()).expect("packed");
        shelf.books.enter(&out);
        out.retain(|effect| *effect != Effect::Count(Counted::MovedAway));
        (session, counted(&out))
    };
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..100);
    assert_eq!(pack(&mut shelf).1, [Counted::DroppedNotMoved; 68]);

    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..40);
    shelf.event(unstored("40"));
    shelf.deliver_all(41..100);
    let mut out = Vec::new();
    shelf.bench.session.gather(shelf.bench.now, &mut out);
    shelf.noted(out);
    while shelf.bench.session.unfetched().is_some() {
        shelf.answer();
    }
    shelf.deliver_all(100..150);
    assert_eq!(shelf.unfetched_len(), 0, "nothing is given up any more");
    let (there, missing) = pack(&mut shelf);
    assert_eq!(missing, []);
    shelf.deliver_all(150..190);
    let mut out = Vec::new();
    let late = shelf.bench.session.pack_late(shelf.bench.now, &mut out);
    let mut moved = Shelf::new(QueuePolicy::DropNewest);
    moved.bench.session = there;
    moved.books.held = moved.bench.session.held_len() as i64;
    let effects = moved.attach();
    let mut out = Vec::new();
    let came = moved.bench.session.admit_late(&late, moved.bench.now, &mut out);
    assert_eq!(came.expect("packed").len(), 40);
    moved.noted(out);
    assert_eq!(moved.drain(effects), payloads(0..190));
}

#[test]
fn a_clean_start_forgets_what_is_in_the_store_and_takes_no_page_of_it() {
    // [MQTT-3.1.2-4]
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    shelf.deliver_all(0..50);
    shelf.attach();
    assert!(shelf.asked.is_some());
    let mut connect = connect5(100);
    connect.clean_start = true;
    let effects = shelf.attach_with(connect);
    let dropped = counted(&effects);
    assert_eq!(dropped[..4], [Counted::DroppedUnacknowledged; 4]);
    assert_eq!(dropped[4..], [Counted::DroppedSessionEnded; 46]);
    assert!(effects.contains(&Effect::ForgetSubscriptions));
    let page = vec![(seq(33), queued(QoS::AtLeastOnce, "32"))];
    assert_eq!(shelf.event(Event::Fetched(page)), []);
    assert_eq!(shelf.bench.session.queue_len(), 0);
}

#[test]
fn a_session_from_elsewhere_whose_late_messages_were_numbered_last_is_delivered_once_and_in_order() {
    let mut shelf = Shelf::away(QueuePolicy::DropNewest);
    for payload in 0..5 {
        shelf.event(unstored(&payload.to_string()));
    }
    shelf.next = 100;
    let mut changes = Vec::new();
    for _ in 0..2 {
        let next = &mut || {
            shelf.next += 1;
            seq(shelf.next - 1)
        };
        changes.extend(shelf.bench.session.enlist(SessionNo(1), shelf.bench.now, 0, next));
    }
    shelf
        .stored
        .extend(changes.into_iter().filter_map(|change| match change {
            Change::Queued(_, seq, queued) => Some((seq, queued)),
            _ => None,
        }));
    assert_eq!(shelf.stored.len(), 5);
    shelf.next = 40;
    shelf.deliver_all(5..60);
    shelf.next = 105;
    shelf.deliver_all(60..150);
    let effects = shelf.attach();
    assert_eq!(shelf.drain(effects), payloads(0..150));
    assert!(shelf.stored.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_stored_message_is_settled_once(
        events in prop::collection::vec((event(), 0_u64..3, 0_u8..8), 1..250),
    ) {
        let mut shelf = Shelf::new(QueuePolicy::DropOldest);
        shelf.limits = LIMITS;
        for (event, seconds, how) in events {
            shelf.bench.later(seconds);
            match event {
                // What ends only with the connection is not stored.
                Event::Deliver(delivery) if how > 1 && delivery.message.qos != QoS::AtMostOnce => {
                    let mut message = (*delivery.message).clone();
                    // Long enough that little of it is in memory.
                    message.payload = vec![b'x'; message.payload.len() * 100].into();
                    message.expires_at = (how == 2).then(|| shelf.bench.now + Duration::from_secs(4));
                    let share = (how == 3).then_some(NonZeroU64::MIN);
                    let message = Arc::new(message);
                    shelf.deliver(Delivery { message, share, ..delivery });
                }
                Event::Attach(mut attach) => {
                    attach.limits.queue_bytes_max = 100_000;
                    shelf.event(Event::Attach(attach));
                }
                event => drop(shelf.event(event)),
            }
            match how {
                5 | 6 if shelf.asked.is_some() => drop(shelf.answer()),
                7 if shelf.asked.take().is_some() => drop(shelf.event(Event::FetchFailed)),
                4 if !shelf.bench.session.is_attached() => drop(shelf.event(Event::PassOn(NonZeroU64::MIN))),
                _ => {}
            }
            if shelf.bench.session.is_ended() {
                shelf = Shelf::new(QueuePolicy::DropOldest);
            }
        }
        // All acknowledgements come: nothing is left in the store.
        let mut connect = connect5(100);
        connect.properties.receive_maximum = Some(3);
        let mut line = shelf.attach_with(connect);
        for _ in 0..1000 {
            let answers: Vec<Packet> = line.iter().filter_map(answer_to).collect();
            line = Vec::new();
            for answer in answers {
                line.append(&mut shelf.event(Event::Packet(answer)));
            }
            if shelf.asked.is_some() {
                line.append(&mut shelf.answer());
            }
        }
        prop_assert!(shelf.stored.is_empty(), "{:?}", shelf.stored.keys());
    }
}
