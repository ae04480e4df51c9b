//! Members of a shared group that crash while they hold messages: what they had goes to another member.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ermine::mqtt::packet::{Packet, QoS, SubscriptionOptions};

use crate::edge::session;
use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::rig::{ROUNDS, Rig, say};
use crate::soak::number;

const FILTER: &str = "$share/group/jobs";

/// What ends the stream; behind it stands how many messages there were.
const END: &str = "end ";

/// Messages that a member holds unacknowledged before it is crashed.
const HELD: usize = 4;

/// Pause between two messages: so much load that messages are on their way at each crash.
const PACE: Duration = Duration::from_millis(2);

/// Publishes numbers, each acknowledged before the next, until it is stopped; how many.
fn publish(mut client: Client, stopped: &Receiver<()>) -> usize {
    for number in 0.. {
        client.publish("jobs", &number.to_string(), QoS::AtLeastOnce);
        if stopped.recv_timeout(PACE).is_ok() {
            client.publish("jobs", &format!("{END}{}", number + 1), QoS::AtLeastOnce);
            return number + 1;
        }
    }
    unreachable!("numbers do not end")
}

/// The member that lives: how often each message came, and whether with DUP.
fn heir(mut client: Client, more: &Sender<()>) -> BTreeMap<String, Vec<bool>> {
    let mut came: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let mut published = None;
    // What a member held that fell last may come behind the end.
    while published != Some(came.len()) {
        let publish = client.message();
        let payload = String::from_utf8(publish.payload.to_vec()).expect("text");
        if let Some(count) = payload.strip_prefix(END) {
            published = Some(count.parse().expect("a number"));
        } else {
            came.entry(payload).or_default().push(publish.dup);
            let _ = more.send(());
        }
    }
    client.assert_quiet();
    came
}

#[test]
fn what_members_of_a_shared_group_held_that_crashed_another_one_gets_with_dup() {
    let rig = Rig::patient("ermine@127.0.0.1");
    let (more, comes) = channel();
    let mut living = Options::v5("heir").connect(rig.node.mqtt);
    living.subscribe(FILTER, QoS::AtLeastOnce);
    let living: JoinHandle<_> = std::thread::spawn(move || heir(living, &more));
    let (stop, stopped) = channel();
    let publisher = Options::v5("publisher").connect(rig.node.mqtt);
    let publisher = std::thread::spawn(move || publish(publisher, &stopped));
    let (mut held, rounds) = (Vec::new(), number("ERMINE_CRASH_ROUNDS").unwrap_or(ROUNDS));
    for _ in 0..rounds {
        let mut mortal = Options::v5("mortal").connect(rig.node.mqtt);
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        // What is published may come before the SUBACK.
        mortal.send_subscribe(FILTER, options);
        let mut got = Vec::new();
        while got.len() < HELD {
            match mortal.next() {
                Packet::Publish(publish) => got.push(publish.payload),
                Packet::SubAck(_) => {}
                other => panic!("instead of a message: {other:?}"),
            }
        }
        rig.crash(&session(&rig, "mortal"));
        while let Some(packet) = mortal.next_within(PATIENCE).expect("closed in time") {
            if let Packet::Publish(publish) = packet {
                got.push(publish.payload);
            }
        }
        held.extend(got);
        comes.recv_timeout(PATIENCE).expect("the group goes on");
    }
    stop.send(()).expect("it publishes");
    let published = publisher.join().expect("every message was acknowledged");
    let came = living.join().expect("it got every message");
    assert_eq!(came.len(), published);
    let doubled: Vec<_> = came.iter().filter(|(_, came)| came.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    for payload in &held {
        let payload = std::str::from_utf8(payload).expect("text");
        assert_eq!(
            came.get(payload),
            Some(&vec![true]),
            "{payload} was held by another"
        );
    }
    let dropped = rig.counters().into_iter();
    let dropped: Vec<_> = dropped
        .filter(|(name, count)| *count > 0 && name.starts_with("dropped_"))
        .collect();
    assert!(dropped.is_empty(), "{dropped:?}");
    say(&format!(
        "crash of a member of a shared group, {rounds} times: {published} messages, {} held by members that \
         crashed and redelivered with DUP, none lost, none doubled",
        held.len(),
    ));
}
