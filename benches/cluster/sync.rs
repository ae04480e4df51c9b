//! A node joins one with many routes: how long until it holds them all, and what memory that takes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::joining::join;
use crate::scenario::open;
use crate::{Host, broker};

/// Subscriptions of each client.
const EACH: usize = 1000;

pub(crate) async fn run(routes: usize) -> io::Result<()> {
    let host = Arc::new(Host::new());
    let (full, empty) = (host.start("full@127.0.0.1"), host.start("empty@127.0.0.1"));
    let (there, here) = (broker("full", &[&full]), broker("empty", &[&empty]));
    let begin = Instant::now();
    let mut subscribing = JoinSet::new();
    let clients = routes.div_ceil(EACH);
    let opened = open(&there, "many".into(), clients, true, |_| None).await?;
    for (client, mut wire) in opened.into_iter().enumerate() {
        let mine = EACH.min(routes - client * EACH);
        subscribing.spawn_local(async move {
            for number in 0..mine {
                wire.subscribe(&format!("site/{client}/device/{number}/state"), 0)
                    .await?;
            }
            io::Result::Ok(wire)
        });
    }
    let mut kept = Vec::new();
    while let Some(subscribed) = subscribing.join_next().await {
        kept.push(subscribed.map_err(io::Error::other)??);
    }
    println!(
        "{routes} subscriptions in {:.1} s; memory of their node {:.0} MiB",
        begin.elapsed().as_secs_f64(),
        there.rss_kib() / 1024.0
    );
    // What the last of them caused is done.
    sleep(Duration::from_secs(1)).await;
    let (rss, cpu) = (here.rss_kib(), (there.cpu_s(), here.cpu_s()));
    let joined = join(&host, &empty, &full).await?;
    let cpu = (there.cpu_s() - cpu.0, here.cpu_s() - cpu.1);
    for (at, line) in &joined.lines {
        println!("{:>8.3} s  {line}", at.as_secs_f64());
    }
    let synced = joined.step("route sync").map_or(f64::NAN, |at| at.as_secs_f64());
    println!(
        "routes held after {synced:.2} s; CPU {:.2} s of the node that has them, {:.2} s of the other; \
         memory of the latter {:.0} → {:.0} MiB",
        cpu.0,
        cpu.1,
        rss / 1024.0,
        here.rss_kib() / 1024.0
    );
    let held = host.json(&["cluster", "status", "--node", &empty.name]);
    let members = held["members"].as_array().into_iter().flatten();
    let counts: Vec<_> = members
        .filter(|member| member["node"] == *full.name)
        .map(|member| &member["routes"])
        .collect();
    println!("routes of {} that {} holds: {counts:?}", full.name, empty.name);
    Ok(())
}
