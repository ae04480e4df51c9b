//! What a client that reads every byte may expect of its session: the rules that each effect is held to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;

use crate::mqtt::codec::{Decoder, EncodeError, Encoder, Envelope, Role, encode_publish};
use crate::mqtt::packet::{Ack, Connect, Packet, ProtocolVersion, Publish, QoS};
use crate::packets::comes_back;
use crate::session::event::Transmit;

/// How far the exchange of a message to the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    /// QoS 1: until PUBACK.
    Once,
    /// QoS 2: until PUBREC.
    Twice,
    /// QoS 2: until PUBCOMP.
    Released,
}

/// Answers that the client may expect, counted by packet identifier.
#[derive(Default)]
struct Owed(BTreeMap<u16, u32>);

impl Owed {
    fn add(&mut self, id: u16) {
        *self.0.entry(id).or_default() += 1;
    }

    fn settle(&mut self, id: u16, what: &str) {
        let owed = self.0.get_mut(&id).filter(|owed| **owed > 0);
        *owed.unwrap_or_else(|| panic!("{what} {id} without its request")) -= 1;
    }
}

/// One connection.
struct Line {
    encoder: Encoder,
    alias_max: u16,
    aliases: BTreeMap<u16, String>,
    window: usize,
    /// Sent on this connection and not acknowledged.
    outstanding: BTreeSet<u16>,
    puback: Owed,
    pubrec: Owed,
    pubcomp: Owed,
    suback: Owed,
    unsuback: Owed,
    pings: u32,
}

/// The client's view of its session, over all its connections.
#[derive(Default)]
pub struct Client {
    line: Option<Line>,
    sent: BTreeMap<u16, Sent>,
    /// Identifiers of its QoS 2 messages that the broker has and that were not released.
    exchanges: BTreeSet<u16>,
    /// A message in flight was given up as too large: which one cannot be told from outside.
    pub is_lossy: bool,
}

impl Client {
    /// A connection begins with this CONNECT; `window_max` is what the broker allows.
    pub fn connects(&mut self, connect: &Connect, window_max: u16) {
        let properties = &connect.properties;
        self.line = Some(Line {
            encoder: Encoder::for_client(connect),
            alias_max: properties.topic_alias_maximum.unwrap_or(0),
            aliases: BTreeMap::new(),
            window: window_max
                .min(properties.receive_maximum.unwrap_or(u16::MAX))
                .into(),
            outstanding: BTreeSet::new(),
            puback: Owed::default(),
            pubrec: Owed::default(),
            pubcomp: Owed::default(),
            suback: Owed::default(),
            unsuback: Owed::default(),
            pings: 0,
        });
    }

    /// The connection has ended.
    pub fn is_gone(&mut self) {
        self.line = None;
    }

    pub fn version(&self) -> ProtocolVersion {
        self.line
            .as_ref()
            .map_or(ProtocolVersion::V5, |line| line.encoder.version)
    }

    pub fn inflight_len(&self) -> usize {
        self.sent.len()
    }

