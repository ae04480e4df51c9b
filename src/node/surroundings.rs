//! What the rooms of a node tell its operators.

use std::path::Path;
use std::time::SystemTime;

use futures_util::future::LocalBoxFuture;
use tokio::sync::mpsc;

use super::Plan;
use super::checking::Checker;
use super::draining::drain;
use super::rotating::rotate;
use crate::admin::control::Surroundings;
use crate::admin::protocol::{
    self, ClientEntry, ClusterStatus, DrainOrder, Greeting, JoinStep, ListenerEntry, NodeAudit, NodeStatus,
    Reach, RotateOrder, Rotated, RouteEntry, StoreOrder,
};
use crate::broker::clients::{self, Known, ListClients};
use crate::broker::door::Door;
use crate::broker::links::{LoseRoute, Routes};
use crate::cluster::board::LinkState;
use crate::cluster::connector::{Expel, Join, Leave, Status};
use crate::cluster::dial::Step;
use crate::cluster::status;
use crate::cluster::wire::VERSIONS;
use crate::config::ListenerConfig;
use crate::node_name::NodeName;
use crate::store::tools::Contents;

/// The rooms of a node.
pub(super) struct Rooms(pub(super) Plan);

pub(super) fn millis(since: SystemTime) -> u64 {
    since
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |age| age.as_millis() as u64)
}

pub(super) fn restarting(what: &str) -> String {
    format!("the {what} is being restarted: try again")
}

impl Rooms {
    async fn cluster_status(&self) -> Result<status::ClusterStatus, String> {
        let wing = self.0.wing().ok_or_else(|| restarting("cluster"))?;
        wing.connector
            .call(Status)
            .await
            .map_err(|_| restarting("connector"))
    }

    async fn list(&self) -> Result<Vec<Known>, String> {
        self.0
            .names()
            .clients
            .call(ListClients)
            .await
            .map_err(|_| restarting("keeper of clients"))
    }

    async fn route_table(&self) -> Result<Vec<RouteEntry>, String> {
        let listing = self
            .0
            .names()
            .router
            .call(Routes)
            .await
            .map_err(|_| restarting("router"))?;
        Ok(listing
            .into_iter()
            .map(|(filter, nodes)| RouteEntry {
                filter: filter.to_string(),
                nodes,
            })
            .collect())
    }

    async fn node_status(&self) -> Result<NodeStatus, String> {
        let plan = &self.0;
        let cluster = self.cluster_status().await?;
        let tables = plan.tables();
        // Counted where they lie: a list of 100,000 would be made for its length alone.
        let (sessions, connected) = clients::count(&tables);
        let routes = tables.routes.read().map_err(|_| restarting("router"))?.len();
        let counters = tables.counted().list().into_iter();
        Ok(NodeStatus {
            node: tables.node.name.clone(),
            incarnation: tables.node.incarnation,
            version: env!("CARGO_PKG_VERSION").into(),
            since_ms: millis(plan.since),
            listeners: plan.doors.iter().map(Door::url).collect(),
            dist_port: plan.wing().map_or(0, |wing| wing.gate_port()),
            clients: connected as u64,
            sessions: sessions as u64,
            routes: routes as u64,
            processes: 0,
            restarts: 0,
            peers: cluster
                .members
                .iter()
                .filter(|member| member.is_running())
                .count() as u64,
            allow_crash: plan.config.allow_crash,
            counters: counters.map(|(name, count)| (name.to_owned(), count)).collect(),
        })
    }

    async fn client_entries(&self) -> Result<Vec<ClientEntry>, String> {
        let mut entries: Vec<_> = self.list().await?.into_iter().map(client).collect();
        entries.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Ok(entries)
    }

