//! `ermine cookie rotate`. Goal: a cluster changes its secret while everything goes on; who was away is taken
//! back within the grace and not after it; the cookies stay where they are. Method: real nodes, each on a
//! host with a cookie file of its own.

use std::os::unix::fs::PermissionsExt;

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, eventually, text};
use crate::trust_leaks::{assert_clean, assert_folder_clean, assert_processes_clean};
use crate::{await_route, running};

const NAMES: [&str; 3] = ["n1@127.0.0.1", "n2@127.0.0.2", "n3@127.0.0.3"];
const OUTSIDER: &str = "n4@127.0.0.4";

/// Three nodes on three hosts that are one cluster.
fn three() -> (Vec<Host>, Vec<Node>) {
    let first = Host::new();
    let n1 = first.start(NAMES[0]);
    let mut hosts = vec![
        first.with_a_copy_of_the_cookie(),
        first.with_a_copy_of_the_cookie(),
    ];
    hosts.insert(0, first);
    let mut nodes = vec![n1];
    for (host, name) in hosts.iter().zip(NAMES).skip(1) {
        nodes.push(host.start(name));
        hosts[0].ok(&["cluster", "join", name, "--node", NAMES[0]]);
    }
    for (host, name) in hosts.iter().zip(NAMES) {
        sees(host, name, 3);
    }
    (hosts, nodes)
}

#[track_caller]
fn sees(host: &Host, name: &str, size: usize) {
    eventually(&format!("{name} sees {size}"), || {
        (running(host, name).len() == size).then_some(())
    });
}

fn fingerprint(host: &Host) -> String {
    host.ok(&["cookie", "fingerprint"]).trim().to_owned()
}

/// What a rotation says of each node, by name.
fn rotate(host: &Host, name: &str, more: &[&str]) -> Vec<(String, String)> {
    let rotated = host.json(&[&["cookie", "rotate", "--node", name], more].concat());
    let members = rotated["members"].as_array().expect("members").iter();
    let told = members.map(|member| (member["node"].clone(), member["state"].clone()));
    let text = |value: serde_json::Value| value.as_str().expect("a text").to_owned();
    told.map(|(node, state)| (text(node), text(state))).collect()
}

fn all(states: [&str; 3]) -> Vec<(String, String)> {
    let told = NAMES.iter().zip(states);
    told.map(|(name, state)| ((*name).to_owned(), state.to_owned()))
        .collect()
}

