//! Clauses that only 5.0 has: enhanced authentication, shared subscriptions, limits of the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use ermine::mqtt::codec::{self, Decoder};
use ermine::mqtt::packet::{Ack, Auth, Packet, ProtocolVersion, Publish, QoS};
use ermine::mqtt::properties::{AuthProperties, PublishProperties};
use ermine::mqtt::reason::ReasonCode;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::harness::PATIENCE;
use crate::harness::client::Options;
use crate::harness::host::{Host, Node};

const METHOD: &str = "SCRAM-SHA-256";
const PASSWORD: &str = "correct horse";

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

/// A connection that sends whatever it is told, also before CONNACK.
struct Raw {
    socket: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let decoder = Decoder::client(ProtocolVersion::V5, 1 << 20);
        Self {
            socket,
            decoder,
            buffer: BytesMut::new(),
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut out = Vec::new();
        codec::encode(packet, ProtocolVersion::V5, &mut out).expect("an encodable packet");
        self.socket.write_all(&out).expect("written");
    }

    /// The next packet; none when the server has closed.
    fn next(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.buffer).expect("a good packet") {
                return Some(packet);
            }
            let mut chunk = [0; 4096];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(len) => self.buffer.extend_from_slice(&chunk[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A node whose user `ann` has a password.
fn guarded(host: &Host) -> Node {
    let (passwords, config) = (host.home().join("passwords"), host.home().join("ermine.toml"));
    let mut passwd = host.ermine();
    passwd
        .arg("passwd")
        .arg("-b")
        .arg(&passwords)
        .arg("ann")
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut child = passwd.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(PASSWORD.as_bytes()).expect("written");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    let text = format!(
        "[auth]\npassword_file = {:?}\nallow_anonymous = true\n",
        passwords.display().to_string()
    );
    std::fs::write(&config, text).expect("written");
    host.start_with("ermine@127.0.0.1", &["--config", config.to_str().expect("text")])
}

fn auth(reason: ReasonCode, method: &str, data: impl Into<Bytes>) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.into()),
            authentication_data: Some(data.into()),
            ..AuthProperties::default()
        },
    })
}

fn connect_with(data: &str) -> Packet {
    let mut connect = Options::v5("ann").connect;
    connect.properties.authentication_method = Some(METHOD.into());
    connect.properties.authentication_data = Some(Bytes::copy_from_slice(data.as_bytes()));
    Packet::Connect(Box::new(connect))
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

const FIRST: &str = "n,,n=ann,r=fyko+d2lbbFgONRv9qkxdawL";

/// The client's proof for this challenge (RFC 5802, section 3).
fn proof(challenge: &[u8], password: &str) -> String {
    let challenge = std::str::from_utf8(challenge).expect("text");
    let part = |name: &str| {
        challenge
            .split(',')
            .find_map(|part| part.strip_prefix(name))
            .expect("there")
    };
    let salt = STANDARD.decode(part("s=")).expect("base64");
    let mut salted = [0; 32];
    let rounds = part("i=").parse().expect("a number");
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, rounds, &mut salted);
    let key = hmac(&salted, b"Client Key");
    let last = format!("c=biws,r={}", part("r="));
    let signed = format!("{},{challenge},{last}", &FIRST[3..]);
    let signature = hmac(&Sha256::digest(key), signed.as_bytes());
    let proof: Vec<_> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    format!("{last},p={}", STANDARD.encode(proof))
}

/// The challenge in an AUTH 0x18 of our method.
fn challenge(packet: Option<Packet>) -> Bytes {
    match packet {
        Some(Packet::Auth(auth)) => {
            assert_eq!(auth.reason, ReasonCode::ContinueAuthentication);
            assert_eq!(auth.properties.authentication_method.as_deref(), Some(METHOD));
            auth.properties.authentication_data.expect("a challenge")
        }
        other => panic!("instead of AUTH: {other:?}"),
    }
}

fn authenticated(node: &Node) -> Raw {
    let mut client = Raw::connect(node.mqtt);
    client.send(&connect_with(FIRST));
    let challenge = challenge(client.next());
    client.send(&auth(
        ReasonCode::ContinueAuthentication,
        METHOD,
        proof(&challenge, PASSWORD),
    ));
    match client.next() {
        Some(Packet::ConnAck(connack)) => {
            assert_eq!(connack.reason, ReasonCode::Success);
            assert_eq!(connack.properties.authentication_method.as_deref(), Some(METHOD));
        }
        other => panic!("instead of CONNACK: {other:?}"),
    }
    client
}

#[test]
fn a_client_proves_who_it_is_by_scram_and_does_so_again() {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-4.12.1-1..2]
    let host = Host::new();
    let node = guarded(&host);
    let mut client = authenticated(&node);
    client.send(&auth(ReasonCode::ReAuthenticate, METHOD, FIRST));
    let answer = proof(&challenge(client.next()), PASSWORD);
    client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, answer));
    match client.next() {
        Some(Packet::Auth(auth)) => {
            assert_eq!(auth.reason, ReasonCode::Success);
            assert_eq!(auth.properties.authentication_method.as_deref(), Some(METHOD));
        }
        other => panic!("instead of AUTH: {other:?}"),
    }
    client.send(&Packet::PingReq);
    assert_eq!(client.next(), Some(Packet::PingResp));
    client.send(&auth(ReasonCode::ReAuthenticate, "ANOTHER", FIRST));
    assert!(matches!(client.next(), Some(Packet::Disconnect(told)) if told.reason.is_error()));
    assert_eq!(client.next(), None);

    let mut client = authenticated(&node);
    client.send(&auth(ReasonCode::ReAuthenticate, METHOD, FIRST));
    let answer = proof(&challenge(client.next()), "wrong");
    client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, answer));
    assert!(matches!(client.next(), Some(Packet::Disconnect(told)) if told.reason.is_error()));
    assert_eq!(client.next(), None);
}

