//! A whole session: connections, packets (built and raw), deliveries, answers of the broker and time, in
//! any order. The client's side of it is held to the rules by [`Client`].

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::client::Client;
use crate::input::Input;
use crate::mqtt::codec::Decoder;
use crate::mqtt::packet::{
    Ack, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, Will,
};
use crate::mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, UnsubscribeProperties,
    WillProperties,
};
use crate::mqtt::reason::ReasonCode;
use crate::session::Session;
use crate::session::event::{Attach, ClientLimits, Counted, Effect, Event, PublishToken, QueuePolicy};

/// Small limits, so that each is met.
fn limits() -> ClientLimits {
    ClientLimits {
        receive_maximum: 3,
        inflight_max: INFLIGHT_MAX,
        queue_len_max: 4,
        queue_bytes_max: 1000,
        topic_alias_max: 2,
        subscriptions_max: 3,
        session_expiry_max_s: 1000,
        ..ClientLimits::default()
    }
}

const INFLIGHT_MAX: u16 = 3;

const FILTERS: [&str; 8] = ["a", "b/+", "#", "$share/g/a", "$share/g", "+/b/#", "e", "a/b/c"];
pub(crate) const TOPICS: [&str; 4] = ["a", "b/c", "a/b/c", "$x"];

/// Tries one input.
pub fn run(data: &[u8]) {
    let mut bench = Bench {
        session: Session::new("c".into()),
        client: Client::default(),
        now: Instant::now(),
        wake_at: None,
        tokens: VecDeque::new(),
        subscribes: VecDeque::new(),
        unsubscribes: VecDeque::new(),
        is_authenticating: false,
        has_will: false,
        is_delayed: false,
    };
    let mut input = Input(data);
    while !input.is_empty() {
        bench.step(&mut input);
    }
}

pub(crate) struct Bench {
    pub(crate) session: Session,
    pub(crate) client: Client,
    pub(crate) now: Instant,
    pub(crate) wake_at: Option<Instant>,
    /// Messages that the broker has not answered, with the identifier of their PUBLISH.
    pub(crate) tokens: VecDeque<(PublishToken, u16)>,
    pub(crate) subscribes: VecDeque<(PacketId, usize)>,
    pub(crate) unsubscribes: VecDeque<(PacketId, usize)>,
    /// A re-authentication waits for the broker.
    pub(crate) is_authenticating: bool,
    /// The connection's will was not handed to the broker.
    pub(crate) has_will: bool,
    /// The broker has a will that waits for its delay.
    pub(crate) is_delayed: bool,
}

pub(crate) fn qos(input: &mut Input<'_>) -> QoS {
    QoS::from_bits(input.below(3)).expect("below 3")
}

pub(crate) fn packet_id(input: &mut Input<'_>) -> PacketId {
    PacketId::new(1 + u16::from(input.below(5))).expect("not 0")
}

pub(crate) fn reason(input: &mut Input<'_>) -> ReasonCode {
    match input.below(8) {
        0 => ReasonCode::UnspecifiedError,
        1 => ReasonCode::NotAuthorized,
        2 => ReasonCode::QuotaExceeded,
        _ => ReasonCode::Success,
    }
}

