//! The keeper of the membership: who is dialled, who is let in, who is told.
//!
//! Parent:   cluster (rest_for_one), permanent
//! Owns:     the membership; after a restart it is read from the members file and the board
//! Asked by: Gate (Offer), Peer (News), Discovery (Seeds), operators and the node's drain
//!           (Join, Leave, Expel, Rotate, Status, Drain)
//! Tells:    peers (a new Peer), Peer (Order), whoever listens to a join (JoinStep)
//! Dies of:  our bugs only; a members file that cannot be read is set aside with a warning

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message, ResponseActFuture, WrapFuture};
use supervisors::{ChildSpec, Context, InitError, Shutdown, StartError};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::Cluster;
use super::alarm::Alarm;
use super::board::LinkState;
use super::dial::{DialError, Errand, JoinStep, Progress, Step, dial};
use super::members_file;
use super::membership::{Effect, Event, Membership, Now, State};
use super::peer::{Order, make_way};
use super::rotation::CookieSlip;
use super::status::ClusterStatus;
use super::wire::v1::{Answer, Hello, MemberRecord, Refusal};
use crate::broker::links::RoutesHeld;
use crate::limits::{JOIN_SETTLES_WITHIN, LINK_RESUME_UNREGISTERED_WITHIN, PEER_TICK};
use crate::node_name::{NodeId, NodeName};

mod orders;
mod rotation;

pub use orders::{Drain, Expel, Leave, Seeds};
use rotation::Coordinated;
pub use rotation::{Rotate, Rotated};

/// Gate → Connector: a node that proved the cookie wants a link.
#[derive(Debug, Message)]
#[rtype(result = "Answer")]
pub struct Offer(pub Hello);

/// Peer → Connector: what became of a link.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct News {
    /// To whom.
    pub node: NodeId,
    /// What.
    pub fact: Fact,
}

/// See [`News`].
#[derive(Debug)]
pub enum Fact {
    /// It is open; these are the members that the other side knows.
    Linked(Vec<MemberRecord>),
    /// Its connection broke; it may go on over a new one.
    Broken,
    /// It is closed, and why.
    Unlinked(String),
    /// Nothing came for a while.
    Suspect,
    /// Something came again.
    Trusted,
    /// The other side tells of members.
    Members(Vec<MemberRecord>),
    /// Routes were taken, there or here: look at the board.
    Routes,
    /// A canary came, or came back: look at the board.
    Canary,
    /// The other side says something about the cookie.
    Cookie(CookieSlip),
}

/// Operator → Connector: join that node's cluster. Its steps are told one by one; the join is over when
/// the channel closes, and went well if the last step is [`Step::Canary`] and done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// Whom.
    pub name: NodeName,
    /// At most one message per [`Step`].
    pub progress: UnboundedSender<JoinStep>,
}

/// Anyone → Connector: the cluster as it is seen from here.
#[derive(Clone, Copy, Debug)]
pub struct Status;

impl Message for Status {
    type Result = ClusterStatus;
}

/// The actor.
pub struct Connector {
    cluster: Cluster,
    membership: Membership,
    /// The next time when something is due.
    wake: Alarm,
    /// Joins that operators wait for.
    joins: BTreeMap<NodeName, Progress>,
    /// Why a member is not linked.
    reasons: BTreeMap<NodeName, String>,
    draining: bool,
    /// The rotation of the cookie that this node coordinates.
    rotation: Option<Coordinated>,
}

impl Connector {
    /// The child of `cluster`.
    #[must_use]
    pub fn spec(cluster: &Cluster) -> ChildSpec {
        let made = cluster.clone();
        let init = move |_: &mut Context<Self>| Ok::<_, InitError>(Self::init(made.clone()));
        ChildSpec::worker("connector", &cluster.arbiter, init)
            .name(&cluster.connector)
            .shutdown(Shutdown::Timeout(Duration::from_secs(1)))
    }

    /// Remembers the members; the links that stand are found by `started`.
    fn init(cluster: Cluster) -> Self {
        let file = &cluster.members_file;
        let remembered = members_file::load(file, &cluster.me.name).unwrap_or_else(|error| {
            tracing::warn!("the members file {} is not used: {error}", file.display());
            Vec::new()
        });
        let membership = Membership::new(cluster.me.clone(), &remembered, now());
        let (joins, reasons) = (BTreeMap::new(), BTreeMap::new());
        Self {
            cluster,
            membership,
            wake: Alarm::default(),
            joins,
            reasons,
            draining: false,
            rotation: None,
        }
    }

