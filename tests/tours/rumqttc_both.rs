//! The steps that rumqttc can show in both of its versions, 3.1.1 and 5.0.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::harness::PATIENCE;
use crate::rig::{Place, Restarted, Steps};

/// A message as both versions tell it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

/// How to connect. A session that stays outlives its connection.
#[derive(Clone, Default)]
pub(crate) struct How {
    pub(crate) id: Option<String>,
    pub(crate) stays: bool,
    /// Connects again when its connection is lost.
    pub(crate) returns: bool,
    /// Topic and payload, QoS 1.
    pub(crate) will: Option<(String, String)>,
}

/// A client of one version. Connecting again, pinging and acknowledging is rumqttc's own work.
pub(crate) trait Client: Sized + Send {
    /// Connects and awaits the CONNACK.
    fn connect(address: SocketAddr, how: How) -> Self;
    fn session_present(&self) -> bool;
    /// Subscribes and awaits the SUBACK.
    fn subscribe(&mut self, filter: &str, qos: u8);
    /// Unsubscribes and awaits the UNSUBACK.
    fn unsubscribe(&mut self, filter: &str);
    /// Gives a message to rumqttc, which sends it when it may.
    fn send(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool);
    /// Awaits the last acknowledgement of as many QoS 1 and 2 messages.
    fn await_acknowledged(&mut self, count: usize);
    fn next(&mut self) -> Heard;
    /// Awaits that it has lost its connection and has another.
    fn await_reconnected(&mut self);
    /// Awaits that the connection is ended by the server; what it says.
    fn await_end(&mut self) -> String;
    /// DISCONNECT.
    fn leave(self);
    /// The connection breaks without a DISCONNECT.
    fn cut(self);

    fn publish(&mut self, topic: &str, payload: &str, qos: u8) {
        self.send(topic, payload.as_bytes(), qos, false);
        self.await_acknowledged(usize::from(qos > 0));
    }

    #[track_caller]
    fn text(&mut self) -> String {
        String::from_utf8(self.next().payload).expect("text")
    }

    /// Nothing came: what it publishes to itself now is the first that comes.
    #[track_caller]
    fn quiet(&mut self) {
        let topic = name("quiet");
        self.subscribe(&topic, 0);
        self.send(&topic, b"quiet", 0, false);
        assert_eq!(self.next().topic, topic, "what came");
        self.unsubscribe(&topic);
    }
}

/// A client id or topic that nobody else uses.
pub(crate) fn name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-rumqttc-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A publisher and a subscriber, and whether the nodes of both know the subscription.
pub(crate) fn pair<C: Client>(place: &Place, filter: &str, qos: u8) -> (C, C) {
    let mut subscriber = C::connect(place.subscribe(), How::default());
    subscriber.subscribe(filter, qos);
    settle(place, filter);
    (C::connect(place.publish(), How::default()), subscriber)
}

/// Awaits that publishers reach the subscribers of `filter`.
pub(crate) fn settle(place: &Place, filter: &str) {
    crate::harness::host::eventually("the route is known where publishers are", || {
        let routes = place.host.json(&["routes", "--node", &place.nodes[0].name]);
        routes.to_string().contains(filter).then_some(())
    });
}

pub(crate) fn tour<C: Client>(title: &str) {
    let place = Place::one_node();
    let mut steps = Steps::new(title);
    alike::<C>(&mut steps, &place);
    steps.step("retained: set, replaced, cleared", || retained::<C>(&place));
    steps.step("takeover: the older connection of a client id is ended", || {
        takeover::<C>(&place)
    });
    steps.step("shared: three members get each message once", || {
        shared::<C>(&place)
    });
    steps.step("comes back by itself when its node was restarted", restart::<C>);
    steps.finish();

    let place = Place::two_nodes();
    let mut steps = Steps::new(&format!("{title}, two nodes"));
    alike::<C>(&mut steps, &place);
    steps.finish();
}

/// The same with publisher and subscriber on one node or on two.
fn alike<C: Client>(steps: &mut Steps, place: &Place) {
    steps.step(
        "QoS 0, 1 and 2 in both directions: the lower of both holds",
        || qos::<C>(place),
    );
    steps.step(
        "a will: published when the connection breaks, not after DISCONNECT",
        || will::<C>(place),
    );
    steps.step(
        "a persistent session keeps its messages while its client is away",
        || away::<C>(place),
    );
    steps.step("wildcards and empty levels", || wildcards::<C>(place));
    steps.step("thousands at QoS 1 and 2 in order without loss", || {
        flow::<C>(place)
    });
    steps.step(
        "large (900 kB) and empty payloads, topics in every script",
        || payloads::<C>(place),
    );
    steps.step("unsubscribe ends delivery", || unsubscribe::<C>(place));
    steps.step("100 clients at once, each heard by each", || crowd::<C>(place));
}

