use serde::{Deserialize, Serialize};

/// What is to be done with the store of a node that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreOrder {
    /// Count what is in it.
    Stats,
    /// Copy it.
    Backup {
        /// Into this directory of the node's host; a whole path.
        to: String,
    },
}
