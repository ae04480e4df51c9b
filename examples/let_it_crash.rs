//! Let it crash: one process of a node after the other panics on purpose, under the eyes of its clients.
//!
//! `cargo run --example let_it_crash`
//!
//! Ends with status 0 only if every crash was reported and repaired, and messages flowed again after it.

#[path = "stage/mod.rs"]
mod stage;

use std::process::ExitCode;

use stage::client::Client;
use stage::host::{Host, Node};
use stage::{Told, act, eventually};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";
const FILTER: &str = "pulse/#";
const TOPIC: &str = "pulse/x";
const KEPT: &str = "kept";

/// Workers that are restarted, and why nobody misses anything.
const WORKERS: [(&str, &str); 9] = [
    (
        "root/core/router",
        "the route table belongs to core: the new router finds it",
    ),
    (
        "root/core/topics/pulse%2F#",
        "its subscribers and what it had not delivered are in the tables",
    ),
    (
        "root/core/retainer",
        "the retained messages are in the tables too",
    ),
    ("root/core/clients", "the new one monitors the sessions that live"),
    ("root/core/mail-0", "mail between threads waits in the tables"),
    (
        "root/cluster/connector",
        "links go on without it; it remembers the members",
    ),
    (
        "root/cluster/registry",
        "the name is registered anew, the registry is served again",
    ),
    (
        "root/cluster/dist",
        "rest_for_one: what stands after it starts anew, links come back",
    ),
    ("root/admin/control", "the operator's own door"),
];

/// One more than `core` bears in a minute; four of its workers have fallen before.
const ONE_TOO_MANY: &str = "root/core/wills";

fn main() -> ExitCode {
    stage::perform(let_it_crash)
}

fn let_it_crash(host: &Host) -> Told {
    act("two nodes and three clients");
    let mut n1 = host.start(N1, &["--allow-crash"])?;
    let mut n2 = host.start(N2, &[])?;
    host.show(&format!("cluster join {N2} --node {N1}"))?;
    let mut clients = Clients::connect(&n1, &n2)?;
    clients.flow(host)?;
    clients.publisher.publish_retained(KEPT, "still here")?;
    host.show(&format!("tree --node {N1}"))?;

    for (path, why) in WORKERS {
        act(&format!("{path} crashes"));
        crash_worker(host, &n1, path)?;
        clients.flow(host)?;
        println!("why nobody misses anything: {why}");
        if path.ends_with("retainer") {
            let text = retained(&n1)?;
            println!("a new subscriber is given the retained message: {text:?}");
        }
    }

    act("a session crashes: temporary, so the truth is told to its client");
    crash_session(host, &n1, &mut clients.here)?;
    clients.here = subscriber(&n1, "here")?;
    clients.flow(host)?;
    println!("its client has connected again");

    act("one crash too many: core gives up, root rebuilds the house");
    escalate(host, &n1, &mut clients)?;

    act("what the operator sees afterwards");
    host.show(&format!("restarts --node {N1}"))?;
    host.show(&format!("tree --node {N1}"))?;
    host.show(&format!("cluster status --node {N2}"))?;

    act("the end");
    for node in [&mut n2, &mut n1] {
        host.show(&format!("stop --node {}", node.name))?;
        let status = node.wait()?;
        if !status.success() {
            return Err(format!("{} ended with {status}", node.name));
        }
    }
    Ok(())
}

/// A publisher and a subscriber on n1, a subscriber on n2.
struct Clients {
    publisher: Client,
    here: Client,
    there: Client,
    beats: u32,
}

impl Clients {
    fn connect(n1: &Node, n2: &Node) -> Told<Self> {
        Ok(Self {
            publisher: Client::connect(n1.mqtt, "publisher")?,
            here: subscriber(n1, "here")?,
            there: subscriber(n2, "there")?,
            beats: 0,
        })
    }

