//! Tokens in the place of passwords.

use ermine::mqtt::packet::QoS;
use ermine::mqtt::reason::ReasonCode;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::client::Options;
use crate::place::{PASSWORD, Place, refusal};

const SECRET: &str = "a secret of thirty-two bytes or more";

const CONFIG: &str = "
[auth]
password_file = \"{home}/passwd\"
[auth.jwt]
secret_file = \"{home}/secret\"
";

fn token(seconds: i64, mut claims: Value) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() as i64;
    claims["exp"] = json!(now + seconds);
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .expect("a token")
}

#[test]
fn a_token_is_a_password_where_the_file_knows_no_better() {
    let place = Place::new();
    place.write("secret", &format!("{SECRET}\n"));
    let node = place.start(CONFIG);
    let with = |token: &str| Options::v5("c1").credentials("device", token);
    let good = json!({"username": "device", "clientid": "c1", "acl": {"all": ["own/%c"]}});
    let mut client = with(&token(60, good)).connect(node.mqtt);
    assert_eq!(
        client.subscribe("own/c1", QoS::AtLeastOnce),
        ReasonCode::GrantedQoS1
    );
    assert_eq!(
        client.subscribe("other", QoS::AtLeastOnce),
        ReasonCode::NotAuthorized
    );
    client.publish_and_receive("own/c1");
    let wrong = ReasonCode::BadUserNameOrPassword;
    assert_eq!(refusal(with(&token(-60, json!({}))), node.mqtt), wrong);
    assert_eq!(
        refusal(with(&token(60, json!({"clientid": "c2"}))), node.mqtt),
        wrong
    );
    assert_eq!(
        refusal(with(&token(60, json!({"username": "alice"}))), node.mqtt),
        wrong
    );
    assert_eq!(refusal(with("no token"), node.mqtt), wrong);
    Options::v5("c2")
        .credentials("alice", PASSWORD)
        .connect(node.mqtt);
}

#[test]
fn a_client_is_disconnected_when_its_token_is_over() {
    let place = Place::new();
    place.write("secret", SECRET);
    let node = place.start(CONFIG);
    let brief = token(1, json!({"username": "device"}));
    let mut client = Options::v5("c").credentials("device", &brief).connect(node.mqtt);
    match client.assert_closed() {
        Some(ermine::mqtt::packet::Packet::Disconnect(told)) => {
            assert_eq!(told.reason, ReasonCode::NotAuthorized);
        }
        other => panic!("instead of DISCONNECT: {other:?}"),
    }
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
    let place = Place::new();
    place.write("secret", SECRET);
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(place.path("secret"), everybody).expect("changed");
    place.write("ermine.toml", &place.filled(CONFIG));
    let file = place.path("ermine.toml");
    let (said, status) = place
        .host
        .fails(&["start", "--config", file.to_str().expect("text")]);
    assert!(status == 64 && said.contains("chmod 600"), "{said}");
}
