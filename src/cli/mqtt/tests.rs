//! Goal: the client keeps its side of MQTT. Method: a broker that is a script: what it must read, and
//! what it says then.

use super::*;
use crate::cli::args::{Cli, Command};
use crate::mqtt::packet::{ConnAck, SubAck};
use crate::mqtt::properties::{AckProperties, ConnAckProperties};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The broker's end of one connection.
struct Script {
    stream: TcpStream,
    decoder: Decoder,
    inbox: BytesMut,
    version: ProtocolVersion,
}

impl Script {
    async fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.decoder.decode(&mut self.inbox).unwrap() {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.inbox).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        Encoder::new(self.version).encode(&packet, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn welcome(&mut self, reason: ReasonCode) -> Connect {
        let Some(Packet::Connect(connect)) = self.read().await else {
            panic!("no CONNECT")
        };
        self.version = connect.version;
        let properties = ConnAckProperties::default();
        self.say(Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            reason,
            properties,
        })))
        .await;
        *connect
    }
}

/// A broker that plays `script` once; its port, and what the script comes to.
async fn broker<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    script: impl FnOnce(Script) -> F + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let played = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let decoder = Decoder::server(PACKET_BYTES_MAX);
        script(Script {
            stream,
            decoder,
            inbox: BytesMut::new(),
            version: ProtocolVersion::V3_1_1,
        })
        .await
    });
    (port, played)
}

async fn run(words: &str, port: u16) -> Result<(), String> {
    let port = port.to_string();
    let words = ["ermine"]
        .into_iter()
        .chain(words.split(' '))
        .chain(["-p", &port]);
    let sentence = |failure: Failure| failure.sentence().to_owned();
    match Cli::try_parse_from(words).unwrap().command {
        Command::Pub(args) => publish(&args).await.map_err(sentence),
        Command::Sub(args) => subscribe(&args).await.map_err(sentence),
        _ => panic!("neither pub nor sub"),
    }
}

fn message(qos: QoS, packet_id: Option<u16>, payload: &'static str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t".into(),
        packet_id: packet_id.and_then(PacketId::new),
        properties: PublishProperties::default(),
        payload: payload.into(),
    })
}

#[tokio::test]
async fn a_message_of_each_qos_is_published_with_its_handshake() {
    for qos in 0..=2_u8 {
        let (port, played) = broker(move |mut script| async move {
            script.welcome(ReasonCode::Success).await;
            let Some(Packet::Publish(publish)) = script.read().await else {
                panic!("no PUBLISH")
            };
            match (qos, publish.packet_id) {
                (1, Some(id)) => script.say(Packet::PubAck(Ack::success(id))).await,
                (2, Some(id)) => {
                    script.say(Packet::PubRec(Ack::success(id))).await;
                    assert!(matches!(script.read().await, Some(Packet::PubRel(_))));
                    script.say(Packet::PubComp(Ack::success(id))).await;
                }
                _ => (),
            }
            assert!(
                matches!(script.read().await, Some(Packet::Disconnect(_))),
                "a clean end"
            );
            publish
        })
        .await;
        assert_eq!(run(&format!("pub -t a/b -m x -r -q {qos}"), port).await, Ok(()));
        let publish = played.await.unwrap();
        assert_eq!(
            (&*publish.topic, &publish.payload[..], publish.retain),
            ("a/b", &b"x"[..], true)
        );
        assert_eq!(publish.qos as u8, qos);
    }
}

