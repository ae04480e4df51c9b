//! The table of clients as others read it, past Clients.

use std::collections::BinaryHeap;
use std::sync::PoisonError;
use std::time::SystemTime;

use ahash::AHashMap;
use bytestring::ByteString;

use super::Known;
use crate::broker::links::WillNews;
use crate::broker::session::TellWill;
use crate::broker::tables::Tables;

/// So many sessions from the order of client ids, those behind `after`. Reads the table past Clients: a list
/// of 100,000 does not keep CONNECTs waiting.
#[must_use]
pub fn page(tables: &Tables, after: Option<&str>, len_max: usize) -> Vec<Known> {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    // The greatest on top: it gives way to whoever comes before it.
    let mut first = BinaryHeap::with_capacity(len_max.min(table.len()) + 1);
    for client_id in table.keys().filter(|id| after.is_none_or(|after| ***id > *after)) {
        if first.len() < len_max {
            first.push(client_id);
        } else if let Some(mut last) = first.peek_mut().filter(|last| client_id < **last) {
            *last = client_id;
        }
    }
    let found = first.into_sorted_vec().into_iter();
    found
        .filter_map(|client_id| table.get(client_id).cloned())
        .collect()
}

/// The session of one client.
#[must_use]
pub fn known(tables: &Tables, client_id: &str) -> Option<Known> {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    table.get(client_id).cloned()
}

/// Every client, and when it was served last.
#[must_use]
pub fn served(tables: &Tables) -> AHashMap<ByteString, SystemTime> {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    table
        .iter()
        .map(|(id, known)| (id.clone(), known.served))
        .collect()
}

/// How many sessions there are, and how many of them have a client.
#[must_use]
pub fn count(tables: &Tables) -> (usize, usize) {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    (table.len(), table.values().filter(|known| known.attached).count())
}

/// Has the keeper told of every will there is: of those of connected clients by their sessions, of those that
/// wait for their delay at once.
pub fn tell_wills(tables: &Tables) {
    let table = tables.clients.lock().unwrap_or_else(PoisonError::into_inner);
    let sessions: Vec<_> = table.values().map(|known| known.session.clone()).collect();
    drop(table);
    for session in sessions {
        // One that has just ended has none any more.
        let _ = session.cast(TellWill);
    }
    let Some(keeper) = tables.keeper() else { return };
    let book = tables.wills.lock().unwrap_or_else(PoisonError::into_inner);
    for (client_id, will, due) in book.waiting() {
        keeper.will(client_id, WillNews::Runs(will.clone(), due));
    }
}
