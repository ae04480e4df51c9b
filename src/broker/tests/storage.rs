//! What waits for the store: a store whose disk is the test's hand.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use ahash::AHashMap;
use bytestring::ByteString;

use super::rig::{Client, Rig, connect, with_rig_that_keeps};
use crate::broker::storage::{
    Answer, Condition, Figures, Listener, Mark, Publication, Retained, RetainedPage, Storage,
};
use crate::mqtt::packet::{Ack, Connect, Packet, PacketId, ProtocolVersion, QoS};
use crate::mqtt::properties::ConnectProperties;
use crate::mqtt::reason::ReasonCode;
use crate::session::lasting::{Change, Page, Restored, Seq, SessionNo};

/// Notes what it is told; commits and fails on command.
#[derive(Default)]
pub(super) struct Hand {
    numbers: AtomicU64,
    noted: Mutex<Vec<Change>>,
    apart: Mutex<AHashMap<Publication, Vec<Change>>>,
    retained: Mutex<Vec<(ByteString, Retained)>>,
    /// How many of what was noted are safe.
    safe: AtomicU64,
    failing: AtomicBool,
    listener: Mutex<Option<Listener>>,
}

impl Hand {
    fn tell(&self) {
        let listener = self.listener.lock().unwrap().clone();
        if let Some(listener) = listener {
            listener();
        }
    }

    fn len(&self) -> u64 {
        (self.noted.lock().unwrap().len() + self.retained.lock().unwrap().len()) as u64
    }

    /// Everything so far is on the disk.
    pub(super) fn commit(&self) {
        self.safe.store(self.len(), SeqCst);
        self.tell();
    }

    fn fail(&self, failing: bool) {
        self.failing.store(failing, SeqCst);
        self.tell();
    }

    fn has(&self, wanted: impl Fn(&Change) -> bool) -> bool {
        self.noted.lock().unwrap().iter().any(wanted)
    }
}

impl Storage for Hand {
    fn number(&self) -> SessionNo {
        SessionNo(self.numbers.fetch_add(1, SeqCst))
    }

    fn note(&self, change: Change) {
        self.noted.lock().unwrap().push(change);
    }

    fn note_of(&self, publication: Publication, change: Change) {
        self.apart
            .lock()
            .unwrap()
            .entry(publication)
            .or_default()
            .push(change);
    }

    fn seal(&self, publication: Publication, change: Option<Change>) {
        let apart = self
            .apart
            .lock()
            .unwrap()
            .remove(&publication)
            .unwrap_or_default();
        self.noted.lock().unwrap().extend(apart.into_iter().chain(change));
    }

    fn mark(&self) -> Mark {
        Mark(self.len())
    }

    fn committed(&self) -> Mark {
        Mark(self.safe.load(SeqCst))
    }

    fn condition(&self) -> Condition {
        match self.failing.load(SeqCst) {
            true => Condition::Failing,
            false => Condition::Sound,
        }
    }

    fn figures(&self) -> Figures {
        unreachable!("nobody asks")
    }

    fn is_full(&self) -> bool {
        false
    }

    fn listen(&self, listener: Listener) {
        *self.listener.lock().unwrap() = Some(listener);
    }

    fn page(&self, _: SessionNo, _: Seq, _: Seq, _: usize, _: usize, answer: Answer<Page>) {
        answer(Ok(Vec::new()));
    }

    fn sessions(&self, _: Option<SessionNo>, _: usize, answer: Answer<Vec<Restored>>) {
        answer(Ok(Vec::new()));
    }

    fn session_of(&self, _: &ByteString, _: Option<Seq>, answer: Answer<Option<Restored>>) {
        answer(Ok(None));
    }

    fn retain(&self, topic: &ByteString, what: Retained) {
        self.retained.lock().unwrap().push((topic.clone(), what));
    }

    fn retained(&self, _: Option<ByteString>, _: usize, _: usize, answer: Answer<RetainedPage>) {
        answer(Ok(Vec::new()));
    }
}

fn lasting(id: &str) -> Connect {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_interval_s: Some(3600),
            ..ConnectProperties::default()
        },
        ..connect(id)
    }
}

/// A lasting subscriber of `a` whose SUBACK has come.
async fn subscriber(rig: &Rig, hand: &Arc<Hand>, qos: QoS) -> Client {
    let mut subscriber = rig.connect(lasting("subscriber"), 0).await;
    let committing = async {
        rig.until("the subscription is noted", |_| {
            hand.has(|change| matches!(change, Change::Subscribed(..)))
        })
        .await;
        hand.commit();
    };
    tokio::join!(subscriber.subscribe("a", qos), committing);
    subscriber
}

