//! The hot path: a message from its publisher to every desk and link that it matches.
//!
//! A publisher runs on one arbiter and hands on in order: to the desks of its own arbiter directly, to
//! those elsewhere through the mail, to other nodes through their links. Each of these keeps the order,
//! so messages of one publisher to one topic are never overtaken, whatever their QoS.
//!
//! A QoS 1 or 2 publication is taken when every desk that it matched has dispatched it: each holds one
//! share of its [`Receipt`], and the last one to come back tells the publisher's port.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Waker;

use ahash::AHashMap;
use bytestring::ByteString;
use smallvec::SmallVec;

use super::desk::Turn;
use super::keeping::Kept;
use super::links::{Inbound, Link, Outbound};
use super::loans::{Across, Loans};
use super::mail::{FilterId, Joint, Parcel, Receipt, To};
use super::office::Office;
use super::port::Port;
use super::tables::{Seats, Torn};
use crate::limits::MATCHED_TOPIC_BYTES_MAX;
use crate::mqtt::message::Message;
use crate::mqtt::packet::{PacketId, QoS};
use crate::mqtt::reason::ReasonCode;
use crate::routing;
use crate::routing::stamps::HybridTime;
use crate::session::event::{PublishOutcome, PublishToken};

mod across;
mod inward;
mod receipts;
mod retaining;

pub(super) use self::across::{Forwards, hand_over};
pub use self::across::{count_lost, give_again};
pub use self::inward::{dispatch, room};
use self::receipts::Complete;
pub(super) use self::receipts::Receipts;
pub use self::receipts::Share;

/// Topics whose matches an arbiter remembers; a fuller cache starts anew.
const MATCHES_MAX: usize = 4096;

/// Publishes a message of the broker itself (a will, `$SYS`) or of an operator: retained store, every
/// matching subscriber here and every matching node. Nobody is told when it has been taken.
///
/// # Errors
/// [`Torn`]: there is no whole route table, or no office on this arbiter; the message went nowhere.
pub fn publish(message: &Arc<Message>) -> Result<(), Torn> {
    let office = Office::here().ok_or(Torn)?;
    office.counters().injected.one();
    match office.publish(message, None, &mut Holds::default()) {
        Some(PublishOutcome::Refused(_)) => Err(Torn),
        _ => Ok(()),
    }
}

/// Publishes to the subscribers of this node only, and to its retained store: `$SYS`, which every node has
/// of its own.
pub fn publish_here(message: &Arc<Message>) {
    let Some(office) = Office::here() else { return };
    office.counters().injected.one();
    if message.retain {
        office.retain(message, None, None);
    }
    match office.find(&message.topic) {
        Ok(found) => {
            let mut holds = office.lane_holds.take();
            office.hand_on(&found, Whom::Everyone, message, None, &mut holds);
            office.lane_holds.replace(holds);
            // Whether anybody subscribes to it is nobody's concern.
            office.counters().routed.one();
        }
        Err(Torn) => office.counters().dropped_no_table.one(),
    }
}

/// Who is answered when a message has been taken.
pub(super) struct Publisher<'a> {
    pub(super) port: &'a Rc<Port>,
    pub(super) token: PublishToken,
    /// Of QoS 2: the packet identifier.
    pub(super) exchange: Option<PacketId>,
}

/// What a publisher waits for before it reads on.
#[derive(Default)]
pub(super) struct Holds {
    filters: SmallVec<[FilterId; 2]>,
    links: SmallVec<[Link; 1]>,
    /// Whether anything was published: only then a choked mail concerns this publisher.
    published: bool,
    /// Whether anything was to be retained: only then a full retainer does.
    retained: bool,
    /// The office's round of waiting in which the publisher has left its waker; 0 never.
    waits_in: u64,
}

impl Holds {
    fn add(&mut self, filter: FilterId) {
        if !self.filters.contains(&filter) {
            self.filters.push(filter);
        }
    }

