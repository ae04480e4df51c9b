//! The router: sole writer of the route table; alone decides birth and death of Topics.
//!
//! Parent:   core (one_for_one), permanent
//! Owns:     the requests that are not answered yet; tables and [`ledger`] belong to `core`
//! Asked by: Session ([`Subscribe`], [`Unsubscribe`]), links ([`LinkUp`], [`ApplyDelta`], …), operators
//! Tells:    topics (start, end), Topics (errands, by mail), every link ([`RouteDelta`])
//! Dies of:  our bugs only; `init` reconciles with the tables, and fails if they are torn, so that
//!           `core` makes new ones. Sessions ask again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, AsyncContext, Handler, Message as ActixMessage, ResponseFuture};
use ahash::AHashMap;
use bytestring::ByteString;
use supervisors::{
    ChildError, ChildSpec, Context, Down, ExitReason, InitError, MonitorRef, Shutdown, StartError,
    TerminateChild,
};
use tokio::sync::oneshot;

use self::ledger::{Ledger, Order, Place};
use super::mail::{Errand, FilterId, Parcel, PortId, Ticket};
use super::office::Office;
use super::tables::{Tables, Torn};
use super::topic::Topic;
use crate::mqtt::packet::QoS;
use crate::mqtt::reason::ReasonCode;
use crate::node_name::NodeId;
use crate::session::event::SubscribeRequest;

pub mod ledger;
mod slices;

#[cfg(doc)]
use super::links::{ApplyDelta, LinkUp, RouteDelta};

/// First pause before a Topic that could not be started or ended is tried again; doubled each time, up to
/// 64 times as long: clients wait for it, and `topics` is mostly back at once.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// Attempts to start or end a Topic while `topics` is away; 12 s, longer than its restart takes.
const ATTEMPTS_MAX: u32 = 100;

/// Crashes at its start after which a Topic is given up and its subscriptions are refused.
const CRASHES_MAX: u32 = 5;

/// Session → Router: add or change the subscriptions of a session. Answered when every row is written
/// (or refused): one reason per request, in order.
#[derive(Debug, ActixMessage)]
#[rtype(result = "Vec<ReasonCode>")]
pub struct Subscribe {
    /// Whose rows.
    pub port: PortId,
    /// The subscriptions.
    pub requests: Vec<SubscribeRequest>,
}

/// Session → Router: remove subscriptions of a session. Answered when every row is gone: one reason per
/// filter, in order.
#[derive(Debug, ActixMessage)]
#[rtype(result = "Vec<ReasonCode>")]
pub struct Unsubscribe {
    /// Whose rows.
    pub port: PortId,
    /// The filters.
    pub filters: Vec<ByteString>,
}

/// Topic → Router: a join has been dispatched; the seat has so many rows now.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Joined {
    /// The seat's filter.
    pub filter: FilterId,
    /// The seat's arbiter.
    pub arbiter: usize,
    /// What is answered.
    pub ticket: Ticket,
    /// Rows of the seat.
    pub rows: usize,
}

/// Topic → Router: a leave has been dispatched.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Left {
    /// What is answered.
    pub ticket: Ticket,
    /// Whether there was a row.
    pub had: bool,
}

/// Topic → Router: the seat has no rows; it has dispatched so many errands.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Vacant {
    /// The seat's filter.
    pub filter: FilterId,
    /// The seat's arbiter.
    pub arbiter: usize,
    /// Joins and leaves dispatched in the desk's life.
    pub errands: u64,
}

/// Topic → Router: how a seat stands; the answer to [`Errand::Census`].
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Census {
    /// Which question it answers.
    pub number: u64,
    /// The seat's filter.
    pub filter: FilterId,
    /// The seat's arbiter.
    pub arbiter: usize,
    /// Joins and leaves dispatched in the desk's life.
    pub errands: u64,
    /// Rows of the seat.
    pub rows: usize,
}

