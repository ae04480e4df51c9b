//! rumqttc speaks 5.0.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, Filter, LastWill, LastWillProperties, Packet, Publish, PublishProperties,
    RetainForwardRule, SubscribeProperties,
};
use rumqttc::v5::{Event, MqttOptions};

use crate::rig::{Place, Steps};

use crate::rumqttc_both::{Client, Ear, Heard, How, name, pair, tour};

/// Time between two attempts to connect.
const BEFORE_RETURN: Duration = Duration::from_millis(50);

pub(crate) struct Rumqttc {
    client: rumqttc::v5::Client,
    ear: Ear<Result<Packet, String>>,
    connack: ConnAck,
    /// Dropped or used, it ends the thread, and so the connection without a DISCONNECT.
    cut: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Rumqttc {
    pub(crate) fn with(options: MqttOptions) -> Self {
        Self::that(options, false)
    }

    /// Its thread ends with its connection unless it `returns`.
    fn that(options: MqttOptions, returns: bool) -> Self {
        let (client, mut connection) = rumqttc::v5::Client::new(options, 10);
        let (tell, events) = mpsc::channel();
        let (cut, mut is_cut) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                loop {
                    let event = tokio::select! {
                        event = connection.eventloop.poll() => event,
                        _ = &mut is_cut => return,
                    };
                    let told = match event {
                        Ok(Event::Incoming(packet)) => tell.send(Ok(packet)),
                        Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                        Ok(Event::Outgoing(_)) => Ok(()),
                        Err(error) => {
                            let told = tell.send(Err(error.to_string()));
                            if !returns {
                                return;
                            }
                            tokio::time::sleep(BEFORE_RETURN).await;
                            told
                        }
                    };
                    if told.is_err() {
                        return;
                    }
                }
            });
        });
        let mut ear = Ear::new(events);
        let connack = ear.find("CONNACK", |event| match event {
            Ok(Packet::ConnAck(connack)) => Some(connack.clone()),
            Err(error) => panic!("not connected: {error}"),
            Ok(_) => None,
        });
        Self {
            client,
            ear,
            connack,
            cut,
            thread,
        }
    }

    fn message(&mut self) -> Publish {
        self.ear.find("a message", |event| match event {
            Ok(Packet::Publish(publish)) => Some(publish.clone()),
            _ => None,
        })
    }
}

fn qos(number: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(number)]
}

impl Client for Rumqttc {
    fn connect(address: SocketAddr, how: How) -> Self {
        let returns = how.returns;
        Self::that(options(address, how), returns)
    }

    fn session_present(&self) -> bool {
        self.connack.session_present
    }

    fn subscribe(&mut self, filter: &str, asked: u8) {
        self.client.subscribe(filter, qos(asked)).expect("taken");
        self.ear.find("SUBACK", |event| {
            matches!(event, Ok(Packet::SubAck(_))).then_some(())
        });
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.client.unsubscribe(filter).expect("taken");
        self.ear.find("UNSUBACK", |event| {
            matches!(event, Ok(Packet::UnsubAck(_))).then_some(())
        });
    }

    fn send(&mut self, topic: &str, payload: &[u8], how: u8, retain: bool) {
        self.client
            .publish(topic, qos(how), retain, payload.to_vec())
            .expect("taken");
    }

    fn await_acknowledged(&mut self, count: usize) {
        for _ in 0..count {
            self.ear.find("an acknowledgement", |event| {
                matches!(event, Ok(Packet::PubAck(_) | Packet::PubComp(_))).then_some(())
            });
        }
    }

    fn next(&mut self) -> Heard {
        self.ear.find("a message", |event| match event {
            Ok(Packet::Publish(publish)) => Some(heard(publish)),
            _ => None,
        })
    }

    fn await_reconnected(&mut self) {
        self.await_end();
        self.ear.find("another CONNACK", |event| {
            matches!(event, Ok(Packet::ConnAck(_))).then_some(())
        });
    }

    fn await_end(&mut self) -> String {
        self.ear.find("the end", |event| event.as_ref().err().cloned())
    }

    fn leave(self) {
        self.client.disconnect().expect("taken");
        self.thread.join().expect("it ends");
    }

    fn cut(self) {
        drop(self.cut);
        self.thread.join().expect("it ends");
    }
}

fn options(address: SocketAddr, how: How) -> MqttOptions {
    let id = how.id.unwrap_or_else(|| name("client"));
    let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_start(!how.stays);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = how.stays.then_some(60);
    properties.max_packet_size = Some(1 << 20);
    options.set_connect_properties(properties);
    if let Some((topic, payload)) = how.will {
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None));
    }
    options
}

fn heard(publish: &Publish) -> Heard {
    Heard {
        topic: String::from_utf8(publish.topic.to_vec()).expect("text"),
        payload: publish.payload.to_vec(),
        qos: publish.qos as u8,
        retain: publish.retain,
    }
}

#[test]
fn rumqttc_speaks_5_0() {
    tour::<Rumqttc>("rumqttc 5.0");
}

