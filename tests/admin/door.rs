//! The door: what is too much is refused, what crashes reaches nobody else, who is told what health.

use std::io::{Read, Write};
use std::net::TcpStream;

use ermine::limits::{HTTP_BODY_BYTES_MAX, HTTP_VISITS_MAX};
use ermine::mqtt::packet::QoS;

use crate::harness::PATIENCE;
use crate::harness::client::Options;
use crate::harness::host::{Host, eventually, free_port};
use crate::http::{N1, Observed, parsed, raw, request};

#[test]
fn a_crash_of_the_listener_touches_no_client_and_not_the_port() {
    let observed = Observed::start();
    let mut client = Options::new("c").connect(observed.node.mqtt);
    client.subscribe("c", QoS::AtLeastOnce);
    let path = format!("root/admin/http:{}", observed.admin);
    for _ in 0..3 {
        observed.host.ok(&["crash", &path]);
    }
    assert_eq!(observed.open("/health").status, 200);
    client.publish_and_receive("c");
    eventually("three restarts", || {
        let text = observed.open("/metrics").body;
        text.contains("ermine_supervisor_restarts_total{path=\"root/admin\"} 3")
            .then_some(())
    });
    client.publish_and_receive("c");
}

#[test]
fn one_visitor_too_many_is_closed_at_once_and_the_others_go_on() {
    let observed = Observed::start();
    let mut waiting: Vec<_> = (0..HTTP_VISITS_MAX)
        .map(|_| TcpStream::connect(observed.admin).expect("connected"))
        .collect();
    let mut last = waiting.pop().expect("many");
    last.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    eventually("there is no room", || {
        raw(observed.admin, b"").is_empty().then_some(())
    });
    let ask = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    last.write_all(ask.as_bytes()).expect("written");
    let mut answer = String::new();
    last.read_to_string(&mut answer).expect("text");
    assert_eq!(parsed(&answer).status, 200);
    drop(waiting);
    eventually("there is room again", || {
        let answer = raw(observed.admin, ask.as_bytes());
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn what_is_too_large_or_no_http_is_refused() {
    let observed = Observed::start();
    let large = "x".repeat(HTTP_BODY_BYTES_MAX + 1);
    assert_eq!(observed.api("POST", "publish", &large).status, 413);
    let long = format!("X-Long: {}", "x".repeat(64 << 10));
    let answer = request(observed.admin, "GET", "/health", &[&long], "");
    assert_eq!(answer.status, 431);
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}: x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(request(observed.admin, "GET", "/health", &many, "").status, 431);
    for garbage in [
        &b"\x10\x0e\0\x04MQTT\x04\x02\0\0\0\x02hi"[..],
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
    ] {
        let answer = raw(observed.admin, garbage);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    assert_eq!(observed.open("/health").status, 200);
    assert!(
        observed.host.ok(&["restarts"]).contains("no restarts"),
        "garbage is no crash"
    );
}

#[test]
fn health_tells_what_does_not_run() {
    let observed = Observed::start();
    assert_eq!(observed.open("/health/live").status, 200);
    assert_eq!(observed.open("/health/ready").json()["status"], "ready");
    observed.host.ok(&["stop-child", "root/core/wills"]);
    let answer = observed.open("/health");
    assert_eq!(
        (answer.status, &answer.json()["not_running"][0]),
        (503, &"root/core/wills".into())
    );
    observed.host.ok(&["start-child", "root/core/wills"]);
    assert_eq!(observed.open("/health").status, 200);
}

#[test]
fn it_is_off_unless_asked_for_and_stays_on_this_host() {
    let host = Host::new();
    let node = host.start(N1);
    let (said, _) = host.fails(&["token"]);
    assert!(said.contains("the HTTP API of n1@127.0.0.1 is off"), "{said}");
    assert!(node.stop().success());
    let (said, code) = host.fails(&["start", "--name", N1, "--admin", "0.0.0.0:18083"]);
    assert_eq!(code, 64);
    assert!(said.contains("allow_remote = true"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("its address").to_string();
    let mqtt = format!("127.0.0.1:{}", free_port());
    let (said, code) = host.fails(&["start", "--name", N1, "--listen", &mqtt, "--admin", &address]);
    assert_eq!(code, 64);
    assert!(said.contains("give another --admin"), "{said}");
}

#[test]
fn metrics_may_need_the_token_too() {
    let host = Host::new();
    let admin = format!("127.0.0.1:{}", free_port());
    let file = host.home().join("ermine.toml");
    let port = host.registry_port;
    let text = format!("registry_port = {port}\n[admin]\nlisten = \"{admin}\"\nopen_metrics = false\n");
    std::fs::write(&file, text).expect("written");
    let file = file.display().to_string();
    let _node = host.start_with(N1, &["--config", &file]);
    let admin = admin.parse().expect("an address");
    assert_eq!(request(admin, "GET", "/metrics", &[], "").status, 401);
    let token = host.ok(&["token"]);
    let shown = format!("Authorization: Bearer {}", token.trim());
    assert_eq!(request(admin, "GET", "/metrics", &[&shown], "").status, 200);
}
