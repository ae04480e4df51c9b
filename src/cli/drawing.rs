//! The supervision tree as a drawing, one line a process.

use std::collections::HashMap;

use crate::admin::control::tree_entry;
use crate::admin::protocol::TreeEntry;
use crate::cli::table::Table;
use crate::cli::time::utc;

/// Children of one supervisor that are drawn; there may be a million sessions.
const CHILDREN_MAX: usize = 20;

/// From so many dynamic supervisors in a row on, of which no children are drawn, they share a line.
const IDLE_RUN_MIN: usize = 4;

/// What stands beside the drawing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    /// How each process fares.
    Live,
    /// How each process would be treated.
    Plan,
}

/// Most processes that are looked at one by one when a tree of this process is drawn.
const LISTED_MAX: usize = 1000;

/// The drawing of a live tree. `entries` have parents before children and siblings in start order;
/// without `all` supervisors that have nothing to do share a line, and of many children only the first
/// are drawn.
pub(super) fn tree(entries: &[TreeEntry], all: bool) -> String {
    draw(entries, all, Columns::Live)
}

/// The drawing of a tree that stands in this process: of one that has come back with 100,000 sessions the
/// standing part.
pub(crate) fn live(standing: &supervisors::Tree) -> String {
    let listed = if standing.count() <= LISTED_MAX {
        standing.list()
    } else {
        standing.summary()
    };
    let entries: Vec<_> = listed.into_iter().map(tree_entry).collect();
    tree(&entries, false)
}

/// The drawing of a tree that was not started.
///
/// `BUDGET` is the product of the intensities above a process: about how many restarts of it the node
/// survives if they come at once. Temporary children use none up.
pub(super) fn plan(entries: &[TreeEntry], all: bool) -> String {
    draw(entries, all, Columns::Plan)
}

fn draw(entries: &[TreeEntry], all: bool, columns: Columns) -> String {
    let heads: &[&str] = match columns {
        Columns::Live => &[
            "TREE",
            "KIND",
            "RESTART",
            ">RESTARTS",
            "SINCE",
            ">MAILBOX",
            "PATH",
        ],
        Columns::Plan => &["TREE", "KIND", "RESTART", ">SHUTDOWN", ">BUDGET", "PATH"],
    };
    let mut drawing = Drawing {
        table: Table::new(heads),
        children: HashMap::new(),
        all,
        columns,
    };
    let known: HashMap<&str, &TreeEntry> = entries.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let mut roots = Vec::new();
    for entry in entries {
        let parent = entry.path.rsplit_once('/').map(|(parent, _)| parent);
        match parent.filter(|parent| known.contains_key(parent)) {
            Some(parent) => drawing.children.entry(parent).or_default().push(entry),
            None => roots.push(entry),
        }
    }
    for root in roots {
        drawing.process(
            root,
            Place {
                branch: String::new(),
                trunk: "",
                budget: None,
            },
        );
    }
    drawing.table.render()
}

/// A table of processes without the drawing.
pub(super) fn list(entries: &[TreeEntry]) -> String {
    let mut table = Table::new(&[
        "ID",
        "KIND",
        "RESTART",
        ">RESTARTS",
        "STATE",
        "SINCE",
        ">MAILBOX",
        "PID",
        "ACTOR",
    ]);
    for entry in entries {
        table.row([
            entry.id.clone(),
            kind(entry),
            entry.restart.clone(),
            entry.restarts.to_string(),
            entry.state.clone(),
            utc(entry.since_ms),
            entry.mailbox_len.to_string(),
            if entry.pid.is_empty() {
                "-".into()
            } else {
                entry.pid.clone()
            },
            short(&entry.actor),
        ]);
    }
    table.render()
}

/// `rest_for_one 2/60s`, `dynamic 100/10s, 7 children` or `worker`.
fn kind(entry: &TreeEntry) -> String {
    let how = match (&entry.strategy, entry.kind.as_str()) {
        (Some(strategy), "supervisor") => strategy,
        _ => &entry.kind,
    };
    let how = match &entry.intensity {
        Some(intensity) => format!("{how} {intensity}"),
        None => how.clone(),
    };
    match entry.children {
        0 => how,
        _ if entry.kind != "dynamic" => how,
        children => format!("{how}, {}", count_children(children)),
    }
}

fn count_children(children: u64) -> String {
    format!("{children} {}", if children == 1 { "child" } else { "children" })
}

