//! The command line without a node. Goal: whoever types something wrong reads one sentence and gets the
//! exit code of it; nothing is opened or made. Method: the built binary in a home directory of its own.

use std::process::{Command, Output, Stdio};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ermine"))
            .args(words)
            .env("HOME", self.0.path())
            // Nobody listens at the port of the discard service.
            .env("ERMINE_REGISTRY_PORT", "9")
            .env_remove("ERMINE_COOKIE")
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Exit code and standard error of a command that fails.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        let said = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{words:?} succeeded");
        assert!(
            output.stdout.is_empty(),
            "a failure is told on standard error only"
        );
        (output.status.code().expect("an exit code"), said)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

#[test]
fn help_and_version_are_answers() {
    let home = Home::new();
    for words in [
        &["--help"][..],
        &["start", "--help"],
        &["pub", "--help"],
        &["--version"],
    ] {
        let output = home.run(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn wrong_usage_is_64() {
    let home = Home::new();
    for words in [
        &[][..],
        &["strat"],
        &["start", "--frob"],
        &["crash"],
        &["pub", "-t", "t"],
        &["pub", "-t", "t/+", "-m", "x"],
        &["sub", "-t", "a#"],
        &["pub", "-t", "t", "-m", "x", "-V", "4"],
        &["status", "--node", "nobody"],
        &["cluster", "join", "nobody"],
        &["tree", "--config", "x"],
    ] {
        assert_eq!(home.fails(words).0, 64, "{words:?}");
    }
}

#[test]
fn a_misspelled_command_is_answered_with_the_likely_one() {
    let (_, said) = Home::new().fails(&["strat"]);
    assert!(said.contains("start"), "{said}");
}

#[test]
fn a_configuration_is_checked_without_a_start() {
    let home = Home::new();
    let good = home.write(
        "good.toml",
        "name = \"n1@127.0.0.1\"\n[limits]\ninflight_max = 7\n",
    );
    let output = home.run(&["check-config", &good]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"ok\n"[..])
    );
    let bad = home.write("bad.toml", "\n[limits]\ninflight_mx = 7\n");
    let (code, said) = home.fails(&["check-config", &bad]);
    let wanted =
        format!("ermine: {bad}:3: unknown key 'inflight_mx' in [limits]; did you mean 'inflight_max'?\n");
    assert_eq!((code, said), (64, wanted));
    assert!(!home.0.path().join(".ermine").exists(), "nothing was made");
}

#[test]
fn a_command_without_a_cookie_or_a_node_says_what_to_do() {
    let home = Home::new();
    let (code, said) = home.fails(&["names"]);
    assert_eq!(code, 1);
    assert!(
        said.starts_with("ermine: there is no cookie file ") && said.contains("`ermine start` makes one"),
        "{said}"
    );
    let cookie = home.write(".ermine.cookie", "0123456789abcdef0123456789abcdef\n");
    let (_, said) = home.fails(&["names"]);
    assert!(said.contains("chmod"), "others may read it: {said}");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    std::fs::set_permissions(&cookie, permissions).expect("its owner may");
    for words in [&["names"][..], &["tree"], &["routes", "--json"], &["stop"]] {
        let (code, said) = home.fails(words);
        assert_eq!(code, 1);
        assert_eq!(
            said,
            "ermine: no node is running on this host: start one with `ermine start`\n"
        );
    }
    let (_, said) = home.fails(&["status", "--node", "n1@127.0.0.1"]);
    assert_eq!(
        said,
        "ermine: node n1@127.0.0.1 is not running; no node is running on that host\n"
    );
}

#[test]
fn a_fingerprint_is_short_and_no_part_of_the_cookie() {
    let home = Home::new();
    let secret = "0123456789abcdef0123456789abcdef";
    let output = Command::new(env!("CARGO_BIN_EXE_ermine"))
        .args(["cookie", "fingerprint"])
        .env("HOME", home.0.path())
        .env("ERMINE_COOKIE", secret)
        .output()
        .expect("the binary runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert_eq!(shown.trim().len(), 8, "{shown}");
    assert!(!secret.contains(shown.trim()));
}

#[test]
fn a_publication_without_a_broker_says_where_it_looked() {
    let (code, said) = Home::new().fails(&["pub", "-p", "9", "-t", "t", "-m", "x"]);
    assert_eq!(code, 1);
    assert!(
        said.starts_with("ermine: cannot connect to 127.0.0.1:9 ("),
        "{said}"
    );
    assert_eq!(said.trim_end().lines().count(), 1);
}

#[test]
fn a_node_that_cannot_start_says_why_and_ends() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, said) = home.fails(&["start", "--listen", &address]);
    assert_eq!(code, 64);
    assert!(
        said.lines()
            .any(|line| line.starts_with("ermine: cannot listen on ")),
        "{said}"
    );
}

#[test]
fn the_tree_of_a_configuration_is_drawn_without_a_node() {
    let home = Home::new();
    let output = home.run(&["tree", "--from-config"]);
    let drawing = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    for path in [
        "root/core/router",
        "root/doors/tcp:127.0.0.1:1883",
        "root/cluster/gate",
        "root/admin/control",
    ] {
        assert!(
            drawing.lines().any(|line| line.ends_with(path)),
            "{path} in\n{drawing}"
        );
    }
    let json = home.run(&["tree", "--from-config", "--json"]);
    let entries: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(entries[0]["strategy"], "rest_for_one");
    assert!(!home.0.path().join(".ermine").exists(), "nothing was made");
}

#[test]
fn a_command_is_told_where_the_registry_is() {
    let home = Home::new();
    let cookie = home.write("secret", "0123456789abcdef0123456789abcdef\n");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    std::fs::set_permissions(&cookie, permissions).expect("its owner may");
    let text = format!("name = \"n7@127.0.0.1\"\ncookie_file = \"{cookie}\"\nregistry_port = 10\n");
    let file = home.write("n7.toml", &text);
    // The file's cookie is found, and the file's node is asked for.
    let (code, said) = home.fails(&["status", "--config", &file]);
    assert_eq!(code, 1);
    assert_eq!(
        said,
        "ermine: node n7@127.0.0.1 is not running; no node is running on that host\n"
    );
    let (code, _) = home.fails(&["names", "--cookie-file", &cookie, "--registry-port", "11"]);
    assert_eq!(code, 1);
    assert_eq!(home.fails(&["names", "--registry-port", "0"]).0, 64);
    assert_eq!(home.fails(&["names", "--config", "/nonexistent"]).0, 64);
}
