//! A desk alone: what a Topic that falls leaves behind, and how the next one goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use actix_rt::{Arbiter, System};

use super::*;
use crate::broker::mail::Ticket;
use crate::broker::port::Parting;
use crate::broker::tables::{Arbiters, Names, Tables};
use crate::broker::wills::message_of;
use crate::mqtt::packet::{QoS, SubscriptionOptions, Will};
use crate::mqtt::properties::WillProperties;
use crate::node_name::{Incarnation, NodeId};

thread_local! {
    /// How many more times a Topic falls over a message to the client `fragile`.
    static FALLS: Cell<u32> = const { Cell::new(0) };
}

pub(super) fn fall_over(port: &Port, message: &Message) {
    if port.client_id == "fragile" && message.topic == "heavy" && FALLS.get() > 0 {
        FALLS.set(FALLS.get() - 1);
        panic!("the Topic falls");
    }
}

fn on_an_arbiter(test: impl FnOnce(Rc<Office>)) {
    System::new().block_on(async {
        let here = Arbiter::current();
        let arbiters = Arbiters::new(vec![here.clone()], here.clone(), here);
        let name = "test@127.0.0.1".parse().expect("a node name");
        let node = NodeId {
            name,
            incarnation: Incarnation(1),
        };
        let tables = Tables::new(node, arbiters, Names::new(3));
        test(Office::open(&tables, 0));
    });
}

fn join(office: &Rc<Office>, desk: &Rc<Desk>, client_id: &str) -> Rc<Port> {
    let port = office.open_port(client_id.into());
    add(desk, &port, SubscriptionOptions::default(), None);
    port
}

fn add(desk: &Rc<Desk>, port: &Rc<Port>, options: SubscriptionOptions, identifier: Option<u32>) {
    desk.push(Entry::Errand(Errand::Join {
        port: port.id.serial,
        options,
        subscription_identifier: identifier,
        ticket: Ticket {
            request: 1,
            position: 0,
        },
    }));
}

fn message(topic: &str) -> Entry {
    let will = Will {
        topic: topic.into(),
        payload: bytes::Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: WillProperties::default(),
    };
    Entry::Message {
        message: message_of(&will, &"p".into(), Instant::now()),
        to: To::All,
        receipt: None,
        from: 0,
    }
}

fn received(port: &Port) -> Vec<String> {
    std::iter::from_fn(|| port.pop())
        .map(|delivery| delivery.message.topic.to_string())
        .collect()
}

/// Works like a Topic and its next lives: each panic is the end of one.
fn work_through_crashes(desk: &Rc<Desk>, office: &Rc<Office>) -> u32 {
    let mut crashes = 0;
    while catch_unwind(AssertUnwindSafe(|| desk.work(office))).is_err() {
        crashes += 1;
    }
    crashes
}

fn three_subscribers(office: &Rc<Office>) -> (Rc<Desk>, [Rc<Port>; 3]) {
    let desk = office.desk(FilterId(1), &"#".into());
    let ports = ["sound", "fragile", "last"].map(|id| join(office, &desk, id));
    assert!(!desk.work(office));
    (desk, ports)
}

#[test]
fn after_one_crash_every_subscriber_has_every_message_once_and_in_order() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        ["before", "heavy", "after"]
            .iter()
            .for_each(|topic| desk.push(message(topic)));
        FALLS.set(1);
        assert_eq!(work_through_crashes(&desk, &office), 1);
        for port in &ports {
            assert_eq!(received(port), ["before", "heavy", "after"]);
        }
        assert_eq!(office.tables().counted().dropped_poison, 0);
    });
}

#[test]
fn the_subscriber_over_whose_message_two_topics_fell_is_passed_over_and_counted() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        ["before", "heavy", "after"]
            .iter()
            .for_each(|topic| desk.push(message(topic)));
        FALLS.set(10);
        assert_eq!(work_through_crashes(&desk, &office), 2);
        FALLS.set(0);
        assert_eq!(received(&ports[0]), ["before", "heavy", "after"]);
        assert_eq!(received(&ports[1]), ["before", "after"]);
        assert_eq!(received(&ports[2]), ["before", "heavy", "after"]);
        assert_eq!(office.tables().counted().dropped_poison, 1);
    });
}

