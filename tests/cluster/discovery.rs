//! Nodes that nobody joins find each other: by a list, by DNS, by the members file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::host::{Host, Node, eventually};
use crate::{cluster, running};

const NAMES: [&str; 3] = ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1"];

fn config(host: &Host, name: &str, text: &str) -> PathBuf {
    let path = host.home().join(format!("{name}.toml"));
    fs::write(&path, text).expect("written");
    path
}

fn start_with(host: &Host, name: &str, config: &Path) -> Node {
    host.start_with(name, &["--config", config.to_str().expect("a path")])
}

#[track_caller]
fn all_see_each_other(host: &Host, names: &[&str]) {
    for name in names {
        eventually(&format!("{name} sees {names:?}"), || {
            (running(host, name) == names).then_some(())
        });
    }
}

#[test]
fn nodes_of_one_list_find_each_other_whatever_the_order_and_a_wrong_name_of_it_harms_nobody() {
    let host = Host::new();
    let list = r#"cluster.seeds = ["n1@127.0.0.1", "n2@127.0.0.1", "n3@127.0.0.1", "typo@127.0.0.1"]"#;
    let config = config(&host, "seeds", list);
    let n3 = start_with(&host, NAMES[2], &config);
    let _n1 = start_with(&host, NAMES[0], &config);
    all_see_each_other(&host, &[NAMES[0], NAMES[2]]);
    let _n2 = start_with(&host, NAMES[1], &config);
    all_see_each_other(&host, &NAMES);
    n3.await_log("the wrong name is told", |line| {
        line.contains("typo@127.0.0.1 cannot be linked")
    });
}

#[test]
fn the_addresses_of_a_host_name_are_the_nodes() {
    let host = Host::new();
    let config = config(&host, "dns", "cluster.dns = \"localhost\"");
    // `localhost` is 127.0.0.1: the node of that name there is found by the other.
    let _n1 = start_with(&host, "n1@127.0.0.1", &config);
    let other = "cluster = { dns = \"localhost\", dns_name = \"n1\" }";
    let other = self::config(&host, "dns-other", other);
    let _n2 = start_with(&host, "n2@127.0.0.1", &other);
    all_see_each_other(&host, &["n1@127.0.0.1", "n2@127.0.0.1"]);
}

#[test]
fn a_host_name_that_dns_does_not_know_is_said_and_the_list_counts_all_the_same() {
    let host = Host::new();
    let config = config(
        &host,
        "both",
        "cluster = { seeds = [\"n1@127.0.0.1\"], dns = \"nowhere.invalid\" }",
    );
    let _n1 = host.start(NAMES[0]);
    let n2 = start_with(&host, NAMES[1], &config);
    all_see_each_other(&host, &NAMES[..2]);
    n2.await_log("the mistake", |line| {
        line.contains("nowhere.invalid has no address")
    });
}

#[test]
fn who_has_left_is_not_brought_back_by_its_seeds() {
    let host = Host::new();
    let config = config(&host, "seeds", "cluster.seeds = [\"n1@127.0.0.1\"]");
    let _n1 = host.start(NAMES[0]);
    let n2 = start_with(&host, NAMES[1], &config);
    all_see_each_other(&host, &NAMES[..2]);
    host.ok(&["cluster", "leave", "--node", NAMES[1]]);
    assert!(n2.stop().success());
    let n2 = start_with(&host, NAMES[1], &config);
    n2.await_log("it says so", |line| line.contains("seeds and dns do not count"));
    assert_eq!(running(&host, NAMES[1]), [NAMES[1]]);
    assert_eq!(running(&host, NAMES[0]), [NAMES[0]]);
}

#[test]
fn after_a_blackout_the_nodes_find_each_other_again_in_any_order() {
    let host = Host::new();
    for order in [[2, 0, 1], [1, 2, 0]] {
        let nodes = if host.data_dir(NAMES[0]).join("members").exists() {
            NAMES.map(|name| host.start(name)).into()
        } else {
            cluster(&host, 3)
        };
        all_see_each_other(&host, &NAMES);
        nodes.into_iter().for_each(Node::kill);
        let again: Vec<Node> = order.map(|n| host.start(NAMES[n])).into();
        all_see_each_other(&host, &NAMES);
        again.into_iter().for_each(Node::kill);
    }
}

#[test]
fn mistakes_of_the_section_are_one_sentence_each() {
    let host = Host::new();
    for (text, wanted) in [
        ("cluster.seeds = [\"n1\"]", "must have the form name@host"),
        ("cluster.seeds = \"n1@h\"", "seeds must be a list of words"),
        ("cluster.seed = [\"n1@h\"]", "did you mean 'seeds'?"),
        ("cluster.dns = \"a@b\"", "dns must be a host name alone"),
        ("cluster.dns_name = \"a\"", "dns_name has no effect without dns"),
        (
            "name = \"n1@h\"\ncluster.dns = \"h\"",
            "this node must be named n1@ADDRESS, not n1@h",
        ),
    ] {
        let path = config(&host, "wrong", text);
        let (err, status) = host.fails(&["check-config", path.to_str().expect("a path")]);
        assert!(
            err.contains(wanted) && err.trim().lines().count() == 1,
            "{text}: {err}"
        );
        assert_eq!(status, 64, "{text}");
    }
}
