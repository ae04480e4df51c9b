//! What the store asks of an engine: ordered bytes, batches that are written whole or not at all.

use std::ops::ControlFlow;

use super::key::Range;

/// One step of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Range),
}

impl Step {
    /// Bytes that it says.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::DeleteRange((first, behind)) => first.len() + behind.len(),
        }
    }
}

/// When a batch is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Durability {
    /// When it is applied: it is on the disk then.
    Synced,
    /// When the process ends: the system writes it when it likes.
    Written,
    /// With the next [`Engine::sync`].
    Later,
}

/// Why an engine did not do what it was asked. Nothing of a batch was applied, or all of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The disk, or the system.
    #[error("{0}")]
    Io(String),
    /// The file says what no engine has written.
    #[error("the file is damaged: {0}")]
    Damaged(String),
}

/// Takes a key and a record, and says whether it wants the next.
pub(super) type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An engine. Its calls wait for the disk: they belong on the threads of the store.
pub(super) trait Engine: Send + Sync {
    /// Does the steps in order, all of them or none.
    fn apply(&self, batch: &[Step], durability: Durability) -> Result<(), EngineError>;

    /// Everything that was applied is on the disk.
    fn sync(&self) -> Result<(), EngineError>;

    /// What stands now, whatever is applied later. Does not wait for the disk.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, EngineError>;

    /// Makes an engine usable again that has failed.
    fn recover(&self) -> Result<(), EngineError>;

    /// Bytes that were written to the disk, and calls that made them safe.
    fn written(&self) -> Written;

    /// Bytes of the file.
    fn file_bytes(&self) -> u64;
}

/// What an engine has done to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) syncs: u64,
}

/// One moment of an engine.
pub(super) trait Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Goes through a range in the order of its keys.
    fn scan(&self, range: &Range, each: Each<'_>) -> Result<(), EngineError>;
}
