//! What a publication with the retain flag goes through beside the others.
//!
//! It travels to every other node in the same lane as all messages, once, whether it has subscribers there or
//! not: so over there too it is in the store before a subscriber has it, and a new subscription gets it live
//! or as retained and never both. Who publishes QoS 1 or 2 is answered when all nodes that stand have it.

use std::sync::{Arc, PoisonError};

use super::{Holds, Inbound, Link, Match, Office, Share};
use crate::broker::mail::Receipt;
use crate::broker::retainer::{Request, ask};
use crate::mqtt::message::Message;
use crate::routing::stamps::{HybridTime, Stamp, wall_us};

impl Match {
    /// Whether the message goes to that node on account of its subscribers.
    pub(super) fn has(&self, link: &Link) -> bool {
        self.links.iter().any(|known| known.node == link.node)
    }
}

impl Office {
    /// Asks the retainer. The share is complete when it has done so.
    pub(super) fn retain(&self, message: &Arc<Message>, stamp: Option<Stamp>, share: Option<Share>) {
        let message = message.clone();
        ask(
            self.tables(),
            Request::Retain {
                message,
                stamp,
                share,
            },
        );
    }

    /// Stamps a message, retains it here, and tells to whom else it goes.
    pub(super) fn retain_everywhere(
        &self,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) -> (HybridTime, Vec<Link>) {
        let tables = self.tables();
        let time = tables.clock.stamp(wall_us());
        let node = tables.node.name.clone();
        let share = receipt.map(|receipt| self.share(receipt));
        self.retain(message, Some(Stamp { time, node }), share);
        holds.retained = true;
        // A torn list of links is for the router, its writer, to escalate.
        let links = tables.links.read().unwrap_or_else(PoisonError::into_inner);
        (time, links.clone())
    }

    /// Retains what another node has retained. What is published here from now on is later.
    pub(super) fn retain_replica(&self, inbound: &Inbound, receipt: Option<Receipt>) {
        if let Some(stamp) = &inbound.retained {
            // A time that cannot be is complained of by the retainer.
            let _ = self.tables().clock.observe(stamp.time, wall_us());
            let share = receipt.map(|receipt| self.share(receipt));
            self.retain(&inbound.message, Some(stamp.clone()), share);
            let mut holds = self.lane_holds.borrow_mut();
            (holds.published, holds.retained) = (true, true);
        }
    }
}
