//! SUBACK when the whole cluster knows of a subscription, where it is configured so.
//!
//! By default a SUBACK tells that this node has the subscription; what is published at another node in the
//! milliseconds after it may still miss it. With `suback = "cluster"` it waits until every node that is up
//! holds the routes as they were when the subscription was written, at most [`SUBACK_WITHIN`].

use std::future::Future;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

use supervisors::CallError;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::links::{Link, RouteVersion};
use super::office::Office;
use super::tables::Tables;
use crate::limits::SUBACK_WITHIN;
use crate::mqtt::reason::ReasonCode;

/// What a SUBACK waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Suback {
    /// This node has the subscription.
    #[default]
    Local,
    /// Every node that is up has its route.
    Cluster,
}

impl FromStr for Suback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "cluster" => Ok(Self::Cluster),
            _ => Err("must be local or cluster".into()),
        }
    }
}

/// How much of this node's own slice another node holds. Written by its link.
#[derive(Debug, Default)]
pub struct SliceHeld {
    version: AtomicU64,
    changed: Notify,
}

impl SliceHeld {
    /// The other node holds the slice up to this version.
    pub fn reach(&self, version: RouteVersion) {
        if self.version.fetch_max(version.0, AcqRel) < version.0 {
            self.changed.notify_waiters();
        }
    }

    /// The node is down: nobody waits for it.
    pub fn give_up(&self) {
        self.reach(RouteVersion(u64::MAX));
    }

    async fn holds(&self, version: RouteVersion) {
        loop {
            // Made before it is looked, so that no change in between is missed.
            let changed = self.changed.notified();
            if self.version.load(Acquire) >= version.0 {
                return;
            }
            changed.await;
        }
    }
}

/// The answer of the router to a SUBSCRIBE, when it may be told to the client.
pub(super) async fn confirmed(
    office: Rc<Office>,
    asked: impl Future<Output = Result<Vec<ReasonCode>, CallError>>,
) -> Result<Vec<ReasonCode>, CallError> {
    let reasons = asked.await?;
    let tables = office.tables();
    if tables.suback == Suback::Cluster && timeout(SUBACK_WITHIN, told(tables)).await.is_err() {
        office.counters().subacks_unconfirmed.one();
    }
    Ok(reasons)
}

/// Waits until every link's node holds the own slice as it is now.
async fn told(tables: &Tables) {
    let links: Vec<Link> = tables
        .links
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if links.is_empty() {
        return;
    }
    // Of a torn table the router's next life tells; the subscription is asked for again.
    let Ok(version) = tables.routes.read().map(|table| table.own_version()) else {
        return;
    };
    for link in links {
        link.holds.holds(version).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_by_the_version_or_the_end_of_the_link() {
        let held = Arc::new(SliceHeld::default());
        held.reach(RouteVersion(3));
        held.reach(RouteVersion(2));
        held.holds(RouteVersion(3)).await;
        for end in [|held: &SliceHeld| held.reach(RouteVersion(4)), SliceHeld::give_up] {
            let held = Arc::new(SliceHeld::default());
            let waiting = held.clone();
            let waiting = tokio::spawn(async move { waiting.holds(RouteVersion(4)).await });
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            end(&held);
            waiting.await.unwrap();
        }
        assert_eq!("cluster".parse(), Ok(Suback::Cluster));
        assert!("all".parse::<Suback>().is_err());
    }
}
