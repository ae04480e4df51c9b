//! An HTTP server that decides.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

use ermine::mqtt::packet::QoS;
use ermine::mqtt::reason::ReasonCode;
use serde_json::Value;

use crate::harness::client::Options;
use crate::place::{PASSWORD, Place, refusal};

/// A server that answers each question with what `answer` says of it; none keeps it waiting.
fn serve(answer: impl Fn(&Value) -> Option<String> + Send + 'static) -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (asked, questions) = mpsc::channel();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let Some(question) = read(&mut stream) else {
                continue;
            };
            match answer(&question) {
                Some(text) => stream.write_all(text.as_bytes()).expect("it reads"),
                None => held.push(stream),
            }
            let _ = asked.send(question);
        }
    });
    (port, questions)
}

fn read(stream: &mut TcpStream) -> Option<Value> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = stream.read(&mut chunk).ok().filter(|len| *len > 0)?;
        text.extend_from_slice(&chunk[..len]);
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n")
            && let Ok(question) = serde_json::from_str(body)
        {
            assert!(head.starts_with("POST /mqtt/auth?x=1 HTTP/1.1"), "{head}");
            assert!(
                head.to_lowercase().contains("content-type: application/json"),
                "{head}"
            );
            return Some(question);
        }
    }
}

fn json(body: &str) -> Option<String> {
    let len = body.len();
    Some(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    ))
}

fn config(port: u16, more: &str) -> String {
    format!(
        "[auth]\npassword_file = \"{{home}}/passwd\"\nchain = [\"http\", \"password_file\"]\n\
         [auth.http]\nurl = \"http://127.0.0.1:{port}/mqtt/auth?x=1\"\n{more}\n\
         [acl]\nfile = \"{{home}}/acl\"\n"
    )
}

#[test]
fn the_server_allows_denies_and_leaves_to_the_next() {
    let place = Place::new();
    place.write("acl", "user dave\ntopic d\n");
    let (port, questions) = serve(|question| {
        json(match question["username"].as_str() {
            Some("dave") => r#"{"result": "allow"}"#,
            Some("root") => r#"{"result": "allow", "is_superuser": true}"#,
            Some("mallory") => r#"{"result": "deny"}"#,
            Some("broken") => r#"{"result": "perhaps"}"#,
            _ => r#"{"result": "ignore"}"#,
        })
    });
    let node = place.start(&config(port, ""));
    let with = |user: &str| Options::v5("c").credentials(user, PASSWORD);
    let mut dave = with("dave").connect(node.mqtt);
    let question = questions.recv().expect("it was asked");
    assert_eq!(
        (&question["clientid"], &question["password"]),
        (&"c".into(), &PASSWORD.into())
    );
    assert_eq!(question["peerhost"], "127.0.0.1");
    assert_eq!(
        dave.subscribe("other", QoS::AtMostOnce),
        ReasonCode::NotAuthorized
    );
    assert_eq!(dave.subscribe("d", QoS::AtMostOnce), ReasonCode::Success);
    let mut root = with("root").connect(node.mqtt);
    assert_eq!(root.subscribe("other", QoS::AtMostOnce), ReasonCode::Success);
    assert_eq!(
        refusal(with("mallory"), node.mqtt),
        ReasonCode::BadUserNameOrPassword
    );
    assert_eq!(refusal(with("broken"), node.mqtt), ReasonCode::ServerUnavailable);
    with("alice").connect(node.mqtt);
    assert_eq!(
        refusal(with("nobody"), node.mqtt),
        ReasonCode::BadUserNameOrPassword
    );
    assert_eq!(refusal(Options::v5("c"), node.mqtt), ReasonCode::NotAuthorized);
}

#[test]
fn a_server_that_does_not_answer_lets_nobody_in_and_holds_nobody_up() {
    let place = Place::new();
    place.write("acl", "pattern #\n");
    let (port, _questions) = serve(|question| match question["username"].as_str() {
        Some("slow") => None,
        _ => json(r#"{"result": "allow"}"#),
    });
    let node = place.start(&config(port, "timeout_ms = 300"));
    let mut slow: Vec<_> = (0..5)
        .map(|n| {
            Options::v5(&format!("s{n}"))
                .credentials("slow", "x")
                .open(node.mqtt)
                .expect("open")
        })
        .collect();
    Options::v5("q").credentials("quick", "x").connect(node.mqtt);
    for client in &mut slow {
        match client.next() {
            ermine::mqtt::packet::Packet::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::ServerUnavailable);
            }
            other => panic!("{other:?}"),
        }
    }
    node.await_log("it is logged", |line| line.contains("did not answer in time"));
}

#[test]
fn a_server_that_is_not_there_lets_nobody_in() {
    let place = Place::new();
    place.write("acl", "pattern #\n");
    let node = place.start(&config(crate::harness::host::free_port(), ""));
    let alice = Options::v5("c").credentials("alice", PASSWORD);
    assert_eq!(refusal(alice, node.mqtt), ReasonCode::ServerUnavailable);
    let v3 = Options::new("c").credentials("alice", PASSWORD);
    assert_eq!(
        refusal(v3, node.mqtt),
        ReasonCode::ServerUnavailable,
        "return code 3"
    );
}
