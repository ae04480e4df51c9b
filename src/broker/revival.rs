//! The revival: brings the stored sessions back, before any door opens.
//!
//! Parent:   root (rest_for_one), permanent; its start is its work
//! Owns:     nothing
//! Asked by: nobody
//! Tells:    Clients ([`Revive`])
//! Dies of:  a store that cannot be read: then the node does not serve

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use actix::Actor;
use actix_rt::ArbiterHandle;
use supervisors::{ChildSpec, Context, InitError};
use tokio::sync::oneshot;

use super::clients::Revive;
use super::session::Revivals;
use super::tables::Tables;
use crate::session::lasting::SessionNo;

/// Sessions that are read at once.
const PAGE_LEN: usize = 256;

/// Sessions that are on their way at once.
const UNDER_WAY_MAX: usize = 1024;

/// Sessions between two lines of the log.
const TOLD_EVERY: usize = 25_000;

/// See the module.
pub struct Revival;

impl Revival {
    /// The child of `root` between `sessions` and `doors`. `tables` is asked when it starts: they are those
    /// of the present life of `core`. Where there are other nodes (`has_heirs`) the wills are theirs: they
    /// have published them when this one was gone.
    #[must_use]
    pub fn spec(
        control: &ArbiterHandle,
        tables: impl Fn() -> Arc<Tables> + Send + Sync + 'static,
        has_heirs: impl Fn() -> bool + Send + Sync + 'static,
    ) -> ChildSpec {
        // Wills of clients that fell with `core` lie in its tables: stored ones are of an earlier process.
        let revived = AtomicBool::new(false);
        let init = move || {
            let again = revived.swap(true, Relaxed);
            Box::pin(Self::init(tables(), again || has_heirs())) as _
        };
        ChildSpec::worker_async("revival", control, init)
    }

    async fn init(tables: Arc<Tables>, has_heirs: bool) -> Result<Self, InitError> {
        let Some(storage) = tables.storage.clone() else {
            return Ok(Self);
        };
        let (revivals, mut after, mut len) = (Arc::new(Revivals::default()), None::<SessionNo>, 0);
        loop {
            let (answer, answered) = oneshot::channel();
            storage.sessions(after, PAGE_LEN, Box::new(move |page| drop(answer.send(page))));
            let page = match answered.await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(InitError::failed(error.to_string())),
                Err(_) => return Err(InitError::failed("the store does not answer")),
            };
            let Some(last) = page.last() else { break };
            after = Some(last.no);
            for mut restored in page {
                if has_heirs {
                    restored.record.will = None;
                }
                len += 1;
                if len % TOLD_EVERY == 0 {
                    tracing::info!("{len} sessions are back from the store");
                }
                let ticket = revivals.begin();
                let restored = Box::new(restored);
                // If it falls just now the ticket falls with the message, and the next life of `core` reads
                // the store anew.
                drop(tables.names.clients.cast(Revive { restored, ticket }));
            }
            revivals.until(UNDER_WAY_MAX).await;
        }
        revivals.until(0).await;
        if len > 0 {
            tracing::info!("{len} sessions are back from the store, with all that they were promised");
        }
        Ok(Self)
    }
}

impl Actor for Revival {
    type Context = Context<Self>;
}
