//! The keeper of client ids and of wills between nodes: the shell around [`Ownership`] and [`Executor`].
//!
//! Parent:   cluster (rest_for_one), permanent
//! Owns:     the CONNECTs that wait for leave (Clients ask again); the values lie on the board and outlive
//!           it, and are made anew from the table of clients and by sessions if they are torn
//! Asked by: Clients, Session and Wills (through [`Keeper`]), Peer ([`LinkStands`], [`LinkFell`], [`Said`])
//! Tells:    Clients ([`TakeAway`]), Session ([`Depart`], [`Late`], TellWill), Peer (Order), Topics and links
//!           by publishing wills
//! Dies of:  our bugs only; while it is away CONNECTs wait a moment, then are served without it

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, WrapFuture};
use bytes::Bytes;
use bytestring::ByteString;
use supervisors::{Caster, ChildSpec, Context, InitError, Name};
use tokio::sync::oneshot;

use super::Cluster;
use super::alarm::Alarm;
use super::board::LinkState;
use super::executor::{self, Parted};
use super::membership::Now;
use super::ownership::{Effect, Epoch, Event, Letter, Ownership, Slip};
use super::peer::Order;
use super::wire::v1;
use crate::broker::clients::{self, TakeAway};
use crate::broker::links::{Claimed, Keeper, WillNews};
use crate::broker::session::{Depart, Late, Parcel};
use crate::broker::tables::Tables;
use crate::node_name::NodeId;

mod will;

pub use will::NodeStops;

#[cfg(doc)]
use super::executor::Executor;

/// Sessions in one frame, in bytes; a larger one has a frame of its own.
const FRAME_BYTES: usize = 1 << 20;

/// When the table of clients is looked through again after the first link stood: a CONNECT that was just
/// being served then had asked nobody.
const LOOKS_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(6)];

/// A session that was let through appears in the table of clients within this.
const OPENED_WITHIN: Duration = Duration::from_secs(1);

/// How long who lingers is remembered; it is gone by then.
const LINGERS_WITHIN: Duration = Duration::from_secs(3);

/// Peer → Owners: the link carries, or carries again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LinkStands(pub NodeId);

/// Peer → Owners: the link is closed, and why.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LinkFell(pub NodeId, pub Parted);

/// Peer → Owners: what another node says.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Said {
    /// Who.
    pub node: NodeId,
    /// In order.
    pub slips: Vec<Slip>,
}

/// Clients → Owners: a CONNECT.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Claim(ByteString, oneshot::Sender<Claimed>);

/// Clients → Owners: a session is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Over(ByteString);

/// Session → Owners: it came from another node and is in place.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct InPlace(ByteString, Caster<Late>);

#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Flush;

/// What the broker is given.
struct Desk(Name<Owners>);

impl Keeper for Desk {
    fn claim(&self, client_id: &ByteString, answer: oneshot::Sender<Claimed>) {
        // Who does not run drops the answer.
        let _ = self.0.cast(Claim(client_id.clone(), answer));
    }

    fn ended(&self, client_id: &ByteString) {
        // Its next life compares with the table of clients.
        let _ = self.0.cast(Over(client_id.clone()));
    }

    fn will(&self, client_id: &ByteString, news: WillNews) {
        // Its next life has all wills told anew.
        let _ = self.0.cast(will::News(client_id.clone(), news));
    }

    fn settled(&self, client_id: &ByteString, late: Caster<Late>) {
        // Who lingers goes by itself.
        let _ = self.0.cast(InPlace(client_id.clone(), late));
    }
}

/// The actor.
pub struct Owners {
    cluster: Cluster,
    tables: Arc<Tables>,
    waiting: BTreeMap<ByteString, oneshot::Sender<Claimed>>,
    /// What is to be said to each node in this tick.
    out: BTreeMap<NodeId, Vec<Slip>>,
    flush_armed: bool,
    wake: Alarm,
    /// The same for wills.
    will_wake: Alarm,
    /// Sessions that went to another node and linger.
    lingering: BTreeMap<ByteString, Caster<Depart>>,
    /// Where sessions came from that are not in place yet.
    origins: BTreeMap<ByteString, NodeId>,
    /// Sessions that are in place and take what came late, also when they are on their way again.
    arrived: BTreeMap<(NodeId, ByteString), Caster<Late>>,
}

