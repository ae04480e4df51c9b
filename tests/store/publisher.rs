//! A publisher as a correct client library is one: a session of its own, few packet identifiers that it
//! uses again as soon as it may, everything unacknowledged sent again with DUP, in order, after a reconnect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ermine::mqtt::packet::{Ack, Disconnect, Packet, PacketId, Publish, QoS};
use ermine::mqtt::properties::PublishProperties;
use ermine::mqtt::reason::ReasonCode;

use crate::dice::Dice;
use crate::harness::client::{Client, Options};
use crate::journal::{Fate, Id, Sent, TOPICS};
use crate::keep::Keeps;
use crate::world::{Phase, World, is_silence, topic};

/// Publications under way at one time.
const WINDOW: usize = 16;

/// Packet identifiers in use: so few that each comes again soon, also right after a restart.
const IDS: u16 = 24;

/// What a publication under way is about.
#[derive(Clone, Copy)]
enum Matter {
    /// A message of the load, by its number.
    Load(usize),
    /// A retained value, by its number.
    Kept(usize),
}

/// A publication under way.
struct Flight {
    matter: Matter,
    packet_id: PacketId,
    publish: Publish,
    /// PUBREC came.
    released: bool,
}

pub(crate) struct Publisher {
    no: usize,
    who: String,
    world: Arc<World>,
    options: Options,
    dice: Dice,
    /// In the order of sending.
    flights: Vec<Flight>,
    last_id: u16,
    /// The server has promised something that it can only keep together with the session.
    owed: bool,
    first: bool,
}

impl Publisher {
    pub(crate) fn new(no: usize, world: &Arc<World>) -> Self {
        let who = format!("publisher-{no}");
        let options = if no.is_multiple_of(2) {
            Options::v5(&who)
        } else {
            Options::new(&who)
        };
        Self {
            no,
            world: Arc::clone(world),
            options: options.persistent(),
            dice: world.dice.fork(1000 + no as u64),
            flights: Vec::new(),
            last_id: 0,
            owed: false,
            first: true,
            who,
        }
    }

    /// Publishes until the load is over and all that is under way has come to its end.
    pub(crate) fn run(mut self) -> Self {
        while !self.is_done() {
            let Some(client) = self.world.connect(&self.options, &self.who) else {
                break;
            };
            // However the conversation ended: whatever is under way is taken up by the next one.
            let _ = self.converse(client);
        }
        self
    }

    fn is_done(&self) -> bool {
        self.world.phase() != Phase::Load && self.flights.is_empty()
    }

    fn violated(&self, what: impl std::fmt::Display) {
        self.world.violated(&self.who, what);
    }