fn queued(change: &Change) -> bool {
    matches!(change, Change::Queued(..))
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn a_suback_of_a_lasting_session_waits_for_the_store_and_one_of_a_clean_session_does_not() {
    let hand = Arc::new(Hand::default());
    with_rig_that_keeps(hand.clone(), |rig| async move {
        let mut clean = rig.client("clean", 0).await;
        clean.subscribe("b", QoS::AtLeastOnce).await;
        assert_eq!(hand.len(), 0, "a clean session costs the store nothing");
        let mut client = rig.connect(lasting("lasting"), 1).await;
        let filters = vec![("a".into(), Default::default())];
        client
            .send(&Packet::Subscribe(crate::mqtt::packet::Subscribe {
                packet_id: id(7),
                properties: Default::default(),
                filters,
            }))
            .await;
        rig.until("it is noted", |_| {
            hand.has(|change| matches!(change, Change::Subscribed(..)))
        })
        .await;
        client.expect_silence().await;
        hand.commit();
        assert!(matches!(client.next().await, Packet::SubAck(ack) if ack.packet_id == id(7)));
    });
}

#[test]
fn a_puback_waits_until_what_a_lasting_session_was_promised_is_safe() {
    let hand = Arc::new(Hand::default());
    with_rig_that_keeps(hand.clone(), |rig| async move {
        let mut subscriber = subscriber(&rig, &hand, QoS::AtLeastOnce).await;
        let mut publisher = rig.client("publisher", 1).await;
        publisher.publish("a", "1", QoS::AtLeastOnce).await;
        assert_eq!(
            subscriber.message().await.1,
            "1",
            "QoS 1 need not wait for the disk"
        );
        rig.until("the message is noted", |_| hand.has(queued)).await;
        publisher.expect_silence().await;
        hand.commit();
        assert!(matches!(publisher.next().await, Packet::PubAck(ack) if !ack.reason.is_error()));
        rig.until("the acknowledged message is forgotten", |_| {
            hand.has(|change| matches!(change, Change::Settled(..)))
        })
        .await;
        // Who has no lasting receiver waits for nobody.
        let mut clean = rig.client("clean", 0).await;
        clean.subscribe("b", QoS::AtLeastOnce).await;
        publisher.publish_acknowledged("b", "2").await;
    });
}

#[test]
fn a_qos_2_message_is_delivered_when_it_is_safe_together_with_its_identifier() {
    let hand = Arc::new(Hand::default());
    with_rig_that_keeps(hand.clone(), |rig| async move {
        let mut subscriber = subscriber(&rig, &hand, QoS::ExactlyOnce).await;
        let mut publisher = rig.connect(lasting("publisher"), 1).await;
        hand.commit();
        publisher.publish("a", "1", QoS::ExactlyOnce).await;
        let received =
            |change: &Change| matches!(change, Change::Received(_, packet_id) if *packet_id == id(1));
        rig.until("the publication is sealed", |_| hand.has(received))
            .await;
        {
            let noted = hand.noted.lock().unwrap();
            let at = |wanted: &dyn Fn(&Change) -> bool| noted.iter().position(wanted).unwrap();
            assert_eq!(at(&queued) + 1, at(&received), "in one step");
        }
        publisher.expect_silence().await;
        subscriber.expect_silence().await;
        hand.commit();
        assert!(matches!(publisher.next().await, Packet::PubRec(ack) if !ack.reason.is_error()));
        assert_eq!(subscriber.message().await.1, "1");
        // PUBREL and PUBCOMP leave when it is safe that the one message is released, and the other complete.
        rig.until("it is released", |_| {
            hand.has(|change| {
                matches!(
                    change,
                    Change::Exchange(_, _, crate::session::lasting::Exchange::Released(_))
                )
            })
        })
        .await;
        subscriber.expect_silence().await;
        publisher.send(&Packet::PubRel(Ack::success(id(1)))).await;
        rig.until("the exchange is over", |_| {
            hand.has(|change| matches!(change, Change::Completed(..)))
        })
        .await;
        publisher.expect_silence().await;
        hand.commit();
        assert!(matches!(subscriber.next().await, Packet::PubRel(_)));
        assert!(matches!(publisher.next().await, Packet::PubComp(_)));
    });
}

#[test]
fn while_the_store_fails_publishers_are_refused_and_everything_else_goes_on() {
    let hand = Arc::new(Hand::default());
    with_rig_that_keeps(hand.clone(), |rig| async move {
        let mut subscriber = subscriber(&rig, &hand, QoS::ExactlyOnce).await;
        let publisher = Connect {
            version: ProtocolVersion::V5,
            ..connect("publisher")
        };
        let mut publisher = rig.connect(publisher, 1).await;
        publisher.publish("a", "1", QoS::AtLeastOnce).await;
        assert_eq!(subscriber.message().await.1, "1");
        publisher.publish("a", "2", QoS::ExactlyOnce).await;
        rig.until("both are noted", |_| {
            hand.noted
                .lock()
                .unwrap()
                .iter()
                .filter(|change| queued(change))
                .count()
                == 2
        })
        .await;
        hand.fail(true);
        assert!(
            matches!(publisher.next().await, Packet::PubAck(ack) if ack.reason == ReasonCode::QuotaExceeded)
        );
        assert!(
            matches!(publisher.next().await, Packet::PubRec(ack) if ack.reason == ReasonCode::QuotaExceeded)
        );
        // What was refused at QoS 2 is not delivered; what comes now is, to who is there.
        publisher.publish("a", "3", QoS::AtLeastOnce).await;
        assert_eq!(subscriber.message().await.1, "3");
        assert!(
            matches!(publisher.next().await, Packet::PubAck(ack) if ack.reason == ReasonCode::QuotaExceeded)
        );
        publisher.publish("a", "4", QoS::AtMostOnce).await;
        assert_eq!(subscriber.message().await.1, "4");
        hand.fail(false);
        publisher.publish("a", "5", QoS::AtLeastOnce).await;
        assert_eq!(subscriber.message().await.1, "5");
        hand.commit();
        assert!(matches!(publisher.next().await, Packet::PubAck(ack) if !ack.reason.is_error()));
    });
}
