//! A small MQTT client over our own codec, for `ermine pub` and `ermine sub`.
//!
//! One task, one socket, one thing at a time: whoever publishes waits for the acknowledgement before
//! the next message, whoever subscribes acknowledges before it prints the next one.

mod publish;
mod subscribe;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cli::args::BrokerArgs;
use crate::cli::failure::Failure;
use crate::mqtt::codec::{Decoder, Encoder};
use crate::mqtt::packet::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, Subscribe,
    SubscriptionOptions,
};
use crate::mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties,
};
use crate::mqtt::reason::ReasonCode;

pub(super) use publish::publish;
pub(super) use subscribe::subscribe;

/// Longest wait for the socket and for each answer of the broker.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Largest packet that MQTT can express, in bytes.
const PACKET_BYTES_MAX: u32 = 268_435_455 + 5;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;

/// A connection whose CONNECT was accepted.
struct Client {
    /// `host:port`, for sentences.
    place: String,
    stream: TcpStream,
    decoder: Decoder,
    encoder: Encoder,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Messages that came while an acknowledgement was awaited. Bounded: while we wait we subscribe,
    /// and the broker sends at most its inflight window before it waits for us.
    early: VecDeque<Publish>,
    /// QoS 2 messages that were taken and whose PUBREL has not come `[MQTT-4.3.3-2]`.
    unreleased: HashSet<PacketId>,
    next_id: u16,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    /// When the PINGREQ without answer was sent.
    pinged: Option<Instant>,
}

impl Client {
    /// Dials and connects.
    async fn connect(args: &BrokerArgs, clean_start: bool) -> Result<Self, Failure> {
        let version = match args.mqtt_version.as_str() {
            "3.1" | "31" | "mqttv31" => ProtocolVersion::V3_1,
            "3.1.1" | "311" | "mqttv311" => ProtocolVersion::V3_1_1,
            "5" | "5.0" | "mqttv5" => ProtocolVersion::V5,
            other => {
                return Err(Failure::usage(format!(
                    "-V must be 3.1, 3.1.1 or 5, not '{other}'"
                )));
            }
        };
        let place = format!("{}:{}", args.host, args.port);
        let stream = dial(args, &place).await?;
        let mut client = Self {
            place,
            stream,
            decoder: Decoder::client(version, PACKET_BYTES_MAX),
            encoder: Encoder::new(version),
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            early: VecDeque::new(),
            unreleased: HashSet::new(),
            next_id: 0,
            keep_alive: (args.keep_alive > 0).then(|| Duration::from_secs(args.keep_alive.into())),
            last_sent: Instant::now(),
            pinged: None,
        };
        client
            .send(&Packet::Connect(Box::new(connect_packet(
                args,
                version,
                clean_start,
            )?)))
            .await?;
        match client.answer().await? {
            Packet::ConnAck(ack) if !ack.reason.is_error() => {
                client.take_limits(&ack);
                Ok(client)
            }
            Packet::ConnAck(ack) => Err(client.refused(&ack, version)),
            other => Err(client.unexpected(&other)),
        }
    }

    fn take_limits(&mut self, ack: &ConnAck) {
        if let Some(size) = ack.properties.maximum_packet_size {
            self.encoder.packet_size_max = size;
        }
        if let Some(seconds) = ack.properties.server_keep_alive_s {
            self.keep_alive = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        }
    }

    fn refused(&self, ack: &ConnAck, version: ProtocolVersion) -> Failure {
        let why = if version.is_v5() {
            let said = ack
                .properties
                .reason_string
                .as_ref()
                .map(|said| format!(": {said}"))
                .unwrap_or_default();
            format!("{:?} 0x{:02X}{said}", ack.reason, ack.reason as u8)
        } else {
            let code = ack.return_code();
            format!("{code:?} {}", code as u8)
        };
        Failure::command(format!(
            "the broker at {} refused the connection ({why})",
            self.place
        ))
    }

