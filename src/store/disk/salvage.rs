//! What can still be read of a file whose checksums are wrong.
//!
//! redb opens such a file no more. Here it is shown a header that says that all is well, for reading only;
//! where a page makes no sense to it, the search goes on behind, at keys that are farther and farther away,
//! and from there backwards to the damage. What is found is as old as the page that it stands on: after a
//! crash and damage at once, something may come back that was taken away just before.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::{fmt, io};

use redb::{BackendError, ConcurrencyMode, Database, ReadOnlyDatabase, ReadableDatabase, StorageBackend};

use super::{RECORDS, guarded};
use crate::limits::STORE_CACHE_BYTES;
use crate::store::engine::{Each, EngineError};
use crate::store::medium::Medium;

/// Places where a search goes on, in all; a file that needs more is beyond help.
const TRIES_MAX: usize = 100_000;

/// Where the header of a file of redb's third format has its flags, and what they are.
const FLAGS_AT: u64 = 9;
const PRIMARY: u8 = 1;
const NOT_CLEAN: u8 = 2 | 8;

/// Keys between which records are lost, or may be; none: the beginning, or the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) struct Gap {
    pub(in crate::store) behind: Option<Vec<u8>>,
    pub(in crate::store) before: Option<Vec<u8>>,
}

/// A file with a header that says that all is well; nothing is written. It is read as a file is that another
/// process writes: then redb asks neither for its length nor for what is free in it, and takes locks instead,
/// which are all granted.
struct Masked {
    medium: Arc<dyn Medium>,
    other_slot: bool,
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masked")
    }
}

type Granted<T> = Result<T, BackendError>;
type End = Bound<u64>;

impl StorageBackend for Masked {
    fn len(&self) -> io::Result<u64> {
        self.medium.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // What was cut off is zero.
        out.fill(0);
        let there = self.medium.len()?.saturating_sub(offset);
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        self.medium.read(offset, &mut out[..there])?;
        let flags = FLAGS_AT.checked_sub(offset);
        if let Some(flags) = flags.and_then(|at| out.get_mut(at as usize)) {
            *flags &= !NOT_CLEAN;
            if self.other_slot {
                *flags ^= PRIMARY;
            }
        }
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn try_lock_range(&self, _: End, _: End) -> Granted<bool> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: End, _: End) -> Granted<bool> {
        Ok(true)
    }

    fn lock_range(&self, _: End, _: End) -> Granted<()> {
        Ok(())
    }

    fn lock_shared_range(&self, _: End, _: End) -> Granted<()> {
        Ok(())
    }

    fn unlock_range(&self, _: End, _: End) -> Granted<()> {
        Ok(())
    }

    fn query_lock_range(&self, _: End, _: End) -> Granted<bool> {
        Ok(false)
    }
}

/// Takes a key and a record that stand in a file; whether they are whole is for the taker to see.
pub(in crate::store) type Take<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Reads what can be read, once each, and tells where something is missing.
///
/// # Errors
/// If nothing can be read at all.
pub(in crate::store) fn salvage(medium: &Arc<dyn Medium>, take: Take<'_>) -> Result<Vec<Gap>, EngineError> {
    let mut why = EngineError::Damaged("there is nothing in it".into());
    for other_slot in [false, true] {
        let search = Search {
            medium: medium.clone(),
            other_slot,
            last: None,
            tries: 0,
        };
        match search.run(take) {
            Ok(gaps) => return Ok(gaps),
            Err(error) => why = error,
        }
    }
    Err(why)
}

struct Search {
    medium: Arc<dyn Medium>,
    other_slot: bool,
    /// The last key that was taken.
    last: Option<Vec<u8>>,
    tries: usize,
}

impl Search {
    /// Opened anew after each error: what has panicked is not gone on with.
    fn open(&self) -> Result<ReadOnlyDatabase, EngineError> {
        let masked = Masked {
            medium: self.medium.clone(),
            other_slot: self.other_slot,
        };
        guarded(|| {
            let mut builder = Database::builder();
            builder
                .set_cache_size(STORE_CACHE_BYTES)
                .set_concurrency_mode(ConcurrencyMode::SingleWriter);
            Ok(builder.open_read_only_with_backend(masked)?)
        })
    }

