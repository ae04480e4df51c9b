//! What operators do to single processes: crash, kill, stop, start.

use std::time::Duration;

use supervisors::{ChildError, ProcessInfo, SteerError, Tree};

use super::answers::standing;
use super::{Connection, ControlOptions, path};
use crate::admin::protocol::{Reply, Steering};

/// The way by which commands come in. Who stops a part of it could not start it again.
const WAY_IN: [&str; 2] = ["root/admin/control", "root/cluster/gate"];

/// Longest that a process may be told to hold its arbiter, in seconds. It cannot be called off.
pub(crate) const STUCK_S_MAX: u8 = 60;

/// The child that an operator means: a whole path, or the end of exactly one.
pub(super) async fn resolve(tree: &Tree, wanted: &str) -> Result<ProcessInfo, String> {
    if let Some(exactly) = tree.describe(wanted.trim_matches('/')) {
        return Ok(exactly);
    }
    let summary = tree.summary();
    let meant = match path::find(wanted, summary.iter().map(|info| &*info.path)) {
        // Perhaps one of the children of a dynamic supervisor, of which there may be very many.
        Err(sentence) if sentence.starts_with("not_found") && tree.count() > summary.len() => {
            let (whole, part) = (tree.clone(), wanted.to_owned());
            let search = tokio::task::spawn_blocking(move || {
                path::find(&part, whole.list().iter().map(|info| &*info.path)).map(str::to_owned)
            });
            search
                .await
                .map_err(|error| format!("the tree could not be searched: {error}"))?
        }
        found => found.map(str::to_owned),
    }?;
    tree.describe(&meant)
        .ok_or_else(|| format!("not_found: there is no process {} any more", meant.escape_debug()))
}

pub(super) async fn crash(options: &ControlOptions, wanted: &str, to: &mut Connection) -> Result<(), String> {
    allowed(options)?;
    let tree = standing(options)?;
    let path = resolve(tree, wanted).await?.path;
    // Answered first: the crash may take us, or all of the node, along.
    to.reply(&Reply::Crashed(path.to_string())).await?;
    tree.crash(&path, "crashed by an operator")
        .map_err(|error| error.to_string())
}

pub(super) async fn steer(
    options: &ControlOptions,
    how: Steering,
    wanted: &str,
    to: &mut Connection,
) -> Result<(), String> {
    let tree = standing(options)?;
    let steered = |path: &str| Reply::Steered(path.to_owned());
    match how {
        Steering::Kill => {
            allowed(options)?;
            let path = resolve(tree, wanted).await?.path;
            // As with a crash.
            to.reply(&steered(&path)).await?;
            tree.kill(&path).map_err(|error| error.to_string())
        }
        Steering::Stall(seconds) => {
            allowed(options)?;
            let path = resolve(tree, wanted).await?.path;
            // Answered first: we may be on the arbiter that is about to be stuck.
            to.reply(&steered(&path)).await?;
            let time = Duration::from_secs(u64::from(seconds.min(STUCK_S_MAX)));
            tree.stall(&path, time).map_err(|error| error.to_string())
        }
        Steering::LoseRoute => {
            allowed(options)?;
            let node = wanted.parse().map_err(|error| format!("{error}"))?;
            options.surroundings.lose_route(node).await?;
            to.reply(&steered(wanted)).await
        }
        Steering::StopChild => {
            let path = resolve(tree, wanted).await?.path;
            if let Some(way) = WAY_IN.iter().find(|way| stands_on(way, &path)) {
                return Err(format!(
                    "{path} cannot be stopped: commands come in by {way}, so nobody could start it again; \
                     `ermine stop` stops the node"
                ));
            }
            tree.terminate_child(&path)
                .await
                .map_err(|error| sentence(&path, &error))?;
            to.reply(&steered(&path)).await
        }
        Steering::StartChild => {
            let path = resolve(tree, wanted).await?.path;
            tree.restart_child(&path)
                .await
                .map_err(|error| sentence(&path, &error))?;
            to.reply(&steered(&path)).await
        }
    }
}

fn allowed(options: &ControlOptions) -> Result<(), String> {
    if options.allow_crash {
        return Ok(());
    }
    Err("this node was not started with --allow-crash".into())
}

/// Whether `path` is the way, or above it.
fn stands_on(way: &str, path: &str) -> bool {
    way.strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn sentence(path: &str, error: &SteerError) -> String {
    match error {
        SteerError::Root(_) => format!("{path} is the whole node: `ermine stop` stops it"),
        SteerError::Child(ChildError::Running) => format!("{path}: running: there is nothing to start"),
        // The others begin with OTP's word, where it has one.
        other => format!("{path}: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_by_which_commands_come_in_stands_on_all_above_it() {
        let stopped = |path: &str| WAY_IN.iter().any(|way| stands_on(way, path));
        for path in [
            "root",
            "root/admin",
            "root/admin/control",
            "root/cluster",
            "root/cluster/gate",
        ] {
            assert!(stopped(path), "{path}");
        }
        for path in [
            "root/core",
            "root/cluster/connector",
            "root/cluster/gateway",
            "root/ad",
        ] {
            assert!(!stopped(path), "{path}");
        }
    }
}
