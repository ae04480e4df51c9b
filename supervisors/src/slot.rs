//! A place that one holder at a time stands in, where threads meet: behind each name, and behind each path
//! of a tree. A holder that ends leaves it, unless its successor stands there already.
//!
//! Knows neither processes nor names, so that `tests/interleavings.rs` can run this very file in every order
//! of steps of its threads.

use super::sync::{Mutex, MutexGuard, RwLock};
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::PoisonError;

/// One place.
pub(crate) struct Slot<T>(RwLock<Option<T>>);

impl<T: Clone> Slot<T> {
    pub(crate) fn new() -> Self {
        Slot(RwLock::new(None))
    }

    // Whole values are put in and taken out under this lock: a poisoned one is whole too.
    pub(crate) fn get(&self) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, holder: T) {
        let before = self
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(holder);
        // After the lock: it may be the last that knew of its mailbox.
        drop(before);
    }

    /// Empties the place if the one who leaves still holds it.
    pub(crate) fn leave(&self, leaves: impl FnOnce(&T) -> bool) {
        let mut holder = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if holder.as_ref().is_some_and(leaves) {
            let gone = holder.take();
            drop(holder);
            drop(gone);
        }
    }
}

/// Many places, by key.
pub(crate) struct Slots<K, T>(Mutex<HashMap<K, T>>);

impl<K: Eq + Hash, T: Clone> Slots<K, T> {
    pub(crate) fn new() -> Self {
        Slots(Mutex::new(HashMap::new()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<T>
    where
        K: Borrow<Q>,
    {
        self.lock().get(key).cloned()
    }

    pub(crate) fn set(&self, key: K, holder: T) {
        let before = self.lock().insert(key, holder);
        drop(before);
    }

    /// Empties the place if the one who leaves still holds it.
    pub(crate) fn leave<Q: Eq + Hash + ?Sized>(&self, key: &Q, leaves: impl FnOnce(&T) -> bool)
    where
        K: Borrow<Q>,
    {
        let mut holders = self.lock();
        if holders.get(key).is_some_and(leaves) {
            let gone = holders.remove(key);
            drop(holders);
            drop(gone);
        }
    }
}