/// `Router` of `ermine::broker::router::Router`.
fn short(actor: &str) -> String {
    let plain = actor.split('<').next().unwrap_or(actor);
    plain.rsplit("::").next().unwrap_or(plain).to_owned()
}

struct Drawing<'a> {
    table: Table,
    children: HashMap<&'a str, Vec<&'a TreeEntry>>,
    all: bool,
    columns: Columns,
}

/// Where a process is drawn.
struct Place<'t> {
    /// What stands before its id.
    branch: String,
    /// What stands before the branches of its children.
    trunk: &'t str,
    /// Product of the intensities above it; none above the root.
    budget: Option<u64>,
}

impl<'a> Drawing<'a> {
    /// Draws a process and all below it.
    fn process(&mut self, entry: &'a TreeEntry, place: Place<'_>) {
        let Place {
            branch,
            trunk,
            budget,
        } = place;
        let label = match entry.state.as_str() {
            "running" | "planned" => format!("{branch}{}", entry.id),
            state => format!("{branch}{} [{state}]", entry.id),
        };
        self.line(entry, label, budget);
        let children = self.children.remove(entry.path.as_str()).unwrap_or_default();
        let groups = self.groups(&children);
        let last = groups.len().saturating_sub(1);
        let budget = own_restarts(entry).map(|own| own.saturating_mul(budget.unwrap_or(1)));
        for (index, group) in groups.into_iter().enumerate() {
            let (branch, below) = if index == last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            let branch = format!("{trunk}{branch}");
            match group {
                Group::One(child) => {
                    let trunk = format!("{trunk}{below}");
                    self.process(
                        child,
                        Place {
                            branch,
                            trunk: &trunk,
                            budget,
                        },
                    );
                }
                Group::Idle(run) => {
                    let (first, end) = (&run[0].id, &run[run.len() - 1].id);
                    let children: u64 = run.iter().map(|entry| entry.children).sum();
                    let kind = kind(&TreeEntry {
                        children: 0,
                        ..run[0].clone()
                    });
                    let note = match children {
                        0 => format!("{} idle: {kind}", run.len()),
                        children => format!("{}: {kind}, {}", run.len(), count_children(children)),
                    };
                    self.note(format!("{branch}{first} … {end}"), note, &run[0].restart);
                }
                Group::More(count) => {
                    self.note(format!("{branch}… {count} more"), "--all draws them".into(), "");
                }
            }
        }
    }

    fn line(&mut self, entry: &TreeEntry, label: String, budget: Option<u64>) {
        let mut cells = vec![label, kind(entry), entry.restart.clone()];
        match self.columns {
            Columns::Live => {
                cells.extend([
                    entry.restarts.to_string(),
                    utc(entry.since_ms),
                    entry.mailbox_len.to_string(),
                ]);
            }
            Columns::Plan => {
                let budget = budget.filter(|_| entry.restart != "temporary");
                cells.extend([
                    entry.shutdown.clone(),
                    budget.map_or_else(|| "-".into(), |budget| budget.to_string()),
                ]);
            }
        }
        cells.push(entry.path.clone());
        self.table.row(cells);
    }

    /// A line for several processes.
    fn note(&mut self, label: String, note: String, restart: &str) {
        let mut cells = vec![label, note, restart.to_owned()];
        cells.resize(if self.columns == Columns::Live { 7 } else { 6 }, String::new());
        self.table.row(cells);
    }

