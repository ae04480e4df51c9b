//! What is done about a store whose file is damaged: what is whole goes into a new file, the old one stays
//! beside it, and the log says what is lost.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::FILE;
use crate::store::disk::Disk;
use crate::store::disk::salvage::{Gap, salvage};
use crate::store::engine::{Durability, Engine, EngineError, Step};
use crate::store::key;
use crate::store::medium::{Medium, OnDisk};
use crate::store::record;

/// Places that are named one by one; of more the number is.
const NAMED_MAX: usize = 50;

/// Bytes of a batch.
const BATCH_BYTES: usize = 1 << 20;

/// What a look at records has found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::store) struct Findings {
    /// Records that are whole.
    pub(in crate::store) whole: u64,
    /// Records that are damaged, and places where some are missing.
    pub(in crate::store) damaged: u64,
    /// What they are called, the first of them.
    pub(in crate::store) named: Vec<String>,
}

impl Findings {
    pub(in crate::store) fn damaged(&mut self, what: String) {
        self.damaged += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what);
        }
    }

    fn missing(&mut self, gaps: &[Gap]) {
        for Gap { behind, before } in gaps {
            let name = |key: &Option<Vec<u8>>, none: &str| match key {
                Some(key) => key::describe(key),
                None => none.to_owned(),
            };
            let (behind, before) = (name(behind, "the beginning"), name(before, "the end"));
            self.damaged(format!("what lay between {behind} and {before}"));
        }
    }
}

/// Fills another file.
pub(in crate::store) struct Copier {
    to: Disk,
    batch: Vec<Step>,
    bytes: usize,
    failed: Option<EngineError>,
}

impl Copier {
    pub(in crate::store) fn new(file: &Path) -> Result<Self, EngineError> {
        let medium = OnDisk::open(file).map_err(|error| EngineError::Io(error.to_string()))?;
        Ok(Self {
            to: Disk::open(Arc::new(medium), false)?,
            batch: Vec::new(),
            bytes: 0,
            failed: None,
        })
    }

    /// Copies a record, unless it is damaged.
    pub(in crate::store) fn take(&mut self, key: &[u8], value: &[u8], findings: &mut Findings) {
        if let Err(damage) = record::check(key, value) {
            return findings.damaged(format!("{}: {damage}", key::describe(key)));
        }
        findings.whole += 1;
        let step = Step::Put(key.to_vec(), value.to_vec());
        self.bytes += step.bytes();
        self.batch.push(step);
        if self.bytes >= BATCH_BYTES {
            self.flush(Durability::Written);
        }
    }

    fn flush(&mut self, durability: Durability) {
        if self.failed.is_none() {
            self.failed = self.to.apply(&self.batch, durability).err();
        }
        self.batch.clear();
        self.bytes = 0;
    }

    /// Everything is on the disk.
    pub(in crate::store) fn finish(mut self) -> Result<(), EngineError> {
        self.flush(Durability::Synced);
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn copy_whole(file: &Path, new: &Path) -> Result<Findings, EngineError> {
    let medium = OnDisk::open(file).map_err(|error| EngineError::Io(error.to_string()))?;
    let medium: Arc<dyn Medium> = Arc::new(medium);
    let mut findings = Findings::default();
    let mut copier = Copier::new(new)?;
    let gaps = salvage(&medium, &mut |key, value| copier.take(key, value, &mut findings))?;
    findings.missing(&gaps);
    copier.finish()?;
    Ok(findings)
}

/// Brings what is whole into a new file in the place of the damaged one. Where that is now, and what was
/// found.
pub(super) fn mend(dir: &Path) -> Result<(PathBuf, Findings), EngineError> {
    let io = |error: io::Error| EngineError::Io(error.to_string());
    let (file, new) = (dir.join(FILE), dir.join("records.mended"));
    let _ = std::fs::remove_file(&new);
    let findings = copy_whole(&file, &new).inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    let since = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs());
    let aside = dir.join(format!("records.damaged-{since}"));
    std::fs::rename(&file, &aside).map_err(io)?;
    std::fs::rename(&new, &file).map_err(io)?;
    sync_dir(dir).map_err(io)?;
    Ok((aside, findings))
}

/// Looks through a damaged file without changing it.
pub(in crate::store) fn examine(file: &Path) -> Result<Findings, EngineError> {
    let medium = OnDisk::open(file).map_err(|error| EngineError::Io(error.to_string()))?;
    let medium: Arc<dyn Medium> = Arc::new(medium);
    let mut findings = Findings::default();
    let gaps = salvage(&medium, &mut |key, value| match record::check(key, value) {
        Ok(()) => findings.whole += 1,
        Err(damage) => findings.damaged(format!("{}: {damage}", key::describe(key))),
    })?;
    findings.missing(&gaps);
    Ok(findings)
}

pub(in crate::store) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
