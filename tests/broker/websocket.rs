//! MQTT in WebSocket frames, frame by frame.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::PATIENCE;
use crate::harness::host::{Host, eventually, free_port};

/// A node with one WebSocket listener, ended when dropped.
struct Node(std::process::Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(host: &Host, port: u16) -> Node {
    let config = host.home().join("ermine.toml");
    let text = format!("[[listener]]\nlisten = \"127.0.0.1:{port}\"\nprotocol = \"ws\"\n");
    std::fs::write(&config, text).expect("written");
    let mut command = host.ermine();
    command
        .args(["start", "--name", "ermine@127.0.0.1", "--config"])
        .arg(config);
    command.arg("--data-dir").arg(host.data_dir("ws"));
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    Node(command.spawn().expect("the node starts"))
}

/// A WebSocket and what it answered to the upgrade.
fn open(port: u16) -> (TcpStream, String) {
    let mut socket = eventually("the listener", || TcpStream::connect(("127.0.0.1", port)).ok());
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    (
        socket,
        String::from_utf8(answer).expect("text").to_ascii_lowercase(),
    )
}

/// A frame of a client with this first byte; its mask is 0, so its payload stands as it is.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![
        first,
        0x80 | u8::try_from(payload.len()).expect("short"),
        0,
        0,
        0,
        0,
    ];
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of the next frame, which must be binary; none when the server closes.
fn payload(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).ok()?;
    assert!(head[1] < 126, "a short frame without a mask");
    let mut payload = vec![0; head[1].into()];
    socket.read_exact(&mut payload).ok()?;
    if head[0] == 0x88 {
        return None;
    }
    assert_eq!(head[0], 0x82, "a binary frame");
    Some(payload)
}

#[test]
fn packets_come_in_binary_frames_that_may_split_and_join_them() {
    // [MQTT3-6.0.0-1..2] [MQTT3-6.0.0-4] [MQTT-6.0.0-1..2] [MQTT-6.0.0-4]
    let (host, port) = (Host::new(), free_port());
    let _node = start(&host, port);
    let (mut socket, answer) = open(port);
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: mqtt\r\n"), "{answer}");
    let connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01a";
    for piece in [&connect[..1], &connect[1..9]] {
        socket.write_all(&frame(0x82, piece)).expect("written");
    }
    let rest = [&connect[9..], b"\xC0\0\xC0\0"].concat();
    socket.write_all(&frame(0x82, &rest)).expect("written");
    let mut answer = Vec::new();
    while answer.len() < 8 {
        answer.extend(payload(&mut socket).expect("an open connection"));
    }
    assert_eq!(answer, [0x20, 2, 0, 0, 0xD0, 0, 0xD0, 0]);
    // A text frame, though what is in it would be a packet.
    socket.write_all(&frame(0x81, b"\xC0\0")).expect("written");
    assert_eq!(payload(&mut socket), None);
}
