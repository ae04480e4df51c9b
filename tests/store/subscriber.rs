//! A subscriber as a correct client library is one: it keeps the identifiers of QoS 2 messages until their
//! PUBREL, over connections too, and hands a message on once. It may be there, come and go, or be away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ermine::mqtt::packet::{
    Ack, Disconnect, Packet, PacketId, Publish, QoS, Subscribe, SubscriptionOptions, Unsubscribe,
};
use ermine::mqtt::reason::ReasonCode;

use crate::dice::Dice;
use crate::harness::client::{Client, Options};
use crate::journal::{Id, Step};
use crate::world::{Phase, Terms, World, is_silence, topic};

/// When a subscriber is connected during the load; afterwards all are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// As long as there is a broker.
    Stays,
    /// For some tens of milliseconds, again and again.
    ComesAndGoes,
    /// Not at all.
    Away,
    /// Comes and goes, and starts a new session every other time.
    StartsOver,
}

/// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
struct Asked {
    packet_id: PacketId,
    joins: bool,
}

pub(crate) struct Subscriber {
    no: usize,
    who: String,
    world: Arc<World>,
    options: Options,
    terms: Terms,
    habit: Habit,
    dice: Dice,
    /// QoS 2 messages of which the PUBREL has not come.
    taken: HashMap<PacketId, Option<Id>>,
    /// Acknowledgements to be sent, in order.
    due: Vec<Packet>,
    asked: Option<Asked>,
    subscribed: bool,
    owed: bool,
    first: bool,
    next_id: u16,
}

impl Subscriber {
    pub(crate) fn new(no: usize, world: &Arc<World>, habit: Habit) -> Self {
        let who = format!("subscriber-{no}");
        // To start over and last is a thing of 5.0: a clean session of 3.1.1 ends with its connection.
        let options = if no.is_multiple_of(2) || habit == Habit::StartsOver {
            Options::v5(&who)
        } else {
            Options::new(&who)
        };
        Self {
            no,
            world: Arc::clone(world),
            options: options.persistent(),
            terms: world.ledger(no).terms,
            habit,
            dice: world.dice.fork(2000 + no as u64),
            taken: HashMap::new(),
            due: Vec::new(),
            asked: None,
            subscribed: false,
            owed: false,
            first: true,
            next_id: 0,
            who,
        }
    }

    /// Makes the session, and the subscription of those who keep theirs.
    pub(crate) fn enroll(&mut self) {
        let mut client = self.connect().expect("a node");
        if self.terms.toggles.is_none() {
            self.ask(true, &mut client).expect("a node that lives");
            while self.asked.is_some() {
                let packet = client.next();
                self.handle(packet);
            }
        }
    }

    /// Receives until the end of the trial.
    pub(crate) fn run(mut self) -> Self {
        while self.world.phase() != Phase::End || !self.due.is_empty() || !self.taken.is_empty() {
            if self.habit == Habit::Away && self.world.phase() == Phase::Load {
                std::thread::park_timeout(Duration::from_millis(5));
                continue;
            }
            let Some(client) = self.connect() else { break };
            if let Ok(true) = self.converse(client) {
                break;
            }
        }
        self
    }

    fn violated(&self, what: impl std::fmt::Display) {
        self.world.violated(&self.who, what);
    }

    fn connect(&mut self) -> Option<Client> {
        let starts_over =
            self.habit == Habit::StartsOver && self.world.phase() == Phase::Load && self.dice.one_in(2);
        self.options.connect.clean_start = starts_over;
        if starts_over {
            self.world.ledger(self.no).throws_away();
        }
        let client = self.world.connect(&self.options, &self.who)?;
        if starts_over {
            self.owed = false;
            self.world.ledger(self.no).has_thrown_away();
            if client.connack.session_present {
                self.violated("session present at a clean start");
            }
        }
        self.greeted(client.connack.session_present);
        Some(client)
    }

    /// Judges what CONNACK says of the session.
    fn greeted(&mut self, present: bool) {
        if self.first && present {
            self.violated("session present at the first connection");
        }
        if self.owed && !present {
            self.violated("no session present");
        }
        self.first = false;
        // What was not sent is lost with its connection; the server sends again what it belongs to.
        self.due.clear();
        self.asked = None;
        if !present {
            self.taken.clear();
            self.owed = false;
            self.subscribed = false;
        }
    }