impl Owners {
    /// The child of `cluster`.
    #[must_use]
    pub fn spec(cluster: &Cluster, tables: &Arc<Tables>) -> ChildSpec {
        let (made, told) = (cluster.clone(), tables.clone());
        let init = move |_: &mut Context<Self>| {
            Ok::<_, InitError>(Self {
                cluster: made.clone(),
                tables: told.clone(),
                waiting: BTreeMap::new(),
                out: BTreeMap::new(),
                flush_armed: false,
                wake: Alarm::default(),
                will_wake: Alarm::default(),
                lingering: BTreeMap::new(),
                origins: BTreeMap::new(),
                arrived: BTreeMap::new(),
            })
        };
        ChildSpec::worker("owners", &cluster.arbiter, init).name(&cluster.owners)
    }

    fn value<T>(&self, act: impl FnOnce(&mut Ownership) -> T) -> T {
        self.cluster.board.ownership(&self.cluster.me, act)
    }

    fn feed(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Now {
                instant: Instant::now(),
                wall: SystemTime::now(),
            };
            let mut effects = Vec::new();
            self.value(|value| value.handle(event, now, &mut effects));
            for effect in effects {
                events.extend(self.carry_out(effect, ctx));
            }
        }
    }

    /// Does it; what happens thereby at once.
    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) -> Option<Event> {
        match effect {
            Effect::Send(node, letter) => self.say(node, Slip::Letter(letter), ctx),
            Effect::Open { id, state } => return self.open(id, state),
            Effect::Overtaken(id) => {
                if let Some(answer) = self.waiting.remove(&id) {
                    let _ = answer.send(Claimed::Overtaken);
                }
                if clients::known(&self.tables, &id).is_some() {
                    // It is served without leave, as this CONNECT or as one before.
                    return self.carry_out(Effect::Discard(id), ctx);
                }
            }
            Effect::HandOver { id, epoch } => {
                self.client_is_back(&id, ctx);
                tracing::debug!(client = %id, "goes to another node");
                let (client_id, keep) = (id.clone(), true);
                let parcel = self.tables.names.clients.call(TakeAway { client_id, keep });
                ctx.spawn(parcel.into_actor(self).map(move |parcel, me, ctx| {
                    let state = me.packed(&id, parcel.ok().flatten(), ctx);
                    me.feed(Event::Packed { id, epoch, state }, ctx);
                }));
            }
            // Somebody else serves the client of a node that is lost.
            Effect::Discard(client_id) if self.has_adopted(&client_id) => {
                self.feed_wills(executor::Event::Elsewhere(client_id), ctx);
            }
            Effect::Discard(client_id) => {
                tracing::info!(client = %client_id, "has a later session on another node: this one ends");
                let keep = false;
                // Clients that are just restarted: the fence is told again with the next link.
                let _ = self.tables.names.clients.cast(TakeAway { client_id, keep });
            }
            Effect::WakeAt(at) => self
                .wake
                .set(at, |me: &mut Self, ctx| me.feed(Event::Wake, ctx), ctx),
        }
        None
    }

    fn open(&mut self, id: ByteString, state: Option<Bytes>) -> Option<Event> {
        let moved = state.and_then(|state| match v1::decode::<(NodeId, Bytes)>(&state) {
            Ok((origin, state)) => {
                self.origins.insert(id.clone(), origin);
                Some(state)
            }
            Err(error) => {
                tracing::error!(client = %id, %error, "a session came torn");
                None
            }
        });
        let answer = self.waiting.remove(&id);
        let unheard = match answer {
            Some(answer) => answer.send(Claimed::Open(moved)).is_err(),
            None => true,
        };
        // Clients gave up, or fell: what it serves without leave is its own.
        (unheard && clients::known(&self.tables, &id).is_none()).then(|| {
            tracing::warn!(client = %id, "nobody waits for its session any more");
            self.origins.remove(&id);
            Event::Ended(id)
        })
    }

    /// The session is out of its place: as it travels.
    fn packed(&mut self, id: &ByteString, parcel: Option<Parcel>, ctx: &mut Context<Self>) -> Option<Bytes> {
        let Parcel { state, depart } = parcel?;
        self.lingering.insert(id.clone(), depart);
        let lingers = id.clone();
        ctx.run_later(LINGERS_WITHIN, move |me, _| {
            let gone = |depart: &&Caster<Depart>| !depart.pid().is_alive();
            if me.lingering.get(&lingers).filter(gone).is_some() {
                me.lingering.remove(&lingers);
            }
        });
        Some(v1::encode(&(&self.cluster.me, state)).into())
    }

    fn say(&mut self, node: NodeId, slip: Slip, ctx: &mut Context<Self>) {
        self.out.entry(node).or_default().push(slip);
        if !std::mem::replace(&mut self.flush_armed, true) {
            // Handled when the mailbox is empty: one frame for what many CONNECTs caused.
            ctx.notify(Flush);
        }
    }

    fn flush(&mut self) {
        self.flush_armed = false;
        for (node, slips) in std::mem::take(&mut self.out) {
            let row = self.cluster.board.row(&node.name).filter(|row| row.node == node);
            // Said again when the link stands.
            let Some(row) = row else { continue };
            let (mut frame, mut bytes) = (Vec::new(), 0);
            for slip in slips {
                let weight = slip.weight();
                if bytes + weight > FRAME_BYTES && !frame.is_empty() {
                    let _ = row.orders.cast(Order::Ownership(std::mem::take(&mut frame)));
                    bytes = 0;
                }
                bytes += weight;
                frame.push(slip);
            }
            let _ = row.orders.cast(Order::Ownership(frame));
        }
    }

    /// The first link: everybody who is served here is known from now on.
    fn stands(&mut self, node: NodeId, ctx: &mut Context<Self>) {
        if self.tables.keeper().is_none() {
            self.keep(ctx);
        }
        self.up(node, ctx);
    }

    /// Who we are comes first: a node that keeps wills of an earlier life of ours is to know whether this
    /// process publishes them, before it hears of our clients.
    fn up(&mut self, node: NodeId, ctx: &mut Context<Self>) {
        let ask = self.ask();
        self.say(node.clone(), Slip::Will(ask), ctx);
        self.feed(Event::Up(node.clone()), ctx);
        self.feed_wills(executor::Event::Up(node), ctx);
    }

    fn keep(&mut self, ctx: &mut Context<Self>) {
        self.tables
            .set_keeper(Arc::new(Desk(self.cluster.owners.clone())));
        self.compare(false, ctx);
        clients::tell_wills(&self.tables);
        for pause in LOOKS_AGAIN_AFTER {
            ctx.run_later(pause, |me, ctx| {
                me.compare(true, ctx);
                clients::tell_wills(&me.tables);
            });
        }
    }

    /// Compares with the table of clients. `also_gone`: a session that is just being opened is not there yet.
    fn compare(&mut self, also_gone: bool, ctx: &mut Context<Self>) {
        let served = clients::served(&self.tables);
        let gone: Vec<(ByteString, Epoch)> = self.value(|value| {
            let gone = value.held().filter(|id| also_gone && !served.contains_key(*id));
            let gone = gone.filter_map(|id| Some((id.clone(), value.held_under(id)?)));
            let gone = gone.collect();
            for (id, at) in served {
                let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                value.hold(id, u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
            }
            gone
        });
        if !gone.is_empty() {
            ctx.run_later(OPENED_WITHIN, |me, ctx| me.forget(gone, ctx));
        }
    }

    /// Of sessions that were not there a while ago: those that are over. One that was let through since has
    /// another epoch.
    fn forget(&mut self, gone: Vec<(ByteString, Epoch)>, ctx: &mut Context<Self>) {
        for (id, epoch) in gone {
            let held = self.value(|value| value.held_under(&id)) == Some(epoch);
            let waits = self.waiting.contains_key(&id) || self.has_adopted(&id);
            if held && !waits && clients::known(&self.tables, &id).is_none() {
                self.feed(Event::Ended(id), ctx);
            }
        }
    }

    fn read(&mut self, node: &NodeId, slip: Slip, ctx: &mut Context<Self>) {
        // It heard of the link before we did.
        if !self.value(|value| value.is_up(node)) {
            self.stands(node.clone(), ctx);
        }
        match slip {
            Slip::Letter(letter) => self.feed(Event::Letter(node.clone(), letter), ctx),
            Slip::Will(slip) => self.feed_wills(executor::Event::Slip(node.clone(), slip), ctx),
            Slip::InPlace { id } => {
                let Some(depart) = self.lingering.remove(&id) else {
                    return;
                };
                let (late, came) = oneshot::channel();
                // Who has gone had nothing more to say.
                let _ = depart.cast(Depart { late });
                let node = node.clone();
                ctx.spawn(came.into_actor(self).map(move |came, me, ctx| {
                    if let Ok(state) = came {
                        me.say(node, Slip::Late { id, state }, ctx);
                    }
                }));
            }
            Slip::Late { id, state } => {
                let session = self.arrived.remove(&(node.clone(), id.clone()));
                if session.is_none_or(|session| session.cast(Late(state)).is_err()) {
                    tracing::warn!(client = %id, "late messages came for a session that is gone");
                }
            }
        }
    }
}

