//! One link of one life: what `cluster::peer` does between the values, step by step.

use std::collections::VecDeque;
use std::time::Duration;

use ermine::broker::links::{Applied, OwnSlice, RefusedSlice, RouteDelta, RouteVersion};
use ermine::cluster::intake::Waiting;
use ermine::cluster::membership::Event as Change;
use ermine::cluster::ownership::Slip;
use ermine::cluster::pulse::{Finding, Pulse};
use ermine::cluster::retained::Pull;
use ermine::cluster::slice::{Mark, SliceIn, SliceOut};
use ermine::cluster::wire::v1::{self, Frame, MemberRecord};
use ermine::limits::{DRAIN_LINKS_WITHIN, LINK_CRASH_GRACE, LINK_GRACE, PEER_TICK};
use ermine::node_name::NodeId;
use ermine::routing::Checked;

use crate::life::{Mail, Ticket};
use crate::net::Item;
use crate::traffic::Counted;
use crate::world::{Inbox, MS, World};

/// Pause before the router is asked again whose crash swallowed a question.
pub(crate) const ROUTER_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) enum ToPeer {
    /// From the connector, and from whoever opened a connection.
    Members(Vec<MemberRecord>),
    Slips(Vec<Slip>),
    Leave,
    Replace,
    Park,
    Adopt(Ticket),
    Welcome(Ticket),
    /// From the other end.
    Came(u64, Item),
    ReadyNow(u64),
    /// From the router.
    LinkUp(Result<OwnSlice, RefusedSlice>),
    NoRouter(Option<u64>),
    AskLinkUp,
    AskSlice(u64),
    Resync(u64),
    Slice(u64, OwnSlice),
    Applied {
        conn: u64,
        applied: Option<Applied>,
        version: RouteVersion,
        whole: bool,
    },
    Mark {
        conn: u64,
        version: RouteVersion,
        hash: u64,
    },
    Checked(Checked),
    Delta(RouteDelta),
    /// From the retainer, from publishers, and from itself.
    Merged,
    Bell,
    Room(u64),
    Look,
    Grace(u64),
    Drained,
    Crash,
}

#[derive(Debug)]
pub(crate) enum Reason {
    Closed,
    Silent,
    Leaving,
    Ordered,
    Protocol(String),
    Replaced,
    NotReady,
    Crashed,
}

pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) up: bool,
    pub(crate) ending: bool,
    leaving: bool,
    pub(crate) conn: u64,
    pub(crate) ready: bool,
    pub(crate) early: Vec<Vec<u8>>,
    pub(crate) slice: SliceOut,
    pub(crate) pull: Pull,
    pub(crate) pulse: Pulse,
    pub(crate) broken: Option<u64>,
    pub(crate) lane: Counted,
    pub(crate) slice_in: SliceIn,
    pub(crate) waiting: Waiting,
    /// Batches that have found room and are not acknowledged.
    pub(crate) unacked: VecDeque<u64>,
    pub(crate) members: Vec<MemberRecord>,
    abandons: bool,
}

impl Peer {
    pub(crate) fn is_carried(&self) -> bool {
        !self.ending && self.broken.is_none()
    }
}

impl World {
    pub(crate) fn new_peer(&mut self, host: usize, ticket: Ticket) {
        let (now, serial) = (self.instant(), self.conns_made + 1);
        self.conns_made = serial;
        let node = ticket.node.clone();
        let lane = self.lane_for(host, &node, ticket.received);
        let lane = match lane {
            Ok(lane) => lane,
            Err(error) => self.violated(&format!("{} with {node}: {error}", self.hosts[host].name)),
        };
        let peer = Peer {
            node: node.clone(),
            up: false,
            ending: false,
            leaving: false,
            conn: ticket.conn,
            ready: false,
            early: Vec::new(),
            slice: SliceOut::default(),
            pull: Pull::default(),
            pulse: Pulse::new(now),
            broken: None,
            lane,
            slice_in: SliceIn::default(),
            waiting: Waiting::default(),
            unacked: VecDeque::new(),
            members: ticket.members,
            abandons: false,
        };
        self.life(host).peers.insert(serial, peer);
        self.inserted(host, &node.name, serial);
        self.carry(ticket.conn, host, serial);
        self.after(host, PEER_TICK / 4, Mail::Peer(serial, ToPeer::Look));
    }

