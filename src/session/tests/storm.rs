//! Anything at any time: no sequence of events makes a session panic, exceed a bound or speak out of
//! turn.

use proptest::prelude::*;

use super::*;
use crate::mqtt::packet::{Auth, Unsubscribe};
use crate::mqtt::properties::{AuthProperties, UnsubscribeProperties};

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn reason() -> impl Strategy<Value = ReasonCode> + Clone {
    prop_oneof![
        4 => Just(ReasonCode::Success),
        1 => Just(ReasonCode::UnspecifiedError),
        1 => Just(ReasonCode::NotAuthorized),
        1 => Just(ReasonCode::DisconnectWithWill),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    // Few identifiers, so that they meet; acknowledgements are frequent.
    let ack = (1_u16..6, reason()).prop_map(|(packet_id, reason)| Ack::with_reason(id(packet_id), reason));
    let publish = (
        qos(),
        1_u16..6,
        any::<bool>(),
        prop::option::of(0_u16..4),
        prop::option::of(0_u32..3),
    );
    let publish = publish.prop_map(|(qos, packet_id, is_aliased, alias, expiry)| {
        let mut publish = publish_value(qos, packet_id, if is_aliased { "" } else { "t" });
        publish.properties.topic_alias = if is_aliased { alias.or(Some(1)) } else { None };
        publish.properties.message_expiry_interval_s = expiry;
        Packet::Publish(publish)
    });
    let filter = prop_oneof![Just("a"), Just("b/+"), Just("#"), Just("$share/g/a"), Just("e")];
    prop_oneof![
        8 => publish,
        3 => ack.clone().prop_map(Packet::PubAck),
        3 => ack.clone().prop_map(Packet::PubRec),
        3 => ack.clone().prop_map(Packet::PubRel),
        3 => ack.prop_map(Packet::PubComp),
        3 => (1_u16..6, filter.clone()).prop_map(|(packet_id, filter)| subscribe(packet_id, &[filter])),
        2 => (1_u16..6, filter).prop_map(|(packet_id, filter)| Packet::Unsubscribe(Unsubscribe {
            packet_id: id(packet_id),
            properties: UnsubscribeProperties::default(),
            filters: vec![filter.into()],
        })),
        1 => Just(Packet::PingReq),
        1 => (reason(), prop::option::of(0_u32..20)).prop_map(|(reason, expiry)| {
            Packet::Disconnect(disconnect_value(reason, expiry))
        }),
        1 => Just(Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: AuthProperties::default(),
        })),
    ]
}

fn attach() -> impl Strategy<Value = Event> {
    let parts = (
        any::<bool>(),
        any::<bool>(),
        0_u32..20,
        prop::option::of(0_u32..20),
        0_u16..4,
        1_u16..5,
    );
    parts.prop_map(
        |(is_v5, clean_start, expiry_s, will_delay, keep_alive_s, receive_maximum)| {
            let mut connect = if is_v5 {
                connect5(expiry_s)
            } else {
                connect3(clean_start)
            };
            connect.clean_start = clean_start;
            connect.keep_alive_s = keep_alive_s;
            connect.will = will_delay.map(will);
            if is_v5 {
                connect.properties.receive_maximum = Some(receive_maximum);
                connect.properties.maximum_packet_size = Some(u32::from(receive_maximum) * 10);
            }
            Event::Attach(Box::new(Attach {
                connect,
                assigned_client_id: false,
                limits: LIMITS,
                authentication_data: None,
            }))
        },
    )
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        Just(PublishOutcome::Taken),
        Just(PublishOutcome::NoSubscribers),
        reason().prop_map(PublishOutcome::Refused)
    ];
    prop_oneof![
        3 => attach(),
        30 => packet().prop_map(Event::Packet),
        10 => (qos(), 0_usize..400).prop_map(|(qos, len)| Event::Deliver(delivery(qos, &"x".repeat(len)))),
        10 => (1_u64..40, outcome).prop_map(|(token, outcome)| {
            Event::Published { token: PublishToken(token), outcome }
        }),
        3 => (1_u16..6, prop::collection::vec(reason(), 0..3)).prop_map(|(packet_id, reasons)| {
            Event::Subscribed { packet_id: id(packet_id), reasons }
        }),
        3 => (1_u16..6, prop::collection::vec(reason(), 0..3)).prop_map(|(packet_id, reasons)| {
            Event::Unsubscribed { packet_id: id(packet_id), reasons }
        }),
        2 => Just(Event::TransportLost),
        1 => Just(Event::TakenOver),
        1 => reason().prop_map(Event::Kick),
        1 => Just(Event::Malformed(ReasonCode::MalformedPacket)),
        3 => Just(Event::Wake),
        3 => Just(Event::Writable),
    ]
}

/// What must hold of the effects of any one event.
fn check_effects(bench: &Bench, was_attached: bool, is_attach: bool, effects: &[Effect]) {
    let is_close = |effect: &Effect| *effect == Effect::CloseTransport;
    if let Some(index) = effects.iter().position(|effect| *effect == Effect::End) {
        assert_eq!(index + 1, effects.len(), "End is the last effect");
    }
    assert_eq!(
        effects.last() == Some(&Effect::End),
        bench.session.is_ended() && !effects.is_empty()
    );
    assert!(effects.iter().filter(|effect| is_close(effect)).count() <= 1);
    let mut is_open = was_attached;
    for effect in effects {
        match effect {
            Effect::CloseTransport => is_open = false,
            Effect::Send(Packet::ConnAck(_)) => {
                assert!(is_attach && !is_open);
                is_open = true;
            }
            Effect::Send(_) | Effect::Transmit(_) => assert!(is_open, "nothing is sent into the void"),
            _ => {}
        }
    }
    assert!(bench.session.queue_len() <= LIMITS.queue_len_max);
    assert!(bench.session.queue_bytes() <= LIMITS.queue_bytes_max);
    assert!(bench.session.subscriptions_len() <= LIMITS.subscriptions_max);
    assert!(bench.session.inflight_len() <= usize::from(LIMITS.inflight_max));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_breaks_a_session(
        events in prop::collection::vec((event(), 0_u64..3), 1..200),
        discards in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        let discard = discards.then_some((Event::Discard, 0));
        for (event, seconds) in events.into_iter().chain(discard) {
            bench.later(seconds);
            let (was_attached, was_ended) = (bench.session.is_attached(), bench.session.is_ended());
            let is_attach = matches!(event, Event::Attach(_));
            let effects = bench.handle(event);
            if was_ended {
                let is_late = |effect: &Effect| *effect == Effect::Count(Counted::DroppedSessionEnded);
                prop_assert!(effects.iter().all(is_late), "an ended session is silent: {effects:?}");
                continue;
            }
            check_effects(&bench, was_attached, is_attach, &effects);
        }
    }
}
