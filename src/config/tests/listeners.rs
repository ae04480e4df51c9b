//! `[[listener]]`: what is spoken there, and how clients prove who they are.

use super::*;
use crate::broker::door::Protocol;
use crate::broker::tls::{ClientCertificate, TlsFiles};

fn plain(listen: &str) -> ListenerConfig {
    ListenerConfig::plain(listen.parse().unwrap(), Limits::default())
}

const LISTENERS: &str = r#"
[[listener]]
listen = "0.0.0.0:8883"
protocol = "mqtts"
certificate = "~/c.pem"
key = "/k.pem"
client_ca = "/ca.pem"
client_certificate = "optional"
use_certificate_cn_as_username = true
proxy_protocol = true
allow_anonymous = false
[[listener]]
listen = "unix:/run/e.sock"
protocol = "ws"
websocket_path = "/x"
unix_mode = 0o600
"#;

#[test]
fn every_key_of_a_listener_is_read() {
    let config = of_file(LISTENERS).unwrap();
    let files = TlsFiles {
        certificate: "/home/kim/c.pem".into(),
        key: "/k.pem".into(),
        client_ca: Some("/ca.pem".into()),
        client_certificate: ClientCertificate::Optional,
    };
    let secure = ListenerConfig {
        protocol: Protocol::Mqtts,
        tls: Some(files),
        certificate_cn_is_username: true,
        proxy_protocol: true,
        allow_anonymous: Some(false),
        ..plain("0.0.0.0:8883")
    };
    let local = ListenerConfig {
        protocol: Protocol::Ws,
        websocket_path: "/x".into(),
        unix_mode: 0o600,
        ..plain("unix:/run/e.sock")
    };
    assert_eq!(config.listeners, [secure, local]);
}

#[test]
fn a_listener_whose_keys_do_not_fit_together_is_refused_with_the_remedy() {
    let refused = |more: &str| super::refused(&format!("[[listener]]\nlisten = \"127.0.0.1:1\"\n{more}"));
    for (more, wanted) in [
        ("websocket_path = \"/x\"", "protocol = \"ws\""),
        ("protocol = \"ws\"\nwebsocket_path = \"x\"", "begins with /"),
        ("unix_mode = 0o600", "unix:"),
        ("protocol = \"websockets\"", "ws is what that is called here"),
        ("certificat = \"x\"", "did you mean 'certificate'?"),
    ] {
        let said = refused(more);
        assert!(said.starts_with("e.toml:") && said.contains(wanted), "{said}");
    }
    let said = Listen::from_str("unix:ermine.sock").unwrap_err();
    assert!(said.contains("absolute path"), "{said}");
}
