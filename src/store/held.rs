//! What publications have noted that have not been everywhere yet: it becomes safe in one step, or not at
//! all.
//!
//! What was noted of a publication may be settled, or its session forgotten, before the publication is
//! sealed; then nothing of it is written.

use ahash::AHashMap;

use super::pending::{change_bytes, session_of};
use crate::broker::storage::Publication;
use crate::session::lasting::{Change, Queued, Seq, SessionNo};

/// The publications under way.
#[derive(Debug, Default)]
pub(super) struct Held {
    publications: AHashMap<Publication, Vec<Change>>,
    /// Messages among them that nobody has settled, and where they are.
    waiting: AHashMap<(SessionNo, Seq), Publication>,
    bytes: usize,
}

impl Held {
    /// How many publications are under way.
    pub(super) fn len(&self) -> usize {
        self.publications.len()
    }

    /// What they keep in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn note(&mut self, publication: Publication, change: Change) {
        if let Change::Queued(no, seq, _) = change {
            self.waiting.insert((no, seq), publication);
        }
        self.bytes += change_bytes(&change);
        self.publications.entry(publication).or_default().push(change);
    }

    /// Takes out what is to be noted of a publication that has been everywhere.
    pub(super) fn seal(&mut self, publication: Publication) -> Vec<Change> {
        let mut changes = self.publications.remove(&publication).unwrap_or_default();
        let bytes: usize = changes.iter().map(change_bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        changes.retain(|change| match message_of(change) {
            Some(message) => self.waiting.contains_key(&message),
            None => true,
        });
        for message in changes.iter().filter_map(message_of) {
            self.waiting.remove(&message);
        }
        changes
    }

    /// Gives a change back unless it is about something that is held here and has its effect here.
    pub(super) fn absorb(&mut self, change: Change) -> Option<Change> {
        match &change {
            Change::Forget(no) => self.forget(*no),
            Change::Settled(no, seq) if self.waiting.remove(&(*no, *seq)).is_some() => return None,
            Change::Exchange(no, seq, _) => {
                if let Some(publication) = self.waiting.get(&(*no, *seq)).copied() {
                    self.note(publication, change);
                    return None;
                }
            }
            _ => {}
        }
        Some(change)
    }

    fn forget(&mut self, no: SessionNo) {
        if self.publications.is_empty() {
            return;
        }
        self.waiting.retain(|(of, _), _| *of != no);
        for changes in self.publications.values_mut() {
            let gone = changes.extract_if(.., |change| session_of(change) == no);
            let bytes: usize = gone.map(|change| change_bytes(&change)).sum();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// The messages that wait here for a session.
    pub(super) fn queue_of(&self, no: SessionNo) -> Vec<(Seq, Queued)> {
        let changes = self.publications.values().flatten();
        let queued = changes.filter_map(|change| match change {
            Change::Queued(of, seq, queued) if *of == no && self.waiting.contains_key(&(no, *seq)) => {
                Some((*seq, queued.clone()))
            }
            _ => None,
        });
        queued.collect()
    }
}

fn message_of(change: &Change) -> Option<(SessionNo, Seq)> {
    match change {
        Change::Queued(no, seq, _) | Change::Exchange(no, seq, _) => Some((*no, *seq)),
        _ => None,
    }
}
