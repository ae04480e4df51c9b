//! Clients that send too much, too little, or by halves.

use std::io::Write;
use std::net::TcpStream;

use ermine::limits::{HELLO_BYTES_MAX, OUTBOX_BYTES_MAX, PACKET_SIZE_MAX, TRAY_BYTES_MAX};
use ermine::mqtt::codec;
use ermine::mqtt::packet::{Packet, ProtocolVersion, Publish, QoS};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, eventually};
use crate::scale::{Scale, Witness, counted, flood_bytes};

fn encoded(topic: &str, payload: &[u8], retain: bool) -> Vec<u8> {
    let packet = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain,
        topic: topic.to_owned().into(),
        packet_id: None,
        properties: Default::default(),
        payload: payload.to_vec().into(),
    });
    let mut out = Vec::new();
    codec::encode(&packet, ProtocolVersion::V3_1_1, &mut out).expect("encoded");
    out
}

fn clients(address: std::net::SocketAddr, count: usize) -> Vec<Client> {
    let client = |n: usize| Options::new(&format!("client-{n}")).connect(address);
    (0..count).map(client).collect()
}

#[test]
fn packets_that_never_end_cost_what_has_come_of_them() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let witness = Witness::of(node.mqtt);
    let mut partial = clients(node.mqtt, 40);
    let scale = Scale::under(&node);
    let whole = encoded("a", &vec![0; PACKET_SIZE_MAX as usize - 100], false);
    for client in &mut partial {
        client.send_bytes(&whole[..whole.len() - 1]);
    }
    // Read, all of it: each of them is answered when its last byte has come.
    for client in &mut partial {
        client.send_bytes(&whole[whole.len() - 1..]);
        client.assert_quiet();
    }
    // A buffer that grows is for a moment there twice.
    scale.assert_grew_by_at_most("40 partial packets", 2 * 40 * u64::from(PACKET_SIZE_MAX));
    witness.assert_unharmed();
    // Announced and not sent: nothing is reserved for it.
    let scale = Scale::under(&node);
    for client in &mut partial {
        client.send_bytes(&whole[..20]);
    }
    drop(partial);
    scale.assert_grew_by_at_most("40 announced packets", 0);
}

#[test]
fn a_storm_of_tiny_packets_is_read_as_fast_as_it_is_dispatched() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let mut deaf = Options::new("deaf").connect(node.mqtt);
    deaf.subscribe("t/#", QoS::AtMostOnce);
    let witness = Witness::of(node.mqtt);
    let scale = Scale::under(&node);
    let publishers = 32;
    let each = flood_bytes() / 32 / publishers;
    let threads: Vec<_> = clients(node.mqtt, publishers)
        .into_iter()
        .enumerate()
        .map(|(n, mut client)| {
            let one = encoded(&format!("t/{n}"), b"", false);
            let packets = one.repeat((32 << 10) / one.len());
            std::thread::spawn(move || {
                for _ in 0..each.div_ceil(packets.len()) {
                    client.send_bytes(&packets);
                }
                client.assert_quiet();
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("everything was taken");
    }
    // One read of each publisher may be under way at one time: 32 KiB, which as messages weigh thirty times
    // as much.
    let bound = 2 * OUTBOX_BYTES_MAX + publishers * (32 << 10) * 30;
    scale.assert_grew_by_at_most("tiny packets", bound as u64);
    witness.assert_unharmed();
    drop(deaf);
}

#[test]
fn sockets_that_do_not_say_who_they_are_cost_little_and_halt_nobody() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let witness = Witness::of(node.mqtt);
    let scale = Scale::under(&node);
    let connect = || TcpStream::connect(node.mqtt).expect("connected");
    let silent: Vec<_> = (0..3000).map(|_| connect()).collect();
    // A CONNECT that announces as much as it may, and all of that but the end.
    let mut begun = vec![
        0x10, 0x80, 0x80, 0x0C, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0, 0, 0xFF, 0xFF,
    ];
    begun.resize(190 << 10, b'x');
    let mut halves = Vec::new();
    for _ in 0..600 {
        let mut socket = connect();
        // The node may have closed it by now: that is the point.
        let _ = socket.write_all(&begun);
        halves.push(socket);
    }
    eventually("the node defends itself", || {
        (counted(&host, &node, "refused_hello_memory") > 0).then_some(())
    });
    let mut good = Options::new("good").connect(node.mqtt);
    good.subscribe("g", QoS::AtLeastOnce);
    good.publish_and_receive("g");
    // A process for each, of which nobody has asked for more.
    let bound = 2 * HELLO_BYTES_MAX + 3600 * (12 << 10);
    scale.assert_grew_by_at_most("3600 half-open sockets", bound as u64);
    witness.assert_unharmed();
    drop((silent, halves));
}

#[test]
fn retained_messages_wait_in_the_store_until_their_reader_takes_them() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let (count, payload) = (20_000, vec![b'r'; 1000]);
    let mut publisher = Options::new("publisher").connect(node.mqtt);
    let scale = Scale::under(&node);
    for n in 0..count {
        publisher.send_bytes(&encoded(&format!("r/{n}"), &payload, true));
    }
    publisher.assert_quiet();
    let stored = count as u64 * 1600;
    scale.assert_grew_by_at_most("20000 retained", stored + 2 * TRAY_BYTES_MAX as u64);

    let witness = Witness::of(node.mqtt);
    let scale = Scale::under(&node);
    let mut deaf = clients(node.mqtt, 20);
    for client in &mut deaf {
        // Again and again: one that waits already begins anew.
        for id in 1..=200_u8 {
            client.send_bytes(&[0x82, 0x08, 0, id, 0, 3, b'r', b'/', b'#', 1]);
        }
    }
    let mut reader = Options::new("reader").connect(node.mqtt);
    reader.subscribe("r/#", QoS::AtMostOnce);
    for _ in 0..count {
        assert!(reader.message().retain);
    }
    let each = 4 * OUTBOX_BYTES_MAX as u64;
    scale.assert_grew_by_at_most("20 deaf readers of 20 MB", 21 * each);
    witness.assert_unharmed();
}

#[test]
fn a_storm_of_retained_messages_waits_before_the_retainer_up_to_a_bound() {
    let host = Host::new();
    let node = host.start("ermine@127.0.0.1");
    let witness = Witness::of(node.mqtt);
    let scale = Scale::under(&node);
    let threads: Vec<_> = clients(node.mqtt, 8)
        .into_iter()
        .enumerate()
        .map(|(n, mut client)| {
            let packets = encoded(&format!("same/{n}"), &[0; 200], true).repeat(300);
            let times = flood_bytes() / 4 / 8 / packets.len();
            std::thread::spawn(move || {
                for _ in 0..times {
                    client.send_bytes(&packets);
                }
                client.assert_quiet();
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("everything was taken");
    }
    // Each publisher lays down one read at most after the tray is full.
    scale.assert_grew_by_at_most("retained storm", 2 * TRAY_BYTES_MAX as u64 + 8 * (64 << 10) * 2);
    witness.assert_unharmed();
}
