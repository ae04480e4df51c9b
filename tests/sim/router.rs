//! The router and the retainer of a life: what `broker::router::slices` and `broker::retainer` do around the
//! route table and the store.

use ermine::broker::links::Applied;
use ermine::limits::LINK_CRASH_GRACE;
use ermine::mqtt::message::Message;
use ermine::node_name::NodeId;
use ermine::routing::retained::Told;
use ermine::routing::stamps::Stamp;

use crate::life::{Link, Mail, Replicated, Route};
use crate::peer::ToPeer;
use crate::world::{Inbox, MS, World};

impl World {
    /// The router changes its own slice: all changes of one tick travel together.
    pub(crate) fn subscribe(&mut self, host: usize, filter: &str, on: bool) {
        let life = self.life(host);
        if on {
            life.filters.insert(filter.to_owned());
            life.table.set_local(filter, ());
        } else {
            life.filters.remove(filter);
            life.table.remove_local(filter);
        }
        if !std::mem::replace(&mut life.telling, true) {
            self.post(host, Inbox::Router, Mail::TellLinks);
        }
    }

    fn tell_links(&mut self, host: usize) {
        let life = self.life(host);
        let Some(delta) = life.table.take_delta() else {
            return;
        };
        let peers: Vec<u64> = life.links.iter().map(|link| link.peer).collect();
        for peer in peers {
            let tell = Mail::Peer(peer, ToPeer::Delta(delta.clone()));
            self.post(host, Inbox::Deltas(peer), tell);
        }
    }

    pub(crate) fn tell_router(&mut self, host: usize, mail: Mail) {
        let lost = self.now < self.life(host).no_router;
        let answer = |world: &mut Self, peer, what| {
            world.post(host, Inbox::Answers(peer), Mail::Peer(peer, what));
        };
        match mail {
            Mail::TellLinks => {
                self.life(host).telling = false;
                if !lost {
                    self.tell_links(host);
                }
            }
            Mail::LinkUp { peer } if lost => answer(self, peer, ToPeer::NoRouter(None)),
            Mail::LinkUp { peer } => self.link_up(host, peer),
            // Its next life monitors the processes behind the links.
            Mail::LinkDown(node) if lost => {
                let link = self.life(host).links.iter().find(|link| link.node == node);
                if let Some(peer) = link.map(|link| link.peer) {
                    self.after(host, LINK_CRASH_GRACE, Mail::LinkFallen(node, peer));
                }
            }
            Mail::LinkDown(node) => self.link_down(host, &node),
            Mail::LinkFallen(node, peer) => {
                let stands = |link: &Link| link.node == node && link.peer == peer;
                if self.life(host).links.iter().any(stands) {
                    self.link_down(host, &node);
                }
            }
            Mail::Apply { peer, conn, route } => self.apply(host, (peer, conn), route, lost),
            Mail::AskMark { peer, conn } if !lost => {
                self.tell_links(host);
                let table = &self.life(host).table;
                let (version, hash) = (table.own_version(), table.own_hash());
                answer(self, peer, ToPeer::Mark { conn, version, hash });
            }
            Mail::Check { peer, version, hash } if !lost => {
                let life = self.life(host);
                if let Some(node) = life.peers.get(&peer).map(|peer| peer.node.clone()) {
                    let checked = life.table.check(&node, version, hash);
                    answer(self, peer, ToPeer::Checked(checked));
                }
            }
            Mail::AskSlice { peer, conn } if !lost => {
                let slice = self.life(host).table.own_snapshot();
                answer(self, peer, ToPeer::Slice(conn, slice));
            }
            Mail::AskSlice { peer, conn } => answer(self, peer, ToPeer::NoRouter(Some(conn))),
            _ => {}
        }
    }

    fn apply(&mut self, host: usize, (peer, conn): (u64, u64), route: Route, lost: bool) {
        let life = self.life(host);
        let Some(node) = life.peers.get(&peer).map(|peer| peer.node.clone()) else {
            return;
        };
        let table = &mut life.table;
        let (applied, version, whole) = match route {
            Route::Chunk(chunk) => {
                let applied = (!lost).then(|| table.apply_snapshot(&node, &chunk));
                (applied, chunk.version, chunk.last)
            }
            Route::Delta(delta) => {
                let applied = (!lost).then(|| table.apply_delta(&node, &delta));
                (applied, delta.to, true)
            }
        };
        if applied == Some(Applied::Gap) {
            self.say(|| format!("{} sees a gap in the routes of {node}", self.hosts[host].name));
        }
        let applied = ToPeer::Applied {
            conn,
            applied,
            version,
            whole,
        };
        self.post(host, Inbox::Answers(peer), Mail::Peer(peer, applied));
    }

    fn link_up(&mut self, host: usize, peer: u64) {
        self.tell_links(host);
        let life = self.life(host);
        let Some(known) = life.peers.get(&peer) else {
            return;
        };
        let (node, waiting) = (known.node.clone(), known.lane.waiting());
        let came = life.table.node_up(&node).map(|_| life.table.own_snapshot());
        if came.is_ok() {
            life.links.retain(|link| link.node.name != node.name);
            life.links.push(Link { node, peer, waiting });
            life.store.share();
            life.shared = true;
        }
        self.post(host, Inbox::Answers(peer), Mail::Peer(peer, ToPeer::LinkUp(came)));
    }

    fn link_down(&mut self, host: usize, node: &NodeId) {
        let life = self.life(host);
        life.links.retain(|link| link.node != *node);
        life.table.node_down(node);
    }

    /// Whether the time of a write of another node can be; our own clock goes on behind it then.
    fn is_believed(&mut self, host: usize, stamp: &Stamp) -> bool {
        let wall = self.wall_us(host);
        let life = self.life(host);
        if stamp.node == life.id.name {
            return true;
        }
        let believed = life.clock.observe(stamp.time, wall).is_ok();
        if !believed {
            self.violated("a clock that is within the bound was not believed");
        }
        believed
    }

    pub(crate) fn retain(&mut self, host: usize, message: &Message, stamp: Option<Stamp>) {
        if let Some(stamp) = stamp
            && self.is_believed(host, &stamp)
        {
            self.life(host).store.merge(message, &stamp);
        }
    }

    pub(crate) fn merge(&mut self, host: usize, peer: u64, replicated: Vec<Replicated>) {
        if self.now < self.life(host).no_retainer {
            // It falls before it says that it has done so; its tray stays, but not what it had in hand.
            return;
        }
        let wall = self.wall_us(host);
        for one in replicated {
            match one {
                Replicated::Message(message, stamp) => self.retain(host, &message, Some(stamp)),
                Replicated::Tombstone(Told { topic, known }) => {
                    if self.is_believed(host, &known.stamp) {
                        let died_us = known.died_us.expect("a tombstone");
                        let store = &mut self.life(host).store;
                        store.merge_tombstone(&topic, &known.stamp, died_us, wall);
                    }
                }
            }
        }
        self.post(host, Inbox::Wing, Mail::Peer(peer, ToPeer::Merged));
    }

    /// A router, or a retainer, that falls is back in a moment.
    pub(crate) fn fall(&mut self, host: usize, router: bool) {
        let until = self.now + self.rng.within(1, 20) * MS;
        let name = self.hosts[host].name.clone();
        self.say(|| {
            format!(
                "the {} of {name} falls",
                if router { "router" } else { "retainer" }
            )
        });
        let life = self.life(host);
        *(if router {
            &mut life.no_router
        } else {
            &mut life.no_retainer
        }) = until;
    }
}
