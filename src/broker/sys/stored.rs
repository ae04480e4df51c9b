//! `$SYS/broker/store`: how the store is, and what it does.

use crate::broker::storage::Figures;

/// What was told last: what a commit takes is told of those since then.
#[derive(Debug, Default)]
pub(super) struct Stored {
    commits: u64,
    commit_us: u64,
}

impl Stored {
    /// Topics below `$SYS/broker/store`, and what they say.
    pub(super) fn values(&mut self, now: &Figures) -> [(&'static str, String); 12] {
        let commits = now.commits.saturating_sub(self.commits);
        let took_us = now.commit_us.saturating_sub(self.commit_us);
        (self.commits, self.commit_us) = (now.commits, now.commit_us);
        [
            ("condition", now.condition.as_str().to_owned()),
            ("commits", now.commits.to_string()),
            ("failures", now.failures.to_string()),
            ("syncs", now.syncs.to_string()),
            ("bytes/written", now.file_bytes_written.to_string()),
            ("bytes/file", now.file_bytes.to_string()),
            ("commit/us", took_us.checked_div(commits).unwrap_or(0).to_string()),
            ("pending/records", now.pending.to_string()),
            ("pending/bytes", now.pending_bytes.to_string()),
            ("pending/held", now.held.to_string()),
            ("waiting/us", now.waiting_us.to_string()),
            ("damaged", now.damaged.to_string()),
        ]
    }
}
