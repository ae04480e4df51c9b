use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::mqtt::message::Message;
use crate::mqtt::packet::QoS;
use crate::routing::retained::RetainedLimits;
use crate::routing::stamps::{HybridTime, Stamp};

fn put(store: &mut RetainedStore, topic: &str, time: u64, payload: &str) {
    let message = Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: true,
        pass_through: Bytes::new(),
        expires_at: None,
        publisher: "p".into(),
    };
    let (time, node) = (HybridTime::at(time), "n1@h".parse().unwrap());
    store.merge(&message, &Stamp { time, node });
}

fn store(len: usize) -> RetainedStore {
    let mut store = RetainedStore::default();
    store.share();
    (0..len).for_each(|n| put(&mut store, &format!("t/{n}"), 1, "x"));
    store
}

/// Carries questions and answers until there are no more; how many there were.
fn carry(
    pull: &mut Pull,
    mut question: Option<Question>,
    mine: &mut RetainedStore,
    theirs: &RetainedStore,
    now: Instant,
) -> usize {
    let mut questions = 0;
    while let Some(asked) = question {
        questions += 1;
        match asked {
            Question::Known { buckets, after } => {
                let part = theirs.told(&buckets, after.as_deref(), 100, 1 << 16);
                for told in pull.told(part.told, part.done, mine, 0).unwrap() {
                    let Stamp { .. } = &told.known.stamp;
                    mine.merge_tombstone(&told.topic, &told.known.stamp, told.known.died_us.unwrap(), 0);
                }
            }
            Question::Messages { topics } => {
                for topic in &topics[..topics.len().min(50)] {
                    let (message, stamp) = theirs.shared(topic, now).unwrap();
                    mine.merge(message, stamp);
                }
                pull.messages_came(topics.len().min(50)).unwrap();
            }
        }
        question = pull.step(now);
    }
    questions
}

fn exchange(
    pull: &mut Pull,
    mine: &mut RetainedStore,
    theirs: &RetainedStore,
    now: Instant,
) -> (usize, usize) {
    let (ours, digest) = (mine.book().digest(), theirs.book().digest());
    let (drift, question) = pull.digest_came(&ours, &digest, now).unwrap();
    (drift, carry(pull, question, mine, theirs, now))
}

#[test]
fn a_new_connection_brings_all_at_once_in_frames_of_bounded_size() {
    let (mut mine, theirs, now) = (store(0), store(2000), Instant::now());
    let mut pull = Pull::default();
    let (drift, questions) = exchange(&mut pull, &mut mine, &theirs, now);
    assert_eq!((drift, mine.len()), (0, 2000));
    assert!((60..100).contains(&questions), "{questions}");
    assert_eq!(exchange(&mut pull, &mut mine, &theirs, now), (0, 0));
}

#[test]
fn later_a_bucket_has_to_differ_twice() {
    let (mut mine, mut theirs, now) = (store(5), store(5), Instant::now());
    let mut pull = Pull::default();
    assert_eq!(exchange(&mut pull, &mut mine, &theirs, now), (0, 0));
    put(&mut theirs, "t/1", 2, "new");
    put(&mut theirs, "t/2", 2, "");
    assert_eq!(exchange(&mut pull, &mut mine, &theirs, now), (0, 0));
    let (drift, questions) = exchange(&mut pull, &mut mine, &theirs, now);
    assert!(drift > 0 && questions > 0);
    assert_eq!(mine.book().digest(), theirs.book().digest());
    assert_eq!((mine.len(), mine.book().tombstones().0), (4, 1));
    assert_eq!(exchange(&mut pull, &mut mine, &theirs, now), (0, 0));
}

