use super::*;

fn stamp(time: u64, node: &str) -> Stamp {
    Stamp {
        time: HybridTime(time),
        node: node.parse().unwrap(),
    }
}

fn key(topic: &str) -> Arc<[u8]> {
    topic.as_bytes().into()
}

#[test]
fn the_clock_never_runs_backwards_and_goes_on_behind_what_it_has_seen() {
    let clock = HybridClock::default();
    let first = clock.stamp(1_000);
    assert_eq!(first, HybridTime::at(1_000));
    // The wall clock was set back.
    let second = clock.stamp(500);
    assert!(second > first && second.wall_us() == 1_000);
    clock.observe(HybridTime::at(5_000), 600).unwrap();
    let third = clock.stamp(700);
    assert!(third > HybridTime::at(5_000) && third.wall_us() == 5_000);
    assert_eq!(clock.stamp(6_000), HybridTime::at(6_000));
    let heir = HybridClock::default();
    heir.follow(&clock);
    assert!(heir.stamp(0) > HybridTime::at(6_000));
}

#[test]
fn a_time_too_far_ahead_is_not_believed() {
    let clock = HybridClock::default();
    let bound = us(CLOCK_AHEAD_MAX);
    clock.observe(HybridTime::at(bound), 0).unwrap();
    let error = clock.observe(HybridTime::at(bound + 1_000_000), 0).unwrap_err();
    assert_eq!(error.to_string(), "61s ahead of our clock");
    assert_eq!(clock.stamp(0).wall_us(), bound);
}

#[test]
fn hashes_and_buckets_are_part_of_the_protocol() {
    assert_eq!(bucket_of(b"a\0b"), 126);
    assert_eq!(hash_of(b"a\0b", &stamp(7, "n1@h")), 10_998_895_956_047_628_655);
}

#[test]
fn what_is_forgotten_leaves_no_trace_in_the_digest() {
    let mut book = StampBook::default();
    book.live(&key("a"), stamp(1, "n@h"));
    book.live(&key("a"), stamp(2, "n@h"));
    let mut other = StampBook::default();
    other.bury(&key("a"), stamp(2, "n@h"), 9);
    // Whether it lives is no difference.
    assert_eq!(book.digest(), other.digest());
    assert_eq!(
        (book.live_len(), other.live_len(), other.tombstones().0),
        (1, 0, 1)
    );
    book.forget(b"a");
    assert_eq!(book.digest(), StampBook::default().digest());
    assert_eq!(book.live_len(), 0);
}

#[test]
fn the_oldest_tombstones_make_room_and_do_not_come_back() {
    let mut book = StampBook::default();
    for died in 0..=RETAINED_TOMBSTONES_MAX as u64 {
        book.bury(&key(&format!("t/{died}")), stamp(died, "n@h"), died + 1);
    }
    assert_eq!(book.tombstones(), (RETAINED_TOMBSTONES_MAX, 1));
    assert!(!book.is_wanted(1, 2) && book.is_wanted(2, 2));
}

#[test]
fn long_topics_of_tombstones_are_bounded_by_their_bytes() {
    let mut book = StampBook::default();
    for n in 0..300 {
        let topic = format!("{n}/{}", "x".repeat(65_000));
        book.bury(&key(&topic), stamp(n, "n@h"), n + 1);
    }
    assert!(book.tombstone_bytes <= RETAINED_TOMBSTONE_BYTES_MAX);
    assert!(book.tombstones().0 > 200 && book.tombstones().1 > 0);
}

#[test]
fn tombstones_go_when_their_time_is_over() {
    let mut book = StampBook::default();
    book.bury(&key("a"), stamp(1, "n@h"), 10);
    let over = 10 + us(RETAINED_TOMBSTONE_AGE);
    book.sweep(over - 1, &mut |_| ());
    assert_eq!(book.tombstones().0, 1);
    book.sweep(over, &mut |_| ());
    assert_eq!((book.tombstones().0, book.get(b"a")), (0, None));
    assert!(!book.is_wanted(10, over));
}
