//! Passwords in CONNECT, and anonymous clients.

use ermine::mqtt::packet::Packet;
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::place::{PASSWORD, Place, refusal};

#[test]
fn each_wrong_password_is_refused_and_the_right_one_comes_in() {
    let place = Place::new();
    let node = place.guarded();
    Options::new("a")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
    Options::v5("b").credentials("alice", PASSWORD).connect(node.mqtt);
    let wrong = [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", "Tr0ub4dor&3 "),
        ("alice", "tr0ub4dor&3"),
        ("Alice", PASSWORD),
        ("", PASSWORD),
        ("nobody", PASSWORD),
        ("bob:1", PASSWORD),
    ];
    for (username, password) in wrong {
        let v5 = Options::v5("c").credentials(username, password);
        assert_eq!(
            refusal(v5, node.mqtt),
            ReasonCode::BadUserNameOrPassword,
            "{username} {password}"
        );
    }
    // 3.1.1 reads return code 4 for a wrong password and 5 for none (the decoder shows them as reasons).
    let v3 = refusal(Options::new("c").credentials("bob", "wrong"), node.mqtt);
    assert_eq!(v3, ReasonCode::BadUserNameOrPassword);
    assert_eq!(refusal(Options::new("c"), node.mqtt), ReasonCode::NotAuthorized);
    assert_eq!(refusal(Options::v5("c"), node.mqtt), ReasonCode::NotAuthorized);
    let mut only_name = Options::v5("c");
    only_name.connect.username = Some("alice".into());
    assert_eq!(refusal(only_name, node.mqtt), ReasonCode::BadUserNameOrPassword);
    let status = place.host.json(&["status"]);
    let denied = status["counters"].as_array().expect("a list").iter();
    let denied = denied
        .filter(|pair| pair[0] == "connects_denied")
        .map(|pair| pair[1].as_u64());
    assert_eq!(denied.collect::<Vec<_>>(), [Some(12)]);
}

#[test]
fn guessing_is_stopped_for_one_user_and_not_for_another() {
    let place = Place::new();
    let node = place.start("[auth]\npassword_file = \"{home}/passwd\"\nfailures_max = 3\n");
    let mut connected = Options::v5("before")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
    for guess in ["1", "2", "3"] {
        let guess = Options::v5("g").credentials("alice", guess);
        assert_eq!(refusal(guess, node.mqtt), ReasonCode::BadUserNameOrPassword);
    }
    let right = || Options::v5("g").credentials("alice", PASSWORD);
    assert_eq!(
        refusal(right(), node.mqtt),
        ReasonCode::Banned,
        "also with the right one"
    );
    let v3 = Options::new("g").credentials("alice", PASSWORD);
    assert_eq!(refusal(v3, node.mqtt), ReasonCode::NotAuthorized, "return code 5");
    Options::v5("b").credentials("bob", PASSWORD).connect(node.mqtt);
    connected.assert_quiet();
    node.await_log("it is logged once", |line| {
        line.contains("too often") && line.contains("alice")
    });
}

#[test]
fn a_password_is_in_no_log_and_no_report_even_when_its_session_crashes() {
    let place = Place::new();
    let file = "[log]\nlevel = \"trace\"\n[auth]\npassword_file = \"{home}/passwd\"\n";
    let node = place.start(file);
    let client = Options::v5("victim").credentials("alice", PASSWORD);
    let mut client = client.connect(node.mqtt);
    refusal(Options::v5("x").credentials("alice", "Wr0ngGuess"), node.mqtt);
    place.host.ok(&["crash", "victim"]);
    let _ = client.assert_closed();
    node.await_log("a crash report", |line| line.contains("crash"));
    let tree = place.host.ok(&["status", "--json"]);
    assert!(!tree.contains(PASSWORD));
    let log = node.log.clone();
    node.stop();
    // As text, and as a list of bytes.
    for secret in [PASSWORD, "Wr0ngGuess", "84, 114, 48, 117"] {
        assert!(!log.all().contains(secret), "{secret} is in the log");
    }
}

#[test]
fn from_other_hosts_anonymous_clients_come_in_only_if_they_are_allowed() {
    let host = Host::new();
    let all = |node: &crate::harness::host::Node| {
        let line = node.await_log("where it listens", |line| line.contains("node started"));
        let (_, rest) = line.split_once("0.0.0.0:").expect("its port");
        let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
        format!("127.0.0.1:{port}").parse().expect("an address")
    };
    let node = host.start_with("closed@127.0.0.1", &["--listen", "0.0.0.0:0"]);
    node.await_log("a hint", |line| line.contains("nobody can come in"));
    assert_eq!(refusal(Options::v5("c"), all(&node)), ReasonCode::NotAuthorized);
    drop(node);
    let node = host.start_with("open@127.0.0.1", &["--listen", "0.0.0.0:0", "--allow-anonymous"]);
    Options::v5("c").connect(all(&node)).disconnect();
}

#[test]
fn a_gatekeeper_that_crashes_loses_no_client_and_decides_about_those_who_wait() {
    let place = Place::new();
    let node = place.guarded();
    let mut connected = Options::v5("before")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
    let waiting: Vec<_> = (0..8)
        .map(|n| {
            Options::v5(&format!("w{n}"))
                .credentials("bob", PASSWORD)
                .open(node.mqtt)
                .expect("open")
        })
        .collect();
    place.host.ok(&["crash", "core/gatekeeper"]);
    for mut client in waiting {
        match client.next() {
            Packet::ConnAck(connack) => assert_eq!(connack.reason, ReasonCode::Success),
            other => panic!("{other:?}"),
        }
    }
    connected.assert_quiet();
    eventually("its restart is known", || {
        let restarts = place.host.ok(&["restarts"]);
        restarts.contains("gatekeeper").then_some(())
    });
}