    /// The client sends `packet`; called before the session has it.
    pub fn sends(&mut self, packet: &Packet) {
        let Some(line) = &mut self.line else { return };
        match packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => line.puback.add(id.get()),
                (QoS::ExactlyOnce, Some(id)) => line.pubrec.add(id.get()),
                _ => {}
            },
            Packet::PubRel(ack) => line.pubcomp.add(ack.packet_id.get()),
            Packet::PubRec(ack) => self.received(ack),
            Packet::PubAck(ack) => self.ends(ack, Sent::Once),
            Packet::PubComp(ack) => self.ends(ack, Sent::Released),
            Packet::Subscribe(subscribe) => line.suback.add(subscribe.packet_id.get()),
            Packet::Unsubscribe(unsubscribe) => line.unsuback.add(unsubscribe.packet_id.get()),
            Packet::PingReq => line.pings += 1,
            _ => {}
        }
    }

    fn received(&mut self, ack: &Ack) {
        let id = ack.packet_id.get();
        if ack.reason.is_error() {
            // A refusal ends the exchange, however far it was.
            self.ends(ack, Sent::Twice);
            self.ends(ack, Sent::Released);
        } else if self.sent.get(&id) == Some(&Sent::Twice) {
            self.sent.insert(id, Sent::Released);
        }
    }

    fn ends(&mut self, ack: &Ack, state: Sent) {
        let id = ack.packet_id.get();
        if self.sent.get(&id) == Some(&state) {
            self.sent.remove(&id);
            self.line.as_mut().expect("it sends").outstanding.remove(&id);
        }
    }

    /// The broker was handed the message of this PUBLISH.
    pub fn is_published(&mut self, publish: &Publish) {
        if publish.qos == QoS::ExactlyOnce {
            let id = publish.packet_id.expect("QoS 2").get();
            assert!(self.exchanges.insert(id), "QoS 2 message {id} is published twice");
        }
    }

    /// The broker refused the message of this identifier.
    pub fn is_refused(&mut self, id: u16) {
        self.exchanges.remove(&id);
    }

    /// The session writes `packet`.
    pub fn reads(&mut self, packet: &Packet) {
        let line = self.line.as_mut().expect("nothing is sent into the void");
        let mut out = BytesMut::new();
        match line.encoder.encode(packet, &mut out) {
            Ok(_) => line.understands(&mut out),
            Err(EncodeError::PacketTooLarge { .. }) => {}
            Err(error) => panic!("{error}: {packet:?}"),
        }
        match packet {
            Packet::ConnAck(connack) if !connack.session_present => {
                self.sent.clear();
                self.exchanges.clear();
                self.is_lossy = false;
            }
            Packet::PubAck(ack) => line.puback.settle(ack.packet_id.get(), "PUBACK"),
            Packet::PubRec(ack) => {
                line.pubrec.settle(ack.packet_id.get(), "PUBREC");
                if ack.reason.is_error() {
                    self.exchanges.remove(&ack.packet_id.get());
                }
            }
            Packet::PubComp(ack) => {
                line.pubcomp.settle(ack.packet_id.get(), "PUBCOMP");
                self.exchanges.remove(&ack.packet_id.get());
            }
            Packet::PubRel(ack) if !ack.reason.is_error() => {
                let id = ack.packet_id.get();
                match self.sent.get(&id) {
                    Some(Sent::Released) => drop(line.outstanding.insert(id)),
                    // 3.x has no code to say that the PUBREC was of nothing.
                    None if !line.encoder.version.is_v5() => {}
                    _ if self.is_lossy => {}
                    other => panic!("PUBREL {id} of {other:?}"),
                }
            }
            Packet::SubAck(suback) => line.suback.settle(suback.packet_id.get(), "SUBACK"),
            Packet::UnsubAck(unsuback) => line.unsuback.settle(unsuback.packet_id.get(), "UNSUBACK"),
            Packet::PingResp => {
                line.pings = line.pings.checked_sub(1).expect("a PINGRESP for each PINGREQ");
            }
            _ => {}
        }
    }

    /// The session writes a PUBLISH.
    pub fn receives(&mut self, transmit: &Transmit) {
        let line = self.line.as_mut().expect("nothing is sent into the void");
        let envelope = Envelope {
            dup: transmit.dup,
            qos: transmit.qos,
            retain: transmit.retain,
            packet_id: transmit.packet_id,
            expiry_s: transmit.expiry_s,
            subscription_ids: transmit.subscription_ids.as_slice(),
            alias: transmit.alias,
        };
        let mut out = BytesMut::new();
        encode_publish(&mut out, line.encoder.version, &transmit.message, &envelope).expect("sayable");
        assert!(
            out.len() <= line.encoder.packet_size_max as usize,
            "too large for the client"
        );
        line.understands(&mut out);
        if let Some(alias) = transmit.alias {
            assert!(
                alias.number.get() <= line.alias_max,
                "an alias that was not allowed"
            );
            let known = line
                .aliases
                .insert(alias.number.get(), transmit.message.topic.to_string());
            assert!(
                !alias.known || known.as_deref() == Some(&*transmit.message.topic),
                "a wrong alias"
            );
        }
        let Some(id) = transmit.packet_id.map(|id| id.get()) else {
            return assert_eq!(transmit.qos, QoS::AtMostOnce);
        };
        let state = if transmit.qos == QoS::ExactlyOnce {
            Sent::Twice
        } else {
            Sent::Once
        };
        let before = self.sent.insert(id, state);
        // With DUP it may be new all the same: another member of a shared group had it before.
        assert!(
            self.is_lossy || before.is_none() || (transmit.dup && before == Some(state)),
            "identifier {id}"
        );
        assert!(
            line.outstanding.insert(id),
            "identifier {id} is sent again on one connection"
        );
        assert!(
            self.is_lossy || line.outstanding.len() <= line.window,
            "more than the window"
        );
    }
}

impl Line {
    /// What was written is one packet of a server.
    fn understands(&self, bytes: &mut BytesMut) {
        let version = self.encoder.version;
        let packet = Decoder::client(version, self.encoder.packet_size_max).decode(bytes);
        let packet = packet.unwrap_or_else(|error| panic!("{error}")).expect("whole");
        assert!(bytes.is_empty(), "one packet");
        comes_back(&packet, version, Role::Client);
    }
}
