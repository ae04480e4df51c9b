//! One link to one life of another node: routes, messages, ticks.
//!
//! Parent:   peers (dynamic), temporary
//! Owns:     the lane of messages, its part of the board; the lane is put aside when the link breaks
//! Asked by: Router (RouteDelta), publishers' arbiters (Forward), Dist (FromDist), Connector (Order)
//! Tells:    Router (LinkUp, LinkDown, ApplySnapshot, ApplyDelta), Connector (News), Dist (Carry, Cut)
//! Dies of:  a closed connection, silence, a peer that breaks the protocol, an order to leave

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Handler, Message, Running, WrapFuture};
use supervisors::{Caster, ChildSpec, Context, InitError, Restart};

use super::Cluster;
use super::board::{LinkState, Row};
use super::connector::{Fact, News};
use super::dist::{Carry, Cut, FromDist, Sender};
use super::lane::Lane;
use super::slice::{Out, SliceOut};
use super::wire::v1::{self, Frame, MemberRecord};
use crate::broker::links::{Forward, Link, LinkDown, LinkUp, OwnSlice, RouteDelta, RouteVersion, Slice};
use crate::limits::{
    DRAIN_LINKS_WITHIN, HANDSHAKE_DEADLINE, LINK_LINGER, PEER_DOWN_AFTER, PEER_SUSPECT_AFTER, PEER_TICK,
};
use crate::mqtt::message::Message as MqttMessage;
use crate::node_name::NodeId;

mod inbound;
mod ticket;

pub use ticket::{Reason, Ticket};

/// Connector → Peer.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum Order {
    /// Tell the other side the members.
    Members(Vec<MemberRecord>),
    /// Say why we go, and close.
    Leave(&'static str),
    /// Close: a newer connection of that node was welcomed.
    Replace,
}

