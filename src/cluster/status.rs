//! The cluster as this node sees it, for people and programs.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Cluster;
use super::board::{LinkState, Row};
use super::membership::{Member, Membership, State};
use crate::broker::links::RouteVersion;
use crate::node_name::{Incarnation, NodeId, NodeName};

/// The answer to [`super::connector::Status`].
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// The node that was asked.
    pub node: NodeId,
    /// Members that run, this node among them, by name.
    pub running_nodes: Vec<NodeName>,
    /// Members that did not leave and are not reached, by name.
    pub stopped_nodes: Vec<NodeName>,
    /// The other members, by name.
    pub members: Vec<MemberStatus>,
    /// Who left, or was forced out, by name.
    pub left: Vec<LeftStatus>,
    /// Who forced this node out and when, if it works alone for that.
    pub forced_out: Option<(NodeName, SystemTime)>,
}

/// One that is no longer a member.
#[derive(Clone, Debug, Serialize)]
pub struct LeftStatus {
    /// Its name.
    pub node: NodeName,
    /// When it left.
    pub at: SystemTime,
    /// Who forced it out, if somebody did.
    pub by: Option<NodeName>,
}

/// One other member.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// Its name.
    pub node: NodeName,
    /// Which life of it was linked last; `None` before the first link.
    pub incarnation: Option<Incarnation>,
    /// `joining`, `up`, `suspect` or `down`.
    pub state: &'static str,
    /// Since when it is in that state.
    pub since: SystemTime,
    /// The link, if there is one.
    pub link: Option<LinkState>,
    /// Last measured round trip over it.
    pub round_trip: Option<Duration>,
    /// Whether a canary flew each way: ours came back, theirs came.
    pub canaries: (bool, bool),
    /// Messages sent to it and received from it over the present link.
    pub messages: (u64, u64),
    /// Routes of it that this node holds.
    pub routes_held: usize,
    /// The version of its slice of the route table that they stand at.
    pub routes_version: RouteVersion,
    /// Whether they were found to differ from what the node has, and are not repaired.
    pub route_drift: bool,
    /// Why it is not linked, as far as known.
    pub reason: Option<String>,
}

/// Routes held of each node, as the router answers.
pub(super) type Held = Vec<(NodeId, usize, RouteVersion)>;

impl ClusterStatus {
    /// Puts together what the connector, the board and the router know. `reason` tells why a member
    /// is not linked.
    pub(super) fn new(
        cluster: &Cluster,
        membership: &Membership,
        reason: impl Fn(&NodeName) -> Option<String>,
        held: &Held,
    ) -> Self {
        let present = membership
            .members()
            .filter(|(_, member)| member.state != State::Left);
        let members: Vec<_> = present
            .map(|(name, member)| {
                let row = cluster.board.row(name);
                let held = held.iter().find(|(node, ..)| node.name == *name);
                MemberStatus::new(name, member, row.as_ref(), held, reason(name))
            })
            .collect();
        let named = |running: bool| {
            let of = members
                .iter()
                .filter(move |member| member.is_running() == running);
            of.map(|member| member.node.clone())
        };
        let mut running_nodes: Vec<_> = named(true).chain([cluster.me.name.clone()]).collect();
        running_nodes.sort();
        let stopped_nodes = named(false).collect();
        let gone = membership
            .members()
            .filter(|(_, member)| member.state == State::Left);
        let left = gone.map(|(name, member)| LeftStatus {
            node: name.clone(),
            at: member.stamped(),
            by: member.by.clone(),
        });
        let forced_out = membership.forced_out().map(|(by, at)| (by.clone(), at));
        Self {
            node: cluster.me.clone(),
            running_nodes,
            stopped_nodes,
            members,
            left: left.collect(),
            forced_out,
        }
    }
}

impl MemberStatus {
    fn new(
        node: &NodeName,
        member: &Member,
        row: Option<&Row>,
        held: Option<&(NodeId, usize, RouteVersion)>,
        reason: Option<String>,
    ) -> Self {
        let linked = matches!(member.state, State::Up | State::Suspect);
        Self {
            node: node.clone(),
            incarnation: member.incarnation,
            state: member.state.as_str(),
            since: member.since,
            link: row.map(|row| row.state),
            round_trip: row.and_then(|row| row.round_trip),
            canaries: row.map_or((false, false), |row| row.canaries),
            messages: row.map_or((0, 0), |row| (row.forwarded, row.came)),
            routes_held: held.map_or(0, |(_, len, _)| *len),
            routes_version: held.map_or(RouteVersion(0), |(_, _, version)| *version),
            route_drift: row.is_some_and(|row| row.route_drift),
            reason: reason.filter(|_| !linked),
        }
    }

    /// Whether it is reached.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == State::Up.as_str() || self.state == State::Suspect.as_str()
    }
}
