//! The router's part towards other nodes: this node's own slice out, theirs in.

use std::sync::atomic::Ordering::Relaxed;

use actix::{AsyncContext, Handler, MessageResult};
use bytestring::ByteString;
use supervisors::{Context, Pid};

use super::{Router, TellLinks, Watched};
use crate::broker::links::{
    Applied, ApplyDelta, ApplySnapshot, CheckSlice, Link, LinkDown, LinkUp, LoseRoute, OwnSlice,
    RefusedSlice, RouteVersion, Routes, RoutesHeld, Slice, SliceMark,
};
use crate::limits::LINK_CRASH_GRACE;
use crate::node_name::{NodeId, NodeName};
use crate::routing::SnapshotChunk;

impl Router {
    /// All changes of one tick travel together.
    pub(super) fn tell_links_later(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.telling, true) {
            // To itself, which runs: it cannot be gone.
            let _ = ctx.myself().cast(TellLinks);
        }
    }

    fn tell_links(&mut self) {
        let delta = self
            .tables
            .routes
            .write(|table| table.take_delta())
            .expect("the route table is whole");
        let Some(delta) = delta else { return };
        for link in self.tables.links.read().expect("the links are whole").iter() {
            // A link that is gone is about to be taken down; its next life starts with a snapshot.
            let _ = link.routes.cast(delta.clone());
        }
    }

    pub(super) fn watch_link(&mut self, link: &Link, ctx: &mut Context<Self>) {
        let monitor = ctx.monitor(link.routes.pid());
        self.watched.insert(monitor, Watched::Link(link.node.clone()));
    }

    fn link_up(&mut self, link: Link, ctx: &mut Context<Self>) -> Result<OwnSlice, RefusedSlice> {
        // Whoever stands hears of everything up to now; the new one starts from the answer.
        self.tell_links();
        let slice = self
            .tables
            .routes
            .write(|table| table.node_up(&link.node).map(|_| table.own_snapshot()));
        let slice = slice.expect("the route table is whole")?;
        self.watch_link(&link, ctx);
        self.tables.linked.store(true, Relaxed);
        {
            let mut links = self.tables.links.write().expect("the links are whole");
            links.retain(|known| known.node.name != link.node.name);
            links.push(link);
        }
        self.tables.routes.outdate();
        Ok(slice)
    }

    /// The process behind a link has ended. Another one may take its place within [`LINK_CRASH_GRACE`]: until
    /// then the routes stay, and what is published waits in the link's outbox.
    pub(super) fn link_lost(&self, node: NodeId, pid: Pid, ctx: &mut Context<Self>) {
        if self.stands(&node, &pid) {
            ctx.run_later(LINK_CRASH_GRACE, move |router, _| router.link_fallen(&node, &pid));
        }
    }

    fn link_fallen(&mut self, node: &NodeId, pid: &Pid) {
        if self.stands(node, pid) {
            let (name, incarnation) = (&node.name, node.incarnation);
            tracing::warn!("nodedown {name} (incarnation {incarnation}): its link crashed and is not back");
            self.link_down(node);
        }
    }

    fn stands(&self, node: &NodeId, pid: &Pid) -> bool {
        let stands = |link: &Link| link.node == *node && link.routes.pid() == pid;
        let links = self.tables.links.read().expect("the links are whole");
        links.iter().any(stands)
    }

    fn link_down(&mut self, node: &NodeId) {
        for link in self.tables.links.read().expect("the links are whole").iter() {
            if link.node == *node {
                link.holds.give_up();
            }
        }
        self.tables
            .links
            .write()
            .expect("the links are whole")
            .retain(|known| known.node != *node);
        let routes = &self.tables.routes;
        routes
            .write(|table| table.node_down(node))
            .expect("the route table is whole");
        routes.outdate();
    }

    fn own_slice(&self) -> OwnSlice {
        let mut slice = self
            .tables
            .routes
            .read()
            .expect("the route table is whole")
            .own_snapshot();
        let mut filters = slice.filters.to_vec();
        filters.sort();
        slice.filters = filters.into();
        slice
    }
}

impl Handler<TellLinks> for Router {
    type Result = ();

    fn handle(&mut self, _: TellLinks, _: &mut Context<Self>) {
        self.telling = false;
        self.tell_links();
    }
}

impl Handler<LinkUp> for Router {
    type Result = MessageResult<LinkUp>;

    fn handle(&mut self, LinkUp(link): LinkUp, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.link_up(link, ctx))
    }
}

impl Handler<LinkDown> for Router {
    type Result = ();

    fn handle(&mut self, LinkDown { node }: LinkDown, _: &mut Context<Self>) {
        self.link_down(&node);
    }
}

impl Handler<ApplySnapshot> for Router {
    type Result = MessageResult<ApplySnapshot>;

    fn handle(&mut self, snapshot: ApplySnapshot, _: &mut Context<Self>) -> Self::Result {
        let ApplySnapshot {
            node,
            version,
            filters,
            first,
            last,
        } = snapshot;
        let chunk = SnapshotChunk {
            version,
            filters,
            first,
            last,
        };
        let applied = self
            .tables
            .routes
            .write(|table| table.apply_snapshot(&node, &chunk));
        MessageResult(applied.expect("the route table is whole"))
    }
}

impl Handler<ApplyDelta> for Router {
    type Result = MessageResult<ApplyDelta>;

    fn handle(&mut self, ApplyDelta { node, delta }: ApplyDelta, _: &mut Context<Self>) -> Self::Result {
        let applied: Applied = self
            .tables
            .routes
            .write(|table| table.apply_delta(&node, &delta))
            .expect("the route table is whole");
        MessageResult(applied)
    }
}

impl Handler<SliceMark> for Router {
    type Result = MessageResult<SliceMark>;

    fn handle(&mut self, _: SliceMark, _: &mut Context<Self>) -> Self::Result {
        self.tell_links();
        let table = self.tables.routes.read().expect("the route table is whole");
        MessageResult((table.own_version(), table.own_hash()))
    }
}

impl Handler<CheckSlice> for Router {
    type Result = MessageResult<CheckSlice>;

    fn handle(&mut self, check: CheckSlice, _: &mut Context<Self>) -> Self::Result {
        let CheckSlice { node, version, hash } = check;
        let checked = self
            .tables
            .routes
            .write(|table| table.check(&node, version, hash));
        MessageResult(checked.expect("the route table is whole"))
    }
}

impl Handler<LoseRoute> for Router {
    type Result = bool;

    fn handle(&mut self, LoseRoute(node): LoseRoute, _: &mut Context<Self>) -> bool {
        let lost = self.tables.routes.write(|table| table.lose_one(&node));
        lost.expect("the route table is whole")
    }
}

impl Handler<Slice> for Router {
    type Result = MessageResult<Slice>;

    fn handle(&mut self, _: Slice, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.own_slice())
    }
}

impl Handler<Routes> for Router {
    type Result = Vec<(ByteString, Vec<NodeName>)>;

    fn handle(&mut self, _: Routes, _: &mut Context<Self>) -> Self::Result {
        let table = self.tables.routes.read().expect("the route table is whole");
        table.listing(&self.tables.node.name)
    }
}

impl Handler<RoutesHeld> for Router {
    type Result = Vec<(NodeId, usize, RouteVersion)>;

    fn handle(&mut self, _: RoutesHeld, _: &mut Context<Self>) -> Self::Result {
        let table = self.tables.routes.read().expect("the route table is whole");
        table
            .replicas()
            .map(|(node, slice)| (node.clone(), slice.len(), slice.version()))
            .collect()
    }
}
