//! Queues that are longer than memory: they lie on the disk, and come from there in order.

use std::time::{Duration, Instant};

use ermine::mqtt::packet::{Ack, Packet, QoS};

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::house::{Ending, House};
use crate::kill::number;
use crate::trial::say;

const ROOMY: &str = "[limits]
queue_len_max = 1000000
queue_bytes_max = 4294967296
";

/// What a queue may add to the memory of a node, however long it is: what the store keeps of its file, what
/// it has not written yet, and some for the allocator.
const GROWTH_MAX: u64 = 160 << 20;

/// Publications under way.
const WINDOW: usize = 256;

fn payload(number: usize, len: usize) -> Vec<u8> {
    let mut payload = (number as u64).to_be_bytes().to_vec();
    payload.resize(len.max(8), number as u8);
    payload
}

/// Publishes so many messages with QoS 1 and awaits their acknowledgements.
fn publish(sender: &mut Client, messages: usize, len: usize) {
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < messages {
        while sent < messages && sent - acknowledged < WINDOW {
            sender.send_publish("mail/long", &payload(sent, len), QoS::AtLeastOnce, false);
            sent += 1;
        }
        match sender.next() {
            Packet::PubAck(ack) if (ack.reason as u8) < 0x80 => acknowledged += 1,
            other => panic!("instead of PUBACK: {other:?}"),
        }
    }
}

/// Receives the messages from `first` to one before `end`, in order.
fn drain(client: &mut Client, first: usize, end: usize, len: usize) {
    for expected in first..end {
        match client.next() {
            Packet::Publish(publish) => {
                assert_eq!(publish.payload, payload(expected, len), "message {expected}");
                client.send(&Packet::PubAck(Ack::success(
                    publish.packet_id.expect("QoS 1 has one"),
                )));
            }
            other => panic!("instead of message {expected}: {other:?}"),
        }
    }
}

fn wake(house: &House) -> Client {
    let client = Options::v5("sleeper").persistent().connect(house.address);
    assert!(client.connack.session_present);
    client
}

/// `ERMINE_STORE_QUEUE=1000000 cargo test --release --test store long -- --nocapture` fills a long one.
#[test]
fn a_long_queue_lies_on_the_disk_and_is_drained_in_order() {
    let Some(messages) = number("ERMINE_STORE_QUEUE") else {
        return say("queue: not asked for; ERMINE_STORE_QUEUE=1000000 does it");
    };
    let (messages, len) = (messages as usize, 256);
    let mut house = House::start(ROOMY);
    let mut client = Options::v5("sleeper").persistent().connect(house.address);
    client.subscribe("mail/#", QoS::AtLeastOnce);
    client.disconnect();
    let mut sender = Options::new("sender").connect(house.address);
    publish(&mut sender, WINDOW, 8);
    drain(&mut wake(&house), 0, WINDOW, 8);
    let before = house.resident();
    let began = Instant::now();
    publish(&mut sender, messages, len);
    let filled = began.elapsed();
    let grown = house.resident().saturating_sub(before);
    let began = Instant::now();
    house.again_after(Ending::Killed);
    let started = began.elapsed();
    let empty = house.resident();
    let began = Instant::now();
    // Half of it by one connection, the rest by the next.
    drain(&mut wake(&house), 0, messages / 2, len);
    let mut client = wake(&house);
    // What was acknowledged last may not have been read when the first connection ended.
    let first = first_of(&mut client, messages / 2);
    drain(&mut client, first, messages, len);
    client.assert_quiet();
    let drained = began.elapsed();
    let grown_again = house.resident().saturating_sub(empty);
    let rate = |took: Duration| messages as f64 / took.as_secs_f64();
    say(&format!(
        "queue: {messages} messages of {len} bytes: filled with {:.0}/s, started again in {} ms, drained \
         with {:.0}/s; grown by {} MiB while filling, by {} MiB while draining",
        rate(filled),
        started.as_millis(),
        rate(drained),
        grown >> 20,
        grown_again >> 20
    ));
    assert!(grown < GROWTH_MAX, "{} MiB", grown >> 20);
    assert!(grown_again < GROWTH_MAX, "{} MiB", grown_again >> 20);
}

/// Takes what comes again with DUP; the number of the first message behind that.
fn first_of(client: &mut Client, half: usize) -> usize {
    let deadline = Instant::now() + PATIENCE;
    let mut next = half.saturating_sub(WINDOW);
    while next < half && Instant::now() < deadline {
        let Packet::Publish(publish) = client.next() else {
            continue;
        };
        let number = u64::from_be_bytes(publish.payload[..8].try_into().expect("eight bytes")) as usize;
        client.acknowledge(&publish);
        assert!(
            publish.dup || number == half,
            "message {number} again without DUP"
        );
        assert!(number <= half, "message {number} before {half}");
        next = number + 1;
    }
    next
}
