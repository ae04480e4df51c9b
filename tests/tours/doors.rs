//! A node with a door for every transport, and the tours through them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::harness::host::{Host, Log, Node, free_port};
use crate::mosquitto::{Mosquitto, through};
use crate::rig::{Place, Steps, installed, run_script};
use crate::scripts::{javascript, python};

/// What is spoken at each door, as the configuration has it.
const PROTOCOLS: [&str; 4] = ["mqtt", "ws", "mqtts", "wss"];

struct Doors {
    place: Place,
    addresses: [SocketAddr; 4],
    /// PEM of the authority that the certificate of the server comes from.
    ca: String,
}

impl Doors {
    fn open() -> Self {
        let host = Host::new();
        let (ca, certificate, key) = certificates(&host);
        let addresses = [(); 4].map(|()| format!("127.0.0.1:{}", free_port()).parse().expect("an address"));
        let mut config = String::new();
        for (protocol, address) in PROTOCOLS.iter().zip(&addresses) {
            config += &format!("[[listener]]\nlisten = \"{address}\"\nprotocol = \"{protocol}\"\n");
            if protocol.ends_with('s') && *protocol != "ws" {
                config += &format!("certificate = {certificate:?}\nkey = {key:?}\n");
            }
        }
        let file = host.home().join("ermine.toml");
        std::fs::write(&file, config).expect("written");
        let name = "n1@127.0.0.1";
        let mut command = host.ermine();
        command.args(["start", "--name", name, "--config"]).arg(&file);
        command.arg("--data-dir").arg(host.data_dir(name));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the node starts");
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        let node = Node {
            name: name.into(),
            child,
            log,
            mqtt: addresses[0],
        };
        node.await_log("the node is up", |line| line.contains("node started"));
        let nodes = vec![node];
        Self {
            place: Place { host, nodes },
            addresses,
            ca,
        }
    }

    fn at(&self, protocol: &str) -> SocketAddr {
        let index = PROTOCOLS.iter().position(|one| *one == protocol);
        self.addresses[index.expect("one of the doors")]
    }

    /// Runs a script through one door.
    fn tour(&self, mut command: Command, client: &str, protocol: &str, version: &str) {
        let address = self.at(protocol).to_string();
        command.args(["--publish", &address, "--subscribe", &address]);
        let told = [("3", "3.1"), ("4", "3.1.1"), ("5", "5.0")];
        let told = told
            .iter()
            .find(|(number, _)| *number == version)
            .expect("a version")
            .1;
        command.args([
            "--version",
            version,
            "--title",
            &format!("{client} {told}, {protocol}"),
        ]);
        if protocol.ends_with('s') && protocol != "ws" {
            command.args(["--ca", &self.ca]);
        }
        run_script(command, None);
    }
}

/// Files with an authority, and with a certificate and key for this host that come from it.
fn certificates(host: &Host) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Tours");
    let authority_key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&authority_key).expect("signed");
    let issuer = Issuer::new(params, authority_key);
    let names = vec!["127.0.0.1".to_string(), "localhost".to_string()];
    let mut params = CertificateParams::new(names).expect("names");
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &issuer).expect("signed");
    let write = |name: &str, pem: String| {
        let path = host.home().join(name);
        std::fs::write(&path, pem).expect("written");
        path.to_str().expect("text").to_string()
    };
    (
        write("ca.pem", authority.pem()),
        write("server.pem", certificate.pem()),
        write("server.key", key.serialize_pem()),
    )
}

#[test]
fn paho_comes_in_through_every_door() {
    let Some(clients) = installed("paho") else { return };
    let doors = Doors::open();
    for (protocol, version) in [("ws", "4"), ("mqtts", "5"), ("wss", "5")] {
        let mut command = python(&clients, "paho_tour.py");
        if protocol.starts_with("ws") {
            command.args(["--transport", "websockets"]);
        }
        doors.tour(command, "paho", protocol, version);
    }
}

#[test]
fn aiomqtt_comes_in_through_every_door() {
    let Some(clients) = installed("aiomqtt") else {
        return;
    };
    let doors = Doors::open();
    for protocol in ["ws", "mqtts"] {
        let mut command = python(&clients, "aiomqtt_tour.py");
        if protocol.starts_with("ws") {
            command.args(["--transport", "websockets"]);
        }
        doors.tour(command, "aiomqtt", protocol, "5");
    }
}

#[test]
fn mqttjs_comes_in_through_every_door() {
    let Some(clients) = installed("mqttjs") else {
        return;
    };
    let doors = Doors::open();
    for (protocol, version) in [
        ("ws", "3"),
        ("ws", "4"),
        ("ws", "5"),
        ("mqtts", "5"),
        ("wss", "5"),
    ] {
        let mut command = javascript(&clients);
        command.args(["--transport", protocol]);
        doors.tour(command, "MQTT.js", protocol, version);
    }
}

#[test]
fn mosquitto_comes_in_through_tls() {
    if installed("mosquitto").is_none() {
        return;
    }
    let doors = Doors::open();
    let mut steps = Steps::new("mosquitto 5.0, mqtts");
    let it = Mosquitto {
        place: &doors.place,
        version: "mqttv5",
        door: Some((doors.at("mqtts").port(), &doors.ca)),
    };
    through(&mut steps, &it);
    steps.finish();
}
