//! Shared subscriptions with members on several nodes: one member of the whole cluster gets each message.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ermine::mqtt::packet::{Packet, QoS, Unsubscribe};

use crate::harness::client::{Client, Options};
use crate::harness::host::{Host, Node, eventually};
use crate::{await_route, cluster};

const FILTER: &str = "$share/g/jobs/+";

/// Number of a message → who got it, and whether as a re-delivery.
type Got = Arc<Mutex<BTreeMap<u32, Vec<(usize, bool)>>>>;

/// What a member is told to do.
enum Tell {
    Leave,
    Drop,
}

/// A subscriber that reads and acknowledges until it is told to go.
struct Member {
    tell: Sender<Tell>,
    thread: JoinHandle<()>,
}

impl Member {
    fn of(nth: usize, options: Options, node: &Node, got: &Got) -> Self {
        let mut client = options.connect(node.mqtt);
        client.subscribe(FILTER, QoS::AtLeastOnce);
        let (tell, told) = channel();
        let got = got.clone();
        let thread = std::thread::spawn(move || read(nth, &mut client, &told, &got));
        Self { tell, thread }
    }

    fn go(self, how: Tell) {
        self.tell.send(how).expect("it reads");
        self.thread.join().expect("it read to the end");
    }
}

fn read(nth: usize, client: &mut Client, told: &Receiver<Tell>, got: &Got) {
    loop {
        match told.try_recv() {
            Ok(Tell::Leave) => {
                let packet_id = NonZeroU16::new(60_000).expect("not 0");
                client.send(&Packet::Unsubscribe(Unsubscribe {
                    packet_id,
                    properties: Default::default(),
                    filters: vec![FILTER.into()],
                }));
            }
            Ok(Tell::Drop) => return,
            Err(_) => {}
        }
        match client.next_within(Duration::from_millis(20)) {
            Ok(Some(Packet::Publish(publish))) => {
                let text = String::from_utf8(publish.payload.to_vec()).expect("text");
                let number = text.parse().expect("a number");
                let mut got = got.lock().expect("whole");
                got.entry(number).or_default().push((nth, publish.dup));
                drop(got);
                client.acknowledge(&publish);
            }
            Ok(Some(Packet::UnsubAck(_)) | None) => return,
            Ok(Some(_)) => {}
            // Nothing came in time, or its node was killed.
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn everywhere(host: &Host, nodes: &[Node], filter: &str, with: &[&str]) {
    nodes
        .iter()
        .for_each(|node| await_route(host, &node.name, filter, with));
}

fn publish(client: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        client.publish("jobs/1", &number.to_string(), QoS::AtLeastOnce);
    }
}

fn all_came(got: &Got, count: usize) {
    eventually(&format!("{count} messages"), || {
        (got.lock().expect("whole").len() == count).then_some(())
    });
}

/// How many each of so many members got, and how many of these more than once and as re-deliveries.
fn shares(got: &Got, members: usize) -> (Vec<usize>, usize, usize) {
    let got = got.lock().expect("whole");
    let mut counts = vec![0; members];
    for (nth, _) in got.values().flatten() {
        counts[*nth] += 1;
    }
    let twice = got.values().filter(|takers| takers.len() > 1).count();
    let again = got.values().flatten().filter(|(_, dup)| *dup).count();
    (counts, twice, again)
}

#[test]
fn three_members_on_three_nodes_get_each_message_once_in_turn() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let got = Got::default();
    // Of 3.1.1 and of 5.0.
    let options = [Options::new("m0"), Options::new("m1"), Options::v5("m2")];
    let members: Vec<_> = options
        .into_iter()
        .zip(&nodes)
        .enumerate()
        .map(|(nth, (options, node))| Member::of(nth, options, node, &got))
        .collect();
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    everywhere(&host, &nodes, FILTER, &names);
    for (nth, node) in nodes.iter().enumerate() {
        let first = nth as u32 * 1000;
        let mut publisher = Options::new(&format!("p{nth}")).connect(node.mqtt);
        publish(&mut publisher, first..first + 1000);
    }
    all_came(&got, 3000);
    members.into_iter().for_each(|member| member.go(Tell::Leave));
    let (counts, twice, again) = shares(&got, 3);
    assert_eq!((twice, again), (0, 0));
    assert!(
        counts.iter().all(|count| (998..=1002).contains(count)),
        "{counts:?}"
    );
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn a_publisher_needs_no_members_beside_it_and_plain_subscribers_get_everything() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let got = Got::default();
    let members = [1, 2].map(|nth| Member::of(nth - 1, Options::new(&format!("m{nth}")), &nodes[nth], &got));
    let mut plain = [0, 1].map(|nth| Options::new(&format!("plain{nth}")).connect(nodes[nth].mqtt));
    for client in &mut plain {
        client.subscribe("jobs/#", QoS::AtLeastOnce);
    }
    let mut other = Options::v5("other").connect(nodes[2].mqtt);
    other.subscribe("$share/other/jobs/#", QoS::AtLeastOnce);
    everywhere(&host, &nodes, FILTER, &["n2@127.0.0.1", "n3@127.0.0.1"]);
    everywhere(&host, &nodes, "$share/other/jobs/#", &["n3@127.0.0.1"]);
    everywhere(&host, &nodes, "jobs/#", &["n1@127.0.0.1", "n2@127.0.0.1"]);
    let mut publisher = Options::new("p").connect(nodes[0].mqtt);
    publish(&mut publisher, 0..200);
    all_came(&got, 200);
    for client in plain.iter_mut().chain([&mut other]) {
        for number in 0..200_u32 {
            assert_eq!(client.text(), number.to_string());
        }
        client.assert_quiet();
    }
    members.into_iter().for_each(|member| member.go(Tell::Leave));
    assert_eq!(shares(&got, 2), (vec![100, 100], 0, 0));
    host.assert_balanced("n1@127.0.0.1");
}

/// Publishes on a thread until it is told to stop; how many were acknowledged.
fn stream(node: &Node) -> (Sender<()>, JoinHandle<u32>) {
    let (stop, stopped) = channel();
    let mut publisher = Options::new("p").connect(node.mqtt);
    let thread = std::thread::spawn(move || {
        let mut sent = 0;
        while stopped.try_recv().is_err() {
            publish(&mut publisher, sent..sent + 1);
            sent += 1;
        }
        sent
    });
    (stop, thread)
}

fn reaches(got: &Got, nth: usize, count: usize) {
    eventually(&format!("member {nth} has {count}"), || {
        (shares(got, 3).0[nth] >= count).then_some(())
    });
}

#[test]
fn members_leave_under_traffic_and_nothing_is_lost() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let got = Got::default();
    let member = |nth: usize| Member::of(nth, Options::new(&format!("m{nth}")), &nodes[nth], &got);
    let [first, second, third] = [0, 1, 2].map(member);
    let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
    everywhere(&host, &nodes, FILTER, &names);
    let (stop, publishing) = stream(&nodes[0]);
    reaches(&got, 1, 50);
    second.go(Tell::Leave);
    everywhere(&host, &nodes, FILTER, &["n1@127.0.0.1", "n3@127.0.0.1"]);
    first.go(Tell::Drop);
    everywhere(&host, &nodes, FILTER, &["n3@127.0.0.1"]);
    let before = shares(&got, 3).0[2];
    reaches(&got, 2, before + 50);
    stop.send(()).expect("it publishes");
    let sent = publishing.join().expect("each was acknowledged");
    all_came(&got, sent as usize);
    let (counts, twice, again) = shares(&got, 3);
    println!("{sent} sent, shares {counts:?}, {twice} more than once, {again} with DUP");
    assert!(again >= twice);
    third.go(Tell::Leave);
    host.assert_balanced("n1@127.0.0.1");
}