    /// Subscribes and returns the granted QoS or the failure of each filter.
    async fn subscribe(&mut self, filters: &[String], qos: QoS) -> Result<Vec<ReasonCode>, Failure> {
        let packet_id = self.fresh_id();
        let options = SubscriptionOptions {
            qos,
            ..SubscriptionOptions::default()
        };
        let filters = filters
            .iter()
            .map(|filter| (ByteString::from(filter.as_str()), options))
            .collect();
        let properties = SubscribeProperties::default();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties,
            filters,
        }))
        .await?;
        match self.answer().await? {
            Packet::SubAck(ack) if ack.packet_id == packet_id => Ok(ack.reasons),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Publishes and waits until the broker has taken the message.
    async fn publish(&mut self, topic: &str, payload: Bytes, qos: QoS, retain: bool) -> Result<(), Failure> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.fresh_id());
        let properties = PublishProperties::default();
        let topic = ByteString::from(topic);
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        }))
        .await?;
        let Some(packet_id) = packet_id else { return Ok(()) };
        let ack = match self.answer().await? {
            Packet::PubAck(ack) if qos == QoS::AtLeastOnce => ack,
            Packet::PubRec(ack) if qos == QoS::ExactlyOnce => ack,
            other => return Err(self.unexpected(&other)),
        };
        if ack.packet_id != packet_id || ack.reason.is_error() {
            let why = format!("{:?} 0x{:02X}", ack.reason, ack.reason as u8);
            return Err(Failure::command(format!(
                "the broker at {} refused the message ({why})",
                self.place
            )));
        }
        if qos == QoS::ExactlyOnce {
            self.send(&Packet::PubRel(Ack::success(packet_id))).await?;
            match self.answer().await? {
                Packet::PubComp(ack) if ack.packet_id == packet_id => (),
                other => return Err(self.unexpected(&other)),
            }
        }
        Ok(())
    }

    /// The next message; waits for ever.
    async fn message(&mut self) -> Result<Publish, Failure> {
        loop {
            if let Some(publish) = self.early.pop_front() {
                return Ok(publish);
            }
            match self.packet(None).await? {
                Some(Packet::Disconnect(disconnect)) => {
                    let reason = disconnect.reason;
                    let why = format!("{reason:?} 0x{:02X}", reason as u8);
                    return Err(Failure::command(format!(
                        "the broker at {} disconnected ({why})",
                        self.place
                    )));
                }
                Some(other) => return Err(self.unexpected(&other)),
                None => (),
            }
        }
    }

    /// Says DISCONNECT. What the network does with it does not matter any more.
    async fn end(mut self) {
        let properties = DisconnectProperties::default();
        let packet = Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties,
        });
        if self.send(&packet).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    /// The next packet that answers something we said, within [`ANSWER_MAX`].
    async fn answer(&mut self) -> Result<Packet, Failure> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            if let Some(packet) = self.packet(Some(deadline)).await? {
                return Ok(packet);
            }
        }
    }

    /// Reads one packet. Messages are acknowledged and laid in `early`, pings taken note of; any other
    /// packet is returned.
    async fn packet(&mut self, deadline: Option<Instant>) -> Result<Option<Packet>, Failure> {
        loop {
            let decoded = self.decoder.decode(&mut self.inbox).map_err(|error| {
                Failure::command(format!(
                    "the broker at {} sent what is not MQTT: {error}",
                    self.place
                ))
            })?;
            match decoded {
                Some(Packet::Publish(publish)) => return self.received(publish).await.map(|()| None),
                Some(Packet::PubRel(release)) => {
                    self.unreleased.remove(&release.packet_id);
                    self.send(&Packet::PubComp(Ack::success(release.packet_id)))
                        .await?;
                }
                Some(Packet::PingResp) => self.pinged = None,
                Some(other) => return Ok(Some(other)),
                None => self.read(deadline).await?,
            }
        }
    }

    async fn received(&mut self, publish: Publish) -> Result<(), Failure> {
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => {
                self.send(&Packet::PubAck(Ack::success(packet_id))).await?;
                self.early.push_back(publish);
            }
            (QoS::ExactlyOnce, Some(packet_id)) => {
                self.send(&Packet::PubRec(Ack::success(packet_id))).await?;
                if self.unreleased.insert(packet_id) {
                    self.early.push_back(publish);
                }
            }
            _ => self.early.push_back(publish),
        }
        Ok(())
    }

    /// Waits for bytes, and keeps the connection alive meanwhile.
    async fn read(&mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        let gone = |place: &str, how: String| {
            Failure::command(format!("the broker at {place} closed the connection ({how})"))
        };
        self.inbox.reserve(READ_BYTES);
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        let ping = match (self.keep_alive, self.pinged) {
            // Half of it, so that a PINGREQ that is late on its way is still in time.
            (Some(keep_alive), None) => self.last_sent + keep_alive / 2,
            (Some(_), Some(pinged)) => pinged + ANSWER_MAX,
            (None, _) => far,
        };
        let until = deadline.unwrap_or(far).min(ping);
        match timeout_at(until, self.stream.read_buf(&mut self.inbox)).await {
            Ok(Ok(0)) => Err(gone(&self.place, "end of stream".into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(gone(&self.place, error.to_string())),
            Err(_) if deadline == Some(until) || self.pinged.is_some() => Err(Failure::command(format!(
                "the broker at {} does not answer: nothing came within {} s",
                self.place,
                ANSWER_MAX.as_secs()
            ))),
            Err(_) => {
                self.send(&Packet::PingReq).await?;
                self.pinged = Some(Instant::now());
                Ok(())
            }
        }
    }

    async fn send(&mut self, packet: &Packet) -> Result<(), Failure> {
        let unsendable = |error| Failure::command(format!("cannot send that to {}: {error}", self.place));
        self.outbox.clear();
        self.encoder
            .encode(packet, &mut self.outbox)
            .map_err(unsendable)?;
        let place = &self.place;
        let lost = |how: String| Failure::command(format!("the connection to {place} is lost ({how})"));
        match timeout(ANSWER_MAX, self.stream.write_all(&self.outbox)).await {
            Ok(Ok(())) => self.last_sent = Instant::now(),
            Ok(Err(error)) => return Err(lost(error.to_string())),
            Err(_) => return Err(lost("the broker does not read".into())),
        }
        Ok(())
    }

    fn fresh_id(&mut self) -> PacketId {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.next_id).expect("counted from 1 and never wrapped to 0")
    }

    fn unexpected(&self, packet: &Packet) -> Failure {
        let what = match packet {
            Packet::Disconnect(disconnect) => {
                format!(
                    "disconnected ({:?} 0x{:02X})",
                    disconnect.reason, disconnect.reason as u8
                )
            }
            _ => "answered with a packet that does not fit".into(),
        };
        Failure::command(format!("the broker at {} {what}", self.place))
    }
}

