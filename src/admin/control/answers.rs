//! What each request is answered with.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::LocalBoxFuture;
use supervisors::{
    Intensity, Outline, ProcessInfo, ProcessKind, RestartOutcome, RestartRecord, Shutdown, Tree,
};
use tokio::sync::mpsc;

use super::{Connection, ControlOptions, steering};
use crate::admin::protocol::{CHUNK_LEN_MAX, JoinStep, Reply, Request, RestartEntry, TreeEntry, chunks};

/// A tree of so many processes is shown whole where nobody asked for all of it.
const TREE_LISTED_MAX: usize = 1000;

/// Steps of a join or a check that wait for a slow operator.
const STEPS_MAX: usize = 16;

/// Answers a request but for the end. An error is the sentence that ends it.
pub(super) async fn answer(
    options: &ControlOptions,
    request: Request,
    to: &mut Connection,
) -> Result<(), String> {
    let around = &options.surroundings;
    match request {
        Request::Status => status(options, to).await,
        Request::Tree => {
            let tree = standing(options)?.clone();
            // Hundreds of thousands of sessions are sorted here: not on the arbiter of the router.
            let listed = tokio::task::spawn_blocking(move || tree.list()).await;
            let listed = listed.map_err(|error| format!("the tree could not be listed: {error}"))?;
            send(to, listed.into_iter().map(tree_entry), Reply::Tree).await
        }
        Request::Restarts => {
            let history = standing(options)?.history();
            send(to, history.into_iter().map(restart_entry), Reply::Restarts).await
        }
        Request::TreeSummary => tree_summary(options, to).await,
        Request::Children { path } => children(options, &path, to).await,
        Request::Crash { path } => steering::crash(options, &path, to).await,
        Request::Steer { how, path } => steering::steer(options, how, &path, to).await,
        Request::Routes => send(to, around.routes().await?, Reply::Routes).await,
        Request::Clients => send(to, around.clients().await?, Reply::Clients).await,
        Request::Listeners => send(to, around.listeners(), Reply::Listeners).await,
        Request::ClusterStatus => cluster(options, to).await,
        Request::Join { other } => {
            stepwise(to, |steps| around.join(other, steps)).await?;
            cluster(options, to).await
        }
        Request::Expel { node } => {
            around.expel(node).await?;
            cluster(options, to).await
        }
        Request::Drain(order) => {
            stepwise(to, |steps| around.drain(order, steps)).await?;
            cluster(options, to).await
        }
        Request::Check { other } => stepwise(to, |steps| around.check(other, steps)).await,
        Request::Greet { from, clock_ms } => {
            to.reply(&Reply::Greeting(around.greet(from, clock_ms).await?))
                .await
        }
        Request::Reach { from, nodes, canary } => {
            to.reply(&Reply::Reached(around.reach(from, nodes, canary).await))
                .await
        }
        Request::Canary(bytes) => to.reply(&Reply::Canary(bytes)).await,
        Request::Rotate(order) => to.reply(&Reply::Rotated(around.rotate(order).await?)).await,
        Request::Store(order) => to.reply(&Reply::Store(around.store(order).await?)).await,
        Request::Leave => {
            around.leave().await?;
            cluster(options, to).await
        }
        Request::ClientDetails { after, limit } => client_details(options, after, limit, to).await,
        Request::Client { client_id } => client(options, client_id, to).await,
        Request::Kick { client_id } => match options.census.kick(client_id.clone()).await? {
            true => Ok(()),
            false => Err(no_client(&client_id)),
        },
        Request::Subscriptions => subscriptions(options, to).await,
        Request::Metrics => {
            let figures = options.census.figures().await?;
            to.reply(&Reply::Text(crate::admin::metrics::text(figures))).await
        }
        Request::Audit => to.reply(&Reply::Audit(around.audit().await?)).await,
        Request::Access => to.reply(&Reply::Access(options.access.clone())).await,
        Request::Reload => reload(options, to).await,
        // The connection stops the node when this is answered.
        Request::Stop => Ok(()),
    }
}

