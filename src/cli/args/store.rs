//! The words of `ermine store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ListArgs;

/// `ermine store …`
#[derive(Subcommand, Debug)]
pub(in crate::cli) enum StoreCommand {
    /// Read every record of the store of a node that does not run, and say what is damaged
    Check(StoreArgs),
    /// Count what a store holds: sessions, messages, retained topics
    Stats(StoreArgs),
    /// Copy the store into a directory, also while its node runs
    Backup {
        /// The directory, on the host of the node; made if it is missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Put a backup in the place of the store of a node that does not run
    Restore {
        /// The directory of the backup
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Whose store is meant.
#[derive(Args, Debug)]
pub(in crate::cli) struct StoreArgs {
    /// The data directory of the node [default: that of --config, or ~/.ermine/NAME@HOST]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) list: ListArgs,
}