/// Router → itself: tell the links what this tick changed.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
struct TellLinks;

/// The router.
pub struct Router {
    tables: Arc<Tables>,
    office: Rc<Office>,
    requests: AHashMap<u64, Request>,
    /// What each monitor is for.
    watched: AHashMap<MonitorRef, Watched>,
    /// Whether a [`TellLinks`] is on its way.
    telling: bool,
}

/// A request that waits for its errands; ends with its answer.
struct Request {
    reasons: Vec<ReasonCode>,
    open: usize,
    answer: oneshot::Sender<Vec<ReasonCode>>,
}

#[derive(Clone)]
enum Watched {
    Seat(FilterId, usize),
    Link(NodeId),
}

impl Router {
    /// The child of `core`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Self::init(&made, ctx);
        ChildSpec::worker("router", &tables.arbiters.all[tables.arbiters.control()], init)
            .name(&tables.names.router)
            .shutdown(Shutdown::Timeout(Duration::from_secs(5)))
    }

    fn init(tables: &Arc<Tables>, ctx: &mut Context<Self>) -> Result<Self, InitError> {
        let office = Office::open(tables, tables.arbiters.control());
        let mut router = Self {
            tables: tables.clone(),
            office,
            requests: AHashMap::new(),
            watched: AHashMap::new(),
            telling: false,
        };
        drop(tables.routes.read()?);
        let links = tables.links.read().map_err(|_| Torn)?.clone();
        links.iter().for_each(|link| router.watch_link(link, ctx));
        let mut orders = Vec::new();
        tables.ledger.lock().map_err(|_| Torn)?.recover(&mut orders);
        router.carry_out(orders, ctx);
        router.tell_links_later(ctx);
        Ok(router)
    }

    /// One step of the ledger and what it causes. A torn table is a crash, and no next life of the router
    /// gets past its `init` with it: `core` has to make new ones.
    fn step(&mut self, ctx: &mut Context<Self>, change: impl FnOnce(&mut Ledger, &mut Vec<Order>)) {
        let mut orders = Vec::new();
        change(
            &mut self.tables.ledger.lock().expect("the ledger is whole"),
            &mut orders,
        );
        self.carry_out(orders, ctx);
    }

    fn carry_out(&mut self, orders: Vec<Order>, ctx: &mut Context<Self>) {
        for order in orders {
            match order {
                Order::Open(place) => self.open(place, 0, ctx),
                Order::Close(place) => self.close(place, 0, ctx),
                Order::Post(place, errand) => {
                    let parcel = Parcel::Errand(Box::new((place.filter, place.text, errand)));
                    self.office.send(place.arbiter, parcel);
                }
                Order::Route(plain) => self.route(&plain, ctx),
                Order::Refuse(ticket) => self.answer(ticket, ReasonCode::ImplementationSpecificError),
                Order::Unknown(ticket) => self.answer(ticket, ReasonCode::NoSubscriptionExisted),
                Order::ForgetGroup(filter) => self.tables.forget_group(&filter),
            }
        }
    }

    fn route(&mut self, plain: &ByteString, ctx: &mut Context<Self>) {
        let seats = self
            .tables
            .ledger
            .lock()
            .expect("the ledger is whole")
            .seats(plain);
        let shared = seats.iter().filter_map(|seats| seats.share.as_ref());
        let groups: Vec<_> = shared.map(|group| group.text().clone()).collect();
        let is_plain = groups.len() < seats.len();
        let written = self.tables.routes.write(|table| match seats.is_empty() {
            true => table.remove_local(plain),
            false => table.set_shared(plain, seats.into(), is_plain, &groups),
        });
        written.expect("the route table is whole");
        self.tell_links_later(ctx);
    }

    fn open(&mut self, place: Place, attempt: u32, ctx: &mut Context<Self>) {
        let spec = Topic::spec(
            &self.tables,
            place.filter,
            &place.text,
            place.arbiter,
            place.child.clone(),
        );
        let started = self.tables.names.topics.start_child(spec).into_actor(self);
        ctx.spawn(started.map(move |started, router, ctx| {
            let (id, arbiter) = (place.filter, place.arbiter);
            match started {
                Ok(pid) | Err(StartError::AlreadyStarted(pid)) => {
                    // Its supervisor restarts it after a crash; the router looks who sits there then.
                    let monitor = ctx.monitor(&pid);
                    router.watched.insert(monitor, Watched::Seat(id, arbiter));
                    router.step(ctx, |ledger, out| ledger.opened(id, arbiter, out));
                }
                Err(why) if attempt < attempts_max(&why) => {
                    ctx.run_later(pause(attempt), move |router, ctx| {
                        router.open(place, attempt + 1, ctx)
                    });
                }
                Err(why) => {
                    tracing::error!(filter = %place.text, %why, "a Topic cannot be started");
                    router.office.send(arbiter, Parcel::Vacated(id));
                    router.step(ctx, |ledger, out| ledger.open_failed(id, arbiter, out));
                }
            }
        }));
    }

    fn close(&mut self, place: Place, attempt: u32, ctx: &mut Context<Self>) {
        let request = TerminateChild::new(place.child.clone());
        let ended = self.tables.names.topics.call(request).into_actor(self);
        ctx.spawn(ended.map(move |ended, router, ctx| match ended {
            Err(_) | Ok(Err(ChildError::ShuttingDown | ChildError::Restarting)) if attempt < ATTEMPTS_MAX => {
                ctx.run_later(pause(attempt), move |router, ctx| {
                    router.close(place, attempt + 1, ctx)
                });
            }
            // Ended, or not there any more.
            _ => {
                router.office.send(place.arbiter, Parcel::Vacated(place.filter));
                router.step(ctx, |ledger, out| ledger.closed(place.filter, place.arbiter, out));
            }
        }));
    }

    /// Registers a request and sends its errands.
    fn ask(
        &mut self,
        arbiter: u16,
        errands: Vec<(ByteString, ReasonCode, Ask)>,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Vec<ReasonCode>> {
        let (answer, answered) = oneshot::channel();
        let reasons: Vec<_> = errands.iter().map(|(_, granted, _)| *granted).collect();
        if errands.is_empty() || usize::from(arbiter) >= self.tables.arbiters.all.len() {
            return Box::pin(async move { reasons });
        }
        let tables = self.tables.clone();
        let request = tables.ledger.lock().expect("the ledger is whole").next_request();
        self.requests.insert(
            request,
            Request {
                open: reasons.len(),
                reasons,
                answer,
            },
        );
        for (position, (text, _, ask)) in errands.into_iter().enumerate() {
            let errand = ask.errand(Ticket {
                request,
                position: position as u32,
            });
            self.step(ctx, |ledger, out| {
                ledger.ask(&text, arbiter.into(), errand, || tables.share_group(&text), out);
            });
        }
        // The sender is dropped only with the router: then this future is dropped with it.
        Box::pin(async move { answered.await.unwrap_or_default() })
    }

    /// One errand of a request is done. Tickets of an earlier life of the router are unknown.
    fn answer(&mut self, ticket: Ticket, reason: ReasonCode) {
        let Some(request) = self.requests.get_mut(&ticket.request) else {
            return;
        };
        request.reasons[ticket.position as usize] = reason;
        self.done(ticket);
    }

    fn done(&mut self, ticket: Ticket) {
        let Some(request) = self.requests.get_mut(&ticket.request) else {
            return;
        };
        request.open -= 1;
        if request.open == 0
            && let Some(request) = self.requests.remove(&ticket.request)
        {
            // A session that ended meanwhile does not listen.
            let _ = request.answer.send(request.reasons);
        }
    }
}

