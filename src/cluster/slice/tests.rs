//! The sending end against the receiving replica of `routing`.

use bytestring::ByteString;

use super::*;
use crate::node_name::Incarnation;
use crate::routing::{Applied, Replica, RouteChange};

fn slice(version: u64, filters: usize) -> SliceSnapshot {
    let filters = (0..filters).map(|n| ByteString::from(format!("t/{n}"))).collect();
    SliceSnapshot {
        version: RouteVersion(version),
        filters,
    }
}

fn delta(from: u64, len: u64) -> RouteDelta {
    let changes = (from..from + len)
        .map(|n| RouteChange::Add(format!("d/{n}").into()))
        .collect();
    RouteDelta {
        from: RouteVersion(from),
        to: RouteVersion(from + len),
        changes,
    }
}

/// Sends all that may be sent and has the replica take it.
fn run(out: &mut SliceOut, replica: &mut Replica) -> Applied {
    let (mut frames, mut last) = (out.taken, Applied::Applied);
    while let Some(next) = out.step() {
        let Out::Send(bytes) = next else { panic!("asks") };
        last = match v1::decode(&bytes).unwrap() {
            Frame::Snapshot(chunk) => replica.apply_snapshot(&chunk, &mut Vec::new()),
            Frame::Delta(delta) => replica.apply_delta(&delta, &mut Vec::new()),
            other => panic!("{other:?}"),
        };
        frames += 1;
        assert!(out.taken(frames));
    }
    last
}

#[test]
fn a_large_snapshot_and_the_deltas_meanwhile_arrive_whole() {
    let (mut out, mut replica) = (SliceOut::default(), Replica::new(Incarnation(1)));
    assert_eq!(out.restart(), Some(Out::Ask));
    out.changed(delta(19_999, 2));
    out.changed(delta(20_001, 3));
    out.begin(&slice(20_000, 20_000));
    out.changed(delta(20_004, 5000));
    assert!(!out.is_settled());
    assert_eq!(run(&mut out, &mut replica), Applied::Applied);
    assert!(out.is_settled());
    assert_eq!(
        (replica.version(), out.version()),
        (RouteVersion(25_004), RouteVersion(25_004))
    );
}

#[test]
fn no_more_frames_are_sent_than_the_other_side_keeps_up_with() {
    let mut out = SliceOut::default();
    out.begin(&slice(1, 100_000));
    let sent = std::iter::from_fn(|| out.step()).count() as u64;
    assert_eq!(sent, FRAMES_AHEAD_MAX);
    assert!(out.taken(1) && out.step().is_some() && out.step().is_none());
    assert!(!out.taken(sent + 2), "more than was sent");
}

#[test]
fn too_many_waiting_changes_are_replaced_by_a_snapshot() {
    let (mut out, mut replica) = (SliceOut::default(), Replica::new(Incarnation(1)));
    out.begin(&slice(0, 0));
    run(&mut out, &mut replica);
    let many = ROUTE_CHANGES_HELD_MAX as u64 + 1;
    out.changed(delta(0, many));
    assert_eq!(out.step(), Some(Out::Ask));
    assert_eq!((out.step(), out.restart()), (None, None), "asked once");
    out.begin(&slice(many, 10));
    assert_eq!(run(&mut out, &mut replica), Applied::Applied);
    assert_eq!((replica.version(), replica.len()), (RouteVersion(many), 10));
}
