//! The engine on the disk: redb, one file, a B-tree that is never overwritten in place.
//!
//! redb does not go on after an error of the disk, so [`Engine::recover`] opens the file anew. It panics
//! where a damaged page makes no sense to it; here that is an error like any other.

pub(super) mod salvage;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition};

use super::engine::{Durability, Each, Engine, EngineError, Snapshot, Step, Written};
use super::key::Range;
use super::medium::Medium;
use crate::limits::STORE_CACHE_BYTES;

const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// See the module.
pub(super) struct Disk {
    medium: Arc<dyn Medium>,
    meter: Arc<Meter>,
    /// `None` while it is opened anew, or after that has failed.
    database: RwLock<Option<Database>>,
    /// Something has failed since it was opened.
    broken: AtomicBool,
}

/// What goes to the disk, and whether it is waited for.
#[derive(Debug, Default)]
struct Meter {
    bytes: AtomicU64,
    syncs: AtomicU64,
    /// Commits are left to the system: a sync does nothing.
    unsynced: AtomicBool,
}

impl Disk {
    /// Opens the file, or makes it. With `check` everything is read and compared with its checksums; after
    /// a crash that is done anyway.
    pub(super) fn open(medium: Arc<dyn Medium>, check: bool) -> Result<Self, EngineError> {
        let disk = Self {
            medium,
            meter: Arc::default(),
            database: RwLock::new(None),
            broken: AtomicBool::new(false),
        };
        let database = disk.open_database(check)?;
        *disk.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(disk)
    }

    fn open_database(&self, check: bool) -> Result<Database, EngineError> {
        let backend = Backend {
            medium: self.medium.clone(),
            meter: self.meter.clone(),
        };
        guarded(|| {
            let mut builder = Database::builder();
            builder
                .set_cache_size(STORE_CACHE_BYTES)
                .set_check_integrity_on_open(check);
            let database = builder.create_with_backend(backend)?;
            // So that who reads finds it.
            let write = database.begin_write()?;
            drop(write.open_table(RECORDS)?);
            write.commit()?;
            Ok(database)
        })
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, batch: &[Step], durability: Durability) -> Result<(), EngineError> {
        let database = self.database();
        let database = database.as_ref().ok_or_else(closed)?;
        self.meter
            .unsynced
            .store(durability == Durability::Written, Relaxed);
        guarded(|| {
            let mut write = database.begin_write()?;
            if durability == Durability::Later {
                write
                    .set_durability(redb::Durability::None)
                    .map_err(|error| EngineError::Io(error.to_string()))?;
            }
            {
                let mut records = write.open_table(RECORDS)?;
                for step in batch {
                    match step {
                        Step::Put(key, value) => drop(records.insert(key.as_slice(), value.as_slice())?),
                        Step::Delete(key) => drop(records.remove(key.as_slice())?),
                        Step::DeleteRange((first, behind)) => {
                            records.retain_in(first.as_slice()..behind.as_slice(), |_, _| false)?;
                        }
                    }
                }
            }
            write.commit()?;
            Ok(())
        })
    }
}

impl Engine for Disk {
    fn apply(&self, batch: &[Step], durability: Durability) -> Result<(), EngineError> {
        let applied = self.commit(batch, durability);
        if applied.is_err() {
            self.broken.store(true, Relaxed);
        }
        applied
    }

    fn sync(&self) -> Result<(), EngineError> {
        // A commit without anything makes safe what was committed before it.
        self.apply(&[], Durability::Synced)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, EngineError> {
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(closed()),
        };
        let open = database.as_ref().ok_or_else(closed)?;
        let read = guarded(|| Ok(open.begin_read()?))?;
        Ok(Box::new(Moment {
            read,
            _open: database,
        }))
    }

    fn recover(&self) -> Result<(), EngineError> {
        if !self.broken.load(Relaxed) {
            return Ok(());
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // What it cannot write any more it need not: the file is as after a crash.
        if let Some(broken) = database.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        }
        *database = Some(self.open_database(false)?);
        self.broken.store(false, Relaxed);
        Ok(())
    }

    fn written(&self) -> Written {
        Written {
            bytes: self.meter.bytes.load(Relaxed),
            syncs: self.meter.syncs.load(Relaxed),
        }
    }

    fn file_bytes(&self) -> u64 {
        self.medium.len().unwrap_or(0)
    }
}

fn closed() -> EngineError {
    EngineError::Io("the file is being opened again after an error".into())
}

/// The moment of a [`Disk`]; the file is not opened anew while there is one.
struct Moment<'a> {
    read: ReadTransaction,
    _open: RwLockReadGuard<'a, Option<Database>>,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        guarded(|| {
            let found = self.read.open_table(RECORDS)?.get(key)?;
            Ok(found.map(|found| found.value().to_vec()))
        })
    }

    fn scan(&self, (first, behind): &Range, each: Each<'_>) -> Result<(), EngineError> {
        if first >= behind {
            return Ok(());
        }
        guarded(|| {
            let records = self.read.open_table(RECORDS)?;
            for found in records.range(first.as_slice()..behind.as_slice())? {
                let (key, value) = found?;
                if let ControlFlow::Break(()) = each(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }
}

thread_local! {
    /// How many steps of redb this thread is in.
    static WITHIN: Cell<u32> = const { Cell::new(0) };
}

/// Keeps panics in a step of redb from being printed: each is an error that says the same, and an operator
/// who looks at a damaged file would see nothing else. Others go to the hook that was there before.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WITHIN.get() == 0 {
                before(info);
            }
        }));
    });
}

/// Runs a step of redb; a panic in it is an error.
fn guarded<T>(step: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    keep_quiet();
    WITHIN.set(WITHIN.get() + 1);
    let caught = catch_unwind(AssertUnwindSafe(step));
    WITHIN.set(WITHIN.get() - 1);
    caught.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(EngineError::Damaged(said.unwrap_or("redb gave up").to_owned()))
    })
}

impl From<redb::Error> for EngineError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(why) => Self::Damaged(why),
            redb::Error::Io(error) => match error.kind() {
                // Not what the system says, but what stands in the file, or no longer does.
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
                _ => Self::Io(error.to_string()),
            },
            error => Self::Io(error.to_string()),
        }
    }
}

macro_rules! errors {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for EngineError {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })+
    };
}

errors!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError
);

/// A medium, as redb sees it.
struct Backend {
    medium: Arc<dyn Medium>,
    meter: Arc<Meter>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.medium.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.medium.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.medium.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.meter.unsynced.load(Relaxed) {
            return Ok(());
        }
        self.meter.syncs.fetch_add(1, Relaxed);
        self.medium.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.meter.bytes.fetch_add(data.len() as u64, Relaxed);
        self.medium.write(offset, data)
    }
}
