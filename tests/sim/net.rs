//! What lies between hosts: connections as TCP gives them, and how a link is opened over one.
//!
//! A connection keeps the order of what is sent and loses nothing while it stands. What is cut off waits,
//! and comes when the cut heals; what waits longer than TCP bears closes the connection at its sender. A
//! connection that is closed or reset loses the end of what was on its way, in each direction for itself.

use std::collections::VecDeque;

use ermine::cluster::membership::Event as Change;
use ermine::cluster::wire::v1::{Answer, Hello, MemberRecord};
use ermine::limits::{HANDSHAKE_DEADLINE, LINK_RESUME_UNREGISTERED_WITHIN, PEER_DOWN_AFTER};
use ermine::node_name::NodeId;

use crate::life::{Mail, Ticket};
use crate::peer::ToPeer;
use crate::world::{Event, Inbox, World};

#[derive(Debug)]
pub(crate) enum Item {
    /// The other side carries the link from now on.
    Ready,
    Frame(Vec<u8>),
    Closed,
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    host: usize,
    life: NodeId,
    /// The process that it belongs to, once there is one.
    peer: Option<u64>,
    closed: bool,
    /// What is on its way to it: when it was sent, when it arrives.
    coming: VecDeque<(u64, u64, Item)>,
}

#[derive(Debug)]
pub(crate) struct Conn {
    ends: [End; 2],
}

/// The steps of a dial.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A connection is asked for.
    Dial {
        from: NodeId,
        to: usize,
        join: bool,
        members: Vec<MemberRecord>,
    },
    /// Both have proved the cookie.
    Proved {
        from: NodeId,
        to: NodeId,
        join: bool,
        members: Vec<MemberRecord>,
    },
    Hello {
        from: NodeId,
        to: NodeId,
        conn: u64,
        hello: Hello,
    },
    Answer {
        from: NodeId,
        to: NodeId,
        conn: u64,
        answer: Answer,
    },
    /// Nobody answered in time.
    Silent {
        from: NodeId,
        to: usize,
        conn: Option<u64>,
    },
}

