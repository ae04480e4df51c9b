//! Three nodes with one cookie: joined, killed under traffic, healed.
//!
//! `cargo run --example three_nodes`
//!
//! Ends with status 0 only if everything that it tells was seen.

#[path = "stage/mod.rs"]
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stage::client::Client;
use stage::host::{Host, Node, said};
use stage::{Told, act, eventually};

const N1: &str = "n1@127.0.0.1";
const N2: &str = "n2@127.0.0.1";
const N3: &str = "n3@127.0.0.1";
const FILTER: &str = "sensors/+/temp";
const TOPIC: &str = "sensors/1/temp";

/// The routes of a killed node must be gone on all others within this time.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Publishers wait so long at most for a node that was killed: it might be only its link that broke.
const HELD_UP_AT_MOST: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    stage::perform(three_nodes)
}

fn three_nodes(host: &Host) -> Told {
    act("three nodes, one cookie");
    let mut n1 = host.start(N1, &[])?;
    let mut n2 = host.start(N2, &[])?;
    let mut n3 = host.start(N3, &[])?;
    host.show("names")?;

    act("joined from the command line");
    host.show(&format!("cluster join {N2} --node {N1}"))?;
    host.show(&format!("cluster join {N3} --node {N1}"))?;
    println!("n2 and n3 were never told of each other; n1 introduced them:");
    await_members(host, &[N1, N2, N3])?;
    host.show(&format!("cluster status --node {N3}"))?;

    let mut on_n2 = send_to_both(host, [&n1, &n2, &n3])?;

    act("kill -9 of n3 under traffic");
    let traffic = Traffic::begin(&n1)?;
    read_until(&mut on_n2, 0, 199)?;
    println!("n1 publishes 0, 1, 2, … without pause, n2 has seen 0 to 199; now n3 is killed");
    kill(host, &mut n3, &[&n1, &n2])?;
    let go_on = traffic.sent() + 200;
    read_until(&mut on_n2, 200, go_on)?;
    println!("n1 and n2 go on: n2 has seen every number up to {go_on}");
    host.show(&format!("cluster status --node {N1}"))?;

    act("n3 comes back and rejoins by itself");
    let marks = [n1.log.mark(), n2.log.mark()];
    n3 = host.start(N3, &[])?;
    for (node, mark) in [&n1, &n2].into_iter().zip(marks) {
        let line = node
            .log
            .wait(mark, "nodeup of n3", |line| line.contains("nodeup n3@"))?;
        println!("{} │ {}", &node.name[..2], said(&line));
    }
    await_members(host, &[N1, N2, N3])?;
    let mut on_n3 = Client::connect(n3.mqtt, "on-n3")?;
    on_n3.subscribe(FILTER)?;
    println!("subscriber on n3: {:?}", on_n3.receive()?);
    let (sent, longest) = traffic.end()?;
    read_until(&mut on_n2, go_on + 1, sent - 1)?;
    println!("{sent} messages were acknowledged on n1; n2 has seen each of them once and in order;");
    println!(
        "the longest wait for an acknowledgement, when n3 was gone: {} ms",
        longest.as_millis()
    );
    if longest > HELD_UP_AT_MOST {
        return Err(format!(
            "the death of n3 held up a publisher on n1 for {longest:?}"
        ));
    }

    act("the end, in good order");
    end(host, &mut n3, &[&n1, &n2])?;
    end(host, &mut n2, &[&n1])?;
    end(host, &mut n1, &[])
}

/// One message from n1 to a subscriber on n2, which is given back, and to one on n3.
fn send_to_both(host: &Host, [n1, n2, n3]: [&Node; 3]) -> Told<Client> {
    act("a message from n1 to subscribers on n2 and n3");
    let mut on_n2 = Client::connect(n2.mqtt, "on-n2")?;
    on_n2.subscribe(FILTER)?;
    let mut on_n3 = Client::connect(n3.mqtt, "on-n3")?;
    on_n3.subscribe(FILTER)?;
    for node in [N1, N2, N3] {
        eventually(&format!("{FILTER} → n2, n3 at {node}"), || {
            Ok((routed_to(host, node)? == [N2, N3]).then_some(()))
        })?;
    }
    host.show(&format!("routes --node {N1}"))?;
    let mut on_n1 = Client::connect(n1.mqtt, "on-n1")?;
    on_n1.publish(TOPIC, "21.5")?;
    for (who, client) in [("n2", &mut on_n2), ("n3", &mut on_n3)] {
        println!("subscriber on {who}: {:?}", client.receive()?);
    }
    Ok(on_n2)
}

