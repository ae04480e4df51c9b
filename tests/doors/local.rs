//! A socket file instead of a port, and how many a listener takes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::{bridge, counted, node_with, speaks_mqtt, start};

#[test]
fn mqtt_is_the_same_on_a_socket_file_and_a_stale_one_is_replaced() {
    let host = Host::new();
    let path = host.home().join("ermine.sock");
    // As after a crash: the file is there, and nobody listens.
    drop(UnixListener::bind(&path).expect("bound"));
    let listener = format!("listen = \"unix:{}\"\nunix_mode = 0o600", path.display());
    let node = start(&host, &listener);
    assert_eq!(
        path.metadata().expect("the file").permissions().mode() & 0o777,
        0o600
    );
    speaks_mqtt(|| bridge::unix(path.clone()).expect("connected"));
    let listeners = host.json(&["status"])["listeners"].clone();
    assert_eq!(listeners[0], format!("unix:{}", path.display()));

    let config = host.home().join("ermine.toml");
    let (said, status) = host.fails(&[
        "start",
        "--name",
        "n2@127.0.0.1",
        "--config",
        config.to_str().expect("text"),
    ]);
    assert_eq!(status, 64, "{said}");
    assert!(said.contains("another process serves it"), "{said}");

    assert!(node.stop().success());
    assert!(!path.exists(), "the file is removed with its door");
}

#[test]
fn a_listener_takes_as_many_as_it_was_given() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "connections_max = 2");
    let first = Options::new("first").connect(address);
    let _second = Options::new("second").connect(address);
    let mut third = std::net::TcpStream::connect(address).expect("the kernel takes it");
    assert_eq!(third.read(&mut [0; 8]).expect("closed"), 0);
    assert_eq!(counted(&host, "refused_listener_full"), 1);
    first.disconnect();
    eventually("there is room again", || {
        Options::new("fourth").try_connect(address).ok()
    });
}
