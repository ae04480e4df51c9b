//! How a store is opened: whose it is, whether somebody has it open, and whether this build can read it.
//!
//! All of that is found out before any port opens; what is wrong is one sentence with its remedy.

pub(super) mod mending;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::disk::Disk;
use super::engine::{Durability, Engine, EngineError, Step};
use super::key::{self, Key};
use super::medium::OnDisk;
use super::record::{self, Header};
use super::{Pace, Store};
use crate::node_name::NodeName;

/// The format of the whole. A greater one is of a newer Ermine. In the first one the records of sessions do
/// not say whose they are; they are read all the same, and written anew as their clients come and go.
pub(super) const FORMAT: u32 = 2;

/// The file of the records, in the directory of the store.
pub(super) const FILE: &str = "records.redb";

/// The file that says who has the directory open.
const LOCK: &str = "lock";

/// Session numbers that one life of a node may use. The next life begins behind them: so none is used twice,
/// and nothing is written when one is taken.
const NUMBERS_OF_A_LIFE: u64 = 1 << 40;

/// Where a store is, and whose it is.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Its directory; made if it is not there. Its parent is.
    pub dir: PathBuf,
    /// The node whose store it is.
    pub node: NodeName,
    /// How it writes.
    pub pace: Pace,
}

/// Why a store was not opened: one sentence with its remedy. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory, or a file in it.
    #[error(
        "cannot use the store {0}: {1}; make it readable and writable for this user, or give another \
         --data-dir"
    )]
    Io(PathBuf, String),
    /// Somebody has it open.
    #[error("the store {0} is in use by process {1}: stop that node, or give another --data-dir")]
    InUse(PathBuf, Holder),
    /// It belongs to a node of another name.
    #[error(
        "the store {0} belongs to the node {1}, and this one is {2}: start it with --name {1}, or give \
         another --data-dir"
    )]
    OtherNode(PathBuf, String, NodeName),
    /// A later Ermine has written it.
    #[error(
        "the store {0} has format {1}, and this version reads formats up to {FORMAT}: start the newer \
         version that wrote it, or give another --data-dir"
    )]
    Newer(PathBuf, u32),
    /// It cannot be read.
    #[error(
        "the store {0} is damaged: {1}; look at it with 'ermine store check', bring a backup back with \
         'ermine store restore', or move it away to start without what it held"
    )]
    Damaged(PathBuf, String),
    /// Nothing in it can be read.
    #[error(
        "{0} is no store of Ermine's, or nothing in it can be read any more ({1}): bring a backup back with \
         'ermine store restore DIR', or move the file away to start without what it held"
    )]
    Unreadable(PathBuf, String),
}

/// Who has a store open, as the lock file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process.
    pub pid: String,
    /// The node; `None` where it is a command, or the file does not tell.
    pub node: Option<NodeName>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.pid)
    }
}

/// Longest that is read of a lock file, in bytes: a process and a node's name.
const LOCK_BYTES_MAX: u64 = 1024;

/// Keeps others out as long as it lives.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closed when it is dropped")] File);

impl Lock {
    /// For a node, or for a command.
    pub(super) fn take(dir: &Path, node: Option<&NodeName>) -> Result<Self, OpenError> {
        let unusable = |error: io::Error| OpenError::Io(dir.to_owned(), error.to_string());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(dir.join(LOCK)).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut said = String::new();
                let _ = file.take(LOCK_BYTES_MAX).read_to_string(&mut said);
                let mut words = said.split_whitespace();
                let holder = Holder {
                    pid: words.next().unwrap_or("?").to_owned(),
                    node: words.next().and_then(|name| name.parse().ok()),
                };
                return Err(OpenError::InUse(dir.to_owned(), holder));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // For people and commands: what keeps others out is the lock. A full disk must not keep a node from
        // starting.
        let pid = std::process::id();
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| match node {
                Some(node) => writeln!(file, "{pid} {node}"),
                None => writeln!(file, "{pid}"),
            });
        Ok(Self(file))
    }
}

