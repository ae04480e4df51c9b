//! Enhanced authentication: SCRAM-SHA-256 in AUTH, spoken by a client written here from RFC 5802, and
//! re-authentication `[MQTT-4.12.1]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ermine::mqtt::packet::{Auth, ConnAck, Packet};
use ermine::mqtt::properties::AuthProperties;
use ermine::mqtt::reason::ReasonCode;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::harness::client::{Client, Options};
use crate::place::{PASSWORD, Place, refusal};

const METHOD: &str = "SCRAM-SHA-256";

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// The client's side.
struct Scram {
    bare: String,
    password: String,
    signature: String,
}

impl Scram {
    fn new(user: &str, password: &str) -> Self {
        Self {
            bare: format!("n={user},r=fyko+d2lbbFgONRv9qkxdawL"),
            password: password.into(),
            signature: String::new(),
        }
    }

    fn first(&self) -> Bytes {
        format!("n,,{}", self.bare).into()
    }

    fn last(&mut self, challenge: &Bytes) -> Bytes {
        let challenge = std::str::from_utf8(challenge).expect("text");
        let part = |name: &str| {
            let found = challenge.split(',').find_map(|part| part.strip_prefix(name));
            found.unwrap_or_else(|| panic!("{name} in {challenge}"))
        };
        let salt = BASE64.decode(part("s=")).expect("base64");
        let rounds: u32 = part("i=").parse().expect("a number");
        assert!(rounds >= 4096, "RFC 7677");
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(self.password.as_bytes(), &salt, rounds, &mut salted);
        let without_proof = format!("c=biws,r={}", part("r="));
        let message = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = hmac(&salted, "Client Key");
        let signature = hmac(&Sha256::digest(client_key), &message);
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        self.signature = format!(
            "v={}",
            BASE64.encode(hmac(&hmac(&salted, "Server Key"), &message))
        );
        format!("{without_proof},p={}", BASE64.encode(proof)).into()
    }
}

fn auth(reason: ReasonCode, method: &str, data: Bytes) -> Packet {
    Packet::Auth(Auth {
        reason,
        properties: AuthProperties {
            authentication_method: Some(method.into()),
            authentication_data: Some(data),
            ..AuthProperties::default()
        },
    })
}

fn options(id: &str, scram: &Scram) -> Options {
    let mut options = Options::v5(id);
    options.connect.properties.authentication_method = Some(METHOD.into());
    options.connect.properties.authentication_data = Some(scram.first());
    options
}

/// The data of the AUTH that comes next.
#[track_caller]
fn challenged(client: &mut Client, reason: ReasonCode) -> Bytes {
    match client.next() {
        Packet::Auth(auth) => {
            assert_eq!(auth.reason, reason);
            assert_eq!(auth.properties.authentication_method.as_deref(), Some(METHOD));
            auth.properties.authentication_data.expect("data")
        }
        other => panic!("instead of AUTH: {other:?}"),
    }
}

#[track_caller]
fn connack(client: &mut Client) -> ConnAck {
    match client.next() {
        Packet::ConnAck(connack) => *connack,
        other => panic!("instead of CONNACK: {other:?}"),
    }
}

#[track_caller]
fn come_in(id: &str, scram: &mut Scram, place: std::net::SocketAddr) -> Client {
    let mut client = options(id, scram).open(place).expect("open");
    let last = scram.last(&challenged(&mut client, ReasonCode::ContinueAuthentication));
    client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, last));
    let connack = connack(&mut client);
    assert_eq!(connack.reason, ReasonCode::Success);
    let properties = connack.properties;
    assert_eq!(properties.authentication_method.as_deref(), Some(METHOD));
    let signature = properties.authentication_data.expect("the server's proof");
    assert_eq!(
        signature,
        scram.signature.as_bytes(),
        "the server knows the verifier"
    );
    client
}

/// `[MQTT-4.12.0-2]`, `[MQTT-4.12.0-3]`: AUTH 0x18 to and fro; `[MQTT-4.12.0-5]`: always the method of the
/// CONNECT; `[MQTT-4.12.1-1]`: also when it is repeated.
#[test]
fn scram_lets_in_who_has_the_password_and_may_be_repeated() {
    let place = Place::new();
    let node = place.guarded();
    let mut scram = Scram::new("alice", PASSWORD);
    let mut client = come_in("c", &mut scram, node.mqtt);
    client.assert_quiet();
    for _ in 0..2 {
        client.send(&auth(ReasonCode::ReAuthenticate, METHOD, scram.first()));
        let challenge = challenged(&mut client, ReasonCode::ContinueAuthentication);
        client.assert_quiet();
        let last = scram.last(&challenge);
        client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, last));
        let signature = challenged(&mut client, ReasonCode::Success);
        assert_eq!(signature, scram.signature.as_bytes());
    }
    client.assert_quiet();
}