    /// Whether it is over, as opposed to: the connection is.
    fn converse(&mut self, mut client: Client) -> std::io::Result<bool> {
        let leaves_at = Instant::now() + self.dice.millis(5, 120);
        let mut pinged = false;
        loop {
            let phase = self.world.phase();
            if phase == Phase::Load {
                let goes = matches!(self.habit, Habit::ComesAndGoes | Habit::StartsOver);
                if goes && Instant::now() > leaves_at {
                    return self.leave(&mut client).map(|()| false);
                }
                self.toggle(&mut client)?;
            }
            if phase == Phase::End && !pinged {
                self.settle_accounts(&mut client)?;
                client.try_send(&Packet::PingReq)?;
                pinged = true;
            }
            match client.next_within(self.dice.millis(1, 5)) {
                Ok(Some(Packet::PingResp)) if self.taken.is_empty() => {
                    self.settle_accounts(&mut client)?;
                    return Ok(true);
                }
                Ok(Some(Packet::PingResp)) => pinged = false,
                Ok(Some(packet)) => self.handle(packet),
                Ok(None) => return Ok(false),
                Err(error) if is_silence(&error) => self.settle_accounts(&mut client)?,
                Err(error) => return Err(error),
            }
            // Acknowledgements come late now and then, so that a crash finds messages on their way.
            if phase != Phase::Load || self.dice.one_in(4) {
                self.settle_accounts(&mut client)?;
            }
        }
    }

    fn settle_accounts(&mut self, client: &mut Client) -> std::io::Result<()> {
        for packet in self.due.drain(..) {
            client.try_send(&packet)?;
        }
        Ok(())
    }

    /// Half of those who go say so.
    fn leave(&mut self, client: &mut Client) -> std::io::Result<()> {
        if self.dice.one_in(2) {
            return Ok(());
        }
        self.settle_accounts(client)?;
        client.try_send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Default::default(),
        }))
    }

    fn toggle(&mut self, client: &mut Client) -> std::io::Result<()> {
        if self.terms.toggles.is_some() && self.asked.is_none() && self.dice.one_in(6) {
            let joins = !self.subscribed;
            return self.ask(joins, client);
        }
        Ok(())
    }

    fn ask(&mut self, joins: bool, client: &mut Client) -> std::io::Result<()> {
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let packet_id = PacketId::new(self.next_id).expect("never 0");
        self.asked = Some(Asked { packet_id, joins });
        let filter = match self.terms.toggles {
            Some(index) => topic(index),
            None => "load/#".into(),
        };
        let step = if joins { Step::Asked } else { Step::Leaving };
        self.world.ledger(self.no).course.note(step);
        let options = SubscriptionOptions {
            qos: self.terms.qos,
            ..SubscriptionOptions::default()
        };
        let packet = if joins {
            Packet::Subscribe(Subscribe {
                packet_id,
                properties: Default::default(),
                filters: vec![(filter.into(), options)],
            })
        } else {
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties: Default::default(),
                filters: vec![filter.into()],
            })
        };
        client.try_send(&packet)
    }

    fn answered(&mut self, packet_id: PacketId, joins: bool) {
        let asked = self.asked.take();
        if !asked.is_some_and(|asked| asked.packet_id == packet_id && asked.joins == joins) {
            return self.violated("an answer to a SUBSCRIBE or UNSUBSCRIBE that nobody sent");
        }
        let step = if joins { Step::Granted } else { Step::Left };
        self.world.ledger(self.no).course.note(step);
        self.subscribed = joins;
        self.owed = true;
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.publish(&publish),
            Packet::PubRel(release) => {
                // Unknown: our PUBCOMP was lost, and we have forgotten it.
                self.taken.remove(&release.packet_id);
                self.due.push(Packet::PubComp(Ack::success(release.packet_id)));
            }
            Packet::SubAck(suback) => {
                let granted = u8::try_from(self.terms.qos as usize).expect("0, 1 or 2");
                if suback.reasons[0] as u8 != granted {
                    self.violated(format!("SUBACK {:?}", suback.reasons));
                }
                self.answered(suback.packet_id, true);
            }
            Packet::UnsubAck(unsuback) => self.answered(unsuback.packet_id, false),
            Packet::Disconnect(_) => {}
            other => self.violated(format!("unexpected {other:?}")),
        }
    }

    fn publish(&mut self, publish: &Publish) {
        let Some(packet_id) = publish.packet_id else {
            return self.violated(format!("QoS 0: {publish:?}"));
        };
        if publish.qos == QoS::AtLeastOnce {
            self.world.received(self.no, publish);
            return self.due.push(Packet::PubAck(Ack::success(packet_id)));
        }
        let id = Id::of(&publish.payload);
        match self.taken.get(&packet_id) {
            None => {
                self.taken.insert(packet_id, id);
                self.world.received(self.no, publish);
            }
            Some(before) if *before != id => {
                let before = *before;
                self.violated(format!(
                    "{packet_id} was {before:?} and is {id:?} before its PUBREL"
                ));
            }
            Some(_) if !publish.dup => self.violated(format!("{packet_id} {id:?} again without DUP")),
            Some(_) => {}
        }
        self.due.push(Packet::PubRec(Ack::success(packet_id)));
    }
}
