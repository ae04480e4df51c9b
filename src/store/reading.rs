//! What is read: the engine at one moment, and above it what was not yet written at that moment.

mod drafts;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::atomic::Ordering::Relaxed;

use bytestring::ByteString;

use super::engine::{EngineError, Snapshot};
use super::key::{self, Key};
use super::pending::{Entry, OfSession};
use super::record::{self, Clock, Damage};
use super::{State, Store};
use crate::broker::storage::{Retained, RetainedPage, Unreadable};
use crate::session::lasting::{Page, Restored, Seq, SessionNo};
use drafts::{PageDraft, SessionDraft};

impl From<EngineError> for Unreadable {
    fn from(error: EngineError) -> Self {
        Self(error.to_string())
    }
}

/// The engine at one moment, with whatever of the rest was wanted at that moment.
struct View<'a, T> {
    snapshot: Box<dyn Snapshot + 'a>,
    above: T,
}

/// A page in the making.
struct Room {
    len: usize,
    bytes: usize,
    any: bool,
}

impl Room {
    fn new((len, bytes): (usize, usize)) -> Self {
        Self {
            len,
            bytes,
            any: false,
        }
    }

    /// Whether something of that weight is still wanted; the first always is.
    fn takes(&mut self, weight: usize) -> bool {
        let takes = self.len > 0 && (!self.any || weight <= self.bytes);
        if takes {
            self.len -= 1;
            self.bytes = self.bytes.saturating_sub(weight);
            self.any = true;
        } else {
            self.len = 0;
        }
        takes
    }

    fn is_full(&self) -> bool {
        self.len == 0
    }
}

