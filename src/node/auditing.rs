//! What the rooms of a node tell an audit.

use std::time::Duration;

use tokio::time::timeout;

use super::surroundings::{Rooms, restarting};
use crate::admin::protocol::{AccountEntry, DealingsEntry, NodeAudit};
use crate::broker::accounts::{self, Account};
use crate::cluster::board::Dealings;

/// Longest wait for all arbiters; each answers between two messages.
const ARBITERS_WITHIN: Duration = Duration::from_secs(2);

impl Rooms {
    /// The node's books.
    pub(super) async fn books(&self) -> Result<NodeAudit, String> {
        let tables = self.0.tables();
        let tally = timeout(ARBITERS_WITHIN, accounts::tally(&tables)).await;
        let stuck = |_| {
            format!(
                "a thread did not answer within {} s: see the log for what holds it",
                ARBITERS_WITHIN.as_secs()
            )
        };
        let mut tally = tally.map_err(stuck)?.ok_or_else(|| restarting("mailman"))?;
        let wing = self.0.wing().ok_or_else(|| restarting("cluster"))?;
        let dealings = wing.board.dealings();
        tally.held.outboxes = dealings.iter().map(|dealings| dealings.waiting).sum();
        tally.held.on_wire = dealings.iter().map(|dealings| dealings.on_wire).sum();
        Ok(NodeAudit {
            node: tables.node.name.clone(),
            incarnation: tables.node.incarnation,
            accounts: tally.accounts().iter().map(account).collect(),
            dealings: dealings.into_iter().map(entry).collect(),
        })
    }
}

fn account(account: &Account) -> AccountEntry {
    let named = |entries: &[accounts::Entry]| {
        let named = entries.iter().map(|(name, count)| ((*name).to_owned(), *count));
        named.collect()
    };
    AccountEntry {
        account: account.name.into(),
        came: named(&account.came),
        went: named(&account.went),
        held: named(&account.held),
    }
}

fn entry(dealings: Dealings) -> DealingsEntry {
    DealingsEntry {
        node: dealings.node.name,
        incarnation: dealings.node.incarnation,
        acknowledged: dealings.acknowledged,
        came: dealings.came,
        acknowledged_before: dealings.before.0,
        came_before: dealings.before.1,
    }
}
