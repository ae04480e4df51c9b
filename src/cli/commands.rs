//! The commands that are not `start`: find the node, ask, print.

use std::future::Future;
use std::io::Write;

use crate::admin::client::Operator;
use crate::admin::control::outline_entry;
use crate::admin::protocol::{Access, Reply, Request, Steering, TreeEntry};
use crate::cli::args::{Command, CookieArgs, ListArgs, NodeArgs, TreeArgs};
use crate::cli::failure::Failure;
use crate::cli::steering::{self, steer};
use crate::cli::{audit, check_config, cluster, cookie, drawing, mqtt, passwd, sessions, show, store, watch};
use crate::config::{Config, Environment, Flags};
use crate::node_name::NodeName;
use crate::registry::wire::Registration;
use crate::registry::{Cookie, CookieSource, Endpoint, render};

/// Does what a command says.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Start(_) => Ok(()), // `main` has taken it.
        Command::CheckConfig { file } => {
            check_config(file)?;
            say("ok\n");
            Ok(())
        }
        Command::Names { cookie, output } => block_on(names(cookie, output.json)),
        Command::Status(list) => block_on(status(list)),
        Command::Cluster(command) => block_on(cluster::run(command)),
        Command::Routes(list) => block_on(routes(list)),
        Command::Listeners(list) => block_on(listeners(list)),
        Command::Clients(args) => block_on(sessions::clients(args)),
        Command::Subscriptions(list) => block_on(sessions::subscriptions(list)),
        Command::Metrics(list) => block_on(metrics(list)),
        Command::Audit(args) => block_on(audit::run(args)),
        Command::Token { url, node } => block_on(token(url, node)),
        Command::Tree(args) if args.from_config => plan(args),
        Command::Tree(args) => block_on(tree(args)),
        Command::Children { path, list } => block_on(children(path, list)),
        Command::Restarts(list) => block_on(restarts(list)),
        Command::Crash(args) => block_on(steering::crash(args)),
        Command::Kill(child) => block_on(steer(Steering::Kill, child)),
        Command::StopChild(child) => block_on(steer(Steering::StopChild, child)),
        Command::StartChild(child) => block_on(steer(Steering::StartChild, child)),
        Command::Stop { node } => block_on(stop(node)),
        Command::Reload { node } => block_on(reload(node)),
        Command::Passwd(args) => passwd::passwd(&args),
        Command::Cookie(command) => block_on(cookie::run(command)),
        Command::Store(command) => block_on(store::run(command)),
        Command::Pub(args) => block_on(async move { mqtt::publish(&args).await }),
        Command::Sub(args) => block_on(async move { mqtt::subscribe(&args).await }),
    }
}

/// Runs one command on this thread.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::command(format!("the system gave no event queue: {error}")))?;
    let done = runtime.block_on(command);
    // A read of standard input that is still waiting must not keep the command from ending.
    runtime.shutdown_background();
    done
}

/// Prints on standard output. Nobody reads it any more (`… | head`)? Then there is nothing to do.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What an operator says about where nodes are found: the flags, else the node's configuration, else the
/// environment and the defaults, as for the node itself.
pub(super) struct Whereabouts {
    pub(super) cookie: CookieSource,
    pub(super) registry: Endpoint,
    /// The node of the configuration.
    node: Option<NodeName>,
}

impl Whereabouts {
    pub(super) fn of(args: &CookieArgs) -> Result<Self, Failure> {
        let environment = Environment::of_process();
        let mut registry =
            Endpoint::from_environment(None).map_err(|error| Failure::usage(error.to_string()))?;
        let Some(file) = &args.config else {
            if let Some(port) = args.registry_port {
                registry.contact.set_port(port);
            }
            let cookie = environment.cookie_source(args.cookie_file.clone(), None)?;
            return Ok(Self {
                cookie,
                registry,
                node: None,
            });
        };
        let flags = Flags {
            config: Some(file.clone()),
            cookie_file: args.cookie_file.clone(),
            registry_port: args.registry_port,
            ..Flags::default()
        };
        let config = Config::load(&flags, &environment)?;
        registry.contact.set_port(config.registry_port);
        Ok(Self {
            cookie: config.cookie,
            registry,
            node: Some(config.name),
        })
    }

