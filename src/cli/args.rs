//! The words of the command line, and nothing that acts on them.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::Flags;

mod cluster;
mod cookie;
mod store;

pub(super) use cluster::{ClusterCommand, LeaveArgs};
pub(super) use cookie::{CookieCommand, RotateArgs};
pub(super) use store::{StoreArgs, StoreCommand};

/// A clustered MQTT broker that works the way Erlang/OTP works.
#[derive(Parser, Debug)]
#[command(
    name = "ermine",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What is to be done.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Run a node until Ctrl-C
    Start(StartArgs),
    /// Check a configuration file without starting
    CheckConfig {
        /// The TOML file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the nodes that run on this host, as `epmd -names` does
    Names {
        #[command(flatten)]
        cookie: CookieArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a node: version, addresses, clients, routes
    Status(ListArgs),
    /// Join nodes, leave them, see who is in
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Show the route table: topic filter, and the nodes that have subscribers
    Routes(ListArgs),
    /// List the listeners: connections now and at most, refused, and the limits of their clients
    Listeners(ListArgs),
    /// List the sessions and their clients, show one, or disconnect one
    Clients(ClientsArgs),
    /// List the subscriptions of all sessions of a node
    Subscriptions(ListArgs),
    /// Show the figures of a node, as Prometheus reads them at /metrics
    Metrics(ListArgs),
    /// Ask all nodes of the cluster whether every message is accounted for
    Audit(AuditArgs),
    /// Print the token of the node's HTTP API
    Token {
        /// Print a link to the observer page that brings the token along
        #[arg(long)]
        url: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the supervision tree
    Tree(TreeArgs),
    /// Show the children of one supervisor
    Children {
        /// Path in the tree, for example root/core; a part that names one supervisor is enough
        #[arg(value_name = "PATH")]
        path: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show what was restarted, when and why
    Restarts(ListArgs),
    /// Make one actor panic, or get stuck, on a node started with --allow-crash
    Crash(CrashArgs),
    /// Kill one actor: it ends at once, without a word, on a node started with --allow-crash
    Kill(ChildArgs),
    /// Stop one actor, or a supervisor and all below it, in good order; it is not started again by itself
    StopChild(ChildArgs),
    /// Start what was stopped with stop-child, or has ended
    StartChild(ChildArgs),
    /// Stop a node in good order, as Ctrl-C does
    Stop {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Let a node read its password file, its ACL file and its certificates again, as SIGHUP does
    Reload {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Set the password of a user in a password file, which is made if it is missing
    Passwd(PasswdArgs),
    /// About the secret that makes nodes a cluster
    #[command(subcommand)]
    Cookie(CookieCommand),
    /// Look through what a node has stored, copy it, bring a copy back
    #[command(subcommand)]
    Store(StoreCommand),
    /// Publish messages, in the manner of mosquitto_pub
    #[command(disable_help_flag = true)]
    Pub(PubArgs),
    /// Subscribe and print what comes, in the manner of mosquitto_sub
    #[command(disable_help_flag = true)]
    Sub(SubArgs),
}

/// `ermine audit`
#[derive(Args, Debug)]
pub(super) struct AuditArgs {
    /// Ask again for so long while a sum is not right: messages may be on their way
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(..=3600))]
    pub(super) within: u16,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

/// `ermine passwd`
#[derive(Args, Debug)]
pub(super) struct PasswdArgs {
    /// The password file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The user
    #[arg(value_name = "USER")]
    pub(super) user: String,
    /// Read the password from standard input, and ask nothing
    #[arg(short = 'b', long)]
    pub(super) batch: bool,
    /// Remove the user
    #[arg(short = 'D', long, conflicts_with = "batch")]
    pub(super) delete: bool,
    /// Leave out what SCRAM-SHA-256 needs: only passwords in CONNECT are then checked for this user
    #[arg(long)]
    pub(super) no_scram: bool,
}

/// `ermine crash`
#[derive(Args, Debug)]
pub(super) struct CrashArgs {
    /// Let it hold its thread for so long instead, as a handler that does not return would
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u8).range(1..=60))]
    pub(super) stuck: Option<u8>,
    /// Let the router lose a route of another node instead, as a bug would: PATH is that node's name
    #[arg(long, conflicts_with = "stuck")]
    pub(super) lose_route: bool,
    /// Path in the tree, for example root/core/router; a part that names one actor is enough
    #[arg(value_name = "PATH")]
    pub(super) path: String,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// Which process of which node.
#[derive(Args, Debug)]
pub(super) struct ChildArgs {
    /// Path in the tree, for example root/core/router; a part that names one process is enough
    #[arg(value_name = "PATH")]
    pub(super) path: String,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// `ermine clients`, or one of its commands.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ClientsArgs {
    #[command(subcommand)]
    pub(super) command: Option<ClientsCommand>,
    /// List so many at most [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// List those behind this client id
    #[arg(long, value_name = "ID")]
    pub(super) after: Option<String>,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

/// `ermine clients …`
#[derive(Subcommand, Debug)]
pub(super) enum ClientsCommand {
    /// Show one client: its session and what it has subscribed to
    Show {
        /// Client id
        #[arg(value_name = "ID")]
        client_id: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// End the connection of one client; its session lives on if it is persistent
    Kick {
        /// Client id
        #[arg(value_name = "ID")]
        client_id: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// The flags of `ermine start` and of `ermine tree --from-config`.
#[derive(Args, Debug, Default)]
pub(super) struct StartArgs {
    /// Name of this node [default: ermine@127.0.0.1]
    #[arg(long, value_name = "NAME@HOST")]
    name: Option<String>,
    /// Address for MQTT clients; may be given several times [default: 127.0.0.1:1883]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Folder for what outlives a run [default: ~/.ermine/NAME@HOST]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with the cookie; made if it is missing [default: ~/.ermine.cookie]
    #[arg(long, value_name = "FILE")]
    cookie_file: Option<PathBuf>,
    /// Configuration in TOML; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let `ermine crash` and `ermine kill` end actors of this node
    #[arg(long)]
    allow_crash: bool,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Port for other nodes and for operators [default: chosen by the system]
    #[arg(long, value_name = "PORT")]
    dist_port: Option<u16>,
    /// Threads that serve clients [default: one per core]
    #[arg(long, value_name = "N")]
    worker_threads: Option<usize>,
    /// Address for metrics, the HTTP API and the observer page [default: off]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Port of the registry of this host [default: 4366, unless ERMINE_REGISTRY_PORT is set]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    registry_port: Option<u16>,
    /// Let anonymous clients in from other hosts too
    #[arg(long)]
    allow_anonymous: bool,
}

impl From<StartArgs> for Flags {
    fn from(args: StartArgs) -> Self {
        Self {
            name: args.name,
            listen: args.listen,
            data_dir: args.data_dir,
            cookie_file: args.cookie_file,
            config: args.config,
            allow_crash: args.allow_crash,
            log_format: args.log_format,
            log_level: args.log_level,
            dist_port: args.dist_port,
            worker_threads: args.worker_threads,
            admin: args.admin,
            registry_port: args.registry_port,
            allow_anonymous: args.allow_anonymous,
        }
    }
}

/// Where the cookie is.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct CookieArgs {
    /// File with the cookie [default: ~/.ermine.cookie, unless ERMINE_COOKIE is set]
    #[arg(long, value_name = "FILE")]
    pub(super) cookie_file: Option<PathBuf>,
    /// Configuration of the node: its name, cookie and registry port are taken from there
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Port of the registry [default: 4366, unless --config or ERMINE_REGISTRY_PORT says otherwise]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) registry_port: Option<u16>,
}

/// Which node is asked.
#[derive(Args, Debug, Default)]
pub(super) struct NodeArgs {
    /// The node to ask; needed only where several run on this host
    #[arg(long, value_name = "NAME@HOST")]
    pub(super) node: Option<String>,
    #[command(flatten)]
    pub(super) cookie: CookieArgs,
}

/// How a list is printed.
#[derive(Args, Debug, Default)]
pub(super) struct OutputArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

/// Which node is asked for a list, and how the list is printed.
#[derive(Args, Debug, Default)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// `ermine tree`
#[derive(Args, Debug, Default)]
pub(super) struct TreeArgs {
    /// Draw again every second, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    pub(super) watch: bool,
    /// Show every child of every supervisor, however many
    #[arg(long)]
    pub(super) all: bool,
    /// Print the tree that `ermine start` would build, without asking or starting a node
    #[arg(long, conflicts_with_all = ["watch", "node"])]
    pub(super) from_config: bool,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

/// Where the MQTT broker is and how it is spoken to. `-h` is the host, as mosquitto's clients have it,
/// so help is `--help` alone.
#[derive(Args, Debug)]
pub(super) struct BrokerArgs {
    /// Host of the broker
    #[arg(short = 'h', long, value_name = "HOST", default_value = "127.0.0.1")]
    pub(super) host: String,
    /// Port of the broker
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 1883)]
    pub(super) port: u16,
    /// Client id [default: chosen by the broker]
    #[arg(short = 'i', long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// User name
    #[arg(short = 'u', long, value_name = "NAME")]
    pub(super) username: Option<String>,
    /// File whose first line is the password (never on the command line, where others see it)
    #[arg(long, value_name = "FILE", requires = "username")]
    pub(super) password_file: Option<PathBuf>,
    /// Quality of service: 0, 1 or 2
    #[arg(short = 'q', long, value_name = "QOS", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// Keep-alive in seconds; 0 is none
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) keep_alive: u16,
    /// MQTT version: 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1")]
    pub(super) mqtt_version: String,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// `ermine pub`
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("payload").required(true)
    .args(["message", "lines", "stdin", "file", "null"]))]
pub(super) struct PubArgs {
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    /// Topic name
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub(super) topic: String,
    /// Payload
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub(super) message: Option<String>,
    /// One message for each line of standard input
    #[arg(short = 'l', long = "stdin-line")]
    pub(super) lines: bool,
    /// One message of all that comes from standard input
    #[arg(short = 's', long = "stdin-file")]
    pub(super) stdin: bool,
    /// Payload from a file
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// An empty payload
    #[arg(short = 'n', long = "null-message")]
    pub(super) null: bool,
    /// Let the broker retain the message
    #[arg(short = 'r', long)]
    pub(super) retain: bool,
}

/// `ermine sub`
#[derive(Args, Debug)]
pub(super) struct SubArgs {
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    /// Topic filter; may be given several times
    #[arg(short = 't', long, value_name = "FILTER", required = true)]
    pub(super) topic: Vec<String>,
    /// Print the topic before the payload
    #[arg(short = 'v', long)]
    pub(super) verbose: bool,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// End after so many seconds; an error if -C asked for more messages than came
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: Option<u64>,
    /// Keep the session when the connection ends (needs -i)
    #[arg(short = 'c', long = "disable-clean-session", requires = "id")]
    pub(super) keep_session: bool,
    /// Do not print retained messages
    #[arg(short = 'R', long)]
    pub(super) no_retained: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dash_h_is_the_host_of_pub_and_sub() {
        let cli = Cli::try_parse_from(["ermine", "pub", "-h", "h", "-p", "7", "-t", "t", "-m", "x"]).unwrap();
        let Command::Pub(args) = cli.command else {
            panic!("not a publication")
        };
        assert_eq!((args.broker.host.as_str(), args.broker.port), ("h", 7));
        let help = Cli::try_parse_from(["ermine", "sub", "--help"]).unwrap_err();
        assert_eq!(help.kind(), clap::error::ErrorKind::DisplayHelp);
    }

    #[test]
    fn a_publication_has_exactly_one_payload() {
        let parse = |more: &[&str]| {
            let words = ["ermine", "pub", "-t", "t"].iter().chain(more).copied();
            Cli::try_parse_from(words.collect::<Vec<_>>())
        };
        assert!(parse(&[]).is_err());
        assert!(parse(&["-m", "x", "-n"]).is_err());
        assert!(parse(&["-l"]).is_ok());
        assert!(parse(&["-m", "x", "-q", "3"]).is_err());
    }
}