    fn feed(&mut self, event: Event, ctx: &mut Context<Self>) {
        let mut effects = Vec::new();
        let was_out = self.membership.is_out();
        self.membership.handle(event, now(), &mut effects);
        if !was_out {
            self.say_if_forced_out();
        }
        for effect in effects {
            self.carry_out(effect, ctx);
        }
    }

    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Dial { name, .. } if self.draining => self.feed(Event::DialFailed(name), ctx),
            Effect::Dial { name, join } => self.dial(name, join, ctx),
            Effect::Close(name) => {
                if let Some(row) = self.cluster.board.row(&name) {
                    // A Peer that has just ended is closed already.
                    let _ = row.orders.cast(Order::Leave("left"));
                }
            }
            Effect::Gossip => {
                for row in self.cluster.board.rows() {
                    let _ = row.orders.cast(Order::Members(self.membership.records()));
                }
            }
            Effect::Save => {
                let (file, me) = (&self.cluster.members_file, &self.cluster.me.name);
                if let Err(error) = members_file::save(file, me, self.membership.records()) {
                    tracing::warn!(
                        "the members file {} cannot be written ({error}): after a restart this node does \
                         not know whom to dial",
                        file.display()
                    );
                }
            }
            Effect::WakeAt(at) => self
                .wake
                .set(at, |me: &mut Self, ctx| me.feed(Event::Tick, ctx), ctx),
        }
    }

    fn dial(&mut self, name: NodeName, join: bool, ctx: &mut Context<Self>) {
        let progress = self.joins.get(&name).cloned().unwrap_or_default();
        let errand = Errand {
            name,
            join,
            members: self.membership.records(),
            progress,
        };
        let cluster = self.cluster.clone();
        let dialled = async move {
            let ticket = dial(cluster.clone(), &errand).await;
            let opened = match ticket {
                Ok(ticket) => ticket.settle(&cluster).await.map_err(Undialled::Start),
                Err(error) => Err(Undialled::Dial(error)),
            };
            (errand.name, opened)
        };
        ctx.spawn(dialled.into_actor(self).map(|(name, opened), me, ctx| {
            if let Err(error) = opened {
                me.not_dialled(name, error, ctx);
            }
        }));
    }

    fn not_dialled(&mut self, name: NodeName, error: Undialled, ctx: &mut Context<Self>) {
        let sentence = error.to_string();
        match &error {
            // Its connection is on its way, or stands already: a join waits for that.
            Undialled::Dial(DialError::Linked(_))
            | Undialled::Dial(DialError::Refused {
                refusal: Refusal::Simultaneous,
                ..
            }) => {
                return self.feed(Event::DialFailed(name), ctx);
            }
            Undialled::Dial(error) => self.give_up(&name, error.step(), &sentence),
            Undialled::Start(_) => self.give_up(&name, Step::Cookie, &sentence),
        }
        if matches!(&error, Undialled::Dial(error) if error.says_ended()) {
            // Asked again while it is away, the first answer counts: `hurry` never puts off.
            let until = Instant::now() + LINK_RESUME_UNREGISTERED_WITHIN;
            self.cluster.board.hurry(&name, until);
            ctx.run_later(LINK_RESUME_UNREGISTERED_WITHIN, |me, _| me.cluster.sweep());
        }
        if self.reasons.insert(name.clone(), sentence.clone()).as_ref() != Some(&sentence) {
            // Once per cause, not once per attempt.
            tracing::warn!("{name} cannot be linked: {sentence}");
        }
        self.feed(Event::DialFailed(name), ctx);
        if let Undialled::Dial(DialError::Refused {
            refusal: Refusal::Left(record),
            ..
        }) = error
        {
            self.feed(Event::RefusedAsLeft(record), ctx);
        }
    }

    /// Ends a join that somebody waits for.
    fn give_up(&mut self, name: &NodeName, step: Step, why: &str) {
        if let Some(progress) = self.joins.remove(name) {
            progress.failed(step, why);
        }
    }

    /// Tells whoever waits for a join what the board shows.
    fn follow(&mut self, name: &NodeName) {
        let (Some(progress), Some(row)) = (self.joins.get(name), self.cluster.board.row(name)) else {
            return;
        };
        if row.state == LinkState::Opening || !(row.routes_came && row.routes_settled) {
            return;
        }
        progress.reach(Step::Routes, || format!("version {} held", row.routes_held.0));
        if row.canaries == (true, true) {
            progress.reach(Step::Canary, || "ours came back, theirs came".into());
            self.joins.remove(name);
        }
    }

    fn linked(&mut self, node: NodeId, members: Vec<MemberRecord>, ctx: &mut Context<Self>) {
        let name = node.name.clone();
        self.reasons.remove(&name);
        self.feed(Event::Linked(node), ctx);
        self.feed(
            Event::Heard {
                from: name.clone(),
                records: members,
            },
            ctx,
        );
        if let Some(row) = self.cluster.board.row(&name) {
            // What it was told in the opening is older; what was news since could not be sent to it.
            let _ = row.orders.cast(Order::Members(self.membership.records()));
        }
        if let Some(progress) = self.joins.get(&name) {
            progress.reach(Step::Cookie, || "it dialled us".into());
            let settle = move |me: &mut Self, _: &mut Context<Self>| {
                let step = me.joins.get(&name).map_or(Step::Routes, Progress::next);
                me.give_up(&name, step, "it took too long: look at the log of the other node");
            };
            ctx.run_later(JOIN_SETTLES_WITHIN, settle);
        }
    }

    fn unlinked(&mut self, node: NodeId, reason: String, ctx: &mut Context<Self>) {
        let name = node.name.clone();
        let step = self.joins.get(&name).map_or(Step::Routes, Progress::next);
        self.give_up(&name, step, &format!("the link closed again: {reason}"));
        self.reasons.insert(name.clone(), reason);
        self.fell(&name, ctx);
        self.feed(Event::Unlinked(node), ctx);
        // If it was dialled and never came up.
        self.feed(Event::DialFailed(name), ctx);
    }
}