    /// The cookie of this operator; a command never makes one.
    pub(super) fn secret(&self) -> Result<Cookie, Failure> {
        self.cookie
            .load()
            .map_err(|error| Failure::command(error.to_string()))
    }

    fn operator(&self) -> Result<Operator, Failure> {
        Ok(Operator::new(self.secret()?, self.registry))
    }
}

pub(super) fn node_name(text: &str) -> Result<NodeName, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("{error}")))
}

/// A node that was found, and who asks it.
pub(super) struct Found {
    operator: Operator,
    node: Registration,
}

impl Found {
    /// The node that the arguments name, or the only one of this host but `except`.
    pub(super) async fn find(args: &NodeArgs, except: Option<&NodeName>) -> Result<Self, Failure> {
        let named = args.node.as_deref().map(node_name).transpose()?;
        let whereabouts = Whereabouts::of(&args.cookie)?;
        let operator = whereabouts.operator()?;
        let named = named.or(whereabouts.node);
        let node = operator.find(named.as_ref(), except).await?;
        Ok(Self { operator, node })
    }

    /// Another node, found in the same way.
    pub(super) async fn other(&self, name: &NodeName) -> Result<Self, Failure> {
        let node = self.operator.find(Some(name), None).await?;
        let operator = self.operator.clone();
        Ok(Self { operator, node })
    }

    /// Asks for a list and gathers its chunks.
    pub(super) async fn list<T>(
        &self,
        request: Request,
        take: impl Fn(Reply) -> Option<Vec<T>>,
    ) -> Result<Vec<T>, Failure> {
        let mut entries = Vec::new();
        self.operator
            .ask(&self.node, &request, |reply| {
                entries.extend(take(reply).unwrap_or_default())
            })
            .await?;
        Ok(entries)
    }

    /// Asks, and hands on every reply but the last.
    pub(super) async fn ask(&self, request: Request, take: impl FnMut(Reply)) -> Result<(), Failure> {
        Ok(self.operator.ask(&self.node, &request, take).await?)
    }

    /// What the registry knows of the node.
    pub(super) fn registration(&self) -> &Registration {
        &self.node
    }

    /// The node's name.
    pub(super) fn name(&self) -> &NodeName {
        &self.node.node.name
    }

    /// Asks for one thing.
    pub(super) async fn one<T>(
        &self,
        request: Request,
        take: impl Fn(Reply) -> Option<T>,
    ) -> Result<T, Failure> {
        let mut found = None;
        self.operator
            .ask(&self.node, &request, |reply| found = take(reply))
            .await?;
        found.ok_or_else(|| {
            Failure::command(format!(
                "node {} did not answer what was asked: see its log",
                self.node.node.name
            ))
        })
    }

    /// The supervision tree, parents before children; of a large one, without `all`, a summary.
    pub(super) async fn tree(&self, all: bool) -> Result<Vec<TreeEntry>, Failure> {
        let request = if all { Request::Tree } else { Request::TreeSummary };
        self.entries(request).await
    }

    async fn entries(&self, request: Request) -> Result<Vec<TreeEntry>, Failure> {
        self.list(request, |reply| match reply {
            Reply::Tree(chunk) => Some(chunk),
            _ => None,
        })
        .await
    }
}

/// Prints a list as a table or as JSON.
pub(super) fn print<T: serde::Serialize>(json: bool, entries: &[T], text: impl FnOnce(&[T]) -> String) {
    say(&if json {
        show::as_json(&entries)
    } else {
        text(entries)
    });
}

async fn names(cookie: CookieArgs, json: bool) -> Result<(), Failure> {
    let list = Whereabouts::of(&cookie)?.operator()?.names().await?;
    say(&if json {
        show::names_json(&list)
    } else {
        render::render_names(&list)
    });
    Ok(())
}

async fn status(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let status = found.one(Request::Status, |reply| match reply {
        Reply::Status(status) => Some(status),
        _ => None,
    });
    let status = status.await?;
    say(&if args.output.json {
        show::as_json(&status)
    } else {
        show::status(&status)
    });
    Ok(())
}

async fn routes(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let routes = found.list(Request::Routes, |reply| match reply {
        Reply::Routes(chunk) => Some(chunk),
        _ => None,
    });
    print(args.output.json, &routes.await?, show::routes);
    Ok(())
}