/// What the killed node had taken and its member had not acknowledged is lost with its memory; what it had
/// not taken goes to another node.
#[test]
fn a_node_is_killed_under_traffic_and_the_others_serve_the_group() {
    let host = Host::new();
    let mut nodes = cluster(&host, 3);
    let got = Got::default();
    let member = |nth: usize| Member::of(nth, Options::new(&format!("m{nth}")), &nodes[nth], &got);
    let [first, second] = [1, 2].map(member);
    everywhere(&host, &nodes, FILTER, &["n2@127.0.0.1", "n3@127.0.0.1"]);
    let (stop, publishing) = stream(&nodes[0]);
    reaches(&got, 2, 50);
    nodes.pop().expect("three").kill();
    everywhere(&host, &nodes, FILTER, &["n2@127.0.0.1"]);
    let before = shares(&got, 3).0[1];
    reaches(&got, 1, before + 50);
    stop.send(()).expect("it publishes");
    let sent = publishing.join().expect("each was acknowledged");
    let last = sent - 1;
    eventually("the last message", || {
        got.lock().expect("whole").get(&last).map(|_| ())
    });
    let (counts, twice, again) = shares(&got, 3);
    let lost = sent as usize - got.lock().expect("whole").len();
    println!("{sent} sent, shares {counts:?}, {twice} more than once, {again} with DUP, {lost} lost");
    // One publisher that awaits each PUBACK has one message on its way.
    assert!(lost <= 1, "{lost} lost");
    first.go(Tell::Leave);
    second.thread.join().expect("its connection ended");
    host.assert_balanced("n1@127.0.0.1");
}

