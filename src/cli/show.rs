//! What a node answered, as text for people or JSON for programs.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::admin::protocol::{ClusterStatus, ListenerEntry, Member, NodeStatus, RestartEntry, RouteEntry};
use crate::cli::table::{Table, counted, harmless};
use crate::cli::time::{age, utc};
use crate::registry::wire::{NameList, Registration};

/// Pretty JSON. Times in milliseconds become RFC 3339: `since_ms` is shown as `since`.
pub(super) fn as_json(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or(Value::Null);
    let mut text = serde_json::to_string_pretty(&with_times(value)).unwrap_or_default();
    text.push('\n');
    text
}

fn with_times(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_times).collect(),
        Value::Object(fields) => Value::Object(fields.into_iter().map(with_time).collect::<Map<_, _>>()),
        other => other,
    }
}

fn with_time((key, value): (String, Value)) -> (String, Value) {
    match (key.strip_suffix("_ms"), value.as_u64()) {
        (Some(stem), Some(ms)) => (stem.to_owned(), utc(ms).into()),
        _ => (key, with_times(value)),
    }
}

/// Whether a counter tells of something that was dropped, refused or held up: such are shown when they count.
fn is_loss(name: &str) -> bool {
    ["dropped_", "refused_"].iter().any(|loss| name.starts_with(loss))
        || name.ends_with("_refused")
        || matches!(name, "clients_throttled" | "connects_late")
}

/// EMQX's first line, then what else there is to know of a node.
pub(super) fn status(status: &NodeStatus) -> String {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let uptime = now.saturating_sub(Duration::from_millis(status.since_ms));
    let mut text = format!("Node '{}' {} is started\n", status.node, status.version);
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<22}: {value}\n"));
    line("incarnation", status.incarnation.to_string());
    line("since", format!("{} ({})", utc(status.since_ms), age(uptime)));
    line("listeners", status.listeners.join(", "));
    line("dist port", status.dist_port.to_string());
    line("clients", status.clients.to_string());
    line("sessions", status.sessions.to_string());
    line("routes", status.routes.to_string());
    line("peers", status.peers.to_string());
    for (name, count) in status
        .counters
        .iter()
        .filter(|(name, count)| is_loss(name) && *count > 0)
    {
        line(name, count.to_string());
    }
    line("processes", status.processes.to_string());
    line("restarts", status.restarts.to_string());
    line(
        "crash",
        if status.allow_crash {
            "allowed"
        } else {
            "not allowed"
        }
        .into(),
    );
    text
}

/// One line for each filter, with its nodes.
pub(super) fn routes(routes: &[RouteEntry]) -> String {
    if routes.is_empty() {
        return "no routes: nobody has subscribed\n".into();
    }
    let mut table = Table::new(&["FILTER", "NODES"]);
    for route in routes {
        let nodes: Vec<&str> = route.nodes.iter().map(|node| node.as_str()).collect();
        table.row([route.filter.clone(), nodes.join(" ")]);
    }
    table.render() + &format!("{}\n", counted(routes.len(), "filter", "filters"))
}

/// One line for each figure: EMQX's `name : value`, with the labels that Prometheus sees.
pub(super) fn metrics(text: &str) -> String {
    let figures: Vec<_> = figures(text).collect();
    let width = figures
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    figures
        .iter()
        .map(|(name, value)| format!("{name:<width$} : {value}\n"))
        .collect()
}

/// The same as one object.
pub(super) fn metrics_json(text: &str) -> String {
    let number = |value: &str| {
        value
            .parse::<serde_json::Number>()
            .map_or(Value::Null, Value::Number)
    };
    let figures = figures(text).map(|(name, value)| (name.to_owned(), number(value)));
    as_json(&figures.collect::<Map<_, _>>())
}

/// Name and value of each sample.
fn figures(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.rsplit_once(' '))
}

/// EMQX's lines of a listener, and under them the limits of its clients.
pub(super) fn listeners(listeners: &[ListenerEntry]) -> String {
    let mut text = String::new();
    for listener in listeners {
        text.push_str(&format!("{}\n", listener.name));
        let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<27}: {value}\n"));
        let max = match listener.connections_max {
            0 => "no limit of its own".to_owned(),
            max => max.to_string(),
        };
        line("protocol", &listener.protocol);
        line("listen_on", &listener.address);
        line("running", &listener.running.to_string());
        line("current_conn", &listener.connections.to_string());
        line("max_conns", &max);
        line("accepted", &listener.accepted.to_string());
        line("refused", &listener.refused.to_string());
        for (name, value) in listener
            .limits
            .iter()
            .filter(|(name, _)| name != "connections_max")
        {
            line(name, value);
        }
    }
    text
}

/// What a registry knows, one object for each node.
pub(super) fn names_json(list: &NameList) -> String {
    let name = |registration: &Registration| {
        json!({
            "name": registration.node.name,
            "incarnation": registration.node.incarnation,
            "port": registration.port,
            "listeners": registration.listeners,
            "since_ms": registration.since_ms,
        })
    };
    as_json(&list.names.iter().map(name).collect::<Vec<_>>())
}