    async fn members(&self) -> Result<ClusterStatus, String> {
        let seen = self.cluster_status().await?;
        let tables = self.0.tables();
        let (routes, version) = {
            let table = tables.routes.read().map_err(|_| restarting("router"))?;
            (table.own_len(), table.own_version())
        };
        let own = protocol::Member {
            node: seen.node.name.clone(),
            incarnation: Some(seen.node.incarnation),
            running: true,
            link: "local".into(),
            since_ms: millis(self.0.since),
            routes: routes as u64,
            routes_version: version.0,
            route_drift: false,
            round_trip_us: None,
            sent: 0,
            received: 0,
            reason: None,
            canary: None,
        };
        let left = seen.left.into_iter().map(|left| protocol::Left {
            node: left.node,
            at_ms: millis(left.at),
            forced_out_by: left.by,
        });
        let left = left.collect();
        let forced_out = seen.forced_out.map(|(by, at)| protocol::ForcedOut {
            by,
            at_ms: millis(at),
        });
        let mut members: Vec<_> = seen.members.into_iter().map(member).chain([own]).collect();
        members.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(ClusterStatus {
            node: seen.node.name,
            members,
            left,
            forced_out,
        })
    }
}

fn client(known: Known) -> ClientEntry {
    let session = known.session.whereis();
    ClientEntry {
        client_id: known.client_id.to_string(),
        connected: known.attached,
        since_ms: millis(known.since),
        pid: session.as_ref().map(|session| session.pid().to_string()),
        mailbox_len: session.map_or(0, |session| session.pid().mailbox_len() as u64),
    }
}

fn listener(door: &Door, configured: &ListenerConfig) -> ListenerEntry {
    let (crowd, name) = (door.crowd(), door.name());
    let seen = crowd.seen();
    ListenerEntry {
        name: name.into(),
        protocol: name.split(':').next().unwrap_or(name).into(),
        address: door.address().to_string(),
        running: door.is_open(),
        connections: seen.connections as u64,
        connections_max: crowd.limits().connections_max as u64,
        accepted: seen.accepted,
        refused: seen.refused,
        limits: configured.limits.effective(),
    }
}

fn member(seen: status::MemberStatus) -> protocol::Member {
    let running = seen.is_running();
    protocol::Member {
        node: seen.node,
        incarnation: seen.incarnation,
        running,
        link: seen.link.map_or(seen.state, LinkState::as_str).into(),
        since_ms: millis(seen.since),
        routes: seen.routes_held as u64,
        routes_version: seen.routes_version.0,
        round_trip_us: seen.round_trip.map(|trip| trip.as_micros() as u64),
        sent: seen.messages.0,
        received: seen.messages.1,
        reason: seen.reason,
        route_drift: seen.route_drift,
        canary: seen.link.map(|_| canary(seen.canaries).to_owned()),
    }
}

fn canary((out, came): (bool, bool)) -> &'static str {
    match (out, came) {
        (true, true) => "both",
        (true, false) => "out",
        (false, true) => "in",
        (false, false) => "none",
    }
}

