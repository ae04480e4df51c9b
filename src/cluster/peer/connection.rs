//! The connection of a link: it may break and be replaced while the link goes on.
//!
//! When it breaks, the broker keeps its routes for [`LINK_GRACE`] and what is published meanwhile waits in
//! the lane. A new connection of the same life of the node is adopted; without one the link ends.

use std::time::{Instant, SystemTime};

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use supervisors::{Context, Gone};

use super::members::ToldMembers;
use super::{LinkState, Peer, Reason, Ticket, random};
use crate::broker::links::{Link, LinkUp, OwnSlice};
use crate::cluster::connector::Fact;
use crate::cluster::dist::{Carry, Cut, FromDist, Sender};
use crate::cluster::owners::LinkStands;
use crate::cluster::pulse::{Finding, Pulse};
use crate::cluster::retained::Pull;
use crate::cluster::slice::SliceOut;
use crate::cluster::wire::v1::Frame;
use crate::limits::LINK_GRACE;

/// What begins anew with each connection.
pub(super) struct Connection {
    pub(super) link: u64,
    /// `None` until the other end is ready, and after the end.
    pub(super) sender: Option<Sender>,
    /// Frames that came before that.
    pub(super) early: Vec<Vec<u8>>,
    pub(super) early_bytes: usize,
    pub(super) slice: SliceOut,
    pub(super) pull: Pull,
    pub(super) members: ToldMembers,
    pub(super) pulse: Pulse,
    pub(super) canary: u64,
}

impl Connection {
    pub(super) fn new(link: u64) -> Self {
        Self {
            link,
            sender: None,
            early: Vec::new(),
            early_bytes: 0,
            slice: SliceOut::default(),
            pull: Pull::default(),
            members: ToldMembers::default(),
            pulse: Pulse::new(Instant::now()),
            canary: random(),
        }
    }
}

impl Peer {
    /// Gives the stream to the carrier.
    pub(super) fn carry(&mut self, ticket: Ticket, ctx: &Context<Self>) -> Result<(), Gone<Carry>> {
        self.members = ticket.members;
        self.cluster.dist.cast(Carry {
            link: ticket.link,
            stream: ticket.stream,
            dialled: ticket.dialled,
            to: ctx.myself().caster::<FromDist>(),
        })
    }

    /// The other end is ready: the router learns of the link and answers with our slice; if it knows the
    /// link already, the slice is asked for.
    pub(super) fn ready(&mut self, sender: Sender, ctx: &mut Context<Self>) {
        self.connection.sender = Some(sender);
        if self.up {
            self.back(ctx);
        } else {
            let myself = ctx.myself();
            let link = Link {
                node: self.node.clone(),
                routes: myself.caster(),
                outbox: self.lane.outbox().clone(),
                holds: self.slice_held.clone(),
                drift: self.drift.clone(),
            };
            // Sent before any frame is looked at: the router hears of the link before its routes.
            self.link_up(link, ctx);
        }
        for frame in std::mem::take(&mut self.connection.early) {
            self.frame(frame, ctx);
        }
    }

    fn link_up(&self, link: Link, ctx: &mut Context<Self>) {
        let slice = self.cluster.router.call(LinkUp(link.clone())).into_actor(self);
        ctx.spawn(slice.map(|slice, me, ctx| match slice {
            Ok(Ok(slice)) => me.linked(&slice, ctx),
            Ok(Err(refused)) => me.end(Reason::Protocol(refused.to_string()), ctx),
            Err(_) => me.again_after_the_router(|me, ctx| me.link_up(link, ctx), ctx),
        }));
    }

    fn linked(&mut self, slice: &OwnSlice, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        self.up = true;
        self.connection.slice.begin(slice);
        let (name, incarnation) = (&self.node.name, self.node.incarnation);
        if self.lane.linked() {
            tracing::info!("the link to {name} goes on with another process");
        } else {
            tracing::info!("nodeup {name} (incarnation {incarnation})");
        }
        self.greet(ctx);
        self.send_routes(ctx);
        // What the Peer before us took became safe when nobody was there to say so.
        self.acknowledge(self.cluster.board.taken(&self.node), ctx);
    }

