//! How a node sheds the cookie from its environment.
//!
//! What a process was given as environment can be read in `/proc/PID/environ` for as long as it lives, and
//! every child inherits it. So a node that finds its cookie in `ERMINE_COOKIE` becomes the same program
//! again, under the same process id, with the variable taken out and the cookie on a pipe at its standard
//! input. A command does not: it lives for moments and has no children.

use std::io::{PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use zeroize::Zeroizing;

use crate::config::Environment;
use crate::registry::cookie::{COOKIE_BYTES_MAX, COOKIE_VARIABLE};

/// Says that the cookie waits at the standard input.
const HANDED_VARIABLE: &str = "ERMINE_COOKIE_ON_STDIN";

/// The environment of this process, after the cookie has left it.
///
/// Does not return where the cookie is still there, unless the program cannot be run again; then it
/// stays where it is, which is told on standard error.
pub(super) fn environment() -> Environment {
    let mut environment = Environment::of_process();
    if let Some(cookie) = &environment.cookie {
        let error = again(cookie);
        eprintln!("ermine: the cookie stays in the environment of this process: {error}");
    } else if std::env::var_os(HANDED_VARIABLE).is_some() {
        environment.cookie = handed();
    }
    environment
}

/// Returns only what went wrong.
fn again(cookie: &Zeroizing<String>) -> std::io::Error {
    let become_again = || -> std::io::Result<std::io::Error> {
        let mut words = std::env::args_os();
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(name) = words.next() {
            command.arg0(name);
        }
        let waiting = on_a_pipe(cookie)?;
        command.args(words).env_remove(COOKIE_VARIABLE);
        Ok(command.env(HANDED_VARIABLE, "1").stdin(waiting).exec())
    };
    become_again().unwrap_or_else(|error| error)
}

/// A pipe with the cookie in it. Longer than any cookie may be is cut: it is refused either way, and must
/// not fill the pipe.
fn on_a_pipe(cookie: &str) -> std::io::Result<PipeReader> {
    let (waiting, mut writer) = std::io::pipe()?;
    let enough = cookie.len().min(COOKIE_BYTES_MAX + 3);
    writer.write_all(&cookie.as_bytes()[..enough])?;
    Ok(waiting)
}

fn handed() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(COOKIE_BYTES_MAX + 3));
    let input = std::io::stdin().lock();
    input
        .take(COOKIE_BYTES_MAX as u64 + 3)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned().into())
}
