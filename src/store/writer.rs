//! The writer: makes safe what was noted, one commit after the other.
//!
//! Parent:   core (one_for_one), permanent; on an arbiter of its own, whose thread waits for the disk
//! Owns:     nothing that dies with it; what is noted and the file belong to the [`Store`]
//! Asked by: whoever notes something ([`Ring`])
//! Tells:    whoever listens to the store ([`Storage::listen`](crate::broker::storage::Storage::listen))
//! Dies of:  our bugs only; its next life writes what this one has not
//!
//! What comes while it commits is written by the next commit, at once; what comes while it rests waits for
//! the rest of a few milliseconds, so that what comes together is written together. A disk that takes
//! nothing is tried again each second. When the node stops it writes what is left.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message, Running};
use actix_rt::ArbiterHandle;
use supervisors::{ChildSpec, Context, Shutdown};

use super::committing::Turn;
use super::{Store, Sync};
use crate::broker::storage::{Condition, Storage};
use crate::limits::{STORE_RETRY_AFTER, STORE_STOPS_WITHIN};

/// Anyone → Writer: something was noted. Once until it has begun to write.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Ring;

/// Writer → itself: it is time.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct Commit;

/// The writer of a store.
pub struct Writer {
    store: Arc<Store>,
    /// A commit is on its way.
    due: bool,
    /// Something was written since the last sync, with [`Sync::Interval`].
    unsynced: bool,
}

impl Writer {
    /// The first child of `core`.
    #[must_use]
    pub fn spec(store: &Arc<Store>, arbiter: &ArbiterHandle) -> ChildSpec {
        let made = store.clone();
        let init = move |_: &mut Context<Self>| {
            Ok(Self {
                store: made.clone(),
                due: false,
                unsynced: made.pace.sync == Sync::Interval,
            })
        };
        ChildSpec::worker("store", arbiter, init)
            .name(&store.writer)
            .shutdown(Shutdown::Timeout(STORE_STOPS_WITHIN))
    }

    fn commit_after(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.due, true) {
            return;
        }
        if pause.is_zero() {
            ctx.notify(Commit);
        } else {
            ctx.notify_later(Commit, pause);
        }
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        self.due = false;
        match self.store.commit() {
            Turn::Idle => {}
            Turn::Done => {
                self.unsynced |= self.store.pace.sync == Sync::Interval;
                // Through the mailbox, so that an exit signal is heard in between.
                self.commit_after(Duration::ZERO, ctx);
            }
            Turn::Failed => self.commit_after(STORE_RETRY_AFTER, ctx),
        }
    }

    fn sync_now_and_then(&mut self, ctx: &mut Context<Self>) {
        if self.store.pace.sync == Sync::Interval {
            ctx.run_interval(self.store.pace.interval, |writer, _| {
                if writer.unsynced && writer.store.sync() == Turn::Done {
                    writer.unsynced = false;
                }
            });
        }
    }
}

impl Actor for Writer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.sync_now_and_then(ctx);
        // What was noted while nobody heard the bell.
        self.commit_after(Duration::ZERO, ctx);
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.store.commit();
        if self.store.pace.sync != Sync::Group {
            self.store.sync();
        }
        if self.store.condition() == Condition::Failing {
            tracing::error!(file = self.store.place, "the store could not write what was left");
        }
        Running::Stop
    }
}

impl Handler<Ring> for Writer {
    type Result = ();

    fn handle(&mut self, _: Ring, ctx: &mut Context<Self>) {
        self.commit_after(self.store.pace.group, ctx);
    }
}

impl Handler<Commit> for Writer {
    type Result = ();

    fn handle(&mut self, _: Commit, ctx: &mut Context<Self>) {
        self.commit(ctx);
    }
}
