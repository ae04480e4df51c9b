//! The figures of a node as metrics, in the text that Prometheus scrapes (OpenMetrics 1.0).
//!
//! Names follow Prometheus' rules: `ermine_…`, a unit at the end, `_total` for what only grows. The labels
//! are bounded by the configuration: paths of the standing tree, members of the cluster, reasons of drops.

mod store;

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::admin::census::Figures;
use crate::admin::protocol::TreeEntry;

/// What the text is, for the header `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A dropped message's counter begins with this; the rest is the reason.
const DROPPED: &str = "dropped_";

/// What the broker's counters are called where their own name does not say enough.
const RENAMED: [(&str, &str); 14] = [
    ("injected", "messages_injected"),
    ("received", "messages_received"),
    ("delivered", "messages_delivered"),
    ("forwarded", "messages_forwarded"),
    ("dispatched", "messages_dispatched"),
    ("unrouted", "messages_unrouted"),
    ("routed", "messages_routed"),
    ("repeated", "messages_repeated"),
    ("offered", "messages_offered"),
    ("withheld", "messages_withheld"),
    ("passed_on", "messages_passed_on"),
    ("moved_away", "messages_moved_away"),
    ("moved_in", "messages_moved_in"),
    ("left_in_store", "messages_left_in_store"),
];

/// States that a link is told in; what else there is, is down.
const LINK_STATES: [&str; 3] = ["up", "suspect", "down"];

/// The metrics of these figures.
#[must_use]
pub fn text(figures: Figures) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot(figures)));
    let mut text = String::new();
    // Writing to a string does not fail; were it to, half a text is told apart by its missing end.
    let _ = text::encode(&mut text, &registry);
    text
}

/// Figures that are encoded once.
#[derive(Debug)]
struct Snapshot(Figures);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let figures = &self.0;
        let mut metrics = Metrics(&mut encoder);
        node(&mut metrics, figures)?;
        broker(&mut metrics, figures)?;
        store::encode(&mut metrics, &figures.stored)?;
        supervision(&mut metrics, figures)?;
        cluster(&mut metrics, figures)?;
        process(&mut metrics, figures)
    }
}

type Label<'a> = (&'a str, &'a str);

