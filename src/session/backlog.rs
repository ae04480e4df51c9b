//! The part of a queue behind its head: from the first message on that lies in the store alone.
//!
//! What is stored and does not fit into the head is given up here and is only a count, a [`Backlog`]; it
//! comes back page by page, oldest first. What the store does not have (it failed when the message came), or
//! what another member of a shared group may yet be given, stays in memory in its place among them. So the
//! order of the queue is the order in which its messages came, wherever they are.
//!
//! What lies between the ends of a [`Backlog`] in the store need not all belong to it: a message in flight or
//! in memory may lie there too, in the store of a session that came from another node. Pages are looked
//! through for those.

use std::collections::VecDeque;
use std::time::Instant;

use super::lasting::{Backlog, Page, Queued, Seq};
use super::queue::Outgoing;
use crate::mqtt::packet::QoS;

/// A step of the queue behind its head.
#[derive(Debug)]
enum Piece {
    /// Messages that lie in the store alone.
    Stored(Backlog),
    /// One in memory.
    Kept(Outgoing),
}

/// Messages that are in memory and cannot lie in the store alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Load {
    pub(super) len: usize,
    /// Sum of their weights.
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn add(&mut self, outgoing: &Outgoing) {
        self.len += 1;
        self.bytes += outgoing.message.weight();
    }

    pub(super) fn take(&mut self, outgoing: &Outgoing) {
        self.len = self.len.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(outgoing.message.weight());
    }
}

/// What waits behind the head of a queue. It begins with messages that are in the store alone.
#[derive(Debug)]
pub(super) struct Behind {
    pieces: VecDeque<Piece>,
    /// How many messages all pieces have.
    len: usize,
    /// Sum of their weights.
    bytes: usize,
    /// Those in memory.
    kept: Load,
    /// Up to where a page was asked for, while it is on its way.
    asked: Option<Seq>,
    /// Not before then, for the last time failed.
    retry_at: Option<Instant>,
}

/// The place of a message that may lie in the store alone: it is stored, and for nobody else.
pub(super) fn given_up(outgoing: &Outgoing) -> Option<Seq> {
    outgoing.seq.filter(|_| outgoing.share.is_none())
}

impl Behind {
    /// Of messages that lie in the store alone.
    pub(super) fn new(backlog: Backlog) -> Box<Self> {
        Box::new(Self {
            len: backlog.len,
            bytes: backlog.bytes,
            pieces: VecDeque::from([Piece::Stored(backlog)]),
            kept: Load::default(),
            asked: None,
            retry_at: None,
        })
    }

    /// How many messages.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Sum of their weights.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those in memory.
    pub(super) fn kept_load(&self) -> Load {
        self.kept
    }

