//! What may happen, at random.

use proptest::prelude::*;

use super::QoS;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A topic has a message with so many bytes that expires in so many seconds.
    TopicDelivers(QoS, usize, Option<u64>),
    /// The client publishes at QoS 2.
    ClientPublishes,
    SessionReads,
    ClientReads,
    TransportBreaks,
    ClientConnects,
    /// The store brings the page that was asked for.
    StoreAnswers,
    StoreFails,
    /// All that was noted is on the disk.
    StoreCommits,
    TimePasses,
    /// The process falls; what the disk has is chosen among what is possible.
    Crash(prop::sample::Index),
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let len = prop_oneof![2 => Just(0_usize), 1 => Just(3000), 2 => Just(40_000)];
    let expiry = prop_oneof![7 => Just(None), 1 => Just(Some(3))];
    let step = prop_oneof![
        20 => (qos, len, expiry).prop_map(|(qos, len, expiry)| Step::TopicDelivers(qos, len, expiry)),
        3 => Just(Step::ClientPublishes),
        15 => Just(Step::SessionReads),
        15 => Just(Step::ClientReads),
        2 => Just(Step::TransportBreaks),
        4 => Just(Step::ClientConnects),
        8 => Just(Step::StoreAnswers),
        1 => Just(Step::StoreFails),
        4 => Just(Step::StoreCommits),
        2 => Just(Step::TimePasses),
        2 => any::<prop::sample::Index>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..400)
}
