//! `ermine passwd`.

use std::os::unix::fs::PermissionsExt;

use crate::place::{PASSWORD, Place};

#[test]
fn the_file_is_for_its_owner_alone_and_holds_no_password() {
    let place = Place::new();
    let path = place.path("passwd");
    let mode = path.metadata().expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).expect("readable");
    assert!(!text.contains(PASSWORD));
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.lines()
            .all(|line| line.contains(":1:$argon2id$") && line.contains(":SCRAM-SHA-256$"))
    );
}

#[test]
fn users_are_changed_and_removed_one_by_one() {
    let place = Place::new();
    let file = place.path("passwd");
    let file = file.to_str().expect("text");
    let before = std::fs::read_to_string(file).expect("readable");
    place.set("alice", "another");
    let after = std::fs::read_to_string(file).expect("readable");
    assert_ne!(before.lines().next(), after.lines().next());
    assert_eq!(
        before.lines().nth(1),
        after.lines().nth(1),
        "bob's line is untouched"
    );
    place.host.ok(&["passwd", "-D", file, "alice"]);
    let (said, status) = place.host.fails(&["passwd", "-D", file, "alice"]);
    assert!(status == 1 && said.contains("there is no user alice"), "{said}");
    let (said, status) = place.host.fails(&["passwd", file, "a:b", "--batch"]);
    assert!(status == 64 && said.contains("no colon"), "{said}");
    let (said, _) = place.host.fails(&["passwd", file, "carol", "--batch"]);
    assert!(said.contains("the password is empty"), "{said}");
    place.write("passwd", "alice:plain\n");
    let (said, _) = place.host.fails(&["passwd", "-D", file, "alice"]);
    assert!(said.contains("line 1") && !said.contains("plain"), "{said}");
}
