//! The tours with clients of other languages: a script each, in this directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Place, Restarted, installed, run_script};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/tours")
        .join(name)
}

pub(crate) fn python(place: &Path, name: &str) -> Command {
    let mut command = Command::new(place.join("venv/bin/python"));
    command.arg("-B").arg(script(name));
    command
}

fn on(place: &Place, mut command: Command, title: &str, version: &str) -> Command {
    let nodes = match place.nodes.len() {
        1 => "",
        _ => ", two nodes",
    };
    command.args(["--title", &format!("{title}{nodes}"), "--version", version]);
    command.arg("--publish").arg(place.publish().to_string());
    command.arg("--subscribe").arg(place.subscribe().to_string());
    command
}

/// On one node, one of whose like is restarted, and on two.
fn both(client: &str, command: impl Fn(&Path) -> Command, title: &str, version: &str) {
    let Some(clients) = installed(client) else { return };
    let place = Place::one_node();
    run_script(
        on(&place, command(&clients), title, version),
        Some(Restarted::start()),
    );
    let place = Place::two_nodes();
    run_script(on(&place, command(&clients), title, version), None);
}

#[test]
fn paho_speaks_3_1() {
    both("paho", |place| python(place, "paho_tour.py"), "paho 3.1", "3");
}

#[test]
fn paho_speaks_3_1_1() {
    both("paho", |place| python(place, "paho_tour.py"), "paho 3.1.1", "4");
}

#[test]
fn paho_speaks_5_0() {
    both("paho", |place| python(place, "paho_tour.py"), "paho 5.0", "5");
}

#[test]
fn aiomqtt_speaks_3_1_1() {
    both(
        "aiomqtt",
        |place| python(place, "aiomqtt_tour.py"),
        "aiomqtt 3.1.1",
        "4",
    );
}

#[test]
fn aiomqtt_speaks_5_0() {
    both(
        "aiomqtt",
        |place| python(place, "aiomqtt_tour.py"),
        "aiomqtt 5.0",
        "5",
    );
}

pub(crate) fn javascript(place: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .arg(script("mqttjs_tour.mjs"))
        .env("ERMINE_TOURS_DIR", place);
    command
}

#[test]
fn mqttjs_speaks_3_1() {
    both("mqttjs", javascript, "MQTT.js 3.1", "3");
}

#[test]
fn mqttjs_speaks_3_1_1() {
    both("mqttjs", javascript, "MQTT.js 3.1.1", "4");
}

#[test]
fn mqttjs_speaks_5_0() {
    both("mqttjs", javascript, "MQTT.js 5.0", "5");
}

#[test]
fn only_the_right_password_lets_a_client_in() {
    let place = Place::with_password();
    let login = |command: Command, title: &str, version: &str| {
        let mut command = on(&place, command, &format!("{title}, password"), version);
        command.args(["--login", "ann:secret"]);
        run_script(command, None);
    };
    if let Some(clients) = installed("paho") {
        login(python(&clients, "paho_tour.py"), "paho 3.1.1", "4");
        login(python(&clients, "paho_tour.py"), "paho 5.0", "5");
    }
    if let Some(clients) = installed("aiomqtt") {
        login(python(&clients, "aiomqtt_tour.py"), "aiomqtt 5.0", "5");
    }
    if let Some(clients) = installed("mqttjs") {
        login(javascript(&clients), "MQTT.js 3.1.1", "4");
        login(javascript(&clients), "MQTT.js 5.0", "5");
    }
}
