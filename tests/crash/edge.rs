//! What stands between a client and the broker: sessions, sockets that have not spoken, doors.

use std::io::Read;
use std::net::TcpStream;
use std::time::Instant;

use ermine::mqtt::packet::QoS;

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Options};
use crate::harness::host::eventually;
use crate::load::Load;
use crate::rig::{CLIENTS, Ordeal, ROUNDS, Rig, say};
use crate::verdict::Crash;

/// The path of a session.
pub(crate) fn session(rig: &Rig, client_id: &str) -> String {
    let mine = format!("/{client_id}");
    let found = rig
        .below("root/sessions")
        .into_iter()
        .find(|path| path.ends_with(&mine));
    found.expect("its session")
}

#[test]
fn a_session_takes_its_own_connection_along_and_no_other_and_its_will_is_published() {
    let rig = Rig::start();
    let load = Load::start(rig.node.mqtt, CLIENTS);
    let ordeal = sessions_fall(&rig, load, ROUNDS);
    ordeal.print();
    assert!(ordeal.cost_nothing(), "{ordeal:?}");
}

/// Crashes so many sessions under load; what that cost the others.
pub(crate) fn sessions_fall(rig: &Rig, load: Load, rounds: usize) -> Ordeal {
    let mut heir = Options::new("heir").connect(rig.node.mqtt);
    heir.subscribe("wills/#", QoS::AtLeastOnce);
    let mut crashes = Vec::new();
    for round in 0..rounds {
        let will = format!("wills/{round}");
        let mut victim = Options::v5("victim").will(&will, "gone").connect(rig.node.mqtt);
        victim.subscribe("victim", QoS::AtLeastOnce);
        victim.publish_and_receive("victim");
        let before = load.received();
        let path = session(rig, "victim");
        let at = Instant::now();
        rig.crash(&path);
        victim.assert_closed();
        let back = Instant::now();
        crashes.push(Crash { at, back });
        assert_eq!(heir.message().topic.to_string(), will);
        load.await_more(&before);
        if rounds > ROUNDS && (round + 1) % 20 == 0 {
            say(&format!("session: {} of {rounds}", round + 1));
        }
    }
    let mut again = Options::v5("victim").connect(rig.node.mqtt);
    assert!(
        !again.connack.session_present,
        "nothing of a torn session is used"
    );
    again.subscribe("again", QoS::AtLeastOnce);
    again.publish_and_receive("again");
    let verdict = load.judge();
    heir.assert_quiet();
    rig.host.assert_balanced(&rig.node.name);
    let restarted = rig.restarts();
    assert!(restarted.is_empty(), "a session is not restarted: {restarted:?}");
    Ordeal {
        what: "session".into(),
        crashes,
        down_us: 0,
        verdict,
        dropped: Vec::new(),
    }
}

#[test]
fn a_shard_of_sessions_takes_its_own_sessions_along_and_no_others() {
    let rig = Rig::start();
    let clients: Vec<(String, Client)> = (0..40)
        .map(|n| format!("client-{n}"))
        .map(|id| (id.clone(), Options::new(&id).connect(rig.node.mqtt)))
        .collect();
    let shard = session(&rig, "client-0");
    let shard = shard.rsplit_once('/').expect("a child").0.to_owned();
    let below = rig.below(&shard);
    rig.crash(&shard);
    for (id, mut client) in clients {
        if below.contains(&format!("{shard}/{id}")) {
            client.assert_closed();
            Options::new(&id).connect(rig.node.mqtt).assert_quiet();
        } else {
            client.assert_quiet();
        }
    }
    assert_eq!(rig.restarts_of(&shard).len(), 1);
}

#[test]
fn the_supervisor_of_sessions_costs_connections_and_nothing_else() {
    let rig = Rig::start();
    let mut client = Options::new("client").connect(rig.node.mqtt);
    client.publish_with("kept", "yes", QoS::AtLeastOnce, true);
    client.subscribe("a", QoS::AtLeastOnce);
    for round in 1..=2 {
        rig.crash("root/sessions");
        client.assert_closed();
        rig.await_restart("root/sessions", round);
        client = eventually("it accepts again", || accepted("client", &rig));
        client.subscribe("kept", QoS::AtLeastOnce);
        assert_eq!(client.text(), "yes", "the tables of core stand");
        client.subscribe("a", QoS::AtLeastOnce);
        client.publish_and_receive("a");
    }
}

/// A client that is accepted, if it is.
fn accepted(client_id: &str, rig: &Rig) -> Option<Client> {
    let client = Options::new(client_id).try_connect(rig.node.mqtt).ok()?;
    (!client.connack.reason.is_error()).then_some(client)
}

#[test]
fn a_connection_is_a_socket_that_had_not_spoken() {
    let rig = Rig::start();
    let load = Load::start(rig.node.mqtt, CLIENTS);
    for _ in 0..ROUNDS {
        let mut socket = TcpStream::connect(rig.node.mqtt).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mine = socket.local_addr().expect("an address").to_string();
        let path = format!("root/doors/connections/{mine}");
        eventually("its connection", || {
            rig.below("root/doors").contains(&path).then_some(())
        });
        rig.crash(&path);
        assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
        rig.probe(0, "connection");
    }
    load.finish();
    assert!(rig.restarts().is_empty());
}

#[test]
fn the_supervisor_of_connections_loses_only_sockets_that_had_not_spoken() {
    let rig = Rig::start();
    let load = Load::start(rig.node.mqtt, CLIENTS);
    for round in 1..=ROUNDS {
        rig.crash("root/doors/connections");
        eventually("it accepts again", || accepted("probe", &rig));
        rig.await_restart("root/doors/connections", round);
    }
    load.finish();
}

#[test]
fn a_listener_loses_nobody_its_door_stays_open() {
    Rig::nothing_is_lost_by("listener", |rig, _| format!("root/doors/tcp:{}", rig.node.mqtt));
}

#[test]
fn the_supervisor_of_doors_closes_no_client() {
    let rig = Rig::start();
    let load = Load::start(rig.node.mqtt, CLIENTS);
    for round in 1..=2 {
        rig.crash("root/doors");
        eventually("it accepts again", || accepted("probe", &rig));
        rig.await_restart("root/doors", round);
    }
    load.finish();
}
