//! Files that change while the node runs.

use ermine::mqtt::packet::QoS;
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::harness::host::eventually;
use crate::place::{PASSWORD, Place, refusal, user};

#[test]
fn a_reload_drops_nobody_and_new_rules_hold_at_once() {
    let place = Place::new();
    let node = place.ruled("user alice\ntopic readwrite a/#\n");
    let mut alice = user("alice", node.mqtt);
    assert_eq!(alice.subscribe("a/#", QoS::AtLeastOnce), ReasonCode::GrantedQoS1);
    alice.publish_and_receive("a/1");

    place.write("acl", "user alice\ntopic read a/#\ntopic readwrite b\n");
    place.set("carol", PASSWORD);
    let said = place.host.ok(&["reload"]);
    assert!(
        said.contains("passwd: 3 users") && said.contains("acl: 2 rules"),
        "{said}"
    );
    alice.send_publish("a/1", b"x", QoS::AtMostOnce, false);
    alice.assert_quiet();
    assert_eq!(alice.subscribe("b", QoS::AtLeastOnce), ReasonCode::GrantedQoS1);
    alice.publish_and_receive("b");
    user("carol", node.mqtt);
}

#[test]
fn broken_files_leave_what_was_there_and_the_operator_is_told() {
    let place = Place::new();
    let node = place.ruled("user alice\ntopic readwrite a\n");
    let mut alice = user("alice", node.mqtt);
    assert_eq!(alice.subscribe("a", QoS::AtLeastOnce), ReasonCode::GrantedQoS1);
    place.write("acl", "user alice\ntopic readwrite a\nallow everything\n");
    place.write("passwd", "alice:letmein\n");
    let (said, status) = place.host.fails(&["reload"]);
    assert_eq!(status, 1);
    assert!(
        said.contains("acl: line 3: 'allow' is none of user, topic and pattern"),
        "{said}"
    );
    assert!(
        said.contains("passwd: line 1: user alice has no argon2id hash"),
        "{said}"
    );
    assert!(said.contains("stay") && !said.contains("letmein"), "{said}");
    alice.publish_and_receive("a");
    user("bob", node.mqtt);
}

#[test]
fn sighup_does_what_reload_does() {
    let place = Place::new();
    let node = place.guarded();
    let mut alice = user("alice", node.mqtt);
    place.set("bob", "another one");
    assert_eq!(
        user("bob", node.mqtt).connack.reason,
        ReasonCode::Success,
        "not before the signal"
    );
    node.signal("HUP");
    node.await_log("it reads", |line| {
        line.contains("reload: ") && line.contains("2 users")
    });
    let old = Options::v5("c").credentials("bob", PASSWORD);
    assert_eq!(refusal(old, node.mqtt), ReasonCode::BadUserNameOrPassword);
    Options::v5("c")
        .credentials("bob", "another one")
        .connect(node.mqtt);
    alice.assert_quiet();
}

#[test]
fn mistakes_are_told_before_a_port_is_opened() {
    let place = Place::new();
    place.write("acl", "topic a/#/b\n");
    let cases = [
        (
            "[auth]\npassword_file = \"{home}/none\"",
            "cannot read the password file",
        ),
        (
            "[acl]\nfile = \"{home}/acl\"",
            "acl: line 1: 'a/#/b' is no topic filter",
        ),
        ("[acl]\n", "[acl] needs file"),
        (
            "[auth]\nchain = [\"password_file\"]",
            "chain names password_file, but none is set",
        ),
        ("[auth]\nchain = [\"magic\"]", "chain must be made of"),
        ("[auth]\npasswd = \"x\"", "did you mean 'password_file'?"),
        (
            "[auth]\nchain = [\"http\"]\n[auth.http]\nurl = \"https://h/\"",
            "for https put a proxy",
        ),
        (
            "[auth.jwt]\nsecret_file = \"{home}/acl\"",
            "a secret needs at least 32",
        ),
        (
            "[auth.jwt]\nalgorithm = \"none\"\nsecret_file = \"x\"",
            "must be HS256, RS256 or ES256",
        ),
        (
            "[auth]\nchain = [\"certificate\"]\nallow_anonymous = true",
            "does not name anonymous",
        ),
    ];
    for (config, expected) in cases {
        place.write("ermine.toml", &place.filled(config));
        let file = place.path("ermine.toml");
        let (said, status) = place
            .host
            .fails(&["start", "--config", file.to_str().expect("text")]);
        assert!(said.contains(expected), "{config}: {said}");
        assert_eq!((status, said.trim().lines().count()), (64, 1), "{said}");
    }
}

#[test]
fn the_user_is_shown_to_operators() {
    let place = Place::new();
    let node = place.guarded();
    let _alice = user("alice", node.mqtt);
    eventually("the list shows her", || {
        let clients = place.host.ok(&["clients", "--json"]);
        clients.contains("\"username\": \"alice\"").then_some(())
    });
}

#[test]
fn a_password_that_is_recalled_is_void_once_the_file_says_another() {
    let place = Place::new();
    let node = place.guarded();
    // Computed, then recalled.
    user("alice", node.mqtt);
    user("alice", node.mqtt);
    place.set("alice", "another one");
    place.host.ok(&["reload"]);
    let old = Options::v5("alice").credentials("alice", PASSWORD);
    assert_eq!(refusal(old, node.mqtt), ReasonCode::BadUserNameOrPassword);
    let new = Options::v5("alice").credentials("alice", "another one");
    new.clone().connect(node.mqtt);
    new.connect(node.mqtt);
}
