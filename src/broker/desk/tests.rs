//! A desk alone: what a Topic that falls leaves behind, and how the next one goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use actix_rt::{Arbiter, System};

use super::*;
use crate::broker::mail::Ticket;
use crate::broker::tables::{Arbiters, Names, Tables};
use crate::broker::wills::message_of;
use crate::mqtt::packet::Will;
use crate::mqtt::properties::WillProperties;
use crate::node_name::{Incarnation, NodeId};

thread_local! {
    /// How many more times a Topic falls over a message to the client `fragile`.
    static FALLS: Cell<u32> = const { Cell::new(0) };
}

pub(super) fn fall_over(row: &Row, message: &Message) {
    if row.port.client_id == "fragile" && message.topic == "heavy" && FALLS.get() > 0 {
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
    desk.push(Entry::Errand(Errand::Join {
        port: port.id.serial,
        options: SubscriptionOptions::default(),
        subscription_identifier: None,
        ticket: Ticket {
            request: 1,
            position: 0,
        },
    }));
    port
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

#[test]
fn the_row_of_a_session_that_ends_is_removed_behind_what_came_before() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        desk.push(message("one"));
        office.close_port(&ports[0]);
        desk.push(message("two"));
        assert!(!desk.work(&office));
        assert_eq!(desk.len(), 2);
        assert!(received(&ports[0]).is_empty());
        assert_eq!(received(&ports[2]), ["one", "two"]);
        // The last row took the place of the first: leaving must find it there.
        office.close_port(&ports[2]);
        office.close_port(&ports[1]);
        assert!(!desk.work(&office));
        assert_eq!(desk.len(), 0);
    });
}

#[test]
fn a_full_port_pauses_the_desk_until_it_is_drained_or_slow() {
    on_an_arbiter(|office| {
        let (desk, ports) = three_subscribers(&office);
        ports[1].set_outbox(crate::limits::OUTBOX_BYTES_MAX + 1, false);
        assert!(!desk.is_paused());
        desk.push(message("a"));
        desk.work(&office);
        assert!(desk.is_paused() && office.is_paused(desk.id));
        ports[1].set_outbox(0, true);
        assert!(ports[1].has_drained());
        office.let_go(&ports[1]);
        assert!(!desk.is_paused());

        ports[1].set_outbox(crate::limits::OUTBOX_BYTES_MAX + 1, false);
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

#[test]
fn a_shared_groups_turn_goes_round_the_members_of_all_arbiters() {
    let group = ShareGroup::new(3);
    assert_eq!(group.next_arbiter(), None);
    group.set(0, 2);
    group.set(2, 1);
    let turns: Vec<_> = (0..6).map(|_| group.next_arbiter().unwrap()).collect();
    assert_eq!(turns, [0, 0, 2, 0, 0, 2]);
}
