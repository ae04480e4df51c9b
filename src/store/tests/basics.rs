use super::*;
use crate::routing::stamps::{HybridTime, Stamp};
use crate::session::lasting::Exchange;
use crate::store::committing::Turn;

fn config(dir: &std::path::Path, node: &str) -> StoreConfig {
    StoreConfig {
        dir: dir.join("store"),
        node: node.parse().expect("a name"),
        pace: Pace::default(),
    }
}

#[test]
fn what_was_noted_is_found_again_before_and_after_a_commit_and_in_the_next_life() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "a@localhost");
    let store = Store::open(&config).expect("it opens");
    let no = store.number();
    store.note(Change::Session(no, record("c")));
    store.note(Change::Subscribed(no, "x/#".into(), subscription(3)));
    store.note(Change::Received(no, id(9)));
    for place in 1..=5 {
        store.note(Change::Queued(no, seq(place), queued(&place.to_string())));
    }
    store.note(Change::Exchange(no, seq(1), Exchange::Released(id(1))));
    store.note(Change::Exchange(no, seq(2), Exchange::Sent(id(2))));
    let check = |store: &Arc<Store>| {
        let found = sessions(store);
        let [found] = found.as_slice() else {
            panic!("one session: {found:?}")
        };
        assert_eq!((found.no, &found.record), (no, &*record("c")));
        assert_eq!(found.subscriptions, [(ByteString::from("x/#"), subscription(3))]);
        assert_eq!(found.received, [id(9)]);
        assert_eq!(found.exchanges.len(), 2);
        assert_eq!(found.exchanges[0], (seq(1), Exchange::Released(id(1)), None));
        assert_eq!(
            found.exchanges[1],
            (seq(2), Exchange::Sent(id(2)), Some(queued("2")))
        );
        let backlog = found.queue.expect("three wait");
        assert_eq!((backlog.len, backlog.first, backlog.last), (3, seq(3), seq(5)));
        assert_eq!(backlog.bytes, 3 * message("3").weight());
        assert_eq!(found.next, seq(6));
        let by_name = read(|answer| store.session_of(&"c".into(), None, answer)).expect("readable");
        assert_eq!(by_name.as_ref(), Some(found));
        let waiting = [(3, "3".into()), (4, "4".into()), (5, "5".into())];
        assert_eq!(page(store, no), waiting);
    };
    check(&store);
    assert_eq!(store.commit(), Turn::Done);
    check(&store);
    drop(store);
    let store = Store::open(&config).expect("it opens again");
    check(&store);
    assert!(store.number() > no, "no number is used twice");
    store.note(Change::Forget(no));
    assert!(sessions(&store).is_empty());
    assert_eq!(store.commit(), Turn::Done);
    assert!(sessions(&store).is_empty());
    assert_eq!(
        read(|answer| store.session_of(&"c".into(), None, answer)),
        Ok(None)
    );
}

#[test]
fn what_is_settled_before_anybody_wrote_it_is_never_written() {
    let store = Store::memory();
    let no = store.number();
    let mark = {
        store.note(Change::Queued(no, seq(1), queued("1")));
        store.note(Change::Exchange(no, seq(1), Exchange::Sent(id(1))));
        let mark = store.mark();
        assert!(mark > store.committed());
        store.note(Change::Settled(no, seq(1)));
        mark
    };
    assert_eq!(store.figures().pending, 0);
    assert_eq!(store.commit(), Turn::Idle);
    assert!(store.committed() >= mark, "there is nothing to wait for");
    assert_eq!(store.mark(), store.committed());
    assert_eq!(store.figures().commits, 0);
    assert_eq!(store.figures().pending_bytes, 0);
}

#[test]
fn what_was_written_is_taken_away_again() {
    let store = Store::memory();
    let no = store.number();
    store.note(Change::Session(no, record("c")));
    store.note(Change::Queued(no, seq(1), queued("1")));
    store.note(Change::Queued(no, seq(2), queued("2")));
    assert_eq!(store.commit(), Turn::Done);
    store.note(Change::Settled(no, seq(1)));
    assert_eq!(page(&store, no), [(2, "2".into())]);
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(page(&store, no), [(2, "2".into())]);
    store.note(Change::Exchange(no, seq(2), Exchange::Released(id(2))));
    assert_eq!(page(&store, no), []);
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(
        sessions(&store)[0].exchanges,
        [(seq(2), Exchange::Released(id(2)), None)]
    );
    store.note(Change::Settled(no, seq(2)));
    assert_eq!(store.commit(), Turn::Done);
    let found = sessions(&store);
    assert!(found[0].exchanges.is_empty() && found[0].queue.is_none());
}

