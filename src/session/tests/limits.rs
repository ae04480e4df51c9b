//! What a session does at its limits.

use super::*;

fn limited(bench: &mut Bench, connect: Connect, change: impl FnOnce(&mut ClientLimits)) -> Vec<Effect> {
    let mut limits = LIMITS;
    change(&mut limits);
    bench.attach_limited(connect, limits)
}

/// A 3.1.1 client that is away.
fn away(change: impl FnOnce(&mut ClientLimits)) -> Bench {
    let mut bench = Bench::new();
    limited(&mut bench, connect3(false), change);
    bench.handle(Event::TransportLost);
    bench
}

fn payloads(effects: &[Effect]) -> Vec<String> {
    sent(effects).into_iter().map(|(payload, ..)| payload).collect()
}

#[test]
fn a_full_queue_drops_the_oldest_where_the_policy_says_so() {
    let mut bench = away(|limits| limits.queue_policy = QueuePolicy::DropOldest);
    for payload in ["1", "2", "3", "4"] {
        assert_eq!(bench.deliver(QoS::AtLeastOnce, payload), []);
    }
    assert_eq!(
        bench.deliver(QoS::AtLeastOnce, "5"),
        [Effect::Count(Counted::DroppedQueueOldest)]
    );
    assert_eq!(payloads(&bench.attach(connect3(false))), ["2", "3"]);
}

#[test]
fn a_long_message_takes_the_place_of_as_many_old_ones_as_it_must_and_no_more() {
    let mut bench = away(|limits| limits.queue_policy = QueuePolicy::DropOldest);
    for payload in ["1", "2"] {
        bench.deliver(QoS::AtLeastOnce, &payload.repeat(300));
    }
    bench.deliver(QoS::AtLeastOnce, "3");
    let effects = bench.deliver(QoS::AtLeastOnce, &"4".repeat(500));
    assert_eq!(counted(&effects), [Counted::DroppedQueueOldest]);
    assert_eq!((bench.session.queue_len(), bench.session.queue_bytes()), (3, 804));
}

#[test]
fn a_message_that_can_never_fit_drops_itself_whatever_the_policy() {
    for policy in [QueuePolicy::DropOldest, QueuePolicy::DropNewest] {
        let mut bench = away(|limits| limits.queue_policy = policy);
        bench.deliver(QoS::AtLeastOnce, "kept");
        let effects = bench.deliver(QoS::AtLeastOnce, &"x".repeat(1001));
        assert_eq!(counted(&effects), [Counted::DroppedQueueFull]);
        assert_eq!(bench.session.queue_len(), 1);
        let mut none = away(|limits| (limits.queue_policy, limits.queue_len_max) = (policy, 0));
        assert_eq!(
            counted(&none.deliver(QoS::AtLeastOnce, "x")),
            [Counted::DroppedQueueFull]
        );
    }
}

#[test]
fn qos_0_waits_for_a_client_that_is_away_where_the_limits_say_so() {
    let mut bench = away(|limits| limits.queue_qos0 = true);
    for (qos, payload) in [
        (QoS::AtMostOnce, "0"),
        (QoS::AtLeastOnce, "1"),
        (QoS::AtMostOnce, "00"),
    ] {
        assert_eq!(bench.deliver(qos, payload), []);
    }
    let effects = limited(&mut bench, connect3(false), |limits| limits.queue_qos0 = true);
    let line = |payload: &str, qos, id| (payload.to_owned(), qos, id, false);
    assert_eq!(
        sent(&effects),
        [line("0", 0, 0), line("1", 1, 1), line("00", 0, 0)]
    );
    assert_eq!(bench.session.inflight_len(), 1, "QoS 0 takes no slot");
    assert_eq!(payloads(&bench.deliver(QoS::AtMostOnce, "now")), ["now"]);
}

#[test]
fn a_subscription_to_too_long_or_too_deep_a_filter_is_refused_alone() {
    let mut bench = Bench::new();
    limited(&mut bench, connect5(0), |limits| {
        (limits.topic_levels_max, limits.topic_bytes_max) = (3, 8);
    });
    let effects = bench.packet(subscribe(
        1,
        &["a/b/c", "a/b/c/d", "ninebytes", "$share/group/a/b/c"],
    ));
    let [Effect::Subscribe { requests, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    let filters: Vec<&str> = requests.iter().map(|request| &*request.filter).collect();
    assert_eq!(filters, ["a/b/c", "$share/group/a/b/c"]);
    let reasons = vec![ReasonCode::GrantedQoS1; 2];
    let effects = bench.handle(Event::Subscribed {
        packet_id: id(1),
        reasons,
    });
    let [Effect::Send(Packet::SubAck(suback))] = &effects[..] else {
        panic!("{effects:?}")
    };
    let refused = ReasonCode::TopicFilterInvalid;
    assert_eq!(
        suback.reasons,
        [ReasonCode::GrantedQoS1, refused, refused, ReasonCode::GrantedQoS1]
    );
}

#[test]
fn a_publish_to_too_deep_a_topic_is_answered_counted_and_goes_nowhere() {
    let deep = |qos| Packet::Publish(publish_value(qos, 7, "a/b/c/d"));
    for (connect, reason) in [
        (connect5(0), ReasonCode::TopicNameInvalid),
        (connect3(true), ReasonCode::Success),
    ] {
        let mut bench = Bench::new();
        limited(&mut bench, connect, |limits| limits.topic_levels_max = 3);
        assert_eq!(
            bench.packet(deep(QoS::AtMostOnce)),
            [Effect::Count(Counted::DroppedTopicLimit)]
        );
        let effects = bench.packet(deep(QoS::AtLeastOnce));
        let [
            Effect::Count(Counted::DroppedTopicLimit),
            Effect::Send(Packet::PubAck(ack)),
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!((ack.packet_id, ack.reason), (id(7), reason));
        assert_eq!(bench.session.unanswered_len(), 0);
    }
}

#[test]
fn the_same_filter_over_and_over_in_one_packet_is_not_endless_work() {
    let mut bench = Bench::v5(0);
    let effects = bench.packet(subscribe(1, &["a"; 100]));
    assert_eq!(
        counted(&effects),
        vec![Counted::SubscriptionsRefused; 100 - LIMITS.subscriptions_max]
    );
    assert!(matches!(effects.last(), Some(Effect::Subscribe { requests, .. }) if requests.len() == 3));
    assert!(!bench.session.wants_input(), "a hundred filters wait");
}

#[test]
fn silence_of_a_client_that_is_not_read_is_not_its_own() {
    let mut bench = Bench::new();
    bench.attach(Connect {
        keep_alive_s: 10,
        ..connect5(0)
    });
    bench.later(60);
    bench.handle(Event::NotRead);
    let effects = bench.handle(Event::Wake);
    assert!(matches!(effects[..], [Effect::WakeAt(_)]), "{effects:?}");
    bench.later(15);
    assert!(
        bench
            .handle(Event::Wake)
            .contains(&disconnected(ReasonCode::KeepAliveTimeout))
    );
}