#[test]
fn each_member_gets_as_much_as_any_other_however_many_its_node_has() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let got = Got::default();
    // One on the first node, four on the second.
    let member = |nth: usize, node: &Node| Member::of(nth, Options::new(&format!("m{nth}")), node, &got);
    let mut members = vec![member(0, &nodes[0])];
    members.extend((1..5).map(|nth| member(nth, &nodes[1])));
    everywhere(&host, &nodes, FILTER, &[&nodes[0].name, &nodes[1].name]);
    let mut publisher = Options::new("p").connect(nodes[2].mqtt);
    let mut first = 0;
    // Nodes tell a few times a second how many members they have.
    eventually("each has its fifth", || {
        publish(&mut publisher, first..first + 100);
        first += 100;
        all_came(&got, first as usize);
        let round: Vec<usize> = got
            .lock()
            .expect("whole")
            .range(first - 100..)
            .flat_map(|(_, takers)| takers.iter().map(|(nth, _)| *nth))
            .collect();
        let count = |nth| round.iter().filter(|taker| **taker == nth).count();
        (0..5).all(|nth| (19..=21).contains(&count(nth))).then_some(())
    });
    members.into_iter().for_each(|member| member.go(Tell::Leave));
    let (_, twice, _) = shares(&got, 5);
    assert_eq!(twice, 0);
}

/// A node whose members have no connection gets messages only while no node has others.
#[test]
fn members_that_are_away_on_one_node_get_nothing_while_another_node_has_connected_ones() {
    let host = Host::new();
    let nodes = cluster(&host, 3);
    let away = || Options::v5("away").persistent();
    let mut client = away().connect(nodes[0].mqtt);
    client.subscribe(FILTER, QoS::AtLeastOnce);
    let got = Got::default();
    let here = Member::of(0, Options::new("here"), &nodes[1], &got);
    everywhere(&host, &nodes, FILTER, &[&nodes[0].name, &nodes[1].name]);
    drop(client);
    // Whether it is connected, and how many messages wait for it.
    let figures = || {
        let clients = host.json(&["clients", "--node", &nodes[0].name]);
        let mut clients = clients.as_array().expect("a list").clone().into_iter();
        let mine = clients
            .find(|client| client["client_id"] == "away")
            .expect("it is there");
        (
            mine["connected"] == true,
            mine["queue_len"].as_u64().expect("a number") as usize,
        )
    };
    eventually("it is away", || (!figures().0).then_some(()));
    let mut publisher = Options::new("p").connect(nodes[2].mqtt);
    let mut first = 0;
    eventually("the connected member gets all of a round", || {
        let before = figures().1;
        publish(&mut publisher, first..first + 40);
        first += 40;
        eventually("all of the round are somewhere", || {
            let came = got.lock().expect("whole").len();
            (came + figures().1 == first as usize).then_some(())
        });
        (figures().1 == before).then_some(())
    });
    here.go(Tell::Leave);
    everywhere(&host, &nodes, FILTER, &[&nodes[0].name]);
    publish(&mut publisher, first..first + 5);
    let mut back = away().connect(nodes[0].mqtt);
    let mut last = back.text();
    while last != (first + 4).to_string() {
        last = back.text();
    }
}
