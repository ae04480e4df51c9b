//! What an operator meets: directories that are not to be used, disks that take nothing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ermine::mqtt::packet::{Packet, QoS};
use ermine::mqtt::reason::ReasonCode;

use crate::harness::client::{Client, Options};
use crate::harness::host::eventually;
use crate::house::{Ending, House, NAME, publication};
use crate::trial::say;

/// Status of a node that does not start because of what it was given.
const USAGE: i32 = 64;

/// A session that is away, with its subscription to `mail/#`.
fn sleeper(house: &House) {
    let mut client = Options::v5("sleeper").persistent().connect(house.address);
    client.subscribe("mail/#", QoS::AtLeastOnce);
    client.disconnect();
}

fn wake(house: &House) -> Client {
    let client = Options::v5("sleeper").persistent().connect(house.address);
    assert!(client.connack.session_present);
    client
}

#[test]
fn the_data_of_another_node_is_left_alone() {
    let mut house = House::start("");
    sleeper(&house);
    house.end(Ending::Stopped);
    let (said, status) = house.refused("somebody@127.0.0.1", &[]);
    assert_eq!(status, USAGE, "{said}");
    assert!(
        said.contains(NAME) && said.contains("somebody@127.0.0.1"),
        "{said}"
    );
    house.start_again();
    wake(&house);
}

#[test]
fn data_that_another_process_uses_are_left_alone() {
    let house = House::start("");
    let port = crate::harness::host::free_port().to_string();
    // Another registry, so that nothing but the directory is in common.
    let (said, status) = house.refused(NAME, &["--registry-port", &port]);
    assert_eq!(status, USAGE, "{said}");
    assert!(said.contains(&house.node().pid().to_string()), "{said}");
    sleeper(&house);
    wake(&house);
}

/// The records of a store, as redb has them.
const RECORDS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");

/// CRC-32, one bit after the other.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xEDB8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn data_of_a_newer_version_are_left_alone() {
    let mut house = House::start("");
    house.end(Ending::Stopped);
    let database = redb::Database::open(house.records()).expect("the file of the store");
    let write = database.begin_write().expect("a transaction");
    {
        let mut records = write.open_table(RECORDS).expect("its table");
        // The header is the only record of an empty store: checksum (4), version (1), format (1), …
        let (key, mut value) = {
            let (key, value) = redb::ReadableTable::first(&records)
                .expect("read")
                .expect("the header");
            (key.value().to_vec(), value.value().to_vec())
        };
        value[5] += 1;
        let sum = crc(&[&key, &value[4..]].concat());
        value[..4].copy_from_slice(&sum.to_le_bytes());
        records.insert(key.as_slice(), value.as_slice()).expect("written");
    }
    write.commit().expect("committed");
    drop(database);
    let (said, status) = house.refused(NAME, &[]);
    assert_eq!(status, USAGE, "{said}");
    assert!(said.contains("format 3"), "{said}");
}

/// A small file system of its own at a directory, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn at(directory: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(directory).expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "ermine-test"])
            .arg(directory)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(directory.to_owned())),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                say(&format!("not tried, as nothing can be mounted here: {why}"));
                None
            }
            Err(error) => {
                say(&format!("not tried, as nothing can be mounted here: {error}"));
                None
            }
        }
    }

    fn again(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(&self.0).status();
        assert!(status.expect("mount runs").success(), "{options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_with_a_sentence() {
    let mut house = House::empty("");
    let Some(mount) = Mount::at(&house.directory(), "size=16m,mode=700") else {
        return;
    };
    house.start_again();
    sleeper(&house);
    house.end(Ending::Stopped);
    mount.again("ro");
    let (said, status) = house.refused(NAME, &[]);
    assert_eq!(status, USAGE, "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    mount.again("rw");
    house.start_again();
    wake(&house);
}

/// Takes all the room there is.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = File::create(&path).expect("created");
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

/// Publishes QoS 1 messages until one is refused; how many were taken.
fn publish_until_refused(sender: &mut Client, most: usize) -> usize {
    for number in 0..most {
        let payload = format!("{number:0>8192}");
        let id = sender.send_publish("mail/x", payload.as_bytes(), QoS::AtLeastOnce, false);
        match sender.next() {
            Packet::PubAck(ack) if ack.reason == ReasonCode::QuotaExceeded => return number,
            Packet::PubAck(ack) => assert_eq!((Some(ack.packet_id), ack.reason as u8), (id, 0)),
            other => panic!("instead of PUBACK: {other:?}"),
        }
    }
    panic!("{most} messages were taken by a disk that is full");
}

/// Traffic that the store has no part in.
fn nobody_else_notices(house: &House) {
    let mut online = Options::v5("online").connect(house.address);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        online.subscribe("chat", qos);
        let mut sender = Options::new("chatter").connect(house.address);
        sender.publish("chat", "hello", qos);
        assert_eq!(online.text(), "hello");
        online.assert_quiet();
    }
}

#[test]
fn a_full_disk_refuses_what_must_last_serves_the_rest_and_recovers() {
    let mut house = House::empty("[limits]\nqueue_len_max = 100000\nqueue_bytes_max = 1073741824\n");
    let Some(_mount) = Mount::at(&house.directory(), "size=32m,mode=700") else {
        return;
    };
    house.start_again();
    sleeper(&house);
    let filler = fill(&house.directory());
    let mut sender = Options::v5("sender").connect(house.address);
    let taken = publish_until_refused(&mut sender, 10_000);
    house.node().await_log("the alarm", |line| {
        line.contains("ERROR") && line.contains("store") && line.contains("No space left")
    });
    nobody_else_notices(&house);
    let mut old = Options::new("old").connect(house.address);
    old.send_publish("mail/x", b"refused", QoS::AtLeastOnce, false);
    assert_eq!(old.assert_closed(), None, "3.1.1 has no word for it");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        // At QoS 2 what was refused must not come.
        let payload: &[u8] = match qos {
            QoS::ExactlyOnce => b"refused for good",
            _ => b"refused",
        };
        let publish = publication(900, "mail/x", payload, qos, false);
        sender.send(&Packet::Publish(publish));
        match sender.next() {
            Packet::PubAck(ack) | Packet::PubRec(ack) => assert_eq!(ack.reason, ReasonCode::QuotaExceeded),
            other => panic!("instead of an acknowledgement: {other:?}"),
        }
    }
    std::fs::remove_file(filler).expect("removed");
    eventually("the store takes messages again", || {
        let id = sender.send_publish("mail/x", b"room again", QoS::AtLeastOnce, false);
        match sender.next() {
            Packet::PubAck(ack) if ack.reason == ReasonCode::Success => id,
            _ => None,
        }
    });
    house.node().await_log("the end of the alarm", |line| {
        line.contains("the store is sound again")
    });
    nobody_else_notices(&house);
    house.again_after(Ending::Killed);
    let mut client = wake(&house);
    for number in 0..taken {
        assert_eq!(
            client.text(),
            format!("{number:0>8192}"),
            "of {taken} that were taken"
        );
    }
    // Of those that were refused at QoS 1 some may come: nobody knows what a failing disk has.
    let refused = [format!("{taken:0>8192}"), "refused".into(), "room again".into()];
    let mut said = client.text();
    while said != "room again" {
        assert!(refused.contains(&said), "{said}");
        said = client.text();
    }
    client.assert_quiet();
}
