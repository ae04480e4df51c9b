//! When an actor looks again whether something is due: one timer, for the earliest instant that was named.

use std::time::Instant;

use actix::{Actor, AsyncContext, SpawnHandle};
use supervisors::Context;

/// A timer that is set anew when something is due earlier.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<(Instant, SpawnHandle)>);

impl Alarm {
    /// `ring` is called at `at`, or earlier if it was to be called earlier already. One that has rung is of
    /// the past, so that `ring` may set it again.
    pub(super) fn set<A: Actor<Context = Context<A>>>(
        &mut self,
        at: Instant,
        ring: impl FnOnce(&mut A, &mut Context<A>) + 'static,
        ctx: &mut Context<A>,
    ) {
        let now = Instant::now();
        if let Some((due, timer)) = self.0 {
            if due <= at && due > now {
                return;
            }
            ctx.cancel_future(timer);
        }
        let timer = ctx.run_later(at.saturating_duration_since(now), ring);
        self.0 = Some((at, timer));
    }
}
