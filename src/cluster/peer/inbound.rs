//! What a Peer does with each frame that comes.

use std::future::poll_fn;
use std::task::{self, Poll, Waker};
use std::time::Instant;

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use bytes::Bytes;
use supervisors::{CallError, Context};

use super::{LinkState, Peer, Reason};
use crate::broker::links::{ApplyDelta, ApplySnapshot, Inbound};
use crate::broker::publish;
use crate::cluster::connector::Fact;
use crate::cluster::intake::Came;
use crate::cluster::owners::Said;
use crate::cluster::wire::WireError;
use crate::cluster::wire::v1::{self, Frame, MemberRecord, WireMessage};
use crate::limits::LINK_EARLY_BYTES_MAX;
use crate::routing::{Applied, RouteDelta, RouteVersion, SnapshotChunk};

impl Peer {
    pub(super) fn frame(&mut self, bytes: Vec<u8>, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        if self.connection.sender.is_none() {
            if self.connection.early_bytes > LINK_EARLY_BYTES_MAX {
                return self.end(Reason::Protocol("frames before the link was ready".into()), ctx);
            }
            self.connection.early_bytes += bytes.len();
            self.connection.early.push(bytes);
            return;
        }
        if self.connection.pulse.heard(Instant::now()) {
            self.row(|row| row.state = LinkState::Up);
            self.tell(Fact::Trusted);
        }
        let bytes = Bytes::from(bytes);
        let taken = v1::decode(&bytes).and_then(|frame| self.take_in(frame, &bytes, ctx));
        if let Err(error) = taken {
            // Only this link is closed: everything else, and every other link, goes on.
            self.end(Reason::Protocol(error.to_string()), ctx);
        }
    }

    fn take_in(&mut self, frame: Frame<'_>, bytes: &Bytes, ctx: &mut Context<Self>) -> Result<(), WireError> {
        match frame {
            Frame::Snapshot(chunk) => self.snapshot(chunk, ctx),
            Frame::Delta(delta) => self.delta(delta, ctx),
            Frame::Resync => {
                if let Some(out) = self.connection.slice.restart() {
                    self.carry_out(out, ctx);
                }
            }
            Frame::RoutesHeld { frames, version } => self.routes_taken(frames, version, ctx)?,
            Frame::Forward { seq, messages } => self.batch(seq, messages, bytes, ctx)?,
            Frame::Forwarded { seq } => {
                let acknowledged = self.lane.acknowledge(seq);
                acknowledged.map_err(|error| WireError::Malformed(error.to_string()))?;
                self.tell_acknowledged();
                self.send_batches(ctx);
            }
            Frame::Canary { nonce } => {
                self.send(&Frame::CanaryBack { nonce }, ctx);
                self.row(|row| row.canaries.1 = true);
                self.tell(Fact::Canary);
            }
            Frame::CanaryBack { nonce } if nonce == self.connection.canary => {
                self.row(|row| row.canaries.0 = true);
                self.tell(Fact::Canary);
            }
            Frame::CanaryBack { nonce } => {
                return Err(WireError::Malformed(format!("canary {nonce:x} was never sent")));
            }
            Frame::Tick { number, routes } => self.on_their_tick(number, routes, ctx),
            // The answer to an earlier tick is late, but a sign of life.
            Frame::TickBack { number } => {
                if let Some(round_trip) = self.connection.pulse.answered(number, Instant::now()) {
                    self.row(|row| row.round_trip = Some(round_trip));
                }
            }
            Frame::Members { members } => self.members_came(members),
            Frame::SliceMark { version, hash } => self.on_their_mark(version, hash, ctx),
            Frame::Ownership(slips) => {
                let node = self.node.clone();
                // A keeper that is restarting asks for all that matters.
                let _ = self.cluster.owners.cast(Said { node, slips });
            }
            Frame::Cookie(slip) => self.tell(Fact::Cookie(slip)),
            Frame::RetainedDigest { .. }
            | Frame::RetainedAsk { .. }
            | Frame::RetainedKnown { .. }
            | Frame::RetainedWant { .. }
            | Frame::RetainedMessages { .. } => self.retained_frame(frame, bytes, ctx)?,
            Frame::ShareMembers { groups } => self.members_told(groups),
            Frame::Leaving { reason } => self.end(Reason::Leaving(one_word(reason)), ctx),
        }
        Ok(())
    }

    fn members_came(&mut self, members: Vec<MemberRecord>) {
        if self.up {
            self.tell(Fact::Members(members));
        } else {
            // The connector believes only who is linked; this is the newer word.
            self.members = members;
        }
    }

    fn snapshot(&mut self, chunk: SnapshotChunk, ctx: &mut Context<Self>) {
        let SnapshotChunk {
            version,
            filters,
            first,
            last,
        } = chunk;
        let node = self.node.clone();
        let chunk = ApplySnapshot {
            node,
            version,
            filters,
            first,
            last,
        };
        let link = self.connection.link;
        let applied = self.cluster.router.call(chunk).into_actor(self);
        ctx.spawn(applied.map(move |applied, me, ctx| me.applied(link, applied, version, last, ctx)));
    }