    /// Whether the publisher must not read now; it is then woken when to look again.
    pub(super) fn is_held(&mut self, office: &Office, waker: &Waker) -> bool {
        if !self.published {
            return false;
        }
        self.filters.retain(|filter| office.is_paused(*filter));
        self.links.retain(|link| link.outbox.is_full());
        self.retained &= office.tables().for_retainer.is_full();
        let behind = office.tables().storage.as_ref();
        let behind = behind.is_some_and(|storage| storage.is_full());
        let held = !self.filters.is_empty()
            || !self.links.is_empty()
            || self.retained
            || behind
            || office.is_choked();
        if held {
            self.waits_in = office.wait(waker, self.waits_in);
        } else {
            self.published = false;
        }
        held
    }
}

/// Where a topic goes, as long as the version of the route table stands.
#[derive(Default)]
pub(super) struct Match {
    seats: Vec<Seats>,
    /// Arbiters on which several filters match; they are not among `seats` there.
    joints: Vec<(usize, Joint)>,
    /// The first have subscribers of plain filters, the others only members of groups.
    links: Vec<Link>,
    plain_links: usize,
    /// Shared groups with members on other nodes; they are not among `seats`.
    across: Vec<Across>,
}

/// That another node is to retain a message, and since when it holds.
#[derive(Clone, Copy)]
enum Keep {
    /// Beside dispatching it to its subscribers.
    Too(HybridTime),
    /// It has no subscribers.
    Only(HybridTime),
}

impl Keep {
    fn time(self) -> HybridTime {
        match self {
            Self::Too(time) | Self::Only(time) => time,
        }
    }
}

/// For whom of this node's subscribers a message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// For one member of each shared group that has members only here, too.
    Here,
    /// For one member of each shared group, too.
    Everyone,
    /// For none of a shared group.
    Plain,
}

impl Match {
    fn is_empty(&self) -> bool {
        self.seats.is_empty() && self.joints.is_empty() && self.links.is_empty()
    }
}

/// Takes out what is together on one arbiter. A shared group is always for itself: its members get what is
/// theirs whatever else they have subscribed to (MQTT 5.0 §4.8.2).
fn joined(mut seats: Vec<Seats>) -> (Vec<Seats>, Vec<(usize, Joint)>) {
    let (mut once, mut several) = (0, 0);
    for seats in seats.iter().filter(|seats| seats.share.is_none()) {
        several |= once & seats.arbiters;
        once |= seats.arbiters;
    }
    let mut joints = Vec::new();
    for arbiter in (0..u64::BITS as usize).filter(|arbiter| several >> arbiter & 1 == 1) {
        let together = seats
            .iter()
            .filter(|seats| seats.share.is_none() && seats.arbiters >> arbiter & 1 == 1);
        joints.push((arbiter, Arc::new(together.map(|seats| seats.filter).collect())));
    }
    for seats in seats.iter_mut().filter(|seats| seats.share.is_none()) {
        seats.arbiters &= !several;
    }
    seats.retain(|seats| seats.arbiters != 0);
    (seats, joints)
}

/// What an arbiter remembers of the route table.
#[derive(Default)]
pub(super) struct Matches {
    version: u64,
    topics: AHashMap<ByteString, Rc<Match>>,
    /// The topic before: streams repeat it.
    last: Option<(ByteString, Rc<Match>)>,
    found: routing::Match<Arc<[Seats]>>,
}

