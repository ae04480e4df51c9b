//! The memory of CONNECTs that have not come whole: bounded for all of them together, for nobody knows yet
//! who sends them.

use std::sync::atomic::Ordering::Relaxed;

use crate::broker::tables::Tables;
use crate::limits::{HELLO_BYTES_MAX, HELLO_FREE_BYTES};

/// What one connection holds; given back when this is dropped.
pub(super) struct Held<'a> {
    tables: &'a Tables,
    bytes: usize,
}

impl<'a> Held<'a> {
    /// Nothing yet.
    pub(super) fn of(tables: &'a Tables) -> Self {
        Self { tables, bytes: 0 }
    }

    /// The connection holds so many bytes now; false if that is more than all together may.
    pub(super) fn now(&mut self, bytes: usize) -> bool {
        let counted = bytes.saturating_sub(HELLO_FREE_BYTES);
        if counted <= self.bytes {
            return true;
        }
        let more = counted - self.bytes;
        let all = self.tables.hello_bytes.fetch_add(more, Relaxed) + more;
        self.bytes = counted;
        all <= HELLO_BYTES_MAX
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.tables.hello_bytes.fetch_sub(self.bytes, Relaxed);
    }
}
