//! The Topic: dispatches what matches one filter to its subscribers, and its delegates on other arbiters.
//!
//! Parent:   topics (dynamic), transient; one Topic per filter, on the arbiter of its first subscriber, and
//!           one delegate on every other arbiter with subscribers
//! Owns:     nothing that dies with it: rows and inbox are the office's desk
//! Asked by: publishers and the router, through the desk's inbox
//! Tells:    sessions, through their ports; the router ([`super::router::Joined`], `Left`, `Vacant`)
//! Dies of:  our bugs only; its next life finds the desk as it was and goes on with the entry in hand

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Cx, Poll};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext};
use bytestring::ByteString;
use supervisors::{ChildSpec, Context, InitError, Restart, Shutdown};

use super::desk::Desk;
use super::mail::FilterId;
use super::office::Office;
use super::tables::Tables;

/// Who dispatches one filter's messages on one arbiter: the Topic itself, or one of its delegates.
pub struct Topic {
    office: Rc<Office>,
    desk: Rc<Desk>,
}

impl Topic {
    /// The child of `topics` for this filter on this arbiter. Its id is the filter; a delegate's has
    /// `@` and the arbiter's index behind it.
    #[must_use]
    pub fn spec(
        tables: &Arc<Tables>,
        id: FilterId,
        filter: &ByteString,
        arbiter: usize,
        child: Arc<str>,
    ) -> ChildSpec {
        let (made, filter) = (tables.clone(), filter.clone());
        let init = move |ctx: &mut Context<Self>| Self::init(&made, id, &filter, ctx);
        ChildSpec::worker(child, &tables.arbiters.all[arbiter], init)
            .restart(Restart::Transient)
            .shutdown(Shutdown::Timeout(Duration::from_secs(1)))
    }

    fn init(
        tables: &Arc<Tables>,
        id: FilterId,
        filter: &ByteString,
        ctx: &mut Context<Self>,
    ) -> Result<Self, InitError> {
        let office = Office::here().filter(|office| Arc::ptr_eq(office.tables(), tables));
        let office = office.ok_or_else(|| InitError::failed("this arbiter has no office"))?;
        let desk = office.desk(id, filter);
        desk.seated.set(true);
        ctx.spawn(Work);
        Ok(Self { office, desk })
    }
}

impl Actor for Topic {
    type Context = Context<Self>;
}

impl Drop for Topic {
    fn drop(&mut self) {
        // The desk waits for the next life, or for the router's word that there will be none.
        self.desk.seated.set(false);
    }
}

/// Polled when the desk has something to dispatch.
struct Work;

impl ActorFuture<Topic> for Work {
    type Output = ();

    fn poll(self: Pin<&mut Self>, topic: &mut Topic, _: &mut Context<Topic>, cx: &mut Cx<'_>) -> Poll<()> {
        topic.desk.wake.register(cx);
        if topic.desk.work(&topic.office) {
            // Its neighbours first.
            topic.desk.wake.wake();
        }
        Poll::Pending
    }
}
