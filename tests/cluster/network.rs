//! A network of its own for each node, with a switch between them: network namespaces, which need root and
//! `ip`. Tests that want one are skipped with the reason where there is neither.

use std::process::{Command, Stdio};

use crate::harness::host::{Host, Node, text};

/// Port of MQTT at each end.
const MQTT: u16 = 1883;

/// Runs `ip`; its complaint if it fails.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip does not run: {error}"))?;
    let why = || format!("ip {words}: {}", text(&output.stderr).trim());
    output.status.success().then_some(()).ok_or_else(why)
}

/// The ends and the switch between them, and a cable from there to the test itself.
pub(crate) struct Network {
    prefix: String,
    /// What all addresses begin with. The test itself has one too, so no other run may have the same.
    subnet: String,
    ends: Vec<&'static str>,
}

impl Network {
    /// Lays the cables, or says why that cannot be done here. Networks of one run have different numbers.
    pub(crate) fn new(number: u32, ends: &[&'static str]) -> Result<Self, String> {
        let run = std::process::id();
        let network = Self {
            prefix: format!("e{run}x{number}"),
            // Of the range that is kept for tests of networks (RFC 2544).
            subnet: format!("198.{}.{}", 18 + number % 2, run % 256),
            ends: ends.to_vec(),
        };
        let switch = network.name("s");
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add name hub type bridge"))?;
        ip(&format!("-n {switch} link set dev hub up"))?;
        for end in ends {
            let (name, address) = (network.name(end), network.address(end));
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "-n {name} link add name wire type veth peer name port-{end} netns {switch}"
            ))?;
            ip(&format!("-n {name} addr add {address}/24 dev wire"))?;
            ip(&format!("-n {name} link set dev wire up"))?;
            ip(&format!("-n {name} link set dev lo up"))?;
            ip(&format!("-n {switch} link set dev port-{end} up"))?;
            network.heal(end);
        }
        let cable = network.name("t");
        ip(&format!(
            "link add name {cable} type veth peer name port-t netns {switch}"
        ))?;
        ip(&format!("addr add {}.254/24 dev {cable}", network.subnet))?;
        ip(&format!("link set dev {cable} up"))?;
        ip(&format!("-n {switch} link set dev port-t master hub"))?;
        ip(&format!("-n {switch} link set dev port-t up"))?;
        Ok(network)
    }

    fn name(&self, end: &str) -> String {
        format!("{}{end}", self.prefix)
    }

    /// Where an end is reached.
    pub(crate) fn address(&self, end: &str) -> String {
        let number = self.ends.iter().position(|known| *known == end);
        format!("{}.{}", self.subnet, number.expect("an end") + 1)
    }

    /// Everything between this end and the others is lost; all interfaces stay up.
    pub(crate) fn cut(&self, end: &str) {
        ip(&format!("-n {} link set dev port-{end} nomaster", self.name("s"))).expect("cut");
    }

    pub(crate) fn heal(&self, end: &str) {
        ip(&format!(
            "-n {} link set dev port-{end} master hub",
            self.name("s")
        ))
        .expect("plugged in");
    }

    /// Resets every TCP connection that this end has with other ends; how many ends of connections that
    /// were, or why it cannot be done.
    pub(crate) fn reset(&self, end: &str) -> Result<usize, String> {
        let others = self.ends.iter().filter(|other| **other != end);
        let others: Vec<String> = others
            .map(|other| format!("dst {}", self.address(other)))
            .collect();
        let filter = format!("( {} )", others.join(" or "));
        let mut command = self.at(end, "ss");
        command.args(["-K", "-H", "-t", "state", "established", &filter]);
        let output = command
            .output()
            .map_err(|error| format!("ss does not run: {error}"))?;
        let complaint = text(&output.stderr);
        if !output.status.success() || !complaint.trim().is_empty() {
            return Err(format!("ss -K: {}", complaint.trim()));
        }
        Ok(text(&output.stdout).lines().count())
    }

    /// A command that runs at one end.
    fn at(&self, end: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(end), program]);
        command
    }

    /// The built binary, run at one end with the environment of this host.
    pub(crate) fn ermine(&self, host: &Host, end: &str) -> Command {
        let mut command = self.at(end, env!("CARGO_BIN_EXE_ermine"));
        command
            .env("HOME", host.home())
            .env("ERMINE_REGISTRY_PORT", host.registry_port.to_string())
            .env_remove("ERMINE_COOKIE")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Starts a node at one end and waits until its doors are open.
    pub(crate) fn start(&self, host: &Host, end: &str) -> Node {
        let address = self.address(end);
        let name = format!("n-{end}@{address}");
        let listen = format!("0.0.0.0:{MQTT}");
        let more = ["--listen", &listen, "--allow-anonymous"];
        let mut node = host.spawn_by(self.ermine(host, end), &name, &more);
        node.mqtt = format!("{address}:{MQTT}").parse().expect("an address");
        node.await_log("the node is up", |line| line.contains("node started"));
        node
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&format!("link del dev {}", self.name("t")));
        let ends = self.ends.iter().copied().chain(["s"]);
        for end in ends {
            let _ = ip(&format!("netns del {}", self.name(end)));
        }
    }
}