#[test]
fn a_full_store_asks_a_little_and_then_seldom() {
    let (theirs, now) = (store(2000), Instant::now());
    let limits = RetainedLimits {
        len_max: 10,
        bytes_max: 1 << 20,
    };
    let mut mine = RetainedStore::new(limits);
    let mut pull = Pull::default();
    exchange(&mut pull, &mut mine, &theirs, now);
    assert_eq!(mine.len(), 10);
    for _ in 0..100 {
        exchange(&mut pull, &mut mine, &theirs, now);
    }
    // It is still told how much differs, and nothing is asked any more.
    let (drift, questions) = exchange(&mut pull, &mut mine, &theirs, now);
    assert!(drift > 200 && questions == 0, "{drift} {questions}");
    let later = now + RETAINED_RETRY_AFTER;
    let (_, questions) = exchange(&mut pull, &mut mine, &theirs, later);
    assert!(
        (1..=RETAINED_BUCKETS_IN_VAIN_MAX).contains(&questions),
        "{questions}"
    );
}

#[test]
fn what_is_on_its_way_costs_a_bounded_look_each_second() {
    let (mut mine, theirs, now) = (store(2000), store(2000), Instant::now());
    let mut pull = Pull::default();
    exchange(&mut pull, &mut mine, &theirs, now);
    // All of ours is newer: every bucket differs all the time and has nothing for us.
    for round in 2..10 {
        (0..2000).for_each(|n| put(&mut mine, &format!("t/{n}"), round, "y"));
        let (_, questions) = exchange(&mut pull, &mut mine, &theirs, now);
        assert!(questions <= RETAINED_BUCKETS_IN_VAIN_MAX, "{questions}");
    }
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let (mut mine, theirs, now) = (store(0), store(10), Instant::now());
    let mut pull = Pull::default();
    let digests = (mine.book().digest(), theirs.book().digest());
    assert!(pull.digest_came(&digests.0, &digests.1, now).unwrap().1.is_some());
    assert!(pull.digest_came(&digests.0, &digests.1, now).unwrap().1.is_none());
    // The answer to the next question may be the one that was waited for; then another exchange brings all.
    for rounds in 1..=2 {
        let later = now + (RETAINED_ANSWER_WITHIN + Duration::from_millis(1)) * rounds;
        let (_, question) = pull.digest_came(&digests.0, &digests.1, later).unwrap();
        carry(&mut pull, question, &mut mine, &theirs, later);
    }
    assert_eq!(mine.len(), 10);
}

#[test]
fn an_answer_that_comes_late_is_not_taken_for_the_next_and_does_not_close_the_link() {
    let (mut mine, theirs, now) = (store(0), store(10), Instant::now());
    let mut pull = Pull::default();
    let digests = (mine.book().digest(), theirs.book().digest());
    let asked = pull.digest_came(&digests.0, &digests.1, now).unwrap().1;
    let Some(Question::Known { buckets, .. }) = asked else {
        panic!("{asked:?}");
    };
    let late = theirs.told(&buckets, None, 100, 1 << 16);
    let later = now + RETAINED_ANSWER_WITHIN + Duration::from_millis(1);
    let (_, question) = pull.digest_came(&digests.0, &digests.1, later).unwrap();
    assert_eq!(pull.told(late.told, late.done, &mine, 0), Ok(Vec::new()));
    assert_eq!(pull.step(later), None, "one question at a time");
    carry(&mut pull, question, &mut mine, &theirs, later);
    assert_eq!(mine.len(), 10);
}

#[test]
fn answers_to_other_questions_break_the_link() {
    let (mine, theirs, now) = (store(0), store(10), Instant::now());
    let mut pull = Pull::default();
    assert_eq!(pull.digest_came(&[], &[1, 2], now), Err(Unasked));
    assert_eq!(pull.messages_came(3), Ok(()), "late");
    let digest = theirs.book().digest();
    let (_, question) = pull.digest_came(&mine.book().digest(), &digest, now).unwrap();
    assert!(matches!(question, Some(Question::Known { .. })));
    assert_eq!(pull.messages_came(1), Err(Unasked));
    assert_eq!(pull.told(Vec::new(), 0, &mine, 0), Err(Unasked));
    assert_eq!(pull.told(Vec::new(), 257, &mine, 0), Err(Unasked));
}
