//! A small MQTT 3.1.1 client on a blocking socket, over the broker's own codec in its client role.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use ermine::mqtt::codec::{self, Decoder};
use ermine::mqtt::packet::{
    Ack, Connect, Packet, ProtocolVersion, Publish, QoS, Subscribe, SubscriptionOptions,
};
use ermine::mqtt::properties::{ConnectProperties, PublishProperties, SubscribeProperties};
use ermine::mqtt::reason::ReasonCode;

use super::{PATIENCE, Told};

const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;

/// Largest packet it takes, in bytes.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// A client whose CONNECT was accepted.
pub struct Client {
    id: String,
    socket: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    last_id: u16,
}

impl Client {
    /// Connects with a clean session and no keep-alive.
    pub fn connect(address: SocketAddr, id: &str) -> Told<Self> {
        let failed = |error: std::io::Error| format!("client {id} cannot connect to {address}: {error}");
        let socket = TcpStream::connect(address).map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let decoder = Decoder::client(VERSION, PACKET_BYTES_MAX);
        let mut client = Self {
            id: id.into(),
            socket,
            decoder,
            buffer: BytesMut::new(),
            last_id: 0,
        };
        client.send(&Packet::Connect(Box::new(Connect {
            version: VERSION,
            clean_start: true,
            keep_alive_s: 0,
            client_id: id.into(),
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        })))?;
        match client.next()? {
            Packet::ConnAck(ack) if ack.reason == ReasonCode::Success => Ok(client),
            other => Err(client.instead_of("a CONNACK that accepts", &other)),
        }
    }

    /// Subscribes with QoS 1 and waits for the SUBACK.
    pub fn subscribe(&mut self, filter: &str) -> Told {
        let packet_id = self.fresh_id();
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            ..SubscriptionOptions::default()
        };
        let properties = SubscribeProperties::default();
        let filters = vec![(filter.into(), options)];
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }))?;
        match self.next()? {
            Packet::SubAck(ack) if !ack.reasons[0].is_error() => Ok(()),
            other => Err(self.instead_of("a SUBACK that grants", &other)),
        }
    }

    /// Publishes with QoS 1 and waits for the PUBACK: the broker has taken it.
    pub fn publish(&mut self, topic: &str, text: &str) -> Told {
        self.publish_with(topic, text, false)
    }

    /// Publishes a message that the broker keeps for subscribers to come.
    pub fn publish_retained(&mut self, topic: &str, text: &str) -> Told {
        self.publish_with(topic, text, true)
    }

    fn publish_with(&mut self, topic: &str, text: &str, retain: bool) -> Told {
        let id = self.fresh_id();
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain,
            topic: topic.into(),
            packet_id: Some(id),
            properties: PublishProperties::default(),
            payload: Bytes::copy_from_slice(text.as_bytes()),
        }))?;
        match self.next()? {
            Packet::PubAck(ack) if ack.packet_id == id => Ok(()),
            other => Err(self.instead_of("a PUBACK", &other)),
        }
    }

    /// Waits for the next message, acknowledges it, and gives its topic and text.
    pub fn receive(&mut self) -> Told<(String, String)> {
        loop {
            if let Packet::Publish(publish) = self.next()? {
                if let Some(id) = publish.packet_id {
                    self.send(&Packet::PubAck(Ack::success(id)))?;
                }
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                return Ok((publish.topic.to_string(), text));
            }
        }
    }

    /// Waits until the broker closes the connection.
    pub fn wait_for_close(&mut self) -> Told {
        while self.read()?.is_some() {}
        Ok(())
    }

    fn fresh_id(&mut self) -> NonZeroU16 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        NonZeroU16::new(self.last_id).unwrap_or(NonZeroU16::MIN)
    }

    fn send(&mut self, packet: &Packet) -> Told {
        let mut out = Vec::new();
        codec::encode(packet, VERSION, &mut out).map_err(|error| format!("cannot be sent: {error}"))?;
        self.socket
            .write_all(&out)
            .map_err(|error| format!("client {} cannot send: {error}", self.id))
    }

    fn next(&mut self) -> Told<Packet> {
        self.read()?
            .ok_or_else(|| format!("the broker closed the connection of client {}", self.id))
    }

    /// The next packet; `None` when the broker has closed the connection.
    fn read(&mut self) -> Told<Option<Packet>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = self.decoder.decode(&mut self.buffer);
            if let Some(packet) = packet.map_err(|error| format!("the broker sent nonsense: {error}"))? {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut chunk = [0; 16384];
            // A time-out of zero would be refused, and would mean that nothing came in time.
            let read = self
                .socket
                .set_read_timeout(Some(left))
                .and_then(|()| self.socket.read(&mut chunk));
            match read {
                Ok(0) => return Ok(None),
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("nothing came for client {}: {error}", self.id)),
            }
        }
    }

    fn instead_of(&self, wanted: &str, packet: &Packet) -> String {
        format!("client {} got instead of {wanted}: {packet:?}", self.id)
    }
}
