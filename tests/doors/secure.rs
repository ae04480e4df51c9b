//! TLS: the same MQTT, certificates of clients, reloads, mistakes.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;

use ermine::mqtt::packet::QoS;

use crate::certificates::{Authority, der, write};
use crate::harness::PATIENCE;
use crate::harness::client::Options;
use crate::harness::host::{Host, eventually, free_port};
use crate::{bridge, counted, node_with, speaks_mqtt};

#[test]
fn mqtt_is_the_same_in_tls() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let (_node, address) = node_with(&host, &format!("protocol = \"mqtts\"\n{files}"));
    speaks_mqtt(|| bridge::tls(address, authority.client(None)).expect("a handshake"));
}

#[test]
fn a_client_is_whom_its_certificate_names_and_without_one_it_does_not_come_in() {
    let (host, authority, stranger) = (Host::new(), Authority::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let ca = write(host.home(), "ca.pem", &authority.pem);
    let section =
        format!("protocol = \"mqtts\"\n{files}client_ca = {ca:?}\nuse_certificate_cn_as_username = true\n");
    let (_node, address) = node_with(&host, &section);

    let own = authority.issue("alice");
    let way = bridge::tls(address, authority.client(Some(&own))).expect("a handshake");
    let mut client = Options::v5("c").connect(way);
    client.subscribe("t", QoS::AtMostOnce);
    let clients = host.json(&["clients"]);
    assert_eq!(clients[0]["common_name"], "alice", "{clients}");
    assert_eq!(clients[0]["username"], "alice", "{clients}");
    assert_eq!(clients[0]["listener"], format!("tls:{address}"), "{clients}");

    let forged = stranger.issue("alice");
    for own in [None, Some(&forged)] {
        // TLS 1.3 refuses a client after the client's own handshake is over.
        let refused = match bridge::tls(address, authority.client(own)) {
            Err(_) => true,
            Ok(way) => Options::v5("other").try_connect(way).is_err(),
        };
        assert!(refused);
    }
    eventually("both are counted", || {
        (counted(&host, "tls_handshakes_failed") == 2).then_some(())
    });
    client.publish_and_receive("t");
}

#[test]
fn sighup_shows_a_new_certificate_without_dropping_a_client_and_keeps_it_when_the_next_is_broken() {
    let (host, authority) = (Host::new(), Authority::new());
    let first = authority.issue("first");
    let files = first.write(host.home());
    let (node, address) = node_with(&host, &format!("protocol = \"mqtts\"\n{files}"));
    let config = authority.client(None);
    let way = bridge::tls(address, Arc::clone(&config)).expect("a handshake");
    let mut client = Options::v5("c").connect(way);
    client.subscribe("t", QoS::AtMostOnce);
    let shown = || bridge::shown(address, Arc::clone(&config)).expect("a handshake");
    assert_eq!(shown(), der(&first.pem));

    let second = authority.issue("second");
    second.write(host.home());
    node.signal("HUP");
    node.await_log("the new certificate is read", |line| {
        line.contains("certificate read again")
    });
    assert_eq!(shown(), der(&second.pem));

    write(host.home(), "server.pem", "no certificate");
    node.signal("HUP");
    let said = node.await_log("the broken one is not", |line| line.contains("in use is kept"));
    assert!(
        said.contains("server.pem") && said.contains("holds no certificate"),
        "{said}"
    );
    assert_eq!(shown(), der(&second.pem));
    client.publish_and_receive("t");
}

#[test]
fn a_socket_that_does_not_finish_its_handshake_is_closed_at_the_deadline_of_the_connect() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let (_node, address) = node_with(&host, &format!("protocol = \"mqtts\"\n{files}"));
    let mut silent = TcpStream::connect(address).expect("connected");
    silent.set_read_timeout(Some(PATIENCE)).expect("set");
    assert_eq!(silent.read(&mut [0; 16]).expect("closed, not late"), 0);
    assert_eq!(counted(&host, "connects_late"), 1);
    // And one that does not speak TLS at all.
    assert!(Options::new("plain").try_connect(address).is_err());
    assert_eq!(counted(&host, "tls_handshakes_failed"), 1);
}

#[test]
fn a_listener_that_crashes_comes_back_and_closes_no_connection() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let (node, address) = node_with(&host, &format!("protocol = \"mqtts\"\n{files}"));
    let way = bridge::tls(address, authority.client(None)).expect("a handshake");
    let mut client = Options::v5("c").connect(way);
    client.subscribe("t", QoS::AtMostOnce);
    let mark = node.log.len();
    host.ok(&["crash", &format!("root/doors/tls:{address}")]);
    node.log.wait_after(mark, "it listens again", |line| {
        line.contains("listening for MQTT") && line.contains(&address.to_string())
    });
    client.publish_and_receive("t");
    let way = bridge::tls(address, authority.client(None)).expect("a handshake");
    Options::v5("d").connect(way).disconnect();
}

#[test]
fn what_is_wrong_with_certificates_is_said_in_one_sentence_before_any_port_opens() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let other = write(host.home(), "other.key", &authority.issue("other").key);
    let pem = host.home().join("server.pem");
    let missing = host.home().join("missing.pem");
    let with_other = format!("certificate = {pem:?}\nkey = {other:?}\n");
    let without = format!("certificate = {missing:?}\nkey = {other:?}\n");
    let cases = [
        (
            format!("protocol = \"mqtts\"\n{with_other}"),
            "does not belong to",
        ),
        (format!("protocol = \"wss\"\n{without}"), "missing.pem"),
        ("protocol = \"mqtts\"\n".to_owned(), "needs certificate"),
        (files.clone(), "need protocol"),
        (
            format!("protocol = \"tls\"\n{files}"),
            "mqtts is what that is called here",
        ),
        (
            format!("protocol = \"mqtts\"\n{files}client_certificate = \"required\"\n"),
            "client_ca",
        ),
        (
            format!("protocol = \"mqtts\"\n{files}use_certificate_cn_as_username = true\n"),
            "client_certificate",
        ),
    ];
    for (section, wanted) in cases {
        let (first, second) = (free_port(), free_port());
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:{first}\"\n\
             [[listener]]\nlisten = \"127.0.0.1:{second}\"\n{section}"
        );
        let config = write(host.home(), "ermine.toml", &text);
        let (said, status) = host.fails(&["start", "--config", config.to_str().expect("text")]);
        assert_eq!(status, 64, "{said}");
        assert!(said.contains(wanted), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
}