fn qos<C: Client>(place: &Place) {
    for granted in 0..3 {
        let topic = name("qos");
        let (mut publisher, mut subscriber) = pair::<C>(place, &format!("{topic}/+"), granted);
        for sent in 0..3 {
            publisher.publish(&format!("{topic}/{sent}"), "x", sent);
            let heard = subscriber.next();
            assert_eq!(
                (heard.topic, heard.qos),
                (format!("{topic}/{sent}"), sent.min(granted))
            );
        }
        subscriber.quiet();
    }
}

fn will<C: Client>(place: &Place) {
    let topic = name("will");
    let (_, mut watcher) = pair::<C>(place, &topic, 1);
    let how = How {
        will: Some((topic.clone(), "gone".into())),
        ..How::default()
    };
    C::connect(place.publish(), how.clone()).leave();
    watcher.quiet();
    C::connect(place.publish(), how).cut();
    assert_eq!(watcher.text(), "gone");
}

fn away<C: Client>(place: &Place) {
    let topic = name("offline");
    let how = How {
        id: Some(name("away")),
        stays: true,
        ..How::default()
    };
    let mut away = C::connect(place.subscribe(), how.clone());
    assert!(!away.session_present());
    away.subscribe(&topic, 2);
    settle(place, &topic);
    away.leave();
    let mut publisher = C::connect(place.publish(), How::default());
    for number in 0..100 {
        publisher.publish(&topic, &number.to_string(), 1 + number % 2);
    }
    let mut back = C::connect(place.subscribe(), how.clone());
    assert!(back.session_present());
    for number in 0..100 {
        assert_eq!(back.text(), number.to_string());
    }
    back.quiet();
    back.leave();
    let fresh = C::connect(place.subscribe(), How { stays: false, ..how });
    assert!(!fresh.session_present());
}

fn wildcards<C: Client>(place: &Place) {
    let topic = name("wild");
    for (end, wanted) in [
        ("+", vec!["a", ""]),
        ("#", vec!["a", "", "a/b"]),
        ("+/b", vec!["a/b"]),
    ] {
        let (mut publisher, mut subscriber) = pair::<C>(place, &format!("{topic}/{end}"), 1);
        for level in ["a", "", "a/b"] {
            publisher.publish(&format!("{topic}/{level}"), "x", 1);
        }
        for level in wanted {
            assert_eq!(subscriber.next().topic, format!("{topic}/{level}"));
        }
        subscriber.quiet();
    }
}

fn flow<C: Client>(place: &Place) {
    let topic = name("flow");
    let (mut publisher, mut subscriber) = pair::<C>(place, &topic, 2);
    for (qos, count) in [(1, 3000), (2, 1500)] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..count {
                    publisher.send(&topic, number.to_string().as_bytes(), qos, false);
                }
                publisher.await_acknowledged(count);
            });
            for number in 0..count {
                assert_eq!(subscriber.text(), number.to_string(), "QoS {qos}");
            }
        });
    }
}

fn payloads<C: Client>(place: &Place) {
    for text in ["plain", "zażółć/gęślą", "東京/気温", "emoji/🦦", "a//b"] {
        let topic = format!("{}/{text}", name("unicode"));
        let (mut publisher, mut subscriber) = pair::<C>(place, &topic, 2);
        for payload in [vec![7; 900_000], Vec::new()] {
            publisher.send(&topic, &payload, 2, false);
            publisher.await_acknowledged(1);
            let heard = subscriber.next();
            assert!(heard.topic == topic && heard.payload == payload);
        }
    }
}

fn unsubscribe<C: Client>(place: &Place) {
    let topic = name("unsubscribe");
    let (mut publisher, mut subscriber) = pair::<C>(place, &topic, 1);
    publisher.publish(&topic, "heard", 1);
    assert_eq!(subscriber.text(), "heard");
    subscriber.unsubscribe(&topic);
    publisher.publish(&topic, "unheard", 1);
    subscriber.quiet();
}

