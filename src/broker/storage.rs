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

    /// Whether whoever can wait must not note more: the disk is slower than what comes.
    fn is_full(&self) -> bool;

    /// From now on calls this, and nobody that was named before.
    fn listen(&self, listener: Listener);

    /// Reads messages of a session from `from` to `last`, at most `len` of them and, but for the first, no
    /// more than `bytes`. What is noted and not yet safe is among them.
    fn page(&self, no: SessionNo, from: Seq, last: Seq, len: usize, bytes: usize, answer: Answer<Page>);

    /// Reads stored sessions behind `after` in the order of their numbers, at most `len`; none is the end.
    fn sessions(&self, after: Option<SessionNo>, len: usize, answer: Answer<Vec<Restored>>);

    /// Reads the stored session of one client.
    fn session_of(&self, client_id: &ByteString, answer: Answer<Option<Restored>>);

    /// Notes what is known of a topic from now on; only the retainer says so.
    fn retain(&self, topic: &ByteString, what: Retained);

    /// Reads what is known of topics behind `after` in the order of their bytes, at most `len` of them and,
    /// but for the first, no more than `bytes`; none is the end.
    fn retained(&self, after: Option<ByteString>, len: usize, bytes: usize, answer: Answer<RetainedPage>);
}
