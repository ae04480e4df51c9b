//! The session of one client as a process: the shell around [`crate::session::Session`].
//!
//! Parent:   sessions (64 dynamic shards), temporary; on the arbiter that accepted the first socket
//! Owns:     the client's transport; its port in the office, which is released however it ends
//! Asked by: Topics (deliveries, through its port), Clients ([`Reattach`], [`Kick`], [`Pack`]),
//!           Retainer ([`Replay`])
//! Tells:    Router ([`super::router::Subscribe`]), Clients, Retainer, Wills, every desk that matches
//! Dies of:  its client's wish, its expiry, or a bug of ours: then its will is published, nothing else
//!           is affected
//!
//! | file | part |
//! |---|---|
//! | `session.rs` | its messages, its birth and its end |
//! | `session/arrival.rs` | what it begins with |
//! | `session/turn.rs` | one wake-up: read all, handle all, write once |
//! | `session/effects.rs` | carrying out what the value causes |
//! | `session/access.rs` | what the client may do |
//! | `session/seat.rs` | its port, and the books of what was offered to it |
//! | `session/replay.rs` | retained messages for new subscriptions |
//! | `session/brake.rs` | not reading a client that is too fast |
//! | `session/torn.rs` | what a crash leaves to shared groups |
//! | `session/keeping.rs` | what of it outlasts the process |
//! | `session/moving.rs` | going to another node, and coming from one |
//! | `session/description.rs` | telling operators of itself |
//! | `session/will.rs` | what becomes of the client's will |
//! | `session/wire.rs` | the socket with its codec |

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, AsyncContext, Handler, Message as ActixMessage, Running};
use bytestring::ByteString;
use supervisors::{ChildSpec, Context, InitError, Restart, Shutdown};
use tokio::time::Sleep;

use self::access::Entry;
pub use self::arrival::{Arrival, Claim, Past};
use self::brake::Brake;
pub use self::description::{Describe, ListSubscriptions, SessionInfo};
use self::effects::Ask;
use self::keeping::Waiting;
pub(super) use self::keeping::wall_ms;
use self::moving::Move;
pub use self::moving::{Depart, Discard, Late, Pack, Parcel};
use self::replay::Replays;
use self::reviving::Reviving;
pub use self::reviving::{Revivals, Ticket};
use self::seat::PortSeat;
use self::torn::Offered;
use self::turn::Turns;
pub use self::will::{TellWill, WillPublished};
use self::wire::Wire;
use super::clients::{self, Fact};
use super::office::Office;
use super::poison::Suspect;
use super::port::Parting;
use super::publish::Holds;
use super::storage::Mark;
use super::tables::Tables;
use super::wills;
use crate::mqtt::reason::ReasonCode;
use crate::session::Session as Value;
pub use crate::session::Subscription;
use crate::session::event::{Event, SubscribeRequest};

mod access;
mod arrival;
mod brake;
mod description;
mod effects;
pub mod farewell;
mod keeping;
mod moving;
mod replay;
mod reviving;
mod seat;
mod torn;
mod turn;
mod will;
mod wire;

/// Longest list of effects whose room is kept.
const EFFECTS_KEPT: usize = 256;

/// Clients → Session: another connection with this client id. The old transport is told 0x8E and closed.
/// A clean start empties the session in place.
#[derive(Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Reattach(pub Claim);

/// Clients, operator → Session: end the connection with this reason; the session lives on if it is
/// persistent.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Kick(pub ReasonCode);

/// Retainer → Session: everything that was retained before these subscriptions is in the store now.
#[derive(Clone, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Replay {
    /// The subscriptions.
    pub requests: Vec<SubscribeRequest>,
    /// The stamp of the store then: what is newer comes as it is published.
    pub until: u64,
}

/// The session of one client.
pub struct Session {
    seat: PortSeat,
    value: Value,
    /// The transport; `None` while the client is away.
    wire: Option<Wire>,
    /// What it waits for before it reads on.
    holds: Holds,
    /// Over what earlier sessions of this client have crashed.
    suspect: Option<Suspect>,
    /// Requests to the router; one is asked at a time, so their order is kept over a crash of the router.
    asks: VecDeque<Ask>,
    asking: bool,
    /// Retained messages that its new subscriptions have still to get.
    replays: Replays,
    /// Of a client with a rate.
    brake: Option<Box<Brake>>,
    /// Whether the client was not read in this turn, by our own will.
    unread: bool,
    /// When the value wants to be woken.
    wake_at: Option<Instant>,
    /// Fires at `wake_at` or earlier; re-armed only when it has fired.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// Of a shared group, in hand.
    offered: Option<Offered>,
    /// Who its client is.
    entry: Entry,
    /// Whether it has just come from another node, or is going to one.
    moving: Move,
    /// What it does when the store has committed.
    waiting: Waiting,
    /// Until this is safe its client is neither read nor answered.
    held_back: Option<Mark>,
    /// While it comes back from the store.
    revival: Option<Box<Reviving>>,
}

