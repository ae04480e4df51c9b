//! A host: a home directory with a cookie, a registry port, and the node processes on it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::{PATIENCE, Told};

/// One machine as far as nodes can tell. Its home is removed when it is dropped.
pub struct Host {
    home: tempfile::TempDir,
    registry_port: u16,
}

impl Host {
    pub fn new() -> Told<Self> {
        let home = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let registry_port = free.map_err(|error| format!("no free port: {error}"))?.port();
        Ok(Self { home, registry_port })
    }

    /// This program as `ermine` on this host.
    fn ermine(&self) -> Told<Command> {
        let program = std::env::current_exe().map_err(|error| format!("who am I? {error}"))?;
        let mut command = Command::new(program);
        command
            .env("HOME", self.home.path())
            .env("ERMINE_REGISTRY_PORT", self.registry_port.to_string())
            .env_remove("ERMINE_COOKIE")
            // Reports without a page of frames for each crash on purpose.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command to its end; what it printed.
    pub fn ask(&self, words: &str) -> Told<String> {
        let output = self.ermine()?.args(words.split(' ')).output();
        let output = output.map_err(|error| format!("`ermine {words}` did not run: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "`ermine {words}` failed ({}): {}",
            output.status,
            said.trim()
        ))
    }

    /// Runs a command and shows it with its answer.
    pub fn show(&self, words: &str) -> Told<String> {
        println!("$ ermine {words}");
        let answer = self.ask(words)?;
        println!("{}\n", answer.trim_end());
        Ok(answer)
    }

    /// Runs a command that lists and parses its JSON.
    pub fn json(&self, words: &str) -> Told<serde_json::Value> {
        let answer = self.ask(&format!("{words} --json"))?;
        serde_json::from_str(&answer).map_err(|error| format!("`ermine {words} --json` is no JSON: {error}"))
    }

    /// Starts a node on a free port and waits until its doors are open.
    pub fn start(&self, name: &str, more: &[&str]) -> Told<Node> {
        let mut command = self.ermine()?;
        command
            .args(["start", "--name", name, "--listen", "127.0.0.1:0"])
            .args(more);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{name} did not start: {error}"))?;
        let log = Arc::new(Log::default());
        // Piped two lines above.
        child.stderr.take().into_iter().for_each(|pipe| log.follow(pipe));
        let mut node = Node {
            name: name.into(),
            child,
            log,
            mqtt: ([127, 0, 0, 1], 0).into(),
        };
        let line = node
            .log
            .wait(0, &format!("{name} starts"), |line| line.contains("node started"))?;
        let listener = line.split(' ').find_map(|word| word.strip_prefix("listeners="));
        let address = listener.and_then(|address| address.strip_prefix("mqtt://")?.parse().ok());
        node.mqtt = address.ok_or_else(|| format!("no listener in: {line}"))?;
        println!("{name} is up, pid {}, MQTT at {}", node.child.id(), node.mqtt);
        Ok(node)
    }
}

/// A node process. Dropping it kills it, so that no example leaves one behind.
pub struct Node {
    pub name: String,
    pub log: Arc<Log>,
    pub mqtt: SocketAddr,
    child: Child,
}

impl Node {
    /// `kill -9`: the process has no say in it.
    pub fn kill(&mut self) -> Told {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(|error| format!("{} cannot be killed: {error}", self.name))
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> Told<ExitStatus> {
        self.log.wait_for_end(&format!("{} ends", self.name))?;
        self.child
            .wait()
            .map_err(|error| format!("{} was lost: {error}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node's log as it is written.
#[derive(Default)]
pub struct Log {
    page: Mutex<Page>,
    more: Condvar,
}

#[derive(Default)]
struct Page {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.write(|page| page.lines.push(line));
            }
            log.write(|page| page.ended = true);
        });
    }

    fn write(&self, change: impl FnOnce(&mut Page)) {
        change(&mut self.page.lock().unwrap_or_else(PoisonError::into_inner));
        self.more.notify_all();
    }

    /// Lines so far: a mark from which to wait or to read on.
    pub fn mark(&self) -> usize {
        self.page
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .len()
    }

    /// The lines from a mark on.
    pub fn since(&self, mark: usize) -> Vec<String> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).lines[mark..].to_vec()
    }

    /// Waits for a line after a mark.
    pub fn wait(&self, mark: usize, what: &str, wanted: impl Fn(&str) -> bool) -> Told<String> {
        self.wait_until(what, |page| {
            page.lines[mark..].iter().find(|line| wanted(line)).cloned()
        })
    }

    /// Waits for a report of the supervisors (several lines, then an empty one) after a mark; what was
    /// logged from the mark to its end.
    pub fn wait_for_report(&self, mark: usize, what: &str, wanted: impl Fn(&str) -> bool) -> Told<String> {
        self.wait_until(what, |page| {
            let lines = &page.lines[mark..];
            let mut begin = 0;
            for end in (0..lines.len()).filter(|at| lines[*at].is_empty()) {
                let heading = (begin..end)
                    .find(|at| lines[*at].starts_with('='))
                    .unwrap_or(begin);
                if wanted(&lines[heading..end].join("\n")) {
                    return Some(lines[..end].join("\n"));
                }
                begin = end + 1;
            }
            None
        })
    }

    fn wait_for_end(&self, what: &str) -> Told {
        self.wait_until(what, |page| page.ended.then_some(()))
    }

    fn wait_until<T>(&self, what: &str, seen: impl Fn(&Page) -> Option<T>) -> Told<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = seen(&page) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || page.ended {
                let last = &page.lines[page.lines.len().saturating_sub(10)..];
                return Err(format!(
                    "waited in vain: {what}; the log ends with\n{}",
                    last.join("\n")
                ));
            }
            let woken = self.more.wait_timeout(page, left);
            page = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A line of a log without its time and place: what it says.
pub fn said(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(_, said)| said)
}