#[test]
fn whoever_cannot_prove_it_or_says_something_else_before_connack_is_refused() {
    // [MQTT-3.1.2-30] [MQTT-3.2.2-6..7] [MQTT-4.12.0-3..4] [MQTT-4.12.0-6]
    let host = Host::new();
    let node = guarded(&host);
    type Answer = fn(&[u8]) -> Packet;
    let answers: [Answer; 4] = [
        |challenge| {
            auth(
                ReasonCode::ContinueAuthentication,
                METHOD,
                proof(challenge, "wrong"),
            )
        },
        |challenge| auth(ReasonCode::ReAuthenticate, METHOD, proof(challenge, PASSWORD)),
        |challenge| {
            auth(
                ReasonCode::ContinueAuthentication,
                "ANOTHER",
                proof(challenge, PASSWORD),
            )
        },
        |_| Packet::PingReq,
    ];
    for answer in answers {
        let mut client = Raw::connect(node.mqtt);
        client.send(&connect_with(FIRST));
        let challenge = challenge(client.next());
        client.send(&answer(&challenge));
        match client.next() {
            Some(Packet::ConnAck(connack)) => {
                assert!(
                    connack.reason.is_error() && !connack.session_present,
                    "{connack:?}"
                );
                assert_eq!(client.next(), None);
            }
            other => assert_eq!(other, None),
        }
    }
    let plain = Options::v5("plain").connect(node.mqtt);
    assert_eq!(plain.connack.properties.authentication_method, None);
}

#[test]
fn what_a_client_does_not_ask_for_or_may_not_send_is_told() {
    // [MQTT-3.1.2-28] [MQTT-3.2.2-15] [MQTT-4.13.1-1] [MQTT-3.14.4-1..2]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    for asked in [None, Some(false)] {
        let mut options = Options::v5("c");
        options.connect.properties.request_response_information = asked;
        assert_eq!(
            options.connect(node.mqtt).connack.properties.response_information,
            None
        );
    }
    let mut client = Options::v5("c").connect(node.mqtt);
    let max = client.connack.properties.maximum_packet_size.expect("told");
    // The header alone: nobody has to send so much to be refused.
    let mut header = vec![0x30];
    let mut rest = max;
    while rest > 0x7F {
        header.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    header.push(rest as u8);
    client.send_bytes(&header);
    match client.assert_closed() {
        Some(Packet::Disconnect(told)) => assert_eq!(told.reason, ReasonCode::PacketTooLarge),
        other => panic!("instead of DISCONNECT 0x95: {other:?}"),
    }
}

#[test]
fn an_exchange_goes_on_though_its_message_has_expired() {
    // [MQTT-4.3.3-13]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut client = Options::v5("c").connect(node.mqtt);
    client.send(&Packet::Publish(Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: true,
        topic: "t".into(),
        packet_id: Some(id(3)),
        properties: PublishProperties {
            message_expiry_interval_s: Some(0),
            ..PublishProperties::default()
        },
        payload: Bytes::from_static(b"x"),
    }));
    assert!(matches!(client.next(), Packet::PubRec(ack) if ack.packet_id == id(3) && !ack.reason.is_error()));
    client.send(&Packet::PubRel(Ack::success(id(3))));
    assert_eq!(client.next(), Packet::PubComp(Ack::success(id(3))));
}

#[test]
fn a_member_of_a_group_has_its_own_qos_and_what_it_refuses_goes_to_nobody_else() {
    // [MQTT-4.8.2-3] [MQTT-4.8.2-6] [MQTT-4.4.0-2]
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut publisher = Options::v5("publisher").connect(node.mqtt);
    let mut low = Options::v5("low").connect(node.mqtt);
    low.subscribe("$share/low/t", QoS::AtMostOnce);
    publisher.publish("t", "x", QoS::ExactlyOnce);
    assert_eq!(low.message().qos, QoS::AtMostOnce);
    drop(low);

    let mut one = Options::v5("one").persistent().connect(node.mqtt);
    one.subscribe("$share/g/u", QoS::AtLeastOnce);
    publisher.publish("u", "x", QoS::AtLeastOnce);
    let refused = match one.next() {
        Packet::Publish(publish) => publish.packet_id.expect("QoS 1"),
        other => panic!("instead of PUBLISH: {other:?}"),
    };
    let mut two = Options::v5("two").connect(node.mqtt);
    two.subscribe("$share/g/u", QoS::AtLeastOnce);
    one.send(&Packet::PubAck(Ack::with_reason(
        refused,
        ReasonCode::NotAuthorized,
    )));
    one.assert_quiet();
    drop(one);
    let mut one = Options::v5("one").persistent().connect(node.mqtt);
    one.assert_quiet();
    two.assert_quiet();
}
