//! Stores of several nodes that are to hold the same.

use super::*;
use crate::limits::RETAINED_TOMBSTONE_AGE;
use crate::routing::stamps::{BUCKETS, HybridTime, Known, Stamp};

fn stamp(us: u64, node: u8) -> Stamp {
    Stamp {
        time: HybridTime::at(us),
        node: format!("n{node}@h").parse().unwrap(),
    }
}

fn shared_store() -> RetainedStore {
    let mut store = RetainedStore::default();
    store.share();
    store
}

/// One write: topic, whether it clears, when, where.
type Write = (u8, bool, u64, u8);

fn write(store: &mut RetainedStore, (topic, clears, us, node): Write) -> RetainOutcome {
    let payload = if clears {
        String::new()
    } else {
        format!("{us} {node}")
    };
    let message = Message {
        payload: payload.into(),
        ..message(&format!("t/{topic}"), "")
    };
    store.merge(&message, &stamp(us, node))
}

/// All that a store holds: topics, payloads and what is known of them.
fn content(store: &RetainedStore) -> Vec<(Told, Option<Bytes>)> {
    let buckets: Vec<u8> = (0..=u8::MAX).collect();
    let told = store.told(&buckets, None, usize::MAX, usize::MAX);
    assert_eq!(told.done, BUCKETS);
    let now = Instant::now();
    let with_payload = |told: Told| {
        let payload = store.get(&told.topic, now).map(|message| message.payload.clone());
        (told, payload)
    };
    told.told.into_iter().map(with_payload).collect()
}

/// `to` takes over what it lacks of `from`, in parts of a few topics.
fn pull(to: &mut RetainedStore, from: &RetainedStore, len_max: usize) {
    let (mine, theirs) = (to.book().digest(), from.book().digest());
    let differ = |bucket: &u8| mine[usize::from(*bucket)] != theirs[usize::from(*bucket)];
    let mut buckets: Vec<u8> = (0..=u8::MAX).filter(differ).collect();
    let mut after: Option<ByteString> = None;
    while !buckets.is_empty() {
        let part = from.told(&buckets, after.as_deref(), len_max, usize::MAX);
        buckets.drain(..part.done);
        let last = part.told.last().map(|told| told.topic.clone());
        after = last.filter(|topic| buckets.first() == Some(&bucket_of_topic(topic)));
        for told in part.told {
            let Known { stamp, died_us } = &told.known;
            match to.lacks(&told, 0) {
                Lack::Nothing => {}
                Lack::Message => {
                    let (message, stamp) = from.shared(&told.topic, Instant::now()).unwrap();
                    to.merge(message, stamp);
                }
                Lack::Tombstone => assert!(to.merge_tombstone(&told.topic, stamp, died_us.unwrap(), 0)),
            }
        }
    }
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = (0..6_u8, 1..8_u64, 0..3_u8);
    // Also in different stores a stamp of a topic is one write: what it does follows from when and where.
    let written = |(topic, us, node): (u8, u64, u8)| (topic, (us + u64::from(node)) % 3 == 0, us, node);
    prop::collection::vec(write.prop_map(written), 0..30)
}

proptest! {
    /// Merging is commutative, associative and idempotent: any order of any writes, with repetitions, is the
    /// greatest write of each topic.
    #[test]
    fn any_order_of_the_same_writes_makes_the_same_store(
        (writes, shuffled) in writes().prop_flat_map(|writes| {
            let twice = [writes.clone(), writes.clone()].concat();
            (Just(writes), Just(twice).prop_shuffle())
        }),
    ) {
        let (mut one, mut two) = (shared_store(), shared_store());
        let mut model = BTreeMap::new();
        for it in &writes {
            write(&mut one, *it);
            let (topic, clears, us, node) = *it;
            let entry = model.entry(topic).or_insert((us, node, clears));
            *entry = (*entry).max((us, node, clears));
        }
        for it in &shuffled { write(&mut two, *it); }
        prop_assert_eq!(content(&one), content(&two));
        prop_assert_eq!(one.book().digest(), two.book().digest());
        let living = model.values().filter(|(.., clears)| !clears).count();
        prop_assert_eq!((one.len(), one.book().live_len()), (living, living));
        prop_assert_eq!(one.book().tombstones().0, model.len() - living);
        for (topic, (us, node, clears)) in model {
            let held = one.get(&format!("t/{topic}"), Instant::now()).map(|m| m.payload.clone());
            prop_assert_eq!(held, (!clears).then(|| Bytes::from(format!("{us} {node}"))));
        }
    }

    /// Two stores that ask each other for what differs are equal, whoever asks first; a third joins.
    #[test]
    fn stores_that_exchange_become_equal(
        first in writes(), second in writes(), third in writes(),
        len_max in 1..5_usize, swapped in any::<bool>(),
    ) {
        let mut stores = [first, second, third].map(|writes| {
            let mut store = shared_store();
            for it in writes { write(&mut store, it); }
            store
        });
        let [a, b, c] = &mut stores;
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        pull(a, b, len_max);
        pull(b, a, len_max);
        prop_assert_eq!(content(a), content(b));
        prop_assert_eq!(a.book().digest(), b.book().digest());
        pull(c, a, len_max);
        pull(b, c, len_max);
        pull(a, b, len_max);
        prop_assert_eq!(content(a), content(c));
        prop_assert_eq!(content(b), content(c));
    }
}

