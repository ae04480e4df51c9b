//! One life of a node: the values that its processes feed, and what those processes do between them.
//!
//! The values are the broker's own; what stands here for the connector, the router and the retainer is
//! their glue and no more. Where a process may crash while it is asked something, it does so here too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytestring::ByteString;
use ermine::broker::links::{RouteDelta, RouteVersion};
use ermine::cluster::board::Board;
use ermine::cluster::membership::{Effect, Event as Change, Membership, Now};
use ermine::cluster::ownership::{Epoch, Slip};
use ermine::cluster::wire::v1::{Answer, Hello, MemberRecord, Refusal};
use ermine::limits::HANDSHAKE_DEADLINE;
use ermine::mqtt::message::Message;
use ermine::node_name::{NodeId, NodeName};
use ermine::routing::retained::{RetainedStore, Told};
use ermine::routing::stamps::{HybridClock, Stamp};
use ermine::routing::{RouteTable, SnapshotChunk};
use tokio::sync::oneshot;

use crate::clients::Clients;
use crate::peer::{Peer, ToPeer};
use crate::traffic::{Aside, Waiting};
use crate::world::{Inbox, World};

/// A welcomed connection, to become a link.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) node: NodeId,
    pub(crate) conn: u64,
    pub(crate) received: u64,
    pub(crate) members: Vec<MemberRecord>,
    pub(crate) dialled: bool,
}

#[derive(Debug)]
pub(crate) enum Route {
    Chunk(SnapshotChunk),
    Delta(RouteDelta),
}

#[derive(Debug)]
pub(crate) enum Replicated {
    Message(Message, Stamp),
    Tombstone(Told),
}

/// What the processes of a node say to each other.
#[derive(Debug)]
pub(crate) enum Mail {
    // The connector.
    Tick,
    Sweep,
    SweepOnce,
    Membership(Change),
    Linked(NodeId, Vec<MemberRecord>),
    Unlinked(NodeId),
    Offer {
        conn: u64,
        hello: Hello,
    },
    Refused(NodeName, Refusal),
    Settle(Ticket),
    // The supervisor of the Peers.
    StartPeer(Ticket),
    Peer(u64, ToPeer),
    Gone(u64),
    // The router.
    LinkUp {
        peer: u64,
    },
    LinkDown(NodeId),
    LinkFallen(NodeId, u64),
    Apply {
        peer: u64,
        conn: u64,
        route: Route,
    },
    AskMark {
        peer: u64,
        conn: u64,
    },
    Check {
        peer: u64,
        version: RouteVersion,
        hash: u64,
    },
    AskSlice {
        peer: u64,
        conn: u64,
    },
    TellLinks,
    // The retainer.
    Retain(Message, Option<Stamp>),
    Merge {
        peer: u64,
        replicated: Vec<Replicated>,
    },
    Expire,
    // The store.
    Stored {
        from: NodeId,
        ids: Vec<u64>,
        open: Option<oneshot::Sender<()>>,
    },
    // Clients, and the keeper of ownership.
    Connect(ByteString),
    Disconnect(ByteString),
    Served(ByteString, u64),
    NotAnswered(ByteString, u64),
    Claimed(ByteString, u64, bool),
    TakeAway {
        id: ByteString,
        epoch: Option<Epoch>,
    },
    Claim(ByteString, u64),
    Over(ByteString),
    Packed {
        id: ByteString,
        epoch: Epoch,
        state: bool,
    },
    Stands(NodeId),
    Fell(NodeId),
    Said(NodeId, Vec<Slip>),
    Wake,
    Compare(bool),
    Forget(Vec<(ByteString, Epoch)>),
    FlushSlips,
}

/// A link as the router knows it.
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) peer: u64,
    pub(crate) waiting: Waiting,
}

pub(crate) struct Life {
    pub(crate) id: NodeId,
    pub(crate) serial: u64,
    pub(crate) membership: Membership,
    pub(crate) board: Board,
    /// What the board keeps of lanes, as the ledger counts it.
    pub(crate) aside: BTreeMap<NodeName, Aside>,
    /// Nodes that were welcomed and have no row yet; as on the board, whose rows want processes.
    welcomed: BTreeMap<NodeName, u64>,
    pub(crate) table: RouteTable<()>,
    /// What clients have subscribed here: what `table` is to say.
    pub(crate) filters: BTreeSet<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) telling: bool,
    /// Until then the router, and the retainer, are being restarted.
    pub(crate) no_router: u64,
    pub(crate) no_retainer: u64,
    pub(crate) store: RetainedStore,
    /// Whether there was ever another node: before, nothing is kept of what is cleared.
    pub(crate) shared: bool,
    pub(crate) clock: HybridClock,
    pub(crate) peers: BTreeMap<u64, Peer>,
    /// The board's rows: the Peer of each node.
    pub(crate) rows: BTreeMap<NodeName, u64>,
    pub(crate) clients: Clients,
}

