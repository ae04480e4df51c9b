//! Files that were cut off and bytes that were flipped: what is whole is served, what is lost is named, and
//! nothing is taken for something else.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const SESSIONS: u64 = 40;
const MESSAGES: u64 = 50;

fn config(dir: &Path) -> StoreConfig {
    StoreConfig {
        dir: dir.join("store"),
        node: "a@localhost".parse().expect("a name"),
        pace: Pace::default(),
    }
}

fn text(no: u64, place: u64) -> String {
    format!("{no}/{place}/{}", "x".repeat((place % 7) as usize * 40))
}

/// A store with something in it, closed; its bytes.
fn filled(dir: &Path) -> Vec<u8> {
    let config = config(dir);
    let store = Store::open(&config).expect("it opens");
    for _ in 0..SESSIONS {
        let no = store.number();
        store.note(Change::Session(no, record(&format!("client {}", no.0))));
        for place in 1..=MESSAGES {
            store.note(Change::Queued(no, seq(place), queued(&text(no.0, place))));
        }
        store.commit();
    }
    drop(store);
    fs::read(file(dir)).expect("the file")
}

fn file(dir: &Path) -> PathBuf {
    dir.join("store/records.redb")
}

/// How many messages a store with these bytes has; `None` if it is refused.
fn served(dir: &Path, bytes: &[u8]) -> Option<u64> {
    fs::write(file(dir), bytes).expect("written");
    let store = match Store::open(&config(dir)) {
        Ok(store) => store,
        Err(error) => {
            // Also the name of the node may be damaged; its record is not believed then.
            assert!(
                matches!(error, OpenError::Damaged(..) | OpenError::Unreadable(..)),
                "{error}"
            );
            return None;
        }
    };
    let mut found = 0;
    for restored in sessions(&store) {
        let no = restored.no;
        assert_eq!(restored.record, *record(&format!("client {}", no.0)));
        for (place, said) in page(&store, no) {
            assert_eq!(said, text(no.0, place), "session {}", no.0);
            found += 1;
        }
    }
    let lost = found < SESSIONS * MESSAGES;
    assert!(
        !lost || store.figures().damaged > 0,
        "{found} served, and not a word about it"
    );
    drop(store);
    for entry in fs::read_dir(dir.join("store")).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.to_string_lossy().contains("damaged-") {
            fs::remove_file(path).expect("it goes");
        }
    }
    Some(found)
}

#[test]
fn a_flipped_byte_is_found_out_and_costs_what_stands_beside_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = filled(dir.path());
    assert_eq!(served(dir.path(), &bytes), Some(SESSIONS * MESSAGES));
    let (mut costs, mut refused, mut hurt) = (Vec::new(), 0, 0);
    let places = (0..32).map(|at| at * bytes.len() / 32 + 17 * (at + 1) % 4096);
    for at in places {
        let mut damaged = bytes.clone();
        let at = at.min(damaged.len() - 1);
        damaged[at] ^= 0x40;
        match served(dir.path(), &damaged) {
            Some(found) => {
                hurt += u64::from(found < SESSIONS * MESSAGES);
                costs.push(SESSIONS * MESSAGES - found);
            }
            None => refused += 1,
        }
    }
    assert!(hurt > 5, "only {hurt} of 32 flipped bytes hurt a message");
    assert!(refused <= 2, "{refused} of 32 flipped bytes cost everything");
    costs.sort_unstable();
    // A byte near the root of the tree costs what hangs there; that is told as well.
    let middle = costs[costs.len() / 2];
    assert!(
        middle < SESSIONS * MESSAGES / 10,
        "half of the flipped bytes cost {middle} messages and more"
    );
}

#[test]
fn a_file_that_was_cut_off_gives_what_is_left_of_it_or_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = filled(dir.path());
    let mut some = 0;
    for tenths in 1..10 {
        let found = served(dir.path(), &bytes[..bytes.len() * tenths / 10]);
        some += u64::from(found.is_some_and(|found| found > 0));
    }
    assert!(some > 0, "nothing was found in any of them");
    let refused = {
        fs::write(file(dir.path()), b"this is no store").expect("written");
        Store::open(&config(dir.path()))
            .expect_err("it is none")
            .to_string()
    };
    assert!(refused.contains("is no store of Ermine's"), "{refused}");
    assert!(
        refused.contains("'ermine store restore DIR'") && !refused.contains("store check"),
        "{refused}"
    );
    assert!(
        !dir.path().join("store/records.mended").exists(),
        "a file of nothing is left"
    );
}