#[test]
fn a_rotation_under_traffic_loses_nothing_and_drops_no_link_and_newcomers_need_the_new_cookie() {
    let (hosts, nodes) = three();
    let before = fingerprint(&hosts[0]);
    let latecomer = hosts[0].with_a_copy_of_the_cookie();
    let mut subscriber = Options::new("s").connect(nodes[2].mqtt);
    subscriber.subscribe("rotated/#", QoS::AtLeastOnce);
    await_route(&hosts[0], NAMES[0], "rotated/#", &[NAMES[2]]);
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    let mut published = 0..;
    let mut some = || {
        for number in published.by_ref().take(100) {
            publisher.publish("rotated/x", &format!("{number}"), QoS::AtLeastOnce);
        }
    };
    std::thread::scope(|scope| {
        let rotated = scope.spawn(|| {
            let first = rotate(&hosts[1], NAMES[1], &[]);
            (first, rotate(&hosts[0], NAMES[0], &["--grace", "0s"]))
        });
        while !rotated.is_finished() {
            some();
        }
        let (first, second) = rotated.join().expect("rotated");
        let changed = all(["changed", "changed", "changed"]);
        assert_eq!((first, second), (changed.clone(), changed));
    });
    // Without grace the old one is of no use to anybody.
    let (err, _) = latecomer.fails(&["status", "--node", NAMES[1]]);
    assert!(err.contains("cookie"), "{err}");
    let after = fingerprint(&hosts[0]);
    assert_ne!(before, after);
    for host in &hosts {
        assert_eq!(fingerprint(host), after);
        let mode = std::fs::metadata(host.cookie_file())
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
    some();
    let outsider = hosts[2].with_a_copy_of_the_cookie();
    let _n4 = outsider.start(OUTSIDER);
    hosts[0].ok(&["cluster", "join", OUTSIDER, "--node", NAMES[0]]);
    sees(&outsider, OUTSIDER, 4);
    for node in &nodes {
        let log = node.log.all();
        assert!(
            !log.contains("nodedown") && !log.contains("over a new connection"),
            "{log}"
        );
    }
    // Now every link is proved anew.
    hosts[0].ok(&["crash", "root/cluster/dist", "--node", NAMES[0]]);
    some();
    eventually("n1 sees four again", || {
        let output = hosts[0].run(&["cluster", "status", "--node", NAMES[0], "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        (status["running_nodes"].as_array()?.len() == 4).then_some(())
    });
    some();
    for number in 0..published.start {
        assert_eq!(subscriber.text(), number.to_string());
    }
}

#[test]
fn a_member_that_was_down_is_given_the_new_cookie_within_the_grace_and_refused_after_it() {
    let (hosts, mut nodes) = three();
    nodes.pop().expect("three").kill();
    nodes[0].await_log("n3 is down", |line| line.contains("nodedown n3"));
    nodes[1].await_log("n3 is down", |line| line.contains("nodedown n3"));
    let changed_but_one = all(["changed", "changed", "down"]);
    assert_eq!(rotate(&hosts[0], NAMES[0], &[]), changed_but_one);
    let new = fingerprint(&hosts[0]);
    assert_ne!(fingerprint(&hosts[2]), new);
    let n3 = hosts[2].start(NAMES[2]);
    n3.await_log("it is given the new cookie", |line| {
        line.contains("the cookie was rotated") && line.contains(&new)
    });
    eventually("its file is rewritten", || {
        (fingerprint(&hosts[2]) == new).then_some(())
    });
    sees(&hosts[0], NAMES[0], 3);
    let marks: Vec<usize> = nodes.iter().map(|node| node.log.len()).collect();
    n3.kill();
    for (node, mark) in nodes.iter().zip(marks) {
        let down = |line: &str| line.contains("nodedown n3");
        node.log.wait_after(mark, "n3 is down", down);
    }
    assert_eq!(rotate(&hosts[1], NAMES[1], &["--grace", "0s"]), changed_but_one);
    let n3 = hosts[2].start(NAMES[2]);
    n3.await_log("why it is alone", |line| {
        line.contains(
            "was replaced there by `ermine cookie rotate`, and its grace is over: copy the cookie file",
        )
    });
    nodes[0].await_log("who is refused", |line| {
        line.contains("a node that calls itself n3@127.0.0.3 holds a cookie that was replaced")
    });
    assert_eq!(running(&hosts[0], NAMES[0]).len(), 2);
    // The remedy that both sentences name.
    assert!(n3.stop().success());
    std::fs::copy(hosts[0].cookie_file(), hosts[2].cookie_file()).expect("copied");
    let _n3 = hosts[2].start(NAMES[2]);
    sees(&hosts[0], NAMES[0], 3);
}

#[test]
fn two_sides_of_a_split_that_both_rotated_end_with_the_later_cookie() {
    let first = Host::new();
    let n1 = first.start(NAMES[0]);
    let second = first.with_a_copy_of_the_cookie();
    let n2 = second.start(NAMES[1]);
    first.ok(&["cluster", "join", NAMES[1], "--node", NAMES[0]]);
    sees(&second, NAMES[1], 2);
    let old = fingerprint(&first);
    n2.signal("STOP");
    n1.await_log("n2 is down", |line| line.contains("nodedown n2"));
    rotate(&first, NAMES[0], &[]);
    n1.signal("STOP");
    n2.signal("CONT");
    n2.await_log("n1 is down", |line| line.contains("nodedown n1"));
    rotate(&second, NAMES[1], &[]);
    let (earlier, later) = (fingerprint(&first), fingerprint(&second));
    assert!(earlier != later && earlier != old && later != old);
    n1.signal("CONT");
    eventually("both hold the later one", || {
        (fingerprint(&first) == later).then_some(())
    });
    sees(&first, NAMES[0], 2);
    assert_eq!(fingerprint(&second), later);
}

#[test]
fn a_rotation_whose_coordinator_died_is_finished_by_whoever_meets_the_new_cookie() {
    let (hosts, mut nodes) = three();
    let new = hosts[0].home().join("new");
    std::fs::write(&new, "to-be-finished-h6Wm2qXs9dLb").expect("written");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).expect("set");
    // While one member says nothing, none is told to change.
    nodes[2].signal("STOP");
    let file = new.to_str().expect("a path of ours");
    let words = ["cookie", "rotate", "--node", NAMES[0], "--new", file];
    let mut command = hosts[0].ermine().args(words).spawn().expect("runs");
    nodes[1].await_log("it is prepared", |line| line.contains("a new cookie is prepared"));
    nodes.remove(0).kill();
    assert!(!command.wait().expect("ended").success());
    nodes[1].signal("CONT");
    let before = fingerprint(&hosts[0]);
    std::fs::copy(&new, hosts[0].cookie_file()).expect("copied");
    let after = fingerprint(&hosts[0]);
    assert_eq!(fingerprint(&hosts[1]), before, "it has not changed yet");
    assert_ne!(before, after);
    let _n1 = hosts[0].start(NAMES[0]);
    for (host, node) in hosts[1..].iter().zip(&nodes) {
        node.await_log("it changes too", |line| {
            line.contains("the cookie was rotated") && line.contains(&after)
        });
        eventually("its file is rewritten", || {
            (fingerprint(host) == after).then_some(())
        });
        sees(host, &node.name, 3);
    }
}

#[test]
fn rotations_from_all_sides_at_once_leave_one_cookie() {
    let (hosts, nodes) = three();
    let run = |place: usize| hosts[place].run(&["cookie", "rotate", "--node", NAMES[place]]);
    let done: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|place| scope.spawn(move || run(place))).collect();
        runs.into_iter().map(|run| run.join().expect("ran")).collect()
    });
    for output in done.iter().filter(|output| !output.status.success()) {
        let err = text(&output.stderr);
        assert!(err.contains("nothing was changed"), "{err}");
    }
    // Whatever became of these, the next one, alone, is for all.
    eventually("a rotation of all", || {
        let output = hosts[0].run(&["cookie", "rotate", "--node", NAMES[0]]);
        output.status.success().then_some(())
    });
    let one = fingerprint(&hosts[0]);
    for host in &hosts {
        eventually("one cookie", || (fingerprint(host) == one).then_some(()));
    }
    let log = nodes[0].log.all();
    assert!(!log.contains("nodedown"), "{log}");
}

