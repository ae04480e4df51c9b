//! The ring of messages in flight.

use super::super::inflight::{Awaits, Inflight};
use super::super::queue::Outgoing;
use super::*;
use crate::session::lasting::Seq;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::num::NonZeroU64;

fn outgoing(qos: QoS) -> Outgoing {
    Outgoing {
        message: Arc::new(message(qos, "x")),
        subscription_ids: Default::default(),
        share: None,
        dup: false,
        seq: None,
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

fn seq(place: u64) -> Seq {
    Seq(NonZeroU64::new(place).expect("not 0"))
}

fn stored(qos: QoS, place: u64) -> Outgoing {
    Outgoing {
        seq: Some(seq(place)),
        ..outgoing(qos)
    }
}

#[test]
fn a_stored_message_has_the_identifier_of_its_place_in_the_store() {
    // [MQTT-4.4.0-1]: the same before and after a crash.
    let mut inflight = Inflight::default();
    for (place, expected) in [(1, 1), (7, 7), (65_535, 65_535), (65_537, 2)] {
        assert_eq!(inflight.push(stored(QoS::ExactlyOnce, place)).get(), expected);
    }
    for (packet_id, place) in [(7, 7), (2, 65_537), (65_535, 65_535), (1, 1)] {
        assert_eq!(inflight.awaits(id(packet_id)), Some(Awaits::Rec));
        assert_eq!(inflight.release(id(packet_id)), Some(seq(place)));
        assert_eq!(inflight.remove(id(packet_id)), Some(seq(place)));
    }
}

#[test]
fn a_stored_message_whose_identifier_is_in_use_gets_one_far_away_or_waits_at_qos_2() {
    // [MQTT-2.2.1-4] [MQTT-4.3.3-1]
    let mut inflight = Inflight::default();
    inflight.push(stored(QoS::AtLeastOnce, 1));
    let (once, twice) = (stored(QoS::AtLeastOnce, 65_536), stored(QoS::ExactlyOnce, 65_536));
    assert!(inflight.takes(&once) && !inflight.takes(&twice));
    assert_eq!(inflight.push(once).get(), 32_769);
    assert_eq!(
        inflight.push(stored(QoS::AtLeastOnce, 2)).get(),
        2,
        "it took no neighbour's"
    );
    inflight.remove(id(1));
    assert!(inflight.takes(&twice));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn identifiers_with_gaps_and_out_of_order_are_unique_and_found(
        steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 1_u64..30_000), 1..300),
    ) {
        let (mut inflight, mut model) = (Inflight::default(), BTreeMap::new());
        let mut place = 0;
        for (kind, which, gap) in steps {
            match kind {
                0 | 1 => {
                    // Small steps as a rule; a large one goes round soon.
                    place += if gap % 8 == 0 { gap } else { gap % 3 + 1 };
                    let outgoing = stored(QoS::AtLeastOnce, place);
                    let own = seq(place).packet_id();
                    let is_free = !model.contains_key(&own);
                    let packet_id = inflight.push(outgoing);
                    prop_assert!(!is_free || packet_id == own);
                    prop_assert_eq!(model.insert(packet_id, Some(seq(place))), None);
                }
                2 if gap % 4 == 0 => {
                    let packet_id = inflight.push(outgoing(QoS::AtLeastOnce));
                    prop_assert_eq!(model.insert(packet_id, None), None);
                }
                _ if !model.is_empty() => {
                    let packet_id = *model.keys().nth(which.index(model.len())).expect("within");
                    prop_assert_eq!(inflight.remove(packet_id), model.remove(&packet_id).flatten());
                    prop_assert_eq!(inflight.awaits(packet_id), None);
                }
                _ => {}
            }
            for packet_id in model.keys() {
                prop_assert_eq!(inflight.awaits(*packet_id), Some(Awaits::Ack));
            }
            prop_assert_eq!(inflight.len(), model.len());
        }
    }
}
