//! Floor 4: the store: what must outlast the process, in one file of the data directory.
//!
//! The broker notes changes in it without waiting ([`Storage`]). They lie in memory, one entry per record
//! (`pending`), until the [`Writer`] takes all of them and makes them safe in one commit with one sync. What
//! is read is read on a thread of its own, from the file and what is still pending above it. The engine
//! beneath is redb (`disk`), behind a trait of this room's (`engine`), and beneath that is a file, or in
//! tests something that fails (`medium`). `docs/decisions/0007` has the reasons and the figures.
//!
//! Records carry a checksum over key and content. One that is damaged is left out, counted, and named in
//! the log; it is never taken for something else.

mod committing;
mod crc;
mod disk;
mod engine;
mod figures;
mod held;
mod key;
mod medium;
mod memory;
mod opening;
mod pending;
mod reading;
mod record;
pub mod tools;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use supervisors::Name;

use crate::broker::storage::{
    Answer, Condition, Figures, Listener, Mark, Publication, Retained, RetainedPage, Storage, Unreadable,
};
use crate::limits::{STORE_GROUP_WINDOW, STORE_PENDING_BYTES_MAX, STORE_SYNC_INTERVAL};
use crate::session::lasting::{Change, Page, Restored, Seq, SessionNo};
pub use committing::Turn;
use engine::Engine;
use figures::Meters;
use held::Held;
pub use opening::{Holder, OpenError, StoreConfig};
use pending::{Generation, Pending};
use record::Header;
pub use writer::{Ring, Writer};

/// When a commit is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sync {
    /// At once: one sync for all that came within a few milliseconds. A power cut costs nothing that was
    /// acknowledged.
    #[default]
    Group,
    /// With the next sync, one second later at most: a crash or a power cut costs that second.
    Interval,
    /// When the system likes: a crash costs nothing, a power cut may cost the whole store.
    Off,
}

/// How the store writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// When a commit is safe.
    pub sync: Sync,
    /// How long changes gather for a commit when nothing was written just before.
    pub group: Duration,
    /// Time between two syncs with [`Sync::Interval`].
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            sync: Sync::default(),
            group: STORE_GROUP_WINDOW,
            interval: STORE_SYNC_INTERVAL,
        }
    }
}

/// The store of a node. Belongs to whoever builds the node; a crash of its writer loses nothing.
pub struct Store {
    pace: Pace,
    /// Where it is, for the log.
    place: String,
    engine: Box<dyn Engine>,
    state: Mutex<State>,
    /// One commit at a time.
    commits: Mutex<()>,
    committed: AtomicU64,
    failing: AtomicBool,
    /// Bytes that are noted and not yet safe; changed under the lock of the state, read without it.
    noted_bytes: AtomicUsize,
    next_session: AtomicU64,
    listener: Mutex<Option<Listener>>,
    meters: Meters,
    writer: Name<Writer>,
    /// The writer was told and has not begun.
    rung: AtomicBool,
    /// The way to the reader's thread, which begins with the first question.
    reader: OnceLock<mpsc::Sender<Question>>,
    myself: Weak<Self>,
    /// The directory is ours as long as this lives.
    _lock: Option<opening::Lock>,
}

/// What is asked of the reader's thread.
type Question = Box<dyn FnOnce(&Store) -> Delivery + Send>;

/// Hands an answer over.
type Delivery = Box<dyn FnOnce() + Send>;

/// What changes with every note.
struct State {
    pending: Pending,
    held: Held,
    /// What the commit under way writes.
    writing: Option<Arc<Generation>>,
    /// The number of the commit that will write what is pending.
    generation: u64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.place)
    }
}

impl Store {
    /// A store that forgets with the process.
    #[must_use]
    pub fn memory() -> Arc<Self> {
        let header = Header {
            format: opening::FORMAT,
            node: "memory@localhost".into(),
            next_session: 1,
        };
        let engine = Box::new(memory::Memory::default());
        Self::over(engine, &header, Pace::default(), "memory".into(), None)
    }

    /// A store over an engine that has its header.
    fn over(
        engine: Box<dyn Engine>,
        header: &Header,
        pace: Pace,
        place: String,
        lock: Option<opening::Lock>,
    ) -> Arc<Self> {
        let store = Arc::new_cyclic(|myself| Self {
            pace,
            place,
            engine,
            state: Mutex::new(State {
                pending: Pending::new(header.next_session),
                held: Held::default(),
                writing: None,
                generation: 1,
            }),
            commits: Mutex::default(),
            committed: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            noted_bytes: AtomicUsize::new(0),
            next_session: AtomicU64::new(header.next_session),
            listener: Mutex::default(),
            meters: Meters::default(),
            writer: Name::new("store"),
            rung: AtomicBool::new(false),
            reader: OnceLock::new(),
            myself: myself.clone(),
            _lock: lock,
        });
        tracing::debug!(place = store.place, "store open");
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Maps that are whole after each step: whatever panicked, what is noted is still to be written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is noted, and tells the writer if it does not know.
    fn change(&self, change: impl FnOnce(&mut State) -> Noted) {
        let mut state = self.state();
        let noted = change(&mut state);
        state.pending.open.begin();
        self.weigh(&state);
        drop(state);
        self.meters.changes.fetch_add(noted.changes, Relaxed);
        self.meters.spared.fetch_add(noted.spared, Relaxed);
        if noted.to_write && !self.rung.swap(true, Relaxed) {
            // One that is just restarting looks itself.
            let _ = self.writer.cast(Ring);
        }
    }

    fn weigh(&self, state: &State) {
        let writing = state.writing.as_ref().map_or(0, |writing| writing.bytes);
        let bytes = state.pending.open.bytes + state.held.bytes() + writing;
        self.noted_bytes.store(bytes, Relaxed);
    }

    fn ask<T: Send + 'static>(
        &self,
        answer: Answer<T>,
        question: impl FnOnce(&Self) -> Result<T, Unreadable> + Send + 'static,
    ) {
        let question = Box::new(move |store: &Self| {
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| question(store)));
            let read = read.unwrap_or_else(|_| Err(Unreadable("its reader has crashed".into())));
            Box::new(move || answer(read)) as Delivery
        });
        let reader = self.reader.get_or_init(|| spawn_reader(self.myself.clone()));
        // The reader lives as long as the store.
        let _ = reader.send(question);
    }
}