impl Slip {
    /// Bytes that it counts for in a frame.
    fn weight(&self) -> usize {
        64 + match self {
            Self::Letter(Letter::Released { state, .. }) => state.as_ref().map_or(0, Bytes::len),
            Self::Letter(Letter::Holds(held) | Letter::AllHeld { held, .. }) => {
                held.iter().map(|(id, _)| id.len() + 16).sum()
            }
            Self::Late { state, .. } => state.len(),
            Self::Will(slip) => slip.weight(),
            Self::Letter(_) | Self::InPlace { .. } => 0,
        }
    }
}

impl Actor for Owners {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let rows = self.cluster.board.rows().into_iter();
        let up = rows.filter(|row| matches!(row.state, LinkState::Up | LinkState::Suspect));
        let up: Vec<NodeId> = up.map(|row| row.node).collect();
        let before: Vec<NodeId> = self.value(|value| value.up_nodes().cloned().collect());
        // A life before asked to be told.
        if self.tables.keeper().is_some() || !up.is_empty() {
            self.keep(ctx);
        }
        for node in before.into_iter().filter(|node| !up.contains(node)) {
            self.fell(node, Parted::Lost, ctx);
        }
        for node in up {
            self.up(node, ctx);
        }
        self.feed(Event::Wake, ctx);
        self.feed_wills(executor::Event::Wake, ctx);
    }
}

