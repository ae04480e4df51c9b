//! Every kind of actor a hundred times, one kind after the other, and a table of what that cost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::cluster::{N1, N2, await_both, await_route};
use crate::core::seat;
use crate::edge::sessions_fall;
use crate::harness::host::{Host, Node};
use crate::load::Load;
use crate::rig::{Ordeal, Rig, say};
use crate::verdict::Delay;

/// What is crashed.
#[derive(Clone, Copy)]
enum Kind {
    /// A process that is there all the time, by its path below the root.
    At(&'static str),
    /// The mailmen in turn.
    Mailman,
    /// The Topics of the load in turn, or their delegates.
    Seat { delegate: bool },
    /// The door that clients come in by.
    Listener,
    /// A session, which is not restarted: its own connection is closed, and its will published.
    Session,
    /// A process between two nodes, under traffic across: by its path below `cluster`.
    Between(&'static str),
    /// Our end of the link to the other node: not restarted, but dialled again.
    Peer,
}

const KINDS: [(&str, Kind); 22] = [
    ("router", Kind::At("core/router")),
    ("topic", Kind::Seat { delegate: false }),
    ("delegate", Kind::Seat { delegate: true }),
    ("clients", Kind::At("core/clients")),
    ("retainer", Kind::At("core/retainer")),
    ("wills", Kind::At("core/wills")),
    ("sys", Kind::At("core/sys")),
    ("mailman", Kind::Mailman),
    ("session", Kind::Session),
    ("listener", Kind::Listener),
    ("control", Kind::At("admin/control")),
    ("registry", Kind::Between("registry")),
    ("peer", Kind::Peer),
    ("connector", Kind::Between("connector")),
    ("dist", Kind::Between("dist")),
    ("gate", Kind::Between("gate")),
    ("topics/", Kind::At("core/topics")),
    ("connections/", Kind::At("doors/connections")),
    ("doors/", Kind::At("doors")),
    ("peers/", Kind::Between("peers")),
    ("cluster/", Kind::Between("")),
    ("admin/", Kind::At("admin")),
];

pub(crate) fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn soak() {
    let Some(rounds) = number("ERMINE_CRASH_ROUNDS") else {
        return say("soak: not asked for; ERMINE_CRASH_ROUNDS=100 does it");
    };
    let clients = number("ERMINE_CRASH_CLIENTS").unwrap_or(200);
    let only = std::env::var("ERMINE_CRASH_KINDS").ok();
    let wanted = |name: &str| {
        let name = name.trim_end_matches('/');
        let listed = |only: &String| only.split(',').any(|one| one.trim_end_matches('/') == name);
        only.as_ref().is_none_or(listed)
    };
    let (mut table, mut failed) = (vec![HEAD.to_owned()], Vec::new());
    for (name, kind) in KINDS.into_iter().filter(|(name, _)| wanted(name)) {
        let began = Instant::now();
        let ordeal = catch_unwind(AssertUnwindSafe(|| kind.soak(name, rounds, clients)));
        let took = began.elapsed().as_secs();
        match ordeal {
            Ok(ordeal) => {
                if !ordeal.cost_nothing() {
                    failed.push(format!("{name}: {:?}, {:?}", ordeal.verdict, ordeal.dropped));
                }
                table.push(row(&ordeal, took));
            }
            Err(_) => {
                failed.push(format!("{name}: see its panic above"));
                table.push(format!("| {name} | did not come to its end, after {took} s |"));
            }
        }
        say(&table[table.len() - 1]);
    }
    say(&format!(
        "\n{rounds} crashes of each kind under {clients} clients\n{}",
        table.join("\n")
    ));
    assert!(failed.is_empty(), "something was lost:\n{}", failed.join("\n"));
}

const HEAD: &str = "| kind | crashes | connections lost | QoS 1/2 lost | doubled | deliveries | down, max | \
                    delay at a crash p50/p99/max | delay else p50/p99/max | took |\n\
                    |---|---|---|---|---|---|---|---|---|---|";

fn row(ordeal: &Ordeal, took_s: u64) -> String {
    let (met, others) = ordeal.verdict.delays(&ordeal.crashes);
    let delay = |Delay { p50, p99, max }: Delay| format!("{p50:.1} / {p99:.1} / {max:.0} ms");
    let down = match ordeal.down_us {
        0 => "-".into(),
        us => format!("{:.1} ms", us as f64 / 1e3),
    };
    let verdict = &ordeal.verdict;
    format!(
        "| {} | {} | {} | {} | {} | {} | {down} | {} | {} | {took_s} s |",
        ordeal.what,
        ordeal.crashes.len(),
        verdict.closed,
        verdict.lost,
        verdict.doubled,
        verdict.came.len(),
        delay(met),
        delay(others),
    )
}

impl Kind {
    fn soak(self, name: &str, rounds: usize, clients: usize) -> Ordeal {
        let rig = Rig::patient(N1);
        match self {
            Kind::Between(_) | Kind::Peer => {
                let (_other, load) = across(&rig, clients);
                rig.ordeal(name, rounds, load, |rig, round| self.pick(rig, round))
            }
            Kind::Session => sessions_fall(&rig, Load::start(rig.node.mqtt, clients), rounds),
            _ => {
                let load = Load::start(rig.node.mqtt, clients);
                rig.ordeal(name, rounds, load, |rig, round| self.pick(rig, round))
            }
        }
    }

    /// What is crashed next, and whether its supervisor restarts it.
    fn pick(self, rig: &Rig, round: usize) -> (String, bool) {
        match self {
            Kind::At(path) => (format!("root/{path}"), true),
            Kind::Mailman => (format!("root/core/mail-{}", round % 4), true),
            Kind::Seat { delegate } => (seat(rig, round, delegate), true),
            Kind::Listener => (format!("root/doors/tcp:{}", rig.node.mqtt), true),
            Kind::Session => unreachable!("sessions fall by their own rule"),
            Kind::Between("") => ("root/cluster".into(), true),
            Kind::Between(path) => (format!("root/cluster/{path}"), true),
            Kind::Peer => (format!("root/cluster/peers/{N2}"), false),
        }
    }
}

/// A second node, and a load of which half the messages cross the link.
fn across(rig: &Rig, clients: usize) -> (Node, Load) {
    let host: &Host = &rig.host;
    let other = host.start_with(N2, &["--worker-threads", "2"]);
    host.ok(&["cluster", "join", N1, "--node", N2]);
    await_both(host);
    let load = Load::across(&[rig.node.mqtt, other.mqtt], clients, |topics| {
        // Even topics have their subscriber here, odd ones there.
        for topic in topics.saturating_sub(2)..topics {
            let (at, to) = if topic % 2 == 0 { (N2, N1) } else { (N1, N2) };
            await_route(host, at, &format!("load/{topic}"), to);
        }
        await_route(host, N1, "load/+", N2);
        await_route(host, N2, "load/+", N1);
    });
    (other, load)
}
