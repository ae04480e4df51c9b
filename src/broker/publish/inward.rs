//! What comes from other nodes.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use tokio::sync::oneshot;

use super::{Inbound, Whom};
use crate::broker::keeping::Kept;
use crate::broker::mail::Receipt;
use crate::broker::office::Office;
use crate::mqtt::packet::QoS;

/// Dispatches what another node forwarded: to subscribers of this node only, so nothing goes in circles
/// and of shared groups to those that it names. Call it on an arbiter that has an office, and await [`room`]
/// before the next batch. What was retained there is retained here before any subscriber has it.
///
/// Where sessions outlast the process, and the batch has anything of QoS 1 or 2, the answer comes when it is
/// safe what they were promised; it does not come while the store takes nothing.
pub fn dispatch(messages: Vec<Inbound>) -> Option<oneshot::Receiver<()>> {
    let office = Office::here()?;
    let counters = office.counters();
    let promises = |inbound: &Inbound| inbound.message.qos > QoS::AtMostOnce;
    let waits = office.tables().storage.is_some() && messages.iter().any(promises);
    let exactly_once = messages
        .iter()
        .any(|inbound| inbound.message.qos == QoS::ExactlyOnce);
    let (receipt, safe) = waits.then(|| office.open_batch(exactly_once)).unzip();
    for inbound in messages {
        let receipt = receipt.filter(|_| promises(&inbound));
        office.retain_replica(&inbound, receipt);
        let Inbound { message, loans, .. } = inbound;
        counters.dispatched.one();
        let Ok(found) = office.find(&message.topic) else {
            counters.dropped_no_table.one();
            continue;
        };
        let mut holds = office.lane_holds.take();
        if !loans.as_ref().is_some_and(|loans| loans.only) {
            office.hand_on(&found, Whom::Plain, &message, receipt, &mut holds);
        }
        for loan in loans.iter().flat_map(|loans| &loans.groups) {
            office.serve(&found, loan, &message, receipt, &mut holds);
        }
        office.lane_holds.replace(holds);
        counters.routed.one();
    }
    if let Some(receipt) = receipt {
        office.complete(receipt, Kept::Nothing, office.me() as u16);
    }
    safe
}

/// Waits until this arbiter's desks and mail have room for another [`dispatch`].
pub async fn room() {
    poll_fn(|cx| match Office::here() {
        Some(office) if office.is_lane_held(cx.waker()) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}

impl Office {
    fn open_batch(&self, exactly_once: bool) -> (Receipt, oneshot::Receiver<()>) {
        let (link, safe) = oneshot::channel();
        let slot = self.receipts.borrow_mut().open_batch(link, exactly_once);
        let receipt = Receipt {
            arbiter: self.me() as u16,
            slot,
        };
        (receipt, safe)
    }

    fn is_lane_held(&self, waker: &Waker) -> bool {
        let mut holds = self.lane_holds.take();
        // Every link's reader asks through these holds, each with a waker of its own.
        holds.waits_in = 0;
        let held = holds.is_held(self, waker);
        self.lane_holds.replace(holds);
        held
    }
}
