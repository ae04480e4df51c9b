//! An MQTT client on a blocking socket that shows every packet, built on the codec in its client role.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ermine::mqtt::codec::{self, Decoder};
use ermine::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, ProtocolVersion, Publish, QoS, Subscribe, SubscriptionOptions,
    Unsubscribe, Will,
};
use ermine::mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, UnsubscribeProperties,
};
use ermine::mqtt::reason::ReasonCode;

use super::PATIENCE;

/// A connected socket, its decoder and the next packet identifier.
pub struct Client {
    pub socket: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    version: ProtocolVersion,
    next_id: u16,
    pub connack: ConnAck,
}

/// What a CONNECT says.
#[derive(Clone)]
pub struct Options {
    pub connect: Connect,
}

impl Options {
    pub fn new(client_id: &str) -> Self {
        Self::of(ProtocolVersion::V3_1_1, client_id)
    }

    pub fn v5(client_id: &str) -> Self {
        Self::of(ProtocolVersion::V5, client_id)
    }

    fn of(version: ProtocolVersion, client_id: &str) -> Self {
        let connect = Connect {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id: client_id.into(),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        Self { connect }
    }

    /// Keeps the session when the connection ends.
    pub fn persistent(mut self) -> Self {
        self.connect.clean_start = false;
        if self.connect.version.is_v5() {
            self.connect.properties.session_expiry_interval_s = Some(3600);
        }
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.connect.keep_alive_s = seconds;
        self
    }

    pub fn will(mut self, topic: &str, payload: &str) -> Self {
        self.connect.will = Some(Will {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Default::default(),
        });
        self
    }

    /// Connects and expects to be accepted.
    #[track_caller]
    pub fn connect(self, address: SocketAddr) -> Client {
        let client = self.try_connect(address).expect("connected");
        assert_eq!(client.connack.reason, ReasonCode::Success, "CONNACK");
        client
    }

    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.connect.username = Some(username.into());
        self.connect.password = Some(Bytes::copy_from_slice(password.as_bytes()));
        self
    }

    /// Connects; the CONNACK may tell of a refusal.
    pub fn try_connect(self, address: SocketAddr) -> std::io::Result<Client> {
        let mut client = self.open(address)?;
        match client.next_within(PATIENCE)? {
            Some(Packet::ConnAck(connack)) => client.connack = *connack,
            other => return Err(std::io::Error::other(format!("instead of CONNACK: {other:?}"))),
        }
        Ok(client)
    }

    /// Sends the CONNECT and awaits nothing.
    pub fn open(self, address: SocketAddr) -> std::io::Result<Client> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let version = self.connect.version;
        let mut client = Client {
            socket,
            decoder: Decoder::client(version, 1 << 28),
            buffer: BytesMut::new(),
            version,
            next_id: 0,
            connack: ConnAck {
                session_present: false,
                reason: ReasonCode::UnspecifiedError,
                properties: Default::default(),
            },
        };
        client.try_send(&Packet::Connect(Box::new(self.connect)))?;
        Ok(client)
    }
}

impl Client {
    pub fn send(&mut self, packet: &Packet) {
        self.try_send(packet).expect("written");
    }

    /// The same where the server may be gone.
    pub fn try_send(&mut self, packet: &Packet) -> std::io::Result<()> {
        let mut out = Vec::new();
        codec::encode(packet, self.version, &mut out).expect("an encodable packet");
        self.socket.write_all(&out)
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("written");
    }

    fn id(&mut self) -> NonZeroU16 {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        NonZeroU16::new(self.next_id).expect("never 0")
    }

