//! Where a tour takes place: the nodes, the clients that are installed, and the count of its steps.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::harness::host::{Host, Node, free_port};

/// Where `.ci/tours` has installed clients, if it has and `client` is among them; says so if not.
pub(crate) fn installed(client: &str) -> Option<PathBuf> {
    let clients = std::env::var("ERMINE_TOURS").unwrap_or_default();
    if clients.split_whitespace().any(|one| one == client) {
        let place = std::env::var("ERMINE_TOURS_DIR").expect("ERMINE_TOURS comes with ERMINE_TOURS_DIR");
        return Some(PathBuf::from(place));
    }
    println!("not run: the tour with {client}, which `.ci/tours` would install");
    None
}

/// One node, or two that have joined.
pub(crate) struct Place {
    pub(crate) host: Host,
    pub(crate) nodes: Vec<Node>,
}

impl Place {
    pub(crate) fn one_node() -> Self {
        let host = Host::new();
        let nodes = vec![host.start("n1@127.0.0.1")];
        Self { host, nodes }
    }

    /// One node that knows `ann`, whose password is `secret`, and lets nobody else in.
    pub(crate) fn with_password() -> Self {
        let host = Host::new();
        let file = host.home().join("passwords");
        let path = file.to_str().expect("text");
        let mut passwd = host.ermine();
        passwd
            .args(["passwd", "--batch", path, "ann"])
            .stdin(Stdio::piped());
        let mut passwd = passwd.spawn().expect("the binary runs");
        let mut input = passwd.stdin.take().expect("piped");
        writeln!(input, "secret").expect("written");
        drop(input);
        assert!(
            passwd.wait().expect("reaped").success(),
            "the password file is made"
        );
        let config = host.home().join("ermine.toml");
        std::fs::write(&config, format!("[auth]\npassword_file = {path:?}\n")).expect("written");
        let config = config.to_str().expect("text");
        let nodes = vec![host.start_with("n1@127.0.0.1", &["--config", config])];
        Self { host, nodes }
    }

    pub(crate) fn two_nodes() -> Self {
        let mut place = Self::one_node();
        place.nodes.push(place.host.start("n2@127.0.0.1"));
        place
            .host
            .ok(&["cluster", "join", "n2@127.0.0.1", "--node", "n1@127.0.0.1"]);
        place
    }

    /// Where publishers connect.
    pub(crate) fn publish(&self) -> SocketAddr {
        self.nodes[0].mqtt
    }

    /// Where subscribers connect.
    pub(crate) fn subscribe(&self) -> SocketAddr {
        self.nodes[self.nodes.len() - 1].mqtt
    }
}

/// A node that is there to be restarted at the same port.
pub(crate) struct Restarted {
    host: Host,
    node: Option<Node>,
    pub(crate) mqtt: SocketAddr,
}

impl Restarted {
    pub(crate) fn start() -> Self {
        let mqtt = format!("127.0.0.1:{}", free_port()).parse().expect("an address");
        let mut this = Self {
            host: Host::new(),
            node: None,
            mqtt,
        };
        this.again();
        this
    }

    /// Stops it in good order, if it runs, and starts it.
    pub(crate) fn again(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
        let listen = self.mqtt.to_string();
        self.node = Some(self.host.start_with("again@127.0.0.1", &["--listen", &listen]));
    }
}

/// Runs a script to its end, restarting `restarted` when it says so. Fails if a step of it fails.
#[track_caller]
pub(crate) fn run_script(mut command: Command, mut restarted: Option<Restarted>) {
    if let Some(restarted) = &restarted {
        command.arg("--restart").arg(restarted.mqtt.to_string());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an installed client runs");
    let mut answers = child.stdin.take().expect("piped");
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        if let (Some(node), "@restart") = (restarted.as_mut(), line.as_str()) {
            node.again();
            writeln!(answers, "up").expect("the script listens");
            continue;
        }
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().expect("reaped");
    let failed: Vec<_> = lines.iter().filter(|line| line.starts_with("not ok")).collect();
    assert!(
        status.success(),
        "{status}, of {} lines: {failed:#?}",
        lines.len()
    );
}

/// The steps of a tour that is written in Rust.
pub(crate) struct Steps {
    title: String,
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: title.into(),
            passed: 0,
            failed: Vec::new(),
        }
    }

    /// Runs one step, which panics if the broker does not do what it shows.
    pub(crate) fn step(&mut self, what: &str, step: impl FnOnce()) {
        let began = Instant::now();
        if catch_unwind(AssertUnwindSafe(step)).is_ok() {
            println!(
                "ok {}: {what} ({:.1} s)",
                self.title,
                began.elapsed().as_secs_f32()
            );
            self.passed += 1;
        } else {
            println!("not ok {}: {what}", self.title);
            self.failed.push(what.into());
        }
    }

    /// The closing line. Fails if a step has failed.
    #[track_caller]
    pub(crate) fn finish(self) {
        println!("{} passed, {} failed", self.passed, self.failed.len());
        assert!(self.failed.is_empty(), "{}: {:#?}", self.title, self.failed);
    }
}