impl Life {
    pub(crate) fn new(id: NodeId, serial: u64, disk: &[MemberRecord], now: Now) -> Self {
        Self {
            membership: Membership::new(id.clone(), disk, now),
            id,
            serial,
            board: Board::default(),
            aside: BTreeMap::new(),
            welcomed: BTreeMap::new(),
            table: RouteTable::new(),
            filters: BTreeSet::new(),
            links: Vec::new(),
            telling: false,
            no_router: 0,
            no_retainer: 0,
            store: RetainedStore::default(),
            shared: false,
            clock: HybridClock::default(),
            peers: BTreeMap::new(),
            rows: BTreeMap::new(),
            clients: Clients::default(),
        }
    }

    /// As [`Board::has_link`].
    pub(crate) fn has_link(&self, node: &NodeId, now: u64) -> bool {
        let row = self.rows.get(&node.name).and_then(|peer| self.peers.get(peer));
        let welcomed = self.welcomed.get(&node.name);
        row.is_some_and(|peer| peer.node == *node && peer.is_carried())
            || welcomed.is_some_and(|at| now - at < HANDSHAKE_DEADLINE.as_micros() as u64)
    }

    /// As [`Board::adopting`].
    fn adopting(&self, node: &NodeId) -> Option<u64> {
        let peer = *self.rows.get(&node.name)?;
        let known = self.peers.get(&peer)?;
        (known.node == *node && !known.ending).then_some(peer)
    }
}

impl World {
    pub(crate) fn read(&mut self, host: usize, mail: Mail) {
        match mail {
            Mail::Tick => self.change(host, Change::Tick),
            Mail::Sweep => {
                self.sweep(host);
                self.after(host, Duration::from_secs(1), Mail::Sweep);
            }
            Mail::SweepOnce => self.sweep(host),
            Mail::Membership(change) => self.change(host, change),
            Mail::Linked(node, records) => {
                let from = node.name.clone();
                self.change(host, Change::Linked(node));
                let name = from.clone();
                self.change(host, Change::Heard { from, records });
                let life = self.life(host);
                let (row, records) = (life.rows.get(&name).copied(), life.membership.records());
                if let Some(peer) = row {
                    let tell = ToPeer::Members(records);
                    self.post(host, Inbox::Wing, Mail::Peer(peer, tell));
                }
            }
            Mail::Unlinked(node) => {
                let name = node.name.clone();
                self.change(host, Change::Unlinked(node));
                self.change(host, Change::DialFailed(name));
            }
            Mail::Offer { conn, hello } => self.offered(host, conn, hello),
            Mail::Refused(name, refusal) => {
                self.change(host, Change::DialFailed(name));
                if let Refusal::Left(record) = refusal {
                    self.change(host, Change::RefusedAsLeft(record));
                }
            }
            Mail::Settle(ticket) => self.settle(host, ticket),
            Mail::StartPeer(ticket) => self.start_peer(host, ticket),
            Mail::Peer(peer, what) => self.tell_peer(host, peer, what),
            Mail::Gone(peer) => self.peer_gone(host, peer),
            Mail::Retain(message, stamp) => self.retain(host, &message, stamp),
            Mail::Merge { peer, replicated } => self.merge(host, peer, replicated),
            Mail::Expire => {
                let (now, wall) = (self.instant(), self.wall_us(host));
                self.life(host).store.expire(now, wall, &mut |_, _| ());
                self.after(host, Duration::from_secs(1), Mail::Expire);
            }
            Mail::Stored { from, ids, open } => {
                // Nobody waits for what came from a life that is over.
                open.and_then(|open| open.send(()).ok());
                self.stored(host, &from, ids);
            }
            Mail::LinkUp { .. }
            | Mail::LinkDown(_)
            | Mail::LinkFallen(..)
            | Mail::Apply { .. }
            | Mail::AskMark { .. }
            | Mail::Check { .. }
            | Mail::AskSlice { .. }
            | Mail::TellLinks => self.tell_router(host, mail),
            mail => self.tell_clients(host, mail),
        }
    }

