//! Floor 4: processes between nodes.
//!
//! | what | where |
//! |---|---|
//! | who is a member, who is dialled when | [`membership`], a value |
//! | who owns a client id | [`ownership`], a value; [`owners`] |
//! | wills of the clients of a node that is lost | [`executor`], a value; [`owners`] |
//! | messages: numbers, window, resume | [`lane`], a value |
//! | routes: snapshot, deltas, what is asked for anew | [`mod@slice`], two values |
//! | whether the other side is there | [`pulse`], a value |
//! | retained messages: what differs, what is asked | [`retained`], a value |
//! | a new cookie for all members | [`rotation`], a value |
//! | frames and their bytes | [`wire`] |
//! | what outlives the processes | [`board`] |
//! | the carrier, the only file that says `ractor` | [`dist`] |
//! | one link | [`peer`] |
//! | the node's own port | [`gate`] |
//! | joins, leaves, dials, the status | [`connector`], [`dial`], [`status`] |
//! | whom the configuration and DNS name | [`discovery`] |
//!
//! The protocol is in `docs/PROTOCOL.md`, "Links between nodes". All of it runs on one arbiter.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use actix::ArbiterHandle;
use supervisors::{DynamicSupervisor, Name};

use crate::broker::router::Router;
use crate::node_name::NodeId;
use crate::registry::CookieJar;

mod alarm;
pub mod board;
pub mod connector;
pub mod dial;
pub mod discovery;
pub mod dist;
pub mod executor;
pub mod gate;
pub mod intake;
pub mod lane;
pub mod members_file;
pub mod membership;
pub mod owners;
pub mod ownership;
pub mod peer;
pub mod pulse;
pub mod retained;
pub mod rotation;
pub mod slice;
pub mod status;
pub mod stream;
pub mod wire;

/// What every process between nodes is given; cloning shares it. Made once, by the tree.
#[derive(Clone)]
pub struct Cluster {
    /// This node.
    pub me: NodeId,
    /// Its cookies: one, but for a while after a rotation.
    pub cookies: CookieJar,
    /// The file of its cookie, unless that came from the environment.
    pub cookie_file: Option<PathBuf>,
    /// Port of the registries of all hosts.
    pub registry_port: u16,
    /// Where the members are remembered.
    pub members_file: PathBuf,
    /// Where all of this runs.
    pub arbiter: ArbiterHandle,
    /// Whom a link tells of routes.
    pub router: Name<Router>,
    /// The carrier of links.
    pub dist: Name<dist::Dist>,
    /// The supervisor of the Peers.
    pub peers: Name<DynamicSupervisor>,
    /// Who knows the members.
    pub connector: Name<connector::Connector>,
    /// How links are encrypted, if they are.
    pub tls: Option<stream::LinkTls>,
    /// Who settles where the session of a client is.
    pub owners: Name<owners::Owners>,
    /// What outlives the processes.
    pub board: board::Board,
    /// The port of [`gate::Gate`]; 0 until it is bound, unless it is configured.
    gate_port: Arc<AtomicU16>,
}

impl Cluster {
    /// The wing of a node whose own port is `gate_port`, 0 for any.
    #[must_use]
    pub fn new(
        (me, cookies): (NodeId, CookieJar),
        registry_port: u16,
        gate_port: u16,
        members_file: PathBuf,
        arbiter: &ArbiterHandle,
        router: &Name<Router>,
    ) -> Self {
        Self {
            me,
            cookies,
            cookie_file: None,
            registry_port,
            members_file,
            arbiter: arbiter.clone(),
            router: router.clone(),
            dist: Name::new("dist"),
            peers: Name::new("peers"),
            connector: Name::new("connector"),
            tls: None,
            owners: Name::new("owners"),
            board: board::Board::default(),
            gate_port: Arc::new(AtomicU16::new(gate_port)),
        }
    }

    /// The same wing for a new life of the node: its names and its port stay, what it knew of links
    /// does not.
    #[must_use]
    pub fn reborn(&self, me: NodeId) -> Self {
        Self {
            me,
            board: board::Board::default(),
            ..self.clone()
        }
    }

    /// The wing of the same life of the node as `before`: what the processes knew of links stays.
    #[must_use]
    pub fn heir_of(self, before: &Self) -> Self {
        Self {
            board: before.board.clone(),
            ..self
        }
    }

    /// The port where this node takes links and control connections; 0 before the gate is bound.
    #[must_use]
    pub fn gate_port(&self) -> u16 {
        self.gate_port.load(Ordering::Acquire)
    }

    fn set_gate_port(&self, port: u16) {
        self.gate_port.store(port, Ordering::Release);
    }

    /// Gives up the lanes whose link did not come back in time.
    fn sweep(&self) {
        let lost = self.board.sweep(std::time::Instant::now());
        if lost > 0 {
            tracing::warn!(
                messages = lost,
                "given up, as the nodes that they were for did not come back"
            );
        }
    }
}