    pub(crate) fn peer(&mut self, host: usize, peer: u64) -> Option<&mut Peer> {
        self.life(host).peers.get_mut(&peer)
    }

    pub(crate) fn tell_peer(&mut self, host: usize, p: u64, what: ToPeer) {
        if let ToPeer::Welcome(ticket) = what {
            return self.welcomed(host, ticket);
        }
        let instant = self.instant();
        let Some(peer) = self.peer(host, p) else {
            return self.undelivered(host, what);
        };
        if peer.ending {
            return self.undelivered(host, what);
        }
        match what {
            ToPeer::Members(members) => self.frame_out(host, p, &Frame::Members { members }),
            ToPeer::Slips(slips) => self.frame_out(host, p, &Frame::Ownership(slips)),
            ToPeer::Leave if peer.ready => {
                peer.leaving = true;
                self.frame_out(host, p, &Frame::Leaving { reason: "left" });
                self.after(host, DRAIN_LINKS_WITHIN / 2, Mail::Peer(p, ToPeer::Drained));
            }
            ToPeer::Leave => self.end(host, p, Reason::Ordered),
            ToPeer::Replace => self.end(host, p, Reason::Replaced),
            ToPeer::Drained => self.end(host, p, Reason::Closed),
            ToPeer::Crash => self.end(host, p, Reason::Crashed),
            ToPeer::Park => self.lost(host, p),
            ToPeer::Adopt(ticket) => self.adopt(host, p, ticket),
            ToPeer::Came(conn, _) if conn != peer.conn || peer.broken.is_some() => {}
            ToPeer::Came(conn, Item::Ready) => {
                // The carrier tells it when it comes to that; frames may be earlier.
                let pause = self.rng.below(2) * self.rng.below(2 * MS);
                let ready = Mail::Peer(p, ToPeer::ReadyNow(conn));
                self.after(host, Duration::from_micros(pause), ready);
            }
            ToPeer::ReadyNow(conn) if conn == peer.conn && peer.broken.is_none() => self.ready(host, p),
            ToPeer::ReadyNow(_) => {}
            ToPeer::Came(_, Item::Frame(frame)) => self.frame_in(host, p, frame),
            ToPeer::Came(_, Item::Closed) => self.lost(host, p),
            ToPeer::Merged => {
                if peer.broken.is_none() {
                    let question = peer.pull.step(instant);
                    self.ask_retained(host, p, question);
                }
            }
            ToPeer::Bell => self.send_batches(host, p),
            ToPeer::Room(seq) => {
                peer.waiting.found_room();
                self.acknowledge(host, p, Some(seq));
                self.take_batches(host, p);
            }
            ToPeer::Look => {
                self.after(host, PEER_TICK / 4, Mail::Peer(p, ToPeer::Look));
                self.look(host, p);
            }
            ToPeer::Grace(since) if peer.broken == Some(since) => self.end(host, p, Reason::Closed),
            ToPeer::Grace(_) => {}
            what => self.router_says(host, p, what),
        }
    }

