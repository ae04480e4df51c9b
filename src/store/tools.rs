//! What operators do with a store: look through it, copy it, bring a copy back.
//!
//! Without a node these take the lock of the directory, so that no node starts meanwhile; with one only the
//! node itself can look and copy ([`Store::contents`], [`Store::backup`]).

use std::fs::{self, DirBuilder, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Store;
use super::disk::Disk;
use super::engine::{Engine, EngineError, Snapshot};
use super::key::{self, Key};
use super::medium::OnDisk;
use super::opening::mending::{Copier, Findings, examine, sync_dir};
use super::opening::{FILE, FORMAT, Lock, OpenError};
use super::record::{self, Clock, Damage, Header};
use crate::broker::storage::Retained;
use crate::node_name::NodeName;
use crate::session::lasting::Exchange;

/// What a store holds, record by record.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Contents {
    /// The node whose it is; empty if that cannot be read.
    pub node: String,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Messages that wait for their clients.
    pub messages: u64,
    /// Bytes of those, as they count in queues.
    pub message_bytes: u64,
    /// Exchanges that have begun.
    pub exchanges: u64,
    /// QoS 2 messages of clients whose PUBREL is awaited.
    pub received: u64,
    /// Retained messages.
    pub retained: u64,
    /// Retained topics that were cleared and are remembered.
    pub cleared: u64,
    /// Records that are damaged, and places where some are missing.
    pub damaged: u64,
    /// What those are called; of many the first.
    pub lost: Vec<String>,
}

