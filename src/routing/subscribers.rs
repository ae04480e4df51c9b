//! The row of one filter on one arbiter: who subscribes, with which options, in the order they came.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;

use ahash::RandomState;
use smallvec::SmallVec;

use crate::mqtt::packet::SubscriptionOptions;

/// From this many on a row is looked up by hash instead of by scan; a scan of so few is faster.
const INDEX_FROM: usize = 16;

/// One subscription in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscriber<S> {
    /// How the broker finds the session.
    pub key: S,
    /// Options of the subscription.
    pub options: SubscriptionOptions,
    /// Its subscription identifier (5.0); never 0 there.
    pub identifier: Option<NonZeroU32>,
}

type Index<S> = HashMap<S, u32, RandomState>;

/// The subscribers of a filter. One fits without an allocation; iteration is a walk over a slice.
///
/// Removal leaves a hole and holes are closed when they are the greater part, so that a thousand clients
/// that leave at once cost a thousand steps and not a million.
#[derive(Debug, Clone)]
pub struct Subscribers<S> {
    places: SmallVec<[Option<Subscriber<S>>; 1]>,
    index: Option<Box<Index<S>>>,
    len: usize,
}

impl<S> Default for Subscribers<S> {
    fn default() -> Self {
        Self {
            places: SmallVec::new(),
            index: None,
            len: 0,
        }
    }
}

impl<S: Copy + Eq + Hash> Subscribers<S> {
    /// An empty row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none: the filter has no route from here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a subscriber, or replaces its options and keeps its place `[MQTT-3.8.4-3]`; whether it is new.
    pub fn add(&mut self, subscriber: Subscriber<S>) -> bool {
        if let Some(place) = self.place(subscriber.key) {
            self.places[place] = Some(subscriber);
            return false;
        }
        self.len += 1;
        self.places.push(Some(subscriber));
        let last = self.places.len() - 1;
        match &mut self.index {
            Some(index) => {
                index.insert(subscriber.key, last as u32);
            }
            None if self.places.len() >= INDEX_FROM => self.reindex(),
            None => {}
        }
        true
    }

    /// Removes a subscriber.
    pub fn remove(&mut self, key: S) -> Option<Subscriber<S>> {
        let place = self.place(key)?;
        let gone = self.places[place].take();
        if let Some(index) = &mut self.index {
            index.remove(&key);
        }
        self.len -= 1;
        if self.len * 2 <= self.places.len() {
            self.places.retain(|place| place.is_some());
            self.places.shrink_to_fit();
            self.reindex();
        }
        gone
    }

    /// The subscription of one subscriber.
    #[must_use]
    pub fn get(&self, key: S) -> Option<&Subscriber<S>> {
        self.places[self.place(key)?].as_ref()
    }

    /// All in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber<S>> {
        self.places.iter().flatten()
    }

    fn place(&self, key: S) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&key).map(|place| *place as usize),
            None => self
                .places
                .iter()
                .position(|place| place.as_ref().is_some_and(|held| held.key == key)),
        }
    }

    fn reindex(&mut self) {
        if self.places.len() < INDEX_FROM {
            self.index = None;
            return;
        }
        let held = self.places.iter().enumerate();
        let index = held
            .filter_map(|(place, held)| Some((held.as_ref()?.key, place as u32)))
            .collect();
        self.index = Some(Box::new(index));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscriber(key: u32, identifier: u32) -> Subscriber<u32> {
        Subscriber {
            key,
            options: SubscriptionOptions::default(),
            identifier: NonZeroU32::new(identifier),
        }
    }

    #[test]
    fn a_row_of_one_lies_in_its_owner() {
        let mut row = Subscribers::new();
        assert!(row.add(subscriber(1, 0)));
        assert!(!row.places.spilled());
        assert!(std::mem::size_of::<Subscribers<u32>>() <= 56);
        assert_eq!(row.remove(1), Some(subscriber(1, 0)));
        assert!(row.is_empty());
    }

    proptest! {
        #[test]
        fn a_row_is_a_list_in_order_of_coming(
            steps in prop::collection::vec((0..3_u8, 0..60_u32, 0..5_u32), 0..300),
        ) {
            let (mut row, mut model) = (Subscribers::new(), Vec::<Subscriber<u32>>::new());
            for (step, key, identifier) in steps {
                let new = subscriber(key, identifier);
                let held = model.iter().position(|held| held.key == key);
                if step > 0 {
                    prop_assert_eq!(row.add(new), held.is_none());
                    match held {
                        Some(place) => model[place] = new,
                        None => model.push(new),
                    }
                } else {
                    prop_assert_eq!(row.remove(key), held.map(|place| model.remove(place)));
                }
                prop_assert_eq!(row.get(key), model.iter().find(|held| held.key == key));
                prop_assert_eq!((row.len(), row.is_empty()), (model.len(), model.is_empty()));
            }
            prop_assert_eq!(row.iter().copied().collect::<Vec<_>>(), model);
        }
    }
}