    fn delta(&mut self, delta: RouteDelta, ctx: &mut Context<Self>) {
        let (node, version, link) = (self.node.clone(), delta.to, self.connection.link);
        let applied = self
            .cluster
            .router
            .call(ApplyDelta { node, delta })
            .into_actor(self);
        ctx.spawn(applied.map(move |applied, me, ctx| me.applied(link, applied, version, true, ctx)));
    }

    /// The router took a route frame of the connection `link`, or did not.
    fn applied(
        &mut self,
        link: u64,
        applied: Result<Applied, CallError>,
        version: RouteVersion,
        whole: bool,
        ctx: &mut Context<Self>,
    ) {
        // A newer connection begins with the whole slice, and counts its own frames.
        if self.ending.is_some() || self.connection.link != link {
            return;
        }
        if let Ok(Applied::Refused(refused)) = applied {
            return self.end(Reason::Protocol(refused.to_string()), ctx);
        }
        match (
            self.slice_in.applied(applied.as_ref().ok(), version, whole),
            applied,
        ) {
            (false, _) if whole => {
                let held = self.slice_in.held();
                self.row(|row| (row.routes_held, row.routes_came) = (held, true));
                self.tell(Fact::Routes);
            }
            (false, _) => {}
            (true, Ok(_)) => self.send(&Frame::Resync, ctx),
            // This frame was lost with the router's mailbox: the whole slice once more.
            (true, Err(_)) => self.again_after_the_router(|me, ctx| me.send(&Frame::Resync, ctx), ctx),
        }
        self.send(&self.slice_in.receipt(), ctx);
    }

    fn routes_taken(
        &mut self,
        frames: u64,
        version: RouteVersion,
        ctx: &mut Context<Self>,
    ) -> Result<(), WireError> {
        if !self.connection.slice.taken(frames) {
            return Err(WireError::Malformed(format!(
                "{frames} route frames were never sent"
            )));
        }
        self.slice_held.reach(version);
        self.send_routes(ctx);
        let settled = self.connection.slice.is_settled();
        self.row(|row| (row.routes_sent, row.routes_settled) = (version, settled));
        self.tell(Fact::Routes);
        Ok(())
    }

    fn batch(
        &mut self,
        seq: u64,
        messages: Vec<WireMessage<'_>>,
        bytes: &Bytes,
        ctx: &mut Context<Self>,
    ) -> Result<(), WireError> {
        let board = &self.cluster.board;
        match self.waiting.came(board.taken(&self.node), seq) {
            Came::Again => {
                let seq = board.received(&self.node);
                self.send(&Frame::Forwarded { seq }, ctx);
            }
            Came::Gap(last) => {
                return Err(WireError::Malformed(format!(
                    "batch {seq} came after batch {last}"
                )));
            }
            Came::Fresh => {
                let now = Instant::now();
                let from = &self.node.name;
                let messages = messages
                    .into_iter()
                    .map(|message| message.into_inbound(bytes, now, from));
                let messages: Vec<Inbound> = messages.collect::<Result<_, _>>()?;
                self.row(|row| row.came += messages.len() as u64);
                self.waiting.push(seq, messages);
                self.take_batches(ctx);
            }
        }
        Ok(())
    }

    /// One batch after the other, as this arbiter has room: the acknowledgement is the valve.
    fn take_batches(&mut self, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        let Some((seq, messages)) = self.waiting.next_batch() else {
            return;
        };
        let count = messages.len() as u64;
        let gate = publish::dispatch(messages);
        self.cluster.board.take(&self.node, seq, count, gate);
        ctx.spawn(publish::room().into_actor(self).map(move |(), me, ctx| {
            me.waiting.found_room();
            me.acknowledge(seq, ctx);
            me.take_batches(ctx);
        }));
    }

    /// Tells that everything up to a batch is taken, as soon as it is safe what came with it and before it.
    pub(super) fn acknowledge(&mut self, seq: u64, ctx: &mut Context<Self>) {
        let board = &self.cluster.board;
        if board.received(&self.node) >= seq {
            return;
        }
        let now = &mut task::Context::from_waker(Waker::noop());
        if let Poll::Ready(seq) = board.poll_safe(&self.node, seq, now) {
            return self.send(&Frame::Forwarded { seq }, ctx);
        }
        let (board, node) = (board.clone(), self.node.clone());
        let safe = poll_fn(move |cx| board.poll_safe(&node, seq, cx));
        ctx.spawn(safe.into_actor(self).map(|seq, me, ctx| {
            me.send(&Frame::Forwarded { seq }, ctx);
        }));
    }

    fn on_their_tick(&mut self, number: u64, routes: RouteVersion, ctx: &mut Context<Self>) {
        self.send(&Frame::TickBack { number }, ctx);
        if self.slice_in.tick_came(routes) {
            let (theirs, held) = (routes.0, self.slice_in.held().0);
            tracing::warn!(
                "routes of {} stand at {theirs}, we hold {held}: asking anew",
                self.node.name
            );
            self.send(&Frame::Resync, ctx);
        }
    }
}

/// What a peer says of itself goes into our log: short, and without control characters.
fn one_word(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(64).collect()
}
