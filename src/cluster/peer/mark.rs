//! Whether the routes that a node holds of another are those that the other has: told and compared each
//! second.
//!
//! A mark is asked of the router after the deltas that lead to it, and compared by the other router after
//! them: both stand at the same version although the slice changes all the time. The tick does not wait
//! for it, as a router that is busy is no dead node.

use actix::{ActorFutureExt, AsyncContext, WrapFuture};
use supervisors::Context;

use super::Peer;
use crate::broker::links::{CheckSlice, RouteVersion, SliceMark};
use crate::broker::office::Office;
use crate::cluster::slice::Mark;
use crate::cluster::wire::v1::Frame;

impl Peer {
    /// Tells the other side what our slice is.
    pub(super) fn send_mark(&mut self, ctx: &mut Context<Self>) {
        if !self.up {
            return;
        }
        let link = self.connection.link;
        let asked = self.cluster.router.call(SliceMark).into_actor(self);
        ctx.spawn(asked.map(move |mark, me, ctx| {
            // A router that is being restarted is asked again with the next tick.
            if let Ok((version, hash)) = mark
                && me.ending.is_none()
                && me.connection.link == link
            {
                me.send(&Frame::SliceMark { version, hash }, ctx);
            }
        }));
    }

    /// Compares what the other side has with what we hold of it.
    pub(super) fn on_their_mark(&mut self, version: RouteVersion, hash: u64, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        let check = CheckSlice { node, version, hash };
        let asked = self.cluster.router.call(check).into_actor(self);
        ctx.spawn(asked.map(move |checked, me, ctx| {
            let Ok(checked) = checked else { return };
            match me.slice_in.mark_came(checked) {
                Mark::Nothing => {}
                Mark::Drifted { held } => me.drifted(version, hash, held, ctx),
                Mark::Repaired => {
                    me.row(|row| row.route_drift = false);
                    tracing::info!("routes of {} are repaired", me.node.name);
                }
            }
        }));
    }

    fn drifted(&mut self, version: RouteVersion, theirs: u64, held: u64, ctx: &mut Context<Self>) {
        if self.ending.is_some() {
            return;
        }
        self.row(|row| row.route_drift = true);
        if let Some(office) = Office::here() {
            office.counters().route_repairs.one();
        }
        let (name, at) = (&self.node.name, version.0);
        tracing::error!(
            "routes of {name} at version {at} have drifted: we hold {held:016x}, it has {theirs:016x}; \
             asking anew"
        );
        self.send(&Frame::Resync, ctx);
    }
}
