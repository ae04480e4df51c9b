//! PUBLISH from the client and its acknowledgements.

use super::*;

fn acked(packet_id: u16, reason: ReasonCode) -> Effect {
    Effect::Send(Packet::PubAck(Ack::with_reason(id(packet_id), reason)))
}

fn received(packet_id: u16) -> Effect {
    Effect::Send(pubrec(packet_id))
}

fn completed(packet_id: u16) -> Effect {
    Effect::Send(pubcomp(packet_id))
}

#[test]
fn qos_0_is_published_and_not_answered() {
    let mut bench = Bench::v3(true);
    assert_eq!(bench.publish(QoS::AtMostOnce, 0), None);
    assert_eq!(bench.session.unanswered_len(), 0);
}

#[test]
fn the_message_names_its_publisher() {
    let mut bench = Bench::v3(true);
    match &bench.packet(publish(QoS::AtMostOnce, 0))[..] {
        [Effect::Publish { message, .. }] => assert_eq!(message.publisher, "c"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn qos_1_is_acknowledged_when_the_broker_has_it() {
    // [MQTT3-4.3.2-2] [MQTT-4.3.2-4]
    let mut bench = Bench::v3(true);
    let token = bench.publish(QoS::AtLeastOnce, 7);
    assert_eq!(bench.taken(token), [acked(7, ReasonCode::Success)]);
    assert_eq!(bench.taken(token), [], "a second answer is one too many");
}

#[test]
fn qos_1_that_is_sent_again_is_published_again() {
    // [MQTT3-4.3.2-2] [MQTT-4.3.2-5]
    let mut bench = Bench::v3(true);
    let token = bench.publish(QoS::AtLeastOnce, 7);
    bench.taken(token);
    let again = bench.publish(QoS::AtLeastOnce, 7);
    assert_ne!(token, again);
}

#[test]
fn acknowledgements_go_out_in_the_order_of_the_messages() {
    // [MQTT3-4.6.0-2..3]
    let mut bench = Bench::v3(true);
    let first = bench.publish(QoS::AtLeastOnce, 1);
    let second = bench.publish(QoS::ExactlyOnce, 2);
    let third = bench.publish(QoS::AtLeastOnce, 3);
    assert_eq!(bench.taken(third), []);
    assert_eq!(bench.taken(second), []);
    let expected = [
        acked(1, ReasonCode::Success),
        received(2),
        acked(3, ReasonCode::Success),
    ];
    assert_eq!(bench.taken(first), expected);
}

#[test]
fn qos_2_goes_through_all_four_packets() {
    // [MQTT3-4.3.3-2] [MQTT-4.3.3-8] [MQTT-4.3.3-11]
    let mut bench = Bench::v3(true);
    let token = bench.publish(QoS::ExactlyOnce, 5);
    assert_eq!(bench.taken(token), [received(5)]);
    assert_eq!(bench.packet(pubrel(5)), [completed(5)]);
    assert!(
        bench.publish(QoS::ExactlyOnce, 5).is_some(),
        "the identifier is free"
    );
}

#[test]
fn qos_2_that_is_sent_again_before_pubrel_is_not_published_again() {
    // [MQTT3-4.3.3-2] [MQTT-4.3.3-10]
    for dup in [true, false] {
        let mut bench = Bench::v3(true);
        let token = bench.publish(QoS::ExactlyOnce, 5);
        let again = Packet::Publish(Publish {
            dup,
            ..publish_value(QoS::ExactlyOnce, 5, "t")
        });
        assert_eq!(bench.packet(again.clone()), [], "its PUBREC is on the way");
        assert_eq!(bench.taken(token), [received(5)]);
        assert_eq!(bench.packet(again), [received(5)]);
        assert_eq!(bench.packet(pubrel(5)), [completed(5)]);
    }
}

#[test]
fn qos_2_that_is_sent_again_on_a_new_connection_is_not_published_again() {
    // [MQTT-4.3.3-10]
    let mut bench = Bench::v3(false);
    let answered = bench.publish(QoS::ExactlyOnce, 1);
    let answered_while_away = bench.publish(QoS::ExactlyOnce, 2);
    let answered_later = bench.publish(QoS::ExactlyOnce, 3);
    assert_eq!(bench.taken(answered), [received(1)]);
    bench.handle(Event::TransportLost);
    assert_eq!(bench.taken(answered_while_away), []);
    bench.attach(connect3(false));
    assert_eq!(bench.packet(publish(QoS::ExactlyOnce, 1)), [received(1)]);
    assert_eq!(bench.packet(publish(QoS::ExactlyOnce, 2)), [received(2)]);
    assert_eq!(bench.packet(publish(QoS::ExactlyOnce, 3)), []);
    assert_eq!(bench.taken(answered_later), [received(3)]);
    for packet_id in 1..=3 {
        let over = [Effect::Completed(id(packet_id)), completed(packet_id)];
        assert_eq!(bench.packet(pubrel(packet_id)), over);
    }
}

#[test]
fn an_answer_that_comes_on_a_new_connection_before_the_message_is_sent_again_waits_for_it() {
    let mut bench = Bench::v3(false);
    let token = bench.publish(QoS::ExactlyOnce, 3);
    bench.handle(Event::TransportLost);
    bench.attach(connect3(false));
    assert_eq!(
        bench.taken(token),
        [],
        "the client has not asked on this connection"
    );
    assert_eq!(bench.packet(publish(QoS::ExactlyOnce, 3)), [received(3)]);
}

#[test]
fn a_puback_is_not_sent_on_a_connection_that_did_not_ask_for_it() {
    let mut bench = Bench::v3(false);
    let token = bench.publish(QoS::AtLeastOnce, 3);
    bench.handle(Event::TransportLost);
    bench.attach(connect3(false));
    assert_eq!(bench.taken(token), []);
    let again = bench.publish(QoS::AtLeastOnce, 3);
    assert_eq!(bench.taken(again), [acked(3, ReasonCode::Success)]);
}

#[test]
fn pubrel_completes_on_a_new_connection() {
    let mut bench = Bench::v3(false);
    let token = bench.publish(QoS::ExactlyOnce, 3);
    bench.taken(token);
    bench.handle(Event::TransportLost);
    bench.attach(connect3(false));
    let over = [Effect::Completed(id(3)), completed(3)];
    assert_eq!(bench.packet(pubrel(3)), over, "the store knows before the client");
}

#[test]
fn pubrel_of_an_unknown_identifier_is_answered() {
    let unknown = Effect::Count(Counted::UnknownAck);
    let not_found = Ack::with_reason(id(9), ReasonCode::PacketIdentifierNotFound);
    let expected = [unknown.clone(), Effect::Send(Packet::PubComp(not_found))];
    assert_eq!(Bench::v5(0).packet(pubrel(9)), expected);
    assert_eq!(Bench::v3(true).packet(pubrel(9)), [unknown, completed(9)]);
}

#[test]
fn no_subscribers_is_told_to_5_0_only() {
    let mut bench = Bench::v5(0);
    let token = bench.publish(QoS::AtLeastOnce, 1);
    let effects = bench.published(token, PublishOutcome::NoSubscribers);
    assert_eq!(effects, [acked(1, ReasonCode::NoMatchingSubscribers)]);
    let token = bench.publish(QoS::ExactlyOnce, 1);
    let effects = bench.published(token, PublishOutcome::NoSubscribers);
    let expected = Ack::with_reason(id(1), ReasonCode::NoMatchingSubscribers);
    assert_eq!(effects, [Effect::Send(Packet::PubRec(expected))]);
    assert_eq!(bench.packet(pubrel(1)), [completed(1)]);

    let mut bench = Bench::v3(true);
    let token = bench.publish(QoS::AtLeastOnce, 1);
    assert_eq!(
        bench.published(token, PublishOutcome::NoSubscribers),
        [acked(1, ReasonCode::Success)]
    );
}

#[test]
fn a_refusal_is_told_to_5_0_and_frees_the_identifier() {
    // [MQTT-4.3.3-9] [MQTT-3.4.2-1] [MQTT-3.5.2-1]
    let refused = PublishOutcome::Refused(ReasonCode::NotAuthorized);
    let mut bench = Bench::v5(0);
    let token = bench.publish(QoS::AtLeastOnce, 1);
    assert_eq!(
        bench.published(token, refused),
        [acked(1, ReasonCode::NotAuthorized)]
    );
    let token = bench.publish(QoS::ExactlyOnce, 1);
    let expected = Ack::with_reason(id(1), ReasonCode::NotAuthorized);
    assert_eq!(
        bench.published(token, refused),
        [Effect::Send(Packet::PubRec(expected))]
    );
    assert!(bench.publish(QoS::ExactlyOnce, 1).is_some());
}

#[test]
fn a_refusal_for_good_is_acknowledged_to_3_1_1() {
    // [MQTT3-3.3.5-2]
    let refused = PublishOutcome::Refused(ReasonCode::NotAuthorized);
    let mut bench = Bench::v3(true);
    let token = bench.publish(QoS::AtLeastOnce, 1);
    assert_eq!(bench.published(token, refused), [acked(1, ReasonCode::Success)]);
    let token = bench.publish(QoS::ExactlyOnce, 1);
    assert_eq!(bench.published(token, refused), [received(1)]);
    assert_eq!(bench.packet(pubrel(1)), [completed(1)]);
}

#[test]
fn any_other_refusal_closes_a_3_1_1_connection_and_the_message_may_be_sent_again() {
    // [MQTT3-3.3.5-2]
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut bench = Bench::v3(false);
        let token = bench.publish(qos, 1);
        let effects = bench.published(token, PublishOutcome::Refused(ReasonCode::ServerBusy));
        let over = (qos == QoS::ExactlyOnce).then_some(Effect::Completed(id(1)));
        let expected: Vec<_> = over.into_iter().chain([Effect::CloseTransport]).collect();
        assert_eq!(effects[..expected.len()], expected);
        bench.attach(connect3(false));
        assert!(bench.publish(qos, 1).is_some());
    }
}

#[test]
fn a_refusal_while_the_client_is_away_lets_it_send_the_message_again() {
    let mut bench = Bench::v5(100);
    let token = bench.publish(QoS::ExactlyOnce, 1);
    bench.handle(Event::TransportLost);
    assert_eq!(
        bench.published(token, PublishOutcome::Refused(ReasonCode::ServerBusy)),
        [Effect::Completed(id(1))]
    );
    bench.attach(connect5(100));
    assert!(bench.publish(QoS::ExactlyOnce, 1).is_some());
}

#[test]
fn a_message_expires_as_its_publisher_says() {
    let mut bench = Bench::v5(0);
    let mut publish = publish_value(QoS::AtMostOnce, 0, "t");
    publish.properties.message_expiry_interval_s = Some(30);
    match &bench.packet(Packet::Publish(publish))[..] {
        [Effect::Publish { message, .. }] => {
            assert_eq!(message.expires_at, Some(bench.now + Duration::from_secs(30)));
        }
        other => panic!("{other:?}"),
    }
}
