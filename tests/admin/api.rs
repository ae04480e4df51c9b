//! The JSON API: lists in parts, one client, kicks, publications; and who may ask.

use std::os::unix::fs::PermissionsExt;

use ermine::mqtt::packet::QoS;
use serde_json::json;

use crate::harness::client::Options;
use crate::harness::host::eventually;
use crate::http::{N1, Observed, request};

#[test]
fn nobody_gets_in_without_the_token() {
    let observed = Observed::start();
    let of_another = format!("Authorization: Bearer {}", "0".repeat(64));
    let shortened = format!("Authorization: Bearer {}", &observed.token[..63]);
    let as_basic = format!("Authorization: Basic {}", observed.token);
    let in_cookie = format!("Cookie: token={}", observed.token);
    for header in [
        "X-Nothing: x",
        &of_another,
        &shortened,
        &as_basic,
        &in_cookie,
        "Authorization: Bearer ",
    ] {
        for (verb, path) in [
            ("GET", "/api/v1/node"),
            ("GET", "/api/v1/nothing"),
            ("GET", "/api/"),
            ("POST", "/api/v1/publish"),
            ("DELETE", "/api/v1/clients/x"),
            ("OPTIONS", "/api/v1/node"),
        ] {
            let answer = request(observed.admin, verb, path, &[header], "{}");
            assert_eq!(answer.status, 401, "{verb} {path} {header}");
            assert!(answer.header("www-authenticate").is_some());
            assert!(!answer.body.contains(&observed.token));
        }
    }
    let answer = observed.api("GET", "node", "");
    assert_eq!((answer.status, answer.json()["node"].as_str()), (200, Some(N1)));
    let origin = format!(
        "Authorization: Bearer {}\r\nOrigin: http://elsewhere",
        observed.token
    );
    let answer = request(observed.admin, "GET", "/api/v1/node", &[&origin], "");
    assert!(
        !answer.head.to_lowercase().contains("access-control"),
        "no other origin reads it"
    );
    let file = observed.host.data_dir(N1).join("admin.token");
    let mode = std::fs::metadata(&file)
        .expect("the token's file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        !observed.node.log.all().contains(&observed.token),
        "the log does not tell it"
    );
}

#[test]
fn clients_come_in_parts_and_one_of_them_is_kicked() {
    let observed = Observed::start();
    let mut clients: Vec<_> = (0..5)
        .map(|n| Options::v5(&format!("c{n}")).connect(observed.node.mqtt))
        .collect();
    clients[3].subscribe("a/+", QoS::ExactlyOnce);
    let part = observed.get("clients?limit=2");
    assert_eq!(
        (&part["data"][0]["client_id"], &part["meta"]["next"]),
        (&json!("c0"), &json!("c1"))
    );
    let rest = observed.get("clients?after=c1&limit=1000");
    let ids: Vec<_> = rest["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["client_id"].as_str())
        .collect();
    assert_eq!(
        (ids, &rest["meta"]["next"]),
        (vec!["c2", "c3", "c4"], &json!(null))
    );
    let one = observed.get("clients/c3");
    assert_eq!(
        (&one["protocol"], &one["subscriptions"]),
        (&json!("5.0"), &json!(1))
    );
    assert!(
        one["address"]
            .as_str()
            .expect("an address")
            .starts_with("127.0.0.1:")
    );
    let held = observed.get("clients/c3/subscriptions");
    assert_eq!(
        (&held["data"][0]["filter"], &held["data"][0]["qos"]),
        (&json!("a/+"), &json!(2))
    );
    assert_eq!(observed.get("subscriptions")["data"][0]["client_id"], "c3");
    assert_eq!(
        observed.get("routes")["data"],
        json!([{"filter": "a/+", "nodes": [N1]}])
    );
    assert_eq!(observed.api("DELETE", "clients/c3", "").status, 204);
    clients[3].assert_closed();
    eventually("it is gone", || {
        (observed.api("GET", "clients/c3", "").status == 404).then_some(())
    });
    assert_eq!(observed.api("DELETE", "clients/c3", "").status, 404);
    // The command line tells and does the same.
    let listed = observed.host.json(&["clients"]);
    assert_eq!(listed.as_array().expect("a list").len(), 4);
    assert!(observed.host.ok(&["clients", "show", "c0"]).contains("MQTT 5.0"));
    observed.host.ok(&["clients", "kick", "c0"]);
    clients[0].assert_closed();
    assert!(
        observed
            .host
            .fails(&["clients", "kick", "nobody"])
            .0
            .contains("there is no client nobody")
    );
}

#[test]
fn a_message_is_published_to_subscribers() {
    let observed = Observed::start();
    let mut reader = Options::new("reader").connect(observed.node.mqtt);
    reader.subscribe("t", QoS::AtLeastOnce);
    let publish = |body: &str| observed.api("POST", "publish", body).status;
    assert_eq!(publish(r#"{"topic": "t", "payload": "hello", "qos": 1}"#), 204);
    assert_eq!(reader.text(), "hello");
    assert_eq!(
        publish(r#"{"topic": "t", "payload": "aMO8", "payload_encoding": "base64"}"#),
        204
    );
    assert_eq!(reader.text(), "hü");
    for wrong in [
        "",
        "{}",
        r#"{"topic": "t/#"}"#,
        r#"{"topic": "$SYS/x"}"#,
        r#"{"topic": "t", "qos": 3}"#,
        r#"{"topic": "t", "retian": true}"#,
        r#"{"topic": "t", "payload": "?", "payload_encoding": "base64"}"#,
    ] {
        assert_eq!(publish(wrong), 400, "{wrong}");
    }
}

#[test]
fn what_is_not_there_is_not_found_and_wrong_verbs_are_told() {
    let observed = Observed::start();
    for path in [
        "nothing",
        "clients/x",
        "clients/x/subscriptions",
        "tree/children?path=root/x",
    ] {
        assert_eq!(observed.api("GET", path, "").status, 404, "{path}");
    }
    assert_eq!(observed.open("/nothing").status, 404);
    let answer = observed.api("PUT", "node", "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    for limit in ["0", "1001", "x"] {
        assert_eq!(
            observed.api("GET", &format!("clients?limit={limit}"), "").status,
            400
        );
    }
    let tree = observed.get("tree");
    let paths = tree["data"].as_array().expect("a list").iter();
    assert!(paths.clone().any(|entry| entry["path"] == "root/core/router"));
    let children = observed.get("tree/children?path=root%2Fcore&limit=1");
    assert_eq!(children["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(observed.get("nodes")["data"][0]["node"], N1);
    assert!(observed.get("observer")["figures"]["counters"]["received"].is_u64());
}
