//! `$SYS/broker/supervisors/#`: how supervision goes, in numbers.
//!
//! | topic below `$SYS/broker/supervisors/PATH/` | of | value |
//! |---|---|---|
//! | `generation` | every process | which start it is, 0 if it never ran |
//! | `state` | every process | `running`, `starting`, `restarting` or `stopped` |
//! | `restarts` | supervisors | restarts it has decided upon since it started |
//! | `crashes` | supervisors | children that ended abnormally since it started |
//! | `children` | supervisors | processes directly below it |
//! | `intensity` | supervisors | restarts that count now, `/`, how many it tolerates in its period |
//!
//! The children of dynamic supervisors (sessions, Topics) are counted, not named, and the 64 shards of
//! `sessions` are told as one: as if their children were those of their supervisor.

use std::collections::BTreeMap;

use supervisors::{ProcessInfo, ProcessKind, Supervision};

/// Topic and value.
pub(super) fn values(summary: &[ProcessInfo]) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut sums: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for info in summary {
        let counts = info.supervision.map(|supervision| {
            let Supervision {
                children,
                child_restarts,
                child_crashes,
                ..
            } = supervision;
            [child_restarts, child_crashes, children as u64]
        });
        if let (true, Some((parent, _))) = (is_shard(info), info.path.rsplit_once('/')) {
            let sum = sums.entry(parent).or_default();
            sum.iter_mut()
                .zip(counts.unwrap_or_default())
                .for_each(|(sum, count)| *sum += count);
            // A shard is not a child that anybody wants to count.
            sum[2] = sum[2].saturating_sub(1);
            continue;
        }
        let mut tell = |name: &str, value: String| {
            values.insert(format!("$SYS/broker/supervisors/{}/{name}", info.path), value)
        };
        tell("generation", info.generation.to_string());
        tell("state", info.state.to_string());
        if let Some(supervision) = info.supervision {
            let (used, tolerated) = (supervision.intensity_used, supervision.intensity.restarts);
            tell("intensity", format!("{used}/{tolerated}"));
        }
        if let Some(counts) = counts {
            let sum = sums.entry(&info.path).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    for (path, sum) in sums {
        for (name, count) in ["restarts", "crashes", "children"].iter().zip(sum) {
            values.insert(
                format!("$SYS/broker/supervisors/{path}/{name}"),
                count.to_string(),
            );
        }
    }
    values
}

/// A dynamic supervisor that is one of many like it has a number for an id.
fn is_shard(info: &ProcessInfo) -> bool {
    info.kind == ProcessKind::DynamicSupervisor && info.id.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;
    use supervisors::{Intensity, ProcessState, Restart, Shutdown, Strategy};

    fn info(path: &str, kind: ProcessKind, of: [u64; 3]) -> ProcessInfo {
        let [child_restarts, child_crashes, children] = of;
        let supervision = Supervision {
            strategy: Strategy::OneForOne,
            intensity: Intensity::new(5, 60),
            intensity_used: 2,
            children: children as usize,
            child_restarts,
            child_crashes,
        };
        ProcessInfo {
            path: path.into(),
            id: path.rsplit('/').next().unwrap().into(),
            kind,
            state: ProcessState::Running,
            pid: None,
            restarts: 2,
            generation: 3,
            since: SystemTime::now(),
            mailbox_len: 0,
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            actor: "",
            supervision: (kind != ProcessKind::Worker).then_some(supervision),
        }
    }

    #[test]
    fn every_process_is_told_of_and_shards_are_told_of_as_one() {
        let values = values(&[
            info("root", ProcessKind::Supervisor, [1, 1, 2]),
            info("root/router", ProcessKind::Worker, [0; 3]),
            info("root/sessions", ProcessKind::Supervisor, [1, 2, 2]),
            info("root/sessions/0", ProcessKind::DynamicSupervisor, [0, 3, 100]),
            info("root/sessions/1", ProcessKind::DynamicSupervisor, [0, 4, 200]),
        ]);
        let value = |name: &str| {
            values
                .get(&format!("$SYS/broker/supervisors/{name}"))
                .map(String::as_str)
        };
        assert_eq!(value("root/router/generation"), Some("3"));
        assert_eq!(value("root/router/state"), Some("running"));
        assert_eq!(value("root/router/restarts"), None);
        assert_eq!(value("root/intensity"), Some("2/5"));
        assert_eq!(value("root/children"), Some("2"));
        assert_eq!(value("root/sessions/children"), Some("300"));
        assert_eq!(value("root/sessions/crashes"), Some("9"));
        assert_eq!(value("root/sessions/restarts"), Some("1"));
        assert_eq!(value("root/sessions/0/children"), None);
        assert_eq!(values.len(), 6 + 2 + 6);
    }
}
