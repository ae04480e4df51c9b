//! What a link does with each frame that comes, as in `cluster::peer::inbound` and its neighbours.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ermine::broker::links::{Applied, Inbound, RouteVersion};
use ermine::cluster::intake::{Came, Gate};
use ermine::cluster::membership::Event as Change;
use ermine::cluster::retained::Question;
use ermine::cluster::slice::Out;
use ermine::cluster::wire::v1::{self, Frame, RetainedRecord, WireMessage};
use ermine::limits::{FORWARD_BATCH_BYTES, LINK_EARLY_BYTES_MAX, RETAINED_FRAME_LEN_MAX};
use ermine::node_name::{NodeId, NodeName};
use ermine::routing::retained::Told;
use ermine::routing::stamps::{Known, Stamp};
use tokio::sync::oneshot;

use crate::life::{Mail, Replicated, Route};
use crate::peer::{ROUTER_PAUSE, Reason, ToPeer};
use crate::sabotage::Sabotage;
use crate::world::{Inbox, World};

impl World {
    pub(crate) fn frame_in(&mut self, host: usize, p: u64, bytes: Vec<u8>) {
        let instant = self.instant();
        let Some(peer) = self.peer(host, p).filter(|peer| !peer.ending) else {
            return;
        };
        if !peer.ready {
            let early: usize = peer.early.iter().map(Vec::len).sum();
            if early > LINK_EARLY_BYTES_MAX {
                let early = Reason::Protocol("frames before the link was ready".into());
                return self.end(host, p, early);
            }
            peer.early.push(bytes);
            return;
        }
        if peer.pulse.heard(instant) {
            let name = peer.node.name.clone();
            let trusted = Change::Trusted(name);
            self.post(host, Inbox::Wing, Mail::Membership(trusted));
        }
        let bytes = Bytes::from(bytes);
        let taken = match v1::decode::<Frame<'_>>(&bytes) {
            Ok(frame) => self.take_in(host, p, frame, &bytes),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = taken {
            self.end(host, p, Reason::Protocol(why));
        }
    }

    fn take_in(&mut self, host: usize, p: u64, frame: Frame<'_>, bytes: &Bytes) -> Result<(), String> {
        let instant = self.instant();
        if self.is_ignored(&frame) {
            return Ok(());
        }
        let Some(peer) = self.peer(host, p) else {
            return Ok(());
        };
        let node = peer.node.clone();
        match frame {
            Frame::Snapshot(chunk) => self.route_in(host, p, Route::Chunk(chunk)),
            Frame::Delta(delta) => self.route_in(host, p, Route::Delta(delta)),
            Frame::Resync => {
                let restart = peer.slice.restart();
                self.route_out(host, p, restart);
            }
            Frame::RoutesHeld { frames, .. } => {
                if !peer.slice.taken(frames) {
                    return Err(format!("{frames} route frames were never sent"));
                }
                self.send_routes(host, p);
            }
            Frame::Forward { seq, messages } => self.batch(host, p, seq, messages, bytes)?,
            Frame::Forwarded { seq } => {
                self.acknowledged(host, p, seq)?;
                self.send_batches(host, p);
            }
            Frame::Canary { nonce } => self.frame_out(host, p, &Frame::CanaryBack { nonce }),
            Frame::CanaryBack { nonce } if nonce == p => {}
            Frame::CanaryBack { .. } => return Err("a canary that was never sent".into()),
            Frame::Tick { number, routes } => {
                self.frame_out(host, p, &Frame::TickBack { number });
                let behind = self
                    .peer(host, p)
                    .is_some_and(|peer| peer.slice_in.tick_came(routes));
                if behind {
                    self.frame_out(host, p, &Frame::Resync);
                }
            }
            Frame::TickBack { number } => drop(peer.pulse.answered(number, instant)),
            Frame::Members { members } if peer.up => {
                let (from, records) = (node.name, members);
                let heard = Change::Heard { from, records };
                self.post(host, Inbox::Wing, Mail::Membership(heard));
            }
            Frame::Members { members } => peer.members = members,
            Frame::SliceMark { version, hash } => {
                self.post(
                    host,
                    Inbox::Router,
                    Mail::Check {
                        peer: p,
                        version,
                        hash,
                    },
                );
            }
            Frame::Ownership(slips) => self.post(host, Inbox::Wing, Mail::Said(node, slips)),
            Frame::Leaving { .. } => self.end(host, p, Reason::Leaving),
            frame => self.retained_in(host, p, frame, bytes)?,
        }
        Ok(())
    }

    fn route_in(&mut self, host: usize, p: u64, route: Route) {
        let conn = self.peer(host, p).map_or(0, |peer| peer.conn);
        self.post(host, Inbox::Router, Mail::Apply { peer: p, conn, route });
    }