    fn router_says(&mut self, host: usize, p: u64, what: ToPeer) {
        let Some(peer) = self.peer(host, p) else { return };
        match what {
            ToPeer::LinkUp(Ok(slice)) => self.linked(host, p, &slice),
            ToPeer::LinkUp(Err(why)) => self.end(host, p, Reason::Protocol(why.to_string())),
            ToPeer::NoRouter(asked) => {
                let again = asked.map_or(ToPeer::AskLinkUp, ToPeer::AskSlice);
                self.after(host, ROUTER_PAUSE, Mail::Peer(p, again));
            }
            ToPeer::AskLinkUp if peer.ready => self.post(host, Inbox::Router, Mail::LinkUp { peer: p }),
            ToPeer::AskSlice(conn) if conn == peer.conn && peer.broken.is_none() => {
                self.post(host, Inbox::Router, Mail::AskSlice { peer: p, conn });
            }
            ToPeer::Resync(conn) if conn == peer.conn => self.frame_out(host, p, &Frame::Resync),
            ToPeer::AskLinkUp | ToPeer::AskSlice(_) | ToPeer::Resync(_) => {}
            ToPeer::Slice(conn, slice) if conn == peer.conn => {
                peer.slice.begin(&slice);
                self.send_routes(host, p);
            }
            ToPeer::Applied {
                conn,
                applied,
                version,
                whole,
            } if conn == peer.conn => {
                self.applied(host, p, applied, version, whole);
            }
            ToPeer::Slice(..) | ToPeer::Applied { .. } => {}
            ToPeer::Mark { conn, version, hash } if conn == peer.conn => {
                self.frame_out(host, p, &Frame::SliceMark { version, hash });
            }
            ToPeer::Mark { .. } => {}
            ToPeer::Checked(checked) => match peer.slice_in.mark_came(checked) {
                Mark::Drifted { .. } => {
                    let node = peer.node.clone();
                    self.drifted(host, &node);
                    self.frame_out(host, p, &Frame::Resync);
                }
                Mark::Nothing | Mark::Repaired => {}
            },
            ToPeer::Delta(delta) => {
                peer.slice.changed(delta);
                if peer.ready && peer.up {
                    self.send_routes(host, p);
                }
            }
            what => self.violated(&format!("no Peer reads {what:?}")),
        }
    }

    /// Nobody takes it: its stream is closed with it.
    fn undelivered(&mut self, host: usize, what: ToPeer) {
        if let ToPeer::Adopt(ticket) = what {
            self.close(ticket.conn, host);
        }
    }

    pub(crate) fn frame_out(&mut self, host: usize, p: u64, frame: &Frame<'_>) {
        self.bytes_out(host, p, v1::encode(frame));
    }

    pub(crate) fn bytes_out(&mut self, host: usize, p: u64, bytes: Vec<u8>) {
        let Some(peer) = self.peer(host, p).filter(|peer| peer.ready) else {
            return;
        };
        let conn = peer.conn;
        self.send(conn, host, Item::Frame(bytes));
    }

    fn ready(&mut self, host: usize, p: u64) {
        let Some(peer) = self.peer(host, p) else { return };
        peer.ready = true;
        let early = std::mem::take(&mut peer.early);
        if peer.up {
            let restart = peer.slice.restart();
            self.route_out(host, p, restart);
            self.greet(host, p);
        } else {
            self.post(host, Inbox::Router, Mail::LinkUp { peer: p });
        }
        for frame in early {
            self.frame_in(host, p, frame);
        }
    }

    fn linked(&mut self, host: usize, p: u64, slice: &OwnSlice) {
        let Some(peer) = self.peer(host, p) else { return };
        peer.up = true;
        peer.slice.begin(slice);
        peer.lane.lane.linked();
        let node = peer.node.clone();
        self.say(|| format!("{}: nodeup {node}", self.hosts[host].name));
        self.greet(host, p);
        self.send_routes(host, p);
        let taken = self.life(host).board.taken(&node);
        self.acknowledge(host, p, Some(taken));
    }

    fn greet(&mut self, host: usize, p: u64) {
        let Some(peer) = self.peer(host, p) else { return };
        let (node, members) = (peer.node.clone(), std::mem::take(&mut peer.members));
        self.post(host, Inbox::Wing, Mail::Linked(node.clone(), members));
        self.post(host, Inbox::Wing, Mail::Stands(node));
        self.frame_out(host, p, &Frame::Canary { nonce: p });
        self.send_batches(host, p);
        self.tell_retained(host, p);
    }

    fn lost(&mut self, host: usize, p: u64) {
        let now = self.now;
        let Some(peer) = self.peer(host, p) else { return };
        if peer.ending || peer.broken.is_some() {
            return;
        }
        if !peer.up || peer.leaving {
            return self.end(host, p, Reason::Closed);
        }
        (peer.broken, peer.ready) = (Some(now), false);
        let (node, conn) = (peer.node.clone(), peer.conn);
        self.say(|| format!("{}: connection {conn} to {node} broke", self.hosts[host].name));
        self.close(conn, host);
        let broken = Change::Unlinked(node);
        self.post(host, Inbox::Wing, Mail::Membership(broken));
        self.after(host, LINK_GRACE, Mail::Peer(p, ToPeer::Grace(now)));
    }