#[test]
fn a_node_that_was_given_its_cookie_by_the_environment_changes_and_says_what_is_left_to_do() {
    let host = Host::new();
    let _n1 = host.start(NAMES[0]);
    let other = host.with_another_cookie();
    let cookie = std::fs::read_to_string(host.cookie_file()).expect("a cookie");
    let mut ermine = other.ermine();
    ermine.env("ERMINE_COOKIE", cookie.trim());
    let n2 = other.spawn_by(ermine, NAMES[1], &[]);
    n2.await_log("the node is up", |line| line.contains("node started"));
    host.ok(&["cluster", "join", NAMES[1], "--node", NAMES[0]]);
    let out = host.ok(&["cookie", "rotate", "--node", NAMES[0]]);
    assert!(out.contains("ERMINE_COOKIE: set the new one there"), "{out}");
    assert_eq!(running(&host, NAMES[1]).len(), 2, "it answers to the new cookie");
    assert!(!other.cookie_file().exists(), "no file is made of it");
    // Whoever has it in the environment has nowhere to write a new one.
    let mut ermine = other.ermine();
    ermine.env("ERMINE_COOKIE", cookie.trim());
    let output = ermine
        .args(["cookie", "rotate", "--node", NAMES[1]])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--new"), "{}", text(&output.stderr));
}

