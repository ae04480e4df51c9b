use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mqtt::packet::QoS;
use crate::routing::trie::tests::naive_match;

mod shared;

fn message(topic: &str, payload: &'static str) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: true,
        pass_through: Bytes::from_static(b"pp"),
        expires_at: None,
        publisher: "client".into(),
    }
}

fn store_of(topics: &[&str]) -> RetainedStore {
    let mut store = RetainedStore::default();
    for topic in topics {
        assert_eq!(store.set(&message(topic, "x")), RetainOutcome::Stored);
    }
    store
}

fn found(store: &RetainedStore, filter: &str, now: Instant) -> Vec<String> {
    let mut topics = Vec::new();
    store.matching(filter, now, &mut |message| topics.push(message.topic.to_string()));
    topics.sort();
    topics
}

/// The same in the smallest steps.
fn in_steps(store: &RetainedStore, filter: &str, now: Instant) -> Vec<String> {
    let (mut topics, mut cursor) = (Vec::new(), RetainedCursor::default());
    let mut find = |message: &Arc<Message>| topics.push(message.topic.to_string());
    while store.matching_from(&mut cursor, filter, now, 1, &mut find) {}
    topics.sort();
    topics
}

#[test]
fn a_message_replaces_the_earlier_one_and_an_empty_one_removes_it() {
    // [MQTT3-3.3.1-7] [MQTT3-3.3.1-10..11] [MQTT-3.3.1-5..7]
    let (mut store, now) = (RetainedStore::default(), Instant::now());
    assert_eq!(store.set(&message("a/b", "1")), RetainOutcome::Stored);
    assert_eq!(store.set(&message("a/b", "22")), RetainOutcome::Replaced);
    assert_eq!(**store.get("a/b", now).unwrap(), message("a/b", "22"));
    assert_eq!((store.len(), store.bytes()), (1, message("a/b", "22").weight()));
    assert_eq!(store.set(&message("a/b", "")), RetainOutcome::Removed);
    assert_eq!(store.set(&message("a/b", "")), RetainOutcome::Absent);
    assert_eq!((store.len(), store.bytes(), store.get("a/b", now)), (0, 0, None));
}

#[test]
fn what_is_kept_does_not_hold_the_read_buffer() {
    let buffer = Bytes::from(vec![b'x'; 100_000]);
    let topic = ByteString::try_from(buffer.slice(..3)).unwrap();
    let mut store = RetainedStore::default();
    store.set(&Message {
        topic,
        payload: buffer.slice(3..9),
        pass_through: buffer.slice(9..12),
        ..message("", "")
    });
    assert!(buffer.is_unique());
    let held = store.get("xxx", Instant::now()).unwrap();
    assert_eq!(
        (&held.payload[..], &held.pass_through[..]),
        (&b"xxxxxx"[..], &b"xxx"[..])
    );
}

#[test]
fn a_hash_finds_the_parent_and_all_below_but_no_neighbour() {
    let store = store_of(&[
        "a", "a/b", "a/b/c", "a!", "a!/b", "ab", "b/a", "/a", "a/", "a\u{1}",
    ]);
    let now = Instant::now();
    assert_eq!(found(&store, "a/#", now), ["a", "a/", "a/b", "a/b/c"]);
    assert_eq!(found(&store, "a/b/#", now), ["a/b", "a/b/c"]);
    assert_eq!(found(&store, "/#", now), ["/a"]);
    assert_eq!(found(&store, "#", now).len(), 10);
    assert_eq!(found(&store, "+", now), ["a", "a\u{1}", "a!", "ab"]);
    assert_eq!(found(&store, "+/+", now), ["/a", "a!/b", "a/", "a/b", "b/a"]);
}

#[test]
fn dollar_topics_are_found_only_by_their_name() {
    // [MQTT3-4.7.2-1] [MQTT-4.7.2-1]
    let store = store_of(&["$SYS/up", "$SYS", "a/$x", "a"]);
    let now = Instant::now();
    assert_eq!(found(&store, "#", now), ["a", "a/$x"]);
    assert_eq!(found(&store, "+/up", now), [""; 0]);
    assert_eq!(found(&store, "+", now), ["a"]);
    assert_eq!(found(&store, "$SYS/#", now), ["$SYS", "$SYS/up"]);
    assert_eq!(found(&store, "$SYS/+", now), ["$SYS/up"]);
    assert_eq!(found(&store, "a/+", now), ["a/$x"]);
}

#[test]
fn an_expired_message_is_not_found_and_goes_when_asked() {
    let (mut store, now) = (store_of(&["stays"]), Instant::now());
    let at = |seconds| Some(now + Duration::from_secs(seconds));
    for (topic, seconds) in [("a", 5), ("b", 10)] {
        store.set(&Message {
            expires_at: at(seconds),
            ..message(topic, "x")
        });
    }
    // Renewed: the old expiry no longer counts.
    store.set(&Message {
        expires_at: at(20),
        ..message("a", "x")
    });
    assert_eq!(store.next_expiry(), at(10));
    assert_eq!(found(&store, "#", now + Duration::from_secs(10)), ["a", "stays"]);
    assert_eq!(store.get("b", now + Duration::from_secs(10)), None);
    assert_eq!(store.expire(now + Duration::from_secs(9), 0, &mut |_, _| ()), 0);
    assert_eq!(store.expire(now + Duration::from_secs(10), 0, &mut |_, _| ()), 1);
    assert_eq!((store.len(), store.next_expiry()), (2, at(20)));
    store.set(&message("a", ""));
    assert_eq!(store.next_expiry(), None);
}

