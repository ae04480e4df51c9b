//! rumqttc speaks 3.1.1.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use rumqttc::{ConnAck, Event, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS};

use crate::rumqttc_both::{Client, Ear, Heard, How, name, tour};

/// Time between two attempts to connect.
const BEFORE_RETURN: Duration = Duration::from_millis(50);

pub(crate) struct Rumqttc {
    client: rumqttc::Client,
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
        let (client, mut connection) = rumqttc::Client::new(options, 10);
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
    options.set_clean_session(!how.stays);
    options.set_max_packet_size(1 << 20, 1 << 20);
    if let Some((topic, payload)) = how.will {
        options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false));
    }
    options
}

fn heard(publish: &Publish) -> Heard {
    Heard {
        topic: publish.topic.clone(),
        payload: publish.payload.to_vec(),
        qos: publish.qos as u8,
        retain: publish.retain,
    }
}

#[test]
fn rumqttc_is_let_in_with_the_right_password() {
    let place = crate::rig::Place::with_password();
    let mut steps = crate::rig::Steps::new("rumqttc 3.1.1, password");
    steps.step("only the right name and password are let in", || {
        let mut right = options(place.publish(), How::default());
        right.set_credentials("ann", "secret");
        Rumqttc::with(right).publish("t", "x", 1);
        let mut wrong = options(place.publish(), How::default());
        wrong.set_credentials("ann", "wrong");
        let (_client, mut connection) = rumqttc::Client::new(wrong, 10);
        let refused = connection.recv().expect("an answer").expect_err("it was let in");
        assert!(refused.to_string().contains("BadUserNamePassword"), "{refused}");
    });
    steps.finish();
}

#[test]
fn rumqttc_speaks_3_1_1() {
    tour::<Rumqttc>("rumqttc 3.1.1");
}