    /// Goes on from `from` as far as keys grow; an error is a page that makes no sense.
    fn forward(&mut self, from: &[u8], take: Each<'_>) -> Result<(), EngineError> {
        let database = self.open()?;
        guarded(|| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            for found in records.range(from..)? {
                let (key, value) = found?;
                let key = key.value();
                if key < from || self.last.as_deref().is_some_and(|last| key <= last) {
                    return Err(EngineError::Damaged("keys are out of order".into()));
                }
                if take(key, value.value()).is_break() {
                    break;
                }
                self.last = Some(key.to_vec());
            }
            Ok(())
        })
    }

    fn run(mut self, take: Take<'_>) -> Result<Vec<Gap>, EngineError> {
        let mut gaps = Vec::new();
        let mut from = Vec::new();
        loop {
            let before = self.last.clone();
            let went = self.forward(&from, &mut |key, value| {
                take(key, value);
                ControlFlow::Continue(())
            });
            let Err(error) = went else { return Ok(gaps) };
            if self.last == before && gaps.len() > TRIES_MAX {
                return Err(error);
            }
            let behind = self.last.clone();
            match self.next_whole(behind.as_deref().unwrap_or_default()) {
                Some(next) => {
                    let before = self.backwards(behind.as_deref(), &next, take);
                    gaps.push(Gap {
                        behind,
                        before: Some(before),
                    });
                    from = next;
                }
                // Not one record: perhaps the other slot has some.
                None if behind.is_none() => return Err(error),
                None => {
                    gaps.push(Gap { behind, before: None });
                    return Ok(gaps);
                }
            }
        }
    }

    /// The first record that can be read at some distance behind a key.
    fn next_whole(&mut self, last: &[u8]) -> Option<Vec<u8>> {
        for candidate in candidates(last) {
            self.tries += 1;
            if self.tries > TRIES_MAX {
                return None;
            }
            let mut first = None;
            let found = self.forward(&candidate, &mut |key, _| {
                first = Some(key.to_vec());
                ControlFlow::Break(())
            });
            if found.is_ok() && first.is_some() {
                return first;
            }
        }
        None
    }

    /// Takes what can be read before `next`, back to the damage; the first key of it.
    fn backwards(&self, last: Option<&[u8]>, next: &[u8], take: Take<'_>) -> Vec<u8> {
        let mut first = next.to_vec();
        let Ok(database) = self.open() else { return first };
        // The error is where it ends.
        let _ = guarded(|| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            for found in records.range(..next)?.rev() {
                let (key, value) = found?;
                let key = key.value();
                if key >= first.as_slice() || last.is_some_and(|last| key <= last) {
                    break;
                }
                take(key, value.value());
                first = key.to_vec();
            }
            Ok(())
        });
        first
    }
}

/// Keys behind one, farther and farther away: from its last byte to its first, and then the next kinds.
fn candidates(last: &[u8]) -> Vec<Vec<u8>> {
    let start = if last.is_empty() { b"c".as_slice() } else { last };
    let mut candidates = Vec::new();
    if last.is_empty() {
        candidates.extend([b"c".to_vec(), b"h".to_vec(), b"r".to_vec(), b"s".to_vec()]);
        // Sessions begin with zeros.
        candidates.extend(steps(&[b's', 0, 0, 0, 0, 0, 0, 0, 0]));
    }
    candidates.extend(steps(start));
    candidates
}

fn steps(key: &[u8]) -> Vec<Vec<u8>> {
    let places = (0..key.len()).rev();
    let steps = places.flat_map(|at| (0..8).map(move |power| (at, 1_u8 << power)));
    let steps = steps.filter_map(|(at, step)| {
        let mut next = key[..=at].to_vec();
        next[at] = next[at].checked_add(step)?;
        Some(next)
    });
    steps.collect()
}