impl Store {
    /// Opens the store of a node, or makes it, and waits for the disk meanwhile.
    ///
    /// # Errors
    /// One sentence, see [`OpenError`].
    pub fn open(config: &StoreConfig) -> Result<Arc<Self>, OpenError> {
        let dir = &config.dir;
        let unusable = |error: io::Error| OpenError::Io(dir.clone(), error.to_string());
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
            _ => {}
        }
        let lock = Lock::take(dir, Some(&config.node))?;
        let file = dir.join(FILE);
        let medium = OnDisk::open(&file).map_err(unusable)?;
        let failed = |error: EngineError| match error {
            EngineError::Io(why) => OpenError::Io(dir.clone(), why),
            EngineError::Damaged(why) => OpenError::Damaged(dir.clone(), why),
        };
        let mut lost = 0;
        let engine = match Disk::open(Arc::new(medium), true) {
            Err(EngineError::Damaged(why)) => {
                lost = mend_and_tell(dir, &why)?;
                let medium = OnDisk::open(&file).map_err(unusable)?;
                Disk::open(Arc::new(medium), true)
            }
            opened => opened,
        };
        let engine = engine.map_err(failed)?;
        let header = begin_life(&engine, config)?;
        let place = file.display().to_string();
        let store = Self::over(Box::new(engine), &header, config.pace, place, Some(lock));
        store.meters.damaged.fetch_add(lost, Relaxed);
        Ok(store)
    }
}

/// Goes on with what is whole; how much is not.
fn mend_and_tell(dir: &Path, why: &str) -> Result<u64, OpenError> {
    let file = dir.join(FILE);
    tracing::error!(file = %file.display(), why, "the store is damaged: looking for what is whole");
    let (aside, found) = mending::mend(dir).map_err(|error| match error {
        EngineError::Damaged(_) => OpenError::Unreadable(file.clone(), why.to_owned()),
        EngineError::Io(error) => OpenError::Io(dir.to_owned(), error),
    })?;
    for lost in &found.named {
        tracing::error!(file = %file.display(), "lost: {lost}");
    }
    tracing::error!(
        file = %file.display(), aside = %aside.display(), whole = found.whole, lost = found.damaged,
        "the store goes on with what is whole; the damaged file is kept aside"
    );
    // A page that nothing stood on is lost too, but nobody misses it.
    Ok(found.damaged.max(1))
}

/// The greatest number that a session has, for a store that has lost its header.
fn greatest_session(engine: &dyn Engine) -> Result<Option<u64>, EngineError> {
    let mut greatest = None;
    let snapshot = engine.snapshot()?;
    snapshot.scan(&key::sessions_behind(None), &mut |key, _| {
        greatest = Key::parse(key).and_then(|key| key.session()).or(greatest);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(greatest.map(|no| no.0))
}

/// Reads the header and keeps the numbers of this life apart.
pub(super) fn begin_life(engine: &dyn Engine, config: &StoreConfig) -> Result<Header, OpenError> {
    let dir = &config.dir;
    let failed = |error: EngineError| match error {
        EngineError::Io(why) => OpenError::Io(dir.clone(), why),
        EngineError::Damaged(why) => OpenError::Damaged(dir.clone(), why),
    };
    let key = Key::Header.bytes();
    let stored = engine.snapshot().and_then(|now| now.get(&key)).map_err(failed)?;
    let header = match stored {
        None => Header {
            format: FORMAT,
            node: config.node.as_str().to_owned(),
            next_session: greatest_session(engine).map_err(failed)?.map_or(1, |no| no + 1),
        },
        Some(bytes) => record::read::<Header>(&key, &bytes)
            .map_err(|damage| OpenError::Damaged(dir.clone(), format!("its header: {damage}")))?,
    };
    if header.format > FORMAT {
        return Err(OpenError::Newer(dir.clone(), header.format));
    }
    if header.node != config.node.as_str() {
        return Err(OpenError::OtherNode(
            dir.clone(),
            header.node,
            config.node.clone(),
        ));
    }
    let next = Header {
        format: FORMAT,
        next_session: header.next_session + NUMBERS_OF_A_LIFE,
        ..header.clone()
    };
    let value = record::write(&key, &next);
    engine
        .apply(&[Step::Put(key, value)], Durability::Synced)
        .map_err(failed)?;
    Ok(header)
}