    /// One message flows to the subscriber here and to the one on the other node. It is published as
    /// soon as n1 knows both; from then on it must not get lost.
    fn flow(&mut self, host: &Host) -> Told {
        eventually(&format!("{FILTER} → n1, n2"), || {
            // While the door of the operators is being restarted there is no answer.
            let Ok(table) = host.json(&format!("routes --node {N1}")) else {
                return Ok(None);
            };
            let rows = table.as_array().map_or(&[][..], Vec::as_slice);
            let row = rows.iter().find(|row| row["filter"] == FILTER);
            Ok(row
                .filter(|row| row["nodes"] == serde_json::json!([N1, N2]))
                .map(drop))
        })?;
        self.beats += 1;
        let sent = self.beats.to_string();
        self.publisher.publish(TOPIC, &sent)?;
        for (place, client) in [("n1", &mut self.here), ("n2", &mut self.there)] {
            let (_, received) = client.receive()?;
            if received != sent {
                return Err(format!("{sent} was published, and {received} came on {place}"));
            }
        }
        println!("message {sent} came to both subscribers");
        Ok(())
    }
}

fn subscriber(node: &Node, id: &str) -> Told<Client> {
    let mut client = Client::connect(node.mqtt, id)?;
    client.subscribe(FILTER)?;
    Ok(client)
}

/// Crashes a worker and shows the reports until that of its restart.
fn crash_worker(host: &Host, node: &Node, path: &str) -> Told {
    let supervisor = format!("supervisor: {}", parent(path));
    // Not just any: a sibling that was restarted with the worker before may report only now.
    let escaped = path.rsplit('/').next().unwrap_or(path);
    let id = format!("{{id,{}}}", escaped.replace("%2F", "/").replace("%25", "%"));
    let mark = node.log.mark();
    host.show(&format!("crash {path} --node {N1}"))?;
    let reports = node
        .log
        .wait_for_report(mark, &format!("{path} is restarted"), |report| {
            report.starts_with("=PROGRESS REPORT") && report.contains(&supervisor) && report.contains(&id)
        })?;
    println!("{reports}");
    match reports.contains(&format!("registered_name: {path}\n")) {
        true => Ok(()),
        false => Err(format!("there is no crash report of {path}")),
    }
}

/// Crashes the session of a client and waits until the client is told.
fn crash_session(host: &Host, node: &Node, client: &mut Client) -> Told {
    let mark = node.log.mark();
    host.show(&format!("crash here --node {N1}"))?;
    let reports = node
        .log
        .wait_for_report(mark, "the crash of a session is reported", |report| {
            report.starts_with("=SUPERVISOR REPORT") && report.contains("{id,here}")
        })?;
    println!("{reports}");
    client.wait_for_close()?;
    println!("its client sees the connection closed; its supervisor does not start it again");
    Ok(())
}

/// Crashes a worker of core until core has had enough, and sees the node whole again.
fn escalate(host: &Host, node: &Node, clients: &mut Clients) -> Told {
    let mark = node.log.mark();
    host.show(&format!("crash {ONE_TOO_MANY} --node {N1}"))?;
    let restarted = |report: &str| report.starts_with("=PROGRESS REPORT");
    node.log
        .wait_for_report(mark, "the last restart within the intensity", restarted)?;
    let mark = node.log.mark();
    host.show(&format!("crash {ONE_TOO_MANY} --node {N1}"))?;
    let reports = node.log.wait_for_report(mark, "root restarts core", |report| {
        restarted(report) && report.contains("supervisor: root\n")
    })?;
    println!("{reports}");
    clients.here.wait_for_close()?;
    clients.publisher.wait_for_close()?;
    println!("fresh tables, a new incarnation: the clients of n1 were cut off and connect again");
    clients.publisher = Client::connect(node.mqtt, "publisher")?;
    clients.here = subscriber(node, "here")?;
    clients.flow(host)
}

/// What a new subscriber is given at once.
fn retained(node: &Node) -> Told<String> {
    let mut late = Client::connect(node.mqtt, "late")?;
    late.subscribe(KEPT)?;
    late.receive().map(|(_, text)| text)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(parent, _)| parent)
}
