//! Clients that break rules: each loses its own connection, and nobody else notices.

use std::io::Write;
use std::net::TcpStream;

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::Options;
use crate::harness::host::Host;

#[test]
fn garbage_closes_its_own_connection_and_no_other() {
    // [MQTT3-3.1.0-1] [MQTT3-3.1.4-1] [MQTT3-3.3.1-4] [MQTT-3.1.0-1] [MQTT-3.3.1-4] [MQTT-4.13.1-1]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut witness = Options::new("witness").connect(node.mqtt);
    witness.subscribe("w", QoS::AtLeastOnce);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\xff\xff\xff\xff\xff",
        b"\x00",
        b"\x10\x00",
    ] {
        let mut socket = TcpStream::connect(node.mqtt).expect("connected");
        socket.write_all(garbage).expect("written");
        let mut rest = Vec::new();
        // Closed or reset: both are an end.
        let _ = std::io::Read::read_to_end(&mut socket, &mut rest);
    }
    let mut rude = Options::v5("rude").connect(node.mqtt);
    rude.send_bytes(&[0x36, 0x03, 0, 1, b'a']);
    match rude.assert_closed() {
        Some(Packet::Disconnect(disconnect)) => assert_eq!(disconnect.reason, ReasonCode::MalformedPacket),
        other => panic!("instead of DISCONNECT 0x81: {other:?}"),
    }
    let mut old = Options::new("old").connect(node.mqtt);
    old.send_bytes(&[0x36, 0x03, 0, 1, b'a']);
    assert_eq!(old.assert_closed(), None, "3.1.1 is closed without a word");

    let mut publisher = Options::new("publisher").connect(node.mqtt);
    publisher.publish("w", "all is well", QoS::AtLeastOnce);
    assert_eq!(witness.text(), "all is well");
    host.assert_balanced(&node.name);
}

#[test]
fn an_empty_client_id_that_wants_a_session_is_refused_with_code_2() {
    // [MQTT3-3.1.3-7..9]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let refused = Options::new("")
        .persistent()
        .try_connect(node.mqtt)
        .expect("an answer");
    assert_eq!(refused.connack.return_code() as u8, 2);
    host.assert_balanced(&node.name);
}

#[test]
fn a_subscriber_that_does_not_read_does_not_stop_the_others() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut deaf = Options::new("deaf").connect(node.mqtt);
    deaf.subscribe("flood", QoS::AtMostOnce);
    let mut good = Options::new("good").connect(node.mqtt);
    good.subscribe("flood", QoS::AtMostOnce);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    let payload = vec![b'x'; 64 << 10];
    let reader = std::thread::spawn(move || {
        let mut bytes = 0;
        while bytes < 32 << 20 {
            bytes += good.message().payload.len();
        }
    });
    for _ in 0..512 {
        publisher.send_publish("flood", &payload, QoS::AtMostOnce, false);
    }
    reader.join().expect("the good subscriber got everything");
    host.assert_balanced(&node.name);
}