#[tokio::test]
async fn a_subscriber_acknowledges_and_ends_after_its_count() {
    let (port, played) = broker(|mut script| async move {
        let connect = script.welcome(ReasonCode::Success).await;
        let Some(Packet::Subscribe(subscribe)) = script.read().await else {
            panic!("no SUBSCRIBE")
        };
        let reasons = vec![ReasonCode::GrantedQoS2];
        let properties = AckProperties::default();
        script
            .say(Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                properties,
                reasons,
            }))
            .await;
        script.say(message(QoS::AtLeastOnce, Some(7), "one")).await;
        assert!(matches!(script.read().await, Some(Packet::PubAck(ack)) if ack.packet_id.get() == 7));
        // The second PUBLISH of the same id is the same message: it does not count twice.
        for _ in 0..2 {
            script.say(message(QoS::ExactlyOnce, Some(8), "two")).await;
            assert!(matches!(script.read().await, Some(Packet::PubRec(_))));
        }
        script
            .say(Packet::PubRel(Ack::success(PacketId::new(8).unwrap())))
            .await;
        assert!(matches!(script.read().await, Some(Packet::PubComp(_))));
        script.say(message(QoS::AtMostOnce, None, "three")).await;
        assert!(matches!(script.read().await, Some(Packet::Disconnect(_))));
        (connect, subscribe)
    })
    .await;
    assert_eq!(run("sub -t t -q 2 -C 3 -i me", port).await, Ok(()));
    let (connect, subscribe) = played.await.unwrap();
    assert_eq!((&*connect.client_id, connect.clean_start), ("me", true));
    assert_eq!(subscribe.filters[0].1.qos, QoS::ExactlyOnce);
}

#[tokio::test]
async fn a_refused_connection_names_the_code_of_its_version() {
    for (version, why) in [("3.1.1", "NotAuthorized 5"), ("5", "NotAuthorized 0x87")] {
        let (port, played) =
            broker(|mut script| async move { script.welcome(ReasonCode::NotAuthorized).await }).await;
        let sentence = run(&format!("pub -t t -m x -V {version}"), port)
            .await
            .unwrap_err();
        assert_eq!(
            sentence,
            format!("the broker at 127.0.0.1:{port} refused the connection ({why})")
        );
        played.await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_subscription_is_a_failure() {
    let (port, played) = broker(|mut script| async move {
        script.welcome(ReasonCode::Success).await;
        let Some(Packet::Subscribe(subscribe)) = script.read().await else {
            panic!("no SUBSCRIBE")
        };
        let reasons = vec![ReasonCode::UnspecifiedError];
        let properties = AckProperties::default();
        script
            .say(Packet::SubAck(SubAck {
                packet_id: subscribe.packet_id,
                properties,
                reasons,
            }))
            .await;
    })
    .await;
    assert_eq!(
        run("sub -t t", port).await.unwrap_err(),
        "the broker refused every subscription"
    );
    played.await.unwrap();
}

#[tokio::test]
async fn a_broker_that_goes_away_or_talks_nonsense_gets_a_sentence() {
    let (port, played) = broker(|mut script| async move {
        script.welcome(ReasonCode::Success).await;
    })
    .await;
    let sentence = run("sub -t t", port).await.unwrap_err();
    assert!(
        sentence.contains("closed the connection") || sentence.contains("is lost"),
        "{sentence}"
    );
    played.await.unwrap();
    let (port, played) = broker(|mut script| async move {
        script.read().await;
        script
            .stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let sentence = run("sub -t t", port).await.unwrap_err();
    assert!(sentence.contains("sent what is not MQTT"), "{sentence}");
    played.await.unwrap();
}

#[tokio::test]
async fn the_time_of_a_subscriber_ends_and_a_missing_count_is_a_failure() {
    for (words, wanted) in [
        ("sub -t t -W 1", Ok(())),
        (
            "sub -t t -W 1 -C 2",
            Err("fewer than 2 messages came within 1 s".into()),
        ),
    ] {
        let (port, played) = broker(|mut script| async move {
            script.welcome(ReasonCode::Success).await;
            let Some(Packet::Subscribe(subscribe)) = script.read().await else {
                panic!("no SUBSCRIBE")
            };
            let reasons = vec![ReasonCode::Success];
            let properties = AckProperties::default();
            script
                .say(Packet::SubAck(SubAck {
                    packet_id: subscribe.packet_id,
                    properties,
                    reasons,
                }))
                .await;
            // Until the client has left.
            while script.read().await.is_some() {}
        })
        .await;
        assert_eq!(run(words, port).await, wanted);
        played.await.unwrap();
    }
}