#[test]
fn a_copy_holds_what_the_store_holds_and_takes_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    filled(dir.path());
    let (store_dir, to) = (dir.path().join("store"), dir.path().join("copy"));
    let node = "a@localhost".parse().expect("a name");
    let all = tools::check(&store_dir, &mut |_| {}).expect("it can be read");
    assert_eq!(
        (all.sessions, all.messages, all.damaged),
        (SESSIONS, SESSIONS * MESSAGES, 0)
    );
    assert_eq!(all.node, "a@localhost");
    let store = Store::open(&config(dir.path())).expect("it opens");
    let busy = tools::stats(&store_dir, &mut |_| {}).expect_err("a node has it");
    let tools::ToolError::Running(_, holder) = busy else {
        panic!("{busy}")
    };
    assert_eq!(holder, Some("a@localhost".parse().expect("a name")));
    let no = store.number();
    store.note(Change::Session(no, record("new")));
    let copied = store.backup(&to, &mut |_| {}).expect("it is copied");
    assert_eq!(copied.sessions, SESSIONS + 1, "what was only noted is copied too");
    assert!(
        store.backup(&to, &mut |_| {}).is_err(),
        "no backup is written over"
    );
    store.note(Change::Forget(no));
    store.commit();
    drop(store);
    let other = "b@localhost".parse().expect("a name");
    let refused = tools::restore(&store_dir, &other, &to, &mut |_| {}).expect_err("of another node");
    assert!(
        refused.to_string().contains("it is of the node a@localhost"),
        "{refused}"
    );
    let (restored, aside) = tools::restore(&store_dir, &node, &to, &mut |_| {}).expect("it is restored");
    assert_eq!(restored.sessions, SESSIONS + 1);
    assert!(aside.expect("there was a store before").exists());
    let store = Store::open(&config(dir.path())).expect("it opens");
    assert_eq!(sessions(&store).len() as u64, SESSIONS + 1);
}

#[test]
fn what_is_not_there_or_not_ours_to_read_is_refused_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let (absent, node) = (dir.path().join("absent"), "a@localhost".parse().expect("a name"));
    let missing = tools::check(&absent, &mut |_| {}).expect_err("there is none");
    assert!(matches!(missing, tools::ToolError::Missing(_)), "{missing}");
    let refused = tools::restore(&absent, &node, &dir.path().join("typo"), &mut |_| {});
    assert!(
        refused
            .expect_err("there is no backup")
            .to_string()
            .contains("typo")
    );
    assert!(!absent.exists());
    filled(dir.path());
    newer(&file(dir.path()));
    let store_dir = dir.path().join("store");
    let copy = dir.path().join("copy");
    for refused in [
        tools::check(&store_dir, &mut |_| {}),
        tools::stats(&store_dir, &mut |_| {}),
        tools::backup(&store_dir, &copy, &mut |_| {}),
    ] {
        let refused = refused.expect_err("a newer version wrote it").to_string();
        let format = format!("has format {}", opening::FORMAT + 1);
        assert!(refused.contains(&format), "{refused}");
    }
    assert!(!copy.exists());
}

#[test]
fn a_look_at_a_damaged_store_says_what_is_lost_and_changes_nothing_that_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut bytes = filled(dir.path());
    let at = bytes
        .windows(9)
        .position(|found| found == b"client 20")
        .expect("it is somewhere");
    bytes[at] ^= 1;
    fs::write(file(dir.path()), &bytes).expect("written");
    let seen = tools::check(&dir.path().join("store"), &mut |_| {}).expect("it can be read");
    assert!(seen.damaged > 0 && !seen.lost.is_empty(), "{seen:?}");
    let found = served(dir.path(), &fs::read(file(dir.path())).expect("the file"));
    assert!(found.expect("it is mended") > 0);
}
