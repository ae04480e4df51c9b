//! `ermine cluster …`: asks the node, tells the steps as they end, prints the members.

use serde_json::json;

use crate::admin::protocol::{ClusterStatus, DrainOrder, JoinStep, Reply, Request};
use crate::cli::args::{ClusterCommand, LeaveArgs, ListArgs};
use crate::cli::commands::{Found, Whereabouts, node_name, say};
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::registry::CookieSource;
use crate::registry::endpoint::PORT_VARIABLE;

/// Does what a command says.
pub(super) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status(list) => status(list).await,
        ClusterCommand::Join { other, list } => join(other, list).await,
        ClusterCommand::Leave(args) => leave(args).await,
        ClusterCommand::ForceLeave { member, list } => force_leave(member, list).await,
        ClusterCommand::Check { other, list } => check(other, list).await,
        ClusterCommand::Invite(list) => invite(list).await,
    }
}

fn cluster(reply: Reply) -> Option<ClusterStatus> {
    match reply {
        Reply::Cluster(status) => Some(status),
        _ => None,
    }
}

/// Tells a step, and hands on what else was answered.
fn step_or_cluster(json: bool) -> impl Fn(Reply) -> Option<ClusterStatus> {
    move |reply| match reply {
        Reply::Step(step) => {
            if !json {
                say_step(&step);
            }
            None
        }
        other => cluster(other),
    }
}

fn say_step(step: &JoinStep) {
    // Why a step failed is said once, on standard error.
    let detail = if step.ok { step.detail.as_str() } else { "" };
    say(&show::step(&step.step, step.ok, detail));
}

fn say_cluster(json: bool, status: &ClusterStatus) {
    say(&if json {
        show::cluster_json(status)
    } else {
        show::cluster(status)
    });
}

async fn status(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let status = found.one(Request::ClusterStatus, cluster).await?;
    say_cluster(args.output.json, &status);
    Ok(())
}

/// Prints each step as it ends; with JSON only the cluster, when all is done.
async fn join(other: String, args: ListArgs) -> Result<(), Failure> {
    let other = node_name(&other)?;
    let json = args.output.json;
    let found = Found::find(&args.node, Some(&other)).await?;
    if *found.name() == other {
        return Err(Failure::command(format!(
            "{other} cannot join itself: name another node"
        )));
    }
    let request = Request::Join { other: other.clone() };
    let status = found.one(request, step_or_cluster(json)).await?;
    if !json {
        say(&format!("{} joined {other}.\n\n", found.name()));
    }
    say_cluster(json, &status);
    Ok(())
}

async fn leave(args: LeaveArgs) -> Result<(), Failure> {
    let found = Found::find(&args.list.node, None).await?;
    let json = args.list.output.json;
    let request = if args.keep_clients {
        Request::Leave
    } else {
        Request::Drain(DrainOrder {
            rate: args.rate,
            server: args.server,
            moved: args.moved,
            stop: args.stop,
        })
    };
    let status = found.one(request, step_or_cluster(json)).await?;
    if !json {
        let then = if args.stop { " and stops" } else { "" };
        say(&format!("{} left the cluster{then}.\n\n", found.name()));
    }
    say_cluster(json, &status);
    Ok(())
}

async fn force_leave(member: String, args: ListArgs) -> Result<(), Failure> {
    let member = node_name(&member)?;
    let found = Found::find(&args.node, Some(&member)).await?;
    let request = Request::Expel { node: member.clone() };
    let status = found.one(request, cluster).await?;
    if !args.output.json {
        say(&format!("{member} was forced out of the cluster.\n\n"));
    }
    say_cluster(args.output.json, &status);
    Ok(())
}

/// Prints each step as it ends; with JSON all of them, also where one failed.
async fn check(other: String, args: ListArgs) -> Result<(), Failure> {
    let other = node_name(&other)?;
    let json = args.output.json;
    let found = Found::find(&args.node, Some(&other)).await?;
    let mut steps = Vec::new();
    let request = Request::Check { other: other.clone() };
    let checked = found.ask(request, |reply| {
        if let Reply::Step(step) = reply {
            if !json {
                say_step(&step);
            }
            steps.push(step);
        }
    });
    let checked = checked.await;
    if json {
        let result = json!({
            "node": found.name(), "other": other, "ok": checked.is_ok(), "steps": steps,
        });
        say(&show::as_json(&result));
    } else if checked.is_ok() {
        let node = found.name();
        say(&format!(
            "{node} can join {other}: `ermine cluster join {other} --node {node}`\n"
        ));
    }
    checked
}

/// What the other host has to type. The cookie itself is named by its place and its fingerprint only.
async fn invite(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let whereabouts = Whereabouts::of(&args.node.cookie)?;
    let fingerprint = whereabouts.secret()?.fingerprint().to_string();
    let (node, port) = (found.name(), whereabouts.registry.contact.port());
    let place = match &whereabouts.cookie {
        CookieSource::File(path) => path.display().to_string(),
        CookieSource::Environment(_) => whereabouts.cookie.to_string(),
    };
    let host = node.host();
    let local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let other = format!("NAME@{}", if local { host } else { "HOST" });
    let commands = [
        format!("ermine start --name {other} --registry-port {port}"),
        format!("ermine cluster check {node} --node {other} --registry-port {port}"),
        format!("ermine cluster join {node} --node {other} --registry-port {port}"),
    ];
    if args.output.json {
        say(&show::as_json(&json!({
            "node": node, "registry_port": port, "dist_port": found.registration().port,
            "cookie": place, "cookie_fingerprint": fingerprint, "commands": commands,
        })));
        return Ok(());
    }
    let mut text = format!(
        "1. Copy the cookie, {place} on this host, to ~/.ermine.cookie there (mode 0600): \
         `ermine cookie fingerprint` must print {fingerprint} on both hosts.\n\
         2. Let both hosts reach each other's port {port} and the nodes' own ports (here {}).\n\
         3. Start a node there, look whether it can join, and join it:\n\n",
        found.registration().port
    );
    for command in &commands {
        text.push_str(&format!("   {command}\n"));
    }
    text.push_str(&format!(
        "\n--registry-port may be left out where it is 4366 or {PORT_VARIABLE} is set.\n"
    ));
    if local {
        text.push_str(&format!(
            "{node} is reached from this host only: name it by an address of the network for other hosts.\n"
        ));
    }
    say(&text);
    Ok(())
}