async fn cluster(options: &ControlOptions, to: &mut Connection) -> Result<(), String> {
    let status = options.surroundings.cluster().await?;
    to.reply(&Reply::Cluster(status)).await
}

async fn tree_summary(options: &ControlOptions, to: &mut Connection) -> Result<(), String> {
    let tree = standing(options)?;
    let listed = if tree.count() <= TREE_LISTED_MAX {
        tree.list()
    } else {
        tree.summary()
    };
    send(to, listed.into_iter().map(tree_entry), Reply::Tree).await
}

async fn children(options: &ControlOptions, path: &str, to: &mut Connection) -> Result<(), String> {
    let tree = standing(options)?.clone();
    let meant = steering::resolve(&tree, path).await?;
    let listed = tokio::task::spawn_blocking(move || {
        let children = tree.children(&meant.path);
        std::iter::once(meant).chain(children)
    });
    let listed = listed
        .await
        .map_err(|error| format!("the children could not be listed: {error}"))?;
    send(to, listed.map(tree_entry), Reply::Tree).await
}

async fn reload(options: &ControlOptions, to: &mut Connection) -> Result<(), String> {
    let read = options.surroundings.reload().await.into_iter();
    let said = read.map(|said| match said {
        Ok(sentence) => (true, sentence),
        Err(sentence) => (false, sentence),
    });
    to.reply(&Reply::Reloaded(said.collect())).await
}

/// Sends a list in chunks.
async fn send<T: crate::admin::protocol::Weight>(
    to: &mut Connection,
    entries: impl IntoIterator<Item = T>,
    reply: fn(Vec<T>) -> Reply,
) -> Result<(), String> {
    for chunk in chunks(entries) {
        to.reply(&reply(chunk)).await?;
    }
    Ok(())
}

fn no_client(client_id: &str) -> String {
    format!(
        "there is no client {}: see `ermine clients`",
        client_id.escape_debug()
    )
}

/// Part by part, so that neither side ever holds all of them twice.
async fn client_details(
    options: &ControlOptions,
    mut after: Option<String>,
    limit: u32,
    to: &mut Connection,
) -> Result<(), String> {
    let mut left = if limit == 0 { usize::MAX } else { limit as usize };
    loop {
        let page = options.census.clients(after, left.min(CHUNK_LEN_MAX)).await?;
        left -= page.entries.len().min(left);
        send(to, page.entries, Reply::ClientDetails).await?;
        match page.next {
            Some(next) if left > 0 => after = Some(next),
            _ => return Ok(()),
        }
    }
}

async fn client(options: &ControlOptions, client_id: String, to: &mut Connection) -> Result<(), String> {
    let census = &options.census;
    let Some(detail) = census.client(client_id.clone()).await? else {
        return Err(no_client(&client_id));
    };
    to.reply(&Reply::ClientDetails(vec![detail])).await?;
    let held = census.subscriptions_of(client_id).await?;
    send(to, held.unwrap_or_default(), Reply::Subscriptions).await
}

