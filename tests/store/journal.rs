//! What was sent, what was acknowledged and who got what: the facts that a verdict is made of.

use std::time::Instant;

use ermine::mqtt::packet::QoS;

/// Topics of the load; publishers choose among them.
pub(crate) const TOPICS: usize = 3;

/// A message by its publisher and its number there, from 0 on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Id {
    pub publisher: usize,
    pub seq: usize,
}

/// Longest filler behind the id in a payload.
const FILLER_MAX: usize = 200;

impl Id {
    /// Eight bytes that name the message, and some that only it has.
    pub(crate) fn payload(self) -> Vec<u8> {
        let mut payload = (self.publisher as u32).to_be_bytes().to_vec();
        payload.extend((self.seq as u32).to_be_bytes());
        let mix = self.seq.wrapping_mul(31) + self.publisher * 7;
        payload.extend((0..mix % FILLER_MAX).map(|place| (mix + place) as u8));
        payload
    }

    /// `None` if these are not the bytes of any message of ours.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let publisher = u32::from_be_bytes(payload.get(..4)?.try_into().ok()?);
        let seq = u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?);
        let id = Self {
            publisher: publisher as usize,
            seq: seq as usize,
        };
        (id.payload() == payload).then_some(id)
    }
}

/// What became of a message on its way to the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// No acknowledgement yet.
    Open,
    /// PUBACK or PUBREC came: the broker has promised it.
    Promised(Instant),
    /// The broker said that it does not take it.
    Refused,
    /// The server had forgotten the session, so the client had to forget the message `[MQTT-3.2.2-5]`.
    Abandoned,
}

/// One publication.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Index of the topic.
    pub topic: usize,
    pub qos: QoS,
    /// When it was sent for the first time.
    pub first: Instant,
    /// How often it was sent.
    pub times: u32,
    pub fate: Fate,
}

/// What one subscriber saw of one message.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    pub times: u8,
    /// The packet identifier under which it came last; 0 never.
    pub packet_id: u16,
}

/// What a client did about its subscription, and what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Asked,
    Granted,
    Leaving,
    Left,
}

/// What of a subscription is certain at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    On,
    Off,
    Unknown,
}

/// The history of one subscription.
#[derive(Default, Debug)]
pub(crate) struct Course(Vec<(Instant, Step)>);

impl Course {
    pub(crate) fn note(&mut self, step: Step) {
        self.0.push((Instant::now(), step));
    }

    /// What was certain of it all the time from `from` to `to`.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Standing {
        let before = self.0.partition_point(|(at, _)| *at < from);
        let start = self.0[..before]
            .iter()
            .fold(Standing::Off, |standing, (_, step)| standing.after(*step));
        let during = self.0[before..].iter().take_while(|(at, _)| *at <= to);
        during.fold(start, |standing, (_, step)| {
            let next = standing.after(*step);
            if next == standing { next } else { Standing::Unknown }
        })
    }
}

impl Standing {
    fn after(self, step: Step) -> Self {
        match (self, step) {
            (Self::On, Step::Asked) | (_, Step::Granted) => Self::On,
            (Self::Off, Step::Leaving) | (_, Step::Left) => Self::Off,
            (_, Step::Asked | Step::Leaving) => Self::Unknown,
        }
    }
}

#[test]
fn what_is_certain_of_a_subscription_follows_its_acknowledgements() {
    let mut course = Course::default();
    let moments: Vec<Instant> = [Step::Asked, Step::Granted, Step::Leaving, Step::Left, Step::Asked]
        .into_iter()
        .map(|step| {
            let before = tick();
            course.note(step);
            tick();
            before
        })
        .collect();
    let end = tick();
    assert_eq!(course.between(moments[0], moments[0]), Standing::Off);
    assert_eq!(course.between(moments[2], moments[2]), Standing::On);
    assert_eq!(course.between(moments[2], moments[3]), Standing::Unknown);
    assert_eq!(course.between(moments[1], moments[2]), Standing::Unknown);
    assert_eq!(course.between(moments[4], moments[4]), Standing::Off);
    assert_eq!(course.between(end, end), Standing::Unknown);
}

/// A moment that no other one equals.
#[cfg(test)]
fn tick() -> Instant {
    let now = Instant::now();
    while Instant::now() == now {}
    Instant::now()
}