#[test]
fn what_is_wrong_with_a_rotation_is_told_before_anything_is_changed() {
    let (host, far) = (Host::new(), Host::new());
    let _n1 = host.start(NAMES[0]);
    let before = fingerprint(&host);
    let short = host.home().join("short");
    std::fs::write(&short, "short").expect("written");
    std::fs::set_permissions(&short, PermissionsExt::from_mode(0o600)).expect("set");
    let (short, same) = (
        short.display().to_string(),
        host.cookie_file().display().to_string(),
    );
    for (more, status, said) in [
        (&["--new", "/nowhere"][..], 1, "leave --new out and one is made"),
        (&["--new", &short], 1, "too short to be a secret"),
        (&["--new", &same], 1, "that is the cookie already"),
        (&["--grace", "25h"], 64, "at most 24h"),
        (&["--only-here"], 64, "--new"),
    ] {
        let (err, code) = host.fails(&[&["cookie", "rotate"], more].concat());
        assert!(code == status && err.contains(said), "{more:?}: {err}");
    }
    let (err, _) = far.fails(&["cookie", "rotate"]);
    assert!(err.contains("there is no cookie file"), "{err}");
    assert_eq!(fingerprint(&host), before);
    // An operator elsewhere, whose file is another one, does not lock himself out.
    let elsewhere = host.with_a_copy_of_the_cookie();
    elsewhere.ok(&["cookie", "rotate", "--grace", "0s"]);
    assert_eq!(fingerprint(&elsewhere), fingerprint(&host));
    assert_ne!(fingerprint(&host), before);
    elsewhere.ok(&["status"]);
}

#[test]
fn one_node_at_a_time_is_changed_where_the_others_are_told_nothing() {
    let (hosts, nodes) = three();
    let new = hosts[0].home().join("new");
    std::fs::write(&new, "one-by-one-c4Rk8vTq2pWz").expect("written");
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).expect("set");
    let file = new.to_str().expect("a path of ours");
    let old = fingerprint(&hosts[1]);
    for (host, name) in hosts.iter().zip(NAMES) {
        let told = rotate(host, name, &["--only-here", "--new", file]);
        assert_eq!(told, [(name.to_owned(), "changed".to_owned())]);
        // Every link is proved anew, between nodes that changed and nodes that did not.
        hosts[2].run(&["crash", "root/cluster/dist", "--node", NAMES[2]]);
        sees(host, name, 3);
        if name == NAMES[0] {
            assert_eq!(fingerprint(&hosts[1]), old);
        }
    }
    assert!(
        hosts
            .iter()
            .all(|host| fingerprint(host) == fingerprint(&hosts[0]))
    );
    drop(nodes);
}

#[test]
fn neither_the_old_cookie_nor_the_new_one_is_in_a_log_a_process_or_another_file() {
    const OLD: &str = "before-s8Wq3nZt6kLx0vBm";
    const NEW: &str = "after-u5Yp1rHd9jCe7gFa2";
    let host = Host::new();
    let write = |path: &std::path::Path, text: &str| {
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("set");
    };
    write(&host.cookie_file(), OLD);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let new = elsewhere.path().join("new");
    write(&new, NEW);
    let other = host.with_a_copy_of_the_cookie();
    let loud = ["--log-level", "trace", "--log-format", "json"];
    let nodes = [
        host.start_with(NAMES[0], &loud),
        other.start_with(NAMES[1], &loud),
    ];
    host.ok(&["cluster", "join", NAMES[1], "--node", NAMES[0]]);
    let file = new.to_str().expect("a path of ours");
    let output = host.run(&["cookie", "rotate", "--node", NAMES[0], "--new", file]);
    let printed = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", text(&printed));
    let report = nodes[1].log.len();
    other.ok(&["crash", "root/cluster/connector", "--node", NAMES[1]]);
    nodes[1]
        .log
        .wait_after(report, "the crash report", |line| line.contains("\"crash"));
    assert_eq!(
        std::fs::read_to_string(other.cookie_file())
            .expect("a cookie")
            .trim(),
        NEW
    );
    for cookie in [OLD, NEW] {
        assert_clean("the command", cookie, &printed);
        for (host, node) in [&host, &other].into_iter().zip(&nodes) {
            assert_processes_clean(node, cookie);
            assert_clean("the log", cookie, node.log.all().as_bytes());
            assert_folder_clean(host.home(), cookie, &host.cookie_file());
        }
    }
}
