//! Every kind of listener of one node: TLS, WebSocket, both, unix sockets, and behind a proxy. Goal: MQTT
//! is the same on each of them, and whoever comes in a wrong way is turned away without harm to others.
//! Method: the MQTT client of the other tests speaks through a bridge that does what the listener asks for;
//! mistakes are made by hand, byte by byte.

#[path = "../harness/mod.rs"]
mod harness;

mod bridge;
mod certificates;
mod local;
mod proxied;
mod secure;
mod web;

use std::net::SocketAddr;

use ermine::mqtt::packet::{ProtocolVersion, QoS};

use crate::harness::client::Options;
use crate::harness::host::{Host, Node, free_port};

/// A node with one listener: what its section says beside the address.
fn node_with(host: &Host, listener: &str) -> (Node, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let node = start(host, &format!("listen = \"{address}\"\n{listener}"));
    (node, address)
}

/// A node whose first listener is this section.
fn start(host: &Host, listener: &str) -> Node {
    let config = host.home().join("ermine.toml");
    let text =
        format!("[limits]\nconnect_deadline_s = 2\n[log]\nlevel = \"debug\"\n[[listener]]\n{listener}\n");
    std::fs::write(&config, text).expect("written");
    host.start_with("n1@127.0.0.1", &["--config", config.to_str().expect("text")])
}

/// The same of each version: messages of all sizes come and go, in order. `connect` gives a new way to the
/// listener each time.
fn speaks_mqtt(mut connect: impl FnMut() -> SocketAddr) {
    let versions = [
        ProtocolVersion::V3_1,
        ProtocolVersion::V3_1_1,
        ProtocolVersion::V5,
    ];
    for version in versions {
        let mut options = Options::new("a client");
        options.connect.version = version;
        let mut client = options.connect(connect());
        assert!(!client.subscribe("t/#", QoS::ExactlyOnce).is_error());
        client.publish_and_receive("t/small");
        for size in [0, 1, 125, 126, 20_000, 300_000] {
            client.send_publish("t/sizes", &vec![b'x'; size], QoS::AtMostOnce, false);
            assert_eq!(client.message().payload.len(), size, "{version:?}");
        }
        client.disconnect();
    }
}

/// A counter of the only node of a host.
fn counted(host: &Host, name: &str) -> u64 {
    let status = host.json(&["status"]);
    let counters = status["counters"].as_array().expect("counters");
    let named = counters.iter().find(|counter| counter[0] == name);
    named.unwrap_or_else(|| panic!("no counter {name} in {counters:?}"))[1]
        .as_u64()
        .expect("a number")
}
