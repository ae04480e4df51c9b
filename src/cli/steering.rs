//! `ermine crash`, `kill`, `stop-child`, `start-child`: what is done to single processes.

use crate::admin::protocol::{Reply, Request, Steering};
use crate::cli::args::{ChildArgs, CrashArgs};
use crate::cli::commands::{Found, say};
use crate::cli::failure::Failure;

/// `ermine crash`, in each of its ways.
pub(super) async fn crash(args: CrashArgs) -> Result<(), Failure> {
    let CrashArgs {
        stuck,
        lose_route,
        path,
        node,
    } = args;
    if lose_route {
        return steer(Steering::LoseRoute, ChildArgs { path, node }).await;
    }
    if let Some(seconds) = stuck {
        return steer(Steering::Stall(seconds), ChildArgs { path, node }).await;
    }
    let found = Found::find(&node, None).await?;
    let crashed = found.one(Request::Crash { path }, |reply| match reply {
        Reply::Crashed(path) => Some(path),
        _ => None,
    });
    let path = crashed.await?;
    say(&format!(
        "{path} on {} panics now; see `ermine restarts`\n",
        found.name()
    ));
    Ok(())
}

/// Does something else to one process.
pub(super) async fn steer(how: Steering, args: ChildArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let request = Request::Steer { how, path: args.path };
    let steered = found.one(request, |reply| match reply {
        Reply::Steered(path) => Some(path),
        _ => None,
    });
    let (path, node) = (steered.await?, found.name());
    say(&match how {
        Steering::Kill => format!("{path} on {node} is killed now; see `ermine restarts`\n"),
        Steering::StopChild => {
            format!("{path} on {node} has stopped; `ermine start-child {path}` starts it again\n")
        }
        Steering::StartChild => format!("{path} on {node} runs again\n"),
        Steering::LoseRoute => format!("{node} has lost a route of {path}; see the node's log\n"),
        Steering::Stall(seconds) => {
            format!("{path} on {node} holds its arbiter for {seconds} s now; see the node's log\n")
        }
    });
    Ok(())
}
