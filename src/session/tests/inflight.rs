//! The ring of messages in flight.

use super::super::inflight::{Awaits, Inflight};
use super::super::queue::Outgoing;
use super::*;

fn outgoing(qos: QoS) -> Outgoing {
    Outgoing {
        message: Arc::new(message(qos, "x")),
        subscription_ids: Default::default(),
        share: None,
        dup: false,
        qos,
        retain: false,
    }
}

#[test]
fn identifiers_count_up_and_go_round_without_zero() {
    // [MQTT3-2.3.1-4] [MQTT-2.2.1-4]
    let mut inflight = Inflight::default();
    for expected in (1..=65_535).chain(1..=3) {
        let packet_id = inflight.push(outgoing(QoS::AtLeastOnce));
        assert_eq!(packet_id.get(), expected);
        inflight.remove(packet_id);
    }
    assert_eq!(inflight.len(), 0);
}

#[test]
fn an_identifier_in_use_is_skipped() {
    // [MQTT3-2.3.1-4] [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
    let mut inflight = Inflight::default();
    let (first, second) = (
        inflight.push(outgoing(QoS::ExactlyOnce)),
        inflight.push(outgoing(QoS::AtLeastOnce)),
    );
    for _ in 3..=65_535 {
        let packet_id = inflight.push(outgoing(QoS::AtLeastOnce));
        inflight.remove(packet_id);
    }
    for expected in 3..=100 {
        let packet_id = inflight.push(outgoing(QoS::AtLeastOnce));
        assert_eq!(packet_id.get(), expected, "1 and 2 are in use");
    }
    for packet_id in 3..=100 {
        assert_eq!(inflight.awaits(id(packet_id)), Some(Awaits::Ack));
        inflight.remove(id(packet_id));
        assert_eq!(inflight.awaits(id(packet_id)), None);
    }
    assert_eq!(inflight.awaits(first), Some(Awaits::Rec));
    inflight.release(first);
    assert_eq!(inflight.awaits(first), Some(Awaits::Comp));
    inflight.remove(first);
    inflight.remove(second);
    assert_eq!(inflight.len(), 0);
}

#[test]
fn acknowledgements_are_found_in_any_order() {
    let mut inflight = Inflight::default();
    for _ in 0..40 {
        inflight.push(outgoing(QoS::AtLeastOnce));
    }
    // 7 and 41 have no common divisor: every number from 1 to 40 comes once.
    for step in 1..=40_u16 {
        let packet_id = id(step * 7 % 41);
        assert_eq!(inflight.awaits(packet_id), Some(Awaits::Ack));
        inflight.remove(packet_id);
        assert_eq!(inflight.awaits(packet_id), None);
    }
    assert_eq!(inflight.len(), 0);
}