    fn converse(&mut self, mut client: Client) -> std::io::Result<()> {
        self.resume(&mut client)?;
        let mut heard = Instant::now();
        loop {
            if self.is_done() {
                return client.try_send(&Packet::Disconnect(Disconnect {
                    reason: ReasonCode::Success,
                    properties: Default::default(),
                }));
            }
            if self.world.phase() == Phase::Load {
                for _ in 0..self.dice.below(5) {
                    self.publish(&mut client)?;
                }
                if self.dice.one_in(300) {
                    return Ok(());
                }
            }
            let wait = self.dice.millis(1, 5);
            match client.next_within(wait) {
                Ok(Some(packet)) => {
                    heard = Instant::now();
                    self.handle(packet, &mut client)?;
                    while let Ok(Some(packet)) = client.next_within(Duration::ZERO) {
                        self.handle(packet, &mut client)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if is_silence(&error) => self.wait_no_longer(&mut heard),
                Err(error) => return Err(error),
            }
        }
    }

    /// A broker that lives answers.
    fn wait_no_longer(&mut self, heard: &mut Instant) {
        if !self.flights.is_empty() && heard.elapsed() > crate::harness::PATIENCE {
            let ids: Vec<_> = self.flights.iter().map(|flight| flight.packet_id).collect();
            self.violated(format!("no acknowledgement of {ids:?}"));
            *heard = Instant::now();
        }
    }

    /// Takes up what the last connection left, or forgets it if the server has.
    fn resume(&mut self, client: &mut Client) -> std::io::Result<()> {
        let present = client.connack.session_present;
        if self.first && present {
            self.violated("session present at the first connection");
        }
        if self.owed && !present {
            self.violated("no session present");
        }
        self.first = false;
        if !present {
            self.owed = false;
            for flight in std::mem::take(&mut self.flights) {
                if !flight.released {
                    self.ends(flight.matter, Fate::Abandoned);
                }
            }
        }
        for flight in &mut self.flights {
            if flight.released {
                client.try_send(&Packet::PubRel(Ack::success(flight.packet_id)))?;
                continue;
            }
            flight.publish.dup = true;
            if let Matter::Load(seq) = flight.matter {
                self.world.sent(self.no)[seq].times += 1;
            }
            client.try_send(&Packet::Publish(flight.publish.clone()))?;
        }
        Ok(())
    }

    fn free_id(&mut self) -> Option<PacketId> {
        for _ in 0..IDS {
            self.last_id = self.last_id % IDS + 1;
            let id = PacketId::new(self.last_id)?;
            if self.flights.iter().all(|flight| flight.packet_id != id) {
                return Some(id);
            }
        }
        None
    }

    /// Sends one more message if there is room for it.
    fn publish(&mut self, client: &mut Client) -> std::io::Result<()> {
        if self.flights.len() >= WINDOW {
            return Ok(());
        }
        let Some(packet_id) = self.free_id() else {
            return Ok(());
        };
        let (matter, topic, qos, payload) = if self.dice.one_in(12) {
            self.keep()
        } else {
            self.message()
        };
        let publish = Publish {
            dup: false,
            qos,
            retain: matches!(matter, Matter::Kept(_)),
            topic: topic.into(),
            packet_id: Some(packet_id),
            properties: PublishProperties::default(),
            payload: Bytes::from(payload),
        };
        self.flights.push(Flight {
            matter,
            packet_id,
            publish: publish.clone(),
            released: false,
        });
        client.try_send(&Packet::Publish(publish))
    }

    fn message(&mut self) -> (Matter, String, QoS, Vec<u8>) {
        let index = self.dice.below(TOPICS as u64) as usize;
        let qos = if self.dice.one_in(2) {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        let mut all = self.world.sent(self.no);
        let seq = all.len();
        all.push(Sent {
            topic: index,
            qos,
            first: Instant::now(),
            times: 1,
            fate: Fate::Open,
        });
        let publisher = self.no;
        (
            Matter::Load(seq),
            topic(index),
            qos,
            Id { publisher, seq }.payload(),
        )
    }

    fn keep(&mut self) -> (Matter, String, QoS, Vec<u8>) {
        let clears = self.dice.one_in(4);
        let number = self.world.keeps.begin(self.no, clears);
        let payload = if clears {
            Vec::new()
        } else {
            number.to_string().into_bytes()
        };
        // One QoS for each topic, so that the values are in order.
        let qos = if self.no % 4 < 2 {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        };
        (Matter::Kept(number), Keeps::topic(self.no), qos, payload)
    }

    fn ends(&self, matter: Matter, fate: Fate) {
        match matter {
            Matter::Load(seq) => self.world.sent(self.no)[seq].fate = fate,
            Matter::Kept(number) => self.world.keeps.end(self.no, number, fate),
        }
    }

    fn handle(&mut self, packet: Packet, client: &mut Client) -> std::io::Result<()> {
        match packet {
            Packet::PubAck(ack) => self.acknowledged(&ack, QoS::AtLeastOnce),
            Packet::PubRec(ack) => {
                let refused = ack.reason as u8 >= 0x80;
                self.acknowledged(&ack, QoS::ExactlyOnce);
                if !refused {
                    client.try_send(&Packet::PubRel(Ack::success(ack.packet_id)))?;
                }
            }
            Packet::PubComp(ack) => {
                let is_it = |flight: &Flight| flight.packet_id == ack.packet_id && flight.released;
                match self.flights.iter().position(is_it) {
                    Some(place) => drop(self.flights.remove(place)),
                    None => self.violated(format!("PUBCOMP {} of nothing", ack.packet_id)),
                }
            }
            Packet::Disconnect(_) => {}
            other => self.violated(format!("unexpected {other:?}")),
        }
        Ok(())
    }

    /// PUBACK or PUBREC: the message is the broker's from now on, unless it refuses it.
    fn acknowledged(&mut self, ack: &Ack, qos: QoS) {
        let is_it = |flight: &Flight| flight.packet_id == ack.packet_id && flight.publish.qos == qos;
        let Some(place) = self.flights.iter().position(is_it) else {
            return self.violated(format!("{qos:?} acknowledgement {} of nothing", ack.packet_id));
        };
        if ack.reason as u8 >= 0x80 {
            if !self.world.may_refuse.load(std::sync::atomic::Ordering::SeqCst) {
                self.violated(format!("refused: {:?}", ack.reason));
            }
            let flight = self.flights.remove(place);
            return self.ends(flight.matter, Fate::Refused);
        }
        if self.flights[place].released {
            return;
        }
        self.ends(self.flights[place].matter, Fate::Promised(Instant::now()));
        if qos == QoS::AtLeastOnce {
            self.flights.remove(place);
        } else {
            self.flights[place].released = true;
            self.owed = true;
        }
    }
}
