//! How long `ermine cluster join` takes, step by step, and how soon afterwards the first message crosses.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::harness::host::Node;
use crate::scenario::open;
use crate::tally::{Awaited, Tally};
use crate::wire::Template;
use crate::{Host, broker, quantiles};

/// Pause between two messages that look for the way.
const AGAIN_AFTER: Duration = Duration::from_millis(1);

/// A join as an operator sees it: when each line of the command came, and when it had ended.
pub(crate) struct Joined {
    pub(crate) lines: Vec<(Duration, String)>,
    pub(crate) took: Duration,
}

impl Joined {
    /// When a step was told as done.
    pub(crate) fn step(&self, name: &str) -> Option<Duration> {
        let line = |(_, line): &&(Duration, String)| line.starts_with("ok") && line.contains(name);
        self.lines.iter().find(line).map(|(at, _)| *at)
    }
}

/// Runs the command on a thread of its own. An error is what it said.
pub(crate) async fn join(host: &Arc<Host>, from: &Node, to: &Node) -> io::Result<Joined> {
    let (host, from, to) = (host.clone(), from.name.clone(), to.name.clone());
    let run = move || {
        let begin = Instant::now();
        let mut command = host.ermine();
        command.args(["cluster", "join", &to, "--node", &from]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let told = child
            .stdout
            .take()
            .into_iter()
            .flat_map(|told| BufReader::new(told).lines());
        let lines = told
            .map_while(Result::ok)
            .map(|line| (begin.elapsed(), line))
            .collect();
        let success = child.wait()?.success();
        let took = begin.elapsed();
        success
            .then_some(Joined { lines, took })
            .ok_or_else(|| io::Error::other(format!("{from} could not join {to}")))
    };
    tokio::task::spawn_blocking(run).await.map_err(io::Error::other)?
}

pub(crate) async fn run(rounds: usize) -> io::Result<()> {
    let (mut canaries, mut commands, mut crossed) = (Vec::new(), Vec::new(), Vec::new());
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    for _ in 0..rounds {
        let host = Arc::new(Host::new());
        let nodes = [host.start("n1@127.0.0.1"), host.start("n2@127.0.0.1")];
        let first = Rc::new(Cell::new(None));
        let looks = tokio::task::spawn_local(look(nodes_at(&nodes), first.clone()));
        let joined = join(&host, &nodes[1], &nodes[0]).await?;
        looks.await.map_err(io::Error::other)??;
        canaries.extend(joined.step("canary").map(ms));
        commands.push(ms(joined.took));
        crossed.extend(first.take().map(ms));
    }
    quantiles("join until the canary is back", canaries);
    quantiles("join until the command has ended", commands);
    quantiles("join until a client's message has crossed", crossed);
    Ok(())
}

fn nodes_at(nodes: &[Node; 2]) -> [crate::Broker; 2] {
    [broker("n1", &[&nodes[0]]), broker("n2", &[&nodes[1]])]
}

/// Publishes on the second node until a subscriber on the first hears of it: when that was.
async fn look([first, second]: [crate::Broker; 2], found: Rc<Cell<Option<Duration>>>) -> io::Result<()> {
    let begin = Instant::now();
    let sender: Rc<[Awaited]> = Rc::new([Awaited::default()]);
    let tally = Tally::new(&sender);
    let mut template = Template::new(0, "crosses", 0);
    let mut subscribers = open(&first, "hears".into(), 1, true, |_| Some(("crosses".into(), 0))).await?;
    let mut publishers = open(&second, "speaks".into(), 1, true, |_| None).await?;
    while tally.delivered.get() == 0 {
        publishers[0].publish(&mut template, 1).await?;
        if let Ok(taken) = timeout(AGAIN_AFTER, subscribers[0].take(&tally)).await {
            taken?;
        }
    }
    found.set(Some(begin.elapsed()));
    Ok(())
}
