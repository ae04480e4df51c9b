//! The store, as the broker sees it. The broker has never heard of files: whoever builds the node gives it a
//! [`Storage`], or none, and then nothing outlasts the process.
//!
//! Changes are noted without waiting, from any thread, and are on the disk some milliseconds later, all that
//! came together at once. Whoever must not promise anything before takes a [`Mark`] behind its changes and
//! waits until [`Storage::committed`] has reached it.

use std::sync::Arc;

use bytestring::ByteString;

use crate::mqtt::message::Message;
use crate::routing::stamps::Stamp;
use crate::session::lasting::{Change, Page, Restored, Seq, SessionNo};

/// Everything that was noted before it was taken is safe once it is committed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mark(pub u64);

/// Names one QoS 2 publication that is under way. What it brings is noted apart and becomes safe in one step
/// with its packet identifier, so that a publisher that sends it again after a crash brings nothing twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Publication(pub u64);

/// How the store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// What is noted becomes safe.
    Sound,
    /// The disk takes nothing (full, read-only, broken): no mark is reached until it does again.
    Failing,
}

impl Condition {
    /// As operators are told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Failing => "failing",
        }
    }
}

/// Why a page was not read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct Unreadable(pub String);

/// Takes the answer to a question to the store, on any thread.
pub type Answer<T> = Box<dyn FnOnce(Result<T, Unreadable>) + Send>;

/// Called whenever marks were reached or the condition has changed, on any thread; it must not wait.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

/// What is known of a topic.
#[derive(Clone, PartialEq, Debug)]
pub enum Retained {
    /// This message, since then.
    Message(Arc<Message>, Stamp),
    /// Nothing any more, since so many microseconds of the wall clock after 1970.
    Cleared(Stamp, u64),
    /// Nothing at all: the tombstone is old enough.
    Forgotten,
}

/// Upper bounds of the classes that commits are counted in by what they took, in milliseconds; the last class
/// has none. An SSD syncs within 1 to 5 ms, a disk that turns within 10 to 30; a second is a disk in trouble.
pub const COMMIT_BOUNDS_MS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 250, 1000];

/// What the store has done since it was opened, and what lies before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figures {
    /// How it is.
    pub condition: Condition,
    /// Commits that were made.
    pub commits: u64,
    /// What they took, in microseconds: making the batch, writing it, and waiting for the disk.
    pub commit_us: u64,
    /// … and how many of them took no longer than each of [`COMMIT_BOUNDS_MS`] and longer than the one
    /// before; behind them those that took longer than all.
    pub commits_within: [u64; COMMIT_BOUNDS_MS.len() + 1],
    /// Commits that were tried in vain.
    pub failures: u64,
    /// Syncs of the file.
    pub syncs: u64,
    /// Bytes that records say which were written.
    pub record_bytes: u64,
    /// Bytes that were written to the file, with all that the engine writes beside records.
    pub file_bytes_written: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Changes that were noted.
    pub changes: u64,
    /// Entries that were never written, as later ones made them superfluous.
    pub spared: u64,
    /// Records that are to be written, those of a commit under way among them.
    pub pending: u64,
    /// Bytes that are noted and not yet safe.
    pub pending_bytes: u64,
    /// How long the oldest of them has waited to be safe, in microseconds.
    pub waiting_us: u64,
    /// Changes of QoS 2 publications that have not been everywhere yet.
    pub held: u64,
    /// Records that were found damaged and left out.
    pub damaged: u64,
}

/// What is known of some topics; never [`Retained::Forgotten`].
pub type RetainedPage = Vec<(ByteString, Retained)>;

/// Keeps what must outlast the process. Nothing here waits for a disk.
pub trait Storage: Send + Sync {
    /// A number that no stored session of this node has, or had.
    fn number(&self) -> SessionNo;

    /// Notes a change.
    fn note(&self, change: Change);

    /// Notes a change that becomes safe with its publication, and not before.
    fn note_of(&self, publication: Publication, change: Change);

    /// The publication has been everywhere: what was noted of it, and this, becomes safe in one step.
    fn seal(&self, publication: Publication, change: Option<Change>);

    /// Behind everything that was noted so far, and sealed where it is of a publication.
    fn mark(&self) -> Mark;

    /// Everything up to here is safe.
    fn committed(&self) -> Mark;

    /// How the store is.
    fn condition(&self) -> Condition;

    /// What it has done, and what lies before it.
    fn figures(&self) -> Figures;

    /// Whether whoever can wait must not note more: the disk is slower than what comes.
    fn is_full(&self) -> bool;

    /// From now on calls this, and nobody that was named before.
    fn listen(&self, listener: Listener);

    /// Reads messages of a session from `from` to `last`, at most `len` of them and, but for the first, no
    /// more than `bytes`. What is noted and not yet safe is among them.
    fn page(&self, no: SessionNo, from: Seq, last: Seq, len: usize, bytes: usize, answer: Answer<Page>);

    /// Reads stored sessions behind `after` in the order of their numbers, at most `len`; none is the end.
    fn sessions(&self, after: Option<SessionNo>, len: usize, answer: Answer<Vec<Restored>>);

    /// Reads the stored session of one client, without its messages from `before` on.
    fn session_of(&self, client_id: &ByteString, before: Option<Seq>, answer: Answer<Option<Restored>>);

    /// Notes what is known of a topic from now on; only the retainer says so.
    fn retain(&self, topic: &ByteString, what: Retained);

    /// Reads what is known of topics behind `after` in the order of their bytes, at most `len` of them and,
    /// but for the first, no more than `bytes`; none is the end.
    fn retained(&self, after: Option<ByteString>, len: usize, bytes: usize, answer: Answer<RetainedPage>);
}
