//! A host with its own cookie, home and registry port, and the nodes on it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::PATIENCE;

/// One machine as far as nodes can tell: a home directory with a cookie, and a registry port.
pub struct Host {
    home: tempfile::TempDir,
    pub registry_port: u16,
}

/// A free port that nobody else is given: below those that the system hands out to outgoing connections,
/// and counted up, so that tests at one time do not meet.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 220) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Host {
    pub fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("a temporary directory"),
            registry_port: free_port(),
        }
    }

    /// Another host that shares the registry's port but has a home, and so a cookie, of its own.
    pub fn with_another_cookie(&self) -> Self {
        Self {
            home: tempfile::tempdir().expect("a temporary directory"),
            registry_port: self.registry_port,
        }
    }

    /// Another host of the same cluster: it shares the registry's port and has a copy of the cookie.
    pub fn with_a_copy_of_the_cookie(&self) -> Self {
        let other = self.with_another_cookie();
        std::fs::copy(self.cookie_file(), other.cookie_file()).expect("copied");
        other
    }

    pub fn cookie_file(&self) -> PathBuf {
        self.home().join(".ermine.cookie")
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.home().join(format!("data-{}", name.replace('@', "-")))
    }

    /// The built binary with the environment of this host.
    pub fn ermine(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ermine"));
        command
            .env("HOME", self.home())
            .env("ERMINE_REGISTRY_PORT", self.registry_port.to_string())
            .env_remove("ERMINE_COOKIE")
            // The first backtrace of a debug build holds its arbiter up for half a second.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the CLI to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.ermine().args(arguments).output().expect("the binary runs")
    }

    /// Runs a command that must succeed; its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(
            output.status.success(),
            "ermine {arguments:?} failed\nstdout: {out}\nstderr: {err}"
        );
        out
    }

    /// Runs a command that must fail; its standard error and its exit status.
    pub fn fails(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        assert!(
            !output.status.success(),
            "ermine {arguments:?} succeeded: {}",
            text(&output.stdout)
        );
        (
            text(&output.stderr),
            output.status.code().expect("an exit status"),
        )
    }

    /// Runs a listing with `--json` and parses it.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let out = self.ok(&all);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error} in {out}"))
    }

    /// Every message is accounted for on all nodes that this one knows. The command itself waits until none
    /// is on its way.
    #[track_caller]
    pub fn assert_balanced(&self, node: &str) {
        let within = PATIENCE.as_secs().to_string();
        let output = self.run(&["audit", "--node", node, "--within", &within]);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if !output.status.success() {
            let json = self.run(&["audit", "--node", node, "--within", "0", "--json"]);
            panic!("{err}{out}{}", text(&json.stdout));
        }
    }

    /// Starts `name` on a free MQTT port, allowed to be crashed, and waits until its doors are open.
    pub fn start(&self, name: &str) -> Node {
        self.start_with(name, &[])
    }

    pub fn start_with(&self, name: &str, more: &[&str]) -> Node {
        let node = self.spawn(name, more);
        node.await_log("the node is up", |line| line.contains("node started"));
        node
    }

    /// Starts `name` again where it was, without waiting for it: its clients know no other address.
    pub fn spawn_at(&self, address: SocketAddr, name: &str, more: &[&str]) -> Node {
        let listen = address.to_string();
        let mut arguments = vec!["--listen", &listen];
        arguments.extend(more);
        let mut node = self.spawn(name, &arguments);
        node.mqtt = address;
        node
    }

    /// Starts `name` without waiting for it.
    pub fn spawn(&self, name: &str, more: &[&str]) -> Node {
        self.spawn_by(self.ermine(), name, more)
    }

    /// Starts `name` by the binary in an environment of the test's.
    pub fn spawn_by(&self, mut command: Command, name: &str, more: &[&str]) -> Node {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        command.args(["start", "--name", name, "--allow-crash"]);
        command.arg("--data-dir").arg(self.data_dir(name));
        // The listeners of a file would be replaced by the flag's.
        if !more.contains(&"--listen") && !names_listeners(more) {
            command.args(["--listen", &listen]);
        }
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the node starts");
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        let mqtt = listen.parse().expect("an address");
        Node {
            name: name.into(),
            child,
            log,
            mqtt,
        }
    }
}

/// Whether the file of `--config` has listeners of its own.
fn names_listeners(arguments: &[&str]) -> bool {
    let file = arguments
        .iter()
        .skip_while(|argument| **argument != "--config")
        .nth(1);
    let text = file.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    text.is_some_and(|text| text.contains("[[listener]]"))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running node process. Dropping it kills it.
pub struct Node {
    pub name: String,
    pub child: Child,
    pub log: Arc<Log>,
    pub mqtt: SocketAddr,
}

impl Node {
    /// Waits for a line of the log, or fails with the whole log.
    #[track_caller]
    pub fn await_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.log.wait(&format!("{}: {what}", self.name), wanted)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Sends a signal by its name, as `kill -NAME` does.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(status.expect("kill runs").success(), "kill -{name}");
    }

    /// SIGTERM, then the exit status.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_exit()
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.log.read_to_the_end();
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} did not end\n{}",
                self.name,
                self.log.all()
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The log of a node as it is written.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
    readers: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Log {
    pub fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                log.lines.lock().expect("no panic holds it").push(line);
                log.more.notify_all();
            }
        });
        self.readers.lock().expect("no panic holds it").push(reader);
    }

    /// Waits until all that an ended process wrote has been read: its last lines may still be in the pipe.
    fn read_to_the_end(&self) {
        for reader in self.readers.lock().expect("no panic holds it").drain(..) {
            reader.join().expect("a reader of the log does not panic");
        }
    }

    /// Everything that was written so far.
    pub fn all(&self) -> String {
        self.lines.lock().expect("no panic holds it").join("\n")
    }

    /// Lines written so far: a mark for [`Log::wait_after`].
    pub fn len(&self) -> usize {
        self.lines.lock().expect("no panic holds it").len()
    }

    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_after(0, what, wanted)
    }

    /// Waits for a line after the first `mark` ones.
    #[track_caller]
    pub fn wait_after(&self, mark: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines.lock().expect("no panic holds it");
        loop {
            if let Some(line) = lines.iter().skip(mark).find(|line| wanted(line)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited in vain for: {what}\n{}",
                lines.join("\n")
            );
            lines = self.more.wait_timeout(lines, left).expect("no panic holds it").0;
        }
    }
}

/// Asks again until `probe` answers with something, or fails. For facts that only a command can tell.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
    }
}
