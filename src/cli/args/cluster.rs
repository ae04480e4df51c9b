//! The words of `ermine cluster`.

use clap::{Args, Subcommand};

use super::ListArgs;

/// `ermine cluster …`
#[derive(Subcommand, Debug)]
pub(in crate::cli) enum ClusterCommand {
    /// Join another node, and thereby all that it is joined with
    Join {
        /// The other node
        #[arg(value_name = "NAME@HOST")]
        other: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show the members: since when, state of the link, routes held of each, and who left
    Status(ListArgs),
    /// Send the clients elsewhere, then leave the cluster; the node goes on alone
    Leave(LeaveArgs),
    /// Force a member out, dead or not: the others forget it, and it is told so when it returns
    ForceLeave {
        /// The member
        #[arg(value_name = "NAME@HOST")]
        member: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Find out whether another node could be joined, and if not why; changes nothing
    Check {
        /// The other node
        #[arg(value_name = "NAME@HOST")]
        other: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Print the commands by which another host joins this node
    Invite(ListArgs),
}

/// `ermine cluster leave`
#[derive(Args, Debug)]
pub(in crate::cli) struct LeaveArgs {
    /// Clients that are sent away in a second
    #[arg(long, value_name = "N", default_value_t = 500,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(in crate::cli) rate: u32,
    /// Where MQTT 5.0 clients are sent, for example mqtt2.example.org:1883 (reason 0x9C)
    #[arg(long, value_name = "SERVER")]
    pub(in crate::cli) server: Option<String>,
    /// They are sent there for good (reason 0x9D)
    #[arg(long, requires = "server")]
    pub(in crate::cli) moved: bool,
    /// Stop the node when it has left
    #[arg(long, conflicts_with = "keep_clients")]
    pub(in crate::cli) stop: bool,
    /// Leave at once, and keep the clients
    #[arg(long, conflicts_with_all = ["server", "rate"])]
    pub(in crate::cli) keep_clients: bool,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs,
}