impl World {
    fn reaches(&self, from: usize, to: usize) -> bool {
        let dark = self.hosts[from].dark || self.hosts[to].dark;
        !dark && !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from))
    }

    /// Whether this life can do something now.
    fn acts(&self, node: &NodeId) -> bool {
        self.lives(node) && !self.hosts[self.host_of(&node.name)].paused
    }

    fn wire(&mut self) -> u64 {
        20 + self.rng.below(self.wire_max)
    }

    pub(crate) fn dial(&mut self, host: usize, to: usize, join: bool) {
        let life = self.life(host);
        let (from, members) = (life.id.clone(), life.membership.records());
        let at = self.now + self.wire() * 3;
        self.at(
            at,
            Event::Opening(Opening::Dial {
                from,
                to,
                join,
                members,
            }),
        );
    }

    pub(crate) fn open(&mut self, opening: Opening) {
        match opening {
            Opening::Dial {
                from,
                to,
                join,
                members,
            } => self.dialled(from, to, join, members),
            Opening::Proved {
                from,
                to,
                join,
                members,
            } => self.proved(from, to, join, members),
            Opening::Hello {
                from,
                to,
                conn,
                hello,
            } => self.hello(from, to, conn, hello),
            Opening::Answer {
                from,
                to,
                conn,
                answer,
            } => self.answered(from, to, conn, answer),
            Opening::Silent { from, to, conn } => {
                if let Some(conn) = conn {
                    let host = self.host_of(&from.name);
                    self.close(conn, host);
                }
                self.not_dialled(&from, to, false);
            }
        }
    }

    fn not_dialled(&mut self, from: &NodeId, to: usize, says_ended: bool) {
        if !self.lives(from) {
            return;
        }
        let (host, name) = (self.host_of(&from.name), self.hosts[to].name.clone());
        if says_ended {
            self.hurry(host, &name);
            self.after(host, LINK_RESUME_UNREGISTERED_WITHIN, Mail::SweepOnce);
        }
        self.post(host, Inbox::Wing, Mail::Membership(Change::DialFailed(name)));
    }

    fn silent(&mut self, from: NodeId, to: usize, conn: Option<u64>) {
        let at = self.now + HANDSHAKE_DEADLINE.as_micros() as u64;
        self.at(at, Event::Opening(Opening::Silent { from, to, conn }));
    }

    fn dialled(&mut self, from: NodeId, to: usize, join: bool, members: Vec<MemberRecord>) {
        let host = self.host_of(&from.name);
        if !self.reaches(host, to) || self.hosts[to].paused {
            return self.silent(from, to, None);
        }
        match &self.hosts[to].life {
            // The registry of its host answers that there is no such node.
            None => self.not_dialled(&from, to, true),
            Some(life) => {
                let (to, at) = (life.id.clone(), self.now + self.wire());
                self.at(
                    at,
                    Event::Opening(Opening::Proved {
                        from,
                        to,
                        join,
                        members,
                    }),
                );
            }
        }
    }

    /// The dialler says who it is, unless it is linked meanwhile.
    fn proved(&mut self, from: NodeId, to: NodeId, join: bool, members: Vec<MemberRecord>) {
        let (host, other) = (self.host_of(&from.name), self.host_of(&to.name));
        if !self.acts(&from) || !self.reaches(host, other) {
            return self.silent(from, other, None);
        }
        let now = self.now;
        let life = self.life(host);
        let linked = life.has_link(&to, now);
        if linked {
            return self.not_dialled(&from, other, false);
        }
        let (node, received) = (from.clone(), life.board.received(&to));
        self.conns_made += 1;
        let conn = self.conns_made;
        let hello = Hello {
            node,
            link: conn,
            join,
            received,
            members,
        };
        let at = self.now + self.wire();
        self.at(
            at,
            Event::Opening(Opening::Hello {
                from,
                to,
                conn,
                hello,
            }),
        );
    }

    fn hello(&mut self, from: NodeId, to: NodeId, conn: u64, hello: Hello) {
        let (host, other) = (self.host_of(&from.name), self.host_of(&to.name));
        if !self.acts(&to) || !self.reaches(host, other) {
            return self.silent(from, other, None);
        }
        let end = |host: usize, life: &NodeId| End {
            host,
            life: life.clone(),
            peer: None,
            closed: false,
            coming: VecDeque::new(),
        };
        let ends = [end(host, &from), end(other, &to)];
        self.conns.insert(conn, Conn { ends });
        self.post(other, Inbox::Wing, Mail::Offer { conn, hello });
    }

    /// The acceptor has decided.
    pub(crate) fn answer(&mut self, conn: u64, answer: Answer) {
        let Some(ends) = self.conns.get(&conn).map(|conn| &conn.ends) else {
            return;
        };
        let (from, to) = (ends[0].life.clone(), ends[1].life.clone());
        let at = self.now + self.wire();
        self.at(
            at,
            Event::Opening(Opening::Answer {
                from,
                to,
                conn,
                answer,
            }),
        );
    }

    fn answered(&mut self, from: NodeId, to: NodeId, conn: u64, answer: Answer) {
        let (host, other) = (self.host_of(&from.name), self.host_of(&to.name));
        if !self.lives(&from) {
            return self.close(conn, host);
        }
        if !self.acts(&from) || !self.reaches(host, other) {
            return self.silent(from, other, Some(conn));
        }
        match answer {
            Answer::Refuse(refusal) => {
                self.say(|| format!("{from} is refused by {to}: {refusal:?}"));
                self.close(conn, host);
                self.post(host, Inbox::Wing, Mail::Refused(to.name, refusal));
            }
            Answer::Welcome {
                received, members, ..
            } => {
                let dialled = true;
                let ticket = Ticket {
                    node: to,
                    conn,
                    received,
                    members,
                    dialled,
                };
                self.post(host, Inbox::Wing, Mail::Settle(ticket));
            }
        }
    }

    /// A process takes over its end: the other one is ready once it hears of that.
    pub(crate) fn carry(&mut self, conn: u64, host: usize, peer: u64) {
        if let Some(end) = self.end_of(conn, host) {
            end.peer = Some(peer);
        }
        self.send(conn, host, Item::Ready);
        self.arrivals_again();
    }

    fn end_of(&mut self, conn: u64, host: usize) -> Option<&mut End> {
        let ends = &mut self.conns.get_mut(&conn)?.ends;
        ends.iter_mut().find(|end| end.host == host)
    }

    pub(crate) fn send(&mut self, conn: u64, from: usize, item: Item) {
        let (now, slow) = (self.now, self.wire());
        let Some(found) = self.conns.get_mut(&conn) else {
            return;
        };
        let to = usize::from(found.ends[0].host == from);
        if found.ends.iter().any(|end| end.closed) {
            return;
        }
        let coming = &mut found.ends[to].coming;
        let at = coming.back().map_or(0, |(_, at, _)| *at).max(now + slow);
        coming.push_back((now, at, item));
        self.at(at, Event::Arrival { conn, to });
    }

    /// What a cut or a pause held up is looked at again.
    pub(crate) fn arrivals_again(&mut self) {
        let all: Vec<u64> = self.conns.keys().copied().collect();
        for conn in all {
            for to in 0..2 {
                self.at(self.now, Event::Arrival { conn, to });
            }
        }
    }

    pub(crate) fn arrive(&mut self, conn: u64, to: usize) {
        loop {
            let Some(found) = self.conns.get(&conn) else {
                return;
            };
            let end = &found.ends[to];
            let Some((sent, at, _)) = end.coming.front() else {
                return;
            };
            let (host, other, sent, at) = (end.host, found.ends[1 - to].host, *sent, *at);
            if at > self.now {
                return;
            }
            if self.cut.contains(&(other, host)) || self.hosts[host].dark {
                let late = sent + PEER_DOWN_AFTER.as_micros() as u64;
                return self.at(late.max(self.now), Event::Unacknowledged { conn, to, sent });
            }
            let lives = self.lives(&found.ends[to].life);
            if lives && self.hosts[host].paused {
                return;
            }
            if !lives {
                // The process that it belonged to has ended with its life.
                return self.close(conn, host);
            }
            let end = &mut self.conns.get_mut(&conn).expect("it was just seen").ends[to];
            let Some(peer) = end.peer else {
                // Nobody reads it yet.
                return;
            };
            let (_, _, item) = end.coming.pop_front().expect("it was just seen");
            if matches!(item, Item::Closed) {
                end.peer = None;
                self.close(conn, host);
            }
            self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Came(conn, item)));
        }
    }

    pub(crate) fn unacknowledged(&mut self, conn: u64, to: usize, sent: u64) {
        let Some(found) = self.conns.get(&conn) else {
            return;
        };
        let front = found.ends[to].coming.front().map(|(sent, _, _)| *sent);
        let (host, other) = (found.ends[to].host, found.ends[1 - to].host);
        let blocked = self.cut.contains(&(other, host)) || self.hosts[host].dark;
        let late = sent + PEER_DOWN_AFTER.as_micros() as u64 <= self.now;
        if front == Some(sent) && blocked && late {
            self.say(|| format!("{conn}: TCP gives up towards {}", self.hosts[host].name));
            self.fell(conn, 1 - to);
        }
    }

    /// An end learns that the connection is gone.
    fn fell(&mut self, conn: u64, to: usize) {
        let Some(found) = self.conns.get_mut(&conn) else {
            return;
        };
        let end = &mut found.ends[to];
        let (host, peer, life) = (
            end.host,
            end.peer.take().filter(|_| !end.closed),
            end.life.clone(),
        );
        end.closed = true;
        if let Some(peer) = peer.filter(|_| self.lives(&life)) {
            self.post(
                host,
                Inbox::Wing,
                Mail::Peer(peer, ToPeer::Came(conn, Item::Closed)),
            );
        }
        self.finish(conn, 1 - to);
    }

    /// `to` is told that the other end closed, behind what still comes through.
    fn finish(&mut self, conn: u64, to: usize) {
        let Some(found) = self.conns.get_mut(&conn) else {
            return;
        };
        if found.ends[to].closed && found.ends[1 - to].closed {
            self.conns.remove(&conn);
            return;
        }
        let kept = found.ends[to].coming.len() as u64;
        let kept = self.rng.below(kept + 1) as usize;
        let slow = self.now + self.wire();
        let found = self.conns.get_mut(&conn).expect("it was just seen");
        let coming = &mut found.ends[to].coming;
        coming.truncate(kept);
        let at = coming.back().map_or(0, |(_, at, _)| *at).max(slow);
        coming.push_back((self.now, at, Item::Closed));
        self.at(at, Event::Arrival { conn, to });
    }

    /// One end is closed by its process.
    pub(crate) fn close(&mut self, conn: u64, host: usize) {
        let Some(found) = self.conns.get_mut(&conn) else {
            return;
        };
        let mine = usize::from(found.ends[1].host == host);
        if std::mem::replace(&mut found.ends[mine].closed, true) {
            return;
        }
        found.ends[mine].peer = None;
        found.ends[mine].coming.clear();
        self.finish(conn, 1 - mine);
    }

    /// The life on this host is over; without power not even its kernel says so.
    pub(crate) fn close_all(&mut self, host: usize, dark: bool) {
        let of = |conn: &Conn| conn.ends.iter().any(|end| end.host == host);
        let all = self.conns.iter().filter(|(_, conn)| of(conn));
        let all: Vec<u64> = all.map(|(conn, _)| *conn).collect();
        for conn in all {
            if !dark {
                self.close(conn, host);
            } else if let Some(end) = self.end_of(conn, host) {
                end.peer = None;
            }
        }
    }

    /// Something between the two resets their connections.
    pub(crate) fn reset(&mut self, a: usize, b: usize) {
        let between = |conn: &Conn| conn.ends.iter().all(|end| end.host == a || end.host == b);
        let all = self.conns.iter().filter(|(_, conn)| between(conn));
        let all: Vec<u64> = all.map(|(conn, _)| *conn).collect();
        for conn in all {
            self.say(|| format!("connection {conn} is reset"));
            self.disturb(a, b);
            for to in 0..2 {
                self.finish(conn, to);
            }
        }
    }

    pub(crate) fn heal(&mut self, directions: &[(usize, usize)]) {
        for (from, to) in directions {
            if self.cut.remove(&(*from, *to)) {
                self.say(|| format!("n{from} → n{to} heals"));
                self.disturb(*from, *to);
            }
        }
        self.arrivals_again();
    }

    /// Frames on their way to a host.
    pub(crate) fn coming(&self, conn: u64, host: usize) -> impl Iterator<Item = &[u8]> {
        let ends = self.conns.get(&conn).into_iter().flat_map(|conn| &conn.ends);
        let coming = ends
            .filter(move |end| end.host == host)
            .flat_map(|end| &end.coming);
        coming.filter_map(|(_, _, item)| match item {
            Item::Frame(bytes) => Some(&bytes[..]),
            Item::Ready | Item::Closed => None,
        })
    }
}