/// The books are no sums of themselves: what is lost without a word is missing in them.
#[test]
fn a_message_that_is_lost_without_a_word_is_missing_in_the_books() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        let missing = || {
            let accounts = office.tally().accounts();
            accounts.map(|account| account.missing())
        };
        office.counters().topic_entries.add(2);
        ["one", "two"].iter().for_each(|topic| desk.push(message(topic)));
        assert_eq!(missing(), [0, 0, 0, 0], "both wait before the topic");
        assert!(!desk.work(&office));
        assert_eq!(missing(), [0, 0, 0, 0], "six copies lie in the inboxes");
        drop(ports[0].pop());
        assert_eq!(missing(), [0, 0, 1, 0]);
        office.close_port(&ports[1], Parting::Crashed);
        assert_eq!(office.tables().counted().dropped_session_crashed, 2);
        assert_eq!(missing(), [0, 0, 1, 0]);
        desk.push(message("three"));
        assert_eq!(missing(), [0, -1, 1, 0], "it came from nowhere");
    });
}

#[test]
fn the_row_of_a_session_that_ends_is_removed_behind_what_came_before() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        desk.push(message("one"));
        office.close_port(&ports[0], Parting::Ended);
        desk.push(message("two"));
        assert!(!desk.work(&office));
        assert_eq!(desk.len(), 2);
        assert!(received(&ports[0]).is_empty());
        assert_eq!(received(&ports[2]), ["one", "two"]);
        // The last row took the place of the first: leaving must find it there.
        office.close_port(&ports[2], Parting::Ended);
        office.close_port(&ports[1], Parting::Ended);
        assert!(!desk.work(&office));
        assert_eq!(desk.len(), 0);
    });
}

#[test]
fn a_full_port_pauses_the_desk_until_it_is_drained_or_slow() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        ports[1].set_outbox(crate::limits::OUTBOX_BYTES_MAX + 1, false, false);
        assert!(!desk.is_paused());
        desk.push(message("a"));
        desk.work(&office);
        assert!(desk.is_paused() && office.is_paused(desk.id));
        ports[1].set_outbox(0, true, false);
        assert!(ports[1].has_drained());
        office.let_go(&ports[1]);
        assert!(!desk.is_paused());

        ports[1].set_outbox(crate::limits::OUTBOX_BYTES_MAX + 1, false, false);
        desk.push(message("b"));
        desk.work(&office);
        assert!(desk.is_paused());
        office.sweep(Instant::now() + crate::limits::SLOW_AFTER);
        assert!(!desk.is_paused() && ports[1].is_slow());
        desk.push(message("c"));
        desk.work(&office);
        assert_eq!(received(&ports[1]), ["a", "b"]);
        assert_eq!(received(&ports[2]), ["a", "b", "c"]);
        assert_eq!(office.tables().counted().dropped_slow_consumer, 1);
    });
}

