//! The global route table follows the subscribers.

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::Host;
use crate::{await_route, cluster};

#[test]
fn a_route_is_born_with_the_first_subscriber_and_dies_with_the_last() {
    let host = Host::new();
    let nodes = cluster(&host, 2);
    let mut first = Options::new("first").connect(nodes[1].mqtt);
    let mut second = Options::new("second").connect(nodes[1].mqtt);
    first.subscribe("t/1", QoS::AtMostOnce);
    second.subscribe("t/1", QoS::AtMostOnce);
    await_route(&host, "n1@127.0.0.1", "t/1", &["n2@127.0.0.1"]);
    first.unsubscribe("t/1");
    let mut publisher = Options::new("publisher").connect(nodes[0].mqtt);
    publisher.publish("t/1", "for the second", QoS::AtLeastOnce);
    assert_eq!(second.text(), "for the second");
    drop(second);
    await_route(&host, "n1@127.0.0.1", "t/1", &[]);
    await_route(&host, "n2@127.0.0.1", "t/1", &[]);
}

#[test]
fn thousands_of_routes_that_existed_before_the_join_are_on_both_nodes_after_it() {
    let host = Host::new();
    let n1 = host.start("n1@127.0.0.1");
    let _n2 = host.start("n2@127.0.0.1");
    let mut subscriber = Options::new("s").connect(n1.mqtt);
    for number in 0..3000 {
        subscriber.subscribe(&format!("many/{number}"), QoS::AtMostOnce);
    }
    host.ok(&["cluster", "join", "n2@127.0.0.1", "--node", "n1@127.0.0.1"]);
    await_route(&host, "n2@127.0.0.1", "many/2999", &["n1@127.0.0.1"]);
    let table = crate::routes(&host, "n2@127.0.0.1");
    assert_eq!(table.as_array().expect("an array").len(), 3000);
}
