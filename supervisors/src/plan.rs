//! Restart planning as a value: who is stopped, in which order, and who is started again.

use crate::spec::{Restart, Strategy};

/// What planning has to know of a child. Position in the slice is start order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// Its restart type.
    pub restart: Restart,
    /// Whether a process of it exists.
    pub running: bool,
}

/// The steps of one restart, by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Running siblings to be stopped first, in this order: reverse start order.
    pub stop: Vec<usize>,
    /// Temporary siblings whose specs are dropped instead of being started again.
    pub drop: Vec<usize>,
    /// Children to be started, in this order: start order.
    pub start: Vec<usize>,
}

/// Plans the restart of the child at `failed`, which does not run (any more).
pub fn restart(strategy: Strategy, siblings: &[Sibling], failed: usize) -> Plan {
    let affected = match strategy {
        Strategy::OneForOne => failed..failed + 1,
        Strategy::OneForAll => 0..siblings.len(),
        Strategy::RestForOne => failed..siblings.len(),
    };
    let temporary = |at: &usize| *at != failed && siblings[*at].restart == Restart::Temporary;
    Plan {
        stop: affected
            .clone()
            .rev()
            .filter(|&at| at != failed && siblings[at].running)
            .collect(),
        drop: affected.clone().filter(temporary).collect(),
        start: affected.filter(|at| !temporary(at)).collect(),
    }
}

/// Plans the stop of everything: reverse start order.
pub fn halt(siblings: &[Sibling]) -> Vec<usize> {
    (0..siblings.len())
        .rev()
        .filter(|&at| siblings[at].running)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Restart::{Permanent, Temporary, Transient};

    fn family(of: &[(Restart, bool)]) -> Vec<Sibling> {
        of.iter()
            .map(|&(restart, running)| Sibling { restart, running })
            .collect()
    }

    #[test]
    fn one_for_one_touches_nobody_else() {
        let family = family(&[(Permanent, true), (Permanent, false), (Permanent, true)]);
        assert_eq!(
            restart(Strategy::OneForOne, &family, 1),
            Plan {
                start: vec![1],
                ..Plan::default()
            }
        );
    }

    #[test]
    fn one_for_all_stops_in_reverse_and_starts_in_order() {
        let family = family(&[(Permanent, true), (Transient, false), (Permanent, true)]);
        let plan = restart(Strategy::OneForAll, &family, 1);
        assert_eq!(
            plan,
            Plan {
                stop: vec![2, 0],
                drop: vec![],
                start: vec![0, 1, 2]
            }
        );
    }

    #[test]
    fn rest_for_one_leaves_those_before_alone() {
        let family = family(&[
            (Permanent, true),
            (Permanent, false),
            (Permanent, true),
            (Permanent, true),
        ]);
        let plan = restart(Strategy::RestForOne, &family, 1);
        assert_eq!(
            plan,
            Plan {
                stop: vec![3, 2],
                drop: vec![],
                start: vec![1, 2, 3]
            }
        );
    }

    #[test]
    fn a_temporary_sibling_is_stopped_and_does_not_come_back() {
        let family = family(&[
            (Permanent, false),
            (Temporary, true),
            (Temporary, false),
            (Permanent, true),
        ]);
        let plan = restart(Strategy::OneForAll, &family, 0);
        assert_eq!(
            plan,
            Plan {
                stop: vec![3, 1],
                drop: vec![1, 2],
                start: vec![0, 3]
            }
        );
    }

    #[test]
    fn a_halt_skips_who_does_not_run() {
        let family = family(&[(Permanent, true), (Permanent, false), (Temporary, true)]);
        assert_eq!(halt(&family), vec![2, 0]);
    }
}