impl Surroundings for Rooms {
    fn status(&self) -> LocalBoxFuture<'_, Result<NodeStatus, String>> {
        Box::pin(self.node_status())
    }

    fn routes(&self) -> LocalBoxFuture<'_, Result<Vec<RouteEntry>, String>> {
        Box::pin(self.route_table())
    }

    fn clients(&self) -> LocalBoxFuture<'_, Result<Vec<ClientEntry>, String>> {
        Box::pin(self.client_entries())
    }

    fn listeners(&self) -> Vec<ListenerEntry> {
        let configured = self.0.config.listeners.iter();
        let doors = self.0.doors.iter().zip(configured);
        doors
            .map(|(door, configured)| listener(door, configured))
            .collect()
    }

    fn audit(&self) -> LocalBoxFuture<'_, Result<NodeAudit, String>> {
        Box::pin(self.books())
    }

    fn cluster(&self) -> LocalBoxFuture<'_, Result<ClusterStatus, String>> {
        Box::pin(self.members())
    }

    fn join(&self, other: NodeName, steps: mpsc::Sender<JoinStep>) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let wing = self.0.wing().ok_or_else(|| restarting("cluster"))?;
            let (progress, mut told) = mpsc::unbounded_channel();
            let asked = wing
                .connector
                .call(Join {
                    name: other,
                    progress,
                })
                .await;
            asked.map_err(|_| restarting("connector"))?;
            let mut joined = false;
            while let Some(step) = told.recv().await {
                joined = step.step == Step::Canary && step.outcome.is_ok();
                let step = JoinStep {
                    step: step.step.to_string(),
                    ok: step.outcome.is_ok(),
                    detail: step.outcome.unwrap_or_else(|failed| failed),
                };
                let failed = (!step.ok).then(|| step.detail.clone());
                // An operator who has gone away does not end the join.
                let _ = steps.send(step).await;
                if let Some(sentence) = failed {
                    return Err(sentence);
                }
            }
            // A connector that crashes takes the join with it.
            if joined {
                Ok(())
            } else {
                Err("the join was broken off: look at the log, then join again".into())
            }
        })
    }

    fn leave(&self) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let wing = self.0.wing().ok_or_else(|| restarting("cluster"))?;
            wing.connector
                .call(Leave)
                .await
                .map_err(|_| restarting("connector"))
        })
    }

    fn expel(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let wing = self.0.wing().ok_or_else(|| restarting("cluster"))?;
            let expelled = wing.connector.call(Expel(node)).await;
            expelled.map_err(|_| restarting("connector"))?
        })
    }

    fn drain(
        &self,
        order: DrainOrder,
        steps: mpsc::Sender<JoinStep>,
    ) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move { drain(&self.0, &order, &steps).await })
    }

    fn check(
        &self,
        other: NodeName,
        steps: mpsc::Sender<JoinStep>,
    ) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let here = self.cluster_status().await?.running_nodes;
            Checker::new(&self.0).check(&other, &here, &steps).await
        })
    }

    fn greet(&self, from: NodeName, clock_ms: u64) -> LocalBoxFuture<'_, Result<Greeting, String>> {
        Box::pin(async move {
            let seen = self.cluster_status().await?;
            let clock = millis(SystemTime::now());
            let apart = clock.abs_diff(clock_ms);
            tracing::info!("a check by {from}: it has come in and holds our cookie; clocks {apart} ms apart");
            let others = seen
                .running_nodes
                .into_iter()
                .filter(|name| *name != seen.node.name);
            Ok(Greeting {
                clock_ms: clock,
                link_versions: (VERSIONS.min, VERSIONS.max),
                members: others.collect(),
            })
        })
    }

    fn reach(&self, from: NodeName, nodes: Vec<NodeName>, canary: bool) -> LocalBoxFuture<'_, Vec<Reach>> {
        Box::pin(async move {
            let reached = Checker::new(&self.0).reach(&nodes, canary).await;
            for Reach { node, failed } in &reached {
                match failed {
                    None => tracing::info!("a check by {from}: {node} is reached from here"),
                    Some(why) => tracing::warn!("a check by {from}: {node} is not reached from here: {why}"),
                }
            }
            reached
        })
    }

    fn reload(&self) -> LocalBoxFuture<'_, Vec<Result<String, String>>> {
        Box::pin(self.0.reload())
    }

    fn rotate(&self, order: RotateOrder) -> LocalBoxFuture<'_, Result<Rotated, String>> {
        Box::pin(async move { rotate(&self.0, &order).await })
    }

    fn store(&self, order: StoreOrder) -> LocalBoxFuture<'_, Result<Contents, String>> {
        let store = self.0.store.clone();
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || match order {
                StoreOrder::Stats => store.contents(&mut |_| {}),
                StoreOrder::Backup { to } => store.backup(Path::new(&to), &mut |_| {}),
            });
            let done = done.await.map_err(|_| "the store could not be read".to_owned())?;
            done.map_err(|error| error.to_string())
        })
    }

    fn lose_route(&self, node: NodeName) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let name = node.clone();
            let lost = self.0.tables().names.router.call(LoseRoute(node)).await;
            match lost.map_err(|_| restarting("router"))? {
                true => Ok(()),
                false => Err(format!("no route of {name} is held here: see `ermine routes`")),
            }
        })
    }

    fn stop(&self) {
        self.0.stop.notify_one();
    }
}