#[test]
fn a_full_store_refuses_counts_and_never_shows_what_was_replaced() {
    let bytes_max = message("a", "x").weight() * 2;
    let mut store = RetainedStore::new(RetainedLimits {
        len_max: 2,
        bytes_max,
    });
    store.set(&message("a", "x"));
    store.set(&message("b", "x"));
    assert_eq!(store.set(&message("c", "x")), RetainOutcome::Full);
    assert_eq!(store.set(&message("b", "y")), RetainOutcome::Replaced);
    assert_eq!(store.set(&message("b", "too long")), RetainOutcome::Full);
    assert_eq!(found(&store, "#", Instant::now()), ["a"]);
    assert_eq!((store.refused(), store.bytes()), (2, bytes_max / 2));
}

#[test]
fn a_filter_leaps_over_topics_that_cannot_match() {
    let topics: Vec<_> = (0..1000)
        .map(|number| format!("a/{}/{number}", number % 10))
        .collect();
    let store = store_of(&topics.iter().map(String::as_str).collect::<Vec<_>>());
    let steps = |filter| {
        let (mut cursor, mut steps) = (RetainedCursor::default(), 1);
        while store.matching_from(&mut cursor, filter, Instant::now(), 1, &mut |_| {}) {
            steps += 1;
        }
        steps
    };
    assert!(steps("a/7/77") <= 3);
    assert!(steps("a/+/77") <= 30);
    assert!(steps("b/#") <= 2);
    assert!(steps("a/7/#") <= 103);
}

#[test]
fn a_filter_with_too_many_levels_finds_nothing() {
    let deep = vec!["x"; TOPIC_LEVELS_MAX].join("/");
    let store = store_of(&[&deep, "x"]);
    let now = Instant::now();
    assert_eq!(found(&store, &vec!["+"; TOPIC_LEVELS_MAX].join("/"), now), [deep]);
    assert_eq!(found(&store, &vec!["+"; 60_000].join("/"), now), [""; 0]);
}

fn topic() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "$x", "a!", "\u{1}", "aa"]);
    prop::collection::vec(level, 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "", "+", "$x", "a!"]);
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_filter("empty", |(levels, rest)| *rest || !levels.is_empty())
        .prop_map(|(mut levels, rest)| {
            levels.extend(rest.then_some("#"));
            levels.join("/")
        })
}

proptest! {
    #[test]
    fn the_store_is_a_list_of_topics_with_a_naive_matcher(
        steps in prop::collection::vec((0..4_u8, topic(), 0..4_u64), 0..60),
        filters in prop::collection::vec(filter(), 1..20),
        seconds in 0..4_u64,
    ) {
        let (mut store, mut model, now) = (RetainedStore::default(), BTreeMap::new(), Instant::now());
        for (kind, topic, expiry) in steps {
            let payload = if kind == 0 { "" } else { "p" };
            let expires_at = (kind == 1).then(|| now + Duration::from_secs(expiry));
            let message = Message { expires_at, ..message(&topic, payload) };
            store.set(&message);
            if kind == 0 { model.remove(&topic); } else { model.insert(topic, expires_at); }
        }
        let then = now + Duration::from_secs(seconds);
        model.retain(|_, expires_at| expires_at.is_none_or(|at| at > then));
        for expired in [false, true] {
            if expired {
                store.expire(then, 0, &mut |_, _| ());
                prop_assert_eq!(store.len(), model.len());
            }
            for filter in &filters {
                let expected: Vec<_> = model.keys().filter(|topic| naive_match(filter, topic)).collect();
                let mut expected: Vec<_> = expected.into_iter().cloned().collect();
                expected.sort();
                prop_assert_eq!(&found(&store, filter, then), &expected);
                prop_assert_eq!(in_steps(&store, filter, then), expected);
            }
        }
        let weight: usize = store.messages.values().map(|held| held.message.weight()).sum();
        prop_assert_eq!(store.bytes(), weight);
    }
}

#[test]
fn who_subscribes_finds_what_was_stored_before_and_not_what_comes_after() {
    let (mut store, now) = (store_of(&["a/1", "a/2", "a/3"]), Instant::now());
    let mut cursor = RetainedCursor::until(store.count());
    store.set(&message("a/2", "newer"));
    store.set(&message("a/4", "new"));
    let mut topics = Vec::new();
    store.matching_from(&mut cursor, "a/+", now, usize::MAX, &mut |message| {
        topics.push(message.topic.to_string());
    });
    assert_eq!(topics, ["a/1", "a/3"]);
    assert_eq!(found(&store, "a/+", now), ["a/1", "a/2", "a/3", "a/4"]);
}