/// How often a start that failed is tried again: as long as `topics` or the child is being restarted; a few
/// times after a crash, which need not come again; never if it was refused.
fn attempts_max(why: &StartError) -> u32 {
    match why {
        StartError::Unreachable(_)
        | StartError::ShuttingDown
        | StartError::AlreadyPresent
        | StartError::Init(ExitReason::Shutdown | ExitReason::Killed) => ATTEMPTS_MAX,
        StartError::Init(ExitReason::Panic(_)) => CRASHES_MAX,
        _ => 0,
    }
}

fn pause(attempt: u32) -> Duration {
    TRY_AGAIN_AFTER * (1 << attempt.min(6))
}

/// What a request asks of one filter's rows.
enum Ask {
    Join(u64, SubscribeRequest),
    Leave(u64),
}

impl Ask {
    fn errand(self, ticket: Ticket) -> Errand {
        match self {
            Self::Leave(port) => Errand::Leave { port, ticket },
            Self::Join(port, request) => Errand::Join {
                port,
                options: request.options,
                subscription_identifier: request.subscription_identifier,
                ticket,
            },
        }
    }
}

impl Actor for Router {
    type Context = Context<Self>;
}

impl Handler<Subscribe> for Router {
    type Result = ResponseFuture<Vec<ReasonCode>>;