    pub(crate) fn applied(
        &mut self,
        host: usize,
        p: u64,
        applied: Option<Applied>,
        version: RouteVersion,
        whole: bool,
    ) {
        if let Some(Applied::Refused(why)) = &applied {
            return self.end(host, p, Reason::Protocol(why.to_string()));
        }
        let Some(peer) = self.peer(host, p) else { return };
        let conn = peer.conn;
        if peer.slice_in.applied(applied.as_ref(), version, whole) {
            match applied {
                Some(_) => self.frame_out(host, p, &Frame::Resync),
                None => self.after(host, ROUTER_PAUSE, Mail::Peer(p, ToPeer::Resync(conn))),
            }
        }
        let Some(peer) = self.peer(host, p) else { return };
        let receipt = peer.slice_in.receipt();
        self.frame_out(host, p, &receipt);
    }

    pub(crate) fn route_out(&mut self, host: usize, p: u64, out: Option<Out>) {
        let conn = self.peer(host, p).map_or(0, |peer| peer.conn);
        match out {
            Some(Out::Send(frame)) => self.bytes_out(host, p, frame),
            Some(Out::Ask) => self.post(host, Inbox::Router, Mail::AskSlice { peer: p, conn }),
            None => {}
        }
    }

    pub(crate) fn send_routes(&mut self, host: usize, p: u64) {
        let ready = |peer: &&mut crate::peer::Peer| peer.ready;
        while let Some(out) = self
            .peer(host, p)
            .filter(ready)
            .and_then(|peer| peer.slice.step())
        {
            self.route_out(host, p, Some(out));
        }
    }

    fn batch(
        &mut self,
        host: usize,
        p: u64,
        seq: u64,
        messages: Vec<WireMessage<'_>>,
        bytes: &Bytes,
    ) -> Result<(), String> {
        let instant = self.instant();
        let life = self.life(host);
        let Some(peer) = life.peers.get_mut(&p) else {
            return Ok(());
        };
        match peer.waiting.came(life.board.taken(&peer.node), seq) {
            Came::Again => {
                let seq = life.board.received(&peer.node);
                self.frame_out(host, p, &Frame::Forwarded { seq });
            }
            Came::Gap(last) => return Err(format!("batch {seq} came after batch {last}")),
            Came::Fresh => {
                let inbound = messages
                    .into_iter()
                    .map(|message| message.into_inbound(bytes, instant, &peer.node.name));
                let inbound: Result<Vec<Inbound>, _> = inbound.collect();
                let inbound = inbound.map_err(|error| error.to_string())?;
                peer.waiting.push(seq, inbound);
                self.take_batches(host, p);
            }
        }
        Ok(())
    }

    pub(crate) fn take_batches(&mut self, host: usize, p: u64) {
        let life = self.life(host);
        let Some(peer) = life.peers.get_mut(&p).filter(|peer| !peer.ending) else {
            return;
        };
        let Some((seq, messages)) = peer.waiting.next_batch() else {
            return;
        };
        let node = peer.node.clone();
        let count = messages.len() as u64;
        let times = self.times_taken();
        let taken = messages
            .iter()
            .flat_map(|message| std::iter::repeat_n(message, times));
        let ids = taken.filter_map(|message| self.dispatch(host, &node, message));
        let ids = ids.collect();
        let gate = self.store(host, &node, ids);
        let gate = gate.filter(|_| !self.is_broken(Sabotage::StoreNotAwaited));
        self.life(host).board.take(&node, seq, count, gate);
        self.taken(host, &node);
        let busy = Duration::from_micros(self.rng.below(self.mail_max * 2));
        self.after(host, busy, Mail::Peer(p, ToPeer::Room(seq)));
    }

    /// The store has it after a while, if it is for the store at all; a life that ends before has not.
    fn store(&mut self, host: usize, from: &NodeId, ids: Vec<u64>) -> Gate {
        if self.rng.once_in(2) {
            let me = self.life(host).id.clone();
            self.ledger
                .safe
                .extend(ids.into_iter().map(|id| (id, me.clone())));
            return None;
        }
        let (open, gate) = oneshot::channel();
        let busy = Duration::from_micros(self.rng.below(self.mail_max * 20));
        let (from, open) = (from.clone(), Some(open));
        self.after(host, busy, Mail::Stored { from, ids, open });
        Some(gate)
    }

    pub(crate) fn stored(&mut self, host: usize, from: &NodeId, ids: Vec<u64>) {
        let life = self.life(host);
        let (me, row) = (life.id.clone(), life.rows.get(&from.name).copied());
        self.ledger
            .safe
            .extend(ids.into_iter().map(|id| (id, me.clone())));
        if let Some(p) = row {
            self.acknowledge(host, p, None);
        }
    }