impl Bench {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(26) {
            0 => self.attach(input),
            1..=5 => self.publish(input),
            6 => self.acknowledge(input, Packet::PubAck),
            7 => self.acknowledge(input, Packet::PubRec),
            8 => self.acknowledge(input, Packet::PubRel),
            9 => self.acknowledge(input, Packet::PubComp),
            10 => self.subscribe(input),
            11 => self.unsubscribe(input),
            12 => self.packet(Packet::PingReq),
            13 => self.disconnect(input),
            14 => self.raw(input),
            15..=17 => self.deliver(input),
            18 => self.answer_publish(input),
            19 => self.answer_subscribe(input),
            20 => self.answer_unsubscribe(input),
            21 => {
                if self.session.is_attached() {
                    self.handle(Event::TransportLost);
                }
            }
            22 => self.later(input),
            23 => self.handle(Event::Writable),
            24 => match input.below(8) {
                0 => self.handle(Event::Discard),
                1 => self.handle(Event::Kick(reason(input))),
                2 => self.handle(Event::Malformed(ReasonCode::MalformedPacket)),
                3 => self.handle(Event::TakenOver),
                _ => self.attach(input),
            },
            _ => self.nonsense(input),
        }
    }

    fn attach(&mut self, input: &mut Input<'_>) {
        let version = [
            ProtocolVersion::V3_1,
            ProtocolVersion::V3_1_1,
            ProtocolVersion::V5,
        ][usize::from(input.below(4)).min(2)];
        let is_v5 = version.is_v5();
        let mut properties = ConnectProperties::default();
        if is_v5 {
            properties.session_expiry_interval_s = input.rarely(2, |input| input.byte().into());
            properties.receive_maximum = input.rarely(2, |input| 1 + u16::from(input.below(4)));
            properties.maximum_packet_size = input.rarely(4, |input| 2 + u32::from(input.byte()));
            properties.topic_alias_maximum = input.rarely(2, |input| input.below(3).into());
            properties.authentication_method = input.rarely(3, |_| "m".into());
            properties.request_problem_information = input.rarely(3, Input::flag);
        }
        let will = input.rarely(2, |input| Will {
            topic: "w".into(),
            payload: Bytes::from_static(b"w"),
            qos: qos(input),
            retain: input.flag(),
            properties: WillProperties {
                will_delay_interval_s: if is_v5 {
                    input.rarely(2, |input| input.byte().into())
                } else {
                    None
                },
                publish: PublishProperties::default(),
            },
        });
        let connect = Connect {
            version,
            clean_start: input.below(3) == 1,
            keep_alive_s: input.below(8).into(),
            client_id: "c".into(),
            will,
            username: None,
            password: None,
            properties,
        };
        if self.session.is_attached() && input.flag() {
            self.handle(Event::TakenOver);
        }
        self.handle(Event::Attach(Box::new(Attach {
            connect,
            assigned_client_id: input.flag(),
            limits: ClientLimits {
                queue_qos0: input.below(4) == 1,
                queue_policy: if input.flag() {
                    QueuePolicy::DropOldest
                } else {
                    QueuePolicy::DropNewest
                },
                ..limits()
            },
            authentication_data: None,
        })));
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let qos = qos(input);
        let is_v5 = self.client.version().is_v5();
        let mut properties = PublishProperties::default();
        if is_v5 {
            properties.topic_alias = input.rarely(2, |input| u16::from(input.below(4)));
            properties.message_expiry_interval_s = input.rarely(3, |input| input.below(20).into());
        }
        let aliased = properties.topic_alias.is_some() && input.flag();
        let topic = TOPICS[usize::from(input.below(4))];
        self.packet(Packet::Publish(Publish {
            dup: qos != QoS::AtMostOnce && input.flag(),
            qos,
            retain: input.flag(),
            topic: if aliased { ByteString::new() } else { topic.into() },
            packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(input)),
            properties,
            payload: Bytes::copy_from_slice(input.take(3)),
        }));
    }

    fn acknowledge(&mut self, input: &mut Input<'_>, packet: fn(Ack) -> Packet) {
        let id = packet_id(input);
        let reason = if self.client.version().is_v5() {
            reason(input)
        } else {
            ReasonCode::Success
        };
        self.packet(packet(Ack::with_reason(id, reason)));
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        let packet_id = packet_id(input);
        let handling = [
            RetainHandling::Send,
            RetainHandling::SendIfNew,
            RetainHandling::DontSend,
        ];
        let filters = (0..=input.below(3)).map(|_| {
            let filter = FILTERS[usize::from(input.below(8))].into();
            let options = SubscriptionOptions {
                qos: qos(input),
                no_local: input.flag(),
                retain_as_published: input.flag(),
                retain_handling: handling[usize::from(input.below(3))],
            };
            (filter, options)
        });
        let packet = Subscribe {
            packet_id,
            filters: filters.collect(),
            properties: SubscribeProperties::default(),
        };
        self.packet(Packet::Subscribe(packet));
    }

    fn unsubscribe(&mut self, input: &mut Input<'_>) {
        let packet_id = packet_id(input);
        let filters = (0..=input.below(3)).map(|_| FILTERS[usize::from(input.below(8))].into());
        let packet = Unsubscribe {
            packet_id,
            filters: filters.collect(),
            properties: UnsubscribeProperties::default(),
        };
        self.packet(Packet::Unsubscribe(packet));
    }

    fn disconnect(&mut self, input: &mut Input<'_>) {
        let is_v5 = self.client.version().is_v5();
        let reason = if is_v5 && input.flag() {
            ReasonCode::DisconnectWithWill
        } else {
            ReasonCode::Success
        };
        let properties = DisconnectProperties {
            session_expiry_interval_s: input.rarely(3, |input| input.byte().into()).filter(|_| is_v5),
            ..DisconnectProperties::default()
        };
        self.packet(Packet::Disconnect(Disconnect { reason, properties }));
    }

    /// Bytes as they could come from a socket, through the codec.
    fn raw(&mut self, input: &mut Input<'_>) {
        let len = usize::from(input.byte());
        let mut buf = BytesMut::from(input.take(len));
        let mut decoder = Decoder::connected(self.client.version(), limits().packet_size_max);
        while self.session.is_attached() {
            match decoder.decode(&mut buf) {
                Ok(Some(packet)) => self.packet(packet),
                Ok(None) => break,
                Err(error) => self.handle(Event::Malformed(error.reason)),
            }
        }
    }

    pub(crate) fn packet(&mut self, packet: Packet) {
        if self.session.is_attached() {
            self.client.sends(&packet);
        }
        self.handle(Event::Packet(packet));
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let was_ended = self.session.is_ended();
        let mut published = match &event {
            Event::Packet(Packet::Publish(publish)) if self.session.is_attached() => Some(publish.clone()),
            _ => None,
        };
        let connect = match &event {
            Event::Attach(attach) => Some(attach.connect.clone()),
            _ => None,
        };
        let mut effects = Vec::new();
        self.session.handle(event, self.now, &mut effects);
        // It only books what it is still given.
        let books = |effect: &Effect| {
            matches!(
                effect,
                Effect::Count(_) | Effect::CountTimes(..) | Effect::Settled(_)
            )
        };
        assert!(
            !was_ended || effects.iter().all(books),
            "an ended session is silent"
        );
        let (len, mut is_recalled) = (effects.len(), false);
        for (index, effect) in effects.into_iter().enumerate() {
            match effect {
                Effect::Send(packet) => {
                    if let (Packet::ConnAck(_), Some(connect)) = (&packet, &connect) {
                        self.client.connects(connect, INFLIGHT_MAX);
                        self.has_will = connect.will.is_some();
                    }
                    self.client.reads(&packet);
                }
                Effect::Transmit(transmit) => self.client.receives(&transmit),
                Effect::Publish { token, message, .. } => {
                    let publish = published.take().expect("a PUBLISH is published once");
                    assert_eq!(
                        (message.qos, token.is_some()),
                        (publish.qos, publish.packet_id.is_some())
                    );
                    assert!(!message.topic.is_empty());
                    self.client.is_published(&publish);
                    self.tokens
                        .extend(token.zip(publish.packet_id.map(|id| id.get())));
                }
                Effect::Subscribe { packet_id, requests } => {
                    assert!(!requests.is_empty());
                    self.subscribes.push_back((packet_id, requests.len()));
                }
                Effect::Unsubscribe { packet_id, filters } => {
                    assert!(!filters.is_empty());
                    self.unsubscribes.push_back((packet_id, filters.len()));
                }
                Effect::CloseTransport => self.client.is_gone(),
                Effect::PublishWill { delay_s, .. } => {
                    // A delayed one is recalled and told again when its session ends before its time.
                    assert!(self.has_will || is_recalled, "a will is published once");
                    (self.has_will, is_recalled, self.is_delayed) = (false, false, delay_s > 0);
                }
                Effect::CancelWill => is_recalled = std::mem::take(&mut self.is_delayed),
                Effect::WakeAt(at) => self.wake_at = Some(at),
                Effect::Authenticate { .. } => self.is_authenticating = true,
                // What another member has now is no longer this client's.
                Effect::PassOn { .. } => self.client.is_lossy = true,
                Effect::Count(Counted::DroppedTooLarge) => self.client.is_lossy = true,
                Effect::End => {
                    assert_eq!(index + 1, len, "End is the last effect");
                    assert!(self.session.is_ended());
                }
                Effect::Count(_) | Effect::CountTimes(..) | Effect::ForgetSubscriptions => {}
                Effect::Completed(_) => {}
                Effect::Exchange(..) | Effect::Settled(_) | Effect::Fetch { .. } => {
                    panic!("nothing is stored here")
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        if !self.session.is_attached() {
            self.client.is_gone();
        }
        assert!(self.session.queue_len() <= limits().queue_len_max);
        assert!(self.session.queue_bytes() <= limits().queue_bytes_max);
        assert!(self.session.subscriptions_len() <= limits().subscriptions_max);
        assert!(self.session.inflight_len() <= usize::from(INFLIGHT_MAX));
        if self.session.is_attached() && !self.client.is_lossy {
            assert_eq!(self.session.inflight_len(), self.client.inflight_len());
        }
    }
}
