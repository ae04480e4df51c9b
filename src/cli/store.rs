//! `ermine store …`: look through a store, copy it, bring a copy back. What a running node holds only the
//! node itself can read, and it is asked.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use crate::admin::protocol::{Reply, Request, StoreOrder};
use crate::cli::args::{NodeArgs, StoreArgs, StoreCommand};
use crate::cli::commands::{Found, say};
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::config::{Config, Environment, Flags};
use crate::node_name::NodeName;
use crate::store::tools::{self, Contents, ToolError};

/// Does what the command says.
pub(super) async fn run(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Check(args) => check(&args),
        StoreCommand::Stats(args) => {
            let (dir, _) = place(&args)?;
            let counted = tools::stats(&dir, &mut progress());
            let contents = or_ask(counted, &args, StoreOrder::Stats).await?;
            told(&args, &contents, "");
            Ok(())
        }
        StoreCommand::Backup { dir, store } => backup(dir, &store).await,
        StoreCommand::Restore { dir: from, store } => {
            let (dir, node) = place(&store)?;
            let restored = tools::restore(&dir, &node, &from, &mut progress());
            let (contents, aside) = restored.map_err(failure)?;
            let aside = aside.map_or_else(String::new, |aside| {
                format!("the store of before is now {}\n", aside.display())
            });
            let from = from.display();
            told(&store, &contents, &format!("restored from {from}\n{aside}"));
            Ok(())
        }
    }
}

fn check(args: &StoreArgs) -> Result<(), Failure> {
    let (dir, _) = place(args)?;
    let contents = tools::check(&dir, &mut progress()).map_err(failure)?;
    let whole = if contents.damaged == 0 {
        "everything is whole\n"
    } else {
        ""
    };
    told(args, &contents, whole);
    as_status(&contents)
}

async fn backup(to: PathBuf, args: &StoreArgs) -> Result<(), Failure> {
    // The node has another directory than who asks it.
    let to = std::path::absolute(&to).map_err(|error| Failure::usage(error.to_string()))?;
    let (dir, _) = place(args)?;
    let copied = tools::backup(&dir, &to, &mut progress());
    let order = StoreOrder::Backup {
        to: to.to_string_lossy().into_owned(),
    };
    let contents = or_ask(copied, args, order).await?;
    told(args, &contents, &format!("copied to {}\n", to.display()));
    as_status(&contents)
}

fn failure(error: ToolError) -> Failure {
    Failure::command(error.to_string())
}

/// Where the store is, and whose.
fn place(args: &StoreArgs) -> Result<(PathBuf, NodeName), Failure> {
    let flags = Flags {
        config: args.list.node.cookie.config.clone(),
        name: args.list.node.node.clone(),
        data_dir: args.data_dir.clone(),
        ..Flags::default()
    };
    let config = Config::load(&flags, &Environment::of_process())?;
    Ok((config.data_dir.join("store"), config.name))
}

/// What was done here, or is done by the node that has the store: nobody else can while it runs. A node that
/// is named and has its store in another place than usual knows where that is.
async fn or_ask(
    done: Result<Contents, ToolError>,
    args: &StoreArgs,
    order: StoreOrder,
) -> Result<Contents, Failure> {
    let named = &args.list.node.node;
    let holder = match done {
        Err(ToolError::Running(_, Some(node))) => node.as_str().to_owned(),
        Err(ToolError::Missing(_)) if named.is_some() && args.data_dir.is_none() => {
            named.clone().unwrap_or_default()
        }
        done => return done.map_err(failure),
    };
    // Not another one that happens to run here: it would tell of its own store.
    let node = NodeArgs {
        node: Some(holder),
        cookie: args.list.node.cookie.clone(),
    };
    let found = Found::find(&node, None).await?;
    let contents = found.one(Request::Store(order), |reply| match reply {
        Reply::Store(contents) => Some(contents),
        _ => None,
    });
    contents.await
}

/// Tells somebody at a terminal that it goes on.
fn progress() -> impl FnMut(u64) {
    let terminal = std::io::stderr().is_terminal();
    move |records| {
        if terminal {
            let _ = write!(std::io::stderr(), "\r{records} records\r");
        }
    }
}

fn told(args: &StoreArgs, contents: &Contents, also: &str) {
    if args.list.output.json {
        say(&show::as_json(contents));
    } else {
        say(&format!("{}{also}", text(contents)));
    }
}

fn text(contents: &Contents) -> String {
    let rows = [
        ("bytes of the file", contents.file_bytes),
        ("sessions", contents.sessions),
        ("subscriptions", contents.subscriptions),
        ("messages that wait", contents.messages),
        ("bytes of those", contents.message_bytes),
        ("exchanges begun", contents.exchanges),
        ("PUBRELs awaited", contents.received),
        ("retained messages", contents.retained),
        ("retained topics cleared", contents.cleared),
        ("damaged", contents.damaged),
    ];
    let mut text = match contents.node.as_str() {
        "" => String::new(),
        node => format!("store of {node}\n"),
    };
    for (name, number) in rows {
        text.push_str(&format!("{name:<24}{number:>12}\n"));
    }
    for lost in &contents.lost {
        text.push_str(&format!("lost: {lost}\n"));
    }
    text
}

/// A script must notice.
fn as_status(contents: &Contents) -> Result<(), Failure> {
    match contents.damaged {
        0 => Ok(()),
        damaged => Err(Failure::command(format!(
            "{damaged} records are damaged or missing: a node that starts with this store goes on without \
             them; bring a backup back with 'ermine store restore'"
        ))),
    }
}