impl Office {
    /// Publishes for a session (or for nobody). The outcome is given at once when nothing is to be
    /// waited for, else it comes through the publisher's port.
    pub(super) fn publish(
        &self,
        message: &Arc<Message>,
        publisher: Option<Publisher<'_>>,
        holds: &mut Holds,
    ) -> Option<PublishOutcome> {
        let Ok(found) = self.find(&message.topic) else {
            self.counters().dropped_no_table.one();
            return Some(PublishOutcome::Refused(ReasonCode::ImplementationSpecificError));
        };
        holds.published = true;
        let stores = message.retain && self.tables().storage.is_some();
        let mut receipt = publisher
            .as_ref()
            .filter(|_| stores)
            .map(|publisher| self.open_receipt(publisher));
        let retained = message
            .retain
            .then(|| self.retain_everywhere(message, receipt, holds));
        let (retained, everywhere) = retained.unzip();
        let others = everywhere.iter().flatten().filter(|link| !found.has(link));
        if found.is_empty() && everywhere.as_ref().is_none_or(Vec::is_empty) {
            self.counters().unrouted.one();
            // Of what is retained somebody may still have to be waited for.
            let Some(receipt) = receipt else {
                // Those that it has may have been stopped just now.
                let closing = self.tables().closing.load(SeqCst);
                return (!closing).then_some(PublishOutcome::NoSubscribers);
            };
            self.receipts.borrow_mut().unrouted(receipt);
            self.complete(receipt, Kept::Nothing, self.me() as u16);
            return None;
        }
        if receipt.is_none() {
            receipt = publisher.map(|publisher| self.open_receipt(&publisher));
        }
        if found.across.is_empty() {
            for link in &found.links {
                self.forward(link, None, message, retained.map(Keep::Too), receipt, holds);
            }
        } else {
            self.publish_across(&found, message, retained, receipt, holds);
        }
        for link in others {
            self.forward(link, None, message, retained.map(Keep::Only), receipt, holds);
        }
        self.hand_on(&found, Whom::Here, message, receipt, holds);
        // Last: what a panic keeps from its end is counted by who published it.
        let outcome = if found.is_empty() {
            &self.counters().unrouted
        } else {
            &self.counters().routed
        };
        outcome.one();
        match receipt {
            // The publisher's own share: without it the first desk could complete what others still lack.
            Some(receipt) => {
                self.complete(receipt, Kept::Nothing, self.me() as u16);
                None
            }
            None => Some(PublishOutcome::Taken),
        }
    }

    /// Gives a message to every desk that it matches.
    fn hand_on(
        &self,
        found: &Match,
        whom: Whom,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) {
        for seats in &found.seats {
            if whom != Whom::Plain || seats.share.is_none() {
                self.hand_to_desks(seats, message, receipt, holds);
            }
        }
        if whom == Whom::Everyone {
            for seats in found.across.iter().filter_map(|across| across.own.as_ref()) {
                self.hand_to_desks(seats, message, receipt, holds);
            }
        }
        for (arbiter, joint) in &found.joints {
            holds.published = true;
            self.hand_to_desk(*arbiter, joint[0], To::Joint(joint.clone()), message, receipt);
            for filter in joint.iter().filter(|filter| self.is_paused(**filter)) {
                holds.add(*filter);
            }
        }
    }

    fn hand_to_desks(
        &self,
        seats: &Seats,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) {
        holds.published = true;
        let (mut arbiters, filter) = (seats.arbiters, seats.filter);
        if let Some(group) = &seats.share {
            arbiters = 0;
            match group.choose(message) {
                Some(member) => {
                    let turn = Turn {
                        nth: member.nth,
                        ..Turn::default()
                    };
                    self.hand_to_desk(member.arbiter, filter, To::Member(turn), message, receipt);
                }
                // The last one is just leaving.
                None => {
                    self.counters().topic_entries.one();
                    self.counters().dropped_no_member.one();
                }
            }
        }
        while arbiters != 0 {
            let arbiter = arbiters.trailing_zeros() as usize;
            arbiters &= arbiters - 1;
            self.hand_to_desk(arbiter, filter, To::All, message, receipt);
        }
        if self.is_paused(filter) {
            holds.add(filter);
        }
    }

    fn hand_to_desk(
        &self,
        arbiter: usize,
        filter: FilterId,
        to: To,
        message: &Arc<Message>,
        receipt: Option<Receipt>,
    ) {
        if let Some(receipt) = receipt {
            self.receipts.borrow_mut().add_share(receipt);
        }
        self.counters().topic_entries.one();
        self.send(
            arbiter,
            Parcel::Message {
                filter,
                to,
                message: message.clone(),
                receipt,
            },
        );
    }

