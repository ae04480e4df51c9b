//! WebSocket: packets cut and joined by frames, and everything that is no MQTT over WebSocket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::certificates::Authority;
use crate::harness::PATIENCE;
use crate::harness::host::{Host, eventually};
use crate::{bridge, counted, node_with, speaks_mqtt};

const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c";
const CONNACK: &[u8] = b"\x20\x02\0\0";
const PINGREQ: &[u8] = b"\xC0\0";
const PINGRESP: &[u8] = b"\xD0\0";

#[test]
fn mqtt_is_the_same_in_frames_that_split_and_join_packets() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"");
    // [MQTT-6.0.0-2]
    for frame_len in [7, 1000, 1 << 20] {
        speaks_mqtt(|| bridge::web(address, None, frame_len).expect("an upgrade"));
    }
}

#[test]
fn mqtt_is_the_same_in_frames_in_tls() {
    let (host, authority) = (Host::new(), Authority::new());
    let files = authority.issue("a server").write(host.home());
    let (_node, address) = node_with(&host, &format!("protocol = \"wss\"\n{files}"));
    speaks_mqtt(|| bridge::web(address, Some(authority.client(None)), 4096).expect("an upgrade"));
}

type Web = WebSocketStream<tokio::net::TcpStream>;

async fn open(address: SocketAddr) -> Web {
    let socket = tokio::net::TcpStream::connect(address).await.expect("connected");
    bridge::upgrade(socket, "/mqtt", Some("mqtt"))
        .await
        .expect("an upgrade")
}

async fn next(web: &mut Web) -> Option<Message> {
    let next = tokio::time::timeout(PATIENCE, web.next()).await;
    next.expect("something in time").and_then(Result::ok)
}

async fn send(web: &mut Web, message: Message) {
    web.send(message).await.expect("sent");
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn a_packet_cut_at_each_byte_and_packets_joined_in_one_frame_are_the_same() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"");
    block_on(async {
        let mut web = open(address).await;
        for byte in CONNECT {
            send(&mut web, Message::binary(vec![*byte])).await;
        }
        assert_eq!(next(&mut web).await, Some(Message::binary(CONNACK.to_vec())));
        // Two and a half packets, then the rest.
        send(
            &mut web,
            Message::binary([PINGREQ, PINGREQ, &PINGREQ[..1]].concat()),
        )
        .await;
        send(&mut web, Message::binary(PINGREQ[1..].to_vec())).await;
        let mut answered = Vec::new();
        while answered.len() < 3 * PINGRESP.len() {
            let Some(Message::Binary(payload)) = next(&mut web).await else {
                panic!("no binary frame");
            };
            answered.extend_from_slice(&payload);
        }
        assert_eq!(answered, PINGRESP.repeat(3));
        // The whole CONNECT and more in one frame, after the upgrade of another socket.
        let mut other = open(address).await;
        send(&mut other, Message::binary([CONNECT, PINGREQ].concat())).await;
        let Some(Message::Binary(payload)) = next(&mut other).await else {
            panic!("no binary frame");
        };
        assert!(payload.starts_with(CONNACK));
    });
}

#[test]
fn a_websocket_ping_is_answered_before_and_after_the_connect() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"");
    block_on(async {
        let mut web = open(address).await;
        send(&mut web, Message::Ping("one".into())).await;
        assert_eq!(next(&mut web).await, Some(Message::Pong("one".into())));
        send(&mut web, Message::binary(CONNECT)).await;
        assert_eq!(next(&mut web).await, Some(Message::binary(CONNACK.to_vec())));
        send(&mut web, Message::Ping("two".into())).await;
        assert_eq!(next(&mut web).await, Some(Message::Pong("two".into())));
    });
}

#[test]
fn a_text_frame_closes_the_connection() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"");
    block_on(async {
        // [MQTT-6.0.0-1], before and after the CONNECT.
        for connected in [false, true] {
            let mut web = open(address).await;
            if connected {
                send(&mut web, Message::binary(CONNECT)).await;
                next(&mut web).await.expect("a CONNACK");
            }
            send(&mut web, Message::text("hello")).await;
            let Some(Message::Close(Some(frame))) = next(&mut web).await else {
                panic!("no close frame");
            };
            assert_eq!(u16::from(frame.code), 1003);
            assert_eq!(next(&mut web).await, None);
        }
    });
}

/// Says something to the port; what it answers before it closes.
fn answer_to(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    // A request that was not read to its end is answered with a reset behind the answer.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

#[test]
fn whoever_asks_wrongly_is_told_what_is_missing() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"\nwebsocket_path = \"/broker\"");
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    let long = format!("{key}{mqtt}Cookie: {}\r\n", "x".repeat(9000));
    let wrong = [
        (request("/mqtt", &format!("{key}{mqtt}")), "404", "/broker"),
        // [MQTT-6.0.0-3]
        (request("/broker", key), "400", "Sec-WebSocket-Protocol"),
        (
            request("/broker", &format!("{key}Sec-WebSocket-Protocol: chat\r\n")),
            "400",
            "Sec-WebSocket-Protocol",
        ),
        (request("/broker", mqtt), "400", ""),
        (
            request("/broker", &format!("Sec-WebSocket-Key: short\r\n{mqtt}")),
            "400",
            "16 bytes",
        ),
        (request("/broker", &long), "431", "longer"),
        (
            "GET /broker HTTP/1.1\r\nHost: x\r\n\r\n".into(),
            "426",
            "no web page",
        ),
        ("POST /broker HTTP/1.1\r\nHost: x\r\n\r\n".into(), "405", "GET"),
        ("\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0\r\n".into(), "400", ""),
    ];
    let count = wrong.len() as u64;
    for (request, status, said) in wrong {
        let answer = answer_to(address, &request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request:?}: {answer}"
        );
        assert!(answer.contains(said), "{answer}");
    }
    eventually("all are counted", || {
        (counted(&host, "upgrades_refused") == count).then_some(())
    });
    // [MQTT-6.0.0-4]
    let right = request(
        "/broker?x=1",
        &format!("{key}Sec-WebSocket-Protocol: chat, mqttv3.1, mqtt\r\n"),
    );
    let mut socket = TcpStream::connect(address).expect("connected");
    socket.write_all(right.as_bytes()).expect("written");
    let mut answer = [0; 1024];
    let len = socket.read(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..len]).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-protocol: mqtt\r\n"), "{answer}");
}

#[test]
fn half_an_upgrade_ends_at_the_deadline_of_the_connect() {
    let host = Host::new();
    let (_node, address) = node_with(&host, "protocol = \"ws\"");
    assert_eq!(answer_to(address, "GET /mqtt HTTP/1.1\r\nHost:"), "");
    assert_eq!(counted(&host, "connects_late"), 1);
}