    /// The next packet; `None` when the server has closed, an error when nothing came in time.
    pub fn next_within(&mut self, limit: Duration) -> std::io::Result<Option<Packet>> {
        let deadline = Instant::now() + limit;
        loop {
            let decoded = self.decoder.decode(&mut self.buffer);
            if let Some(packet) = decoded.map_err(|error| std::io::Error::other(error.to_string()))? {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut chunk = [0; 65536];
            match self.socket.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> Packet {
        self.next_within(PATIENCE)
            .expect("a packet in time")
            .expect("an open connection")
    }

    /// The next PUBLISH; it is acknowledged. A PUBREL on the way is answered.
    #[track_caller]
    pub fn message(&mut self) -> Publish {
        loop {
            match self.next() {
                Packet::Publish(publish) => {
                    self.acknowledge(&publish);
                    return publish;
                }
                Packet::PubRel(release) => self.send(&Packet::PubComp(Ack::success(release.packet_id))),
                _ => {}
            }
        }
    }

    /// Sends the PUBACK or PUBREC that a PUBLISH asks for.
    pub fn acknowledge(&mut self, publish: &Publish) {
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(&Packet::PubAck(Ack::success(id))),
            (QoS::ExactlyOnce, Some(id)) => self.send(&Packet::PubRec(Ack::success(id))),
            _ => {}
        }
    }

    /// Payload of the next PUBLISH as text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        String::from_utf8(self.message().payload.to_vec()).expect("text")
    }

    /// Asserts that nothing but the end of QoS 2 exchanges and the answer to a PINGREQ comes: everything
    /// sent before it has been handled.
    #[track_caller]
    pub fn assert_quiet(&mut self) {
        self.send(&Packet::PingReq);
        loop {
            match self.next() {
                Packet::PingResp => return,
                Packet::PubRel(release) => self.send(&Packet::PubComp(Ack::success(release.packet_id))),
                other => panic!("something came: {other:?}"),
            }
        }
    }

    /// Subscribes and awaits the SUBACK.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> ReasonCode {
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        self.subscribe_with(filter, options)
    }

    /// The same with all options.
    #[track_caller]
    pub fn subscribe_with(&mut self, filter: &str, options: SubscriptionOptions) -> ReasonCode {
        let packet_id = self.send_subscribe(filter, options);
        match self.next() {
            Packet::SubAck(suback) if suback.packet_id == packet_id => suback.reasons[0],
            other => panic!("instead of SUBACK: {other:?}"),
        }
    }

    /// Sends a SUBSCRIBE without awaiting anything: what is published may come before its SUBACK.
    pub fn send_subscribe(&mut self, filter: &str, options: SubscriptionOptions) -> NonZeroU16 {
        let packet_id = self.id();
        let properties = SubscribeProperties::default();
        let filters = vec![(filter.into(), options)];
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }));
        packet_id
    }

    #[track_caller]
    pub fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.id();
        let properties = UnsubscribeProperties::default();
        let filters = vec![filter.into()];
        self.send(&Packet::Unsubscribe(Unsubscribe {
            packet_id,
            properties,
            filters,
        }));
        match self.next() {
            Packet::UnsubAck(unsuback) => assert_eq!(unsuback.packet_id, packet_id),
            other => panic!("instead of UNSUBACK: {other:?}"),
        }
    }

    /// Sends a PUBLISH without awaiting anything; its packet identifier.
    pub fn send_publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> Option<NonZeroU16> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.id());
        let packet = Publish {
            dup: false,
            qos,
            retain,
            topic: topic.into(),
            packet_id,
            properties: PublishProperties::default(),
            payload: Bytes::copy_from_slice(payload),
        };
        self.send(&Packet::Publish(packet));
        packet_id
    }

    /// Publishes and completes the exchange of its QoS.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        self.publish_with(topic, payload, qos, false);
    }

    #[track_caller]
    pub fn publish_with(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) {
        let Some(id) = self.send_publish(topic, payload.as_bytes(), qos, retain) else {
            return;
        };
        match (qos, self.next()) {
            (QoS::AtLeastOnce, Packet::PubAck(ack)) => assert_eq!(ack.packet_id, id),
            (QoS::ExactlyOnce, Packet::PubRec(ack)) => {
                assert_eq!(ack.packet_id, id);
                self.send(&Packet::PubRel(Ack::success(id)));
                match self.next() {
                    Packet::PubComp(ack) => assert_eq!(ack.packet_id, id),
                    other => panic!("instead of PUBCOMP: {other:?}"),
                }
            }
            (_, other) => panic!("instead of an acknowledgement: {other:?}"),
        }
    }

    /// Publishes QoS 1 to what this client itself subscribes to and receives it.
    #[track_caller]
    pub fn publish_and_receive(&mut self, topic: &str) {
        self.send_publish(topic, b"echo", QoS::AtLeastOnce, false);
        let (mut acknowledged, mut received) = (false, false);
        while !(acknowledged && received) {
            match self.next() {
                Packet::PubAck(_) => acknowledged = true,
                Packet::Publish(publish) => {
                    self.acknowledge(&publish);
                    received = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn disconnect(mut self) {
        let properties = DisconnectProperties::default();
        self.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties,
        }));
        self.assert_closed();
    }

    /// Reads until the server closes; the last packet that it sent, if any.
    #[track_caller]
    pub fn assert_closed(&mut self) -> Option<Packet> {
        let mut last = None;
        while let Some(packet) = self.next_within(PATIENCE).expect("the server closes in time") {
            last = Some(packet);
        }
        last
    }
}