impl Session {
    /// The child of a shard of `sessions` ([`super::tables::Names::shard`]) for a new session on a worker
    /// arbiter. Its id is the client id. It tells Clients when it is attached.
    #[must_use]
    pub fn spec(
        tables: &Arc<Tables>,
        arbiter: usize,
        client_id: &ByteString,
        claim: &Claim,
        past: Past,
    ) -> ChildSpec {
        let (made, claim, id) = (tables.clone(), claim.clone(), client_id.clone());
        let init = move |ctx: &mut Context<Self>| {
            let arrival = claim.take();
            if arrival.is_none() && matches!(past, Past::None) {
                return Err(InitError::failed("the connection has given up"));
            }
            Self::init(&made, &id, arrival, &past, ctx)
        };
        ChildSpec::worker(&**client_id, &tables.arbiters.all[arbiter], init)
            .restart(Restart::Temporary)
            .shutdown(Shutdown::Timeout(Duration::from_secs(5)))
    }

    fn init(
        tables: &Arc<Tables>,
        client_id: &ByteString,
        arrival: Option<Arrival>,
        past: &Past,
        ctx: &mut Context<Self>,
    ) -> Result<Self, InitError> {
        let office = Office::here().filter(|office| Arc::ptr_eq(office.tables(), tables));
        let office = office.ok_or_else(|| InitError::failed("this arbiter has no office"))?;
        let (value, lasting, effects) = past.value(client_id, &tables.client_limits);
        let port = past.port(&office, value.client_id(), lasting)?;
        let suspect = tables.poison.suspect(value.client_id(), Instant::now());
        let mut session = Self {
            seat: PortSeat::new(office, port),
            value,
            wire: None,
            holds: Holds::default(),
            suspect,
            asks: VecDeque::new(),
            asking: false,
            replays: Replays::default(),
            brake: None,
            unread: false,
            wake_at: None,
            timer: None,
            ended: false,
            offered: None,
            entry: Entry::default(),
            moving: Move::default(),
            waiting: Waiting::default(),
            held_back: None,
            revival: None,
        };
        if let Past::Stored(restored, ticket) = past {
            session.come_back(&restored.record, ticket, effects, ctx);
        } else {
            effects
                .into_iter()
                .for_each(|effect| session.carry_out(effect, Instant::now(), ctx));
        }
        let clean = arrival
            .as_ref()
            .is_some_and(|arrival| arrival.attach.connect.clean_start);
        if let Past::Moved(_) = past {
            session.note_all();
        }
        if let Past::Stored(_, ticket) = past {
            session.revive(ticket, ctx);
        }
        if let Some(arrival) = arrival {
            session.arrive(arrival, ctx);
        }
        if let Past::Moved(_) = past {
            session.settle(clean, ctx);
        }
        ctx.spawn(Turns);
        Ok(session)
    }

    fn attach(&mut self, arrival: Arrival, ctx: &mut Context<Self>) {
        let now = Instant::now();
        if self.wire.is_some() {
            self.handle(Event::TakenOver, now, ctx);
        }
        let waits = self.value.queue_len() > 0 || self.seat.port.holds_deliveries();
        let has_past = self.lasting().is_some() && (waits || arrival.attach.connect.clean_start);
        let listener = arrival.origin.listener().into();
        let Arrival {
            attach,
            transport,
            origin,
            read_ahead,
            identity,
        } = arrival;
        match Wire::new(
            transport,
            origin,
            &attach.connect,
            attach.limits.packet_size_max,
            read_ahead,
        ) {
            Ok(wire) => {
                self.wire = Some(wire);
                self.enter(identity, listener, ctx);
                self.brake = Brake::new(&attach.limits, now);
                self.seat.office.set_online(&self.seat.port, true);
                self.seat.office.counters().connects_accepted.one();
                // The CONNECT was read elsewhere.
                self.seat.office.counters().packets_received.one();
                wills::client_is_back(&self.seat.office, self.value.client_id());
                self.handle(Event::Attach(attach), now, ctx);
                if self.wire.is_some() {
                    self.have_will();
                    self.note_record();
                    if has_past {
                        self.hold_back();
                    }
                    let client_id = self.value.client_id().clone();
                    let username = self.entry.username.clone();
                    self.tell_clients(Fact::Attached(client_id, ctx.myself(), username));
                }
            }
            Err(error) => {
                tracing::debug!(client = %self.value.client_id(), %error, "a socket cannot be used");
                if !self.value.is_persistent() {
                    self.end(ctx);
                }
            }
        }
        self.seat.port.wake.wake();
    }

