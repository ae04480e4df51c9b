//! One link to one life of another node: routes, messages, retained messages, ticks.
//!
//! Parent:   peers (dynamic), temporary
//! Owns:     the lane of messages, its part of the board; the lane is put aside however the link ends
//! Asked by: Router (RouteDelta), publishers' arbiters (Bell), Dist (FromDist), Connector (Order),
//!           Retainer (Merged)
//! Tells:    Router (LinkUp, LinkDown, ApplySnapshot, ApplyDelta), Connector (News), Dist (Carry, Cut)
//! Dies of:  a connection that does not come back, silence, a peer that breaks the protocol, an order

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, Running, WrapFuture};
use supervisors::{Caster, ChildSpec, Context, InitError, Restart};

use super::Cluster;
use super::board::{LinkState, Row};
use super::connector::{Fact, News};
use super::dist::{Carried, Cut, FromDist};
use super::intake::Waiting;
use super::lane::Lane;
use super::owners::LinkFell;
use super::ownership::Slip;
use super::rotation::CookieSlip;
use super::slice::{Out, SliceIn};
use super::wire::v1::{self, Frame, MemberRecord};
use crate::broker::links::{Bell, LinkDown, RouteDelta, Slice, SliceHeld};
use crate::limits::{DRAIN_LINKS_WITHIN, LINK_CRASH_GRACE, PEER_TICK};
use crate::node_name::NodeId;

mod connection;
mod inbound;
mod mark;
mod members;
mod retained;
mod ticket;

use connection::Connection;
pub use ticket::{Reason, Ticket, make_way};

/// Connector → Peer.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum Order {
    /// Tell the other side the members.
    Members(Vec<MemberRecord>),
    /// Tell the other side about client ids.
    Ownership(Vec<Slip>),
    /// Tell the other side about the cookie.
    Cookie(CookieSlip),
    /// Say why we go, and close.
    Leave(&'static str),
    /// Close: a later life of that node was welcomed.
    Replace,
    /// Let the connection go: a newer one of the same life was welcomed, and comes with [`Adopt`].
    Park,
}

/// Whoever opened a new connection → Peer: go on over this one. The broker never notices.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Adopt(pub Ticket);

/// The actor.
pub struct Peer {
    cluster: Cluster,
    node: NodeId,
    /// Ourselves, as the board and others know us.
    orders: Caster<Order>,
    /// Given to the connector once the link is up.
    members: Vec<MemberRecord>,
    /// Whether `nodeup` was told.
    up: bool,
    /// Why the link is closed.
    ending: Option<Reason>,
    /// We said that we go, and why.
    leaving: Option<&'static str>,
    /// The present connection, or the one that broke.
    connection: Connection,
    /// Since when there is none.
    broken: Option<Instant>,
    lane: Lane,
    /// What of our slice the other side holds, for whoever waits for it.
    slice_held: Arc<SliceHeld>,
    /// The lane was put aside or given up; the one here is empty.
    parted: bool,
    flush_armed: bool,
    /// What came and waits until this arbiter has room for it.
    waiting: Waiting,
    /// What we hold of their slice.
    slice_in: SliceIn,
    /// Buckets of retained messages that differ.
    drift: Arc<AtomicUsize>,
}

/// Pause before the router is asked again whose crash swallowed a question; its restart takes a millisecond.
const ROUTER_PAUSE: Duration = Duration::from_millis(20);

/// How often a link that is to be closed looks whether the other side has everything.
const LEAVE_LOOKS_EVERY: Duration = Duration::from_millis(5);

