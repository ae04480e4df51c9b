//! What was retained: one topic for each publisher, its history of values, and what may lie there now.

use std::sync::Mutex;

use crate::journal::Fate;

/// One retained publication.
#[derive(Clone, Copy, Debug)]
struct Value {
    /// An empty payload clears the topic.
    clears: bool,
    fate: Fate,
}

/// The retained topics, by publisher.
pub(crate) struct Keeps(Vec<Mutex<Vec<Value>>>);

impl Keeps {
    pub(crate) fn new(publishers: usize) -> Self {
        Self((0..publishers).map(|_| Mutex::default()).collect())
    }

    pub(crate) fn topic(publisher: usize) -> String {
        format!("kept/{publisher}")
    }

    /// The number of the next value of a publisher.
    pub(crate) fn begin(&self, publisher: usize, clears: bool) -> usize {
        let mut values = self.0[publisher].lock().expect("no panic holds it");
        values.push(Value {
            clears,
            fate: Fate::Open,
        });
        values.len() - 1
    }

    pub(crate) fn end(&self, publisher: usize, number: usize, fate: Fate) {
        self.0[publisher].lock().expect("no panic holds it")[number].fate = fate;
    }

    /// The last value that was promised, of each publisher: nothing older may lie there.
    pub(crate) fn promised(&self) -> Vec<Option<usize>> {
        let last = |values: &Mutex<Vec<Value>>| {
            let values = values.lock().expect("no panic holds it");
            values
                .iter()
                .rposition(|value| matches!(value.fate, Fate::Promised(_)))
        };
        self.0.iter().map(last).collect()
    }

    /// Whether a topic may hold what was found there (`None`: nothing), if `promised` was the last promise
    /// before one looked.
    pub(crate) fn may_hold(&self, publisher: usize, promised: Option<usize>, found: Option<usize>) -> bool {
        let values = self.0[publisher].lock().expect("no panic holds it");
        let since = promised.unwrap_or(0);
        match found {
            Some(number) => number >= since && values.get(number).is_some_and(|value| !value.clears),
            None => promised.is_none() || values[since..].iter().any(|value| value.clears),
        }
    }
}

#[test]
fn a_retained_topic_holds_the_last_promised_value_or_a_later_one() {
    let keeps = Keeps::new(1);
    assert!(keeps.may_hold(0, None, None));
    for clears in [false, false, true, false] {
        keeps.begin(0, clears);
    }
    keeps.end(0, 1, Fate::Promised(std::time::Instant::now()));
    assert_eq!(keeps.promised(), [Some(1)]);
    assert!(!keeps.may_hold(0, Some(1), Some(0)), "an older one");
    assert!(keeps.may_hold(0, Some(1), Some(1)));
    assert!(keeps.may_hold(0, Some(1), None), "cleared later");
    assert!(!keeps.may_hold(0, Some(1), Some(2)), "what clears is no value");
    assert!(keeps.may_hold(0, Some(1), Some(3)));
    assert!(!keeps.may_hold(0, Some(1), Some(4)), "never sent");
    assert!(!keeps.may_hold(0, Some(3), None), "nothing cleared it since");
}