#[test]
fn a_publication_becomes_safe_in_one_step() {
    let store = Store::memory();
    let (publisher, subscriber) = (store.number(), store.number());
    store.note(Change::Session(publisher, record("p")));
    store.note(Change::Session(subscriber, record("s")));
    let publication = Publication(1);
    for place in 1..=3 {
        store.note_of(publication, Change::Queued(subscriber, seq(place), queued("m")));
    }
    store.note(Change::Exchange(subscriber, seq(2), Exchange::Sent(id(2))));
    store.note(Change::Settled(subscriber, seq(2)));
    store.commit();
    assert_eq!(page(&store, subscriber).len(), 2, "a reader sees them");
    assert_eq!(
        store.mark(),
        store.committed(),
        "there is nothing to wait for until it is sealed"
    );
    assert_eq!(store.figures().held, 1);
    store.seal(publication, Some(Change::Received(publisher, id(4))));
    assert!(store.mark() > store.committed());
    assert_eq!(store.commit(), Turn::Done);
    assert_eq!(page(&store, subscriber), [(1, "m".into()), (3, "m".into())]);
    assert_eq!(sessions(&store)[0].received, [id(4)]);
    assert_eq!((store.figures().held, store.figures().pending_bytes), (0, 0));
    store.note_of(Publication(2), Change::Queued(subscriber, seq(4), queued("m")));
    store.note(Change::Forget(subscriber));
    store.seal(Publication(2), None);
    store.commit();
    assert_eq!(page(&store, subscriber), []);
}

#[test]
fn pages_end_where_they_are_told_and_begin_where_the_last_one_ended() {
    let store = Store::memory();
    let no = store.number();
    for place in 1..=10 {
        store.note(Change::Queued(no, seq(place), queued("0123456789")));
        if place == 5 {
            store.commit();
        }
    }
    let weight = message("0123456789").weight();
    let places = |from, last, len, bytes| {
        let page = read(|answer| store.page(no, seq(from), seq(last), len, bytes, answer));
        let page = page.expect("readable");
        page.iter().map(|(seq, _)| seq.0.get()).collect::<Vec<_>>()
    };
    assert_eq!(places(1, 10, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(places(4, 10, 3, usize::MAX), [4, 5, 6]);
    assert_eq!(places(4, 5, 100, usize::MAX), [4, 5]);
    assert_eq!(places(2, 10, 100, 2 * weight), [2, 3]);
    assert_eq!(places(9, 10, 100, 1), [9], "the first always fits");
    assert!(places(11, 20, 100, 100).is_empty());
}

#[test]
fn retained_messages_and_tombstones_are_read_in_the_order_of_their_topics() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "a@localhost");
    let store = Store::open(&config).expect("it opens");
    let stamp = Stamp {
        time: HybridTime(77),
        node: "a@localhost".parse().expect("a name"),
    };
    let message = Retained::Message(message("on"), stamp.clone());
    let cleared = Retained::Cleared(stamp, 5);
    store.retain(&"b".into(), message.clone());
    store.retain(&"d".into(), message.clone());
    store.commit();
    store.retain(&"a".into(), message.clone());
    store.retain(&"b".into(), cleared.clone());
    store.retain(&"c".into(), message.clone());
    store.retain(&"d".into(), Retained::Forgotten);
    let all = vec![
        (ByteString::from("a"), message.clone()),
        ("b".into(), cleared.clone()),
        ("c".into(), message.clone()),
    ];
    let check = |store: &Arc<Store>| {
        let retained =
            |after, len| read(|answer| store.retained(after, len, usize::MAX, answer)).expect("readable");
        assert_eq!(retained(None, 100), all);
        assert_eq!(retained(None, 2), all[..2]);
        assert_eq!(retained(Some("b".into()), 2), all[2..]);
        assert_eq!(retained(Some("c".into()), 2), []);
    };
    check(&store);
    store.commit();
    check(&store);
    drop(store);
    check(&Store::open(&config).expect("it opens again"));
}

#[test]
fn a_message_that_expires_does_so_after_a_restart_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path(), "a@localhost");
    let store = Store::open(&config).expect("it opens");
    let no = store.number();
    let expires_at = Instant::now() + Duration::from_secs(100);
    let mut soon = queued("soon");
    Arc::make_mut(&mut soon.message).expires_at = Some(expires_at);
    store.note(Change::Session(no, record("c")));
    store.note(Change::Queued(no, seq(1), soon));
    store.commit();
    drop(store);
    let store = Store::open(&config).expect("it opens again");
    let page = read(|answer| store.page(no, seq(1), seq(9), 9, 9999, answer)).expect("readable");
    let found = page[0].1.message.expires_at.expect("it still expires");
    let off = found.max(expires_at) - found.min(expires_at);
    assert!(off < Duration::from_secs(1), "by {off:?}");
}

#[test]
fn a_store_is_opened_by_its_own_node_once_and_in_its_own_format() {
    let dir = tempfile::tempdir().expect("a directory");
    let mine = config(dir.path(), "a@localhost");
    let store = Store::open(&mine).expect("it opens");
    let refused = Store::open(&mine).expect_err("it is in use").to_string();
    assert!(
        refused.contains(&format!("in use by process {}", std::process::id())),
        "{refused}"
    );
    drop(store);
    let refused = Store::open(&config(dir.path(), "b@localhost"))
        .expect_err("another's")
        .to_string();
    assert!(refused.contains("belongs to the node a@localhost"), "{refused}");
    let file = mine.dir.join("records.redb");
    newer(&file);
    let refused = Store::open(&mine).expect_err("newer").to_string();
    let format = format!("has format {}", opening::FORMAT + 1);
    assert!(refused.contains(&format), "{refused}");
    std::fs::remove_file(&file).expect("it goes");
    std::fs::create_dir(&file).expect("something in its place");
    let refused = Store::open(&mine).expect_err("unusable").to_string();
    assert!(refused.contains("cannot use the store"), "{refused}");
}