#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Peer {
    /// The spec of a Peer for a welcomed connection.
    #[must_use]
    pub fn spec(cluster: &Cluster, ticket: Ticket) -> ChildSpec {
        let id = ticket.node.name.as_str().to_owned();
        let arbiter = cluster.arbiter.clone();
        let (cluster, ticket) = (cluster.clone(), Mutex::new(Some(ticket)));
        let init = move |ctx: &mut Context<Self>| {
            let ticket = ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
            let ticket = ticket.ok_or_else(|| InitError::failed("a link is opened once"))?;
            Self::init(cluster.clone(), ticket, ctx)
        };
        ChildSpec::worker(id, &arbiter, init).restart(Restart::Temporary)
    }

    fn init(cluster: Cluster, ticket: Ticket, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        let node = ticket.node.clone();
        let orders = ctx.myself().caster::<Order>();
        let lane = cluster.board.lane_for(&node, ticket.received)?;
        lane.outbox().open(ctx.myself().caster());
        let mut row = Row::new(node.clone(), orders.clone(), ctx.myself().caster(), ticket.cookie);
        row.outbox = Some(lane.outbox().clone());
        cluster.board.insert(row);
        cluster.board.link_to(&node);
        let mut peer = Self {
            connection: Connection::new(ticket.link),
            cluster,
            node,
            orders,
            members: Vec::new(),
            up: false,
            ending: None,
            leaving: None,
            broken: None,
            lane,
            slice_held: Arc::default(),
            parted: false,
            flush_armed: false,
            waiting: Waiting::default(),
            slice_in: SliceIn::default(),
            drift: Arc::default(),
        };
        peer.tell_acknowledged();
        peer.carry(ticket, ctx)?;
        Ok(peer)
    }

    /// Notes how much the other side has taken.
    fn tell_acknowledged(&mut self) {
        let messages = self.lane.newly_acknowledged();
        self.cluster.board.acknowledged(&self.node, messages);
    }

    /// Ends the link: what the broker is about to hand over lies in the lane that is put aside.
    fn end(&mut self, reason: Reason, ctx: &mut Context<Self>) {
        if self.ending.is_none() {
            // Whatever closed it then, we had said that we go.
            let said = matches!(reason, Reason::Leaving(_));
            let ordered = self.leaving.filter(|_| !said).map(Reason::Ordered);
            self.close(ordered.unwrap_or(reason));
            ctx.stop();
        }
    }

    fn close(&mut self, reason: Reason) {
        self.connection.sender = None;
        // Of a link that fell the router sees the end, and bears with it a while. So it does with one that
        // did not come up: it may have taken the place of one that fell.
        let fell = self.up && matches!(reason, Reason::Stopped | Reason::Crashed);
        // Whoever of them does not run has no need to know; the connector asks the board when it starts.
        if self.up && !fell {
            self.forget_members();
            let node = self.node.clone();
            let _ = self.cluster.router.cast(LinkDown { node });
        }
        let _ = self.cluster.dist.cast(Cut {
            link: self.connection.link,
        });
        if self.up {
            let fell = LinkFell(self.node.clone(), reason.parted());
            let _ = self.cluster.owners.cast(fell);
        }
        self.row(|row| row.state = LinkState::Closing);
        let (name, incarnation) = (&self.node.name, self.node.incarnation);
        match (&reason, self.up) {
            _ if fell => tracing::warn!("the link to {name} waits for another process: {reason}"),
            (Reason::Protocol(_), true) => {
                tracing::warn!("nodedown {name} (incarnation {incarnation}): {reason}");
            }
            (_, true) => tracing::info!("nodedown {name} (incarnation {incarnation}): {reason}"),
            (_, false) => tracing::warn!("the link to {name} did not come up: {reason}"),
        }
        if fell {
            self.lane.hold(Instant::now() + LINK_CRASH_GRACE);
            self.tell(Fact::Broken);
        } else {
            self.tell(Fact::Unlinked(reason.to_string()));
        }
        if self.lane.held().is_none() {
            self.lane.release();
        }
        self.ending = Some(reason);
    }

    /// Puts the lane aside for the next Peer of the same life of the node, unless that goes.
    fn part(&mut self) {
        if std::mem::replace(&mut self.parted, true) {
            return;
        }
        let lane = std::mem::replace(&mut self.lane, Lane::new(0));
        if matches!(self.ending, Some(Reason::Leaving(_) | Reason::Ordered(_))) {
            self.cluster.board.abandon(&self.node, lane);
        } else {
            self.cluster.board.put_aside(&self.node, lane, Instant::now());
        }
    }

    fn tell(&self, fact: Fact) {
        // A connector that is restarting reads the board.
        let _ = self.cluster.connector.cast(News {
            node: self.node.clone(),
            fact,
        });
    }

    fn row(&self, change: impl FnOnce(&mut Row)) {
        self.cluster.board.change(&self.node, &self.orders, change);
    }

    fn send(&mut self, frame: &Frame<'_>, ctx: &mut Context<Self>) {
        self.send_bytes(v1::encode(frame), ctx);
    }

    fn send_bytes(&mut self, frame: Vec<u8>, ctx: &mut Context<Self>) {
        if let Some(sender) = &self.connection.sender
            && sender.send(frame).is_err()
        {
            self.lost(ctx);
        }
    }

    fn send_routes(&mut self, ctx: &mut Context<Self>) {
        // What cannot be sent must not count as sent: the other side would never take it.
        while self.connection.sender.is_some()
            && let Some(out) = self.connection.slice.step()
        {
            self.carry_out(out, ctx);
        }
    }

    fn carry_out(&mut self, out: Out, ctx: &mut Context<Self>) {
        match out {
            Out::Send(frame) => self.send_bytes(frame, ctx),
            Out::Ask => {
                let link = self.connection.link;
                let slice = self.cluster.router.call(Slice).into_actor(self);
                ctx.spawn(slice.map(move |slice, me, ctx| match slice {
                    // A newer connection has asked for itself.
                    _ if me.connection.link != link => {}
                    Ok(slice) => {
                        me.connection.slice.begin(&slice);
                        me.send_routes(ctx);
                    }
                    Err(_) => me.again_after_the_router(|me, ctx| me.carry_out(Out::Ask, ctx), ctx),
                }));
            }
        }
    }

    /// The router is being restarted: what was asked of it is asked again, if the connection still stands.
    fn again_after_the_router(
        &self,
        ask: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
        ctx: &mut Context<Self>,
    ) {
        let link = self.connection.link;
        ctx.run_later(ROUTER_PAUSE, move |me, ctx| {
            if me.ending.is_none() && me.broken.is_none() && me.connection.link == link {
                ask(me, ctx);
            }
        });
    }

    /// Says that we go, as soon as the other side has what was published and told before, but not later than
    /// at the deadline.
    fn leave(&mut self, reason: &'static str, deadline: Instant, ctx: &mut Context<Self>) {
        let owed = !self.lane.is_empty() || self.lane.outbox().queued() > 0;
        if (owed || !self.cluster.board.wills_told(&self.node)) && Instant::now() < deadline {
            ctx.run_later(LEAVE_LOOKS_EVERY, move |me, ctx| {
                if me.ending.is_none() {
                    me.leave(reason, deadline, ctx);
                }
            });
            return;
        }
        self.leaving = Some(reason);
        self.send(&Frame::Leaving { reason }, ctx);
        // The other side closes once it has read that; it is not waited for longer.
        let late = move |me: &mut Self, ctx: &mut Context<Self>| me.end(Reason::ConnectionClosed, ctx);
        ctx.run_later(DRAIN_LINKS_WITHIN / 2, late);
    }

    fn send_batches(&mut self, ctx: &mut Context<Self>) {
        if !self.up {
            return;
        }
        let now = Instant::now();
        let before = self.lane.sent();
        while self.connection.sender.is_some()
            && let Some(frame) = self.lane.next_batch(now)
        {
            self.send_bytes(frame, ctx);
        }
        let sent = self.lane.sent() - before;
        if sent > 0 {
            self.row(|row| row.forwarded += sent);
        }
    }
}