    fn adopt(&mut self, host: usize, p: u64, ticket: Ticket) {
        let instant = self.instant();
        let Some(peer) = self.peer(host, p) else { return };
        if peer.leaving {
            return self.close(ticket.conn, host);
        }
        let (before, conn) = (peer.conn, ticket.conn);
        self.close(before, host);
        self.resume_lane(host, p, ticket.received);
        let Some(peer) = self.peer(host, p) else { return };
        (peer.conn, peer.ready, peer.broken) = (conn, false, None);
        (peer.slice, peer.pull, peer.pulse) = (SliceOut::default(), Pull::default(), Pulse::new(instant));
        peer.early = Vec::new();
        peer.slice_in.reconnected();
        peer.waiting.reconnected();
        peer.members = ticket.members;
        self.arrived(host, &ticket.node.name);
        self.carry(conn, host, p);
    }

    pub(crate) fn end(&mut self, host: usize, p: u64, reason: Reason) {
        let instant = self.instant();
        let Some(peer) = self.peer(host, p).filter(|peer| !peer.ending) else {
            return;
        };
        let said = matches!(reason, Reason::Leaving);
        let reason = if peer.leaving && !said {
            Reason::Ordered
        } else {
            reason
        };
        let (node, conn, up) = (peer.node.clone(), peer.conn, peer.up);
        let fell = up && matches!(reason, Reason::Crashed);
        (peer.ending, peer.ready) = (true, false);
        peer.abandons = matches!(reason, Reason::Leaving | Reason::Ordered);
        if fell {
            peer.lane.lane.hold(instant + LINK_CRASH_GRACE);
        }
        if peer.lane.lane.held().is_none() {
            peer.lane.lane.release();
        }
        self.say(|| format!("{}: nodedown {node}: {reason:?}", self.hosts[host].name));
        if let Reason::Protocol(what) = &reason {
            self.violated(&format!("{node} broke the protocol: {what}"));
        }
        if up && !fell {
            self.post(host, Inbox::Router, Mail::LinkDown(node.clone()));
        }
        self.close(conn, host);
        if up {
            self.post(host, Inbox::Wing, Mail::Fell(node.clone()));
        }
        if fell {
            let broken = Change::Unlinked(node.clone());
            self.post(host, Inbox::Wing, Mail::Membership(broken));
            self.after(host, LINK_CRASH_GRACE, Mail::LinkFallen(node, p));
        } else {
            self.post(host, Inbox::Wing, Mail::Unlinked(node));
        }
        self.post(host, Inbox::Wing, Mail::Gone(p));
    }

    pub(crate) fn peer_gone(&mut self, host: usize, p: u64) {
        let Some(peer) = self.life(host).peers.remove(&p) else {
            return;
        };
        self.life(host).rows.retain(|_, row| *row != p);
        self.part(host, &peer.node, peer.lane, peer.abandons);
    }

    fn look(&mut self, host: usize, p: u64) {
        let instant = self.instant();
        let Some(peer) = self.peer(host, p).filter(|peer| peer.broken.is_none()) else {
            return;
        };
        let (ready, up, node) = (peer.ready, peer.up, peer.node.clone());
        match peer.pulse.look(ready, up, instant) {
            Finding::Well => {}
            Finding::NotReady => return self.end(host, p, Reason::NotReady),
            Finding::Down => return self.end(host, p, Reason::Silent),
            Finding::Suspect(_) => {
                let suspect = Change::Suspect(node.name);
                self.post(host, Inbox::Wing, Mail::Membership(suspect));
            }
        }
        let Some(peer) = self.peer(host, p) else { return };
        let due = peer.pulse.tick_due(instant).filter(|_| ready);
        if let Some(number) = due {
            let (routes, conn) = (peer.slice.version(), peer.conn);
            self.frame_out(host, p, &Frame::Tick { number, routes });
            if up {
                self.post(host, Inbox::Router, Mail::AskMark { peer: p, conn });
                self.tell_retained(host, p);
            }
        }
    }
}