    /// The messages that lie in the store alone: how many, between which ends.
    pub(super) fn backlog(&self) -> Option<Backlog> {
        let runs = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Stored(run) => Some(*run),
            Piece::Kept(_) => None,
        });
        runs.reduce(|all, run| Backlog {
            len: all.len + run.len,
            bytes: all.bytes + run.bytes,
            first: all.first.min(run.first),
            last: all.last.max(run.last),
        })
    }

    /// No message of it that lies in the store alone lies before.
    pub(super) fn first(&self) -> Option<Seq> {
        match self.pieces.front()? {
            Piece::Stored(run) => Some(run.first),
            Piece::Kept(_) => None,
        }
    }

    /// Whether a page is on its way.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// Notes that the next page is asked for, and says where it begins, and where it ends at the latest.
    /// `None` while one is on its way, and for some time after one has failed.
    pub(super) fn ask(&mut self, now: Instant) -> Option<(Seq, Seq)> {
        if self.is_asked() || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        self.retry_at = None;
        let Piece::Stored(run) = self.pieces.front()? else {
            return None;
        };
        self.asked = Some(run.last);
        Some((run.first, run.last))
    }

    /// The page does not come. False if none was asked for.
    pub(super) fn fetch_failed(&mut self, retry_at: Option<Instant>) -> bool {
        self.retry_at = retry_at;
        self.asked.take().is_some()
    }

    /// A page may be asked for again.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// When a page is to be asked for again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Appends a message; what the store has is given up, should that be wanted.
    pub(super) fn push(&mut self, mut outgoing: Outgoing, may_give_up: bool) {
        let weight = outgoing.message.weight();
        self.len += 1;
        self.bytes += weight;
        // Ends of different runs must not overlap.
        let seq = given_up(&outgoing).filter(|seq| may_give_up && self.is_highest(*seq));
        match (seq, self.pieces.back_mut()) {
            (Some(seq), Some(Piece::Stored(run))) => {
                run.len += 1;
                run.bytes += weight;
                run.last = seq;
            }
            (Some(seq), _) => self.pieces.push_back(Piece::Stored(run_of(seq, weight))),
            (None, _) => {
                outgoing.detach();
                self.kept.add(&outgoing);
                self.pieces.push_back(Piece::Kept(outgoing));
            }
        }
    }

    fn is_highest(&self, seq: Seq) -> bool {
        let runs = self.pieces.iter().rev();
        let mut ends = runs.filter_map(|piece| match piece {
            Piece::Stored(run) => Some(run.last),
            Piece::Kept(_) => None,
        });
        ends.next().is_none_or(|last| last < seq)
    }

    /// Appends the part of a queue that lies behind this one.
    pub(super) fn append(&mut self, mut after: Self) {
        self.len += after.len;
        self.bytes += after.bytes;
        self.kept.len += after.kept.len;
        self.kept.bytes += after.kept.bytes;
        if let (Some(Piece::Stored(run)), Some(Piece::Stored(next))) =
            (self.pieces.back_mut(), after.pieces.front())
        {
            run.len += next.len;
            run.bytes += next.bytes;
            run.last = next.last;
            after.pieces.pop_front();
        }
        self.pieces.append(&mut after.pieces);
    }

    /// Takes in a page of the first run. `is_known` says which messages are in memory already; the others are
    /// given to `take`. Returns how many messages the run should have had and the store does not.
    pub(super) fn take_page(
        &mut self,
        page: Page,
        is_known: impl Fn(Seq) -> bool,
        mut take: impl FnMut(Seq, Queued),
    ) -> usize {
        let (Some(asked), Some(Piece::Stored(run))) = (self.asked.take(), self.pieces.front_mut()) else {
            return 0;
        };
        if page.is_empty() {
            run.first = run.first.max(asked.next());
        }
        for (seq, queued) in page {
            if seq < run.first || seq > run.last {
                continue;
            }
            run.first = seq.next();
            if is_known(seq) {
                continue;
            }
            let weight = queued.message.weight();
            run.len = run.len.saturating_sub(1);
            run.bytes = run.bytes.saturating_sub(weight);
            self.len = self.len.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(weight);
            take(seq, queued);
        }
        if run.len > 0 && run.first <= run.last {
            return 0;
        }
        let missing = run.len;
        self.len = self.len.saturating_sub(missing);
        self.bytes = self.bytes.saturating_sub(run.bytes);
        self.pieces.pop_front();
        missing
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The next message, if it is in memory: what lay before it has come.
    pub(super) fn pop_kept(&mut self) -> Option<Outgoing> {
        match self.pieces.pop_front()? {
            Piece::Kept(outgoing) => {
                self.len -= 1;
                self.bytes -= outgoing.message.weight();
                self.kept.take(&outgoing);
                Some(outgoing)
            }
            run @ Piece::Stored(_) => {
                self.pieces.push_front(run);
                None
            }
        }
    }

    /// The messages in memory.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Outgoing> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Kept(outgoing) => Some(outgoing),
            Piece::Stored(_) => None,
        })
    }

    /// The messages in memory.
    pub(super) fn kept_mut(&mut self) -> impl Iterator<Item = &mut Outgoing> {
        self.pieces.iter_mut().filter_map(|piece| match piece {
            Piece::Kept(outgoing) => Some(outgoing),
            Piece::Stored(_) => None,
        })
    }

    /// Takes all out that is in memory, without the counts: they may be wrong.
    pub(super) fn salvage(self) -> impl Iterator<Item = Outgoing> {
        self.pieces.into_iter().filter_map(|piece| match piece {
            Piece::Kept(outgoing) => Some(outgoing),
            Piece::Stored(_) => None,
        })
    }

    /// Takes out messages in memory.
    pub(super) fn take_kept(&mut self, is_taken: impl Fn(&Outgoing) -> bool) -> Vec<Outgoing> {
        if !self.kept().any(&is_taken) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        for piece in std::mem::take(&mut self.pieces) {
            match piece {
                Piece::Kept(outgoing) if is_taken(&outgoing) => {
                    self.len -= 1;
                    self.bytes -= outgoing.message.weight();
                    self.kept.take(&outgoing);
                    taken.push(outgoing);
                }
                piece => self.pieces.push_back(piece),
            }
        }
        taken
    }
}

pub(super) fn run_of(seq: Seq, weight: usize) -> Backlog {
    Backlog {
        len: 1,
        bytes: weight,
        first: seq,
        last: seq,
    }
}

impl Behind {
    /// The part of a queue that does not fit into its head, if any of it may lie in the store alone; what
    /// stays in memory before that, and QoS 0, is given to `keep`. `before` is where more lies already.
    pub(super) fn of(
        all: impl Iterator<Item = Outgoing>,
        before: Option<Seq>,
        mut keep: impl FnMut(Outgoing),
    ) -> Option<Box<Self>> {
        let mut behind: Option<Box<Self>> = None;
        for outgoing in all {
            let seq = given_up(&outgoing);
            let seq = seq.filter(|seq| before.is_none_or(|before| *seq < before));
            match (&mut behind, seq) {
                _ if outgoing.qos == QoS::AtMostOnce => keep(outgoing),
                (Some(behind), seq) => behind.push(outgoing, seq.is_some()),
                (None, Some(seq)) => behind = Some(Self::new(run_of(seq, outgoing.message.weight()))),
                (None, None) => keep(outgoing),
            }
        }
        behind
    }
}
