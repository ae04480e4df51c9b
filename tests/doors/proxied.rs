//! Behind a proxy that tells whom it speaks for.

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};
use crate::{bridge, counted, node_with};

#[test]
fn a_client_is_where_the_proxy_says_and_without_a_header_nobody_comes_in() {
    let host = Host::new();
    // A proxy on this host does not make its clients local: they have to be let in.
    let (_node, address) = node_with(&host, "proxy_protocol = true\nallow_anonymous = true");
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 9, 127, 0, 0, 1, 0x30, 0x39, 0x07, 0x5B]);
    let mut local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let headers = [
        (
            b"PROXY TCP4 192.0.2.1 127.0.0.1 56092 1883\r\n".to_vec(),
            "192.0.2.1:56092",
        ),
        (v2, "203.0.113.9:12345"),
        (std::mem::take(&mut local), "127.0.0.1:"),
    ];
    for (header, peer) in headers {
        let way = bridge::preceded(address, header).expect("connected");
        let mut client = Options::new("c").connect(way);
        client.subscribe("t", QoS::AtMostOnce);
        let clients = host.json(&["clients"]);
        let told = clients[0]["address"].as_str().expect("an address");
        assert!(told.starts_with(peer), "{told} is not {peer}");
        client.disconnect();
    }
    for garbage in [b"".to_vec(), b"PROXY TCP4 nonsense\r\n".to_vec(), vec![0xFF; 500]] {
        let way = bridge::preceded(address, garbage).expect("connected");
        assert!(Options::new("c").try_connect(way).is_err());
    }
    eventually("all are counted", || {
        (counted(&host, "proxy_headers_refused") == 3).then_some(())
    });
}