/// One line for each restart, oldest first.
pub(super) fn restarts(restarts: &[RestartEntry]) -> String {
    if restarts.is_empty() {
        return "no restarts\n".into();
    }
    let mut table = Table::new(&["AT", "PATH", "OUTCOME", ">N", ">DOWN µs", "WITH IT", "REASON"]);
    for restart in restarts {
        let siblings = match restart.children_restarted.as_slice() {
            [] => "-".into(),
            ids => ids.join(" "),
        };
        table.row([
            utc(restart.at_ms),
            restart.path.clone(),
            restart.outcome.clone(),
            restart.n.to_string(),
            restart.downtime_us.to_string(),
            siblings,
            restart.reason.clone(),
        ]);
    }
    table.render()
}

/// The members of a cluster.
pub(super) fn cluster(cluster: &ClusterStatus) -> String {
    let heads = [
        "NODE",
        "STATUS",
        "LINK",
        "SINCE",
        ">RTT µs",
        "CANARY",
        ">ROUTES",
        ">VERSION",
        "INCARNATION",
        "NOTE",
    ];
    let mut table = Table::new(&heads);
    for member in &cluster.members {
        table.row([
            member.node.to_string(),
            if member.running { "running" } else { "stopped" }.into(),
            member.link.clone(),
            utc(member.since_ms),
            member
                .round_trip_us
                .map_or_else(|| "-".into(), |us| us.to_string()),
            member.canary.clone().unwrap_or_else(|| "-".into()),
            member.routes.to_string(),
            member.routes_version.to_string(),
            member
                .incarnation
                .map_or_else(|| "-".into(), |incarnation| incarnation.to_string()),
            match &member.reason {
                None if member.route_drift => "its routes have drifted and are being repaired".into(),
                reason => reason.clone().unwrap_or_default(),
            },
        ]);
    }
    for left in &cluster.left {
        let (status, note) = match &left.forced_out_by {
            Some(by) => ("out", format!("forced out by {by}")),
            None => ("left", String::new()),
        };
        let mut row = vec![left.node.to_string(), status.into(), "-".into(), utc(left.at_ms)];
        row.extend(["-", "-", "-", "-", "-"].map(str::to_owned));
        row.push(note);
        table.row(row);
    }
    let mut text = table.render();
    if let Some(out) = &cluster.forced_out {
        text.push_str(&format!(
            "{} was forced out by {} at {} and works alone: `ermine cluster join` brings it back\n",
            cluster.node,
            out.by,
            utc(out.at_ms)
        ));
    }
    text
}

/// The same as JSON, with the two lists that EMQX has, and the members as they are.
pub(super) fn cluster_json(cluster: &ClusterStatus) -> String {
    let names = |running: bool| -> Vec<&str> {
        let of = |member: &&Member| member.running == running;
        cluster
            .members
            .iter()
            .filter(of)
            .map(|member| member.node.as_str())
            .collect()
    };
    as_json(&json!({
        "node": cluster.node,
        "running_nodes": names(true),
        "stopped_nodes": names(false),
        "members": cluster.members,
        "left": cluster.left,
        "forced_out": cluster.forced_out,
    }))
}

/// One step of a join, as it ends.
pub(super) fn step(name: &str, ok: bool, detail: &str) -> String {
    format!(
        "{} {name:<11} {}\n",
        if ok { "ok  " } else { "FAIL" },
        harmless(detail)
    )
    .trim_end()
    .to_owned()
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, running: bool) -> Member {
        Member {
            node: node.parse().unwrap(),
            incarnation: None,
            running,
            link: if running { "up" } else { "down" }.into(),
            since_ms: 0,
            routes: 3,
            routes_version: 7,
            round_trip_us: None,
            sent: 0,
            received: 0,
            reason: (!running).then(|| "connection refused".into()),
            route_drift: false,
            canary: running.then(|| "both".into()),
        }
    }

    fn status_of_two() -> ClusterStatus {
        let members = vec![member("a@h", true), member("b@h", false)];
        ClusterStatus {
            node: "a@h".parse().unwrap(),
            members,
            left: vec![],
            forced_out: None,
        }
    }

    #[test]
    fn a_cluster_has_emqx_s_two_lists_in_json() {
        let value: Value = serde_json::from_str(&cluster_json(&status_of_two())).unwrap();
        assert_eq!(value["running_nodes"], json!(["a@h"]));
        assert_eq!(value["stopped_nodes"], json!(["b@h"]));
        assert_eq!(value["members"][1]["since"], "1970-01-01T00:00:00Z");
        assert_eq!(value["members"][1]["reason"], "connection refused");
    }

    #[test]
    fn a_cluster_as_text_has_a_line_for_each_member() {
        let text = cluster(&status_of_two());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "a@h   running  up    1970-01-01T00:00:00Z       -  both         3        7  -"
        );
        assert!(lines[2].ends_with("-            connection refused"));
    }

    #[test]
    fn metrics_are_a_line_each_and_one_object() {
        let text = "# HELP a b\na_total 1\nb{path=\"x y\"} 0.5\n# EOF\n";
        assert_eq!(metrics(text), "a_total       : 1\nb{path=\"x y\"} : 0.5\n");
        let value: Value = serde_json::from_str(&metrics_json(text)).unwrap();
        assert_eq!(value, json!({"a_total": 1, "b{path=\"x y\"}": 0.5}));
    }

    #[test]
    fn routes_are_filter_and_nodes() {
        let route = RouteEntry {
            filter: "a/+".into(),
            nodes: vec!["a@h".parse().unwrap(), "b@h".parse().unwrap()],
        };
        assert_eq!(routes(&[route]), "FILTER  NODES\na/+     a@h b@h\n1 filter\n");
        assert_eq!(routes(&[]), "no routes: nobody has subscribed\n");
    }
}