impl Actor for Peer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PEER_TICK / 4, Self::look);
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        if self.ending.is_none() {
            self.close(Reason::Stopped);
        }
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.part();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.ending.is_none() {
            // A panic, or a kill: nobody else takes the link down.
            self.close(Reason::Crashed);
        }
        self.part();
        self.cluster.board.remove(&self.node, &self.orders);
    }
}

impl Handler<FromDist> for Peer {
    type Result = ();

    fn handle(&mut self, from: FromDist, ctx: &mut Self::Context) {
        let FromDist { link, what } = from;
        // What is left of a connection that was given up is not looked at.
        if link != self.connection.link || self.broken.is_some() || self.ending.is_some() {
            return;
        }
        match what {
            Carried::Ready(sender) => self.ready(sender, ctx),
            Carried::Frame(frame) => self.frame(frame, ctx),
            Carried::Closed => self.lost(ctx),
        }
    }
}

impl Handler<Adopt> for Peer {
    type Result = ();

    fn handle(&mut self, Adopt(ticket): Adopt, ctx: &mut Self::Context) {
        self.adopt(ticket, ctx);
    }
}

impl Handler<RouteDelta> for Peer {
    type Result = ();

    fn handle(&mut self, delta: RouteDelta, ctx: &mut Self::Context) {
        self.connection.slice.changed(delta);
        if self.connection.sender.is_some() && self.up {
            self.send_routes(ctx);
        }
    }
}

impl Handler<Bell> for Peer {
    type Result = ();

    fn handle(&mut self, _: Bell, ctx: &mut Self::Context) {
        if !self.flush_armed && self.ending.is_none() {
            // Handled when the mailbox is empty: one batch for what several arbiters brought.
            self.flush_armed = true;
            ctx.notify(Flush);
        }
    }
}

impl Handler<Flush> for Peer {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.flush_armed = false;
        self.send_batches(ctx);
    }
}

impl Handler<Order> for Peer {
    type Result = ();

    fn handle(&mut self, order: Order, ctx: &mut Self::Context) {
        match order {
            Order::Members(members) => self.send(&Frame::Members { members }, ctx),
            Order::Ownership(slips) => self.send(&Frame::Ownership(slips), ctx),
            Order::Cookie(slip) => self.send(&Frame::Cookie(slip), ctx),
            Order::Leave(reason) if self.connection.sender.is_some() => {
                self.leave(reason, Instant::now() + DRAIN_LINKS_WITHIN / 2, ctx);
            }
            Order::Leave(reason) => self.end(Reason::Ordered(reason), ctx),
            Order::Replace => self.end(Reason::Replaced, ctx),
            Order::Park => self.lost(ctx),
        }
    }
}

/// Enough to tell one canary from another; no secret.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers no cookie could have been proved either.
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    u64::from_ne_bytes(bytes)
}
