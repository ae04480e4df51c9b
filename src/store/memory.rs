//! An engine that forgets with the process: for tests, and for nodes that shall keep nothing.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::engine::{Durability, Each, Engine, EngineError, Snapshot, Step, Written};
use super::key::Range;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Arc<Records>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Arc<Records>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Memory {
    fn apply(&self, batch: &[Step], _: Durability) -> Result<(), EngineError> {
        let mut records = self.lock();
        let records = Arc::make_mut(&mut records);
        for step in batch {
            match step {
                Step::Put(key, value) => drop(records.insert(key.clone(), value.clone())),
                Step::Delete(key) => drop(records.remove(key)),
                Step::DeleteRange((first, behind)) => {
                    records.retain(|key, _| key < first || key >= behind);
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, EngineError> {
        Ok(Box::new(Moment(self.lock().clone())))
    }

    fn recover(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn written(&self) -> Written {
        Written::default()
    }

    fn file_bytes(&self) -> u64 {
        0
    }
}

struct Moment(Arc<Records>);

impl Snapshot for Moment {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, (first, behind): &Range, each: Each<'_>) -> Result<(), EngineError> {
        if first >= behind {
            return Ok(());
        }
        let range = (
            Bound::Included(first.as_slice()),
            Bound::Excluded(behind.as_slice()),
        );
        for (key, value) in self.0.range::<[u8], _>(range) {
            if let ControlFlow::Break(()) = each(key, value) {
                break;
            }
        }
        Ok(())
    }
}