/// Shorthands for the encoder.
struct Metrics<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Metrics<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<[Label<'_>; 0], u64, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn counters<'c>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Label<'c>, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (label, value) in values {
            let labels = [label];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<[Label<'_>; 0], u64, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges<'c, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([Label<'c>; N], f64)>,
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

fn node(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let version = ("version", env!("CARGO_PKG_VERSION"));
    let build = [([version, ("node", figures.node.as_str())], 1.0)];
    metrics.gauges("ermine_build_info", "Version and name of the node", build)?;
    let since_s = figures.since_ms as f64 / 1000.0;
    metrics.gauge(
        "ermine_start_time_seconds",
        "When the node was started, since 1970",
        since_s,
    )?;
    metrics.gauge(
        "ermine_incarnation",
        "Which life of the node's tables; it grows when core is restarted",
        figures.incarnation.0 as f64,
    )
}

fn broker(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let mut dropped = Vec::new();
    for (name, help, value) in &figures.counters {
        if let Some(reason) = name.strip_prefix(DROPPED) {
            dropped.push((("reason", reason), *value));
        } else if !name.starts_with("held_") {
            let renamed = RENAMED.iter().find(|(from, _)| from == name);
            let name = format!("ermine_{}", renamed.map_or(*name, |(_, to)| to));
            metrics.counter(&name, help.trim_end_matches('.'), *value)?;
        }
    }
    metrics.counters(
        "ermine_messages_dropped",
        "Messages that were dropped, by reason",
        dropped,
    )?;
    held(metrics, figures)
}

/// What there is now.
fn held(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let held = |name: &str| {
        let found = figures.counters.iter().find(|(held, ..)| *held == name);
        found.map_or(0.0, |(.., value)| *value as f64)
    };
    let gauges = [
        (
            "ermine_connections",
            "Clients that are connected",
            figures.connected as f64,
        ),
        (
            "ermine_connections_unspoken",
            "Sockets that have not sent their CONNECT",
            unspoken(figures) as f64,
        ),
        (
            "ermine_sessions",
            "Sessions, also those whose client is away",
            figures.sessions as f64,
        ),
        (
            "ermine_subscriptions",
            "Subscriptions of these sessions",
            held("held_subscriptions"),
        ),
        (
            "ermine_messages_queued",
            "Messages in the queues of these sessions",
            held("held_messages"),
        ),
        (
            "ermine_messages_inflight",
            "Messages sent to the clients of these sessions at QoS 1 or 2, and not acknowledged",
            held("held_inflight"),
        ),
        (
            "ermine_messages_retained",
            "Retained messages",
            figures.retained.0 as f64,
        ),
        (
            "ermine_messages_retained_bytes",
            "Bytes of retained messages",
            figures.retained.1 as f64,
        ),
        (
            "ermine_messages_retained_shared",
            "Retained messages that all nodes share: all but those of this node's own $SYS",
            figures.retained_shared.0 as f64,
        ),
        (
            "ermine_retained_tombstones",
            "Cleared or expired retained topics that are remembered for nodes that were away",
            figures.retained_shared.1 as f64,
        ),
        (
            "ermine_route_filters",
            "Filters in the route table, of all nodes",
            figures.filters as f64,
        ),
    ];
    gauges
        .into_iter()
        .try_for_each(|(name, help, value)| metrics.gauge(name, help, value))?;
    wills(metrics, figures)
}

fn wills(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let gauges = [
        (
            "ermine_wills_held",
            "Wills of other nodes' clients that are kept here for the time when their node is lost",
            figures.wills.0 as f64,
        ),
        (
            "ermine_wills_adopted",
            "Wills of clients of lost nodes that wait to be published here",
            figures.wills.1 as f64,
        ),
        (
            "ermine_wills_held_bytes",
            "Bytes that both count for",
            figures.wills.2 as f64,
        ),
    ];
    gauges
        .into_iter()
        .try_for_each(|(name, help, value)| metrics.gauge(name, help, value))
}

fn unspoken(figures: &Figures) -> u64 {
    let connections = |entry: &&TreeEntry| entry.path == "root/doors/connections";
    let found = figures.tree.iter().find(connections);
    found.map_or(0, |entry| entry.children)
}

fn supervision(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    metrics.gauge(
        "ermine_processes",
        "Processes in the tree",
        figures.processes as f64,
    )?;
    metrics.counter(
        "ermine_restarts",
        "Restarts since the node was started",
        figures.restarts,
    )?;
    let supervisors = || figures.tree.iter().filter(|entry| entry.kind != "worker");
    let path = |entry: &'_ TreeEntry| -> String { entry.path.clone() };
    let paths: Vec<String> = supervisors().map(path).collect();
    let told = |value: fn(&TreeEntry) -> u64| {
        let values = supervisors().map(value);
        paths
            .iter()
            .zip(values)
            .map(|(path, value)| (("path", path.as_str()), value))
            .collect::<Vec<_>>()
    };
    let gauges = |value: fn(&TreeEntry) -> u64| {
        told(value)
            .into_iter()
            .map(|(label, value)| ([label], value as f64))
            .collect::<Vec<_>>()
    };
    metrics.counters(
        "ermine_supervisor_restarts",
        "Restarts that a supervisor has decided upon since it started",
        told(|entry| entry.child_restarts),
    )?;
    metrics.counters(
        "ermine_supervisor_crashes",
        "Children of a supervisor that ended abnormally since it started",
        told(|entry| entry.child_crashes),
    )?;
    metrics.gauges(
        "ermine_supervisor_children",
        "Processes directly below a supervisor",
        gauges(|entry| entry.children),
    )?;
    metrics.gauges(
        "ermine_supervisor_intensity_used",
        "Restarts that count against a supervisor's intensity now",
        gauges(|entry| entry.intensity_used.into()),
    )?;
    metrics.gauges(
        "ermine_supervisor_intensity_limit",
        "Restarts that a supervisor tolerates within its period",
        gauges(|entry| intensity(entry).map_or(0, |(restarts, _)| restarts)),
    )?;
    metrics.gauges(
        "ermine_supervisor_intensity_period_seconds",
        "The period in which a supervisor counts restarts",
        gauges(|entry| intensity(entry).map_or(0, |(_, period_s)| period_s)),
    )?;
    processes(metrics, figures)
}

fn processes(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let each = |value: fn(&TreeEntry) -> f64| {
        let entries = figures.tree.iter();
        entries
            .map(|entry| ([("path", entry.path.as_str())], value(entry)))
            .collect::<Vec<_>>()
    };
    metrics.gauges(
        "ermine_process_running",
        "1 if a process of the standing tree runs",
        each(|entry| if entry.state == "running" { 1.0 } else { 0.0 }),
    )?;
    metrics.gauges(
        "ermine_process_generation",
        "Which start of a process it is, from 1",
        each(|entry| entry.restarts as f64 + 1.0),
    )?;
    metrics.gauges(
        "ermine_process_mailbox_messages",
        "Messages that wait for a process",
        each(|entry| entry.mailbox_len as f64),
    )
}

/// Restarts and seconds of `5/60s`.
fn intensity(entry: &TreeEntry) -> Option<(u64, u64)> {
    let (restarts, period) = entry.intensity.as_deref()?.split_once('/')?;
    Some((restarts.parse().ok()?, period.trim_end_matches('s').parse().ok()?))
}

fn cluster(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let others = || figures.members.iter().filter(|member| member.link != "local");
    metrics.gauge(
        "ermine_route_drift",
        "Nodes whose routes as held here differ from what they have themselves",
        others().filter(|member| member.route_drift).count() as f64,
    )?;
    let state = |link: &str| {
        LINK_STATES
            .iter()
            .find(|state| **state == link)
            .map_or("down", |state| *state)
    };
    let links = LINK_STATES.map(|wanted| {
        let count = others().filter(|member| state(&member.link) == wanted).count();
        ([("state", wanted)], count as f64)
    });
    metrics.gauges("ermine_links", "Links to other nodes, by state", links)?;
    let of_links = |value: fn(&crate::admin::protocol::Member) -> Option<f64>| {
        others()
            .filter_map(move |member| Some(([("peer", member.node.as_str())], value(member)?)))
            .collect::<Vec<_>>()
    };
    metrics.gauges(
        "ermine_link_up",
        "1 if the link to another node carries messages",
        of_links(|member| Some(if member.link == "up" { 1.0 } else { 0.0 })),
    )?;
    metrics.gauges(
        "ermine_link_round_trip_seconds",
        "Last measured round trip over a link",
        of_links(|member| member.round_trip_us.map(|us| us as f64 / 1e6)),
    )?;
    let waiting = |value: fn(&(crate::node_name::NodeName, u64, u64)) -> u64| {
        let links = figures.waiting.iter();
        links
            .map(|link| ([("peer", link.0.as_str())], value(link) as f64))
            .collect::<Vec<_>>()
    };
    metrics.gauges(
        "ermine_link_queued_messages",
        "Messages that wait for another node",
        waiting(|link| link.1),
    )?;
    metrics.gauges(
        "ermine_link_queued_bytes",
        "Bytes of messages that wait for another node",
        waiting(|link| link.2),
    )?;
    let drift = figures.retained_drift.iter();
    metrics.gauges(
        "ermine_retained_drift",
        "Buckets of retained messages, of 256, that differed from another node's in its last two digests",
        drift.map(|(node, count)| ([("peer", node.as_str())], *count as f64)),
    )?;
    let routes = figures.routes.iter();
    metrics.gauges(
        "ermine_routes",
        "Routes of each node that this node holds",
        routes.map(|(node, count)| ([("node", node.as_str())], *count as f64)),
    )
}

fn process(metrics: &mut Metrics<'_, '_>, figures: &Figures) -> Result<(), Error> {
    let process = figures.process;
    let mut cpu = metrics.0.encode_descriptor(
        "process_cpu_seconds",
        "User and system time of the process",
        None,
        MetricType::Counter,
    )?;
    cpu.encode_counter::<[Label<'_>; 0], f64, u64>(&process.cpu_s, None)?;
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory of the process",
            process.resident_bytes as f64,
        ),
        (
            "process_open_fds",
            "Open file descriptors of the process",
            process.descriptors as f64,
        ),
        (
            "process_threads",
            "Threads of the process",
            process.threads as f64,
        ),
    ];
    gauges
        .into_iter()
        .try_for_each(|(name, help, value)| metrics.gauge(name, help, value))
}