/// Why a dial ended without a Peer.
#[derive(Debug, thiserror::Error)]
enum Undialled {
    #[error("{0}")]
    Dial(DialError),
    #[error("its link could not be started: {0}")]
    Start(StartError),
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        wall: SystemTime::now(),
    }
}

impl Actor for Connector {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.say_if_forced_out();
        for row in self.cluster.board.rows() {
            if matches!(row.state, LinkState::Up | LinkState::Suspect) {
                self.feed(Event::Linked(row.node), ctx);
            }
        }
        self.feed(Event::Tick, ctx);
        ctx.run_interval(PEER_TICK, |me, ctx| {
            me.cluster.sweep();
            me.look_after_cookies(ctx);
        });
    }
}

impl Handler<Offer> for Connector {
    type Result = ResponseActFuture<Self, Answer>;

    fn handle(&mut self, Offer(hello): Offer, ctx: &mut Self::Context) -> Self::Result {
        let admitted = if self.draining {
            Err(Refusal::NotReady)
        } else {
            self.membership.admit(&hello)
        };
        if admitted.is_ok() {
            self.cluster.board.welcome(&hello.node.name, Instant::now());
            self.feed(Event::Welcomed(hello.node.name.clone()), ctx);
        }
        let cluster = self.cluster.clone();
        let admitted = async move {
            if admitted.is_ok() {
                make_way(&cluster, &hello.node).await;
            }
            admitted.map(|()| hello.node)
        };
        Box::pin(admitted.into_actor(self).map(|admitted, me, _| match admitted {
            Err(refusal) => Answer::Refuse(refusal),
            Ok(other) => Answer::Welcome {
                node: me.cluster.me.clone(),
                received: me.cluster.board.received(&other),
                members: me.membership.records(),
            },
        }))
    }
}

impl Handler<News> for Connector {
    type Result = ();

    fn handle(&mut self, News { node, fact }: News, ctx: &mut Self::Context) {
        let name = node.name.clone();
        match fact {
            Fact::Linked(members) => self.linked(node, members, ctx),
            Fact::Unlinked(reason) => return self.unlinked(node, reason, ctx),
            Fact::Broken => {
                self.feed(Event::Unlinked(node), ctx);
                self.fell(&name, ctx);
            }
            Fact::Cookie(slip) => return self.cookie_slip(&name, slip, ctx),
            Fact::Suspect => self.feed(Event::Suspect(name.clone()), ctx),
            Fact::Trusted => self.feed(Event::Trusted(name.clone()), ctx),
            Fact::Members(records) => self.feed(
                Event::Heard {
                    from: name.clone(),
                    records,
                },
                ctx,
            ),
            Fact::Routes | Fact::Canary => {}
        }
        self.follow(&name);
    }
}

impl Handler<Join> for Connector {
    type Result = ();

    fn handle(
        &mut self,
        Join {
            name,
            progress: listener,
        }: Join,
        ctx: &mut Self::Context,
    ) {
        let mut progress = self.joins.get(&name).cloned().unwrap_or_default();
        progress.add(listener);
        if name == self.cluster.me.name {
            return progress.failed(
                Step::Name,
                format!("{name} is this node: name another one to join"),
            );
        }
        if self.draining {
            return progress.failed(Step::Name, "this node is stopping");
        }
        let state = self.membership.get(&name).map(|member| member.state);
        if matches!(state, Some(State::Up | State::Suspect)) {
            let sentence = format!("{name} is a member already: see `ermine cluster status`");
            return progress.failed(Step::Name, sentence);
        }
        progress.reach(Step::Name, || name.to_string());
        self.joins.insert(name.clone(), progress);
        self.feed(Event::Join(name.clone()), ctx);
        if self.membership.get(&name).is_none() {
            self.give_up(
                &name,
                Step::Name,
                "this cluster has as many members as it may have",
            );
        }
        let late = move |me: &mut Self, _: &mut Context<Self>| {
            let step = me.joins.get(&name).map_or(Step::Connection, Progress::next);
            me.give_up(&name, step, "it took too long: look at the log of the other node");
        };
        ctx.run_later(JOIN_SETTLES_WITHIN * 2, late);
    }
}

impl Handler<Status> for Connector {
    type Result = ResponseActFuture<Self, ClusterStatus>;

    fn handle(&mut self, _: Status, _: &mut Self::Context) -> Self::Result {
        let held = self.cluster.router.call(RoutesHeld);
        // A router that hangs must not keep the status back.
        let held = async { timeout(Duration::from_secs(1), held).await.ok()?.ok() };
        Box::pin(held.into_actor(self).map(|held, me, _| {
            let reason = |name: &NodeName| me.reasons.get(name).cloned();
            ClusterStatus::new(&me.cluster, &me.membership, reason, &held.unwrap_or_default())
        }))
    }
}