async fn dial(args: &BrokerArgs, place: &str) -> Result<TcpStream, Failure> {
    let host = args.host.trim_start_matches('[').trim_end_matches(']');
    let failed = |cause: String| {
        Failure::command(format!(
            "cannot connect to {place} ({cause}): does a broker listen there?"
        ))
    };
    let stream = match timeout(ANSWER_MAX, TcpStream::connect((host, args.port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
    };
    stream
        .set_nodelay(true)
        .map_err(|error| failed(error.to_string()))?;
    Ok(stream)
}

fn connect_packet(
    args: &BrokerArgs,
    version: ProtocolVersion,
    clean_start: bool,
) -> Result<Connect, Failure> {
    let mut properties = ConnectProperties::default();
    if !clean_start && version.is_v5() {
        // What "keep the session" meant before 5.0: it never expires.
        properties.session_expiry_interval_s = Some(u32::MAX);
    }
    // 3.1 has no empty client ids.
    let chosen = (version == ProtocolVersion::V3_1).then(|| format!("ermine-{}", std::process::id()));
    Ok(Connect {
        version,
        clean_start,
        keep_alive_s: args.keep_alive,
        client_id: args.id.clone().or(chosen).unwrap_or_default().into(),
        will: None,
        username: args.username.as_deref().map(ByteString::from),
        password: password(args)?,
        properties,
    })
}

/// The first line of the password file.
fn password(args: &BrokerArgs) -> Result<Option<Bytes>, Failure> {
    let Some(path) = &args.password_file else {
        return Ok(None);
    };
    let text = std::fs::read(path).map_err(|error| {
        Failure::usage(format!(
            "cannot read the password file {}: {error}",
            path.display()
        ))
    })?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Some(Bytes::copy_from_slice(
        line.strip_suffix(b"\r").unwrap_or(line),
    )))
}

/// The QoS of `-q`, whose range clap has checked.
fn qos(args: &BrokerArgs) -> QoS {
    QoS::from_bits(args.qos).unwrap_or_default()
}

#[cfg(test)]
mod tests;