    fn handle(&mut self, event: Event, now: Instant, ctx: &mut Context<Self>) {
        // One list for all sessions of the arbiter, for its room; an event inside an event has its own.
        let mut effects = self.seat.office.effects.take();
        self.value.handle(event, now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(effect, now, ctx);
        }
        if effects.capacity() <= EFFECTS_KEPT {
            self.seat.office.effects.replace(effects);
        }
    }

    /// The transport is gone without the client's word.
    fn lose_wire(&mut self, now: Instant, ctx: &mut Context<Self>) {
        if self.wire.take().is_some() {
            // The value decides about the will now.
            self.seat.lose_will();
            self.seat.office.set_online(&self.seat.port, false);
            self.forget_packets();
            self.handle(Event::TransportLost, now, ctx);
            self.go_away(ctx);
        }
    }

    fn close_wire(&mut self, ctx: &mut Context<Self>) {
        if let Some(wire) = self.wire.take() {
            self.seat.lose_will();
            wire.close();
            self.seat.office.set_online(&self.seat.port, false);
            self.forget_packets();
            self.go_away(ctx);
        }
    }

    /// The connection is gone: other members of its shared groups are given what waits for this one.
    fn go_away(&mut self, ctx: &mut Context<Self>) {
        for desk in self.seat.port.shared_desks() {
            if desk.group().is_some_and(|group| group.online_len() > 0)
                && let Some(share) = NonZeroU64::new(desk.id.0)
            {
                self.handle(Event::PassOn(share), Instant::now(), ctx);
                for delivery in self.seat.port.take_shared(share) {
                    let office = &self.seat.office;
                    office.settle(&self.seat.port, delivery.seq);
                    office.pass_on(desk.id, &delivery.message, delivery.dup);
                }
            }
        }
        self.note_away();
        self.tell_detached(ctx);
    }

    fn tell_detached(&self, ctx: &mut Context<Self>) {
        let (client_id, session) = (self.value.client_id().clone(), ctx.pid().clone());
        self.tell_clients(Fact::Away(client_id, session));
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.ended, true) {
            self.note_end();
            self.seat.office.close_port(&self.seat.port, Parting::Ended);
            let (client_id, session) = (self.value.client_id().clone(), ctx.pid().clone());
            self.tell_clients(Fact::Away(client_id, session));
            ctx.stop();
        }
    }

    fn kick(&mut self, reason: ReasonCode, ctx: &mut Context<Self>) {
        self.handle(Event::Kick(reason), Instant::now(), ctx);
        self.seat.port.wake.wake();
    }

    fn tell_clients(&self, fact: Fact) {
        clients::tell(self.seat.office.tables(), fact);
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn stopping(&mut self, ctx: &mut Context<Self>) -> Running {
        if !self.ended {
            // The node (or an operator) stops this process: the client is told.
            self.handle(Event::Kick(ReasonCode::ServerShuttingDown), Instant::now(), ctx);
            self.close_wire(ctx);
        }
        self.seat.stopped = true;
        // What is stored of it stays as it is.
        self.seat.port.lasting.set(None);
        Running::Stop
    }
}

impl Handler<Reattach> for Session {
    type Result = ();

    fn handle(&mut self, Reattach(claim): Reattach, ctx: &mut Context<Self>) {
        // One that is ending leaves the claim open for its successor.
        if !self.ended
            && let Some(arrival) = claim.take()
        {
            self.arrive(arrival, ctx);
        }
    }
}

impl Handler<Kick> for Session {
    type Result = ();

    fn handle(&mut self, Kick(reason): Kick, ctx: &mut Context<Self>) {
        self.kick(reason, ctx);
    }
}

impl Handler<Replay> for Session {
    type Result = ();

    fn handle(&mut self, Replay { requests, until }: Replay, _: &mut Context<Self>) {
        let has = |filter: &str| self.value.has_subscription(filter);
        self.replays.add(requests, until, has);
        self.seat.port.wake.wake();
    }
}
