//! What is counted adds up.

use std::collections::{BTreeMap, BTreeSet};

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::eventually;
use crate::http::Observed;

/// Each sample by its name and labels. Every family has a help and a type; the text is whole.
#[track_caller]
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut helped, mut typed) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, _] => assert!(helped.insert((*name).to_owned()), "{name} twice"),
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "histogram"].contains(kind), "{line}");
                typed.insert((*name).to_owned());
            }
            ["#", "EOF"] => {}
            _ => {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                let family = name.split('{').next().unwrap_or(name);
                let parts = ["_total", "_bucket", "_sum", "_count"];
                let family = parts
                    .iter()
                    .find_map(|part| {
                        family
                            .strip_suffix(part)
                            .filter(|family| helped.contains(*family))
                    })
                    .unwrap_or(family);
                assert!(helped.contains(family) && typed.contains(family), "{line}");
                let known = samples.insert(name.to_owned(), value.parse().expect("a number"));
                assert!(known.is_none(), "{name} twice");
            }
        }
    }
    assert!(text.ends_with("# EOF\n"), "cut off");
    samples
}

fn metrics(observed: &Observed) -> BTreeMap<String, f64> {
    let answer = observed.open("/metrics");
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").expect("a type");
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    parse(&answer.body)
}

#[test]
fn what_came_in_is_what_was_delivered_and_what_was_dropped() {
    let observed = Observed::start();
    let mut reader = Options::new("reader").connect(observed.node.mqtt);
    reader.subscribe("known/#", QoS::AtLeastOnce);
    let mut writer = Options::new("writer").connect(observed.node.mqtt);
    for n in 0..50 {
        writer.publish("known/topic", &n.to_string(), QoS::AtLeastOnce);
        reader.text();
    }
    for _ in 0..7 {
        writer.publish("nobody/cares", "x", QoS::AtLeastOnce);
    }
    let metrics = metrics(&observed);
    let of = |name: &str| {
        *metrics
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {metrics:#?}"))
    };
    assert_eq!(of("ermine_messages_received_total"), 57.0);
    assert_eq!(of("ermine_messages_delivered_total"), 50.0);
    let dropped: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("ermine_messages_dropped_total"))
        .map(|(_, value)| value)
        .sum();
    // The broker's own messages went to nobody: only known/# was subscribed to.
    assert_eq!(
        of("ermine_messages_received_total"),
        of("ermine_messages_delivered_total") + of("ermine_messages_unrouted_total") + dropped
    );
    assert_eq!((of("ermine_connections"), of("ermine_sessions")), (2.0, 2.0));
    assert_eq!(
        (of("ermine_subscriptions"), of("ermine_route_filters")),
        (1.0, 1.0)
    );
    assert_eq!(of("ermine_messages_queued"), 0.0);
    assert_eq!(of("ermine_process_running{path=\"root/core/router\"}"), 1.0);
    assert_eq!(of("ermine_supervisor_children{path=\"root/sessions\"}"), 2.0);
    assert_eq!(of("ermine_supervisor_intensity_limit{path=\"root\"}"), 2.0);
    assert!(of("process_resident_memory_bytes") > 1e6);
    assert!(
        metrics.keys().all(|name| !name.contains("root/sessions/")),
        "sessions and their shards are no labels"
    );
    // The command tells the same.
    let told = observed.host.json(&["metrics"]);
    assert_eq!(told["ermine_messages_received_total"], 57);
}

#[test]
fn what_is_held_is_let_go_with_its_session() {
    let observed = Observed::start();
    let figure = |name: &str| metrics(&observed)[name];
    let mut away = Options::new("away").persistent().connect(observed.node.mqtt);
    away.subscribe("for/away", QoS::AtLeastOnce);
    drop(away);
    eventually("it is gone", || {
        (observed.get("clients/away")["connected"] == false).then_some(())
    });
    let mut writer = Options::new("writer").connect(observed.node.mqtt);
    for _ in 0..5 {
        writer.publish("for/away", "x", QoS::AtLeastOnce);
    }
    eventually("five wait", || {
        (figure("ermine_messages_queued") == 5.0).then_some(())
    });
    assert_eq!(figure("ermine_subscriptions"), 1.0);
    // A clean start forgets the session, and what was held for it.
    let _again = Options::new("away").connect(observed.node.mqtt);
    eventually("nothing waits", || {
        (figure("ermine_messages_queued") == 0.0 && figure("ermine_subscriptions") == 0.0).then_some(())
    });
}

#[test]
fn the_store_tells_what_it_writes() {
    let observed = Observed::start();
    assert_eq!(observed.open("/health").json()["store"], "sound");
    let before = metrics(&observed)["ermine_store_record_bytes_total"];
    let mut away = Options::new("away").persistent().connect(observed.node.mqtt);
    away.subscribe("for/away", QoS::AtLeastOnce);
    drop(away);
    let mut writer = Options::new("writer").connect(observed.node.mqtt);
    let payload = "x".repeat(5000);
    for _ in 0..5 {
        writer.publish("for/away", &payload, QoS::AtLeastOnce);
    }
    // That the client is away is noted when the broker sees it, which nobody waits for.
    let metrics = eventually("all is safe", || {
        let metrics = metrics(&observed);
        (metrics["ermine_store_pending_records"] == 0.0).then_some(metrics)
    });
    let of = |name: &str| metrics[name];
    assert!(of("ermine_store_record_bytes_total") - before > 25_000.0);
    assert!(of("ermine_store_written_bytes_total") > of("ermine_store_record_bytes_total"));
    assert!(of("ermine_store_file_bytes") > 25_000.0);
    // Each PUBACK waited for a commit of its own.
    assert!(of("ermine_store_commit_seconds_count") >= 5.0);
    assert!(of("ermine_store_syncs_total") >= 5.0);
    assert!(of("ermine_store_commit_seconds_sum") > 0.0);
    assert_eq!(
        of("ermine_store_commit_seconds_count"),
        of("ermine_store_commit_seconds_bucket{le=\"+Inf\"}")
    );
    for idle in [
        "failing",
        "failures_total",
        "pending_bytes",
        "held_changes",
        "waiting_seconds",
    ] {
        assert_eq!(of(&format!("ermine_store_{idle}")), 0.0, "{idle}");
    }
    writer.subscribe("$SYS/broker/store/condition", QoS::AtMostOnce);
    assert_eq!(writer.text(), "sound");
}

#[test]
fn a_restart_is_told_in_metrics_and_below_sys() {
    let observed = Observed::start();
    let mut reader = Options::new("reader").connect(observed.node.mqtt);
    observed.host.ok(&["crash", "root/core/retainer"]);
    let restarted = "ermine_supervisor_restarts_total{path=\"root/core\"}";
    eventually("a restart", || {
        (metrics(&observed)[restarted] == 1.0).then_some(())
    });
    let metrics = metrics(&observed);
    assert_eq!(metrics["ermine_restarts_total"], 1.0);
    assert_eq!(
        metrics["ermine_supervisor_intensity_used{path=\"root/core\"}"],
        1.0
    );
    assert_eq!(
        metrics["ermine_process_generation{path=\"root/core/retainer\"}"],
        2.0
    );
    // `$SYS` is told every few seconds; retained values of before may come first.
    reader.subscribe("$SYS/broker/supervisors/root/core/intensity", QoS::AtMostOnce);
    eventually("its intensity", || (reader.text() == "1/5").then_some(()));
}