    /// Where a topic goes: remembered, or looked up in the table.
    fn find(&self, topic: &ByteString) -> Result<Rc<Match>, Torn> {
        let mut matches = self.matches.borrow_mut();
        let version = self.tables().routes.version();
        if matches.version != version {
            matches.topics.clear();
            matches.last = None;
            matches.version = version;
        }
        if let Some((last, found)) = &matches.last
            && last == topic
        {
            return Ok(found.clone());
        }
        let known = matches.topics.get(topic).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let found = Rc::new(self.look_up(topic, &mut matches.found)?);
                if matches.topics.len() >= MATCHES_MAX {
                    matches.topics.clear();
                }
                if topic.len() <= MATCHED_TOPIC_BYTES_MAX {
                    // A copy of its own: the publisher's read buffer is not kept alive by a name.
                    matches.topics.insert(ByteString::from(&**topic), found.clone());
                }
                found
            }
        };
        matches.last = Some((topic.clone(), found.clone()));
        Ok(found)
    }

    fn look_up(&self, topic: &ByteString, found: &mut routing::Match<Arc<[Seats]>>) -> Result<Match, Torn> {
        let table = self.tables().routes.read()?;
        table.match_topic(topic, found);
        let locals = found.locals.iter().flat_map(|seats| seats.iter().cloned());
        let (seats, joints) = joined(locals.collect());
        let mut whole = Match {
            seats,
            joints,
            ..Match::default()
        };
        if !found.nodes.is_empty() || !found.groups.is_empty() {
            let standing = self.tables().links.read().map_err(|_| Torn)?;
            let link = |index| {
                let node = table.node(index)?;
                standing.iter().find(|link| link.node == *node).cloned()
            };
            whole.links.extend(found.nodes.iter().filter_map(link));
            whole.plain_links = whole.links.len();
            for (group, nodes) in found.groups.drain(..) {
                self.add_across(&mut whole, &group, nodes.iter().filter_map(link));
            }
        }
        Ok(whole)
    }

    /// Gives a message to another node's link, or drops it where the link's queue is full.
    fn forward(
        &self,
        link: &Link,
        loans: Option<Box<Loans>>,
        message: &Arc<Message>,
        keep: Option<Keep>,
        receipt: Option<Receipt>,
        holds: &mut Holds,
    ) {
        if link.outbox.is_full() {
            if message.qos == QoS::AtMostOnce {
                self.counters().forwarded.one();
                self.counters().dropped_link_full.one();
                return;
            }
            if !holds.links.iter().any(|known| known.node == link.node) {
                holds.links.push(link.clone());
            }
        }
        let outbound = Outbound {
            message: message.clone(),
            share: receipt.map(|receipt| self.share(receipt)),
            loans,
            retained: keep.map(Keep::time),
            only_retained: matches!(keep, Some(Keep::Only(_))),
        };
        self.enqueue(link, outbound);
    }

    fn enqueue(&self, link: &Link, outbound: Outbound) {
        self.counters().forwarded.one();
        link.outbox.announce(&outbound);
        self.forwards.borrow_mut().push(&link.outbox, outbound);
        self.wake.wake();
    }

    /// One more share of a publication, for a link.
    fn share(&self, receipt: Receipt) -> Share {
        self.receipts.borrow_mut().add_share(receipt);
        Share::of(receipt, self.tables())
    }

    fn open_receipt(&self, publisher: &Publisher<'_>) -> Receipt {
        let slot = self.receipts.borrow_mut().open(publisher);
        Receipt {
            arbiter: self.me() as u16,
            slot,
        }
    }

    /// One share of a publication of this arbiter is complete, over there.
    pub(super) fn complete(&self, receipt: Receipt, kept: Kept, from: u16) {
        if self.tables().closing.load(SeqCst) {
            // A session that was stopped may have missed it, or that of its publisher cannot note it: it is
            // sent again to the next life of the node, and was not there before.
            return;
        }
        let complete = self.receipts.borrow_mut().complete(receipt, kept, from);
        match complete {
            Some(Complete::Answer(finished)) => finished.answer(),
            Some(Complete::Keep(kept)) => self.make_safe(receipt, kept),
            None => {}
        }
    }
}
