//! The cookie stays where it is. Goal: whoever sees everything of a node but its cookie file and its
//! memory does not see the cookie. Method: real nodes, whose cookie comes from the environment or a file,
//! do what is logged and reported; then everything is searched: `/proc`, the data directory, the home, the
//! log as text and as JSON with its crash reports, and what the commands print.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, text};

const N1: &str = "n1@127.0.0.1";

/// No other test has these; a piece of one is as bad as the whole.
const FROM_ENVIRONMENT: &str = "environment-q7Zk2vPw9xLm4tRb8nHs";
const FROM_FILE: &str = "file-e5Yc1uGj6oDa3iNf0rVx-0b2d4f6a";

/// Commands of every kind that a node answers, and one that fails.
const COMMANDS: [&[&str]; 11] = [
    &["names", "--json"],
    &["status", "--json"],
    &["cluster", "status", "--json"],
    &["routes", "--json"],
    &["listeners", "--json"],
    &["clients", "--json"],
    &["tree", "--json"],
    &["restarts", "--json"],
    &["metrics", "--json"],
    &["cookie", "fingerprint"],
    &["cluster", "join", "n9@127.0.0.1"],
];

/// Any eight characters in a row of the cookie count.
fn holds(cookie: &str, bytes: &[u8]) -> bool {
    let mut windows = bytes.windows(8);
    windows.any(|window| cookie.as_bytes().windows(8).any(|piece| window == piece))
}

#[track_caller]
pub(crate) fn assert_clean(what: &str, cookie: &str, bytes: &[u8]) {
    assert!(!holds(cookie, bytes), "{what} shows the cookie:\n{}", text(bytes));
}

/// Every file below a folder but the cookie's own.
pub(crate) fn assert_folder_clean(folder: &Path, cookie: &str, except: &Path) {
    for entry in std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
    {
        let path = entry.path();
        if path.is_dir() {
            assert_folder_clean(&path, cookie, except);
        } else if path != except {
            assert_clean(
                &path.display().to_string(),
                cookie,
                &std::fs::read(&path).expect("read"),
            );
        }
    }
}

/// The words and the environment of every process that belongs to the node, and the words of all others.
pub(crate) fn assert_processes_clean(node: &Node, cookie: &str) {
    let pid = node.pid().to_string();
    for entry in std::fs::read_dir("/proc")
        .expect("/proc")
        .map(|entry| entry.expect("an entry"))
    {
        let of_process = entry.path();
        let Ok(words) = std::fs::read(of_process.join("cmdline")) else {
            continue;
        };
        assert_clean(&format!("{} cmdline", of_process.display()), cookie, &words);
        let status = std::fs::read_to_string(of_process.join("status")).unwrap_or_default();
        let is_child = status
            .lines()
            .any(|line| line.strip_prefix("PPid:").map(str::trim) == Some(&pid));
        if is_child || entry.file_name().to_str() == Some(&pid) {
            let environment = std::fs::read(of_process.join("environ")).expect("our own process");
            assert_clean(&format!("{} environ", of_process.display()), cookie, &environment);
        }
    }
}

/// What fills logs: clients, commands, crashes, a stranger with another cookie.
fn make_it_talk(host: &Host, node: &Node, cookie: Option<&str>) -> Vec<u8> {
    let mut client = Options::new("talker").connect(node.mqtt);
    client.subscribe("talk", QoS::AtLeastOnce);
    client.publish_and_receive("talk");
    let mut printed = Vec::new();
    let mut run = |command: &[&str], cookie: Option<&str>| {
        let mut ermine = host.ermine();
        ermine
            .args(command)
            .envs(cookie.map(|cookie| ("ERMINE_COOKIE", cookie)));
        let output = ermine.output().expect("the binary runs");
        printed.extend([output.stdout, output.stderr].concat());
        output.status.success()
    };
    for command in COMMANDS {
        let done = run(command, cookie);
        assert_eq!(done, !command.contains(&"n9@127.0.0.1"), "{command:?}");
    }
    assert!(!run(&["status"], Some("another-cookie-of-decent-length")));
    for path in ["root/core/retain", "root/cluster/gate", "root/core/router"] {
        let mark = node.log.len();
        // Not every tree has each of them under that name; the router is always there.
        if run(&["crash", path], cookie) {
            node.log.wait_after(mark, "the crash report", |line| {
                line.contains("CRASH REPORT") || line.contains("\"crash")
            });
        } else {
            assert_ne!(path, "root/core/router");
        }
    }
    printed
}

fn nothing_shows(format: &str, from_environment: bool) {
    let host = Host::new();
    let file = host.home().join(".ermine.cookie");
    let (cookie, given) = if from_environment {
        (FROM_ENVIRONMENT, Some(FROM_ENVIRONMENT))
    } else {
        std::fs::write(&file, FROM_FILE).expect("written");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o400)).expect("set");
        (FROM_FILE, None)
    };
    let mut ermine = host.ermine();
    ermine
        .env("RUST_BACKTRACE", "1")
        .envs(given.map(|cookie| ("ERMINE_COOKIE", cookie)));
    let node = host.spawn_by(ermine, N1, &["--log-format", format, "--log-level", "debug"]);
    node.await_log("the node is up", |line| line.contains("node started"));
    let printed = make_it_talk(&host, &node, given);
    assert_processes_clean(&node, cookie);
    assert_clean("a command", cookie, &printed);
    assert_clean("the log", cookie, node.log.all().as_bytes());
    assert_folder_clean(host.home(), cookie, &file);
    let log = node.log.clone();
    assert!(node.stop().success());
    assert_clean("the log to its end", cookie, log.all().as_bytes());
    assert_folder_clean(host.home(), cookie, &file);
    assert_eq!(
        file.exists(),
        !from_environment,
        "no file is made of a cookie from the environment"
    );
}

#[test]
fn a_cookie_from_the_environment_is_in_no_process_log_report_or_file() {
    nothing_shows("text", true);
    nothing_shows("json", true);
}

#[test]
fn a_cookie_from_a_file_is_nowhere_else() {
    nothing_shows("text", false);
    nothing_shows("json", false);
}

#[test]
fn a_wrong_cookie_in_the_environment_is_told_without_being_shown() {
    let host = Host::new();
    for cookie in ["tooshort7Kq", "J4xV9q\u{7}w8Ns2Kd5bT7c"] {
        let mut ermine = host.ermine();
        ermine.env("ERMINE_COOKIE", cookie);
        let mut node = host.spawn_by(ermine, N1, &[]);
        assert_eq!(node.wait_for_exit().code(), Some(64));
        let said = node.log.all();
        assert!(said.contains("in ERMINE_COOKIE"), "{said}");
        assert_clean("the sentence", cookie, said.as_bytes());
    }
}