/// Why something was not done, in one sentence. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ToolError {
    /// A node has the store open: it must be asked, or stopped.
    #[error("{0}")]
    Running(String, Option<NodeName>),
    /// There is no store in that place.
    #[error(
        "cannot find the store {0}: there is none; give the node's --data-dir, its --config or its --node"
    )]
    Missing(PathBuf),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<OpenError> for ToolError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::InUse(_, ref holder) => Self::Running(error.to_string(), holder.node.clone()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Called now and then with the number of records that are done.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Records between two calls of a [`Progress`].
const PROGRESS_STEP: u64 = 100_000;

fn failed(what: &str, path: &Path, error: &dyn std::fmt::Display) -> ToolError {
    ToolError::Failed(format!("cannot {what} {}: {error}", path.display()))
}

fn unreadable(place: &Path) -> impl Fn(EngineError) -> ToolError {
    move |error| failed("read the store", place, &error)
}

/// A newer format is not looked through: what this build does not know it would take for damage.
fn refuse_newer(snapshot: &dyn Snapshot, place: &Path) -> Result<(), ToolError> {
    let key = Key::Header.bytes();
    let header = snapshot.get(&key).map_err(unreadable(place))?;
    match header.map(|bytes| record::read::<Header>(&key, &bytes)) {
        Some(Ok(header)) if header.format > FORMAT => {
            Err(OpenError::Newer(place.to_owned(), header.format).into())
        }
        _ => Ok(()),
    }
}

/// Counts what stands in a snapshot, and looks at each record.
fn count(snapshot: &dyn Snapshot, progress: Progress<'_>) -> Result<Contents, EngineError> {
    let mut contents = Contents::default();
    let mut findings = Findings::default();
    let clock = Clock::read();
    snapshot.scan(&key::everything(), &mut |key, value| {
        match look(&mut contents, key, value, clock) {
            Ok(()) => findings.whole += 1,
            Err(damage) => findings.damaged(format!("{}: {damage}", key::describe(key))),
        }
        let done = findings.whole + findings.damaged;
        if done.is_multiple_of(PROGRESS_STEP) {
            progress(done);
        }
        ControlFlow::Continue(())
    })?;
    contents.damaged = findings.damaged;
    contents.lost = findings.named;
    Ok(contents)
}

fn look(contents: &mut Contents, key: &[u8], value: &[u8], clock: Clock) -> Result<(), Damage> {
    match Key::parse(key) {
        Some(Key::Client(_)) => {
            record::read::<u64>(key, value)?;
        }
        Some(Key::Header) => contents.node = record::read::<Header>(key, value)?.node,
        Some(Key::Retained(_)) => match record::read_retained(key, value, clock)? {
            Retained::Message(..) => contents.retained += 1,
            Retained::Cleared(..) | Retained::Forgotten => contents.cleared += 1,
        },
        Some(Key::Session(_)) => {
            record::read_session(key, value)?;
            contents.sessions += 1;
        }
        Some(Key::Subscription(..)) => {
            record::read_subscription(key, value)?;
            contents.subscriptions += 1;
        }
        Some(Key::Received(..)) => {
            record::read::<()>(key, value)?;
            contents.received += 1;
        }
        Some(Key::Exchange(..)) => {
            record::read::<Exchange>(key, value)?;
            contents.exchanges += 1;
        }
        Some(Key::Queued(..)) => {
            let queued = record::read_queued(key, value, clock)?;
            contents.messages += 1;
            contents.message_bytes += queued.message.weight() as u64;
        }
        None => return Err(Damage::Nonsense("nothing of ours has such a key".into())),
    }
    Ok(())
}

/// Copies what is whole into a directory, which is made.
fn copy(
    snapshot: &dyn Snapshot,
    place: &Path,
    to: &Path,
    progress: Progress<'_>,
) -> Result<Contents, ToolError> {
    let file = to.join(FILE);
    fs::create_dir_all(to).map_err(|error| failed("make", to, &error))?;
    if file.exists() {
        let why = "there is a backup already; give another directory";
        return Err(failed("write", &file, &why));
    }
    let unwritten = |error: EngineError| failed("write", &file, &error);
    let mut copier = Copier::new(&file).map_err(unwritten)?;
    let mut findings = Findings::default();
    let mut contents = Contents::default();
    let clock = Clock::read();
    let scanned = snapshot.scan(&key::everything(), &mut |key, value| {
        copier.take(key, value, &mut findings);
        // What is damaged is counted by the copier.
        let _ = look(&mut contents, key, value, clock);
        if findings.whole.is_multiple_of(PROGRESS_STEP) {
            progress(findings.whole);
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(unreadable(place))?;
    copier.finish().map_err(unwritten)?;
    sync_dir(to).map_err(|error| failed("write", to, &error))?;
    contents.file_bytes = fs::metadata(&file).map_or(0, |file| file.len());
    contents.damaged = findings.damaged;
    contents.lost = findings.named;
    Ok(contents)
}

impl Store {
    /// Counts what is in the store, everything that was noted included. Waits for the disk.
    ///
    /// # Errors
    /// One sentence.
    pub fn contents(&self, progress: Progress<'_>) -> Result<Contents, ToolError> {
        self.commit();
        let unreadable = unreadable(Path::new(&self.place));
        let snapshot = self.engine.snapshot().map_err(&unreadable)?;
        let mut contents = count(&*snapshot, progress).map_err(&unreadable)?;
        contents.file_bytes = self.engine.file_bytes();
        Ok(contents)
    }

    /// Copies the store as it is now into a directory, while everything goes on. Waits for the disk.
    ///
    /// # Errors
    /// One sentence; what was written of the copy is left.
    pub fn backup(&self, to: &Path, progress: Progress<'_>) -> Result<Contents, ToolError> {
        self.commit();
        let place = Path::new(&self.place);
        let snapshot = self.engine.snapshot().map_err(unreadable(place))?;
        copy(&*snapshot, place, to, progress)
    }
}

/// A store that no node has open, and that stays so as long as this lives.
struct Idle {
    file: PathBuf,
    _lock: Lock,
}

impl Idle {
    fn take(dir: &Path) -> Result<Self, ToolError> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Err(ToolError::Missing(dir.to_owned()));
        }
        let lock = Lock::take(dir, None)?;
        Ok(Self { file, _lock: lock })
    }

    fn open(&self, check: bool) -> Result<Disk, EngineError> {
        open(&self.file, check)
    }
}

fn open(file: &Path, check: bool) -> Result<Disk, EngineError> {
    let medium = OnDisk::open(file).map_err(|error| EngineError::Io(error.to_string()))?;
    Disk::open(Arc::new(medium), check)
}

/// Looks through the store of a node that does not run: every page and every record.
///
/// # Errors
/// One sentence, if it cannot be looked through; damage is told in the [`Contents`].
pub fn check(dir: &Path, progress: Progress<'_>) -> Result<Contents, ToolError> {
    let idle = Idle::take(dir)?;
    let unreadable = unreadable(&idle.file);
    let why = match idle.open(true) {
        Ok(disk) => return counted(&disk, dir, progress),
        Err(EngineError::Damaged(why)) => why,
        Err(error) => return Err(unreadable(error)),
    };
    let findings = examine(&idle.file).map_err(|error| match error {
        EngineError::Damaged(_) => {
            ToolError::Failed(OpenError::Unreadable(idle.file.clone(), why.clone()).to_string())
        }
        error => unreadable(error),
    })?;
    let mut contents = Contents {
        file_bytes: fs::metadata(&idle.file).map_or(0, |file| file.len()),
        damaged: findings.damaged.max(1),
        lost: findings.named,
        ..Contents::default()
    };
    let whole = findings.whole;
    contents.lost.push(format!(
        "the file itself says: {why}; {whole} records of it are whole"
    ));
    Ok(contents)
}

/// Counts what is in the store of a node that does not run.
///
/// # Errors
/// One sentence.
pub fn stats(dir: &Path, progress: Progress<'_>) -> Result<Contents, ToolError> {
    let idle = Idle::take(dir)?;
    let disk = idle.open(false).map_err(unreadable(&idle.file))?;
    counted(&disk, dir, progress)
}

fn counted(disk: &Disk, dir: &Path, progress: Progress<'_>) -> Result<Contents, ToolError> {
    let unreadable = unreadable(dir);
    let snapshot = disk.snapshot().map_err(&unreadable)?;
    refuse_newer(&*snapshot, dir)?;
    let mut contents = count(&*snapshot, progress).map_err(&unreadable)?;
    contents.file_bytes = disk.file_bytes();
    Ok(contents)
}

/// Copies the store of a node that does not run.
///
/// # Errors
/// One sentence; what was written of the copy is left.
pub fn backup(dir: &Path, to: &Path, progress: Progress<'_>) -> Result<Contents, ToolError> {
    let idle = Idle::take(dir)?;
    let unreadable = unreadable(&idle.file);
    let disk = idle.open(true).map_err(&unreadable)?;
    let snapshot = disk.snapshot().map_err(&unreadable)?;
    refuse_newer(&*snapshot, dir)?;
    copy(&*snapshot, dir, to, progress)
}

/// Puts a backup in the place of the store of a node that does not run. What was restored, and where the
/// store of before is now, if there was one.
///
/// # Errors
/// One sentence; the store is as it was.
pub fn restore(
    dir: &Path,
    node: &NodeName,
    from: &Path,
    progress: Progress<'_>,
) -> Result<(Contents, Option<PathBuf>), ToolError> {
    let source = from.join(FILE);
    // Before anything is made: the way there may be mistyped.
    File::open(&source).map_err(|error| failed("read the backup", &source, &error))?;
    let mut maker = DirBuilder::new();
    let made = maker.recursive(true).mode(0o700).create(dir);
    made.map_err(|error| failed("make", dir, &error))?;
    let _lock = Lock::take(dir, None)?;
    let (file, new) = (dir.join(FILE), dir.join("records.restored"));
    let unwritten = |error: io::Error| failed("write", &new, &error);
    fs::copy(&source, &new).map_err(|error| failed("read the backup", &source, &error))?;
    File::open(&new)
        .and_then(|file| file.sync_all())
        .map_err(unwritten)?;
    let contents = verified(&new, node, progress).inspect_err(|_| {
        // It is a copy, and of no use.
        let _ = fs::remove_file(&new);
    })?;
    let since = SystemTime::UNIX_EPOCH.elapsed();
    let since = since.map_or(0, |since| since.as_millis());
    let aside = file.exists().then(|| dir.join(format!("records.before-{since}")));
    if let Some(aside) = &aside {
        fs::rename(&file, aside).map_err(|error| failed("move away", &file, &error))?;
    }
    fs::rename(&new, &file).map_err(unwritten)?;
    sync_dir(dir).map_err(unwritten)?;
    Ok((contents, aside))
}

/// A copy of a backup that is whole and of this node.
fn verified(new: &Path, node: &NodeName, progress: Progress<'_>) -> Result<Contents, ToolError> {
    let refuse = |why: String| ToolError::Failed(format!("cannot take the backup: {why}"));
    let unreadable = |error: EngineError| refuse(error.to_string());
    let disk = open(new, true).map_err(unreadable)?;
    let snapshot = disk.snapshot().map_err(unreadable)?;
    let key = Key::Header.bytes();
    let header = snapshot.get(&key).map_err(unreadable)?;
    let header = header.and_then(|bytes| record::read::<Header>(&key, &bytes).ok());
    let header = header.ok_or_else(|| refuse("it has no header".into()))?;
    if header.format > FORMAT {
        let format = header.format;
        return Err(refuse(format!(
            "it has format {format}; use the newer version that wrote it"
        )));
    }
    if header.node != node.as_str() {
        let of = header.node;
        return Err(refuse(format!(
            "it is of the node {of}, and this is {node}; name that one with --node"
        )));
    }
    let mut contents = count(&*snapshot, progress).map_err(unreadable)?;
    if contents.damaged > 0 {
        let lost = contents.lost.join("; ");
        return Err(refuse(format!(
            "{} of its records are damaged: {lost}",
            contents.damaged
        )));
    }
    contents.file_bytes = disk.file_bytes();
    Ok(contents)
}