/// A message that matches several filters, handed to the office as the mail does.
fn publish_jointly(office: &Office, topic: &str, joint: &[Rc<Desk>]) {
    let Entry::Message { message, .. } = message(topic) else {
        unreachable!("a message")
    };
    let joint = Arc::new(joint.iter().map(|desk| desk.id).collect::<Vec<_>>());
    office.open_parcel(
        0,
        Parcel::Message {
            filter: joint[0],
            to: To::Joint(joint),
            message,
            receipt: None,
        },
    );
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        ..SubscriptionOptions::default()
    }
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.8.3-3]
#[test]
fn a_session_with_overlapping_filters_gets_one_copy_for_all_of_them() {
    on_an_arbiter(|office| {
        let desks = [1, 2, 3].map(|id| office.desk(FilterId(id), &format!("f/{id}").into()));
        let [all, one, own] = ["all", "one", "p"].map(|id| office.open_port(id.into()));
        add(&desks[0], &all, options(QoS::AtMostOnce), Some(7));
        add(&desks[1], &all, options(QoS::ExactlyOnce), None);
        add(&desks[2], &all, options(QoS::AtLeastOnce), Some(9));
        add(&desks[1], &one, options(QoS::AtLeastOnce), Some(1));
        let not_mine = SubscriptionOptions {
            no_local: true,
            retain_as_published: true,
            ..options(QoS::ExactlyOnce)
        };
        add(&desks[1], &own, not_mine, Some(4));
        add(&desks[2], &own, options(QoS::AtLeastOnce), Some(5));
        desks.iter().for_each(|desk| assert!(!desk.work(&office)));
        publish_jointly(&office, "t", &desks);
        desks.iter().for_each(|desk| assert!(!desk.work(&office)));
        let got = |port: &Port| {
            let copies: Vec<_> = std::iter::from_fn(|| port.pop()).collect();
            assert_eq!(copies.len(), 1, "{}", port.client_id);
            let mut identifiers = copies[0].subscription_ids.as_slice().to_vec();
            identifiers.sort_unstable();
            (
                copies[0].options.qos,
                copies[0].options.retain_as_published,
                identifiers,
            )
        };
        assert_eq!(got(&all), (QoS::ExactlyOnce, false, vec![7, 9]));
        assert_eq!(got(&one), (QoS::AtLeastOnce, false, vec![1]));
        assert_eq!(got(&own), (QoS::AtLeastOnce, false, vec![5]));
    });
}

/// [MQTT-4.6.0-5]
#[test]
fn messages_of_one_topic_keep_their_order_when_a_matching_filter_comes_or_goes() {
    on_an_arbiter(|office| {
        let desks = [1, 2].map(|id| office.desk(FilterId(id), &format!("f/{id}").into()));
        let (leaves, stays) = (
            join(&office, &desks[0], "leaves"),
            join(&office, &desks[1], "stays"),
        );
        desks.iter().for_each(|desk| assert!(!desk.work(&office)));
        publish_jointly(&office, "1", &desks);
        office.close_port(&leaves, Parting::Ended);
        publish_jointly(&office, "2", &desks);
        // The first desk has lost its last row with the second message still before it.
        assert!(!desks[0].work(&office));
        publish_jointly(&office, "3", &desks);
        desks[1].push(message("4"));
        // It has a row again, and yet the other one leads.
        let back = join(&office, &desks[0], "back");
        assert!(!desks[0].work(&office));
        publish_jointly(&office, "5", &desks);
        assert!(!desks[0].work(&office) && !desks[1].work(&office));
        assert_eq!(received(&stays), ["1", "2", "3", "4", "5"]);
        assert_eq!(received(&back), ["2", "3", "5"]);
    });
}

#[test]
fn a_crash_over_a_message_for_several_filters_loses_no_copy() {
    on_an_arbiter(|office| {
        let desks = [1, 2].map(|id| office.desk(FilterId(id), &format!("f/{id}").into()));
        let sound = join(&office, &desks[0], "sound");
        let fragile = join(&office, &desks[1], "fragile");
        let last = join(&office, &desks[1], "last");
        desks.iter().for_each(|desk| assert!(!desk.work(&office)));
        publish_jointly(&office, "heavy", &desks);
        FALLS.set(1);
        assert_eq!(work_through_crashes(&desks[0], &office), 1);
        for port in [&sound, &fragile, &last] {
            assert_eq!(received(port), ["heavy"]);
        }
        publish_jointly(&office, "heavy", &desks);
        FALLS.set(10);
        assert_eq!(work_through_crashes(&desks[0], &office), 2);
        FALLS.set(0);
        assert_eq!(
            (received(&sound), received(&last)),
            (vec!["heavy".into()], vec!["heavy".into()])
        );
        assert_eq!(received(&fragile), Vec::<String>::new());
    });
}
