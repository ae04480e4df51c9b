//! `suback = "cluster"`: who has the SUBACK gets what is published anywhere from then on.

use ermine::mqtt::packet::QoS;

use crate::harness::client::Options;
use crate::harness::host::{Host, eventually};

#[test]
fn what_is_published_elsewhere_right_after_the_suback_arrives_a_thousand_times_of_a_thousand() {
    let host = Host::new();
    let file = host.home().join("suback.toml");
    std::fs::write(&file, "suback = \"cluster\"\n").expect("written");
    let config = ["--config", file.to_str().expect("text")];
    let n1 = host.start("n1@127.0.0.1");
    let n2 = host.start_with("n2@127.0.0.1", &config);
    host.ok(&["cluster", "join", &n2.name, "--node", &n1.name]);
    eventually("n2 sees two", || {
        (crate::running(&host, &n2.name).len() == 2).then_some(())
    });
    let mut subscriber = Options::new("s").connect(n2.mqtt);
    let mut publisher = Options::new("p").connect(n1.mqtt);
    for round in 0..1000 {
        let topic = format!("round/{round}");
        subscriber.subscribe(&topic, QoS::AtMostOnce);
        publisher.publish(&topic, &topic, QoS::AtLeastOnce);
        assert_eq!(subscriber.text(), topic);
        if round % 2 == 0 {
            subscriber.unsubscribe(&topic);
        }
    }
    // Alone again, it waits for nobody.
    n1.kill();
    subscriber.subscribe("alone", QoS::AtMostOnce);
    host.assert_balanced("n2@127.0.0.1");
}
