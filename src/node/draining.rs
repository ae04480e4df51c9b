//! Emptying a node before it leaves its cluster: doors refuse, clients are sent away at a rate, links close.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use supervisors::Name;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Plan;
use super::surroundings::restarting;
use crate::admin::protocol::{DrainOrder, JoinStep};
use crate::broker::clients;
use crate::broker::crowd::{Elsewhere, NodeCrowd};
use crate::broker::door::Door;
use crate::broker::session::Session;
use crate::broker::session::farewell::SendAway;
use crate::broker::tables::Tables;
use crate::cluster::connector::Leave;

/// Turns of a second in which clients are told to go.
const TURNS_PER_SECOND: u32 = 10;

/// How often it is looked for clients that came in between; a CONNECT takes 5 s at most.
const ROUNDS_MAX: usize = 10;

/// Longest wait, after a round, until those who were told are gone.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Pause between two looks whether they are.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Lets clients in again unless the node is to stop: also when the drain is broken off.
struct Closed(Arc<NodeCrowd>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.send_away(None);
    }
}

/// Does it, and tells each step as it ends.
///
/// # Errors
/// One sentence; clients are let in again.
pub(super) async fn drain(
    plan: &Plan,
    order: &DrainOrder,
    steps: &mpsc::Sender<JoinStep>,
) -> Result<(), String> {
    let crowd = plan.doors.first().map(|door: &Door| door.terms().node.clone());
    let crowd = crowd.ok_or("this node has no listener to close")?;
    if crowd.elsewhere().is_some() {
        return Err("this node is being emptied already: wait, or look at its log".into());
    }
    let server = order.server.as_deref().map(|server| (server.into(), order.moved));
    let elsewhere = Elsewhere { server };
    crowd.send_away(Some(elsewhere.clone()));
    let closed = Closed(crowd);
    tracing::info!(
        rate = order.rate,
        server = order.server.as_deref().unwrap_or("none"),
        "leaving: no client is let in, and those that are connected are sent away"
    );
    let began = Instant::now();
    let sent = send_all_away(plan, order.rate, &elsewhere).await;
    let took = began.elapsed().as_millis();
    tell(steps, "clients", format!("{sent} sent away in {took} ms")).await;
    let wing = plan.wing().ok_or_else(|| restarting("cluster"))?;
    wing.connector
        .call(Leave)
        .await
        .map_err(|_| restarting("connector"))?;
    tell(steps, "links", "closed, and the members know".into()).await;
    if order.stop {
        // Nobody is let in any more: the node stops as soon as this is answered.
        std::mem::forget(closed);
    }
    Ok(())
}

async fn tell(steps: &mpsc::Sender<JoinStep>, step: &str, detail: String) {
    tracing::info!("leaving: {step}: {detail}");
    let step = JoinStep {
        step: step.into(),
        ok: true,
        detail,
    };
    // An operator who has gone away does not end it.
    let _ = steps.send(step).await;
}

/// How many a turn tells, and how long a turn is.
fn pace(rate: u32) -> (usize, Duration) {
    let turn = (rate / TURNS_PER_SECOND).max(1);
    (turn as usize, Duration::from_secs(1) * turn / rate.max(1))
}

async fn send_all_away(plan: &Plan, rate: u32, elsewhere: &Elsewhere) -> usize {
    let (turn, pause) = pace(rate);
    let mut clock = interval(pause);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    for _ in 0..ROUNDS_MAX {
        let connected = connected(&plan.tables());
        if connected.is_empty() {
            return sent;
        }
        for some in connected.chunks(turn) {
            clock.tick().await;
            for session in some {
                let farewell = SendAway {
                    reason: elsewhere.farewell(),
                    server: elsewhere.reference(),
                };
                // One that has just ended is gone too.
                sent += usize::from(session.cast(farewell).is_ok());
            }
        }
        gone(&plan.tables()).await;
    }
    tracing::warn!("leaving: some clients are still connected; going on");
    sent
}

/// Waits until nobody is connected, but not long.
async fn gone(tables: &Tables) {
    let deadline = Instant::now() + GONE_WITHIN;
    while clients::count(tables).1 > 0 && Instant::now() < deadline {
        sleep(LOOK_AGAIN_AFTER).await;
    }
}

fn connected(tables: &Tables) -> Vec<Name<Session>> {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    let attached = table.values().filter(|known| known.attached);
    attached.map(|known| known.session.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_rate_is_kept_in_turns_of_a_tenth_of_a_second_or_longer() {
        assert_eq!(pace(1000), (100, Duration::from_millis(100)));
        assert_eq!(pace(5), (1, Duration::from_millis(200)));
        assert_eq!(pace(1), (1, Duration::from_secs(1)));
        assert_eq!(pace(19), (1, Duration::from_secs(1) / 19));
    }
}