    pub(crate) fn change(&mut self, host: usize, change: Change) {
        let now = self.both(host);
        let mut out = Vec::new();
        self.life(host).membership.handle(change, now, &mut out);
        for effect in out {
            self.carry_out(host, effect);
        }
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Dial { name, join } => {
                let to = self.host_of(&name);
                self.dial(host, to, join);
            }
            Effect::Close(name) => {
                if let Some(peer) = self.life(host).rows.get(&name).copied() {
                    self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Leave));
                }
            }
            Effect::Gossip => {
                let life = self.life(host);
                let (rows, records) = (life.rows.clone(), life.membership.records());
                for peer in rows.into_values() {
                    let tell = ToPeer::Members(records.clone());
                    self.post(host, Inbox::Wing, Mail::Peer(peer, tell));
                }
            }
            Effect::Save => self.hosts[host].disk = self.life(host).membership.records(),
            Effect::WakeAt(at) => {
                let pause = at.saturating_duration_since(self.instant());
                self.after(host, pause, Mail::Tick);
            }
        }
    }

    fn offered(&mut self, host: usize, conn: u64, hello: Hello) {
        let now = self.now;
        let other = hello.node.clone();
        let life = self.life(host);
        if let Err(refusal) = life.membership.admit(&hello) {
            return self.answer(conn, Answer::Refuse(refusal));
        }
        life.welcomed.insert(other.name.clone(), now);
        self.change(host, Change::Welcomed(other.name.clone()));
        self.make_way(host, &other);
        self.welcome(host, conn, &other, hello);
    }

    /// The one before has to be out of the way, or has let its connection go: only then is it sure what came.
    fn welcome(&mut self, host: usize, conn: u64, other: &NodeId, hello: Hello) {
        let ticket = Ticket {
            node: other.clone(),
            conn,
            received: hello.received,
            members: hello.members,
            dialled: false,
        };
        self.post(host, Inbox::Wing, Mail::Peer(0, ToPeer::Welcome(ticket)));
    }

    /// Behind whatever had to make way.
    pub(crate) fn welcomed(&mut self, host: usize, ticket: Ticket) {
        let name = &ticket.node.name;
        let life = self.life(host);
        let in_the_way = life.rows.get(name).and_then(|peer| life.peers.get(peer));
        if in_the_way.is_some_and(|peer| peer.ending || peer.node != ticket.node) {
            return self.after(
                host,
                Duration::from_micros(10),
                Mail::Peer(0, ToPeer::Welcome(ticket)),
            );
        }
        let answer = Answer::Welcome {
            node: life.id.clone(),
            received: life.board.received(&ticket.node),
            members: life.membership.records(),
        };
        self.answer(ticket.conn, answer);
        self.settle(host, ticket);
    }

    /// As [`ermine::cluster::peer::make_way`].
    fn make_way(&mut self, host: usize, node: &NodeId) {
        let life = self.life(host);
        let (adopting, row) = (life.adopting(node), life.rows.get(&node.name).copied());
        if let Some(peer) = adopting {
            self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Park));
        } else if let Some(peer) = row {
            self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Replace));
        }
    }

    fn settle(&mut self, host: usize, ticket: Ticket) {
        let peer = self.life(host).adopting(&ticket.node);
        if let Some(peer) = peer {
            return self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Adopt(ticket)));
        }
        self.make_way(host, &ticket.node);
        self.post(host, Inbox::Wing, Mail::StartPeer(ticket));
    }

    fn start_peer(&mut self, host: usize, ticket: Ticket) {
        let life = self.life(host);
        let child = life
            .rows
            .get(&ticket.node.name)
            .and_then(|peer| life.peers.get(peer));
        match child.map(|child| child.ending) {
            None => self.new_peer(host, ticket),
            Some(true) => self.after(host, Duration::from_micros(10), Mail::StartPeer(ticket)),
            Some(false) => {
                self.close(ticket.conn, host);
                if ticket.dialled {
                    let failed = Change::DialFailed(ticket.node.name);
                    self.post(host, Inbox::Wing, Mail::Membership(failed));
                }
            }
        }
    }

    /// As [`Board::arrived`].
    pub(crate) fn arrived(&mut self, host: usize, name: &NodeName) {
        self.life(host).welcomed.remove(name);
    }

    pub(crate) fn inserted(&mut self, host: usize, name: &NodeName, peer: u64) {
        let now = self.now;
        let life = self.life(host);
        life.rows.insert(name.clone(), peer);
        let fresh = |at: &u64| now - at < HANDSHAKE_DEADLINE.as_micros() as u64;
        life.welcomed.retain(|known, at| known != name && fresh(at));
    }
}
