//! The mailman: carries what one arbiter has for the others, once per tick.
//!
//! Parent:   core (one_for_one), permanent; one per arbiter
//! Owns:     nothing that dies with it; the office and the post boxes belong to the tables
//! Asked by: the other mailmen ([`Collect`]), everyone of its arbiter through the office, Control
//!           ([`super::accounts::Audit`])
//! Tells:    the other mailmen ([`Collect`]), links between nodes ([`super::links::Outbox`])
//! Dies of:  our bugs only; its next life finds the gathered mail and the box as they were

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::{Duration, Instant};

use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext, Handler, Message as ActixMessage};
use supervisors::{ChildSpec, Context, InitError, Shutdown};

use super::keeping::StoreMoved;
use super::office::Office;
use super::tables::Tables;

/// Time between two sweeps of full ports; [`crate::limits::SLOW_AFTER`] is noticed so much later.
const SWEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Mailman → mailman: there is mail in your box. Sent once per time that the box was empty.
#[derive(Clone, Copy, Debug, ActixMessage)]
#[rtype(result = "()")]
pub struct Collect;

/// The mailman of one arbiter.
pub struct Mailman {
    office: Rc<Office>,
    /// Whether a sweep is on its way; none is while nobody is full, so an idle node does not wake up.
    sweeping: bool,
}

impl Mailman {
    /// The child of `core` that carries the mail of arbiter `me`.
    #[must_use]
    pub fn spec(tables: &Arc<Tables>, me: usize) -> ChildSpec {
        let made = tables.clone();
        let init = move |ctx: &mut Context<Self>| Ok::<_, InitError>(Self::init(&made, me, ctx));
        ChildSpec::worker(format!("mail-{me}"), &tables.arbiters.all[me], init)
            .name(&tables.names.mailmen[me])
            .shutdown(Shutdown::Timeout(Duration::from_secs(1)))
    }

    fn init(tables: &Arc<Tables>, me: usize, ctx: &mut Context<Self>) -> Self {
        let office = Office::open(tables, me);
        ctx.spawn(Round);
        Self {
            office,
            sweeping: false,
        }
    }

    /// The office of its arbiter.
    pub(super) fn office(&self) -> &Office {
        &self.office
    }

    fn sweep_later(&mut self, ctx: &mut Context<Self>) {
        if self.sweeping || !self.office.must_sweep() {
            return;
        }
        self.sweeping = true;
        ctx.run_later(SWEEP_INTERVAL, |mailman, ctx| {
            mailman.sweeping = false;
            mailman.office.sweep(Instant::now());
            mailman.sweep_later(ctx);
        });
    }
}

impl Actor for Mailman {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        // What lay in the box while nobody heard the bell.
        self.office.collect();
        self.office.look_at_store();
    }
}

impl Handler<Collect> for Mailman {
    type Result = ();

    fn handle(&mut self, _: Collect, _: &mut Context<Self>) {
        self.office.collect();
    }
}

impl Handler<StoreMoved> for Mailman {
    type Result = ();

    fn handle(&mut self, _: StoreMoved, _: &mut Context<Self>) {
        self.office.look_at_store();
    }
}

/// Polled when the office has something to send.
struct Round;

impl ActorFuture<Mailman> for Round {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        mailman: &mut Mailman,
        ctx: &mut Context<Mailman>,
        cx: &mut Cx<'_>,
    ) -> Poll<()> {
        mailman.office.wake.register(cx);
        // Always, not only when woken: a crash may have eaten the wake.
        mailman.office.send_out();
        mailman.sweep_later(ctx);
        Poll::Pending
    }
}