    /// What is drawn of some siblings.
    fn groups(&self, children: &[&'a TreeEntry]) -> Vec<Group<'a>> {
        if self.all {
            return children.iter().map(|child| Group::One(child)).collect();
        }
        let idle = |child: &TreeEntry| {
            child.kind == "dynamic" && child.restarts == 0 && !self.children.contains_key(child.path.as_str())
        };
        let mut groups = Vec::new();
        let mut drawn = 0;
        for run in children.chunk_by(|a, b| idle(a) == idle(b)) {
            if idle(run[0]) && run.len() >= IDLE_RUN_MIN {
                groups.push(Group::Idle(run.to_vec()));
                continue;
            }
            let room = run.len().min(CHILDREN_MAX - drawn);
            groups.extend(run[..room].iter().map(|child| Group::One(child)));
            drawn += room;
            if room < run.len() {
                let rest = children.len()
                    - children
                        .iter()
                        .position(|c| c.path == run[room].path)
                        .unwrap_or(0);
                groups.push(Group::More(rest));
                break;
            }
        }
        groups
    }
}

/// Restarts that a supervisor tolerates.
fn own_restarts(entry: &TreeEntry) -> Option<u64> {
    entry.intensity.as_ref()?.split('/').next()?.parse().ok()
}

enum Group<'a> {
    One(&'a TreeEntry),
    Idle(Vec<&'a TreeEntry>),
    More(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: &str) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            id: path.rsplit('/').next().unwrap().into(),
            kind: kind.into(),
            strategy: (kind != "worker").then(|| "one_for_one".into()),
            intensity: (kind != "worker").then(|| "5/60s".into()),
            restart: "permanent".into(),
            shutdown: "5s".into(),
            actor: "ermine::broker::router::Router".into(),
            pid: "<0.1.0>".into(),
            restarts: 0,
            since_ms: 0,
            mailbox_len: 0,
            state: "running".into(),
            children: 0,
            intensity_used: 0,
            child_restarts: 0,
            child_crashes: 0,
        }
    }

    /// The drawing's first two columns.
    fn drawn(entries: &[TreeEntry], all: bool) -> Vec<String> {
        let text = tree(entries, all);
        let until = text.lines().next().unwrap().find("RESTART").unwrap();
        text.lines()
            .skip(1)
            .map(|line| line.chars().take(until).collect::<String>().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn branches_join_children_to_their_supervisor() {
        let entries = [
            entry("root", "supervisor"),
            entry("root/core", "supervisor"),
            entry("root/core/router", "worker"),
            entry("root/core/sys", "worker"),
            entry("root/topics", "dynamic"),
        ];
        assert_eq!(
            drawn(&entries, false),
            [
                "root          one_for_one 5/60s",
                "├─ core       one_for_one 5/60s",
                "│  ├─ router  worker",
                "│  └─ sys     worker",
                "└─ topics     dynamic 5/60s",
            ]
        );
    }

    #[test]
    fn idle_dynamic_supervisors_share_a_line_unless_all_is_asked_for() {
        let mut entries = vec![entry("root", "supervisor")];
        entries.extend((0..64).map(|n| entry(&format!("root/s{n}"), "dynamic")));
        entries.insert(3, entry("root/s1/client", "worker"));
        let lines = drawn(&entries, false);
        assert_eq!(lines.len(), 5);
        assert!(lines[4].starts_with("└─ s2 … s63"), "{lines:?}");
        assert!(lines[4].ends_with("62 idle: dynamic 5/60s"), "{lines:?}");
        assert_eq!(drawn(&entries, true).len(), 66);
    }

    #[test]
    fn a_summary_tells_how_many_children_there_are() {
        let with = |id: &str, children| TreeEntry {
            children,
            ..entry(id, "dynamic")
        };
        let mut entries = vec![entry("root", "supervisor"), with("root/topics", 1)];
        entries.extend((0..64).map(|n| with(&format!("root/s{n}"), 100)));
        entries.push(TreeEntry {
            state: "stopped".into(),
            ..entry("root/w", "worker")
        });
        let lines = drawn(&entries, false);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[1].ends_with("65: dynamic 5/60s, 6401 children"),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("└─ w [stopped]"), "{lines:?}");
    }

    #[test]
    fn of_many_children_the_first_are_drawn() {
        let mut entries = vec![entry("root", "dynamic")];
        entries.extend((0..100).map(|n| entry(&format!("root/c{n}"), "worker")));
        let lines = drawn(&entries, false);
        assert_eq!(lines.len(), 22);
        assert!(lines[21].starts_with("└─ … 80 more"), "{lines:?}");
    }

    #[test]
    fn a_plan_shows_the_product_of_the_intensities_above() {
        let mut entries = vec![
            entry("root", "supervisor"),
            entry("root/core", "supervisor"),
            entry("root/core/x", "worker"),
        ];
        entries.push(TreeEntry {
            restart: "temporary".into(),
            ..entry("root/core/y", "worker")
        });
        let text = plan(&entries, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "TREE     KIND               RESTART    SHUTDOWN  BUDGET  PATH"
        );
        assert_eq!(
            lines[1],
            "root     one_for_one 5/60s  permanent        5s       -  root"
        );
        assert_eq!(
            lines[3],
            "   ├─ x  worker             permanent        5s      25  root/core/x"
        );
        assert_eq!(
            lines[4],
            "   └─ y  worker             temporary        5s       -  root/core/y"
        );
    }
}
