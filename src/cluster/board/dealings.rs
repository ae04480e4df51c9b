//! How much this node has to do with each other one: what audits are told.

use std::sync::Arc;

use super::{Board, Inner, Kept};
use crate::broker::links::Outbox;
use crate::node_name::NodeId;

/// Messages between this node and one life of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dealings {
    /// The latest life of the other node that is known.
    pub node: NodeId,
    /// Messages that wait for it.
    pub waiting: u64,
    /// Messages that were sent to it and that it has not acknowledged.
    pub on_wire: u64,
    /// Messages that it has acknowledged.
    pub acknowledged: u64,
    /// Messages that came from it.
    pub came: u64,
    /// The same of earlier lives of it: acknowledged, and came.
    pub before: (u64, u64),
}

impl Kept {
    /// Of another life of the same node.
    pub(super) fn reborn(&self, node: &NodeId) -> Self {
        let (acknowledged, came) = self.before;
        Self {
            before: (acknowledged + self.acknowledged, came + self.came),
            ..Self::of(node)
        }
    }
}

impl Inner {
    /// Where messages wait for a node: the link's outbox, and that of a lane that was put aside.
    fn outboxes(&self, kept: &Kept) -> Vec<Arc<Outbox>> {
        let row = self.rows.get(&kept.node.name).and_then(|row| row.outbox.clone());
        let aside = kept.lane.as_ref().map(|(lane, _)| lane.outbox().clone());
        match (row, aside) {
            (Some(row), Some(aside)) if Arc::ptr_eq(&row, &aside) => vec![row],
            (row, aside) => row.into_iter().chain(aside).collect(),
        }
    }
}

impl Board {
    /// With every node that there was ever a link to.
    #[must_use]
    pub fn dealings(&self) -> Vec<Dealings> {
        let inner = self.lock();
        let each = inner.kept.values().map(|kept| {
            let outboxes = inner.outboxes(kept);
            let sum = |count: fn(&Outbox) -> usize| outboxes.iter().map(|outbox| count(outbox) as u64).sum();
            Dealings {
                node: kept.node.clone(),
                waiting: sum(Outbox::len),
                on_wire: sum(Outbox::on_wire),
                acknowledged: kept.acknowledged,
                came: kept.came,
                before: kept.before,
            }
        });
        each.collect()
    }

    /// A link is opened: its messages lie here.
    pub fn link_to(&self, node: &NodeId) {
        self.kept_of(node, |_| ());
    }

    /// That life of a node has acknowledged so many messages more.
    pub fn acknowledged(&self, node: &NodeId, messages: u64) {
        if messages > 0 {
            self.kept_of(node, |kept| kept.acknowledged += messages);
        }
    }
}