#[test]
fn rumqttc_uses_what_only_5_0_has() {
    for place in [Place::one_node(), Place::two_nodes()] {
        let nodes = if place.nodes.len() > 1 { ", two nodes" } else { "" };
        let mut steps = Steps::new(&format!("rumqttc 5.0 properties{nodes}"));
        steps.step("properties of a request arrive as they were sent", || {
            request(&place)
        });
        steps.step("topic aliases of the client", || aliases_in(&place));
        steps.step("no-local, subscription identifiers", || subscription(&place));
        steps.step("a will with properties, delayed", || delayed_will(&place));
        steps.step("receive maximum and maximum packet size of the client", || {
            limits(&place)
        });
        steps.finish();
    }
}

fn request(place: &Place) {
    let topic = name("ask");
    let (publisher, mut subscriber) = pair::<Rumqttc>(place, &topic, 2);
    let pairs = [("b", "2"), ("a", "1"), ("a", "ü")].map(|(key, value)| (key.into(), value.into()));
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        topic_alias: None,
        response_topic: Some("answers/here".into()),
        correlation_data: Some(vec![0, 255, 4].into()),
        user_properties: pairs.to_vec(),
        subscription_identifiers: Vec::new(),
        content_type: Some("text/plain".into()),
    };
    let client = &publisher.client;
    client
        .publish_with_properties(&topic, QoS::ExactlyOnce, false, "question", sent.clone())
        .expect("taken");
    let mut got = subscriber.message().properties.expect("properties");
    assert!(
        got.message_expiry_interval
            .is_some_and(|left| (59..=60).contains(&left))
    );
    got.message_expiry_interval = Some(60);
    assert_eq!(got, sent);
}

fn aliases_in(place: &Place) {
    let topic = name("alias");
    let (publisher, mut subscriber) = pair::<Rumqttc>(place, &topic, 1);
    for (named, text) in [(topic.as_str(), "by name"), ("", "by alias")] {
        let properties = PublishProperties {
            topic_alias: Some(7),
            ..PublishProperties::default()
        };
        let client = &publisher.client;
        client
            .publish_with_properties(named, QoS::AtLeastOnce, false, text, properties)
            .expect("taken");
        let heard = subscriber.next();
        assert_eq!(
            (heard.topic, heard.payload),
            (topic.clone(), text.as_bytes().to_vec())
        );
    }
}

fn subscription(place: &Place) {
    let topic = name("options");
    let (mut other, mut seen) = pair::<Rumqttc>(place, &topic, 1);
    let mut subscriber = Rumqttc::connect(place.subscribe(), How::default());
    let filter = Filter {
        path: topic.clone(),
        qos: QoS::AtLeastOnce,
        nolocal: true,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let properties = SubscribeProperties {
        id: Some(77),
        user_properties: Vec::new(),
    };
    let client = &subscriber.client;
    client
        .subscribe_many_with_properties([filter], properties)
        .expect("taken");
    subscriber.ear.find("SUBACK", |event| {
        matches!(event, Ok(Packet::SubAck(_))).then_some(())
    });
    subscriber.publish(&topic, "mine", 1);
    assert_eq!(seen.text(), "mine");
    other.publish(&topic, "yours", 1);
    let got = subscriber.message();
    assert_eq!(&got.payload[..], b"yours");
    assert_eq!(got.properties.expect("properties").subscription_identifiers, [77]);
}

fn delayed_will(place: &Place) {
    let topic = name("will");
    let (_, mut watcher) = pair::<Rumqttc>(place, &topic, 1);
    let mut options = options(
        place.publish(),
        How {
            stays: true,
            ..How::default()
        },
    );
    let properties = LastWillProperties {
        delay_interval: Some(1),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation_data: None,
        user_properties: vec![("a".into(), "1".into())],
    };
    let will = LastWill::new(&topic, "gone", QoS::AtLeastOnce, false, Some(properties));
    options.set_last_will(will);
    let dying = Rumqttc::with(options);
    let began = std::time::Instant::now();
    dying.cut();
    let got = watcher.message().properties.expect("properties");
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "not before its delay"
    );
    assert_eq!(got.content_type.as_deref(), Some("text/plain"));
    assert_eq!(got.user_properties, [("a".to_string(), "1".to_string())]);
}

fn limits(place: &Place) {
    let topic = name("limits");
    let mut how = options(place.subscribe(), How::default());
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(2);
    properties.max_packet_size = Some(200);
    how.set_connect_properties(properties);
    let mut small = Rumqttc::with(how);
    small.subscribe(&topic, 2);
    let (mut publisher, mut large) = pair::<Rumqttc>(place, &topic, 2);
    publisher.publish(&topic, &"x".repeat(300), 1);
    for number in 0..100 {
        publisher.publish(&topic, &number.to_string(), 2);
    }
    assert_eq!(large.text().len(), 300);
    for number in 0..100 {
        assert_eq!(small.text(), number.to_string());
        assert_eq!(large.text(), number.to_string());
    }
}