/// The actor.
pub struct Peer {
    cluster: Cluster,
    node: NodeId,
    link: u64,
    /// Ourselves, as the board and others know us.
    orders: Caster<Order>,
    /// Given to the connector once the link is up.
    members: Vec<MemberRecord>,
    /// `None` until the other end is ready.
    sender: Option<Sender>,
    /// Frames that came before that.
    early: Vec<Vec<u8>>,
    /// Whether `nodeup` was told.
    up: bool,
    /// Why the link is closing; the rest is lingering.
    ending: Option<Reason>,
    /// We said that we go, and why.
    leaving: Option<&'static str>,
    lane: Lane,
    flush_armed: bool,
    slice: SliceOut,
    /// Batches that wait until this arbiter has room for them, and whether one is being taken.
    batches: VecDeque<(u64, Vec<Arc<MqttMessage>>)>,
    taking: bool,
    /// Route frames of theirs that were taken, the version they led to, and how often a tick told of a
    /// later one since.
    frames_taken: u64,
    routes_held: RouteVersion,
    routes_behind: u32,
    opened: Instant,
    heard: Instant,
    suspect: bool,
    /// When silence was looked for last, and when we ticked last.
    looked: Instant,
    ticked: Instant,
    tick: u64,
    canary: u64,
}

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
        let Ticket {
            node,
            link,
            stream,
            dialled,
            received,
            members,
        } = ticket;
        let orders = ctx.myself().caster::<Order>();
        let lane = match cluster.board.lane_of(&node) {
            Some(mut lane) => lane.resume(received).map(|()| lane)?,
            None => Lane::new(received),
        };
        cluster.board.insert(Row {
            node: node.clone(),
            orders: orders.clone(),
            state: LinkState::Opening,
            since: SystemTime::now(),
            round_trip: None,
            forwarded: 0,
            came: 0,
            routes_sent: RouteVersion(0),
            routes_held: RouteVersion(0),
            routes_came: false,
            routes_settled: false,
            canaries: (false, false),
        });
        let to = ctx.myself().caster::<FromDist>();
        cluster.dist.cast(Carry {
            link,
            stream,
            dialled,
            to,
        })?;
        let now = Instant::now();
        Ok(Self {
            cluster,
            node,
            link,
            orders,
            members,
            sender: None,
            early: Vec::new(),
            up: false,
            ending: None,
            leaving: None,
            lane,
            flush_armed: false,
            slice: SliceOut::default(),
            batches: VecDeque::new(),
            taking: false,
            frames_taken: 0,
            routes_held: RouteVersion(0),
            routes_behind: 0,
            opened: now,
            heard: now,
            suspect: false,
            looked: now,
            ticked: now,
            tick: 0,
            canary: random(),
        })
    }

    /// The other end is ready: the router learns of the link and answers with our slice.
    fn ready(&mut self, sender: Sender, ctx: &mut Context<Self>) {
        self.sender = Some(sender);
        let myself = ctx.myself();
        let link = Link {
            node: self.node.clone(),
            routes: myself.caster(),
            forward: myself.caster(),
            queued_bytes: self.lane.queued().clone(),
        };
        // Sent before any frame is looked at: the router hears of the link before its routes.
        let slice = self.cluster.router.call(LinkUp(link));
        ctx.spawn(slice.into_actor(self).map(|slice, me, ctx| match slice {
            Ok(Ok(slice)) => me.linked(&slice, ctx),
            Ok(Err(refused)) => me.end(Reason::Protocol(refused.to_string()), ctx),
            Err(error) => me.end(Reason::Local(format!("the router: {error}")), ctx),
        }));
        for frame in std::mem::take(&mut self.early) {
            self.frame(frame, ctx);
        }
    }

    fn linked(&mut self, slice: &OwnSlice, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        self.up = true;
        self.row(|row| (row.state, row.since) = (LinkState::Up, SystemTime::now()));
        tracing::info!(
            "nodeup {} (incarnation {})",
            self.node.name,
            self.node.incarnation
        );
        let members = std::mem::take(&mut self.members);
        self.tell(Fact::Linked(members));
        self.slice.begin(slice);
        self.send(&Frame::Canary { nonce: self.canary }, ctx);
        self.send_routes(ctx);
        self.send_batches(ctx);
    }

    /// Ends the link: what the broker is about to hand over is still taken, and put aside.
    fn end(&mut self, reason: Reason, ctx: &mut Context<Self>) {
        if self.ending.is_none() {
            // Whatever closed it then, we had said that we go.
            let said = matches!(reason, Reason::Leaving(_));
            let ordered = self.leaving.filter(|_| !said).map(Reason::Ordered);
            self.close(ordered.unwrap_or(reason));
            ctx.run_later(LINK_LINGER, |_, ctx| ctx.stop());
        }
    }

    fn close(&mut self, reason: Reason) {
        self.sender = None;
        let node = self.node.clone();
        // Whoever of them does not run has no need to know; the connector asks the board when it starts.
        let _ = self.cluster.router.cast(LinkDown { node });
        let _ = self.cluster.dist.cast(Cut { link: self.link });
        self.row(|row| row.state = LinkState::Closing);
        let (name, incarnation) = (&self.node.name, self.node.incarnation);
        match (&reason, self.up) {
            (Reason::Protocol(_) | Reason::Crashed, true) => {
                tracing::warn!("nodedown {name} (incarnation {incarnation}): {reason}");
            }
            (_, true) => tracing::info!("nodedown {name} (incarnation {incarnation}): {reason}"),
            (_, false) => tracing::warn!("the link to {name} did not come up: {reason}"),
        }
        self.tell(Fact::Unlinked(reason.to_string()));
        self.ending = Some(reason);
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
        if let Some(sender) = &self.sender
            && sender.send(frame).is_err()
        {
            self.end(Reason::ConnectionClosed, ctx);
        }
    }

    fn send_routes(&mut self, ctx: &mut Context<Self>) {
        while let Some(out) = self.slice.step() {
            self.carry_out(out, ctx);
        }
    }

    fn carry_out(&mut self, out: Out, ctx: &mut Context<Self>) {
        match out {
            Out::Send(frame) => self.send_bytes(frame, ctx),
            Out::Ask => {
                let slice = self.cluster.router.call(Slice).into_actor(self);
                ctx.spawn(slice.map(|slice, me, ctx| match slice {
                    Ok(slice) => {
                        me.slice.begin(&slice);
                        me.send_routes(ctx);
                    }
                    Err(error) => me.end(Reason::Local(format!("the router: {error}")), ctx),
                }));
            }
        }
    }

    fn send_batches(&mut self, ctx: &mut Context<Self>) {
        if !self.up {
            return;
        }
        let now = Instant::now();
        let before = self.lane.sent();
        while self.sender.is_some()
            && let Some(frame) = self.lane.next_batch(now)
        {
            self.send_bytes(frame, ctx);
        }
        let sent = self.lane.sent() - before;
        if sent > 0 {
            self.row(|row| row.forwarded += sent);
        }
    }

    /// Are they there? And once a second: we are here.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let overslept = now.duration_since(self.looked) > PEER_TICK * 2;
        self.looked = now;
        if self.ending.is_some() {
            return;
        }
        if !self.up && now.duration_since(self.opened) > HANDSHAKE_DEADLINE {
            return self.end(Reason::NotReady, ctx);
        }
        if overslept {
            // This arbiter was busy or the host asleep: what came meanwhile waits to be read.
            self.heard = self.heard.max(now.checked_sub(PEER_TICK).unwrap_or(now));
        }
        let silence = now.duration_since(self.heard);
        if silence >= PEER_DOWN_AFTER {
            return self.end(Reason::NetTickTimeout, ctx);
        }
        if silence >= PEER_SUSPECT_AFTER && self.up && !self.suspect {
            self.suspect = true;
            self.row(|row| row.state = LinkState::Suspect);
            tracing::warn!(
                "nothing came from {} for {:.1} s",
                self.node.name,
                silence.as_secs_f32()
            );
            self.tell(Fact::Suspect);
        }
        if now.duration_since(self.ticked) < PEER_TICK {
            return;
        }
        (self.tick, self.ticked) = (self.tick + 1, now);
        self.send(
            &Frame::Tick {
                number: self.tick,
                routes: self.slice.version(),
            },
            ctx,
        );
    }
}