/// What a note has done.
struct Noted {
    changes: u64,
    spared: u64,
    to_write: bool,
}

impl State {
    /// Records that are to be written.
    fn entries(&self) -> usize {
        let writing = self.writing.as_ref().map_or(0, |writing| writing.entries());
        writing + self.pending.open.entries()
    }

    /// Since when the oldest of them has waited.
    fn since(&self) -> Option<Instant> {
        let writing = self.writing.as_ref().and_then(|writing| writing.since);
        writing.or(self.pending.open.since)
    }

    fn note(&mut self, change: Change) -> Noted {
        let spared = match self.held.absorb(change) {
            Some(change) => self.pending.note(change) as u64,
            None => 1,
        };
        Noted {
            changes: 1,
            spared,
            to_write: true,
        }
    }
}

/// The thread that reads. It ends with the store.
fn spawn_reader(store: Weak<Store>) -> mpsc::Sender<Question> {
    let (reader, questions) = mpsc::channel::<Question>();
    let read = move || {
        while let Ok(question) = questions.recv() {
            let Some(store) = store.upgrade() else { return };
            let deliver = question(&store);
            // Before the answer: whoever has it may want to open the store again.
            drop(store);
            deliver();
        }
    };
    std::thread::Builder::new()
        .name("store-reader".into())
        .spawn(read)
        .expect("a node that starts gets one thread more");
    reader
}

impl Storage for Store {
    fn number(&self) -> SessionNo {
        SessionNo(self.next_session.fetch_add(1, Relaxed))
    }

    fn note(&self, change: Change) {
        self.change(|state| state.note(change));
    }

    fn note_of(&self, publication: Publication, change: Change) {
        self.change(|state| {
            state.held.note(publication, change);
            Noted {
                changes: 1,
                spared: 0,
                to_write: false,
            }
        });
    }

    fn seal(&self, publication: Publication, change: Option<Change>) {
        self.change(|state| {
            let mut spared = 0;
            for held in state.held.seal(publication) {
                spared += state.pending.note(held) as u64;
            }
            let changes = u64::from(change.is_some());
            if let Some(change) = change {
                spared += state.pending.note(change) as u64;
            }
            Noted {
                changes,
                spared,
                to_write: true,
            }
        });
    }

    fn mark(&self) -> Mark {
        let state = self.state();
        match (state.pending.open.is_empty(), &state.writing) {
            (false, _) => Mark(state.generation),
            (true, Some(_)) => Mark(state.generation - 1),
            (true, None) => self.committed(),
        }
    }

    fn committed(&self) -> Mark {
        Mark(self.committed.load(Relaxed))
    }

    fn condition(&self) -> Condition {
        if self.failing.load(Relaxed) {
            Condition::Failing
        } else {
            Condition::Sound
        }
    }

    fn figures(&self) -> Figures {
        let state = self.state();
        self.meters.figures(self, &state, Instant::now())
    }

    fn is_full(&self) -> bool {
        self.noted_bytes.load(Relaxed) > STORE_PENDING_BYTES_MAX
    }

    fn listen(&self, listener: Listener) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    fn page(&self, no: SessionNo, from: Seq, last: Seq, len: usize, bytes: usize, answer: Answer<Page>) {
        self.ask(answer, move |store| store.read_page(no, from, last, (len, bytes)));
    }

    fn sessions(&self, after: Option<SessionNo>, len: usize, answer: Answer<Vec<Restored>>) {
        self.ask(answer, move |store| store.read_sessions(after, len));
    }

    fn session_of(&self, client_id: &ByteString, before: Option<Seq>, answer: Answer<Option<Restored>>) {
        let client_id = client_id.clone();
        self.ask(answer, move |store| store.read_session_of(&client_id, before));
    }

    fn retain(&self, topic: &ByteString, what: Retained) {
        self.change(|state| {
            state.pending.open.retain(topic.clone(), what);
            Noted {
                changes: 1,
                spared: 0,
                to_write: true,
            }
        });
    }

    fn retained(&self, after: Option<ByteString>, len: usize, bytes: usize, answer: Answer<RetainedPage>) {
        self.ask(answer, move |store| {
            store.read_retained(after.as_ref(), (len, bytes))
        });
    }
}