#[test]
fn what_a_node_has_of_its_own_is_told_to_nobody() {
    let mut store = shared_store();
    store.set(&message("$SYS/uptime", "1"));
    assert_eq!((store.len(), store.book().live_len()), (1, 0));
    assert!(content(&store).is_empty());
}

#[test]
fn a_node_alone_keeps_no_tombstones() {
    let mut store = RetainedStore::default();
    assert_eq!(write(&mut store, (1, false, 1, 0)), RetainOutcome::Stored);
    assert_eq!(write(&mut store, (1, true, 2, 0)), RetainOutcome::Removed);
    assert_eq!(store.book().tombstones(), (0, 0));
    assert_eq!(store.book().digest(), RetainedStore::default().book().digest());
}

#[test]
fn an_expired_message_leaves_a_tombstone_that_is_no_difference() {
    let (mut here, mut there, now) = (shared_store(), shared_store(), Instant::now());
    let expiring = Message {
        expires_at: Some(now + Duration::from_secs(5)),
        ..message("t/1", "x")
    };
    for store in [&mut here, &mut there] {
        store.merge(&message("t/1", "older"), &stamp(1, 1));
        store.merge(&expiring, &stamp(2, 1));
    }
    assert_eq!(
        here.expire(now + Duration::from_secs(5), 7_000_000, &mut |_, _| ()),
        1
    );
    assert_eq!(here.book().digest(), there.book().digest());
    // Nothing older comes back, and there nothing is lost.
    assert_eq!(
        here.merge(&message("t/1", "older"), &stamp(1, 1)),
        RetainOutcome::Outdated
    );
    pull(&mut there, &here, 9);
    assert_eq!(there.len(), 1);
    here.expire(
        now,
        7_000_000 + RETAINED_TOMBSTONE_AGE.as_micros() as u64,
        &mut |_, _| (),
    );
    assert_eq!(here.book().tombstones().0, 0);
}

#[test]
fn a_full_store_lacks_nothing_until_there_is_room() {
    let limits = RetainedLimits {
        len_max: 1,
        bytes_max: 1000,
    };
    let (mut small, mut large) = (RetainedStore::new(limits), shared_store());
    small.share();
    for topic in 0..3 {
        write(&mut large, (topic, false, 5, 0));
    }
    assert_eq!(write(&mut small, (0, false, 5, 0)), RetainOutcome::Stored);
    assert_eq!(write(&mut small, (1, false, 5, 0)), RetainOutcome::Full);
    pull(&mut small, &large, 9);
    assert_eq!((small.len(), small.refused()), (1, 1));
    write(&mut small, (0, true, 6, 0));
    pull(&mut small, &large, 9);
    assert_eq!(small.len(), 1);
}

#[test]
fn tombstones_that_are_old_or_were_crowded_out_are_not_taken() {
    let mut store = shared_store();
    let age = RETAINED_TOMBSTONE_AGE.as_micros() as u64;
    assert!(!store.merge_tombstone("a", &stamp(1, 1), 1, age + 1));
    assert!(store.merge_tombstone("a", &stamp(1, 1), 2, age + 1));
    assert!(!store.merge_tombstone("a", &stamp(1, 1), 2, age + 1), "once");
}
