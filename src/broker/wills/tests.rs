//! The book of wills: what comes out when, and what a new life of `core` inherits.

use super::*;

fn message(text: &'static str) -> Arc<Will> {
    Arc::new(Will {
        topic: text.into(),
        payload: bytes::Bytes::new(),
        qos: crate::mqtt::packet::QoS::AtMostOnce,
        retain: false,
        properties: crate::mqtt::properties::WillProperties::default(),
    })
}

#[test]
fn wills_come_out_when_they_are_due_and_in_that_order() {
    let (now, mut book) = (Instant::now(), WillBook::default());
    let at = |seconds| now + Duration::from_secs(seconds);
    book.put("late".into(), at(9), message("late"));
    book.put("soon".into(), at(3), message("soon"));
    assert_eq!(book.take_due(at(2)), None);
    assert_eq!(book.take_due(at(9)).unwrap().1.topic, "soon");
    assert_eq!(book.take_due(at(9)).unwrap().1.topic, "late");
    assert_eq!(book.take_due(at(9)), None);
}

#[test]
fn a_cancelled_will_never_comes_and_a_second_one_replaces_the_first() {
    let (now, mut book) = (Instant::now(), WillBook::default());
    book.put("c".into(), now, message("first"));
    book.put("c".into(), now, message("second"));
    assert_eq!(book.take_due(now).unwrap().1.topic, "second");
    book.put("c".into(), now, message("third"));
    assert!(book.cancel(&"c".into()) && !book.cancel(&"c".into()));
    assert_eq!((book.take_due(now), book.next()), (None, None));
}

fn request(client_id: &'static str, topic: &'static str, delay_s: u32) -> Request {
    let will = Will {
        topic: topic.into(),
        payload: bytes::Bytes::new(),
        qos: crate::mqtt::packet::QoS::AtMostOnce,
        retain: false,
        properties: crate::mqtt::properties::WillProperties::default(),
    };
    Request::Publish {
        client_id: client_id.into(),
        will: Arc::new(will),
        delay_s,
    }
}

#[test]
fn a_new_life_inherits_every_will_once_and_lets_it_rest() {
    let (now, mut before, mut heir) = (Instant::now(), WillBook::default(), WillBook::default());
    before.put("waited".into(), now + Duration::from_secs(60), message("waited"));
    before.put("nearly".into(), now + Duration::from_secs(1), message("nearly"));
    before.put("back".into(), now + Duration::from_secs(1), message("back"));
    let cancel = Request::Cancel {
        client_id: "back".into(),
    };
    let asked = [cancel, request("due", "due", 0), request("later", "later", 30)];
    heir.inherit(before, asked.into_iter(), now);
    assert_eq!(heir.inherited, 4);
    assert_eq!(heir.next(), Some(now + REST_AFTER_FALL));
    let mut out = Vec::new();
    while let Some((_, message)) = heir.take_due(now + Duration::from_secs(60)) {
        out.push(message.topic.to_string());
    }
    assert_eq!(out, ["due", "nearly", "later", "waited"]);
    assert_eq!(heir.inherited, 0);
}

#[test]
fn the_will_of_a_client_that_is_back_goes_before_it_or_nowhere() {
    let (now, mut heir) = (Instant::now(), WillBook::default());
    let asked = [request("due", "due", 0), request("later", "later", 30)];
    heir.inherit(WillBook::default(), asked.into_iter(), now);
    heir.put("new".into(), now + Duration::from_secs(1), message("new"));
    assert_eq!(heir.client_is_back(&"due".into()).unwrap().topic, "due");
    assert_eq!(heir.client_is_back(&"due".into()), None);
    assert_eq!(
        heir.client_is_back(&"later".into()),
        None,
        "back before its delay was over"
    );
    assert_eq!(
        heir.client_is_back(&"new".into()),
        None,
        "its session's to cancel"
    );
    let (_, left) = heir.take_due(now + Duration::from_secs(60)).unwrap();
    assert_eq!((&*left.topic, heir.next(), heir.inherited), ("new", None, 0));
}