    /// A new connection is ready: what was not acknowledged goes first.
    fn back(&mut self, ctx: &mut Context<Self>) {
        tracing::info!("the link to {} is back over a new connection", self.node.name);
        if let Some(out) = self.connection.slice.restart() {
            self.carry_out(out, ctx);
        }
        self.greet(ctx);
    }

    fn greet(&mut self, ctx: &mut Context<Self>) {
        self.row(|row| (row.state, row.since) = (LinkState::Up, SystemTime::now()));
        let members = std::mem::take(&mut self.members);
        self.tell(Fact::Linked(members));
        // One that is restarting reads the board.
        let _ = self.cluster.owners.cast(LinkStands(self.node.clone()));
        let nonce = self.connection.canary;
        self.send(&Frame::Canary { nonce }, ctx);
        self.send_batches(ctx);
        self.tell_retained(ctx);
        self.tell_members(ctx);
    }

    /// The connection is gone, or is to be let go for a newer one.
    pub(super) fn lost(&mut self, ctx: &mut Context<Self>) {
        if self.ending.is_some() || self.broken.is_some() {
            return;
        }
        if !self.up || self.leaving.is_some() {
            return self.end(Reason::ConnectionClosed, ctx);
        }
        let since = Instant::now();
        self.broken = Some(since);
        self.let_go();
        self.row(|row| row.state = LinkState::Broken);
        tracing::debug!("the connection to {} broke", self.node.name);
        self.tell(Fact::Broken);
        ctx.run_later(LINK_GRACE, move |me, ctx| {
            if me.broken == Some(since) {
                me.end(Reason::ConnectionClosed, ctx);
            }
        });
    }

    fn let_go(&mut self) {
        self.connection.sender = None;
        let link = self.connection.link;
        // A carrier that is restarting carries nothing.
        let _ = self.cluster.dist.cast(Cut { link });
    }

    /// Goes on over a new connection of the same life of the node.
    pub(super) fn adopt(&mut self, ticket: Ticket, ctx: &mut Context<Self>) {
        if self.ending.is_some() || self.leaving.is_some() {
            // Its stream is closed with it; the other side dials again.
            return;
        }
        self.let_go();
        if let Err(error) = self.lane.resume(ticket.received) {
            return self.end(Reason::Protocol(error.to_string()), ctx);
        }
        self.tell_acknowledged();
        (self.connection, self.broken) = (Connection::new(ticket.link), None);
        self.slice_in.reconnected();
        self.waiting.reconnected();
        self.cluster.board.arrived(&self.node.name);
        self.row(|row| {
            row.state = LinkState::Opening;
            (row.routes_came, row.routes_settled, row.canaries) = (false, false, (false, false));
            row.cookie = ticket.cookie;
        });
        if self.carry(ticket, ctx).is_err() {
            self.lost(ctx);
        }
    }

    /// Are they there? And once a second: we are here.
    pub(super) fn look(&mut self, ctx: &mut Context<Self>) {
        if self.ending.is_some() || self.broken.is_some() {
            return;
        }
        let now = Instant::now();
        let ready = self.connection.sender.is_some();
        match self.connection.pulse.look(ready, self.up, now) {
            Finding::Well => {}
            Finding::NotReady => return self.end(Reason::NotReady, ctx),
            Finding::Down => return self.end(Reason::NetTickTimeout, ctx),
            Finding::Suspect(silence) => {
                self.row(|row| row.state = LinkState::Suspect);
                let seconds = silence.as_secs_f32();
                tracing::warn!("nothing came from {} for {seconds:.1} s", self.node.name);
                self.tell(Fact::Suspect);
            }
        }
        if ready && self.up {
            self.tell_members(ctx);
        }
        if ready && let Some(number) = self.connection.pulse.tick_due(now) {
            self.tick(number, ctx);
        }
    }

    fn tick(&mut self, number: u64, ctx: &mut Context<Self>) {
        let routes = self.connection.slice.version();
        self.send(&Frame::Tick { number, routes }, ctx);
        self.send_mark(ctx);
        if self.up {
            self.tell_retained(ctx);
        }
    }
}