impl Store {
    /// Sees to it that nothing falls between the engine and what lies above it.
    fn view<T>(&self, above: impl FnOnce(&State) -> T) -> Result<View<'_, T>, EngineError> {
        let state = self.state();
        let above = above(&state);
        let snapshot = self.engine.snapshot()?;
        drop(state);
        Ok(View { snapshot, above })
    }

    /// Leaves a record out, and says so.
    fn leave_out(&self, key: &[u8], damage: &Damage) {
        self.meters.damaged.fetch_add(1, Relaxed);
        tracing::error!(
            file = self.place, record = %key::describe(key), %damage,
            "a stored record is damaged and lost"
        );
    }

    fn believe<T>(&self, key: &[u8], read: Result<T, Damage>) -> Option<T> {
        read.map_err(|damage| self.leave_out(key, &damage)).ok()
    }

    pub(super) fn read_page(
        &self,
        no: SessionNo,
        from: Seq,
        last: Seq,
        room: (usize, usize),
    ) -> Result<Page, Unreadable> {
        let view = self.view(|state| state.session(no))?;
        let clock = Clock::read();
        let mut above = view.above;
        let mut exchanges = BTreeSet::new();
        if !above.forget {
            view.snapshot.scan(&key::exchanges_of(no), &mut |key, _| {
                if let Some(Key::Exchange(_, seq)) = Key::parse(key) {
                    exchanges.insert(seq);
                }
                ControlFlow::Continue(())
            })?;
        }
        for (seq, entry) in &above.exchanges {
            match entry {
                Entry::Put { .. } => exchanges.insert(*seq),
                Entry::Gone => exchanges.remove(seq),
            };
        }
        let queue = std::mem::take(&mut above.queue);
        let queue: BTreeMap<_, _> = queue
            .into_iter()
            .filter(|(seq, _)| (from..=last).contains(seq))
            .collect();
        let mut page = PageDraft {
            above: queue,
            exchanges,
            room: Room::new(room),
            page: Page::new(),
        };
        if !above.forget {
            view.snapshot
                .scan(&key::queue_of(no, from, last), &mut |key, value| {
                    let Some(Key::Queued(_, seq)) = Key::parse(key) else {
                        return ControlFlow::Continue(());
                    };
                    page.before(seq);
                    if page.wants(seq)
                        && let Some(queued) = self.believe(key, record::read_queued(key, value, clock))
                    {
                        page.add(seq, queued);
                    }
                    page.flow()
                })?;
        }
        page.rest();
        Ok(page.page)
    }

    pub(super) fn read_sessions(
        &self,
        after: Option<SessionNo>,
        len: usize,
    ) -> Result<Vec<Restored>, Unreadable> {
        let view = self.view(|state| state.sessions_behind(after))?;
        let mut begun = view.above;
        let mut restored = Vec::new();
        let mut after = after;
        while restored.len() < len {
            let stored = first_session(&*view.snapshot, after)?;
            let noted = begun.first().copied();
            let no = match (stored, noted) {
                (None, None) => break,
                (Some(stored), Some(noted)) => stored.min(noted),
                (stored, noted) => stored.or(noted).expect("one of them"),
            };
            begun.remove(&no);
            after = Some(no);
            restored.extend(self.read_session(no, None)?);
        }
        Ok(restored)
    }

    pub(super) fn read_session_of(
        &self,
        client_id: &ByteString,
        before: Option<Seq>,
    ) -> Result<Option<Restored>, Unreadable> {
        match self.owner(client_id)? {
            Some(no) => self.read_session(no, before),
            None => Ok(None),
        }
    }

    /// The session of a client; it may be over.
    fn owner(&self, client_id: &ByteString) -> Result<Option<SessionNo>, Unreadable> {
        let view = self.view(|state| state.owner(client_id))?;
        if view.above.is_some() {
            return Ok(view.above);
        }
        let key = Key::Client(client_id.as_bytes()).bytes();
        let stored = view.snapshot.get(&key)?;
        let no = stored.and_then(|bytes| self.believe(&key, record::read(&key, &bytes)));
        Ok(no.map(SessionNo))
    }

    /// `None` if it is over, if its client has another one, or if its record is lost.
    fn read_session(&self, no: SessionNo, before: Option<Seq>) -> Result<Option<Restored>, Unreadable> {
        let View { snapshot, above } = self.view(|state| state.session(no))?;
        let mut draft = SessionDraft::before(before);
        let (before_queue, queue) = key::halves_of(no);
        let clock = Clock::read();
        if !above.forget {
            snapshot.scan(&before_queue, &mut |key, value| {
                draft.read(self, key, value);
                ControlFlow::Continue(())
            })?;
        }
        draft.lay_over(&above);
        if !above.forget {
            snapshot.scan(&queue, &mut |key, value| {
                draft.read_queued(self, &above, (key, value), clock);
                ControlFlow::Continue(())
            })?;
        }
        drop(snapshot);
        draft.lay_queue_over(above);
        let Some(restored) = draft.restored(no) else {
            return Ok(None);
        };
        let is_owner = self.owner(&restored.record.client_id)? == Some(no);
        Ok(is_owner.then_some(restored))
    }

    pub(super) fn read_retained(
        &self,
        after: Option<&ByteString>,
        room: (usize, usize),
    ) -> Result<RetainedPage, Unreadable> {
        let view = self.view(|state| state.retained_behind(after))?;
        let clock = Clock::read();
        let mut above = view.above;
        let mut room = Room::new(room);
        let mut page = RetainedPage::new();
        let mut add = |topic: ByteString, what: Retained| {
            let weight = match &what {
                Retained::Message(message, _) => message.weight(),
                Retained::Cleared(..) => topic.len(),
                Retained::Forgotten => return !room.is_full(),
            };
            if room.takes(weight) {
                page.push((topic, what));
            }
            !room.is_full()
        };
        let mut wanted = true;
        let range = key::retained_behind(after.map(|topic| topic.as_bytes().as_ref()));
        view.snapshot.scan(&range, &mut |key, value| {
            let Some(Key::Retained(topic)) = Key::parse(key) else {
                return ControlFlow::Continue(());
            };
            while wanted
                && above
                    .first_key_value()
                    .is_some_and(|(first, _)| first.as_bytes() < topic)
            {
                let (topic, what) = above.pop_first().expect("there is one");
                wanted = add(topic, what);
            }
            let topic = std::str::from_utf8(topic).map(ByteString::from);
            let topic = topic.map_err(|_| Damage::Nonsense("no topic".into()));
            let Some(topic) = self.believe(key, topic) else {
                return ControlFlow::Continue(());
            };
            if wanted && let Some(what) = above.remove(&topic) {
                wanted = add(topic, what);
            } else if wanted && let Some(what) = self.believe(key, record::read_retained(key, value, clock)) {
                wanted = add(topic, what);
            }
            if wanted {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        while wanted && let Some((topic, what)) = above.pop_first() {
            wanted = add(topic, what);
        }
        Ok(page)
    }
}

/// The first stored session behind one.
fn first_session(
    snapshot: &dyn Snapshot,
    after: Option<SessionNo>,
) -> Result<Option<SessionNo>, EngineError> {
    let mut first = None;
    snapshot.scan(&key::sessions_behind(after), &mut |key, _| {
        first = Key::parse(key).and_then(|key| key.session());
        // What is no key of ours is passed over.
        if first.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(first)
}

impl State {
    /// What was not yet written of a session.
    fn session(&self, no: SessionNo) -> OfSession {
        let writing = self
            .writing
            .as_ref()
            .and_then(|writing| writing.sessions.get(&no));
        let pending = self.pending.open.sessions.get(&no);
        let mut of = match (writing, pending) {
            (Some(writing), Some(pending)) if !pending.forget => writing.clone().followed_by(pending.clone()),
            (_, Some(pending)) => pending.clone(),
            (Some(writing), None) => writing.clone(),
            (None, None) => OfSession::default(),
        };
        for (seq, what) in self.held.queue_of(no) {
            of.queue.insert(seq, Entry::Put { what, fresh: false });
        }
        of
    }

    /// Sessions behind one of which something was not yet written.
    fn sessions_behind(&self, after: Option<SessionNo>) -> BTreeSet<SessionNo> {
        let writing = self.writing.iter().flat_map(|writing| writing.sessions.keys());
        let all = writing.chain(self.pending.open.sessions.keys());
        all.copied().filter(|no| Some(*no) > after).collect()
    }

    fn owner(&self, client_id: &ByteString) -> Option<SessionNo> {
        let writing = self.writing.as_ref();
        let pending = self.pending.open.clients.get(client_id);
        pending.or_else(|| writing?.clients.get(client_id)).copied()
    }

    fn retained_behind(&self, after: Option<&ByteString>) -> BTreeMap<ByteString, Retained> {
        let range = || match after {
            Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let mut all = BTreeMap::new();
        let layers = [self.writing.as_deref(), Some(&self.pending.open)];
        for layer in layers.into_iter().flatten() {
            let entries = layer.retained.range::<ByteString, _>(range());
            all.extend(entries.map(|(topic, what)| (topic.clone(), what.clone())));
        }
        all
    }
}
