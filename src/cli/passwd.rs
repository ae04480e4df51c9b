//! `ermine passwd`: makes and changes password files.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::args::PasswdArgs;
use super::commands::say;
use super::failure::Failure;
use crate::access::passwords::{self, PASSWORD_BYTES_MAX, Passwords, Salts};
use crate::limits::ACCESS_FILE_BYTES_MAX;

/// Sets the password of a user, or removes the user.
pub(super) fn passwd(args: &PasswdArgs) -> Result<(), Failure> {
    let (file, user) = (args.file.as_path(), args.user.as_str());
    passwords::check_username(user).map_err(Failure::usage)?;
    let text = read(file, args.delete)?;
    // What is broken is told now and not by the node that reads it.
    Passwords::parse(&text).map_err(|error| failed(file, &error))?;
    let line = if args.delete {
        None
    } else {
        let password = ask(user, args.batch)?;
        let line = passwords::line(user, password.as_bytes(), &salts()?, !args.no_scram);
        Some(Zeroizing::new(line.map_err(Failure::command)?))
    };
    let Some(edited) = passwords::edited(&text, user, line.as_ref().map(|line| line.as_str())) else {
        return Err(failed(file, &format_args!("there is no user {user}")));
    };
    write(file, &edited).map_err(|error| failed(file, &error))?;
    say(&match args.delete {
        true => format!(
            "{user} removed from {}; `ermine reload` tells a node\n",
            file.display()
        ),
        false => format!("{user} set in {}; `ermine reload` tells a node\n", file.display()),
    });
    Ok(())
}

fn failed(file: &Path, what: &dyn std::fmt::Display) -> Failure {
    Failure::command(format!("{}: {what}", file.display()))
}

/// The present text; nothing if there is no file yet.
fn read(file: &Path, must_be: bool) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    match File::open(file) {
        Ok(opened) => {
            let read = opened.take(ACCESS_FILE_BYTES_MAX).read_to_string(&mut text);
            read.map_err(|error| failed(file, &error))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_be => {}
        Err(error) => return Err(failed(file, &error)),
    }
    Ok(text)
}

/// Beside the file, then in its place: a node that reads meanwhile finds the old one or the new one, whole,
/// and nobody but the owner can read either.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let mut name = target.clone().into_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let mut beside = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&name)?;
    let written = beside
        .write_all(text.as_bytes())
        .and_then(|()| beside.sync_all())
        .and_then(|()| fs::rename(&name, &target));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&name);
    }
    written
}

fn salts() -> Result<Salts, Failure> {
    let mut salts = Salts {
        argon2: [0; 16],
        scram: [0; 16],
    };
    getrandom::fill(&mut salts.argon2)
        .and_then(|()| getrandom::fill(&mut salts.scram))
        .map_err(|error| Failure::command(format!("the system gave no random bytes: {error}")))?;
    Ok(salts)
}

/// The password: typed twice without echo at a terminal, else the first line of standard input.
fn ask(user: &str, batch: bool) -> Result<Zeroizing<String>, Failure> {
    let input = std::io::stdin();
    if batch || !input.is_terminal() {
        return line(&mut input.lock());
    }
    let silence = Silence::begin()?;
    prompt(&format!("Password for {user}: "));
    let first = line(&mut input.lock())?;
    prompt("\nAgain: ");
    let second = line(&mut input.lock())?;
    prompt("\n");
    drop(silence);
    if *first != *second {
        return Err(Failure::command(
            "the passwords differ; nothing was changed".into(),
        ));
    }
    Ok(first)
}

fn prompt(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn line(input: &mut impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::with_capacity(PASSWORD_BYTES_MAX + 3));
    let read = input.take(PASSWORD_BYTES_MAX as u64 + 3).read_line(&mut line);
    read.map_err(|error| Failure::command(format!("no password could be read: {error}")))?;
    let len = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(len);
    Ok(line)
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self, Failure> {
        let deaf = |error| Failure::command(format!("the terminal cannot be silenced: {error}; use --batch"));
        let input = std::io::stdin();
        let before = tcgetattr(input.as_fd()).map_err(deaf)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(input.as_fd(), OptionalActions::Flush, &silent).map_err(deaf)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing either.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_the_first_line() {
        let read = |text: &str| line(&mut text.as_bytes()).unwrap().to_string();
        assert_eq!(read("secret\r\nmore\n"), "secret");
        assert_eq!(read("  spaces stay  "), "  spaces stay  ");
        assert_eq!(read(""), "");
    }
}
