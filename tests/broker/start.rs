//! What the operator is told before any port opens, and how a node ends.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use crate::harness::host::{Host, free_port};

fn start_fails(host: &Host, more: &[&str]) -> String {
    let port = free_port().to_string();
    let listen = format!("127.0.0.1:{port}");
    let mut arguments = vec!["start", "--listen", &listen];
    arguments.extend(more);
    let (err, status) = host.fails(&arguments);
    assert_eq!(status, 64, "{err}");
    assert!(
        std::net::TcpStream::connect(&listen).is_err(),
        "no port was opened"
    );
    assert_eq!(err.trim().lines().count(), 1, "one sentence: {err}");
    err
}

#[test]
fn the_cookie_file_is_made_once_for_the_owner_alone() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let path = host.home().join(".ermine.cookie");
    let mode = path.metadata().expect("the cookie file").permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    let cookie = std::fs::read_to_string(&path).expect("readable");
    assert!(cookie.trim().len() >= 64, "256 bits as hex");
    assert!(!node.log.all().contains(cookie.trim()), "the cookie is in no log");
}

#[test]
fn a_cookie_file_that_others_can_read_is_refused_with_the_remedy() {
    let host = Host::new();
    let path = host.home().join(".ermine.cookie");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .expect("made");
    std::io::Write::write_all(&mut file, &[b'a'; 64]).expect("written");
    let err = start_fails(&host, &[]);
    assert!(err.contains("chmod") && err.contains(".ermine.cookie"), "{err}");
}

#[test]
fn a_malformed_name_a_config_typo_and_a_port_in_use_each_get_a_sentence() {
    let host = Host::new();
    let err = start_fails(&host, &["--name", "no-at-sign"]);
    assert!(err.contains("name@host"), "{err}");

    let config = host.home().join("ermine.toml");
    std::fs::write(&config, "[log]\nlevle = \"info\"\n").expect("written");
    let err = start_fails(&host, &["--config", config.to_str().expect("text")]);
    assert!(err.contains("levle") && err.contains("level"), "{err}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (err, status) = host.fails(&["start", "--listen", &address]);
    assert_eq!(status, 64, "{err}");
    assert!(err.contains(&address) && err.contains("in use"), "{err}");
}

#[test]
fn sigterm_ends_a_node_in_order_with_status_0() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = crate::harness::client::Options::v5("c").connect(node.mqtt);
    assert!(node.stop().success());
    match client.assert_closed() {
        Some(ermine::mqtt::packet::Packet::Disconnect(told)) => {
            assert_eq!(told.reason, ermine::mqtt::reason::ReasonCode::ServerShuttingDown);
        }
        other => panic!("instead of DISCONNECT 0x8B: {other:?}"),
    }
}