/// `[MQTT-4.12.0-4]`: CONNACK with a reason, then the connection is closed.
#[test]
fn a_wrong_proof_and_an_unknown_user_are_refused_alike() {
    let place = Place::new();
    let node = place.guarded();
    for mut scram in [Scram::new("alice", "wrong"), Scram::new("nobody", PASSWORD)] {
        let mut client = options("c", &scram).open(node.mqtt).expect("open");
        let last = scram.last(&challenged(&mut client, ReasonCode::ContinueAuthentication));
        client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, last));
        assert_eq!(connack(&mut client).reason, ReasonCode::BadUserNameOrPassword);
        client.assert_closed();
    }
}

/// `[MQTT-4.12.0-1]`: CONNACK 0x8C; `[MQTT-4.12.0-6]`: a client without a method is sent none.
#[test]
fn another_method_and_messages_out_of_turn_are_refused() {
    let place = Place::new();
    let node = place.guarded();
    let mut unknown = Options::v5("c");
    unknown.connect.properties.authentication_method = Some("KERBEROS".into());
    assert_eq!(refusal(unknown, node.mqtt), ReasonCode::BadAuthenticationMethod);
    let plain = Options::v5("p").credentials("alice", PASSWORD).connect(node.mqtt);
    assert_eq!(plain.connack.properties.authentication_method, None);
    let mut empty = Options::v5("c");
    empty.connect.properties.authentication_method = Some(METHOD.into());
    assert_eq!(refusal(empty, node.mqtt), ReasonCode::ProtocolError);
    let scram = Scram::new("alice", PASSWORD);
    let wrong = [
        auth(ReasonCode::ContinueAuthentication, "OTHER", "x".into()),
        auth(ReasonCode::ReAuthenticate, METHOD, scram.first()),
        auth(ReasonCode::ContinueAuthentication, METHOD, "nonsense".into()),
        Packet::PingReq,
    ];
    for packet in wrong {
        let mut client = options("c", &scram).open(node.mqtt).expect("open");
        challenged(&mut client, ReasonCode::ContinueAuthentication);
        client.send(&packet);
        assert_eq!(
            connack(&mut client).reason,
            ReasonCode::ProtocolError,
            "{packet:?}"
        );
        client.assert_closed();
    }
}

/// The reason of the DISCONNECT that ends a connection.
#[track_caller]
fn disconnected(mut client: Client) -> ReasonCode {
    match client.assert_closed() {
        Some(Packet::Disconnect(told)) => told.reason,
        other => panic!("instead of DISCONNECT: {other:?}"),
    }
}

/// `[MQTT-4.12.1-2]`: DISCONNECT with a reason, then the connection is closed; `[MQTT-4.12.0-7]`.
#[test]
fn re_authentication_that_fails_ends_the_connection() {
    let place = Place::new();
    let node = place.guarded();
    let mut right = Scram::new("alice", PASSWORD);

    let mut client = come_in("c", &mut right, node.mqtt);
    let mut wrong = Scram::new("alice", "wrong");
    client.send(&auth(ReasonCode::ReAuthenticate, METHOD, wrong.first()));
    let last = wrong.last(&challenged(&mut client, ReasonCode::ContinueAuthentication));
    client.send(&auth(ReasonCode::ContinueAuthentication, METHOD, last));
    assert_eq!(disconnected(client), ReasonCode::NotAuthorized);

    // As somebody else, although bob's password is right.
    let mut client = come_in("c", &mut right, node.mqtt);
    client.send(&auth(
        ReasonCode::ReAuthenticate,
        METHOD,
        Scram::new("bob", PASSWORD).first(),
    ));
    assert_eq!(disconnected(client), ReasonCode::NotAuthorized);

    let out_of_turn = [
        auth(ReasonCode::ContinueAuthentication, METHOD, right.first()),
        auth(ReasonCode::ReAuthenticate, "OTHER", right.first()),
        auth(ReasonCode::Success, METHOD, right.first()),
    ];
    for packet in out_of_turn {
        let mut client = come_in("c", &mut right, node.mqtt);
        client.send(&packet);
        assert_eq!(disconnected(client), ReasonCode::ProtocolError, "{packet:?}");
    }
    // Who came in without a method has none to repeat.
    let mut client = Options::v5("p").credentials("alice", PASSWORD).connect(node.mqtt);
    client.send(&auth(ReasonCode::ReAuthenticate, METHOD, right.first()));
    assert_eq!(disconnected(client), ReasonCode::ProtocolError);
}
