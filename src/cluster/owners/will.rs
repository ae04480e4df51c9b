//! Wills between nodes: feeding the value, carrying out what it causes.

use std::collections::VecDeque;
use std::time::Instant;

use actix::{Handler, Message};
use bytestring::ByteString;
use supervisors::Context;

use super::{Owners, Slip};
use crate::broker::links::WillNews;
use crate::broker::office::Office;
use crate::broker::publish;
use crate::broker::wills::message_of;
use crate::cluster::executor::{Effect, Event, Executor, Parted, WillSlip};
use crate::cluster::ownership;
use crate::node_name::NodeId;

/// Session, Wills → Owners: what becomes of a will.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct News(pub(super) ByteString, pub(super) WillNews);

/// Connector → Owners: the node is about to close its links. Answered when all news that were told before are
/// noted.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct NodeStops;

impl Owners {
    fn executor<T>(&self, act: impl FnOnce(&mut Executor) -> T) -> T {
        let since = self.tables.first_life();
        self.cluster.board.executor(since, act)
    }

    /// What is said first over a link.
    pub(super) fn ask(&self) -> WillSlip {
        self.executor(|wills| wills.ask())
    }

    /// Whether the will of this client is adopted: the id is ours, and no session.
    pub(super) fn has_adopted(&self, id: &ByteString) -> bool {
        self.executor(|wills| wills.has_adopted(id))
    }

    /// The client is about to be served, here or elsewhere. Whether its will was adopted.
    pub(super) fn client_is_back(&mut self, id: &ByteString, ctx: &mut Context<Self>) -> bool {
        let adopted = self.has_adopted(id);
        if adopted {
            self.feed_wills(Event::Back(id.clone()), ctx);
        }
        adopted
    }

    pub(super) fn fell(&mut self, node: NodeId, parted: Parted, ctx: &mut Context<Self>) {
        // Ownership first: it forgets what the node held before anything of that is adopted.
        self.feed(ownership::Event::Down(node.clone()), ctx);
        self.feed_wills(Event::Down(node, parted), ctx);
    }

    pub(super) fn feed_wills(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, mut effects) = (Instant::now(), Vec::new());
            self.executor(|wills| wills.handle(event, now, &mut effects));
            for effect in effects {
                events.extend(self.execute(effect, now, ctx));
            }
        }
    }

    /// Does it; what happens thereby at once.
    fn execute(&mut self, effect: Effect, now: Instant, ctx: &mut Context<Self>) -> Option<Event> {
        match effect {
            Effect::Say(node, slip) => self.say(node, Slip::Will(slip), ctx),
            Effect::Publish(id, will) => {
                tracing::debug!(client = %id, topic = %will.topic, "the will of a client whose node is lost");
                if let Some(office) = Office::here() {
                    office.counters().wills_executed.one();
                }
                if publish::publish(&message_of(&will, &id, now)).is_err() {
                    tracing::error!(topic = %will.topic, "a will went nowhere: the route table is torn");
                }
            }
            Effect::Adopt(id) => {
                if self.value(|value| value.serves(&id)) {
                    return Some(Event::Back(id));
                }
                self.feed(ownership::Event::Adopt(id), ctx);
            }
            Effect::Renounce(id) => self.feed(ownership::Event::Ended(id), ctx),
            Effect::Refused => {
                if let Some(office) = Office::here() {
                    office.counters().wills_not_held.one();
                }
            }
            Effect::WakeAt(at) => {
                let look = |me: &mut Self, ctx: &mut Context<Self>| me.feed_wills(Event::Wake, ctx);
                self.will_wake.set(at, look, ctx);
            }
        }
        None
    }
}

impl Handler<News> for Owners {
    type Result = ();

    fn handle(&mut self, News(id, news): News, ctx: &mut Self::Context) {
        self.feed_wills(Event::News(id, news), ctx);
    }
}

impl Handler<NodeStops> for Owners {
    type Result = ();

    fn handle(&mut self, _: NodeStops, _: &mut Self::Context) {
        self.executor(Executor::stop);
    }
}