async fn listeners(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let listeners = found.list(Request::Listeners, |reply| match reply {
        Reply::Listeners(chunk) => Some(chunk),
        _ => None,
    });
    print(args.output.json, &listeners.await?, show::listeners);
    Ok(())
}

async fn metrics(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let mut text = String::new();
    let told = found.ask(Request::Metrics, |reply| {
        if let Reply::Text(part) = reply {
            text.push_str(&part);
        }
    });
    told.await?;
    say(&if args.output.json {
        show::metrics_json(&text)
    } else {
        show::metrics(&text)
    });
    Ok(())
}

async fn token(url: bool, args: NodeArgs) -> Result<(), Failure> {
    let found = Found::find(&args, None).await?;
    let access = found.one(Request::Access, |reply| match reply {
        Reply::Access(access) => Some(access),
        _ => None,
    });
    let Access {
        url: Some(place),
        token: Some(token),
    } = access.await?
    else {
        return Err(Failure::command(format!(
            "the HTTP API of {} is off: start it with --admin 127.0.0.1:18083",
            found.name()
        )));
    };
    say(&if url {
        format!("{place}/#token={token}\n")
    } else {
        format!("{token}\n")
    });
    Ok(())
}

async fn restarts(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let restarts = found.list(Request::Restarts, |reply| match reply {
        Reply::Restarts(chunk) => Some(chunk),
        _ => None,
    });
    print(args.output.json, &restarts.await?, show::restarts);
    Ok(())
}

async fn tree(args: TreeArgs) -> Result<(), Failure> {
    if args.watch {
        return watch::tree(&args.list.node, args.all).await;
    }
    let found = Found::find(&args.list.node, None).await?;
    // JSON is for programs, which get everything.
    let whole = args.all || args.list.output.json;
    print(args.list.output.json, &found.tree(whole).await?, |entries| {
        drawing::tree(entries, args.all)
    });
    Ok(())
}

/// Draws what `start` would build. Nothing is opened, and no node is asked.
fn plan(args: TreeArgs) -> Result<(), Failure> {
    let cookie = args.list.node.cookie;
    let flags = Flags {
        config: cookie.config,
        cookie_file: cookie.cookie_file,
        registry_port: cookie.registry_port,
        ..Flags::default()
    };
    let config = Config::load(&flags, &Environment::of_process())?;
    let outline = crate::node::outline(config).map_err(Failure::command)?;
    let entries: Vec<TreeEntry> = outline.iter().map(outline_entry).collect();
    print(args.list.output.json, &entries, |entries| {
        drawing::plan(entries, args.all)
    });
    Ok(())
}

async fn children(path: String, args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let mut children = found.entries(Request::Children { path }).await?;
    if children.is_empty() {
        return Err(Failure::command(
            "the node did not answer what was asked: see its log".into(),
        ));
    }
    let entry = children.remove(0);
    let path = entry.path;
    if entry.kind == "worker" {
        return Err(Failure::command(format!(
            "{path} is a worker and has no children"
        )));
    }
    print(args.output.json, &children, |children| match children {
        [] => format!("{path} has no children\n"),
        children => drawing::list(children),
    });
    Ok(())
}

async fn stop(args: NodeArgs) -> Result<(), Failure> {
    let found = Found::find(&args, None).await?;
    found.operator.ask(&found.node, &Request::Stop, |_| ()).await?;
    say(&format!("{} is stopping\n", found.node.node.name));
    Ok(())
}

/// Prints what was read; what was not is the failure, one sentence for each.
async fn reload(args: NodeArgs) -> Result<(), Failure> {
    let found = Found::find(&args, None).await?;
    let said = found.one(Request::Reload, |reply| match reply {
        Reply::Reloaded(said) => Some(said),
        _ => None,
    });
    let said = said.await?;
    if said.is_empty() {
        say(&format!("{} has no file to read again\n", found.node.node.name));
    }
    let mut wrong = Vec::new();
    for (good, sentence) in said {
        if good {
            say(&format!("{sentence}\n"));
        } else {
            wrong.push(sentence);
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::command(wrong.join("\nermine: ")))
}
