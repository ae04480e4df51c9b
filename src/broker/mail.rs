//! What arbiters send each other, and the boxes it lies in on its way.
//!
//! Across arbiters only the mailmen talk: what an arbiter has for another is gathered for one tick and
//! laid into the other's [`PostBox`] as one bundle; the actix message only rings the bell. The boxes
//! belong to the tables, so a mailman that crashes loses neither what it had gathered nor what it had
//! not yet opened.

use std::sync::{Arc, Mutex, PoisonError};

use bytestring::ByteString;

use super::desk::Turn;
use super::keeping::Kept;
use super::storage::Publication;
use crate::mqtt::message::Message;
use crate::mqtt::packet::SubscriptionOptions;

/// Bytes that a waiting message costs beside its own: the shared value, and its place in a desk, the mail or
/// an inbox. Without it a flood of short messages would weigh a third of what it takes.
pub(super) const MESSAGE_OVERHEAD: usize = size_of::<Message>() + 64;

/// Names one subscribed filter of this node, `$share/…` included. Never used twice, so a parcel for a
/// filter that is gone cannot reach another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FilterId(pub u64);

/// Filters that all match one topic and all have subscribers on one arbiter. A message for them travels once,
/// so that a session with several of them gets one copy `[MQTT-3.3.4-2]`.
pub type Joint = Arc<Vec<FilterId>>;

/// For whom of a filter's subscribers on one arbiter a message is.
#[derive(Clone, Debug)]
pub enum To {
    /// For all.
    All,
    /// For all, and for those of the other filters.
    Joint(Joint),
    /// For one member of the shared group.
    Member(Turn),
}

/// Names the mailbox of one session in the office of its arbiter. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortId {
    /// Index of the arbiter.
    pub arbiter: u16,
    /// Counts the ports of that arbiter.
    pub serial: u64,
}

/// A share in one publication: whoever holds it completes it once it has dispatched the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The publisher's arbiter.
    pub(super) arbiter: u16,
    /// Where that arbiter counts the shares.
    pub(super) slot: u32,
}

/// Names one filter of one request to the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// The request.
    pub request: u64,
    /// Position of the filter in it.
    pub position: u32,
}

/// What the router has a Topic do to its rows.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Write (or replace) the row of a session.
    Join {
        /// Whose row.
        port: u64,
        /// Options of the subscription.
        options: SubscriptionOptions,
        /// Its subscription identifier.
        subscription_identifier: Option<u32>,
        /// What to answer to.
        ticket: Ticket,
    },
    /// Remove the row of a session.
    Leave {
        /// Whose row.
        port: u64,
        /// What to answer to.
        ticket: Ticket,
    },
    /// Tell the router how things are, and that the answer is to the question with this number.
    Census(u64),
}

impl Errand {
    /// What is answered to, if anything.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Join { ticket, .. } | Self::Leave { ticket, .. } => Some(*ticket),
            Self::Census(_) => None,
        }
    }
}

/// One thing that an arbiter has for another.
#[derive(Debug)]
pub enum Parcel {
    /// A message for the filter's subscribers on the receiving arbiter.
    Message {
        /// The filter.
        filter: FilterId,
        /// Which of its subscribers.
        to: To,
        /// The message.
        message: Arc<Message>,
        /// The share in its publication, for QoS 1 and 2.
        receipt: Option<Receipt>,
    },
    /// An errand from the router for a filter's rows on the receiving arbiter.
    Errand(Box<(FilterId, ByteString, Errand)>),
    /// A share of a publication of the receiving arbiter is complete.
    Taken(Receipt, Kept),
    /// A QoS 2 publication that was noted for sessions of the receiving arbiter is safe, or was refused.
    Finished {
        /// Which.
        publication: Publication,
        /// Whether it may be delivered.
        safe: bool,
    },
    /// The filter is paused on the sending arbiter: who publishes to it stops reading.
    Pause(FilterId),
    /// It is not paused any more.
    Resume(FilterId),
    /// The filter's Topic on the receiving arbiter has ended for good: its desk is closed.
    Vacated(FilterId),
    /// So many bytes of the receiving arbiter's mail have been dispatched.
    Credit(usize),
}

/// What one arbiter had for another in one tick.
#[derive(Debug)]
pub struct Bundle {
    /// Index of the sending arbiter.
    pub from: u16,
    /// In the order of sending.
    pub parcels: Vec<Parcel>,
}

/// The bundles that lie before one arbiter's door. Bounded by the senders' byte credit
/// ([`crate::limits::MAIL_CREDIT_BYTES`]).
#[derive(Debug, Default)]
pub struct PostBox(Mutex<Vec<Bundle>>);

impl PostBox {
    /// Lays a bundle in; true when the box was empty, so the bell must be rung.
    pub(super) fn put(&self, bundle: Bundle) -> bool {
        let mut bundles = self.lock();
        bundles.push(bundle);
        bundles.len() == 1
    }

    /// Messages that lie in it.
    pub(super) fn messages_len(&self) -> usize {
        let bundles = self.lock();
        let parcels = bundles.iter().flat_map(|bundle| &bundle.parcels);
        parcels
            .filter(|parcel| matches!(parcel, Parcel::Message { .. }))
            .count()
    }

    /// Takes all bundles out, oldest first.
    pub(super) fn take(&self) -> Vec<Bundle> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Bundle>> {
        // A push or a swap is all that happens under this lock: a poisoned one holds a whole list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