impl Actor for Peer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PEER_TICK / 4, Self::look);
    }

    fn stopping(&mut self, ctx: &mut Self::Context) -> Running {
        if self.ending.is_none() {
            self.end(Reason::Stopped, ctx);
            return Running::Continue;
        }
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let mut lane = std::mem::replace(&mut self.lane, Lane::new(0));
        let gone = matches!(self.ending, Some(Reason::Leaving(_) | Reason::Ordered(_)));
        if gone {
            lane.abandon();
        } else if !lane.is_empty() {
            return self.cluster.board.put_aside(&self.node, lane, Instant::now());
        }
        self.cluster.count_lost(&lane.dropped);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.ending.is_none() {
            // A panic, or a kill: nobody else takes the link down.
            self.close(Reason::Crashed);
            self.lane.abandon();
            self.cluster.count_lost(&self.lane.dropped);
        }
        self.cluster.board.remove(&self.node, &self.orders);
    }
}

impl Handler<FromDist> for Peer {
    type Result = ();

    fn handle(&mut self, from: FromDist, ctx: &mut Self::Context) {
        match from {
            FromDist::Ready(sender) if self.sender.is_none() && self.ending.is_none() => {
                self.ready(sender, ctx)
            }
            FromDist::Ready(_) => {}
            FromDist::Frame(frame) => self.frame(frame, ctx),
            FromDist::Closed => self.end(Reason::ConnectionClosed, ctx),
        }
    }
}

impl Handler<RouteDelta> for Peer {
    type Result = ();

    fn handle(&mut self, delta: RouteDelta, ctx: &mut Self::Context) {
        self.slice.changed(delta);
        if self.up {
            self.send_routes(ctx);
        }
    }
}

impl Handler<Forward> for Peer {
    type Result = ();

    fn handle(&mut self, forward: Forward, ctx: &mut Self::Context) {
        self.lane.push(forward.messages);
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
            Order::Leave(reason) if self.sender.is_some() => {
                self.leaving = Some(reason);
                self.send(&Frame::Leaving { reason }, ctx);
                // The other side closes once it has read that; it is not waited for longer.
                let late =
                    move |me: &mut Self, ctx: &mut Context<Self>| me.end(Reason::ConnectionClosed, ctx);
                ctx.run_later(DRAIN_LINKS_WITHIN / 2, late);
            }
            Order::Leave(reason) => self.end(Reason::Ordered(reason), ctx),
            Order::Replace => self.end(Reason::Replaced, ctx),
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