    fn handle(&mut self, Subscribe { port, requests }: Subscribe, ctx: &mut Context<Self>) -> Self::Result {
        let errands = requests.into_iter().map(|request| {
            let granted = match request.options.qos {
                QoS::AtMostOnce => ReasonCode::Success,
                QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
                QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
            };
            (request.filter.clone(), granted, Ask::Join(port.serial, request))
        });
        self.ask(port.arbiter, errands.collect(), ctx)
    }
}

impl Handler<Unsubscribe> for Router {
    type Result = ResponseFuture<Vec<ReasonCode>>;

    fn handle(
        &mut self,
        Unsubscribe { port, filters }: Unsubscribe,
        ctx: &mut Context<Self>,
    ) -> Self::Result {
        let errands = filters
            .into_iter()
            .map(|text| (text, ReasonCode::Success, Ask::Leave(port.serial)));
        self.ask(port.arbiter, errands.collect(), ctx)
    }
}

impl Handler<Joined> for Router {
    type Result = ();

    fn handle(&mut self, joined: Joined, ctx: &mut Context<Self>) {
        let Joined {
            filter,
            arbiter,
            ticket,
            rows,
        } = joined;
        self.step(ctx, |ledger, out| ledger.joined(filter, arbiter, rows, out));
        // After the route: who reads SUBACK gets whatever is published from then on.
        self.done(ticket);
    }
}

impl Handler<Left> for Router {
    type Result = ();

    fn handle(&mut self, Left { ticket, had }: Left, _: &mut Context<Self>) {
        match had {
            true => self.done(ticket),
            false => self.answer(ticket, ReasonCode::NoSubscriptionExisted),
        }
    }
}

impl Handler<Vacant> for Router {
    type Result = ();

    fn handle(&mut self, vacant: Vacant, ctx: &mut Context<Self>) {
        let Vacant {
            filter,
            arbiter,
            errands,
        } = vacant;
        self.step(ctx, |ledger, out| ledger.vacant(filter, arbiter, errands, out));
    }
}

impl Handler<Census> for Router {
    type Result = ();

    fn handle(&mut self, census: Census, ctx: &mut Context<Self>) {
        self.step(ctx, |ledger, out| ledger.census(&census, out));
    }
}

impl Handler<Down> for Router {
    type Result = ();

    fn handle(&mut self, down: Down, ctx: &mut Context<Self>) {
        match self.watched.remove(&down.monitor) {
            Some(Watched::Seat(filter, arbiter)) => {
                self.step(ctx, |ledger, out| ledger.lost(filter, arbiter, out));
            }
            Some(Watched::Link(node)) => self.link_lost(node, down.pid, ctx),
            None => {}
        }
    }
}