fn crowd<C: Client>(place: &Place) {
    let filter = name("crowd");
    let mut crowd: Vec<C> = std::thread::scope(|scope| {
        let enter = |number: usize| {
            let address = if number.is_multiple_of(2) {
                place.publish()
            } else {
                place.subscribe()
            };
            let mut client = C::connect(address, How::default());
            client.subscribe(&filter, 1);
            client
        };
        let entering: Vec<_> = (0..100)
            .map(|number| scope.spawn(move || enter(number)))
            .collect();
        let entered = entering
            .into_iter()
            .map(|thread| thread.join().expect("connected"));
        entered.collect()
    });
    for node in &place.nodes {
        crate::harness::host::eventually("all nodes know of all", || {
            let routes = place.host.json(&["routes", "--node", &node.name]).to_string();
            place
                .nodes
                .iter()
                .all(|other| routes.contains(&other.name))
                .then_some(())
        });
    }
    for (number, client) in crowd.iter_mut().enumerate() {
        client.send(&filter, number.to_string().as_bytes(), 1, false);
    }
    for client in &mut crowd {
        let mut heard: Vec<u32> = (0..100)
            .map(|_| client.text().parse().expect("a number"))
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..100).collect::<Vec<_>>());
    }
}

fn retained<C: Client>(place: &Place) {
    let topic = name("retained");
    let mut publisher = C::connect(place.publish(), How::default());
    for text in ["first", "second"] {
        publisher.send(&topic, text.as_bytes(), 1, true);
    }
    publisher.await_acknowledged(2);
    let mut late = C::connect(place.subscribe(), How::default());
    late.subscribe(&topic, 1);
    let heard = late.next();
    assert_eq!((heard.payload.as_slice(), heard.retain), (&b"second"[..], true));
    publisher.send(&topic, b"", 1, true);
    assert!(!late.next().retain, "RETAIN of what comes live");
    let mut later = C::connect(place.subscribe(), How::default());
    later.subscribe(&topic, 1);
    later.quiet();
}

fn takeover<C: Client>(place: &Place) {
    let how = How {
        id: Some(name("twice")),
        ..How::default()
    };
    let mut older = C::connect(place.publish(), how.clone());
    let mut newer = C::connect(place.publish(), how);
    let said = older.await_end();
    assert!(!said.is_empty());
    newer.publish(&name("t"), "x", 1);
}

fn shared<C: Client>(place: &Place) {
    let topic = name("jobs");
    let mut members: Vec<C> = (0..3)
        .map(|_| C::connect(place.subscribe(), How::default()))
        .collect();
    for member in &mut members {
        member.subscribe(&format!("$share/group/{topic}"), 1);
    }
    let mut publisher = C::connect(place.publish(), How::default());
    for number in 0..300 {
        publisher.publish(&topic, &number.to_string(), 1);
    }
    // The end of each part: what it publishes to itself comes after all else.
    let mut all: Vec<u32> = Vec::new();
    for member in &mut members {
        let end = name("end");
        member.subscribe(&end, 0);
        member.send(&end, b"end", 0, false);
        let mut part: Vec<u32> = Vec::new();
        loop {
            let heard = member.next();
            if heard.topic == end {
                break;
            }
            part.push(
                String::from_utf8(heard.payload)
                    .expect("text")
                    .parse()
                    .expect("a number"),
            );
        }
        assert!(part.len() >= 50, "a fair part: {}", part.len());
        all.extend(part);
    }
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
}

fn restart<C: Client>() {
    let mut node = Restarted::start();
    let topic = name("restart");
    let how = How {
        returns: true,
        ..How::default()
    };
    let mut client = C::connect(node.mqtt, how);
    client.subscribe(&topic, 1);
    client.publish(&topic, "before", 1);
    assert_eq!(client.text(), "before");
    node.again();
    client.await_reconnected();
    client.subscribe(&topic, 1);
    client.publish(&topic, "after", 1);
    assert_eq!(client.text(), "after");
}

/// What a client of either version has heard so far and not handed on.
pub(crate) struct Ear<E> {
    events: std::sync::mpsc::Receiver<E>,
    kept: std::collections::VecDeque<E>,
}

impl<E> Ear<E> {
    pub(crate) fn new(events: std::sync::mpsc::Receiver<E>) -> Self {
        Self {
            events,
            kept: std::collections::VecDeque::new(),
        }
    }

    /// The first event that `wanted` makes something of; the others are kept for later.
    #[track_caller]
    pub(crate) fn find<T>(&mut self, what: &str, wanted: impl Fn(&E) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|event| wanted(event).is_some()) {
            let event = self.kept.remove(at).expect("found there");
            return wanted(&event).expect("as it was found");
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("waited in vain for {what}"));
            if let Some(found) = wanted(&event) {
                return found;
            }
            self.kept.push_back(event);
        }
    }
}