/// Waits until each of the nodes says that exactly these run.
fn await_members(host: &Host, members: &[&str]) -> Told {
    for node in members {
        eventually(&format!("{node} sees {members:?}"), || {
            let status = host.json(&format!("cluster status --node {node}"))?;
            Ok((names(&status["running_nodes"]) == members).then_some(()))
        })?;
    }
    Ok(())
}

/// The nodes that have subscribers of the filter, as one node knows them.
fn routed_to(host: &Host, node: &str) -> Told<Vec<String>> {
    let table = host.json(&format!("routes --node {node}"))?;
    let rows = table.as_array().map_or(&[][..], Vec::as_slice);
    let row = rows.iter().find(|row| row["filter"] == FILTER);
    Ok(row.map(|row| names(&row["nodes"])).unwrap_or_default())
}

fn names(list: &serde_json::Value) -> Vec<String> {
    let names = list.as_array().map_or(&[][..], Vec::as_slice).iter();
    names
        .filter_map(|name| name.as_str())
        .map(str::to_owned)
        .collect()
}

/// Kills a node and watches its routes vanish on the others.
fn kill(host: &Host, victim: &mut Node, others: &[&Node]) -> Told {
    let marks: Vec<_> = others.iter().map(|node| node.log.mark()).collect();
    let began = Instant::now();
    victim.kill()?;
    for (node, mark) in others.iter().zip(marks) {
        let down = format!("nodedown {}", victim.name);
        let line = node.log.wait(mark, &down, |line| line.contains(&down))?;
        eventually(&format!("no route to {} at {}", victim.name, node.name), || {
            Ok((!routed_to(host, &node.name)?.contains(&victim.name)).then_some(()))
        })?;
        let after = began.elapsed();
        println!("{} │ {}", &node.name[..2], said(&line));
        println!(
            "{} │ no route to n3 any more, {} ms after the kill",
            &node.name[..2],
            after.as_millis()
        );
        if after > GONE_WITHIN {
            return Err(format!("the routes of {} outlived it by {after:?}", victim.name));
        }
    }
    Ok(())
}

/// Stops a node and waits until the others have heard why.
fn end(host: &Host, node: &mut Node, others: &[&Node]) -> Told {
    let marks: Vec<_> = others.iter().map(|other| other.log.mark()).collect();
    host.show(&format!("stop --node {}", node.name))?;
    let status = node.wait()?;
    for (other, mark) in others.iter().zip(marks) {
        let down = format!("nodedown {}", node.name);
        let line = other.log.wait(mark, &down, |line| line.contains(&down))?;
        println!("{} │ {}", &other.name[..2], said(&line));
    }
    if !status.success() {
        return Err(format!("{} ended with {status}", node.name));
    }
    Ok(())
}

/// A publisher on its own thread that counts: 0, 1, 2, … each with QoS 1, each awaited.
struct Traffic {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    /// Ends with the longest wait for one acknowledgement.
    thread: JoinHandle<Told<Duration>>,
}

impl Traffic {
    fn begin(node: &Node) -> Told<Self> {
        let mut publisher = Client::connect(node.mqtt, "publisher")?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                publisher.publish(TOPIC, &count.load(Ordering::Relaxed).to_string())?;
                count.fetch_add(1, Ordering::Relaxed);
                longest = longest.max(began.elapsed());
            }
            Ok(longest)
        });
        Ok(Self { stop, sent, thread })
    }

    /// How many were acknowledged so far.
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many were acknowledged in all, and the longest wait for one acknowledgement.
    fn end(self) -> Told<(u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self
            .thread
            .join()
            .map_err(|_| "the publisher panicked".to_owned())??;
        Ok((self.sent.load(Ordering::Relaxed), longest))
    }
}

/// Reads from one number to another, and fails at the first that is missing.
fn read_until(client: &mut Client, next: u64, last: u64) -> Told {
    for wanted in next..=last {
        let found = number(client)?;
        if found != wanted {
            return Err(format!("n2 should have seen {wanted} and saw {found}"));
        }
    }
    Ok(())
}

fn number(client: &mut Client) -> Told<u64> {
    let (_, text) = client.receive()?;
    text.parse()
        .map_err(|error| format!("{text:?} is no number: {error}"))
}
