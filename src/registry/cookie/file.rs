//! How a cookie's file is made and replaced.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{COOKIE_BYTES_MAX, Cookie, CookieError};

/// Mode of a file that a node makes: nobody but the owner reads it, and nobody writes it by mistake.
const MADE: u32 = 0o400;

/// Mode of a file that was replaced.
const REPLACED: u32 = 0o600;

pub(super) fn check_kind(path: &Path, metadata: &fs::Metadata) -> Result<(), CookieError> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = if metadata.is_dir() {
        "a directory"
    } else {
        "a fifo, socket or device"
    };
    Err(CookieError::NotAFile {
        path: path.into(),
        kind,
    })
}

/// Writes beside the target, then links: `link` fails where something stands, so no cookie is ever
/// overwritten, and a second node never reads a file that is made but not yet filled.
pub(super) fn create(path: &Path) -> Result<(), CookieError> {
    let text = text_of(&Cookie::random()?);
    let draft = draft_beside(path)?;
    let made = write_new(&draft, &text, MADE).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    let made = match made {
        // A file system without hard links; the window in which the file is empty is accepted there.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
            ) =>
        {
            write_new(path, &text, MADE)
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(CookieError::Uncreatable {
            path: path.into(),
            cause: error.to_string(),
        }),
        _ => Ok(()),
    }
}

pub(super) fn replaceable(cookie: &Cookie, path: &Path) -> Result<(), CookieError> {
    if holds(path, cookie) {
        return Ok(());
    }
    let draft = draft_beside(&target_of(path))?;
    let tried = write_new(&draft, b"", REPLACED).and_then(|()| fs::remove_file(&draft));
    tried.map_err(|error| unwritable(path, &error))
}

/// Writes beside the target, then renames: whoever reads meanwhile sees the old cookie or the new one.
pub(super) fn replace(cookie: &Cookie, path: &Path) -> Result<(), CookieError> {
    if holds(path, cookie) {
        return Ok(());
    }
    let target = target_of(path);
    let draft = draft_beside(&target)?;
    let written = write_new(&draft, &text_of(cookie), REPLACED).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    } else if let Some(folder) = target.parent() {
        // So that the new name outlives a power failure; not every file system can be asked for it.
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    written.map_err(|error| unwritable(path, &error))
}

fn holds(path: &Path, cookie: &Cookie) -> bool {
    Cookie::load(path).is_ok_and(|there| there.is_same_as(cookie))
}

/// What a link leads to: a mounted secret stays a link.
fn target_of(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

fn draft_beside(path: &Path) -> Result<PathBuf, CookieError> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|error| CookieError::NoRandom(error.to_string()))?;
    let mut draft = OsString::from(path);
    draft.push(format!(".{:016x}", u64::from_be_bytes(suffix)));
    Ok(draft.into())
}

fn text_of(cookie: &Cookie) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(COOKIE_BYTES_MAX + 1));
    text.extend_from_slice(cookie.expose());
    text.push(b'\n');
    text
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn unwritable(path: &Path, error: &io::Error) -> CookieError {
    CookieError::Unwritable {
        path: path.into(),
        cause: error.to_string(),
    }
}