    /// What is safe of what this link has taken, up to `taken` if that is news, is acknowledged.
    pub(crate) fn acknowledge(&mut self, host: usize, p: u64, taken: Option<u64>) {
        let life = self.life(host);
        let Some(peer) = life.peers.get_mut(&p).filter(|peer| !peer.ending) else {
            return;
        };
        peer.unacked.extend(taken);
        let mut safe = None;
        let now = &mut Context::from_waker(Waker::noop());
        while let Some(seq) = peer.unacked.front()
            && let Poll::Ready(seq) = life.board.poll_safe(&peer.node, *seq, now)
        {
            safe = Some(seq);
            peer.unacked.pop_front();
        }
        if let Some(seq) = safe {
            self.frame_out(host, p, &Frame::Forwarded { seq });
        }
    }

    pub(crate) fn tell_retained(&mut self, host: usize, p: u64) {
        let mut buckets = self.life(host).store.book().digest();
        if buckets.iter().all(|hash| *hash == 0) {
            buckets.clear();
        }
        self.frame_out(host, p, &Frame::RetainedDigest { buckets });
    }

    fn retained_in(&mut self, host: usize, p: u64, frame: Frame<'_>, bytes: &Bytes) -> Result<(), String> {
        let (instant, wall) = (self.instant(), self.wall_us(host));
        let life = self.life(host);
        let Some(peer) = life.peers.get_mut(&p) else {
            return Ok(());
        };
        match frame {
            Frame::RetainedDigest { buckets } => {
                let mine = life.store.book().digest();
                let asked = peer.pull.digest_came(&mine, &buckets, instant);
                let (_, question) = asked.map_err(|error| error.to_string())?;
                self.ask_retained(host, p, question);
            }
            Frame::RetainedAsk { buckets, after } => {
                let (len, max) = (RETAINED_FRAME_LEN_MAX, FORWARD_BATCH_BYTES);
                let part = life.store.told(&buckets, after.as_deref(), len, max);
                let records = part.told.into_iter().map(record_of).collect();
                let done = part.done as u64;
                self.frame_out(host, p, &Frame::RetainedKnown { records, done });
            }
            Frame::RetainedKnown { records, done } => {
                let told = records.into_iter().map(told_of).collect();
                let tombstones = peer.pull.told(told, done as usize, &life.store, wall);
                let tombstones = tombstones.map_err(|error| error.to_string())?;
                let tombstones = tombstones.into_iter().map(Replicated::Tombstone);
                self.give_retainer(host, p, tombstones.collect());
            }
            Frame::RetainedWant { topics } => self.tell_messages(host, p, &topics),
            Frame::RetainedMessages { messages, answered } => {
                let came = peer.pull.messages_came(answered as usize);
                came.map_err(|error| error.to_string())?;
                let replicated = messages.into_iter().map(|(message, node)| {
                    let time = message.retained.ok_or("a retained message without its time")?;
                    let message = message.into_message(bytes, instant);
                    let message = message.map_err(|error| error.to_string())?;
                    Ok(Replicated::Message((*message).clone(), Stamp { time, node }))
                });
                let replicated: Result<Vec<_>, String> = replicated.collect();
                self.give_retainer(host, p, replicated?);
            }
            _ => return Err("a frame that nobody knows".into()),
        }
        Ok(())
    }

    pub(crate) fn ask_retained(&mut self, host: usize, p: u64, question: Option<Question>) {
        match question {
            None => {}
            Some(Question::Known { buckets, after }) => {
                self.frame_out(host, p, &Frame::RetainedAsk { buckets, after });
            }
            Some(Question::Messages { topics }) => {
                self.frame_out(host, p, &Frame::RetainedWant { topics });
            }
        }
    }

    fn give_retainer(&mut self, host: usize, p: u64, replicated: Vec<Replicated>) {
        let instant = self.instant();
        if !replicated.is_empty() {
            return self.post(host, Inbox::Retainer, Mail::Merge { peer: p, replicated });
        }
        let Some(peer) = self.life(host).peers.get_mut(&p) else {
            return;
        };
        let question = peer.pull.step(instant);
        self.ask_retained(host, p, question);
    }

    fn tell_messages<T: AsRef<str>>(&mut self, host: usize, p: u64, topics: &[T]) {
        let instant = self.instant();
        let store = &self.life(host).store;
        let (found, answered) = store.messages_of(topics, FORWARD_BATCH_BYTES, instant);
        let answered = answered as u64;
        let messages = found.iter().filter_map(|(message, stamp)| {
            let wire = WireMessage::of(message, instant)?.retained_at(stamp.time);
            Some((wire, stamp.node.clone()))
        });
        let messages: Vec<(WireMessage<'_>, NodeName)> = messages.collect();
        let frame = v1::encode(&Frame::RetainedMessages { messages, answered });
        self.bytes_out(host, p, frame);
    }
}

fn told_of(record: RetainedRecord) -> Told {
    let (time, node, died_us) = (record.time, record.node, record.died_us);
    let stamp = Stamp { time, node };
    Told {
        topic: record.topic,
        known: Known { stamp, died_us },
    }
}

fn record_of(told: Told) -> RetainedRecord {
    let Stamp { time, node } = told.known.stamp;
    RetainedRecord {
        topic: told.topic,
        time,
        node,
        died_us: told.known.died_us,
    }
}