async fn subscriptions(options: &ControlOptions, to: &mut Connection) -> Result<(), String> {
    let mut after = None;
    loop {
        let page = options.census.subscriptions(after, CHUNK_LEN_MAX).await?;
        send(to, page.entries, Reply::Subscriptions).await?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

pub(super) fn standing(options: &ControlOptions) -> Result<&Tree, String> {
    options
        .tree
        .get()
        .ok_or_else(|| "the node is still starting: try again".to_owned())
}

async fn status(options: &ControlOptions, to: &mut Connection) -> Result<(), String> {
    let mut status = options.surroundings.status().await?;
    status.allow_crash = options.allow_crash;
    if let Some(tree) = options.tree.get() {
        status.processes = tree.count() as u64;
        status.restarts = tree.restarts();
    }
    to.reply(&Reply::Status(status)).await
}

/// Hands on the steps while something goes on.
async fn stepwise<'a>(
    to: &mut Connection,
    go_on: impl FnOnce(mpsc::Sender<JoinStep>) -> LocalBoxFuture<'a, Result<(), String>>,
) -> Result<(), String> {
    let (steps, mut ended) = mpsc::channel(STEPS_MAX);
    let going = go_on(steps);
    let telling = async {
        while let Some(step) = ended.recv().await {
            to.reply(&Reply::Step(step)).await?;
        }
        Ok::<_, String>(())
    };
    // The steps end with what goes on, which holds their sender.
    let (done, told) = tokio::join!(going, telling);
    done?;
    told
}

pub(crate) fn tree_entry(info: ProcessInfo) -> TreeEntry {
    TreeEntry {
        path: info.path.to_string(),
        id: info.id.to_string(),
        kind: info.kind.to_string(),
        strategy: info
            .supervision
            .filter(|_| info.kind == ProcessKind::Supervisor)
            .map(|supervision| supervision.strategy.to_string()),
        intensity: info
            .supervision
            .map(|supervision| intensity(supervision.intensity)),
        restart: info.restart.to_string(),
        shutdown: shutdown(info.shutdown),
        actor: info.actor.to_owned(),
        pid: info.pid.map_or_else(String::new, |pid| pid.to_string()),
        restarts: info.restarts,
        since_ms: ms(info.since),
        mailbox_len: info.mailbox_len as u64,
        state: info.state.to_string(),
        children: info
            .supervision
            .map_or(0, |supervision| supervision.children as u64),
        intensity_used: info
            .supervision
            .map_or(0, |supervision| supervision.intensity_used),
        child_restarts: info
            .supervision
            .map_or(0, |supervision| supervision.child_restarts),
        child_crashes: info
            .supervision
            .map_or(0, |supervision| supervision.child_crashes),
    }
}

/// The entry of a process that was not started.
pub(crate) fn outline_entry(outline: &Outline) -> TreeEntry {
    TreeEntry {
        path: outline.path.to_string(),
        id: outline.id.to_string(),
        kind: outline.kind.to_string(),
        strategy: outline.strategy.map(|strategy| strategy.to_string()),
        intensity: outline.intensity.map(intensity),
        restart: outline.restart.to_string(),
        shutdown: shutdown(outline.shutdown),
        actor: outline.actor.to_owned(),
        pid: String::new(),
        restarts: 0,
        since_ms: 0,
        mailbox_len: 0,
        state: "planned".into(),
        children: 0,
        intensity_used: 0,
        child_restarts: 0,
        child_crashes: 0,
    }
}

fn intensity(intensity: Intensity) -> String {
    let period = intensity.period;
    let period = match period.subsec_millis() {
        0 => format!("{}s", period.as_secs()),
        _ => format!("{}ms", period.as_millis()),
    };
    format!("{}/{period}", intensity.restarts)
}

fn shutdown(shutdown: Shutdown) -> String {
    match shutdown {
        Shutdown::BrutalKill => "kill".into(),
        Shutdown::Timeout(time) if time.subsec_millis() > 0 => format!("{}ms", time.as_millis()),
        Shutdown::Timeout(time) => format!("{}s", time.as_secs()),
        Shutdown::Infinity => "infinity".into(),
    }
}

pub(crate) fn restart_entry(record: RestartRecord) -> RestartEntry {
    let outcome = match record.outcome {
        RestartOutcome::Restarted => "restarted",
        RestartOutcome::StartFailed => "start failed",
        RestartOutcome::GaveUp => "gave up",
    };
    RestartEntry {
        at_ms: ms(record.at),
        path: record.path.to_string(),
        supervisor: record.supervisor.to_string(),
        reason: record.reason.to_string(),
        outcome: outcome.into(),
        n: record.n,
        generation: record.generation,
        downtime_us: record.downtime_us,
        children_restarted: record
            .children_restarted
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// Milliseconds since 1970.
pub(crate) fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