impl Handler<Claim> for Owners {
    type Result = ();

    fn handle(&mut self, Claim(id, answer): Claim, ctx: &mut Self::Context) {
        self.client_is_back(&id, ctx);
        self.waiting.insert(id.clone(), answer);
        self.feed(Event::Connect(id), ctx);
    }
}

impl Handler<Over> for Owners {
    type Result = ();

    fn handle(&mut self, Over(id): Over, ctx: &mut Self::Context) {
        self.origins.remove(&id);
        self.feed(Event::Ended(id), ctx);
    }
}

impl Handler<InPlace> for Owners {
    type Result = ();

    fn handle(&mut self, InPlace(id, late): InPlace, ctx: &mut Self::Context) {
        if let Some(origin) = self.origins.remove(&id) {
            let from = (origin.clone(), id.clone());
            let session = late.pid().clone();
            self.arrived.insert(from.clone(), late);
            ctx.run_later(LINGERS_WITHIN, move |me, _| {
                if me.arrived.get(&from).is_some_and(|late| *late.pid() == session) {
                    me.arrived.remove(&from);
                }
            });
            self.say(origin, Slip::InPlace { id }, ctx);
        }
    }
}

impl Handler<Said> for Owners {
    type Result = ();

    fn handle(&mut self, Said { node, slips }: Said, ctx: &mut Self::Context) {
        for slip in slips {
            self.read(&node, slip, ctx);
        }
    }
}

impl Handler<LinkStands> for Owners {
    type Result = ();

    fn handle(&mut self, LinkStands(node): LinkStands, ctx: &mut Self::Context) {
        self.stands(node, ctx);
    }
}

impl Handler<LinkFell> for Owners {
    type Result = ();

    fn handle(&mut self, LinkFell(node, parted): LinkFell, ctx: &mut Self::Context) {
        self.fell(node, parted, ctx);
    }
}

impl Handler<Flush> for Owners {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.flush();
    }
}
