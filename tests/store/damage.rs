//! Files that were damaged while the node was down: the log says where, which record and what was lost; what
//! is whole is served, and nothing is taken for something else.

use std::fs;

use ermine::mqtt::packet::{QoS, SubscriptionOptions};

use crate::harness::client::{Client, Options};
use crate::harness::host::text as text_of;
use crate::house::{Ending, House, NAME};

const SLEEPERS: usize = 3;
const MESSAGES: usize = 40;

/// A text that only this message has.
fn text(sleeper: usize, number: usize) -> String {
    format!("for {sleeper}, number {number:03}, {}", "x".repeat(200))
}

fn sleeper(sleeper: usize, house: &House) -> Client {
    let id = format!("sleeper-{sleeper}");
    Options::v5(&id).persistent().connect(house.address)
}

/// A node that has stopped, with messages for clients that are away and something retained.
fn filled() -> House {
    let mut house = House::start("");
    for no in 0..SLEEPERS {
        sleeper(no, &house).subscribe(&format!("mail/{no}"), QoS::AtLeastOnce);
    }
    let mut sender = Options::new("sender").connect(house.address);
    for number in 0..MESSAGES {
        for no in 0..SLEEPERS {
            sender.publish(&format!("mail/{no}"), &text(no, number), QoS::AtLeastOnce);
        }
        sender.publish_with(
            &format!("kept/{number}"),
            &text(9, number),
            QoS::AtLeastOnce,
            true,
        );
    }
    house.end(Ending::Stopped);
    house
}

/// Flips a bit in the middle of each copy of a text in the file.
fn flip(house: &House, text: &str) {
    let mut bytes = fs::read(house.records()).expect("the file of the store");
    let places: Vec<usize> = bytes
        .windows(text.len())
        .enumerate()
        .filter_map(|(at, found)| (found == text.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty(), "it is not in the file");
    for at in places {
        bytes[at + text.len() / 2] ^= 1;
    }
    fs::write(house.records(), bytes).expect("written");
}

fn says(house: &House, what: &[&str]) {
    house.node().await_log(&what.join(", "), |line| {
        line.contains("ERROR") && what.iter().all(|what| line.contains(what))
    });
}

/// What is retained, as a new client gets it: topics and texts.
fn retained(house: &House) -> Vec<(String, String)> {
    let mut client = Options::new("look").connect(house.address);
    client.publish_with("mark", "there", QoS::AtLeastOnce, true);
    client.send_subscribe("kept/#", Default::default());
    client.send_subscribe("mark", Default::default());
    let mut found = Vec::new();
    loop {
        let publish = client.message();
        if publish.topic == "mark" {
            found.sort();
            return found;
        }
        let said = String::from_utf8(publish.payload.to_vec()).expect("text");
        found.push((publish.topic.to_string(), said));
    }
}

#[test]
fn a_flipped_bit_is_named_in_the_log_and_everything_else_is_served() {
    let mut house = filled();
    flip(&house, &text(1, 7));
    flip(&house, &text(9, 3));
    house.start_again();
    let file = house.records();
    let file = file.to_str().expect("a path of ours");
    says(&house, &["the store is damaged", file]);
    says(
        &house,
        &["lost: message 8 of session", "its checksum is wrong", file],
    );
    says(
        &house,
        &[
            "lost: what is retained at 'kept/3'",
            "its checksum is wrong",
            file,
        ],
    );
    says(
        &house,
        &[
            "the store goes on with what is whole",
            "lost=2",
            "records.damaged-",
            file,
        ],
    );
    for no in 0..SLEEPERS {
        let mut client = sleeper(no, &house);
        assert!(client.connack.session_present, "sleeper {no}");
        for number in (0..MESSAGES).filter(|number| (no, *number) != (1, 7)) {
            assert_eq!(client.text(), text(no, number), "sleeper {no}");
        }
        client.assert_quiet();
    }
    let mut whole: Vec<_> = (0..MESSAGES)
        .filter(|number| *number != 3)
        .map(|number| (format!("kept/{number}"), text(9, number)))
        .collect();
    whole.sort();
    assert_eq!(retained(&house), whole);
    // It is mended: the next start has nothing to say.
    house.again_after(Ending::Stopped);
    assert!(
        !house.node().log.all().contains("damaged"),
        "{}",
        house.node().log.all()
    );
}

/// What a sleeper gets: its messages in order, some of them perhaps; how many.
fn drain(no: usize, house: &House) -> usize {
    let (mut client, end) = (sleeper(no, house), format!("end/{no}"));
    let mut sender = Options::new("sender").connect(house.address);
    sender.publish_with(&end, "end", QoS::AtLeastOnce, true);
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        ..SubscriptionOptions::default()
    };
    // Behind what waits.
    client.send_subscribe(&end, options);
    let (mut next, mut came) = (0, 0);
    loop {
        let said = client.text();
        if said == "end" {
            return came;
        }
        let number = (next..MESSAGES).find(|number| said == text(no, *number));
        next = number.expect("a message of its own, in order") + 1;
        came += 1;
    }
}

#[test]
fn a_file_that_was_cut_off_is_no_silent_wrong_answer() {
    let mut served = 0;
    for tenths in [3, 6, 8, 9] {
        let mut house = filled();
        let bytes = fs::read(house.records()).expect("the file of the store");
        fs::write(house.records(), &bytes[..bytes.len() * tenths / 10]).expect("written");
        let directory = house.directory();
        let directory = directory.to_str().expect("a path of ours");
        let looked = house.host.run(&["store", "check", "--data-dir", directory]);
        let said = text_of(&looked.stdout) + &text_of(&looked.stderr);
        if said.contains("is no store of Ermine's") {
            let (said, _) = house.refused(NAME, &[]);
            assert!(said.contains("'ermine store restore DIR'"), "{said}");
            continue;
        }
        house.start_again();
        let kept = retained(&house);
        for (topic, said) in &kept {
            let number = topic["kept/".len()..].parse().expect("a number");
            assert_eq!(*said, text(9, number));
        }
        let came: usize = (0..SLEEPERS).map(|no| drain(no, &house)).sum();
        served += came;
        if came < SLEEPERS * MESSAGES || kept.len() < MESSAGES {
            says(&house, &["lost: "]);
        }
    }
    assert!(served > 0, "nothing was served of any of them");
}
