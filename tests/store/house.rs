//! A node that is ended and started again at the same address and on the same data directory.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use ermine::mqtt::packet::{Packet, PacketId, Publish, QoS};
use ermine::mqtt::properties::PublishProperties;

use crate::harness::client::Client;
use crate::harness::host::{Host, Node, text};

pub(crate) const NAME: &str = "ermine@127.0.0.1";

/// How a node ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Stopped,
    Killed,
}

impl Ending {
    pub(crate) const BOTH: [Self; 2] = [Self::Stopped, Self::Killed];
}

pub(crate) struct House {
    pub host: Host,
    config: String,
    pub address: SocketAddr,
    node: Option<Node>,
}

impl House {
    /// A node that runs with this configuration file.
    pub(crate) fn start(config: &str) -> Self {
        let mut house = Self::empty(config);
        house.start_again();
        house
    }

    /// No node yet.
    pub(crate) fn empty(text: &str) -> Self {
        let host = Host::new();
        let config = host.home().join("house.toml");
        std::fs::write(&config, text).expect("written");
        Self {
            config: config.to_str().expect("a path of ours").to_owned(),
            address: ([127, 0, 0, 1], crate::harness::host::free_port()).into(),
            node: None,
            host,
        }
    }

    fn arguments(&self) -> [&str; 4] {
        ["--config", &self.config, "--worker-threads", "2"]
    }

    pub(crate) fn start_again(&mut self) {
        let node = self.host.spawn_at(self.address, NAME, &self.arguments());
        node.await_log("the node is up", |line| line.contains("node started"));
        self.node = Some(node);
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        let node = self.node.take().expect("a node that runs");
        match ending {
            Ending::Stopped => assert!(node.stop().success(), "a stop in good order"),
            Ending::Killed => node.kill(),
        }
    }

    pub(crate) fn again_after(&mut self, ending: Ending) {
        self.end(ending);
        self.start_again();
    }

    /// A node that must not start: what it says, and its exit status.
    pub(crate) fn refused(&self, name: &str, more: &[&str]) -> (String, i32) {
        let listen = format!("127.0.0.1:{}", crate::harness::host::free_port());
        let directory = self.directory();
        let directory = directory.to_str().expect("a path of ours");
        let mut arguments = vec![
            "start",
            "--name",
            name,
            "--data-dir",
            directory,
            "--listen",
            &listen,
        ];
        arguments.extend(self.arguments());
        arguments.extend(more);
        let output = self.host.run(&arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!output.status.success(), "it ran: {said}");
        assert!(
            !said.contains("node started") && !said.contains("panicked"),
            "{said}"
        );
        (said, output.status.code().expect("an exit status"))
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("a node that runs")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.host.data_dir(NAME)
    }

    /// The file of the store.
    pub(crate) fn records(&self) -> PathBuf {
        self.directory().join("store").join("records.redb")
    }

    /// Resident memory of the node, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node().pid()));
        let status = status.expect("a process that lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("a number of KiB")
            * 1024
    }
}

/// A PUBLISH with nothing but these.
pub(crate) fn publication(id: u16, topic: &str, payload: &[u8], qos: QoS, dup: bool) -> Publish {
    Publish {
        dup,
        qos,
        retain: false,
        topic: topic.into(),
        packet_id: PacketId::new(id),
        properties: PublishProperties::default(),
        payload: Bytes::copy_from_slice(payload),
    }
}

/// The next PUBLISH, which is not acknowledged.
#[track_caller]
pub(crate) fn next_publish(client: &mut Client) -> Publish {
    match client.next() {
        Packet::Publish(publish) => publish,
        other => panic!("instead of a PUBLISH: {other:?}"),
    }
}
